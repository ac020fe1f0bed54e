//! What a program sees: constants, per-channel constants, tables and run-time inputs.

use super::types::{Rate, Type, Value};
use crate::error::{Error, Result};
use crate::num::FloatType;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most elements of a table, and most channels.
pub(super) const MAX_TABLE: usize = 1 << 20;

#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// One value, or one per channel.
    Values(Arc<Vec<Value>>),
    /// One table, or one per channel.
    Tables(Vec<Arc<Vec<Value>>>),
    /// Position among the inputs.
    Input(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Input {
    pub name: String,
    pub kind: InputKind,
    pub rate: Rate,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum InputKind {
    Int(i128, i128),
    Float(FloatType),
}

/// Names and their meaning, given by the operator that compiles a program.
#[derive(Debug, Clone, Default)]
pub struct Env {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) inputs: Vec<Input>,
    pub(super) output: Option<(i64, i64)>,
}

impl Env {
    /// Knows no names.
    pub fn new() -> Self {
        Self::default()
    }

    /// A constant, such as `x.scale` or `attr.alpha`.
    pub fn constant(&mut self, name: &str, value: Value) -> &mut Self {
        self.entries.insert(name.into(), Entry::Values(Arc::new(vec![value])));
        self
    }

    /// One value per channel, all of one type. All channel vectors of an environment must have the same length; a
    /// vector of length one is a constant.
    pub fn channel(&mut self, name: &str, values: Vec<Value>) -> &mut Self {
        self.entries.insert(name.into(), Entry::Values(Arc::new(values)));
        self
    }

    /// A constant table, such as the weights for `sum(w)`.
    pub fn table(&mut self, name: &str, values: Vec<Value>) -> &mut Self {
        self.entries.insert(name.into(), Entry::Tables(vec![Arc::new(values)]));
        self
    }

    /// One table per channel.
    pub fn channel_table(&mut self, name: &str, tables: Vec<Vec<Value>>) -> &mut Self {
        self.entries.insert(name.into(), Entry::Tables(tables.into_iter().map(Arc::new).collect()));
        self
    }

    /// An integer that is known while the kernel runs, with its proven range `lo..=hi`.
    pub fn input_int(&mut self, name: &str, lo: i128, hi: i128) -> &mut Self {
        self.input(name, InputKind::Int(lo, hi), Rate::Elem)
    }

    /// A float that is known while the kernel runs.
    pub fn input_float(&mut self, name: &str, format: FloatType) -> &mut Self {
        self.input(name, InputKind::Float(format), Rate::Elem)
    }

    /// An integer that is the same for a whole row.
    pub fn input_row_int(&mut self, name: &str, lo: i128, hi: i128) -> &mut Self {
        self.input(name, InputKind::Int(lo, hi), Rate::Row)
    }

    /// A float that is the same for a whole row.
    pub fn input_row_float(&mut self, name: &str, format: FloatType) -> &mut Self {
        self.input(name, InputKind::Float(format), Rate::Row)
    }

    /// The codes of the output, for `sat(v, y)`. Also sets `y.qmin` and `y.qmax`.
    pub fn output(&mut self, qmin: i64, qmax: i64) -> &mut Self {
        self.output = Some((qmin, qmax));
        self.constant("y.qmin", Value::Int(qmin.into())).constant("y.qmax", Value::Int(qmax.into()))
    }

    fn input(&mut self, name: &str, kind: InputKind, rate: Rate) -> &mut Self {
        let position = match self.entries.get(name) {
            Some(Entry::Input(position)) => *position,
            _ => self.inputs.len(),
        };
        let input = Input { name: name.into(), kind, rate };
        if position == self.inputs.len() {
            self.inputs.push(input);
        } else {
            self.inputs[position] = input;
        }
        self.entries.insert(name.into(), Entry::Input(position));
        self
    }

    /// Number of channels; an error where vectors disagree, are empty or mix types.
    pub(super) fn channels(&self) -> Result<usize> {
        let mut channels = 1;
        let mut set = |name: &str, length: usize| -> Result<()> {
            if length == 0 || length > MAX_TABLE {
                return Err(Error::invalid("program_environment", format!("'{name}' has {length} values")));
            }
            if length != 1 && channels != 1 && length != channels {
                return Err(Error::invalid(
                    "program_environment",
                    format!("'{name}' has {length} channels, another vector has {channels}"),
                ));
            }
            channels = channels.max(length);
            Ok(())
        };
        for (name, entry) in &self.entries {
            match entry {
                Entry::Values(values) => {
                    set(name, values.len())?;
                    one_type(name, values)?;
                }
                Entry::Tables(tables) => {
                    set(name, tables.len())?;
                    for table in tables {
                        one_type(name, table)?;
                    }
                }
                Entry::Input(position) => {
                    if let InputKind::Int(lo, hi) = self.inputs[*position].kind
                        && (lo > hi || i64::try_from(lo).is_err() || i64::try_from(hi).is_err())
                    {
                        return Err(Error::invalid(
                            "program_environment",
                            format!("the range {lo}..={hi} of input '{name}' is empty or leaves 64 bits"),
                        ));
                    }
                }
            }
        }
        Ok(channels)
    }
}

fn one_type(name: &str, values: &[Value]) -> Result<Type> {
    let Some(first) = values.first() else {
        return Err(Error::invalid("program_environment", format!("'{name}' is empty")));
    };
    match values.iter().find(|v| v.type_of() != first.type_of()) {
        None if values.len() <= MAX_TABLE => Ok(first.type_of()),
        None => Err(Error::invalid("program_environment", format!("'{name}' has more than {MAX_TABLE} values"))),
        Some(other) => Err(Error::invalid(
            "program_environment",
            format!("'{name}' mixes {} and {}", first.type_of(), other.type_of()),
        )),
    }
}
