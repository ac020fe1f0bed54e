//! numpy arrays and tensors.
//!
//! An array is copied once on its way in, because the graph's values outlive the call; results move out without a copy.

use crate::error::OrRaise;
use half::{bf16, f16};
use nputwin::Error;
use nputwin::tensor::{Data, Tensor};
use numpy::ndarray::{ArrayD, IxDyn};
use numpy::{Element, PyArray, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

/// Elements of an array in row-major order, whatever its strides.
pub fn elements<T: Element + Copy>(array: &Bound<'_, PyArrayDyn<T>>) -> PyResult<Vec<T>> {
    if !array.is_c_contiguous() {
        let copy = array.call_method1("copy", ("C",))?.cast_into::<PyArrayDyn<T>>()?;
        return Ok(copy.try_readonly()?.as_slice()?.to_vec());
    }
    Ok(array.try_readonly()?.as_slice()?.to_vec())
}

/// The tensor that holds the values of a numpy array; `name` appears in errors.
///
/// numpy has no bfloat16 of its own: arrays of the type that the package `ml_dtypes` adds are taken as such.
pub fn to_tensor(array: &Bound<'_, PyUntypedArray>, name: &str) -> PyResult<Tensor> {
    let py = array.py();
    let shape = array.shape().to_vec();
    macro_rules! first_of {
        ($($type:ty => $variant:ident),*) => {
            $(if let Ok(typed) = array.cast::<PyArrayDyn<$type>>() {
                return Tensor::new(shape, Data::$variant(elements(typed)?.into())).or_raise(py);
            })*
        };
    }
    first_of!(f32 => F32, u8 => U8, i8 => I8, u16 => U16, i16 => I16, i32 => I32, u32 => U32, i64 => I64, u64 => U64,
        f64 => F64, f16 => F16, bool => Bool);
    let dtype = array.dtype();
    if dtype.itemsize() == 2 && dtype.str()?.to_str()? == "bfloat16" {
        let bits = array.call_method1("view", ("uint16",))?.cast_into::<PyArrayDyn<u16>>()?;
        let values = elements(&bits)?.into_iter().map(bf16::from_bits).collect();
        return Tensor::new(shape, Data::BF16(values)).or_raise(py);
    }
    let error = Error::invalid("array_dtype", format!("an array of {} cannot be a tensor", dtype.str()?))
        .at_tensor(name)
        .help("use a bool, integer or float array in the machine's byte order");
    Err(error).or_raise(py)
}

/// A numpy array that takes over the elements of a tensor. bfloat16 becomes float32, which holds the same values.
pub fn to_numpy(py: Python<'_>, tensor: Tensor) -> PyResult<Bound<'_, PyUntypedArray>> {
    let shape = tensor.shape().to_vec();
    match tensor.into_data() {
        Data::F64(v) => array(py, shape, v.into_vec()),
        Data::F32(v) => array(py, shape, v.into_vec()),
        Data::F16(v) => array(py, shape, v.into_vec()),
        Data::BF16(v) => array(py, shape, v.into_iter().map(f32::from).collect()),
        Data::I64(v) => array(py, shape, v.into_vec()),
        Data::I32(v) => array(py, shape, v.into_vec()),
        Data::I16(v) => array(py, shape, v.into_vec()),
        Data::I8(v) => array(py, shape, v.into_vec()),
        Data::U64(v) => array(py, shape, v.into_vec()),
        Data::U32(v) => array(py, shape, v.into_vec()),
        Data::U16(v) => array(py, shape, v.into_vec()),
        Data::U8(v) => array(py, shape, v.into_vec()),
        Data::Bool(v) => array(py, shape, v.into_vec()),
    }
}

/// A numpy array that takes over `elements`.
pub fn array<T: Element>(py: Python<'_>, shape: Vec<usize>, elements: Vec<T>) -> PyResult<Bound<'_, PyUntypedArray>> {
    let owned = ArrayD::from_shape_vec(IxDyn(&shape), elements)
        .map_err(|e| Error::invalid("tensor_shape", e.to_string()))
        .or_raise(py)?;
    Ok(PyArray::from_owned_array(py, owned).as_untyped().clone())
}
