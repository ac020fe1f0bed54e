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
        // Every number is looked at, so that vectors can be; then the first one that is wrong is looked for.
        let is_scale = |s: f64| (s > 0.0) & (s < f64::INFINITY);
        if !self.scale.iter().fold(true, |fine, &s| fine & is_scale(s))
            && let Some(s) = self.scale.iter().find(|s| !is_scale(**s))
        {
            return Err(Error::invalid("encoding_scale", format!("scale {s} is not a positive number"))
                .help("a scale must be finite and above zero"));
        }
        let (lo, hi) = (self.qmin(), self.qmax());
        let is_code = |z: i64| (lo <= z) & (z <= hi);
        if !self.zero_point.iter().fold(true, |fine, &z| fine & is_code(z))
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
