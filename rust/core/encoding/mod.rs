//! Encodings: how the integers of a tensor stand for real numbers.
//!
//! `real = scale · (code - zero_point)`. Offsets (`-zero_point`) occur only in AIMET and QNN files.

mod fake_quantize;
pub mod file;
pub mod formula;
mod lpbq;
pub mod quantize;
mod storage;

use crate::error::{Error, Result};

pub use crate::num::Rounding;
pub use fake_quantize::{FakeQuantized, fake_quantize};
pub use formula::{Formula, FormulaOptions};
pub use quantize::{QuantizeRule, ScaleIndex, Scaling, ZeroPointOrder, dequantize, quantize};

/// How scales are shared among the elements of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granularity {
    /// One scale.
    PerTensor,
    /// One scale per index of `axis`.
    PerChannel {
        /// The axis, counted from the front.
        axis: usize,
    },
    /// One scale per block of `block_size` along `axis`, for each index of all other axes. Scales lie in row-major
    /// order of the tensor's shape with `axis` divided by `block_size`.
    PerBlock {
        /// The axis that is divided.
        axis: usize,
        /// Elements per block.
        block_size: usize,
    },
}

/// A block scale written as a small integer times a per-channel scale (low-power block quantization).
#[derive(Debug, Clone, PartialEq)]
pub struct Lpbq {
    /// Bits of the codes in the file.
    pub compressed_bitwidth: u32,
    /// Bits after decompression: the integer scale is below or equal to `2^(decompressed - compressed)`.
    pub decompressed_bitwidth: u32,
    /// Integer scale per block, in the order of `Encoding::scale`.
    pub per_block_int_scale: Vec<u32>,
    /// Float scale per channel.
    pub per_channel_scale: Vec<f64>,
    /// The channel axis.
    pub channel_axis: usize,
}

/// The grid of integers and its scale. Scales are f64 that hold the file's number exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoding {
    /// Positive and finite; one per tensor, channel or block.
    pub scale: Vec<f64>,
    /// As many as scales.
    pub zero_point: Vec<i64>,
    /// 2 to 32; or 48, signed: the accumulators of 16-bit networks.
    pub bitwidth: u32,
    /// Whether codes are signed.
    pub signed: bool,
    /// Whether the producer asked for a symmetric grid.
    pub symmetric: bool,
    /// Whether the lowest code is left out (`-127..=127`).
    pub narrow_range: bool,
    /// How scales are shared.
    pub granularity: Granularity,
    /// Set where block scales are integers times a per-channel scale.
    pub lpbq: Option<Lpbq>,
}

impl Encoding {
    /// A per-tensor encoding.
    pub fn per_tensor(scale: f64, zero_point: i64, bitwidth: u32, signed: bool) -> Result<Self> {
        let encoding = Encoding {
            scale: vec![scale],
            zero_point: vec![zero_point],
            bitwidth,
            signed,
            symmetric: false,
            narrow_range: false,
            granularity: Granularity::PerTensor,
            lpbq: None,
        };
        encoding.validate()?;
        Ok(encoding)
    }

    /// Smallest code.
    pub fn qmin(&self) -> i64 {
        if self.signed {
            -(1i64 << (self.bitwidth - 1)) + i64::from(self.narrow_range)
        } else {
            i64::from(self.narrow_range)
        }
    }

    /// Largest code.
    pub fn qmax(&self) -> i64 {
        if self.signed { (1i64 << (self.bitwidth - 1)) - 1 } else { (1i64 << self.bitwidth) - 1 }
    }

    /// Checks everything that makes an encoding usable.
    pub fn validate(&self) -> Result<()> {
        let exists = (2..=32).contains(&self.bitwidth) || (self.bitwidth == 48 && self.signed);
        if !exists {
            return Err(Error::invalid("encoding_bitwidth", format!("bitwidth {} is not in 2..=32", self.bitwidth)));
        }
        if self.scale.is_empty() || self.scale.len() != self.zero_point.len() {
            return Err(Error::invalid(
                "encoding_length",
                format!("{} scales and {} zero points", self.scale.len(), self.zero_point.len()),
            ));
        }
        if let Granularity::PerBlock { block_size: 0, .. } = self.granularity {
            return Err(
                Error::invalid("encoding_block", "a block has no elements").help("block_size must be 1 or more")
            );
        }
        if self.granularity == Granularity::PerTensor && self.scale.len() != 1 {
            return Err(Error::invalid("encoding_length", format!("{} scales for one tensor", self.scale.len())));
        }
        // All numbers at once, in vectors; then the first one that is wrong is looked for.
        if !all_scales(&self.scale)
            && let Some(s) = self.scale.iter().find(|s| !is_scale(**s))
        {
            return Err(Error::invalid("encoding_scale", format!("scale {s} is not a positive number"))
                .help("a scale must be finite and above zero"));
        }
        let (lo, hi) = (self.qmin(), self.qmax());
        let is_code = |z: i64| lo <= z && z <= hi;
        let all_zero = self.zero_point.iter().fold(0, |bits, &z| bits | z) == 0;
        if !(all_zero && is_code(0))
            && let Some(z) = self.zero_point.iter().find(|z| !is_code(**z))
        {
            return Err(Error::invalid("encoding_zero_point", format!("zero point {z} is outside {lo}..={hi}")));
        }
        if let Some(lpbq) = &self.lpbq {
            lpbq.validate(self)?;
        }
        Ok(())
    }

    /// Whether both have the same codes for the same reals, per tensor.
    pub fn same_grid(&self, other: &Encoding) -> bool {
        self.scale == other.scale
            && self.zero_point == other.zero_point
            && self.bitwidth == other.bitwidth
            && self.signed == other.signed
            && self.narrow_range == other.narrow_range
            && self.granularity == other.granularity
    }
}

/// Whether a number is above zero and finite.
fn is_scale(value: f64) -> bool {
    value > 0.0 && value < f64::INFINITY
}

/// [`is_scale`] of all, in vectors.
fn all_scales(values: &[f64]) -> bool {
    const LANES: usize = 8;
    let (mut least, mut finite) = ([f64::INFINITY; LANES], [0.0; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            least[i] = if chunk[i] < least[i] { chunk[i] } else { least[i] };
            // Zero, or NaN from then on where a value is not finite.
            finite[i] += chunk[i] * 0.0;
        }
    }
    rest.iter().all(|&v| is_scale(v)) && least.iter().all(|&v| v > 0.0) && finite == [0.0; LANES]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_scale_is_found_at_any_place() {
        for length in 1..=20 {
            assert!(all_scales(&vec![5e-324; length]) && all_scales(&vec![f64::MAX; length]));
            for place in 0..length {
                for wrong in [0.0, -0.0, -1.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    let mut values = vec![0.5; length];
                    values[place] = wrong;
                    assert!(!all_scales(&values), "{wrong} at {place} of {length}");
                }
            }
        }
    }

    #[test]
    fn every_zero_point_lies_among_the_codes() {
        let of = |zero_point: Vec<i64>| Encoding {
            scale: vec![0.5; zero_point.len()],
            zero_point,
            granularity: Granularity::PerChannel { axis: 0 },
            ..Encoding::per_tensor(0.5, 0, 8, true).unwrap()
        };
        assert!(of(vec![0; 9]).validate().is_ok() && of(vec![-128, 127, 3]).validate().is_ok());
        for (wrong, place) in [(128, 0), (-129, 4), (1 << 40, 8), (i64::MIN, 2)] {
            let mut zero_point = vec![0; 9];
            zero_point[place] = wrong;
            assert_eq!(of(zero_point).validate().unwrap_err().code(), "encoding_zero_point");
        }
    }
}
