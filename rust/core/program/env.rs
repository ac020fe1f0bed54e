//! What a program sees: constants, per-channel constants, tables and run-time inputs.

use super::column::{Column, scalar};
use super::graph::Cell;
use super::sharing::Mixer;
use super::types::{Datum, Rate, Value};
use crate::error::{Error, Result};
use crate::num::FloatType;
use indexmap::IndexMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// Most elements of a table, and most channels.
pub(super) const MAX_TABLE: usize = 1 << 20;

#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// One value or table, or one per channel.
    Constant(Column),
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
    pub(super) entries: IndexMap<String, Entry, BuildHasherDefault<Mixer>>,
    pub(super) inputs: Vec<Input>,
    pub(super) output: Option<(i64, i64)>,
}

impl Env {
    /// Knows no names.
    pub fn new() -> Self {
        Self::default()
    }

    /// A constant, such as `x.scale` or `attr.alpha`.
    pub fn constant(&mut self, name: impl Into<String>, value: Value) -> &mut Self {
        self.insert(name, value)
    }

    /// One value per channel, all of one type. All channel vectors of an environment must have the same length; a
    /// vector of length one is a constant.
    pub fn channel(&mut self, name: impl Into<String>, values: Vec<Value>) -> &mut Self {
        self.insert(name, values.into_iter().map(|v| Ok(Datum::Value(v))).collect::<Vec<Cell>>())
    }

    /// As [`Env::channel`], of ints.
    pub fn channel_ints(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = i64>) -> &mut Self {
        self.insert(name, Column::of(values))
    }

    /// As [`Env::channel`], of `f64`.
    pub fn channel_reals(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = f64>) -> &mut Self {
        self.insert(name, Column::of(values))
    }

    fn insert(&mut self, name: impl Into<String>, column: impl Into<Column>) -> &mut Self {
        self.entries.insert(name.into(), Entry::Constant(column.into()));
        self
    }

    /// Gives what `name` means, if anything, another name, too.
    pub fn repeat(&mut self, name: &str, other: String) -> &mut Self {
        if let Some(entry) = self.entries.get(name).cloned() {
            self.entries.insert(other, entry);
        }
        self
    }

    /// A constant table, such as the weights for `sum(w)`.
    pub fn table(&mut self, name: impl Into<String>, values: Vec<Value>) -> &mut Self {
        self.channel_table(name, vec![values])
    }

    /// One table per channel.
    pub fn channel_table(&mut self, name: impl Into<String>, tables: Vec<Vec<Value>>) -> &mut Self {
        self.insert(name, tables.into_iter().map(|table| Ok(Datum::Table(Arc::new(table)))).collect::<Vec<Cell>>())
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
                Entry::Constant(column) => {
                    set(name, column.len())?;
                    if let Column::Cells(cells) = column {
                        let scalars = cells.iter().filter_map(scalar);
                        match scalars.clone().count() {
                            0 => {}
                            n if n == cells.len() => one_type(name, scalars)?,
                            _ => {
                                let message = format!("'{name}' mixes tables and numbers");
                                return Err(Error::invalid("program_environment", message));
                            }
                        }
                    }
                    column.tables().try_for_each(|table| one_type(name, table.iter().copied()))?;
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

/// Values in a vector or table are of one type.
fn one_type(name: &str, values: impl Iterator<Item = Value>) -> Result<()> {
    let fault = |message: String| Err(Error::invalid("program_environment", message));
    let (mut first, mut count) = (None, 0);
    for value in values {
        let (ty, first) = (value.type_of(), *first.get_or_insert(value.type_of()));
        if ty != first {
            return fault(format!("'{name}' mixes {first} and {ty}"));
        }
        count += 1;
    }
    match count {
        0 => fault(format!("'{name}' is empty")),
        1..=MAX_TABLE => Ok(()),
        _ => fault(format!("'{name}' has more than {MAX_TABLE} values")),
    }
}
