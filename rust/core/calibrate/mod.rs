//! Calibration: from the numbers that a tensor takes to its encoding.
//!
//! An [`Observer`] sees batches of a tensor's values and settles on a range; [`FormulaOptions`] turn the range into a
//! grid. Observers are deterministic: the same batches in the same order give the same range.

mod histogram;
mod search;
mod weights;

pub use histogram::{Histogram, Percentile};
pub use search::GridSearch;
pub use weights::{weight_encoding, weight_encoding_in_blocks};

use crate::encoding::{Encoding, FormulaOptions};
use crate::error::{Error, Result};

/// Sees the values of a tensor and settles on a range.
pub trait Observer {
    /// Takes in one batch.
    ///
    /// # Errors
    /// `calibrate_nan` with the index of the first NaN in the batch; histograms refuse infinities too
    /// (`calibrate_infinite`). A refused batch changes nothing.
    fn observe(&mut self, batch: &[f32]) -> Result<()>;

    /// The range for a grid of `options`; contains zero.
    ///
    /// # Errors
    /// `calibrate_empty` where no value was seen.
    fn range(&self, options: &FormulaOptions) -> Result<(f64, f64)>;

    /// The encoding of the range.
    ///
    /// # Errors
    /// Those of [`Observer::range`] and of [`FormulaOptions::encoding`].
    fn finish(&self, options: &FormulaOptions) -> Result<Encoding> {
        let (min, max) = self.range(options)?;
        options.encoding(min, max)
    }
}

/// Smallest and largest value of all batches; infinities count as the largest finite f32.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MinMax {
    range: Option<(f32, f32)>,
}

impl MinMax {
    /// An observer that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Observer for MinMax {
    fn observe(&mut self, batch: &[f32]) -> Result<()> {
        if let Some((lo, hi)) = finite_range(batch)? {
            let (min, max) = self.range.unwrap_or((lo, hi));
            self.range = Some((min.min(lo), max.max(hi)));
        }
        Ok(())
    }

    fn range(&self, _: &FormulaOptions) -> Result<(f64, f64)> {
        let (min, max) = self.range.ok_or_else(empty)?;
        Ok((f64::from(min.min(0.0)), f64::from(max.max(0.0))))
    }
}

/// Smallest and largest value, infinities clamped to the finite f32; `None` for no values.
fn finite_range(batch: &[f32]) -> Result<Option<(f32, f32)>> {
    let mut range: Option<(f32, f32)> = None;
    for (i, &x) in batch.iter().enumerate() {
        if x.is_nan() {
            return Err(Error::invalid("calibrate_nan", format!("element {i} of the batch is NaN"))
                .help("look for the operator or the input file that made it"));
        }
        let x = x.clamp(f32::MIN, f32::MAX);
        range = Some(range.map_or((x, x), |(lo, hi)| (lo.min(x), hi.max(x))));
    }
    Ok(range)
}

fn empty() -> Error {
    Error::invalid("calibrate_empty", "no value was observed").help("give at least one batch that is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Formula;

    #[test]
    fn min_max_runs_over_all_batches_and_keeps_zero_inside() {
        let mut observer = MinMax::new();
        let options = FormulaOptions::activation(Formula::AimetOnnx, 8);
        assert_eq!(observer.finish(&options).unwrap_err().code(), "calibrate_empty");
        observer.observe(&[]).unwrap();
        assert_eq!(observer.finish(&options).unwrap_err().code(), "calibrate_empty");
        observer.observe(&[1.0, 2.0]).unwrap();
        assert_eq!(observer.range(&options).unwrap(), (0.0, 2.0));
        observer.observe(&[-128.0, 127.0]).unwrap();
        let encoding = observer.finish(&options).unwrap();
        assert_eq!((encoding.scale[0], encoding.zero_point[0]), (1.0, 128));
    }

    #[test]
    fn nan_is_an_error_and_changes_nothing() {
        let mut observer = MinMax::new();
        observer.observe(&[1.0]).unwrap();
        let error = observer.observe(&[9.0, f32::NAN]).unwrap_err();
        assert_eq!(error.code(), "calibrate_nan");
        assert!(error.message().contains("element 1"));
        let options = FormulaOptions::activation(Formula::AimetOnnx, 8);
        assert_eq!(observer.range(&options).unwrap(), (0.0, 1.0));
        observer.observe(&[f32::INFINITY]).unwrap();
        assert_eq!(observer.range(&options).unwrap(), (0.0, f64::from(f32::MAX)));
    }
}
