//! What an encoding says about a tensor: number of scales, type of the codes, range of the reals.

use super::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor, element_count};

impl Encoding {
    /// Number of scales: 1 per tensor, else one per channel or block.
    pub fn channel_count(&self) -> usize {
        self.scale.len()
    }

    /// Scale of channel (or block) `index`; a per-tensor scale serves every index.
    pub fn scale_of(&self, index: usize) -> Option<f64> {
        self.scale.get(if self.granularity == Granularity::PerTensor { 0 } else { index }).copied()
    }

    /// Zero point of channel (or block) `index`; a per-tensor one serves every index.
    pub fn zero_point_of(&self, index: usize) -> Option<i64> {
        self.zero_point.get(if self.granularity == Granularity::PerTensor { 0 } else { index }).copied()
    }

    /// Smallest real number of channel (or block) `index` that has a code.
    pub fn min_of(&self, index: usize) -> Option<f64> {
        Some(self.scale_of(index)? * (self.qmin() - self.zero_point_of(index)?) as f64)
    }

    /// Largest real number of channel (or block) `index` that has a code.
    pub fn max_of(&self, index: usize) -> Option<f64> {
        Some(self.scale_of(index)? * (self.qmax() - self.zero_point_of(index)?) as f64)
    }

    /// Smallest real number that has a code in any channel.
    pub fn min(&self) -> f64 {
        (0..self.scale.len()).filter_map(|i| self.min_of(i)).fold(f64::INFINITY, f64::min)
    }

    /// Largest real number that has a code in any channel.
    pub fn max(&self) -> f64 {
        (0..self.scale.len()).filter_map(|i| self.max_of(i)).fold(f64::NEG_INFINITY, f64::max)
    }

    /// Type that holds the codes in memory: 8 bits up to bitwidth 8, 16 up to 16, 32 up to 32, else 64.
    pub fn storage_dtype(&self) -> DType {
        match (self.bitwidth, self.signed) {
            (..=8, true) => DType::I8,
            (..=8, false) => DType::U8,
            (..=16, true) => DType::I16,
            (..=16, false) => DType::U16,
            (..=32, true) => DType::I32,
            (_, true) => DType::I64,
            (_, false) => DType::U32,
        }
    }

    /// A tensor of [`Encoding::storage_dtype`] from codes.
    ///
    /// # Errors
    /// `tensor_shape` where count and shape differ, `encoding_code` where a code lies outside the grid.
    pub fn codes_to_tensor(&self, shape: &[usize], codes: Vec<i32>) -> Result<Tensor> {
        let (lo, hi) = (self.qmin(), self.qmax());
        if let Some(i) = codes.iter().position(|&q| !(lo..=hi).contains(&i64::from(q))) {
            return Err(Error::invalid(
                "encoding_code",
                format!("element {i} is {}, outside the codes {lo}..={hi}", codes[i]),
            ));
        }
        let data = match self.storage_dtype() {
            DType::I8 => Data::I8(codes.into_iter().map(|q| q as i8).collect()),
            DType::U8 => Data::U8(codes.into_iter().map(|q| q as u8).collect()),
            DType::I16 => Data::I16(codes.into_iter().map(|q| q as i16).collect()),
            DType::U16 => Data::U16(codes.into_iter().map(|q| q as u16).collect()),
            DType::I32 => Data::I32(codes.into()),
            DType::I64 => Data::I64(codes.into_iter().map(i64::from).collect()),
            _ => Data::U32(codes.into_iter().map(|q| q as u32).collect()),
        };
        Tensor::new(shape, data)
    }

    /// Checks that the encoding fits a tensor of `shape`: the axis exists, blocks divide it, and there is one scale for
    /// every channel or block.
    pub fn validate_shape(&self, shape: &[usize]) -> Result<()> {
        let expected = match self.granularity {
            Granularity::PerTensor => 1,
            Granularity::PerChannel { axis } => *shape.get(axis).ok_or_else(|| no_axis(axis, shape))?,
            Granularity::PerBlock { axis, block_size } => {
                let length = *shape.get(axis).ok_or_else(|| no_axis(axis, shape))?;
                if block_size == 0 || length % block_size != 0 {
                    return Err(Error::invalid(
                        "encoding_block",
                        format!("blocks of {block_size} do not divide axis {axis} of shape {shape:?}"),
                    ));
                }
                element_count(shape)? / block_size
            }
        };
        if self.scale.len() != expected || self.zero_point.len() != expected {
            return Err(Error::invalid(
                "encoding_shape",
                format!(
                    "{} scales and {} zero points for a tensor of shape {shape:?} that needs {expected}",
                    self.scale.len(),
                    self.zero_point.len()
                ),
            )
            .help("compare the tensor's shape with the axis and the block size of its encoding"));
        }
        Ok(())
    }
}

fn no_axis(axis: usize, shape: &[usize]) -> Error {
    Error::invalid("encoding_axis", format!("axis {axis} does not exist in a tensor of shape {shape:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_channel(axis: usize, scales: usize) -> Encoding {
        Encoding {
            scale: (1..=scales).map(|s| s as f64).collect(),
            zero_point: vec![0; scales],
            granularity: Granularity::PerChannel { axis },
            ..Encoding::per_tensor(1.0, 0, 8, true).unwrap()
        }
    }

    #[test]
    fn codes_are_stored_in_the_narrowest_type() {
        for (bits, signed, dtype) in [
            (2, true, DType::I8),
            (4, false, DType::U8),
            (8, false, DType::U8),
            (9, true, DType::I16),
            (16, false, DType::U16),
            (17, false, DType::U32),
            (32, true, DType::I32),
        ] {
            let encoding = Encoding::per_tensor(1.0, 0, bits, signed).unwrap();
            assert_eq!(encoding.storage_dtype(), dtype);
            assert_eq!(encoding.codes_to_tensor(&[1], vec![1]).unwrap().dtype(), dtype);
        }
        let int4 = Encoding::per_tensor(1.0, 0, 4, true).unwrap();
        assert_eq!(int4.codes_to_tensor(&[1], vec![8]).unwrap_err().code(), "encoding_code");
        assert_eq!(int4.codes_to_tensor(&[2], vec![7]).unwrap_err().code(), "tensor_shape");
    }

    #[test]
    fn the_range_covers_all_channels() {
        let encoding = per_channel(0, 3);
        assert_eq!((encoding.min(), encoding.max()), (-384.0, 381.0));
        assert_eq!((encoding.min_of(0), encoding.max_of(1)), (Some(-128.0), Some(254.0)));
        assert_eq!((encoding.scale_of(2), encoding.scale_of(3)), (Some(3.0), None));
        assert_eq!(Encoding::per_tensor(2.0, 0, 8, true).unwrap().scale_of(7), Some(2.0));
    }

    #[test]
    fn scales_must_fit_the_shape() {
        per_channel(1, 3).validate_shape(&[2, 3]).unwrap();
        assert_eq!(per_channel(0, 3).validate_shape(&[2, 3]).unwrap_err().code(), "encoding_shape");
        assert_eq!(per_channel(2, 3).validate_shape(&[2, 3]).unwrap_err().code(), "encoding_axis");
        let mut blocks = per_channel(0, 6);
        blocks.granularity = Granularity::PerBlock { axis: 1, block_size: 4 };
        blocks.validate_shape(&[2, 12]).unwrap();
        assert_eq!(blocks.validate_shape(&[2, 10]).unwrap_err().code(), "encoding_block");
        assert_eq!(blocks.validate_shape(&[3, 12]).unwrap_err().code(), "encoding_shape");
    }
}
