//! Access to the arguments of a kernel.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Argument `i`, which must be present.
pub fn required<'a>(inputs: &[Option<&'a Tensor>], i: usize) -> Result<&'a Tensor> {
    inputs
        .get(i)
        .copied()
        .flatten()
        .ok_or_else(|| Error::invalid("input_missing", format!("argument {i} of the kernel is missing")))
}
