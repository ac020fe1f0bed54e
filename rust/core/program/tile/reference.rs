//! The same interface, computed by the reference evaluator element by element.

use super::super::types::{Type, Value};
use super::super::{Compiled, env::InputKind};
use super::{Channels, Lanes, TileProgram};
use crate::error::{Error, Result};
use crate::num::FloatType;
use std::collections::HashMap;

impl TileProgram {
    /// Computes every element by [`Compiled::eval`]. Elements outside their declared ranges are errors.
    pub(super) fn evaluate<T>(
        &self,
        compiled: &Compiled,
        inputs: &[Lanes<'_>],
        channels: Channels,
        out: &mut [T],
        convert: impl Fn(Value) -> Option<T>,
    ) -> Result<()> {
        self.check(inputs, channels, out.len())?;
        let mut cells = HashMap::new();
        let mut values = Vec::with_capacity(inputs.len());
        for (i, out) in out.iter_mut().enumerate() {
            let channel = match channels {
                Channels::Uniform(channel) => channel,
                Channels::Cyclic { start } => (start + i) % self.channels,
            };
            let cells = match cells.entry(channel) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => entry.insert(compiled.fresh(channel)?),
            };
            values.clear();
            values.extend(inputs.iter().zip(&compiled.inputs).map(|(lanes, input)| lanes.value(i, input.kind)));
            let value = compiled.eval_in(cells, channel, &values)?;
            *out = convert(value)
                .ok_or_else(|| Error::invalid("program_output", format!("{value} does not fit the buffer")))?;
        }
        Ok(())
    }
}

impl Lanes<'_> {
    fn value(&self, i: usize, kind: InputKind) -> Value {
        let i = if self.len() == 1 { 0 } else { i };
        match (self, kind) {
            (Lanes::I32(v), _) => Value::Int(v[i].into()),
            (Lanes::I64(v), _) => Value::Int(v[i].into()),
            (Lanes::F32(v), InputKind::Float(format)) => Value::float(v[i].into(), format),
            (Lanes::F32(v), InputKind::Int(..)) => Value::F32(v[i]),
            (Lanes::F64(v), _) => Value::float(v[i], FloatType::F64),
        }
    }
}

/// An int or a truth value as an integer type.
pub(super) fn int<T: TryFrom<i128>>(value: Value) -> Option<T> {
    let value = value.as_int().or_else(|| value.as_bool().map(i128::from))?;
    T::try_from(value).ok()
}

/// A float of at most 32 bits.
pub(super) fn single(value: Value) -> Option<f32> {
    (value.type_of() != Type::Float(FloatType::F64)).then(|| value.as_float().map(|v| v as f32)).flatten()
}
