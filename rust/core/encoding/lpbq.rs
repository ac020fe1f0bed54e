//! Low-power block quantization: block scales as small integers times a per-channel scale.

use super::{Encoding, Granularity, Lpbq, Rounding, ScaleIndex};
use crate::error::{Error, Result};
use crate::num::float::round_integral;

impl Lpbq {
    /// Checks the parts against each other and against the encoding that holds them.
    pub(super) fn validate(&self, encoding: &Encoding) -> Result<()> {
        let fail = |message: String| Err(Error::invalid("encoding_lpbq", message));
        if self.compressed_bitwidth != encoding.bitwidth {
            return fail(format!(
                "compressed bitwidth {} and code bitwidth {} differ",
                self.compressed_bitwidth, encoding.bitwidth
            ));
        }
        if self.decompressed_bitwidth <= self.compressed_bitwidth || self.decompressed_bitwidth > 32 {
            return fail(format!(
                "decompressed bitwidth {} is not above the compressed {} and at most 32",
                self.decompressed_bitwidth, self.compressed_bitwidth
            ));
        }
        let Granularity::PerBlock { axis, .. } = encoding.granularity else {
            return fail("needs a block size".into());
        };
        if axis == self.channel_axis {
            return fail(format!("axis {axis} is both the channel axis and the block axis"));
        }
        if self.per_block_int_scale.len() != encoding.scale.len() {
            return fail(format!(
                "{} integer scales for {} blocks",
                self.per_block_int_scale.len(),
                encoding.scale.len()
            ));
        }
        let largest = self.largest_int_scale();
        if let Some(k) = self.per_block_int_scale.iter().find(|&&k| k == 0 || u64::from(k) > largest) {
            return fail(format!("integer scale {k} is not in 1..={largest}"));
        }
        if let Some(s) = self.per_channel_scale.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return fail(format!("channel scale {s} is not a positive number"));
        }
        if encoding.zero_point.iter().any(|&z| z != 0) || !encoding.signed {
            return fail("the grid must be signed and symmetric".into());
        }
        Ok(())
    }

    /// `2^(decompressed - compressed)`.
    pub fn largest_int_scale(&self) -> u64 {
        1u64 << (self.decompressed_bitwidth - self.compressed_bitwidth)
    }
}

impl Encoding {
    /// Replaces per-block scales by integers times a channel scale, for a tensor of `shape`:
    /// `channel = max(block scales) / 2^(D - b)`, `k = clamp(half_even(block / channel), 1, 2^(D - b))`,
    /// `scale = k · channel` (aimet-torch's grouped block quantizer; products of an f32 and k are exact in f64).
    ///
    /// # Errors
    /// `encoding_lpbq` unless the encoding is signed, symmetric and per block along an axis that is not `channel_axis`.
    pub fn to_lpbq(&self, shape: &[usize], channel_axis: usize, decompressed_bitwidth: u32) -> Result<Encoding> {
        let Granularity::PerBlock { axis, block_size } = self.granularity else {
            return Err(Error::invalid("encoding_lpbq", "the encoding is not per block"));
        };
        self.validate_shape(shape)?;
        if channel_axis >= shape.len() || channel_axis == axis {
            return Err(Error::invalid(
                "encoding_lpbq",
                format!("channel axis {channel_axis} with block axis {axis} in shape {shape:?}"),
            ));
        }
        if decompressed_bitwidth <= self.bitwidth || decompressed_bitwidth > 32 {
            return Err(Error::invalid(
                "encoding_lpbq",
                format!("decompressed bitwidth {decompressed_bitwidth} is not in {}..=32", self.bitwidth + 1),
            ));
        }
        let mut blocks = shape.to_vec();
        blocks[axis] /= block_size;
        let channels = ScaleIndex::per_channel(&blocks, channel_axis)?;
        let largest = (1u64 << (decompressed_bitwidth - self.bitwidth)) as f64;
        let mut peak = vec![0f64; shape[channel_axis]];
        for (i, &scale) in self.scale.iter().enumerate() {
            let peak = &mut peak[channels.of(i)];
            *peak = peak.max(scale);
        }
        let per_channel_scale: Vec<f64> = peak.iter().map(|s| s / largest).collect();
        let mut scale = Vec::with_capacity(self.scale.len());
        let mut per_block_int_scale = Vec::with_capacity(self.scale.len());
        for (i, &block) in self.scale.iter().enumerate() {
            let channel = per_channel_scale[channels.of(i)];
            let k = round_integral(block / channel, Rounding::HalfEven).clamp(1.0, largest);
            per_block_int_scale.push(k as u32);
            scale.push(k * channel);
        }
        let encoding = Encoding {
            scale,
            lpbq: Some(Lpbq {
                compressed_bitwidth: self.bitwidth,
                decompressed_bitwidth,
                per_block_int_scale,
                per_channel_scale,
                channel_axis,
            }),
            ..self.clone()
        };
        encoding.validate()?;
        Ok(encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(scale: Vec<f64>, axis: usize) -> Encoding {
        Encoding {
            zero_point: vec![0; scale.len()],
            scale,
            granularity: Granularity::PerBlock { axis, block_size: 4 },
            ..Encoding::per_tensor(1.0, 0, 4, true).unwrap()
        }
    }

    #[test]
    fn block_scales_become_integers_per_channel() {
        let encoding = blocks(vec![16.0, 8.5, 0.1, 32.0], 1).to_lpbq(&[2, 8], 0, 8).unwrap();
        let lpbq = encoding.lpbq.as_ref().unwrap();
        assert_eq!(lpbq.per_channel_scale, [1.0, 2.0]);
        // 8.5 is a tie and goes to the even 8; 0.05 is raised to 1.
        assert_eq!(lpbq.per_block_int_scale, [16, 8, 1, 16]);
        assert_eq!(encoding.scale, [16.0, 8.0, 2.0, 32.0]);
    }

    #[test]
    fn channels_may_be_the_last_axis() {
        // Shape [8, 2] in blocks along axis 0: scales are [block][channel].
        let encoding = blocks(vec![16.0, 32.0, 4.0, 4.0], 0).to_lpbq(&[8, 2], 1, 8).unwrap();
        assert_eq!(encoding.lpbq.unwrap().per_block_int_scale, [16, 16, 4, 2]);
    }

    #[test]
    fn impossible_requests_are_refused() {
        let encoding = blocks(vec![1.0; 4], 1);
        for (shape, channel, bits) in [([2, 8], 1, 8), ([2, 8], 2, 8), ([2, 8], 0, 4), ([2, 8], 0, 33)] {
            assert_eq!(encoding.to_lpbq(&shape, channel, bits).unwrap_err().code(), "encoding_lpbq");
        }
        assert_eq!(encoding.to_lpbq(&[4, 8], 0, 8).unwrap_err().code(), "encoding_shape");
    }
}
