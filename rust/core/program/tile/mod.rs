//! The tile executor: any program, 256 lanes at a time, one pass per operation.
//!
//! Ints run in 32-bit lanes where their proven range allows, else in 64 or 128; `f16` and `bf16` lie in f32 lanes.
//! Results equal those of the reference evaluator bit for bit as long as inputs lie in their declared ranges; lanes
//! that break them hold unspecified values, and nothing panics.

mod build;
mod kernels;
mod lanes;
mod loops;
mod reference;
#[cfg(test)]
mod tests;

use super::Compiled;
use super::executor::Vectors;
use super::graph::{Comparison, Math, Node};
use super::types::{Datum, Type};
use crate::error::{Error, Result};
use crate::num::{FloatType, Rounding};
pub use lanes::LANES;
use lanes::{Consts, Scratch, View};
use std::sync::Arc;

/// Run-time values of one input. A slice of length one counts for all elements. Floats of 16 bits come in f32 lanes.
#[derive(Debug, Clone, Copy)]
pub enum Lanes<'a> {
    /// Ints.
    I32(&'a [i32]),
    /// Ints.
    I64(&'a [i64]),
    /// f32, f16 or bf16.
    F32(&'a [f32]),
    /// f64.
    F64(&'a [f64]),
}

impl Lanes<'_> {
    fn len(&self) -> usize {
        match self {
            Lanes::I32(v) => v.len(),
            Lanes::I64(v) => v.len(),
            Lanes::F32(v) => v.len(),
            Lanes::F64(v) => v.len(),
        }
    }
}

/// Which channel each element belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// All elements belong to this channel.
    Uniform(usize),
    /// Element `i` belongs to channel `start + i`, modulo the number of channels.
    Cyclic {
        /// Channel of the first element.
        start: usize,
    },
}

/// Kind of lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Class {
    I32,
    I64,
    I128,
    F32,
    F64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    None,
    Register(Class, u16),
    Constant(Class, u16),
}

/// How a right shift is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shift {
    Floor,
    /// `(v + half) >> n`, proven not to overflow the lane.
    AddHalfUp,
    /// `(v + half - (v < 0)) >> n`, proven not to overflow the lane.
    AddHalfAway,
    /// Floor, and one more where the rest exceeds a threshold.
    Threshold(Rounding),
}

#[derive(Debug, Clone)]
enum Action {
    Load(usize),
    Convert,
    Neg,
    Abs,
    Not,
    Add,
    Sub,
    Mul,
    /// 32 · 32 to 64 bits.
    MulWide,
    Div,
    DivInt(Rounding),
    Min,
    Max,
    Clamp,
    Fma,
    FmaHalf(FloatType),
    /// f32 lanes to f16 in f32 lanes.
    RoundF16,
    /// f64 lanes to f16 or bf16 in f32 lanes.
    RoundHalf(FloatType),
    Compare(Comparison),
    And,
    Or,
    Select,
    Shl,
    Shr(Shift),
    Wrap {
        bits: u32,
        signed: bool,
    },
    /// Entry of a table; the index of the table's constants.
    At(u16),
    /// Edges at most the value; the index of the edges' constants.
    Bucket(u16),
    /// Leading zeros of 64-bit lanes, less those beyond the width; the result in 32-bit lanes.
    Clz(u32),
    FloorLog2,
    Round(Rounding),
    Math(Math),
    /// Lane by lane through the reference evaluator.
    Reference(Box<Reference>),
}

#[derive(Debug, Clone)]
struct Reference {
    node: Node,
    args: Vec<Argument>,
}

#[derive(Debug, Clone)]
enum Argument {
    Lane(Source, Type),
    /// One, or one per channel.
    Tables(Vec<Datum>),
}

#[derive(Debug, Clone)]
struct Instruction {
    action: Action,
    a: Source,
    b: Source,
    c: Source,
    class: Class,
    destination: u16,
}

/// A compiled program for many elements.
#[derive(Debug, Clone)]
pub struct TileProgram {
    instructions: Vec<Instruction>,
    constants: Consts,
    /// Registers per class.
    registers: [usize; 5],
    channels: usize,
    inputs: Vec<(String, Type)>,
    result: Source,
    result_type: Type,
    /// Limit of the vectors that passes use.
    vectors: Vectors,
    /// Computes the elements in place of the instructions, where it is given.
    reference: Option<Arc<Compiled>>,
}

impl TileProgram {
    /// Number of channels; 1 where all elements are computed alike.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Computes ints of at most 32 bits (or truth values as 0 and 1). `inputs` in declared order, each of `out.len()`
    /// elements or of one.
    pub fn run(&self, inputs: &[Lanes<'_>], channels: Channels, out: &mut [i32]) -> Result<()> {
        self.expect(matches!(self.result_type, Type::Int | Type::Bool) && self.result_class() == Class::I32, "i32")?;
        if let Some(compiled) = &self.reference {
            return self.evaluate(compiled, inputs, channels, out, reference::int);
        }
        self.tiles(inputs, channels, out, |view, out| match view {
            AnyView::I32(view) => view.copy_to(out),
            _ => unreachable!("the class of the result is checked above"),
        })
    }

    /// As [`TileProgram::run`], for ints of up to 64 bits.
    pub fn run_i64(&self, inputs: &[Lanes<'_>], channels: Channels, out: &mut [i64]) -> Result<()> {
        self.expect(matches!(self.result_type, Type::Int | Type::Bool), "i64")?;
        if let Some(compiled) = &self.reference {
            return self.evaluate(compiled, inputs, channels, out, reference::int);
        }
        self.tiles(inputs, channels, out, |view, out| match view {
            AnyView::I32(view) => view.map_to(out, i64::from),
            AnyView::I64(view) => view.copy_to(out),
            AnyView::I128(view) => view.map_to(out, |v| v as i64),
            _ => unreachable!("the class of the result is checked above"),
        })
    }

    /// As [`TileProgram::run`], for f32, f16 and bf16.
    pub fn run_f32(&self, inputs: &[Lanes<'_>], channels: Channels, out: &mut [f32]) -> Result<()> {
        self.expect(self.result_class() == Class::F32, "f32")?;
        if let Some(compiled) = &self.reference {
            return self.evaluate(compiled, inputs, channels, out, reference::single);
        }
        self.tiles(inputs, channels, out, |view, out| match view {
            AnyView::F32(view) => view.copy_to(out),
            _ => unreachable!("the class of the result is checked above"),
        })
    }

    /// As [`TileProgram::run`], for any float.
    pub fn run_f64(&self, inputs: &[Lanes<'_>], channels: Channels, out: &mut [f64]) -> Result<()> {
        self.expect(matches!(self.result_type, Type::Float(_)), "f64")?;
        if let Some(compiled) = &self.reference {
            return self.evaluate(compiled, inputs, channels, out, |value| value.as_float());
        }
        self.tiles(inputs, channels, out, |view, out| match view {
            AnyView::F32(view) => view.map_to(out, f64::from),
            AnyView::F64(view) => view.copy_to(out),
            _ => unreachable!("the class of the result is checked above"),
        })
    }

    /// Passes over a tile, for those who want to know the cost.
    pub fn passes(&self) -> usize {
        self.instructions.len()
    }

    fn result_class(&self) -> Class {
        match self.result {
            Source::Register(class, _) | Source::Constant(class, _) => class,
            Source::None => Class::I32,
        }
    }

    fn expect(&self, holds: bool, wanted: &str) -> Result<()> {
        if holds {
            return Ok(());
        }
        let found = match self.result_type {
            Type::Int => format!("int in {:?} lanes", self.result_class()),
            ty => ty.to_string(),
        };
        Err(Error::invalid("program_output", format!("the program's result is {found}, the buffer holds {wanted}")))
    }

    fn check(&self, inputs: &[Lanes<'_>], channels: Channels, length: usize) -> Result<()> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::invalid(
                "program_inputs",
                format!("{} lanes for {} inputs", inputs.len(), self.inputs.len()),
            ));
        }
        for ((name, ty), lanes) in self.inputs.iter().zip(inputs) {
            let fits = match (ty, lanes) {
                (Type::Int, Lanes::I32(_) | Lanes::I64(_)) => true,
                (Type::Float(FloatType::F64), Lanes::F64(_)) => true,
                (Type::Float(format), Lanes::F32(_)) => *format != FloatType::F64,
                _ => false,
            };
            if !fits || (lanes.len() != length && lanes.len() != 1) {
                return Err(Error::invalid(
                    "program_inputs",
                    format!("input '{name}' ({ty}) has {} lanes of another type or length than {length}", lanes.len()),
                ));
            }
        }
        if let Channels::Uniform(channel) = channels
            && channel >= self.channels
        {
            return Err(Error::invalid("program_inputs", format!("channel {channel} of {}", self.channels)));
        }
        Ok(())
    }

    fn tiles<T>(
        &self,
        inputs: &[Lanes<'_>],
        channels: Channels,
        out: &mut [T],
        mut write: impl FnMut(AnyView<'_>, &mut [T]),
    ) -> Result<()> {
        self.check(inputs, channels, out.len())?;
        let level = loops::Level::of_this_machine(self.vectors);
        Scratch::with(self.registers, |scratch| {
            for (tile, out) in out.chunks_mut(LANES).enumerate() {
                let (first, length) = (tile * LANES, out.len());
                let mut tile = kernels::Tile { program: self, inputs, channels, first, length, scratch, level };
                tile.execute();
                write(tile.view(self.result), out);
            }
        });
        Ok(())
    }
}

enum AnyView<'a> {
    I32(View<'a, i32>),
    I64(View<'a, i64>),
    I128(View<'a, i128>),
    F32(View<'a, f32>),
    F64(View<'a, f64>),
}
