//! What a program sees: encodings, attributes and sizes as named constants.

use crate::encoding::{Encoding, Granularity};
use crate::error::Result;
use crate::graph::{Attribute, Node, PARAMETER_PREFIX};
use crate::ops::{Fact, Facts};
use crate::program::{Env, Value};

/// What [`add_encoding`] adds.
const FIELDS: [&str; 8] = ["scale", "zp", "qmin", "qmax", "bits", "signed", "symmetric", "per_channel"];

/// Adds the encoding that `name` has under another name, too.
pub fn repeat_encoding(env: &mut Env, name: &str, other: &str) {
    for field in FIELDS {
        env.repeat(&[name, ".", field].concat(), [other, ".", field].concat());
    }
}

/// Adds `name.scale .zp .qmin .qmax .bits .signed .symmetric .per_channel` of an encoding. A per-channel scale becomes a channel
/// value.
pub fn add_encoding(env: &mut Env, name: &str, encoding: &Encoding) {
    let key = |field: &str| [name, ".", field].concat();
    if encoding.granularity == Granularity::PerTensor {
        env.constant(key("scale"), Value::F64(encoding.scale[0]));
        env.constant(key("zp"), Value::Int(encoding.zero_point[0].into()));
    } else {
        env.channel_reals(key("scale"), encoding.scale.iter().copied());
        env.channel_ints(key("zp"), encoding.zero_point.iter().copied());
    }
    env.constant(key("qmin"), Value::Int(encoding.qmin().into()));
    env.constant(key("qmax"), Value::Int(encoding.qmax().into()));
    env.constant(key("bits"), Value::Int(encoding.bitwidth.into()));
    env.constant(key("signed"), Value::Bool(encoding.signed));
    env.constant(key("symmetric"), Value::Bool(encoding.symmetric));
    env.constant(key("per_channel"), Value::Bool(encoding.granularity != Granularity::PerTensor));
}

/// The encoding of a fact that an integer kernel needs.
pub fn encoding_of<'a>(facts: &Facts<'_>, fact: &'a Fact) -> Result<&'a Encoding> {
    fact.encoding.as_deref().ok_or_else(|| {
        facts
            .invalid(format!("tensor '{}' has no encoding", fact.name))
            .help("calibrate it, or let the node run in float")
    })
}

/// Adds the output `y`; a fused activation narrows `y.qmin` and `y.qmax`.
pub fn add_output(env: &mut Env, encoding: &Encoding, clamp: Option<(i64, i64)>) {
    add_encoding(env, "y", encoding);
    let (lo, hi) = clamp.unwrap_or((encoding.qmin(), encoding.qmax()));
    env.constant("y.qmin", Value::Int(lo.into()));
    env.constant("y.qmax", Value::Int(hi.into()));
    env.constant("y.dmin", Value::Int(encoding.qmin().into()));
    env.constant("y.dmax", Value::Int(encoding.qmax().into()));
    env.output(lo, hi);
}

/// Adds numeric attributes as `attr.name`, and parameters of the target as the Booleans `attr.name.value`.
pub fn add_attributes(env: &mut Env, node: &Node, defaults: &[(&str, f32)]) {
    for (name, value) in defaults {
        env.constant(format!("attr.{name}"), Value::F32(*value));
    }
    for (name, attribute) in &node.attributes {
        let name = name.strip_prefix(PARAMETER_PREFIX).unwrap_or(name);
        let value = match attribute {
            Attribute::Int(v) if name.contains('.') => Value::Bool(*v != 0),
            Attribute::Int(v) => Value::Int((*v).into()),
            Attribute::Float(v) => Value::F32(*v),
            _ => continue,
        };
        env.constant(format!("attr.{name}"), value);
    }
}

/// Declares a run-time input that holds codes of an encoding.
pub fn add_code_input(env: &mut Env, name: &str, encoding: &Encoding) {
    env.input_int(name, encoding.qmin().into(), encoding.qmax().into());
}
