//! Versions 2.0.0 and 2.1.0: a flat list of `{name, output_dtype, y_scale, y_zero_point, axis, block_size}` in ONNX's
//! convention. They differ in how LPBQ is written.

use super::json::{Fields, flatten};
use super::v0_6_1::check_zero_points;
use super::v1_0_0::{block_size, entry_name, int_scales, take_list};
use super::{AxisEvidence, EncodingsFile, Entry, FloatKind, Layout, NamedEntry, Place, Section, Unplaced};
use crate::encoding::{Encoding, Granularity, Lpbq};
use crate::error::Result;
use serde_json::{Map, Value};

const FIELDS: [&str; 9] = [
    "name",
    "output_dtype",
    "y_scale",
    "y_zero_point",
    "axis",
    "block_size",
    "per_block_int_scale",
    "per_channel_float_scale",
    "input_dtype",
];

pub(super) fn parse(top: &mut Map<String, Value>, file: &mut EncodingsFile) -> Result<()> {
    for item in &take_list(top, "encodings")? {
        let name = entry_name(item)?;
        let fields = Fields::new(name, item, &FIELDS)?;
        let (entry, place) = entry(&fields)?;
        file.insert(NamedEntry { name: name.into(), section: Section::Unknown, entry, place })?;
    }
    Ok(())
}

fn entry(fields: &Fields<'_>) -> Result<(Entry, Place)> {
    if fields.optional("input_dtype").is_some() {
        return Err(fields.unsupported("scales that are floats of few bits (input_dtype) are not supported"));
    }
    let dtype = fields.string("output_dtype")?;
    let float = match dtype {
        "float16" => Some(FloatKind::F16),
        "bfloat16" => Some(FloatKind::BF16),
        "float32" => Some(FloatKind::F32),
        _ => None,
    };
    if let Some(kind) = float {
        if fields.optional("y_scale").is_some() {
            return Err(fields.unsupported(format!("{dtype} with a scale is not supported")));
        }
        return Ok((Entry::Float(kind), Place::STATED));
    }
    if dtype.starts_with("float") {
        return Err(fields.unsupported(format!("output_dtype '{dtype}' is not supported")));
    }
    let (signed, digits) = match dtype.strip_prefix("uint") {
        Some(digits) => (false, digits),
        None => (true, dtype.strip_prefix("int").unwrap_or("")),
    };
    let bitwidth = digits.parse::<u32>().ok().filter(|b| (2..=32).contains(b) && !digits.starts_with(['0', '+']));
    let Some(bitwidth) = bitwidth else {
        return Err(fields
            .error("encodings_dtype", format!("unknown output_dtype '{dtype}'"))
            .help("integer types are int2 to int32 and uint2 to uint32"));
    };
    let lpbq_fields = ["per_block_int_scale", "per_channel_float_scale"];
    if lpbq_fields.iter().any(|key| fields.optional(key).is_some()) {
        if fields.optional("y_scale").is_some() {
            return Err(fields.error("encodings_field", "y_scale and per_block_int_scale exclude each other"));
        }
        return lpbq(fields, bitwidth, signed);
    }
    let y_scale = fields.required("y_scale")?;
    if y_scale.is_object() {
        return lpbq(fields, bitwidth, signed);
    }
    let (dims, leaves) = flatten(fields, "y_scale", y_scale)?;
    let scale = leaves.into_iter().map(|v| fields.scale("y_scale", v)).collect::<Result<Vec<f64>>>()?;
    let zero_point = zero_points(fields, &dims, scale.len())?;
    let values = Encoding {
        symmetric: signed && zero_point.iter().all(|&z| z == 0),
        scale,
        zero_point,
        bitwidth,
        signed,
        narrow_range: false,
        granularity: Granularity::PerTensor,
        lpbq: None,
    };
    check_zero_points(&values, fields.tensor)?;
    if fields.optional("block_size").is_some() {
        let axis = axis(fields, "axis", Some(dims.len()))?;
        return Ok(shaped(values, dims, axis, block_size(fields)?));
    }
    match (dims.len(), fields.optional("axis")) {
        (0, None) => Ok((Entry::Int(values), Place::STATED)),
        (1, Some(_)) => {
            let granularity = Granularity::PerChannel { axis: axis(fields, "axis", None)? };
            Ok((Entry::Int(Encoding { granularity, ..values }), Place::STATED))
        }
        (0, Some(_)) => Err(fields.error("encodings_length", "an axis needs a list of scales")),
        (1, None) => Err(fields
            .error("encodings_axis", "a list of scales needs an axis")
            .help("write a single scale as a number, not as a list")),
        _ => Err(fields.error("encodings_block", "nested scales need a block_size")),
    }
}

/// Zero points of the same form as the scales, or one for all; 0 where absent.
fn zero_points(fields: &Fields<'_>, dims: &[usize], count: usize) -> Result<Vec<i64>> {
    let key = "y_zero_point";
    let Some(value) = fields.optional(key) else {
        return Ok(vec![0; count]);
    };
    let (own, leaves) = flatten(fields, key, value)?;
    let leaves = leaves.into_iter().map(|v| fields.integer(key, v)).collect::<Result<Vec<i64>>>()?;
    if own.is_empty() {
        return Ok(vec![leaves[0]; count]);
    }
    if own != dims {
        return Err(
            fields.error("encodings_length", format!("y_zero_point has the dimensions {own:?}, y_scale has {dims:?}"))
        );
    }
    Ok(leaves)
}

/// An axis; a negative one counts from the end where the rank is known.
fn axis(fields: &Fields<'_>, key: &str, rank: Option<usize>) -> Result<usize> {
    let value = fields.required(key)?;
    let axis = value.as_i64().ok_or_else(|| fields.wrong(key, "a whole number", value))?;
    let counted = match rank {
        Some(rank) if axis < 0 => axis + rank as i64,
        _ => axis,
    };
    usize::try_from(counted).ok().filter(|&a| rank.is_none_or(|r| a < r)).ok_or_else(|| {
        fields
            .error("encodings_axis", format!("field '{key}' has {axis}, which is no axis of the tensor"))
            .help("count axes from the front, starting at 0")
    })
}

/// Block scales of `dims`: complete where no dimension of 1 may have to stretch over the tensor.
fn shaped(values: Encoding, dims: Vec<usize>, axis: usize, block_size: usize) -> (Entry, Place) {
    let stretches = dims.iter().enumerate().any(|(i, &d)| i != axis && d == 1);
    let channel_axis = values.lpbq.as_ref().map(|l| l.channel_axis);
    let place = Place { evidence: AxisEvidence::Stated, channel_axis, block_dims: Some(dims.clone()) };
    if stretches {
        return (Entry::Unplaced(Unplaced { values, layout: Layout::Shaped { dims, axis, block_size } }), place);
    }
    (Entry::Int(Encoding { granularity: Granularity::PerBlock { axis, block_size }, ..values }), place)
}

/// Bits after decompression, which 2.x does not store: twice the codes' bits, or as many as the largest integer scale
/// needs.
pub(super) fn implied_decompressed_bitwidth(compressed: u32, int_scale: &[u32]) -> u32 {
    let largest = int_scale.iter().copied().max().unwrap_or(1).max(1);
    (2 * compressed).max(compressed + (u32::BITS - (largest - 1).leading_zeros())).min(32)
}

fn lpbq(fields: &Fields<'_>, bitwidth: u32, signed: bool) -> Result<(Entry, Place)> {
    if !signed {
        return Err(fields.error("encodings_dtype", "an LPBQ entry must have a signed output_dtype"));
    }
    if bitwidth > 16 {
        return Err(fields.unsupported(format!("LPBQ codes of {bitwidth} bits are not supported")));
    }
    let zero_point = fields.optional("y_zero_point");
    if let Some(value) = zero_point {
        let (_, leaves) = flatten(fields, "y_zero_point", value)?;
        if leaves.iter().any(|v| v.as_f64() != Some(0.0)) {
            return Err(fields.error("encodings_zero_point", "an LPBQ entry must have zero points of 0"));
        }
    }
    let block_size = block_size(fields)?;
    let (dims, int_scale, channel_axis, channel_scale);
    let largest = 1u64 << (32 - bitwidth);
    let block_axis;
    if let Some(value) = fields.optional("y_scale") {
        let inner = Fields::new(fields.tensor, value, &["x", "x_scale", "axis"])?;
        let (d, leaves) = flatten(&inner, "x", inner.required("x")?)?;
        int_scale = int_scales(&inner, leaves.into_iter(), largest)?;
        channel_scale =
            inner.list("x_scale")?.iter().map(|v| inner.scale("x_scale", v)).collect::<Result<Vec<f64>>>()?;
        channel_axis = axis(&inner, "axis", Some(d.len()))?;
        block_axis = axis(fields, "axis", Some(d.len()))?;
        dims = d;
    } else {
        let (d, leaves) = flatten(fields, "per_block_int_scale", fields.required("per_block_int_scale")?)?;
        int_scale = int_scales(fields, leaves.into_iter(), largest)?;
        let key = "per_channel_float_scale";
        let (channel_dims, leaves) = flatten(fields, key, fields.required(key)?)?;
        channel_scale = leaves.into_iter().map(|v| fields.scale(key, v)).collect::<Result<Vec<f64>>>()?;
        block_axis = axis(fields, "axis", Some(d.len()))?;
        let wide: Vec<usize> = (0..channel_dims.len()).filter(|&i| channel_dims[i] != 1).collect();
        if channel_dims.len() != d.len() || wide.len() > 1 {
            return Err(fields.error(
                "encodings_length",
                format!("channel scales of dimensions {channel_dims:?} for block scales of {d:?}"),
            ));
        }
        channel_axis = wide.first().copied().unwrap_or(usize::from(block_axis == 0));
        dims = d;
    }
    if channel_axis == block_axis || dims.get(channel_axis) != Some(&channel_scale.len()) {
        return Err(fields.error(
            "encodings_length",
            format!(
                "{} channel scales on axis {channel_axis} for block scales of dimensions {dims:?} on axis {block_axis}",
                channel_scale.len()
            ),
        ));
    }
    let inner: usize = dims[channel_axis + 1..].iter().product();
    let values = Encoding {
        scale: int_scale
            .iter()
            .enumerate()
            .map(|(i, &k)| f64::from(k) * channel_scale[i / inner % channel_scale.len()])
            .collect(),
        zero_point: vec![0; int_scale.len()],
        bitwidth,
        signed,
        symmetric: true,
        narrow_range: false,
        granularity: Granularity::PerTensor,
        lpbq: Some(Lpbq {
            compressed_bitwidth: bitwidth,
            decompressed_bitwidth: implied_decompressed_bitwidth(bitwidth, &int_scale),
            per_block_int_scale: int_scale,
            per_channel_scale: channel_scale,
            channel_axis,
        }),
    };
    Ok(shaped(values, dims, block_axis, block_size))
}
