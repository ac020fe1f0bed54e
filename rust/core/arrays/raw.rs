//! Elements without a header, little endian.

use crate::tensor::{DType, Data, Shape, Tensor, element_count};
use crate::{Error, Result};
use half::{bf16, f16};

/// Bytes of one element in a file; four-bit codes take a byte.
fn width(dtype: DType) -> usize {
    dtype.size()
}

/// Elements of `dtype` from bytes in file order; `swap` for big endian. The number of bytes must be a multiple of the
/// element's.
pub fn element_from_le(dtype: DType, bytes: &[u8], swap: bool) -> Result<Data> {
    macro_rules! read {
        ($variant:ident, $t:ty, $n:literal) => {
            Data::$variant(
                bytes
                    .chunks_exact($n)
                    .map(|c| {
                        let c: [u8; $n] = c.try_into().expect("chunks have this size");
                        if swap { <$t>::from_be_bytes(c) } else { <$t>::from_le_bytes(c) }
                    })
                    .collect(),
            )
        };
    }
    Ok(match dtype {
        DType::F64 => read!(F64, f64, 8),
        DType::F32 => read!(F32, f32, 4),
        DType::F16 => read!(F16, f16, 2),
        DType::BF16 => read!(BF16, bf16, 2),
        DType::I64 => read!(I64, i64, 8),
        DType::I32 => read!(I32, i32, 4),
        DType::I16 => read!(I16, i16, 2),
        DType::I8 | DType::I4 | DType::I2 => read!(I8, i8, 1),
        DType::U64 => read!(U64, u64, 8),
        DType::U32 => read!(U32, u32, 4),
        DType::U16 => read!(U16, u16, 2),
        DType::U8 | DType::U4 | DType::U2 => Data::U8(bytes.to_vec().into()),
        DType::Bool => match bytes.iter().find(|b| **b > 1) {
            Some(b) => return Err(Error::invalid("bool_byte", format!("byte {b} is not a bool"))),
            None => Data::Bool(bytes.iter().map(|b| *b == 1).collect()),
        },
    })
}

/// A tensor from the bytes of a raw file. `dims` has at most one unknown, which follows from the number of bytes.
///
/// # Errors
/// `raw_size` where the bytes do not fill the shape, `raw_shape` where more than one dimension is unknown.
pub fn decode(bytes: &[u8], dtype: DType, dims: &[Option<usize>]) -> Result<Tensor> {
    let known: Vec<usize> = dims.iter().flatten().copied().collect();
    let product = element_count(&known)?;
    let unknown = dims.len() - known.len();
    let described = || {
        let dims: Vec<String> = dims.iter().map(|d| d.map_or("?".into(), |n| n.to_string())).collect();
        dims.join("x")
    };
    if unknown > 1 {
        return Err(Error::invalid(
            "raw_shape",
            format!("a raw file cannot tell {unknown} dimensions of {}", described()),
        )
        .help("give them: --shape NAME=1,3,224,224"));
    }
    let row = product * width(dtype);
    let fits =
        if unknown == 0 { bytes.len() == row } else { row > 0 && !bytes.is_empty() && bytes.len().is_multiple_of(row) };
    if !fits {
        let whole = if unknown == 0 { "" } else { "a multiple of " };
        return Err(Error::invalid(
            "raw_size",
            format!("{} bytes where {dtype} of shape {} needs {whole}{row}", bytes.len(), described()),
        )
        .help("raw files hold float32; codes with --native-input"));
    }
    let shape: Shape = dims.iter().map(|d| d.unwrap_or_else(|| bytes.len() / row)).collect();
    Tensor::new(shape, element_from_le(dtype, bytes, false)?)
}

/// The elements as little-endian bytes.
pub fn encode(tensor: &Tensor) -> Vec<u8> {
    macro_rules! bytes {
        ($v:expr) => {
            $v.iter().flat_map(|x| x.to_le_bytes()).collect()
        };
    }
    match tensor.data() {
        Data::F64(v) => bytes!(v),
        Data::F32(v) => bytes!(v),
        Data::F16(v) => bytes!(v),
        Data::BF16(v) => bytes!(v),
        Data::I64(v) => bytes!(v),
        Data::I32(v) => bytes!(v),
        Data::I16(v) => bytes!(v),
        Data::I8(v) => bytes!(v),
        Data::U64(v) => bytes!(v),
        Data::U32(v) => bytes!(v),
        Data::U16(v) => bytes!(v),
        Data::U8(v) => v.to_vec(),
        Data::Bool(v) => v.iter().map(|&b| u8::from(b)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unknown_dimension_follows_from_the_size() {
        let bytes: Vec<u8> = [1.0f32, -2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = decode(&bytes, DType::F32, &[None, Some(2)]).unwrap();
        assert_eq!(tensor, Tensor::f32(&[2, 2], vec![1.0, -2.0, 3.0, 4.0]));
        assert_eq!(encode(&tensor), bytes);
        assert_eq!(decode(&bytes, DType::F32, &[Some(3)]).unwrap_err().code(), "raw_size");
        assert_eq!(decode(&bytes, DType::F32, &[None, Some(3)]).unwrap_err().code(), "raw_size");
        assert_eq!(decode(&[], DType::F32, &[None, Some(2)]).unwrap_err().code(), "raw_size");
        assert_eq!(decode(&bytes, DType::F32, &[None, Some(0)]).unwrap_err().code(), "raw_size");
        assert_eq!(decode(&bytes, DType::F32, &[None, None]).unwrap_err().code(), "raw_shape");
        assert_eq!(decode(&bytes, DType::F32, &[Some(1 << 40), None]).unwrap_err().code(), "tensor_too_large");
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        assert_eq!(decode(&[0, 1, 2], DType::Bool, &[Some(3)]).unwrap_err().code(), "bool_byte");
    }
}
