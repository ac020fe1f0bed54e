//! How two runs of one model differ, tensor by tensor.
//!
//! Differences are counted in *quanta*: steps of the tensor's grid. Where both runs hold codes of the same encoding the
//! difference of two codes is exact; where a run holds reals, quanta are the difference of the reals over the scale.
//! Tensors without an encoding on either side have no quanta.

mod tally;

pub use tally::{Comparison, Unpaired};

use crate::error::Result;
use crate::exec::Captured;
use serde::Serialize;

/// In which units a tensor was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Both runs hold codes of the same encoding.
    Codes,
    /// Reals over the scale of the tensor's encoding.
    Scaled,
    /// Reals; neither run has an encoding.
    Reals,
}

/// The first element that differs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FirstDifference {
    /// Which sample, counted from zero.
    pub sample: usize,
    /// Flat index in ONNX's order.
    pub index: usize,
    /// Code (or real, where there are no codes) of the run under test.
    pub left: f64,
    /// The same of the reference.
    pub right: f64,
}

/// How one tensor differs between two runs. The second run is the reference: signal powers are its.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorDiff {
    /// Tensor name.
    pub name: String,
    /// Units of the comparison.
    pub basis: Basis,
    /// Number of elements, over all samples.
    pub elements: u64,
    /// Elements that differ: by a code, by at least half a scale, or (without scale) in their real value.
    pub differing: u64,
    /// Share of elements that do not differ, 0 to 1; 1 for a tensor without elements.
    pub exact: f64,
    /// Largest difference in quanta, to the nearest whole one.
    pub off_by_n: Option<u64>,
    /// Mean of |difference| in quanta.
    pub l1_quanta: Option<f64>,
    /// Mean of the squared difference in quanta.
    pub mse_quanta: Option<f64>,
    /// Mean squared difference of the reals.
    pub mse: f64,
    /// Cosine of the angle between the two tensors of reals; 1 where both are zero, 0 where one is.
    pub cosine: f64,
    /// `10·log10(Σ right² / Σ (left - right)²)`; `None` where the reals are equal.
    pub sqnr_db: Option<f64>,
    /// Largest difference of the reals.
    pub max_abs: f64,
    /// The first element that differs.
    pub first: Option<FirstDifference>,
}

impl TensorDiff {
    /// Whether the tensor lies within `quanta`, or, where it has no quanta, within `reals`.
    pub fn within(&self, quanta: u64, reals: f64) -> bool {
        match self.off_by_n {
            Some(n) => n <= quanta,
            None => self.max_abs <= reals,
        }
    }
}

/// Compares one sample of two runs. Pairs are found by name, then by alias; the order is that of `left`.
///
/// # Errors
/// `diff_shape` where a tensor has two numbers of elements.
pub fn compare(left: &[Captured], right: &[Captured]) -> Result<Vec<TensorDiff>> {
    let mut comparison = Comparison::new();
    comparison.add(left, right)?;
    Ok(comparison.finish())
}

#[cfg(test)]
mod tests;
