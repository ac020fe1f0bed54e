//! Dense tensors in row-major order.

mod arena;
mod elements;

use crate::error::{Error, Result};
pub use arena::{Arena, LINE};
pub use elements::{Elements, Plain};
use half::{bf16, f16};
use smallvec::SmallVec;
use std::fmt;

/// Largest number of elements that a tensor may have: shapes beyond it are taken for lies.
pub const MAX_ELEMENTS: usize = 1 << 31;

/// Type of the elements of a tensor in an ONNX graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// Four bits, signed; one code per byte in memory.
    I4,
    /// Four bits, unsigned; one code per byte in memory.
    U4,
    /// Two bits, signed; one code per byte in memory.
    I2,
    /// Two bits, unsigned; one code per byte in memory.
    U2,
}

impl DType {
    /// Every type.
    pub const ALL: [DType; 17] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::Bool,
        DType::I4,
        DType::U4,
        DType::I2,
        DType::U2,
    ];

    /// The type that [`DType::name`] calls so.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// numpy's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            DType::F64 => "float64",
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            DType::I64 => "int64",
            DType::I32 => "int32",
            DType::I16 => "int16",
            DType::I8 => "int8",
            DType::U64 => "uint64",
            DType::U32 => "uint32",
            DType::U16 => "uint16",
            DType::U8 => "uint8",
            DType::Bool => "bool",
            DType::I4 => "int4",
            DType::U4 => "uint4",
            DType::I2 => "int2",
            DType::U2 => "uint2",
        }
    }

    /// Bytes of one element in memory.
    pub fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::I8 | DType::U8 | DType::Bool | DType::I4 | DType::U4 | DType::I2 | DType::U2 => 1,
        }
    }

    /// Bits of an element that files pack with others into a byte.
    pub fn packed_bits(self) -> Option<u32> {
        match self {
            DType::I4 | DType::U4 => Some(4),
            DType::I2 | DType::U2 => Some(2),
            _ => None,
        }
    }

    /// The type of the elements in memory: bytes for packed ones.
    pub fn in_memory(self) -> DType {
        match self {
            DType::I4 | DType::I2 => DType::I8,
            DType::U4 | DType::U2 => DType::U8,
            other => other,
        }
    }

    /// Whether the type is a float type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Element storage. Types of two and four bits are held one code per byte in `I8` and `U8`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Data {
    F64(Elements<f64>),
    F32(Elements<f32>),
    F16(Elements<f16>),
    BF16(Elements<bf16>),
    I64(Elements<i64>),
    I32(Elements<i32>),
    I16(Elements<i16>),
    I8(Elements<i8>),
    U64(Elements<u64>),
    U32(Elements<u32>),
    U16(Elements<u16>),
    U8(Elements<u8>),
    Bool(Elements<bool>),
}

/// Calls `$body` with `$v` bound to the vector inside a [`Data`], whatever its type.
#[macro_export]
macro_rules! with_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::tensor::Data::F64($v) => $body,
            $crate::tensor::Data::F32($v) => $body,
            $crate::tensor::Data::F16($v) => $body,
            $crate::tensor::Data::BF16($v) => $body,
            $crate::tensor::Data::I64($v) => $body,
            $crate::tensor::Data::I32($v) => $body,
            $crate::tensor::Data::I16($v) => $body,
            $crate::tensor::Data::I8($v) => $body,
            $crate::tensor::Data::U64($v) => $body,
            $crate::tensor::Data::U32($v) => $body,
            $crate::tensor::Data::U16($v) => $body,
            $crate::tensor::Data::U8($v) => $body,
            $crate::tensor::Data::Bool($v) => $body,
        }
    };
}

/// As [`with_data!`], and wraps the vector that `$body` gives in the same variant again: for ops that only move data.
#[macro_export]
macro_rules! map_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::tensor::Data::F64($v) => $crate::tensor::Data::F64($body),
            $crate::tensor::Data::F32($v) => $crate::tensor::Data::F32($body),
            $crate::tensor::Data::F16($v) => $crate::tensor::Data::F16($body),
            $crate::tensor::Data::BF16($v) => $crate::tensor::Data::BF16($body),
            $crate::tensor::Data::I64($v) => $crate::tensor::Data::I64($body),
            $crate::tensor::Data::I32($v) => $crate::tensor::Data::I32($body),
            $crate::tensor::Data::I16($v) => $crate::tensor::Data::I16($body),
            $crate::tensor::Data::I8($v) => $crate::tensor::Data::I8($body),
            $crate::tensor::Data::U64($v) => $crate::tensor::Data::U64($body),
            $crate::tensor::Data::U32($v) => $crate::tensor::Data::U32($body),
            $crate::tensor::Data::U16($v) => $crate::tensor::Data::U16($body),
            $crate::tensor::Data::U8($v) => $crate::tensor::Data::U8($body),
            $crate::tensor::Data::Bool($v) => $crate::tensor::Data::Bool($body),
        }
    };
}

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        with_data!(self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F64(_) => DType::F64,
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::I64(_) => DType::I64,
            Data::I32(_) => DType::I32,
            Data::I16(_) => DType::I16,
            Data::I8(_) => DType::I8,
            Data::U64(_) => DType::U64,
            Data::U32(_) => DType::U32,
            Data::U16(_) => DType::U16,
            Data::U8(_) => DType::U8,
            Data::Bool(_) => DType::Bool,
        }
    }
}

/// A shape and its elements. `data.len()` always equals the product of `shape`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Data,
}

/// Dimensions. Those of up to six axes need no memory of their own.
pub type Shape = SmallVec<[usize; 6]>;

/// Number of elements of a shape, or an error where it overflows or exceeds [`MAX_ELEMENTS`]. A dimension of 0 does
/// not excuse the others: every product of dimensions stays within the limit.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    let mut count: usize = 1;
    for &d in shape {
        count = count.checked_mul(d.max(1)).filter(|&c| c <= MAX_ELEMENTS).ok_or_else(|| {
            Error::invalid("tensor_too_large", format!("a tensor of shape {shape:?} has more than 2^31 elements"))
        })?;
    }
    Ok(if shape.contains(&0) { 0 } else { count })
}

impl Tensor {
    /// A tensor from shape and data; an error where their sizes differ.
    pub fn new(shape: impl Into<Shape>, data: Data) -> Result<Self> {
        let shape = shape.into();
        let count = element_count(&shape)?;
        if count != data.len() {
            return Err(Error::invalid(
                "tensor_shape",
                format!("shape {shape:?} needs {count} elements, the data has {}", data.len()),
            ));
        }
        Ok(Tensor { shape, data })
    }

    /// A rank-0 or any-rank float tensor; panics where sizes differ (for values the program itself made).
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Self {
        Self::new(shape, Data::F32(data.into())).expect("shape and data made together")
    }

    /// As [`Tensor::f32`] for int64.
    pub fn i64(shape: &[usize], data: Vec<i64>) -> Self {
        Self::new(shape, Data::I64(data.into())).expect("shape and data made together")
    }

    /// Dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, for writing.
    pub fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }

    /// Takes the elements out.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The same elements under another shape.
    pub fn reshaped(self, shape: impl Into<Shape>) -> Result<Self> {
        Self::new(shape, self.data)
    }

    /// The elements as f32, where they are f32.
    pub fn as_f32(&self) -> Result<&[f32]> {
        match &self.data {
            Data::F32(v) => Ok(v),
            other => Err(Error::invalid("tensor_dtype", format!("expected float32, found {}", other.dtype()))),
        }
    }

    /// The elements as i64, where they are i64.
    pub fn as_i64(&self) -> Result<&[i64]> {
        match &self.data {
            Data::I64(v) => Ok(v),
            other => Err(Error::invalid("tensor_dtype", format!("expected int64, found {}", other.dtype()))),
        }
    }

    /// Every element as f64 (exact for all types but 64-bit integers beyond 2^53).
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F64(v) => v.to_vec(),
            Data::F32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::F16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::BF16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
        }
    }

    /// Every element as i64; an error for float tensors and for u64 values beyond i64.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        Ok(match &self.data {
            Data::I64(v) => v.to_vec(),
            Data::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::Bool(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U64(v) => v
                .iter()
                .map(|&x| i64::try_from(x).map_err(|_| Error::invalid("tensor_range", "uint64 value exceeds int64")))
                .collect::<Result<_>>()?,
            other => {
                return Err(Error::invalid("tensor_dtype", format!("expected integers, found {}", other.dtype())));
            }
        })
    }

    /// Index and value of the first integer of at most 64 signed bits outside of `lo..=hi`, if there is one.
    pub fn first_outside(&self, lo: i64, hi: i64) -> Option<(usize, i64)> {
        macro_rules! search {
            ($v:expr, $t:ty) => {{
                if lo <= <$t>::MIN.into() && i64::from(<$t>::MAX) <= hi {
                    return None;
                }
                $v.iter().position(|&v| !(lo..=hi).contains(&v.into())).map(|i| (i, $v[i].into()))
            }};
        }
        match &self.data {
            Data::I64(v) => search!(v, i64),
            Data::I32(v) => search!(v, i32),
            Data::I16(v) => search!(v, i16),
            Data::I8(v) => search!(v, i8),
            Data::U32(v) => search!(v, u32),
            Data::U16(v) => search!(v, u16),
            Data::U8(v) => search!(v, u8),
            Data::U64(_) | Data::Bool(_) | Data::F64(_) | Data::F32(_) | Data::F16(_) | Data::BF16(_) => None,
        }
    }
}

/// Row-major strides of a shape, in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        out[i] = out[i + 1] * shape[i + 1];
    }
    out
}

/// A view: `dims` of the output, the step in the input along each of them, and the index of the first element.
/// Every index that the view reaches must lie within the input.
#[derive(Debug, Clone)]
pub struct View {
    /// Dimensions of the output.
    pub dims: Shape,
    /// Step in the input, in elements; negative ones walk backwards, 0 repeats.
    pub strides: SmallVec<[isize; 6]>,
    /// Index of the first element.
    pub offset: usize,
}

impl View {
    /// A view of as many axes as both lists have.
    pub fn new(dims: &[usize], strides: &[isize], offset: usize) -> View {
        View { dims: dims.into(), strides: strides.into(), offset }
    }

    /// All elements of a tensor of `shape`, as they lie.
    pub fn dense(shape: &[usize]) -> View {
        View { dims: shape.into(), strides: strides(shape).into_iter().map(|s| s as isize).collect(), offset: 0 }
    }

    /// A dense tensor of `shape` repeated to `out`, to which it must broadcast.
    pub fn broadcast(shape: &[usize], out: &[usize]) -> View {
        let mut view = View { dims: out.into(), strides: SmallVec::from_elem(0, out.len()), offset: 0 };
        let skip = out.len() - shape.len();
        for (i, step) in strides(shape).into_iter().enumerate().filter(|&(i, _)| shape[i] != 1) {
            view.strides[skip + i] = step as isize;
        }
        view
    }

    /// The view that puts dimension `permutation[i]` of a dense tensor of `shape` at place `i`.
    pub fn permuted(shape: &[usize], permutation: &[usize]) -> View {
        let steps = strides(shape);
        View {
            dims: permutation.iter().map(|&p| shape[p]).collect(),
            strides: permutation.iter().map(|&p| steps[p] as isize).collect(),
            offset: 0,
        }
    }

    /// Drops dimensions of size 1 and merges those that are contiguous with each other.
    #[must_use]
    pub fn merged(&self) -> View {
        let mut merged = View { dims: Shape::new(), strides: SmallVec::new(), offset: self.offset };
        for (&d, &s) in self.dims.iter().zip(&self.strides) {
            if d == 1 {
                continue;
            }
            match (merged.dims.last_mut(), merged.strides.last_mut()) {
                (Some(outer), Some(step)) if *step == s * d as isize => {
                    *outer *= d;
                    *step = s;
                }
                _ => {
                    merged.dims.push(d);
                    merged.strides.push(s);
                }
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_lies_is_refused() {
        assert!(Tensor::new(vec![2, 3], Data::F32(vec![0.0; 5].into())).is_err());
        assert!(element_count(&[1 << 40, 1 << 40]).is_err());
        assert!(element_count(&[0, 1 << 40]).is_err());
        assert_eq!(element_count(&[3, 0]).unwrap(), 0);
        assert_eq!(element_count(&[]).unwrap(), 1);
    }

    #[test]
    fn strides_are_row_major() {
        assert_eq!(strides(&[2, 3, 4]), [12, 4, 1]);
        assert!(strides(&[]).is_empty());
    }
}
