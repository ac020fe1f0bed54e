//! Version 1.0.0: lists of `{name, enc_type, dtype, bw, is_sym, scale: […], offset: […]}`.

use super::json::{Fields, kind};
use super::legacy::{Convention, Offsets, decode};
use super::v0_6_1::check_zero_points;
use super::{EncodingsFile, Entry, FloatKind, Layout, NamedEntry, Section, Unplaced};
use crate::encoding::{Encoding, Granularity, Lpbq};
use crate::error::{Error, Result};
use serde_json::{Map, Value};

const FIELDS: [&str; 11] = [
    "name",
    "enc_type",
    "dtype",
    "bw",
    "is_sym",
    "scale",
    "offset",
    "block_size",
    "compressed_bw",
    "per_block_int_scale",
    "zero_point_shift",
];

pub(super) fn parse(top: &mut Map<String, Value>, file: &mut EncodingsFile) -> Result<()> {
    let convention = Convention::of_producer(&file.producer);
    for (key, section) in [("activation_encodings", Section::Activation), ("param_encodings", Section::Param)] {
        for item in &take_list(top, key)? {
            let name = entry_name(item)?;
            let entry = entry(name, item, section, convention)?;
            file.insert(NamedEntry::new(name, section, entry))?;
        }
    }
    Ok(())
}

/// Removes a list from the top level.
pub(super) fn take_list(top: &mut Map<String, Value>, key: &str) -> Result<Vec<Value>> {
    match top.remove(key) {
        Some(Value::Array(list)) => Ok(list),
        None => Err(Error::invalid("encodings_field", format!("the file has no '{key}'"))),
        Some(other) => {
            Err(Error::invalid("encodings_field", format!("'{key}' must be a list, found {}", kind(&other)))
                .help("is the version of the file the one it states?"))
        }
    }
}

/// The name of an entry.
pub(super) fn entry_name(item: &Value) -> Result<&str> {
    item.get("name").and_then(Value::as_str).filter(|n| !n.is_empty()).ok_or_else(|| {
        Error::invalid("encodings_name", format!("an entry has no name: {}", kind(item)))
            .help("every entry needs the name of its tensor")
    })
}

fn entry(name: &str, item: &Value, section: Section, convention: Convention) -> Result<Entry> {
    let kind_of_entry = item.get("enc_type").and_then(Value::as_str).unwrap_or("PER_TENSOR");
    if kind_of_entry == "VECTOR" {
        return Err(Error::unsupported("encodings_unsupported", "vector quantization (VECTOR) is not supported")
            .at_tensor(name)
            .help("export the tensor with per-channel or block encodings"));
    }
    let fields = Fields::new(name, item, &FIELDS)?;
    let bitwidth = fields.bitwidth("bw")?;
    match fields.string("dtype")?.to_ascii_uppercase().as_str() {
        "INT" => {}
        "FLOAT" | "FP" => {
            return match bitwidth {
                16 => Ok(Entry::Float(FloatKind::F16)),
                32 => Ok(Entry::Float(FloatKind::F32)),
                other => Err(fields.unsupported(format!("floats of {other} bits are not supported"))),
            };
        }
        other => {
            return Err(fields
                .error("encodings_dtype", format!("unknown dtype '{other}'"))
                .help("known dtypes: \"INT\", \"FLOAT\""));
        }
    }
    if let Some(shift) = fields.optional("zero_point_shift") {
        let zero = match shift {
            Value::Array(items) => items.iter().all(|v| v.as_f64() == Some(0.0)),
            other => other.as_f64() == Some(0.0),
        };
        if !zero {
            return Err(fields.unsupported("grids shifted by half a step (zero_point_shift) are not supported"));
        }
    }
    let enc_type = fields.string("enc_type")?;
    let belongs: &[&str] = match enc_type {
        "PER_TENSOR" | "PER_CHANNEL" => &[],
        "PER_BLOCK" => &["block_size"],
        "LPBQ" => &["block_size", "compressed_bw", "per_block_int_scale"],
        other => {
            return Err(fields
                .error("encodings_enc_type", format!("unknown enc_type '{other}'"))
                .help("known: PER_TENSOR, PER_CHANNEL, PER_BLOCK, LPBQ"));
        }
    };
    for key in ["block_size", "compressed_bw", "per_block_int_scale"] {
        if !belongs.contains(&key) && fields.optional(key).is_some() {
            return Err(fields.error("encodings_field", format!("a {enc_type} entry has no field '{key}'")));
        }
    }
    let scale = fields.list("scale")?.iter().map(|v| fields.scale("scale", v)).collect::<Result<Vec<f64>>>()?;
    let offset = fields.list("offset")?.iter().map(|v| fields.integer("offset", v)).collect::<Result<Vec<i64>>>()?;
    if scale.is_empty() || scale.len() != offset.len() {
        return Err(fields.error("encodings_length", format!("{} scales and {} offsets", scale.len(), offset.len())));
    }
    let grid = Offsets { is_symmetric: fields.flag("is_sym")?, offset };
    if enc_type == "LPBQ" {
        return lpbq(&fields, bitwidth, &scale, &grid);
    }
    let mut values = decode(&grid, bitwidth, section, convention);
    values.scale = scale;
    check_zero_points(&values, name)?;
    match enc_type {
        "PER_TENSOR" if values.scale.len() != 1 => {
            Err(fields.error("encodings_length", format!("a PER_TENSOR entry has {} scales", values.scale.len())))
        }
        "PER_TENSOR" => Ok(Entry::Int(values)),
        "PER_CHANNEL" => Ok(Entry::Unplaced(Unplaced { values, layout: Layout::Channels })),
        _ => {
            let block_size = block_size(&fields)?;
            Ok(Entry::Unplaced(Unplaced { values, layout: Layout::ChannelBlocks { block_size } }))
        }
    }
}

/// A block size of at least 1.
pub(super) fn block_size(fields: &Fields<'_>) -> Result<usize> {
    match fields.count("block_size")? {
        0 => Err(fields.error("encodings_block", "block_size is 0")),
        size => Ok(size),
    }
}

/// `scale` and `offset` are per channel on the decompressed grid; the codes have `compressed_bw` bits.
fn lpbq(fields: &Fields<'_>, decompressed: u32, channel_scale: &[f64], grid: &Offsets) -> Result<Entry> {
    let compressed = fields.bitwidth("compressed_bw")?;
    if compressed >= decompressed {
        return Err(
            fields.error("encodings_bitwidth", format!("compressed_bw {compressed} is not below bw {decompressed}"))
        );
    }
    let half = 1i64 << (decompressed - 1);
    if !grid.is_symmetric || grid.offset.iter().any(|&o| o != -half) {
        return Err(
            fields.error("encodings_zero_point", format!("an LPBQ entry must be symmetric with offset -{half}"))
        );
    }
    let block_size = block_size(fields)?;
    let int_scale =
        int_scales(fields, fields.list("per_block_int_scale")?.iter(), 1u64 << (decompressed - compressed))?;
    let channels = channel_scale.len();
    if int_scale.is_empty() || int_scale.len() % channels != 0 {
        return Err(fields.error(
            "encodings_length",
            format!("{} integer scales cannot be shared among {channels} channels", int_scale.len()),
        ));
    }
    let blocks = int_scale.len() / channels;
    let values = Encoding {
        scale: int_scale.iter().enumerate().map(|(i, &k)| f64::from(k) * channel_scale[i / blocks]).collect(),
        zero_point: vec![0; int_scale.len()],
        bitwidth: compressed,
        signed: true,
        symmetric: true,
        narrow_range: false,
        granularity: Granularity::PerTensor,
        lpbq: Some(Lpbq {
            compressed_bitwidth: compressed,
            decompressed_bitwidth: decompressed,
            per_block_int_scale: int_scale,
            per_channel_scale: channel_scale.to_vec(),
            channel_axis: 0,
        }),
    };
    Ok(Entry::Unplaced(Unplaced { values, layout: Layout::ChannelBlocks { block_size } }))
}

/// Integer scales in `1..=largest`.
pub(super) fn int_scales<'a>(
    fields: &Fields<'_>,
    items: impl Iterator<Item = &'a Value>,
    largest: u64,
) -> Result<Vec<u32>> {
    items
        .map(|v| {
            let k = fields.integer("per_block_int_scale", v)?;
            u32::try_from(k)
                .ok()
                .filter(|&k| k >= 1 && u64::from(k) <= largest)
                .ok_or_else(|| fields.error("encodings_scale", format!("integer scale {k} is not in 1..={largest}")))
        })
        .collect()
}
