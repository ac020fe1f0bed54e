//! Tensors of an ONNX file: types, shapes, elements inside the file and outside of it.

use super::external;
use super::proto::{TensorProto, data_type};
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor, element_count};
use half::{bf16, f16};
use std::path::Path;

/// The element type of an ONNX number; an error for types that no operator here reads.
pub fn dtype(number: i32) -> Result<DType> {
    Ok(match number {
        data_type::FLOAT => DType::F32,
        data_type::UINT8 => DType::U8,
        data_type::INT8 => DType::I8,
        data_type::UINT16 => DType::U16,
        data_type::INT16 => DType::I16,
        data_type::INT32 => DType::I32,
        data_type::INT64 => DType::I64,
        data_type::BOOL => DType::Bool,
        data_type::FLOAT16 => DType::F16,
        data_type::DOUBLE => DType::F64,
        data_type::UINT32 => DType::U32,
        data_type::UINT64 => DType::U64,
        data_type::BFLOAT16 => DType::BF16,
        data_type::UINT4 => DType::U4,
        data_type::INT4 => DType::I4,
        data_type::UINT2 => DType::U2,
        data_type::INT2 => DType::I2,
        0 => return Err(Error::invalid("tensor_type", "the element type is undefined")),
        data_type::STRING | 14 | 15 | 17..=20 | 23 | 24 | 27 | 28 => {
            let name = match number {
                8 => "string",
                14 => "complex64",
                15 => "complex128",
                17 => "float8e4m3fn",
                18 => "float8e4m3fnuz",
                19 => "float8e5m2",
                20 => "float8e5m2fnuz",
                23 => "float4e2m1",
                24 => "float8e8m0",
                27 => "float6e2m3",
                _ => "float6e3m2",
            };
            return Err(Error::unsupported("tensor_type_unsupported", format!("elements of type {name}")));
        }
        other => return Err(Error::invalid("tensor_type", format!("element type {other} does not exist in ONNX"))),
    })
}

/// The ONNX number of an element type.
pub fn number(dtype: DType) -> i32 {
    match dtype {
        DType::F64 => data_type::DOUBLE,
        DType::F32 => data_type::FLOAT,
        DType::F16 => data_type::FLOAT16,
        DType::BF16 => data_type::BFLOAT16,
        DType::I64 => data_type::INT64,
        DType::I32 => data_type::INT32,
        DType::I16 => data_type::INT16,
        DType::I8 => data_type::INT8,
        DType::U64 => data_type::UINT64,
        DType::U32 => data_type::UINT32,
        DType::U16 => data_type::UINT16,
        DType::U8 => data_type::UINT8,
        DType::Bool => data_type::BOOL,
        DType::I4 => data_type::INT4,
        DType::U4 => data_type::UINT4,
        DType::I2 => data_type::INT2,
        DType::U2 => data_type::UINT2,
    }
}

/// Reads a tensor. Those of two and four bits come back as `I8` and `U8` data, one code per element, under their own type.
///
/// External data is looked for in `base_dir`. Sizes are compared with the data before anything is allocated.
pub fn decode(proto: TensorProto, base_dir: Option<&Path>) -> Result<(DType, Tensor)> {
    let name = proto.name.clone().unwrap_or_default();
    decode_unnamed(proto, base_dir).map_err(|e| e.at_tensor(&name))
}

fn decode_unnamed(proto: TensorProto, base_dir: Option<&Path>) -> Result<(DType, Tensor)> {
    let dtype = dtype(proto.data_type.unwrap_or(0))?;
    if proto.segment.is_some() {
        return Err(Error::unsupported("tensor_segment", "tensors split into segments"));
    }
    let shape = shape(&proto.dims)?;
    let count = element_count(&shape)?;
    let bytes = byte_count(dtype, count);
    let data = match proto.data_location.unwrap_or(0) {
        1 => {
            let raw = external::read(&proto.external_data, base_dir, bytes)?;
            from_bytes(dtype, &raw, count)?
        }
        0 => inline(dtype, &proto, count, bytes)?,
        other => return Err(Error::invalid("tensor_location", format!("data location {other} does not exist"))),
    };
    Ok((dtype, Tensor::new(shape, data)?))
}

/// Bytes that `count` elements take in a file.
fn byte_count(dtype: DType, count: usize) -> usize {
    match dtype.packed_bits() {
        Some(bits) => count.div_ceil(per_byte(bits)),
        None => count * dtype.size(),
    }
}

/// Elements of so many bits in a byte.
fn per_byte(bits: u32) -> usize {
    8 / bits as usize
}

fn shape(dims: &[i64]) -> Result<Vec<usize>> {
    dims.iter()
        .map(|&d| {
            usize::try_from(d)
                .map_err(|_| Error::invalid("tensor_dims", format!("dimension {d} in {dims:?} is negative")))
        })
        .collect()
}

fn inline(dtype: DType, proto: &TensorProto, count: usize, bytes: usize) -> Result<Data> {
    let typed = [
        proto.float_data.len(),
        proto.int32_data.len(),
        proto.string_data.len(),
        proto.int64_data.len(),
        proto.double_data.len(),
        proto.uint64_data.len(),
    ];
    let fields = typed.iter().filter(|&&n| n > 0).count();
    let raw = proto.raw_data.as_deref().filter(|raw| !raw.is_empty());
    if fields + usize::from(raw.is_some()) > 1 {
        return Err(Error::invalid("tensor_data_twice", "the tensor has data in more than one field"));
    }
    if let Some(raw) = raw {
        if raw.len() != bytes {
            return Err(Error::invalid(
                "tensor_data_length",
                format!("{count} elements of {dtype} take {bytes} bytes, the file has {}", raw.len()),
            ));
        }
        return from_bytes(dtype, raw, count);
    }
    let wrong_length = |found: usize| {
        let found =
            if found == 0 && fields > 0 { "them in a field of another type".to_string() } else { found.to_string() };
        Error::invalid(
            "tensor_data_length",
            format!("the shape needs {count} elements of {dtype}, the file has {found}"),
        )
    };
    macro_rules! whole {
        ($variant:ident, $field:ident) => {{
            if proto.$field.len() != count {
                return Err(wrong_length(proto.$field.len()));
            }
            Data::$variant(proto.$field.clone().into())
        }};
    }
    macro_rules! narrowed {
        ($variant:ident, $field:ident, $type:ty) => {{
            if proto.$field.len() != count {
                return Err(wrong_length(proto.$field.len()));
            }
            Data::$variant(proto.$field.iter().map(|&v| narrow::<_, $type>(v, dtype)).collect::<Result<_>>()?)
        }};
    }
    Ok(match dtype {
        DType::F32 => whole!(F32, float_data),
        DType::F64 => whole!(F64, double_data),
        DType::I64 => whole!(I64, int64_data),
        DType::I32 => whole!(I32, int32_data),
        DType::U64 => whole!(U64, uint64_data),
        DType::U32 => narrowed!(U32, uint64_data, u32),
        DType::I16 => narrowed!(I16, int32_data, i16),
        DType::I8 => narrowed!(I8, int32_data, i8),
        DType::U16 => narrowed!(U16, int32_data, u16),
        DType::U8 => narrowed!(U8, int32_data, u8),
        DType::Bool | DType::F16 | DType::BF16 => {
            if proto.int32_data.len() != count {
                return Err(wrong_length(proto.int32_data.len()));
            }
            let patterns = proto.int32_data.iter().map(|&v| narrow::<_, u16>(v, dtype)).collect::<Result<Vec<_>>>()?;
            match dtype {
                DType::Bool => Data::Bool(patterns.iter().map(|&v| boolean(v)).collect::<Result<_>>()?),
                DType::F16 => Data::F16(patterns.into_iter().map(f16::from_bits).collect()),
                _ => Data::BF16(patterns.into_iter().map(bf16::from_bits).collect()),
            }
        }
        DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
            if proto.int32_data.len() != bytes {
                let each = dtype.packed_bits().map_or(1, per_byte);
                return Err(wrong_length(proto.int32_data.len() * each));
            }
            // The numbers are bytes; writers give them as 0..=255 or, sign-extended, as -128..=127.
            let raw = proto
                .int32_data
                .iter()
                .map(|&v| u8::try_from(v).or_else(|_| narrow::<_, i8>(v, dtype).map(|b| b as u8)))
                .collect::<Result<Vec<_>>>()?;
            from_bytes(dtype, &raw, count)?
        }
    })
}

fn narrow<From: Copy + std::fmt::Display, To: TryFrom<From>>(value: From, dtype: DType) -> Result<To> {
    To::try_from(value).map_err(|_| Error::invalid("tensor_range", format!("value {value} is outside {dtype}")))
}

fn boolean(value: u16) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::invalid("tensor_range", format!("value {other} is outside bool"))),
    }
}

/// Elements from little-endian bytes, whose number has been checked.
fn from_bytes(dtype: DType, raw: &[u8], count: usize) -> Result<Data> {
    macro_rules! words {
        ($variant:ident, $type:ty) => {
            Data::$variant(raw.as_chunks().0.iter().map(|&b| <$type>::from_le_bytes(b)).collect())
        };
    }
    Ok(match dtype {
        DType::F64 => words!(F64, f64),
        DType::F32 => words!(F32, f32),
        DType::F16 => words!(F16, f16),
        DType::BF16 => words!(BF16, bf16),
        DType::I64 => words!(I64, i64),
        DType::I32 => words!(I32, i32),
        DType::I16 => words!(I16, i16),
        DType::I8 => Data::I8(raw.iter().map(|&b| b as i8).collect()),
        DType::U64 => words!(U64, u64),
        DType::U32 => words!(U32, u32),
        DType::U16 => words!(U16, u16),
        DType::U8 => Data::U8(raw.to_vec().into()),
        DType::Bool => Data::Bool(raw.iter().map(|&b| boolean(b.into())).collect::<Result<_>>()?),
        DType::I4 => Data::I8(unpacked(raw, 4, count).map(|n| ((n << 4) as i8) >> 4).collect()),
        DType::U4 => Data::U8(unpacked(raw, 4, count).collect()),
        DType::I2 => Data::I8(unpacked(raw, 2, count).map(|n| ((n << 6) as i8) >> 6).collect()),
        DType::U2 => Data::U8(unpacked(raw, 2, count).collect()),
    })
}

/// The first `count` values of so many bits, the low ones of each byte first.
fn unpacked(raw: &[u8], bits: u32, count: usize) -> impl Iterator<Item = u8> {
    raw.iter().flat_map(move |&b| (0..8 / bits).map(move |i| (b >> (i * bits)) & ((1 << bits) - 1))).take(count)
}

/// The message of a tensor. `dtype` decides on packing: `I4` and `I2` take `I8` data, `U4` and `U2` take `U8`.
pub fn encode(name: &str, dtype: DType, tensor: &Tensor) -> Result<TensorProto> {
    let raw = match (dtype, tensor.data()) {
        (DType::I4, Data::I8(v)) => pack(4, v.iter().map(|&c| (c.into(), c as u8, (-8..8).contains(&c))), name)?,
        (DType::U4, Data::U8(v)) => pack(4, v.iter().map(|&c| (c.into(), c, c < 16)), name)?,
        (DType::I2, Data::I8(v)) => pack(2, v.iter().map(|&c| (c.into(), c as u8, (-2..2).contains(&c))), name)?,
        (DType::U2, Data::U8(v)) => pack(2, v.iter().map(|&c| (c.into(), c, c < 4)), name)?,
        (_, data) if data.dtype() == dtype => to_bytes(data),
        (_, data) => {
            let message = format!("the data is {}, the declared type is {dtype}", data.dtype());
            return Err(Error::invalid("tensor_dtype", message).at_tensor(name));
        }
    };
    Ok(TensorProto {
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        data_type: Some(number(dtype)),
        name: Some(name.to_string()),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    })
}

fn to_bytes(data: &Data) -> Vec<u8> {
    match data {
        Data::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::BF16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I8(v) => v.iter().map(|&x| x as u8).collect(),
        Data::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U8(v) => v.to_vec(),
        Data::Bool(v) => v.iter().map(|&x| x.into()).collect(),
    }
}

fn pack(bits: u32, codes: impl Iterator<Item = (i32, u8, bool)>, name: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for (i, (shown, code, fits)) in codes.enumerate() {
        if !fits {
            return Err(
                Error::invalid("tensor_range", format!("code {shown} does not fit {bits} bits")).at_tensor(name)
            );
        }
        let (place, code) = (i % per_byte(bits), code & ((1 << bits) - 1));
        match place {
            0 => out.push(code),
            _ => *out.last_mut().expect("pushed before") |= code << (place as u32 * bits),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::bytes::Bytes;

    fn proto(data_type: i32, dims: &[i64]) -> TensorProto {
        TensorProto { dims: dims.to_vec(), data_type: Some(data_type), ..TensorProto::default() }
    }

    #[test]
    fn four_bit_codes_lie_low_half_first() {
        let raw = Some(Bytes::from_static(&[0x8F, 0x07]));
        let (dtype, t) = decode(TensorProto { raw_data: raw.clone(), ..proto(data_type::INT4, &[3]) }, None).unwrap();
        assert_eq!((dtype, t.data()), (DType::I4, &Data::I8(vec![-1, -8, 7].into())));
        let (dtype, t) = decode(TensorProto { raw_data: raw, ..proto(data_type::UINT4, &[3]) }, None).unwrap();
        assert_eq!((dtype, t.data()), (DType::U4, &Data::U8(vec![15, 8, 7].into())));
        let typed = TensorProto { int32_data: vec![0x8F, 7], ..proto(data_type::INT4, &[3]) };
        assert_eq!(decode(typed, None).unwrap().1.data(), &Data::I8(vec![-1, -8, 7].into()));
    }

    #[test]
    fn two_bit_codes_lie_low_bits_first() {
        let raw = Some(Bytes::from_static(&[0b11_10_01_00, 0b01]));
        let (dtype, t) = decode(TensorProto { raw_data: raw.clone(), ..proto(data_type::INT2, &[5]) }, None).unwrap();
        assert_eq!((dtype, t.data()), (DType::I2, &Data::I8(vec![0, 1, -2, -1, 1].into())));
        assert_eq!(encode("t", dtype, &t).unwrap().raw_data, raw);
        let (dtype, t) = decode(TensorProto { raw_data: raw.clone(), ..proto(data_type::UINT2, &[5]) }, None).unwrap();
        assert_eq!((dtype, t.data()), (DType::U2, &Data::U8(vec![0, 1, 2, 3, 1].into())));
        assert_eq!(encode("t", dtype, &t).unwrap().raw_data, raw);
        let typed = TensorProto { int32_data: vec![0b11_10_01_00], ..proto(data_type::INT2, &[5]) };
        assert!(decode(typed, None).unwrap_err().to_string().contains("has 4"));
        let wide = Tensor::new(vec![1], Data::I8(vec![2].into())).unwrap();
        assert!(encode("t", DType::I2, &wide).unwrap_err().to_string().contains("does not fit 2 bits"));
    }

    #[test]
    fn every_type_survives_writing_and_reading() {
        let all = [
            Data::F64(vec![1.5, -0.0].into()),
            Data::F32(vec![f32::MIN_POSITIVE, 3.0].into()),
            Data::F16(vec![f16::from_f32(0.1), f16::MAX].into()),
            Data::BF16(vec![bf16::from_f32(0.1), bf16::MAX].into()),
            Data::I64(vec![i64::MIN, 5].into()),
            Data::I32(vec![i32::MIN, 5].into()),
            Data::I16(vec![i16::MIN, 5].into()),
            Data::I8(vec![i8::MIN, 5].into()),
            Data::U64(vec![u64::MAX, 5].into()),
            Data::U32(vec![u32::MAX, 5].into()),
            Data::U16(vec![u16::MAX, 5].into()),
            Data::U8(vec![u8::MAX, 5].into()),
            Data::Bool(vec![true, false].into()),
        ];
        for data in all {
            let tensor = Tensor::new(vec![2, 1], data).unwrap();
            let read = decode(encode("t", tensor.dtype(), &tensor).unwrap(), None).unwrap();
            assert_eq!(read, (tensor.dtype(), tensor));
        }
        let tensor = Tensor::new(vec![3], Data::I8(vec![-8, 7, -1].into())).unwrap();
        assert_eq!(decode(encode("t", DType::I4, &tensor).unwrap(), None).unwrap(), (DType::I4, tensor));
        let tensor = Tensor::new(vec![1], Data::U8(vec![16].into())).unwrap();
        assert_eq!(encode("t", DType::U4, &tensor).unwrap_err().code(), "tensor_range");
    }

    #[test]
    fn typed_fields_hold_narrow_types_and_bit_patterns() {
        let t = |number, values: &[i32]| TensorProto { int32_data: values.to_vec(), ..proto(number, &[1]) };
        assert_eq!(decode(t(data_type::INT8, &[-128]), None).unwrap().1.data(), &Data::I8(vec![-128].into()));
        assert_eq!(decode(t(data_type::INT8, &[128]), None).unwrap_err().code(), "tensor_range");
        assert_eq!(decode(t(data_type::BOOL, &[2]), None).unwrap_err().code(), "tensor_range");
        assert_eq!(decode(t(data_type::FLOAT16, &[0x3C00]), None).unwrap().1.data(), &Data::F16(vec![f16::ONE].into()));
        assert_eq!(
            decode(t(data_type::BFLOAT16, &[0x3F80]), None).unwrap().1.data(),
            &Data::BF16(vec![bf16::ONE].into())
        );
        assert_eq!(decode(t(data_type::FLOAT, &[1]), None).unwrap_err().code(), "tensor_data_length");
    }
}
