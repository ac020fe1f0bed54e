//! JSON without duplicate keys, and typed access to the fields of one tensor's entry.

use crate::error::{Error, Location, Result};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Parses `bytes`; a key that occurs twice in one object is an error.
pub(super) fn parse(bytes: &[u8], origin: &str) -> Result<Value> {
    let fail = |e: serde_json::Error| {
        Error::invalid("encodings_json", e.to_string())
            .at(Location::File(origin.into()))
            .help("an encodings file is JSON, which has no NaN, no infinity and no key twice in one object")
    };
    parse_strict(bytes).map_err(fail)
}

/// Parses JSON whose objects have no key twice.
pub(crate) fn parse_strict(bytes: &[u8]) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(serde::de::Error::custom(format_args!("key '{key}' occurs twice")));
            }
            let value = access.next_value_seed(Strict)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// The fields of one tensor's entry.
pub(super) struct Fields<'a> {
    pub(super) tensor: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of an object whose keys are all among `known`.
    pub(super) fn new(tensor: &'a str, value: &'a Value, known: &[&str]) -> Result<Self> {
        let Value::Object(map) = value else {
            return Err(Error::invalid("encodings_field", format!("expected an object, found {}", kind(value)))
                .at_tensor(tensor));
        };
        let fields = Fields { tensor, map };
        if let Some(key) = map.keys().find(|k| !known.contains(&k.as_str())) {
            return Err(fields
                .error("encodings_field", format!("unknown field '{key}'"))
                .help(format!("fields of this kind of entry: {}", known.join(", "))));
        }
        Ok(fields)
    }

    pub(super) fn error(&self, code: &'static str, message: impl Into<String>) -> Error {
        Error::invalid(code, message).at_tensor(self.tensor)
    }

    pub(super) fn unsupported(&self, message: impl Into<String>) -> Error {
        Error::unsupported("encodings_unsupported", message).at_tensor(self.tensor)
    }

    /// A field that may be absent; null counts as absent.
    pub(super) fn optional(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn required(&self, key: &str) -> Result<&'a Value> {
        self.optional(key).ok_or_else(|| self.error("encodings_field", format!("field '{key}' is missing")))
    }

    pub(super) fn wrong(&self, key: &str, expected: &str, value: &Value) -> Error {
        self.error("encodings_field", format!("field '{key}' must be {expected}, found {}", kind(value)))
    }

    pub(super) fn string(&self, key: &str) -> Result<&'a str> {
        let value = self.required(key)?;
        value.as_str().ok_or_else(|| self.wrong(key, "a string", value))
    }

    pub(super) fn count(&self, key: &str) -> Result<usize> {
        let value = self.required(key)?;
        value
            .as_u64()
            .and_then(|v| usize::try_from(v).ok())
            .ok_or_else(|| self.wrong(key, "a whole number of 0 or more", value))
    }

    /// A width in 2..=32.
    pub(super) fn bitwidth(&self, key: &str) -> Result<u32> {
        let value = self.required(key)?;
        value.as_u64().filter(|b| (2..=32).contains(b)).map(|b| b as u32).ok_or_else(|| {
            self.error("encodings_bitwidth", format!("field '{key}' must be a whole number in 2..=32, found {value}"))
        })
    }

    /// `true`, `false`, or one of the strings "True" and "False".
    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        let value = self.required(key)?;
        match value {
            Value::Bool(b) => Ok(*b),
            Value::String(s) if s.eq_ignore_ascii_case("true") => Ok(true),
            Value::String(s) if s.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(self.wrong(key, "true or false", value)),
        }
    }

    /// A flat list.
    pub(super) fn list(&self, key: &str) -> Result<&'a [Value]> {
        let value = self.required(key)?;
        value.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(key, "a list", value))
    }

    /// A scale: finite and above zero.
    pub(super) fn scale(&self, key: &str, value: &Value) -> Result<f64> {
        let scale = value.as_f64().ok_or_else(|| self.wrong(key, "a number", value))?;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(self
                .error("encodings_scale", format!("field '{key}' has the scale {scale}"))
                .help("a scale must be finite and above zero"));
        }
        Ok(scale)
    }

    /// A whole number that may be written as a float (`-128.0`).
    pub(super) fn integer(&self, key: &str, value: &Value) -> Result<i64> {
        if let Some(i) = value.as_i64() {
            return Ok(i);
        }
        let float = value.as_f64().ok_or_else(|| self.wrong(key, "a number", value))?;
        if float.fract() != 0.0 || float.abs() > 9.0e15 {
            let error = self.error("encodings_zero_point", format!("field '{key}' has {float}, not a whole number"));
            let half = float.fract().abs() == 0.5;
            return Err(error.help(if half {
                "grids shifted by half a step (zero_point_shift) are not supported"
            } else {
                "zero points and offsets are whole numbers"
            }));
        }
        Ok(float as i64)
    }
}

/// Flattens nested lists of equal lengths into row-major leaves and dimensions; a scalar has no dimensions.
pub(super) fn flatten<'a>(fields: &Fields<'_>, key: &str, value: &'a Value) -> Result<(Vec<usize>, Vec<&'a Value>)> {
    let Value::Array(items) = value else {
        return Ok((Vec::new(), vec![value]));
    };
    let mut inner: Option<Vec<usize>> = None;
    let mut leaves = Vec::with_capacity(items.len());
    for item in items {
        let (dims, mut part) = flatten(fields, key, item)?;
        if inner.as_ref().is_some_and(|known| *known != dims) {
            return Err(fields.error("encodings_length", format!("field '{key}' has rows of different lengths")));
        }
        inner = Some(dims);
        leaves.append(&mut part);
    }
    if leaves.is_empty() {
        return Err(fields.error("encodings_length", format!("field '{key}' is an empty list")));
    }
    let mut dims = vec![items.len()];
    dims.extend(inner.unwrap_or_default());
    Ok((dims, leaves))
}

/// The inverse of [`flatten`].
pub(super) fn nest(dims: &[usize], leaves: &[Value]) -> Value {
    match dims {
        [] => leaves.first().cloned().unwrap_or(Value::Null),
        [_] => Value::Array(leaves.to_vec()),
        [_, inner @ ..] => {
            let size = inner.iter().product::<usize>().max(1);
            Value::Array(leaves.chunks(size).map(|part| nest(inner, part)).collect())
        }
    }
}

pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => format!("\"{}\"", s.chars().take(40).collect::<String>()),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".into(),
    }
}
