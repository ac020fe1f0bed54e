//! Tensors of float types as float32 or float64, for kernels that exist in one of them alone.

use super::element::Real;
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor};
use half::{bf16, f16};
use std::borrow::Cow;

/// The elements as float32 (exact).
pub fn read(tensor: &Tensor) -> Result<Cow<'_, [f32]>> {
    match tensor.data() {
        Data::F32(v) => Ok(Cow::Borrowed(v)),
        Data::F16(v) => Ok(Cow::Owned(v.iter().map(|x| x.to_f32_const()).collect())),
        Data::BF16(v) => Ok(Cow::Owned(v.iter().map(|x| x.to_f32_const()).collect())),
        other => Err(Error::invalid("tensor_dtype", format!("expected floats up to 32 bits, found {}", other.dtype()))),
    }
}

/// A tensor of `dtype`; each element is rounded once.
pub fn write(shape: &[usize], elements: Vec<f32>, dtype: DType) -> Result<Tensor> {
    let data = match dtype {
        DType::F16 => Data::F16(elements.iter().map(|&x| <f16 as Real>::from_f64(x.into())).collect()),
        DType::BF16 => Data::BF16(elements.iter().map(|&x| <bf16 as Real>::from_f64(x.into())).collect()),
        _ => Data::F32(elements.into()),
    };
    Tensor::new(shape, data)
}

/// A tensor of `dtype` from float64; each element is rounded once.
pub fn write_f64(shape: &[usize], elements: Vec<f64>, dtype: DType) -> Result<Tensor> {
    fn rounded<T: Real>(elements: &[f64]) -> Data {
        T::wrap(elements.iter().map(|&x| T::from_f64(x)).collect::<Vec<_>>())
    }
    let data = match dtype {
        DType::F64 => Data::F64(elements.into()),
        DType::F32 => rounded::<f32>(&elements),
        DType::F16 => rounded::<f16>(&elements),
        DType::BF16 => rounded::<bf16>(&elements),
        other => return Err(Error::invalid("tensor_dtype", format!("{other} is no float type"))),
    };
    Tensor::new(shape, data)
}
