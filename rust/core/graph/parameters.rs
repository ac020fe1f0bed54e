//! Scales and zero points: from constants of a graph to encodings, and from integers to reals.

use super::constant::Constant;
use super::{Dim, TensorInfo};
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor};
use std::sync::Arc;

/// Bits and signedness of a type that holds codes.
pub fn code_type(dtype: DType) -> Option<(u32, bool)> {
    Some(match dtype {
        DType::I4 => (4, true),
        DType::U4 => (4, false),
        DType::I2 => (2, true),
        DType::U2 => (2, false),
        DType::I8 => (8, true),
        DType::U8 => (8, false),
        DType::I16 => (16, true),
        DType::U16 => (16, false),
        DType::I32 => (32, true),
        _ => return None,
    })
}

/// The type that holds the codes of an encoding, where ONNX has one.
pub fn type_of_codes(encoding: &Encoding) -> Option<DType> {
    Some(match (encoding.bitwidth, encoding.signed) {
        (4, true) => DType::I4,
        (4, false) => DType::U4,
        (2, true) => DType::I2,
        (2, false) => DType::U2,
        (8, true) => DType::I8,
        (8, false) => DType::U8,
        (16, true) => DType::I16,
        (16, false) => DType::U16,
        (32, true) => DType::I32,
        _ => return None,
    })
}

/// What a quantizing node says about the layout of its parameters.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Axis of a list of scales; negative counts from the back.
    pub axis: i64,
    /// Elements per block, 0 where there are no blocks.
    pub block_size: i64,
    /// Rank of the quantized tensor, where known.
    pub rank: Option<usize>,
}

/// Number of dimensions of a tensor, where known.
pub fn rank(info: &TensorInfo) -> Option<usize> {
    info.constant.as_ref().map(|c| c.shape().len()).or(info.shape.as_ref().map(Vec::<Dim>::len))
}

/// The encoding that constants `scale` and `zero_point` describe; `codes` is the type of the integers.
pub fn encoding(
    scale: &TensorInfo,
    zero_point: Option<&TensorInfo>,
    codes: DType,
    layout: Layout,
) -> Result<Arc<Encoding>> {
    let (bitwidth, signed) = code_type(codes).ok_or_else(|| {
        Error::unsupported("quantized_type", format!("quantized tensors of type {codes}")).at_tensor(&scale.name)
    })?;
    let dynamic = |info: &TensorInfo| {
        Error::unsupported("quantization_dynamic", format!("'{}' is not constant", info.name))
            .help("scales and zero points must be known before the run")
    };
    let scales = scale.constant.as_ref().ok_or_else(|| dynamic(scale))?;
    if !scales.dtype().is_float() {
        let message = format!("a scale of type {}", scales.dtype());
        return Err(Error::invalid("scale_type", message).at_tensor(&scale.name));
    }
    let values = scales.to_f64();
    let mut zero_points = match zero_point {
        None => vec![0; values.len()],
        Some(info) => {
            if info.dtype.is_some_and(|d| d != codes) {
                let found = info.dtype.unwrap_or(codes);
                let message = format!("the zero point is {found}, the quantized tensor {codes}");
                return Err(Error::invalid("zero_point_type", message).at_tensor(&info.name));
            }
            let constant = info.constant.as_ref().ok_or_else(|| dynamic(info))?;
            constant.to_i64().map_err(|e| e.at_tensor(&info.name))?
        }
    };
    if zero_points.len() == 1 && values.len() > 1 {
        zero_points = vec![zero_points[0]; values.len()];
    }
    let axis = || -> Result<usize> {
        let resolved = match (layout.axis, layout.rank) {
            (axis, Some(rank)) if axis < 0 => axis + i64::try_from(rank).unwrap_or(i64::MAX),
            (axis, None) if axis < 0 => {
                let message = format!("axis {axis} of a tensor whose rank the file does not declare");
                return Err(Error::unsupported("quantization_axis_unknown", message));
            }
            (axis, _) => axis,
        };
        let in_rank = |a: &usize| layout.rank.is_none_or(|rank| *a < rank);
        usize::try_from(resolved).ok().filter(in_rank).ok_or_else(|| {
            Error::invalid("quantization_axis", format!("axis {} does not exist in the tensor", layout.axis))
        })
    };
    let granularity = match scales.shape() {
        _ if layout.block_size < 0 => {
            return Err(Error::invalid("quantization_block", format!("block size {}", layout.block_size)));
        }
        _ if layout.block_size > 0 => {
            let block_size = usize::try_from(layout.block_size).unwrap_or(usize::MAX);
            Granularity::PerBlock { axis: axis()?, block_size }
        }
        [] | [1] => Granularity::PerTensor,
        [_] => Granularity::PerChannel { axis: axis()? },
        shape => {
            let message = format!("scales of shape {shape:?} without a block size");
            return Err(Error::invalid("scale_shape", message).at_tensor(&scale.name));
        }
    };
    let symmetric = signed && zero_points.iter().all(|&z| z == 0);
    let encoding = Encoding {
        scale: values,
        zero_point: zero_points,
        bitwidth,
        signed,
        symmetric,
        narrow_range: false,
        granularity,
        lpbq: None,
    };
    encoding.validate().map_err(|e| e.at_tensor(&scale.name))?;
    Ok(Arc::new(encoding))
}

/// Fails where the number of scales does not fit a tensor of this shape.
pub fn check_shape(encoding: &Encoding, shape: &[usize]) -> Result<()> {
    let wanted = match encoding.granularity {
        Granularity::PerTensor => Some(1),
        Granularity::PerChannel { axis } => shape.get(axis).copied(),
        Granularity::PerBlock { axis, block_size } => {
            if shape.get(axis).is_some_and(|d| block_size == 0 || d % block_size != 0) {
                let message = format!("blocks of {block_size} do not divide axis {axis} of shape {shape:?}");
                return Err(Error::unsupported("quantization_block_partial", message));
            }
            shape.get(axis).map(|_| {
                let blocks = |(i, &d): (usize, &usize)| if i == axis { d / block_size } else { d };
                shape.iter().enumerate().map(blocks).fold(1, usize::saturating_mul)
            })
        }
    };
    if wanted == Some(encoding.scale.len()) {
        return Ok(());
    }
    let message = format!("{} scales do not fit shape {shape:?} ({:?})", encoding.scale.len(), encoding.granularity);
    Err(Error::invalid("encoding_axis", message))
}

/// Fails where [`dequantize`] would.
pub fn check_dequantizable(codes: &Constant, encoding: &Encoding) -> Result<()> {
    check_shape(encoding, codes.shape())?;
    match codes.dtype() {
        DType::U8 | DType::I8 | DType::U16 | DType::I16 | DType::I32 => Ok(()),
        _ => codes.to_i64().map(drop),
    }
}

/// Reals of integers: `(code - zero_point) · scale`. The product is formed in f32 where the scale is an f32 number, in f64
/// and then rounded to f32 otherwise.
pub fn dequantize(codes: &Tensor, encoding: &Encoding) -> Result<Tensor> {
    check_shape(encoding, codes.shape())?;
    let single = encoding.scale.iter().all(|&s| f64::from(s as f32) == s);
    let real = |code: i64, zero_point: i64, scale: f64| {
        let centred = code.saturating_sub(zero_point);
        if single { centred as f32 * scale as f32 } else { (centred as f64 * scale) as f32 }
    };
    let inner = |axis: usize| codes.shape()[axis + 1..].iter().product::<usize>().max(1);
    // Elements in a row that share a scale, and the scale of a row.
    let (run, scale_of): (usize, Box<dyn Fn(usize) -> usize>) = match encoding.granularity {
        Granularity::PerTensor => (codes.len().max(1), Box::new(|_| 0)),
        Granularity::PerChannel { axis } => {
            let channels = encoding.scale.len();
            (inner(axis), Box::new(move |row| row % channels))
        }
        Granularity::PerBlock { axis, block_size } => {
            let (inner, length) = (inner(axis), codes.shape()[axis]);
            let scale = move |i: usize| {
                let (outer, along) = (i / inner / length, i / inner % length);
                (outer * (length / block_size) + along / block_size) * inner + i % inner
            };
            (1, Box::new(scale))
        }
    };
    let mut out = Vec::with_capacity(codes.len());
    macro_rules! fill {
        ($v:expr) => {
            for (row, codes) in $v.chunks(run).enumerate() {
                let s = scale_of(row);
                let (zero_point, scale) = (encoding.zero_point[s], encoding.scale[s]);
                out.extend(codes.iter().map(|&c| real(i64::from(c), zero_point, scale)));
            }
        };
    }
    match codes.data() {
        Data::U8(v) => fill!(v),
        Data::I8(v) => fill!(v),
        Data::U16(v) => fill!(v),
        Data::I16(v) => fill!(v),
        Data::I32(v) => fill!(v),
        _ => fill!(codes.to_i64()?),
    }
    Tensor::new(codes.shape(), Data::F32(out.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(tensor: Tensor) -> TensorInfo {
        TensorInfo {
            name: "p".into(),
            dtype: Some(tensor.dtype()),
            constant: Some(tensor.into()),
            ..TensorInfo::default()
        }
    }

    #[test]
    fn every_granularity_dequantizes_its_own_elements() {
        let codes = Tensor::new(vec![2, 4], Data::I8(vec![1, 2, 3, 4, 5, 6, 7, 8].into())).unwrap();
        let read = |shape: &[usize], scales: &[f32], axis, block_size| -> Result<Vec<f32>> {
            let layout = Layout { axis, block_size, rank: Some(2) };
            let scale = info(Tensor::f32(shape, scales.to_vec()));
            let encoding = encoding(&scale, None, DType::I8, layout)?;
            Ok(dequantize(&codes, &encoding)?.as_f32()?.to_vec())
        };
        assert_eq!(read(&[], &[2.0], 1, 0).unwrap(), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]);
        assert_eq!(read(&[2], &[1.0, 2.0], 0, 0).unwrap(), [1.0, 2.0, 3.0, 4.0, 10.0, 12.0, 14.0, 16.0]);
        assert_eq!(read(&[4], &[1.0, 2.0, 4.0, 8.0], -1, 0).unwrap(), [1.0, 4.0, 12.0, 32.0, 5.0, 12.0, 28.0, 64.0]);
        assert_eq!(read(&[2, 2], &[1.0, 2.0, 4.0, 8.0], 1, 2).unwrap(), [1.0, 2.0, 6.0, 8.0, 20.0, 24.0, 56.0, 64.0]);
        assert_eq!(read(&[1, 4], &[1.0, 2.0, 4.0, 8.0], 0, 2).unwrap(), [1.0, 4.0, 12.0, 32.0, 5.0, 12.0, 28.0, 64.0]);
        assert_eq!(read(&[3], &[1.0; 3], 1, 0).unwrap_err().code(), "encoding_axis");
        assert_eq!(read(&[2, 2], &[1.0; 4], 1, 0).unwrap_err().code(), "scale_shape");
        assert_eq!(read(&[2, 2], &[1.0; 4], 1, 3).unwrap_err().code(), "quantization_block_partial");
        assert_eq!(read(&[2], &[1.0; 2], 2, 0).unwrap_err().code(), "quantization_axis");
        assert_eq!(read(&[], &[f32::NAN], 0, 0).unwrap_err().code(), "encoding_scale");
    }

    #[test]
    fn products_are_single_precision_where_the_scale_is() {
        let codes = Tensor::new(vec![1], Data::I32(vec![16_777_217].into())).unwrap();
        let encoding = |scale| Encoding::per_tensor(scale, 0, 32, true).unwrap();
        let single = f64::from(0.1f32);
        assert_eq!(dequantize(&codes, &encoding(single)).unwrap().as_f32().unwrap(), [16_777_216.0f32 * 0.1]);
        let double = single * f64::from(0.3f32);
        assert_eq!(dequantize(&codes, &encoding(double)).unwrap().as_f32().unwrap(), [(16_777_217.0 * double) as f32]);
    }
}
