//! Values of initializers: tensors as the file has them, and reals that are computed from codes when something reads them.

use super::parameters::{check_dequantizable, dequantize};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor};
use half::{bf16, f16};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// The value of an initializer. Copies share it.
///
/// Type, shape and length are known at once. A quantized initializer is held as its codes: the reals that they stand for are
/// computed when the tensor is first read through [`Deref`] or [`Constant::shared`], and kept from then on. What runs on
/// codes never needs them.
#[derive(Clone)]
pub struct Constant(Arc<Inner>);

struct Inner {
    dtype: DType,
    shape: Vec<usize>,
    value: OnceLock<Arc<Tensor>>,
    /// What `value` is computed from; `dequantize` cannot fail on it.
    source: Option<(Arc<Tensor>, Arc<Encoding>)>,
}

impl Constant {
    /// The reals of `codes`, in `dtype`.
    ///
    /// # Errors
    /// `encoding_axis` and `quantization_block_partial` where the scales do not fit the shape, `tensor_dtype` where the codes
    /// are no integers, `dequantized_type` where `dtype` is not float32, float16 or bfloat16.
    pub fn dequantized(codes: Arc<Tensor>, encoding: Arc<Encoding>, dtype: DType) -> Result<Self> {
        check_dequantizable(&codes, &encoding)?;
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(Error::unsupported("dequantized_type", format!("reals of type {dtype} from codes")));
        }
        let shape = codes.shape().to_vec();
        Ok(Constant(Arc::new(Inner { dtype, shape, value: OnceLock::new(), source: Some((codes, encoding)) })))
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the value is in memory: always where it is not the reals of codes.
    pub fn is_computed(&self) -> bool {
        self.0.value.get().is_some()
    }

    /// The tensor.
    pub fn shared(&self) -> &Arc<Tensor> {
        self.0.value.get_or_init(|| {
            let (codes, encoding) = self.0.source.as_ref().expect("a constant has a value or codes");
            let reals = dequantize(codes, encoding).expect("checked when the constant was made");
            Arc::new(in_type(reals, self.0.dtype))
        })
    }
}

/// Reals of 32 bits in another type for reals.
fn in_type(reals: Tensor, dtype: DType) -> Tensor {
    let shape = reals.shape().to_vec();
    let data = match (dtype, reals.into_data()) {
        (DType::F16, Data::F32(v)) => Data::F16(v.into_iter().map(f16::from_f32).collect()),
        (DType::BF16, Data::F32(v)) => Data::BF16(v.into_iter().map(bf16::from_f32).collect()),
        (_, data) => data,
    };
    Tensor::new(shape, data).expect("as many elements as before")
}

impl Deref for Constant {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        self.shared()
    }
}

impl From<Arc<Tensor>> for Constant {
    fn from(value: Arc<Tensor>) -> Self {
        let (dtype, shape) = (value.dtype(), value.shape().to_vec());
        Constant(Arc::new(Inner { dtype, shape, value: OnceLock::from(value), source: None }))
    }
}

impl From<Tensor> for Constant {
    fn from(value: Tensor) -> Self {
        Constant::from(Arc::new(value))
    }
}

impl PartialEq for Constant {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl fmt::Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.source, self.0.value.get()) {
            (_, Some(value)) => value.fmt(f),
            (Some((codes, _)), None) => write!(f, "{} of {codes:?}", self.0.dtype),
            (None, None) => unreachable!("a constant has a value or codes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(shape: &[usize], values: Vec<i8>) -> Arc<Tensor> {
        Arc::new(Tensor::new(shape.to_vec(), Data::I8(values)).unwrap())
    }

    fn encoding() -> Arc<Encoding> {
        Arc::new(Encoding::per_tensor(0.5, 1, 8, true).unwrap())
    }

    #[test]
    fn reals_are_computed_when_they_are_read() {
        let constant = Constant::dequantized(codes(&[2, 1], vec![3, -1]), encoding(), DType::F32).unwrap();
        let copy = constant.clone();
        assert_eq!((constant.dtype(), constant.shape(), constant.len()), (DType::F32, &[2, 1][..], 2));
        assert!(!constant.is_computed());
        assert_eq!(copy.as_f32().unwrap(), [1.0, -1.0]);
        assert!(constant.is_computed());
        assert_eq!(constant, Constant::from(Tensor::f32(&[2, 1], vec![1.0, -1.0])));
    }

    #[test]
    fn reals_have_the_type_that_was_asked_for() {
        let of = |dtype| Constant::dequantized(codes(&[1], vec![4]), encoding(), dtype);
        assert_eq!(of(DType::F16).unwrap().data(), &Data::F16(vec![f16::from_f32(1.5)]));
        assert_eq!(of(DType::BF16).unwrap().data(), &Data::BF16(vec![bf16::from_f32(1.5)]));
        assert_eq!(of(DType::I32).unwrap_err().code(), "dequantized_type");
    }

    #[test]
    fn what_cannot_be_dequantized_is_refused_at_once() {
        let two = Arc::new(Encoding {
            scale: vec![1.0, 2.0],
            zero_point: vec![0, 0],
            granularity: crate::encoding::Granularity::PerChannel { axis: 0 },
            ..(*encoding()).clone()
        });
        let error = Constant::dequantized(codes(&[3], vec![1, 2, 3]), two, DType::F32).unwrap_err();
        assert_eq!(error.code(), "encoding_axis");
        let reals = Arc::new(Tensor::f32(&[1], vec![1.0]));
        assert_eq!(Constant::dequantized(reals, encoding(), DType::F32).unwrap_err().code(), "tensor_dtype");
    }
}
