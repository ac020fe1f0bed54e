//! What a kernel gives.

use crate::tensor::Tensor;
use smallvec::SmallVec;
use std::ops::{Deref, DerefMut};

/// Outputs in the node's order. Lists of up to two need no memory of their own.
#[derive(Debug, Clone, Default)]
pub struct Outputs(SmallVec<[Tensor; 2]>);

impl Outputs {
    /// The first output; panics where there is none.
    pub fn into_first(self) -> Tensor {
        self.0.into_iter().next().expect("an output")
    }
}

impl<const N: usize> From<[Tensor; N]> for Outputs {
    fn from(outputs: [Tensor; N]) -> Self {
        outputs.into_iter().collect()
    }
}

impl From<Vec<Tensor>> for Outputs {
    fn from(outputs: Vec<Tensor>) -> Self {
        Outputs(outputs.into())
    }
}

impl FromIterator<Tensor> for Outputs {
    fn from_iter<I: IntoIterator<Item = Tensor>>(outputs: I) -> Self {
        Outputs(outputs.into_iter().collect())
    }
}

impl IntoIterator for Outputs {
    type Item = Tensor;
    type IntoIter = smallvec::IntoIter<[Tensor; 2]>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Deref for Outputs {
    type Target = [Tensor];

    fn deref(&self) -> &[Tensor] {
        &self.0
    }
}

impl DerefMut for Outputs {
    fn deref_mut(&mut self) -> &mut [Tensor] {
        &mut self.0
    }
}
