//! Version 0.6.1: `{"name": [{bitwidth, dtype, is_symmetric, min, max, offset, scale}, …one per channel…]}`.

use super::json::{Fields, kind};
use super::legacy::{Convention, Offsets, decode};
use super::{EncodingsFile, Entry, FloatKind, Layout, NamedEntry, Section, Unplaced};
use crate::error::{Error, Result};
use serde_json::{Map, Value};

const FIELDS: [&str; 7] = ["bitwidth", "dtype", "is_symmetric", "min", "max", "offset", "scale"];

pub(super) fn parse(top: &mut Map<String, Value>, file: &mut EncodingsFile) -> Result<()> {
    let convention = Convention::of_producer(&file.producer);
    for (key, section) in [("activation_encodings", Section::Activation), ("param_encodings", Section::Param)] {
        let tensors = match top.remove(key) {
            Some(Value::Object(map)) => map,
            None => return Err(Error::invalid("encodings_field", format!("the file has no '{key}'"))),
            Some(other) => {
                return Err(Error::invalid(
                    "encodings_field",
                    format!("'{key}' must be an object of lists, found {}", kind(&other)),
                ));
            }
        };
        for (name, list) in tensors {
            let entry = entry(&name, &list, section, convention)?;
            file.insert(NamedEntry::new(name, section, entry))?;
        }
    }
    Ok(())
}

fn entry(name: &str, list: &Value, section: Section, convention: Convention) -> Result<Entry> {
    let list = list.as_array().filter(|l| !l.is_empty()).ok_or_else(|| {
        Error::invalid("encodings_field", format!("expected a list of encodings, found {}", kind(list))).at_tensor(name)
    })?;
    let channels = list.iter().map(|item| Fields::new(name, item, &FIELDS)).collect::<Result<Vec<_>>>()?;
    let first = &channels[0];
    let (bitwidth, dtype) = (first.bitwidth("bitwidth")?, first.string("dtype")?);
    for channel in &channels[1..] {
        if channel.bitwidth("bitwidth")? != bitwidth || channel.string("dtype")? != dtype {
            return Err(first.error("encodings_field", "the channels differ in bitwidth or dtype"));
        }
    }
    match dtype.to_ascii_lowercase().as_str() {
        "int" => {}
        "float" => {
            return match bitwidth {
                16 => Ok(Entry::Float(FloatKind::F16)),
                32 => Ok(Entry::Float(FloatKind::F32)),
                other => Err(first.unsupported(format!("floats of {other} bits are not supported"))),
            };
        }
        other => {
            return Err(first
                .error("encodings_dtype", format!("unknown dtype '{other}'"))
                .help("known dtypes: \"int\", \"float\""));
        }
    }
    let mut scale = Vec::with_capacity(channels.len());
    let mut grid = Offsets { is_symmetric: first.flag("is_symmetric")?, offset: Vec::with_capacity(channels.len()) };
    for channel in &channels {
        if channel.flag("is_symmetric")? != grid.is_symmetric {
            return Err(first.error("encodings_field", "the channels differ in is_symmetric"));
        }
        scale.push(channel.scale("scale", channel.required("scale")?)?);
        grid.offset.push(channel.integer("offset", channel.required("offset")?)?);
        check_range(channel)?;
    }
    let mut values = decode(&grid, bitwidth, section, convention);
    values.scale = scale;
    if values.scale.len() == 1 {
        values.validate().map_err(|e| e.at_tensor(name))?;
        return Ok(Entry::Int(values));
    }
    check_zero_points(&values, name)?;
    Ok(Entry::Unplaced(Unplaced { values, layout: Layout::List }))
}

/// `min` and `max` repeat what scale and offset say; they must at least be ordered numbers.
fn check_range(channel: &Fields<'_>) -> Result<()> {
    let end = |key: &str| match channel.optional(key) {
        None => Ok(None),
        Some(v) => v.as_f64().map(Some).ok_or_else(|| channel.wrong(key, "a number", v)),
    };
    if let (Some(min), Some(max)) = (end("min")?, end("max")?)
        && min > max
    {
        return Err(channel.error("encodings_range", format!("min {min} lies above max {max}")));
    }
    Ok(())
}

/// Zero points of scales that have no place yet.
pub(super) fn check_zero_points(values: &crate::encoding::Encoding, name: &str) -> Result<()> {
    let (lo, hi) = (values.qmin(), values.qmax());
    match values.zero_point.iter().find(|z| !(lo..=hi).contains(*z)) {
        Some(z) => {
            Err(Error::invalid("encoding_zero_point", format!("zero point {z} is outside {lo}..={hi}")).at_tensor(name))
        }
        None => Ok(()),
    }
}
