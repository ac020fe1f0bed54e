//! Values of initializers: tensors as the file has them, and reals that are computed from codes when something reads them.

use super::parameters::{check_dequantizable, dequantize};
use crate::arrays::Part;
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::kernels::{Code8, Codes};
use crate::map_data;
use crate::tensor::{DType, Data, Tensor, View};
use half::{bf16, f16};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// The value of an initializer. Copies share it.
///
/// Type, shape and length are known at once. Reals of a quantized initializer, and elements that a file holds with its axes in
/// another order, are computed when the tensor is first read through [`Deref`] or [`Constant::shared`], and kept from then on:
/// what runs on codes never needs the reals, and what packs weights may read them in the file's order.
#[derive(Clone)]
pub struct Constant(Arc<Inner>);

struct Inner {
    dtype: DType,
    shape: Vec<usize>,
    value: OnceLock<Arc<Tensor>>,
    /// What `value` is computed from.
    source: Option<Source>,
}

enum Source {
    /// Codes on which `dequantize` cannot fail.
    Codes(Constant, Arc<Encoding>),
    /// The elements with their axes in another order; axis `i` of the value is axis `order[i]` of the stored one.
    Turned(Stored, Vec<usize>),
}

/// Elements as a file has them.
enum Stored {
    Tensor(Tensor),
    /// Codes of one byte, their type and shape.
    Bytes(Part, DType, Vec<usize>),
}

impl Stored {
    fn shape(&self) -> &[usize] {
        match self {
            Stored::Tensor(tensor) => tensor.shape(),
            Stored::Bytes(_, _, shape) => shape,
        }
    }

    fn tensor(&self) -> Cow<'_, Tensor> {
        match self {
            Stored::Tensor(tensor) => Cow::Borrowed(tensor),
            Stored::Bytes(part, dtype, shape) => {
                let data = match dtype {
                    DType::I8 => Data::I8(i8::of_bytes(part).to_vec().into()),
                    _ => Data::U8(part.to_vec().into()),
                };
                Cow::Owned(Tensor::new(shape.clone(), data).expect("checked when the constant was made"))
            }
        }
    }
}

impl Constant {
    /// The reals of `codes`, in `dtype`.
    ///
    /// # Errors
    /// `encoding_axis` and `quantization_block_partial` where the scales do not fit the shape, `tensor_dtype` where the codes
    /// are no integers, `dequantized_type` where `dtype` is not float32, float16 or bfloat16.
    pub fn dequantized(codes: Constant, encoding: Arc<Encoding>, dtype: DType) -> Result<Self> {
        check_dequantizable(&codes, &encoding)?;
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(Error::unsupported("dequantized_type", format!("reals of type {dtype} from codes")));
        }
        let shape = codes.shape().to_vec();
        let source = Some(Source::Codes(codes, encoding));
        Ok(Constant(Arc::new(Inner { dtype, shape, value: OnceLock::new(), source })))
    }

    /// The tensor with its axes in another order: axis `i` is axis `order[i]` of `tensor`.
    ///
    /// # Errors
    /// `transpose_axes` where `order` does not name every axis once.
    pub fn turned(tensor: Tensor, order: &[usize]) -> Result<Self> {
        let dtype = tensor.dtype();
        Self::of_stored(Stored::Tensor(tensor), dtype, order)
    }

    /// Codes of one byte, int8 or uint8, that a file holds with the shape `shape`: axis `i` is axis `order[i]` of that.
    ///
    /// # Errors
    /// `tensor_dtype` and `tensor_shape` where type or shape are not of the bytes, `transpose_axes` as for [`Constant::turned`].
    pub fn stored(part: Part, dtype: DType, shape: &[usize], order: &[usize]) -> Result<Self> {
        if !matches!(dtype, DType::I8 | DType::U8) {
            return Err(Error::invalid("tensor_dtype", format!("bytes that hold {dtype}")));
        }
        if crate::tensor::element_count(shape)? != part.len() {
            return Err(Error::invalid("tensor_shape", format!("{} bytes of shape {shape:?}", part.len())));
        }
        Self::of_stored(Stored::Bytes(part, dtype, shape.to_vec()), dtype, order)
    }

    fn of_stored(stored: Stored, dtype: DType, order: &[usize]) -> Result<Self> {
        let mut axes = order.to_vec();
        axes.sort_unstable();
        if !axes.iter().copied().eq(0..stored.shape().len()) {
            let message = format!("{order:?} does not name every axis of shape {:?} once", stored.shape());
            return Err(Error::invalid("transpose_axes", message));
        }
        let shape = order.iter().map(|&axis| stored.shape()[axis]).collect();
        let source = Some(Source::Turned(stored, order.to_vec()));
        Ok(Constant(Arc::new(Inner { dtype, shape, value: OnceLock::new(), source })))
    }

    /// Codes of one byte in the order in which a file holds them, where that is with the axes in `order`; see
    /// [`Constant::turned`].
    pub fn codes_in_order(&self, order: &[usize]) -> Option<Codes<'_>> {
        let Some(Source::Turned(stored, own)) = &self.0.source else { return None };
        match stored {
            _ if own != order => None,
            Stored::Bytes(part, DType::I8, _) => Some(Codes::I8(i8::of_bytes(part))),
            Stored::Bytes(part, ..) => Some(Codes::U8(part)),
            Stored::Tensor(tensor) => match tensor.data() {
                Data::I8(v) => Some(Codes::I8(v)),
                Data::U8(v) => Some(Codes::U8(v)),
                _ => None,
            },
        }
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
        self.0.value.get_or_init(|| match self.0.source.as_ref().expect("a constant has a value or a source") {
            Source::Codes(codes, encoding) => {
                let reals = dequantize(codes, encoding).expect("checked when the constant was made");
                Arc::new(in_type(reals, self.0.dtype))
            }
            Source::Turned(stored, order) => Arc::new(with_axes(stored.tensor(), order)),
        })
    }
}

/// A tensor with its axes in another order.
fn with_axes(tensor: Cow<'_, Tensor>, order: &[usize]) -> Tensor {
    let view = View::permuted(tensor.shape(), order);
    let (shape, view) = (view.dims.clone(), view.merged());
    // Axes that keep their order in memory, but for those of size 1, need no other.
    let data = match tensor.is_empty() || view.strides.iter().all(|&s| s == 1) {
        true => tensor.into_owned().into_data(),
        false => map_data!(tensor.data(), v => in_order(v, &view).into()),
    };
    Tensor::new(shape, data).expect("as many elements as before")
}

/// The elements that a view of several dimensions, none of them empty, gives in row-major order.
fn in_order<T: Copy + Default>(elements: &[T], view: &View) -> Vec<T> {
    let mut out = vec![T::default(); view.dims.iter().product()];
    let [outer @ .., rows, columns] = view.dims.as_slice() else { return out };
    let [outer_steps @ .., down, across] = view.strides.as_slice() else { return out };
    for (i, out) in out.chunks_exact_mut(rows * columns).enumerate() {
        let (mut rest, mut first) = (i, 0);
        for (&size, &step) in outer.iter().zip(outer_steps).rev() {
            first += (rest % size) * step.unsigned_abs();
            rest /= size;
        }
        for column in 0..*columns {
            let from = elements[first + column * across.unsigned_abs()..].iter().step_by(down.unsigned_abs());
            out[column..].iter_mut().step_by(*columns).zip(from).for_each(|(to, &v)| *to = v);
        }
    }
    out
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
            (Some(Source::Codes(codes, _)), None) => write!(f, "{} of {codes:?}", self.0.dtype),
            (Some(Source::Turned(stored, order)), None) => write!(f, "axes {order:?} of {:?}", stored.tensor()),
            (None, None) => unreachable!("a constant has a value or a source"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrays::Contents;
    use crate::tensor::strides;

    fn codes(shape: &[usize], values: Vec<i8>) -> Constant {
        Tensor::new(shape, Data::I8(values.into())).unwrap().into()
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
        assert_eq!(of(DType::F16).unwrap().data(), &Data::F16(vec![f16::from_f32(1.5)].into()));
        assert_eq!(of(DType::BF16).unwrap().data(), &Data::BF16(vec![bf16::from_f32(1.5)].into()));
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
        let reals = Tensor::f32(&[1], vec![1.0]).into();
        assert_eq!(Constant::dequantized(reals, encoding(), DType::F32).unwrap_err().code(), "tensor_dtype");
    }

    #[test]
    fn axes_in_another_order_hold_the_same_elements() {
        for shape in [[2, 3, 4, 5], [1, 3, 3, 7], [6, 1, 1, 5], [1, 1, 1, 1], [2, 0, 3, 1]] {
            let len = shape.iter().product::<usize>();
            let tensor = Tensor::new(&shape[..], Data::U8((0..len).map(|i| i as u8).collect())).unwrap();
            for order in [[0, 3, 1, 2], [0, 2, 3, 1], [3, 0, 1, 2], [3, 2, 1, 0], [0, 1, 2, 3], [1, 0, 3, 2]] {
                let turned = Constant::turned(tensor.clone(), &order).unwrap();
                assert_eq!((turned.shape(), turned.is_computed()), (&order.map(|a| shape[a])[..], false));
                let Data::U8(bytes) = tensor.data() else { unreachable!() };
                assert!(matches!(turned.codes_in_order(&order), Some(Codes::U8(v)) if v == &bytes[..]));
                assert!(turned.codes_in_order(&[0, 1]).is_none());
                let file = Arc::new(Contents::from(bytes.to_vec()));
                let part = || Part::of(&file, (*file).as_ref()).unwrap();
                assert_eq!(Constant::stored(part(), DType::U8, &shape, &order).unwrap(), turned);
                let signed = Constant::stored(part(), DType::I8, &shape, &order).unwrap();
                assert_eq!((signed.dtype(), signed.len()), (DType::I8, len));
                assert_eq!(Constant::stored(part(), DType::U8, &[len + 1], &[0]).unwrap_err().code(), "tensor_shape");
                let (from, to) = (strides(&shape), strides(turned.shape()));
                let values = turned.to_i64().unwrap();
                for i in 0..len {
                    let place: usize = (0..4).map(|a| i / from[order[a]] % shape[order[a]] * to[a]).sum();
                    assert_eq!(values[place], i as i64, "{shape:?} by {order:?}, element {i}");
                }
            }
        }
        let line = || Tensor::f32(&[2], vec![1.0, 2.0]);
        for order in [&[][..], &[1], &[0, 0], &[0, 1]] {
            assert_eq!(Constant::turned(line(), order).unwrap_err().code(), "transpose_axes");
        }
    }
}
