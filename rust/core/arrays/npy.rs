//! numpy's file of one array.

use super::raw;
use crate::tensor::{DType, Data, Tensor, element_count, strides};
use crate::{Error, Location, Result, map_data};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads an array. `origin` names the bytes in errors.
///
/// # Errors
/// `npy_magic`, `npy_header`, `npy_dtype` and `npy_size` for what is not an array of numbers that fills its shape.
pub fn decode(bytes: &[u8], origin: &str) -> Result<Tensor> {
    decode_unplaced(bytes).map_err(|e| e.at(Location::File(origin.to_string())))
}

fn decode_unplaced(bytes: &[u8]) -> Result<Tensor> {
    let data_start = header_length(bytes)?;
    let Header { dtype, swap, fortran, shape } = header(&bytes[..data_start])?;
    let (count, data) = (element_count(&shape)?, &bytes[data_start..]);
    if data.len() != count * dtype.size() {
        return Err(Error::invalid(
            "npy_size",
            format!("{} bytes of data where {dtype} of shape {shape:?} needs {}", data.len(), count * dtype.size()),
        )
        .help("the file is cut short or has something behind its data"));
    }
    let data = raw::element_from_le(dtype, data, swap)?;
    let data = if fortran { map_data!(data, v => from_fortran(&v, &shape).into()) } else { data };
    Tensor::new(shape, data)
}

/// Where the data starts; checked before anything is allocated for the header.
fn header_length(bytes: &[u8]) -> Result<usize> {
    if !bytes.starts_with(MAGIC) {
        return Err(Error::invalid("npy_magic", "not a numpy file").help("write it with numpy.save"));
    }
    let short = || Error::invalid("npy_header", "the header is cut short");
    let major = *bytes.get(6).ok_or_else(short)?;
    let (start, length) = match major {
        1 => (10, bytes.get(8..10).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))),
        2 | 3 => (12, bytes.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)),
        _ => return Err(Error::invalid("npy_header", format!("version {major} of the format is not known"))),
    };
    let end = start + length.ok_or_else(short)?;
    if end > bytes.len() {
        return Err(short());
    }
    Ok(end)
}

/// What the header says of the data.
struct Header {
    dtype: DType,
    /// Big endian.
    swap: bool,
    /// Column-major.
    fortran: bool,
    shape: Vec<usize>,
}

/// Parses the dictionary `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, keys in any order.
fn header(bytes: &[u8]) -> Result<Header> {
    let fault = |what: &str| Error::invalid("npy_header", format!("the header {what}"));
    let start = bytes.iter().position(|b| *b == b'{').ok_or_else(|| fault("holds no dictionary"))?;
    let text = std::str::from_utf8(&bytes[start..]).map_err(|_| fault("is not UTF-8"))?;
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    let mut rest = text[1..].trim_start();
    while !rest.starts_with('}') {
        let (key, after) = quoted(rest).ok_or_else(|| fault("has a key without quotes"))?;
        let after =
            after.trim_start().strip_prefix(':').ok_or_else(|| fault("has a key without a value"))?.trim_start();
        rest = match key {
            "descr" => {
                let Some((value, after)) = quoted(after) else {
                    return Err(Error::invalid("npy_dtype", "elements of a structured type are not numbers"));
                };
                descr = Some(element_type(value)?);
                after
            }
            "fortran_order" => {
                let order = [("True", true), ("False", false)].into_iter();
                let found = order.filter_map(|(word, v)| Some((v, after.strip_prefix(word)?))).next();
                let (value, after) = found.ok_or_else(|| fault("has an order that is neither True nor False"))?;
                fortran = Some(value);
                after
            }
            "shape" => {
                let inside = after.strip_prefix('(').and_then(|r| r.split_once(')'));
                let (dims, after) = inside.ok_or_else(|| fault("has a shape without parentheses"))?;
                let dims = dims.split(',').map(str::trim).filter(|d| !d.is_empty());
                let dims =
                    dims.map(|d| d.trim_end_matches('L').parse().map_err(|_| fault(&format!("has dimension '{d}'"))));
                shape = Some(dims.collect::<Result<Vec<usize>>>()?);
                after
            }
            other => return Err(fault(&format!("has an unknown key '{other}'"))),
        }
        .trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.starts_with('}') => rest,
            None => return Err(fault("is not a dictionary of key and value")),
        };
    }
    let (dtype, swap) = descr.ok_or_else(|| fault("has no descr"))?;
    Ok(Header {
        dtype,
        swap,
        fortran: fortran.ok_or_else(|| fault("has no fortran_order"))?,
        shape: shape.ok_or_else(|| fault("has no shape"))?,
    })
}

/// A quoted word and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// Type and endianness (`true` for big) of numpy's short name.
fn element_type(descr: &str) -> Result<(DType, bool)> {
    let (order, kind) = match descr.chars().next() {
        Some(order @ ('<' | '>' | '|' | '=')) => (order, &descr[1..]),
        _ => ('=', descr),
    };
    let dtype = match kind {
        "f8" => DType::F64,
        "f4" => DType::F32,
        "f2" => DType::F16,
        "i8" => DType::I64,
        "i4" => DType::I32,
        "i2" => DType::I16,
        "i1" => DType::I8,
        "u8" => DType::U64,
        "u4" => DType::U32,
        "u2" => DType::U16,
        "u1" => DType::U8,
        "b1" => DType::Bool,
        _ => {
            let message = format!("elements of type '{descr}' are not numbers that a tensor can hold");
            return Err(Error::invalid("npy_dtype", message));
        }
    };
    Ok((dtype, order == '>' || (order == '=' && cfg!(target_endian = "big"))))
}

/// From column-major to row-major order.
fn from_fortran<T: Copy>(data: &[T], shape: &[usize]) -> Vec<T> {
    let mut column_strides = vec![1; shape.len()];
    for i in 1..shape.len() {
        column_strides[i] = column_strides[i - 1] * shape[i - 1];
    }
    let row_strides = strides(shape);
    (0..data.len())
        .map(|flat| {
            let place: usize = (0..shape.len()).map(|a| flat / row_strides[a] % shape[a] * column_strides[a]).sum();
            data[place]
        })
        .collect()
}

/// An array as bytes, version 1.0. bfloat16, which numpy lacks, is widened to float32 without loss.
pub fn encode(tensor: &Tensor) -> Vec<u8> {
    if let Data::BF16(v) = tensor.data() {
        return encode(&Tensor::f32(tensor.shape(), v.iter().map(|x| x.to_f32()).collect()));
    }
    let descr = match tensor.dtype() {
        DType::F64 => "<f8",
        DType::F32 | DType::BF16 => "<f4",
        DType::F16 => "<f2",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I16 => "<i2",
        DType::I8 | DType::I4 | DType::I2 => "|i1",
        DType::U64 => "<u8",
        DType::U32 => "<u4",
        DType::U16 => "<u2",
        DType::U8 | DType::U4 | DType::U2 => "|u1",
        DType::Bool => "|b1",
    };
    let dims: String = tensor.shape().iter().map(|d| format!("{d},")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(raw::encode(tensor));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_type_survives_a_round_trip() {
        for data in [
            Data::F64(vec![0.1, f64::NEG_INFINITY].into()),
            Data::F32(vec![0.1, -0.0].into()),
            Data::F16(vec![f16::from_f32(0.1), f16::MAX].into()),
            Data::I64(vec![i64::MIN, 1].into()),
            Data::I32(vec![i32::MIN, 1].into()),
            Data::I16(vec![i16::MIN, 1].into()),
            Data::I8(vec![i8::MIN, 1].into()),
            Data::U64(vec![u64::MAX, 1].into()),
            Data::U32(vec![u32::MAX, 1].into()),
            Data::U16(vec![u16::MAX, 1].into()),
            Data::U8(vec![u8::MAX, 1].into()),
            Data::Bool(vec![true, false].into()),
        ] {
            let tensor = Tensor::new(vec![2, 1], data).unwrap();
            let bytes = encode(&tensor);
            assert_eq!((bytes.len() - tensor.len() * tensor.dtype().size()) % 64, 0);
            assert_eq!(decode(&bytes, "x").unwrap(), tensor);
        }
        let scalar = Tensor::f32(&[], vec![3.0]);
        assert_eq!(decode(&encode(&scalar), "x").unwrap(), scalar);
        let narrow = Tensor::new(vec![1], Data::BF16(vec![bf16::from_f32(1.5)].into())).unwrap();
        assert_eq!(decode(&encode(&narrow), "x").unwrap(), Tensor::f32(&[1], vec![1.5]));
    }

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([1, 0]);
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn column_major_and_big_endian_arrays_are_understood() {
        let data: Vec<u8> = [1i16, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_be_bytes()).collect();
        let bytes = file("{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n", &data);
        assert_eq!(
            decode(&bytes, "x").unwrap(),
            Tensor::new(vec![2, 3], Data::I16(vec![1, 2, 3, 4, 5, 6].into())).unwrap()
        );
    }

    #[test]
    fn each_fault_has_its_error() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
        let code = |bytes: &[u8]| decode(bytes, "x").unwrap_err().code();
        assert_eq!(code(b""), "npy_magic");
        assert_eq!(code(b"PK\x03\x04"), "npy_magic");
        assert_eq!(code(&MAGIC[..6]), "npy_header");
        assert_eq!(code(&[MAGIC, &[9, 0, 0, 0]].concat()), "npy_header");
        assert_eq!(code(&[MAGIC, &[2, 0, 255, 255, 255, 255]].concat()), "npy_header");
        assert_eq!(code(&file("{'shape': }", &[])), "npy_header");
        assert_eq!(code(&file(good, &[0; 7])), "npy_size");
        assert_eq!(code(&file(good, &[0; 9])), "npy_size");
        assert_eq!(code(&file("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }\n", &[0; 16])), "npy_dtype");
        assert_eq!(code(&file("{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }\n", &[0; 16])), "npy_dtype");
        let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }\n";
        assert_eq!(code(&file(huge, &[])), "tensor_too_large");
        for broken in [
            "{",
            "{}",
            "{'descr'}",
            "{'descr': '<f4'",
            "{'descr': '<f4' 'shape': ()}",
            "{'colour': 1}",
            "no dictionary",
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (2,), }",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }",
            "{'shape': (2,), 'fortran_order': False}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': 2, }",
        ] {
            assert_eq!(code(&file(broken, &[0; 8])), "npy_header", "{broken}");
        }
        assert_eq!(code(&file("{'descr': [('a', '<f4')], 'shape': (2,)}", &[0; 8])), "npy_dtype");
    }
}
