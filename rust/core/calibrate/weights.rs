//! Min-max encodings of constant tensors.

use crate::encoding::{Encoding, FormulaOptions, Granularity, ScaleIndex};
use crate::error::{Error, Result};
use crate::tensor::element_count;

/// The min-max encoding of a tensor of `shape`: one scale, or one per index of `axis`.
///
/// # Errors
/// `calibrate_nan` with the flat index of a NaN, `calibrate_empty` for a tensor or channel without elements,
/// `encoding_axis` for an axis that the shape does not have, and those of [`FormulaOptions::encoding`].
pub fn weight_encoding(
    shape: &[usize],
    data: &[f32],
    axis: Option<usize>,
    options: &FormulaOptions,
) -> Result<Encoding> {
    match axis {
        None => from_ranges(shape, data, Granularity::PerTensor, 1, options),
        Some(axis) => {
            let &channels = shape.get(axis).ok_or_else(|| {
                Error::invalid("encoding_axis", format!("axis {axis} does not exist in a tensor of shape {shape:?}"))
            })?;
            from_ranges(shape, data, Granularity::PerChannel { axis }, channels, options)
        }
    }
}

/// The min-max encoding with one scale per block of `block_size` along `axis`; errors as [`weight_encoding`], and
/// `encoding_block` where blocks do not divide the axis. [`Encoding::to_lpbq`] turns it into LPBQ.
pub fn weight_encoding_in_blocks(
    shape: &[usize],
    data: &[f32],
    axis: usize,
    block_size: usize,
    options: &FormulaOptions,
) -> Result<Encoding> {
    if block_size == 0 {
        return Err(Error::invalid("encoding_block", "a block has no elements").help("block_size must be 1 or more"));
    }
    let blocks = element_count(shape)? / block_size;
    from_ranges(shape, data, Granularity::PerBlock { axis, block_size }, blocks, options)
}

fn from_ranges(
    shape: &[usize],
    data: &[f32],
    granularity: Granularity,
    count: usize,
    options: &FormulaOptions,
) -> Result<Encoding> {
    let expected = element_count(shape)?;
    if expected != data.len() {
        return Err(Error::invalid(
            "tensor_shape",
            format!("shape {shape:?} needs {expected} elements, the data has {}", data.len()),
        ));
    }
    if count == 0 || data.is_empty() {
        return Err(Error::invalid("calibrate_empty", format!("a tensor of shape {shape:?} has no values")));
    }
    if let Some(i) = data.iter().position(|x| x.is_nan()) {
        return Err(Error::invalid("calibrate_nan", format!("element {i} of the tensor is NaN")));
    }
    options.validate()?;
    let mut encoding = Encoding {
        scale: vec![1.0; count],
        zero_point: vec![0; count],
        bitwidth: options.bitwidth,
        signed: options.signed,
        symmetric: options.symmetric,
        narrow_range: options.narrow_range,
        granularity,
        lpbq: None,
    };
    let index = ScaleIndex::new(&encoding, shape)?;
    let mut ranges = vec![(0f32, 0f32); count];
    index.for_each_run(data.len(), |run, scale| {
        let (lo, hi) = &mut ranges[scale];
        for x in &data[run] {
            *lo = lo.min(*x);
            *hi = hi.max(*x);
        }
    });
    for (i, (lo, hi)) in ranges.into_iter().enumerate() {
        let (scale, zero_point) = options
            .scale_and_zero_point(f64::from(lo.clamp(f32::MIN, f32::MAX)), f64::from(hi.clamp(f32::MIN, f32::MAX)))?;
        encoding.scale[i] = scale;
        encoding.zero_point[i] = zero_point;
    }
    encoding.validate()?;
    Ok(encoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Formula;

    const OPTIONS: FormulaOptions = FormulaOptions {
        formula: Formula::AimetOnnx,
        bitwidth: 8,
        signed: true,
        symmetric: true,
        narrow_range: false,
        unsigned_symmetric: false,
    };

    #[test]
    fn channels_have_their_own_ranges() {
        let data = [-128.0, 1.0, 2.0, 0.5, 254.0, -3.0];
        assert_eq!(weight_encoding(&[2, 3], &data, None, &OPTIONS).unwrap().scale, [2.0]);
        assert_eq!(weight_encoding(&[2, 3], &data, Some(0), &OPTIONS).unwrap().scale, [1.0, 2.0]);
        let columns = weight_encoding(&[2, 3], &data, Some(1), &OPTIONS).unwrap();
        assert_eq!(columns.scale, [1.0, 2.0, 3.0 / 128.0]);
        columns.validate_shape(&[2, 3]).unwrap();
    }

    #[test]
    fn blocks_have_their_own_ranges() {
        let data = [127.0, 0.0, -256.0, 0.0, 0.0, 381.0, 512.0, -512.0];
        let rows = weight_encoding_in_blocks(&[2, 4], &data, 1, 2, &OPTIONS).unwrap();
        assert_eq!(rows.scale, [1.0, 2.0, 3.0, 512.0 / 127.0]);
        assert_eq!(weight_encoding_in_blocks(&[2, 4], &data, 1, 3, &OPTIONS).unwrap_err().code(), "encoding_block");
        assert_eq!(weight_encoding_in_blocks(&[2, 4], &data, 1, 0, &OPTIONS).unwrap_err().code(), "encoding_block");
    }

    #[test]
    fn bad_tensors_are_refused() {
        for (shape, data, axis, code) in [
            (vec![2], vec![1.0, f32::NAN], None, "calibrate_nan"),
            (vec![0], vec![], Some(0), "calibrate_empty"),
            (vec![2], vec![1.0], None, "tensor_shape"),
            (vec![1], vec![1.0], Some(1), "encoding_axis"),
        ] {
            assert_eq!(weight_encoding(&shape, &data, axis, &OPTIONS).unwrap_err().code(), code);
        }
    }
}
