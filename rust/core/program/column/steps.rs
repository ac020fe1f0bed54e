//! Operations on columns: those of `eval`, in loops over values of one type where the operands allow it.

use super::super::eval;
use super::super::graph::{Cell, Comparison, Node, Op};
use super::super::types::{Datum, Type, Value};
use super::{Column, Element};
use crate::num::FloatType;
use crate::num::float::to_int;
use std::borrow::Cow;
use std::sync::Arc;

/// The operation of `node` for each of `count` channels.
pub fn apply(node: &Node, args: &[&Column], count: usize) -> Column {
    typed(node.op, args, count).unwrap_or_else(|| by_cells(node, args, count))
}

/// Channel by channel: the definition.
pub(super) fn by_cells(node: &Node, args: &[&Column], count: usize) -> Column {
    let missing = || Cow::Owned(Err(node.site.error("program_rate", "value not known at prepare")));
    let mut cells: Vec<Cow<'_, Cell>> = Vec::with_capacity(args.len());
    let mut channel = |channel: usize| {
        cells.clear();
        cells.extend(args.iter().map(|column| column.cell(channel).unwrap_or_else(missing)));
        eval::apply(node, &cells)
    };
    if count == 1 {
        return Column::One(channel(0));
    }
    (0..count).map(channel).collect::<Vec<Cell>>().into()
}

/// The result where operands and results have types of their own and no channel has an error; else `None`.
pub(super) fn typed(op: Op, args: &[&Column], count: usize) -> Option<Column> {
    if count == 1 {
        return None;
    }
    let ty = |i: usize| args.get(i).and_then(|column| column.first_type());
    match (op, ty(0)?) {
        (Op::Select, Type::Bool) => match ty(1)? {
            i64::TYPE => select::<i64>(args, count),
            f32::TYPE => select::<f32>(args, count),
            f64::TYPE => select::<f64>(args, count),
            bool::TYPE => select::<bool>(args, count),
            _ => None,
        },
        (Op::Not, Type::Bool) => map(args, count, |a: bool| Some(!a)),
        (Op::And, Type::Bool) => zip(args, count, |a: bool, b: bool| Some(a && b)),
        (Op::Or, Type::Bool) => zip(args, count, |a: bool, b: bool| Some(a || b)),
        (Op::Compare(how), Type::Bool) => compare::<bool>(how, args, count),
        (Op::Compare(how), Type::Int) => compare::<i64>(how, args, count),
        (Op::Compare(how), f32::TYPE) => compare::<f32>(how, args, count),
        (Op::Compare(how), f64::TYPE) => compare::<f64>(how, args, count),
        (_, Type::Int) => ints(op, args, count),
        (_, f32::TYPE) => floats::<f32>(op, args, count),
        (_, f64::TYPE) => floats::<f64>(op, args, count),
        _ => None,
    }
}

/// One value per channel: those of a column of this type, or its one value again and again.
fn spread<'a, T: Element>(args: &[&'a Column], i: usize, count: usize) -> Option<Cow<'a, [T]>> {
    match args.get(i)? {
        Column::One(Ok(Datum::Value(value))) => Some(Cow::Owned(vec![T::read(*value)?; count])),
        column => T::slice(column).filter(|values| values.len() == count).map(Cow::Borrowed),
    }
}

/// A column of what an iterator gives; `None` where that does once.
fn gather<T: Element>(values: impl ExactSizeIterator<Item = Option<T>>) -> Option<Column> {
    let mut complete = true;
    let values: Arc<[T]> = values
        .map(|value| {
            complete &= value.is_some();
            value.unwrap_or_default()
        })
        .collect();
    complete.then(|| T::column(values))
}

#[inline(always)]
fn map<A: Element, T: Element>(args: &[&Column], count: usize, f: impl Fn(A) -> Option<T>) -> Option<Column> {
    let a = spread(args, 0, count)?;
    gather(a.iter().map(|&a| f(a)))
}

#[inline(always)]
fn zip<A: Element, B: Element, T: Element>(
    args: &[&Column],
    count: usize,
    f: impl Fn(A, B) -> Option<T>,
) -> Option<Column> {
    let (a, b) = (spread(args, 0, count)?, spread(args, 1, count)?);
    gather(a.iter().zip(&*b).map(|(&a, &b)| f(a, b)))
}

#[inline(always)]
fn zip3<A: Element, B: Element, T: Element>(
    args: &[&Column],
    count: usize,
    f: impl Fn(A, B, B) -> Option<T>,
) -> Option<Column> {
    let (a, b, c) = (spread(args, 0, count)?, spread(args, 1, count)?, spread(args, 2, count)?);
    gather(a.iter().zip(&*b).zip(&*c).map(|((&a, &b), &c)| f(a, b, c)))
}

fn select<T: Element>(args: &[&Column], count: usize) -> Option<Column> {
    zip3(args, count, |condition: bool, yes: T, no: T| Some(if condition { yes } else { no }))
}

fn compare<T: Element>(how: Comparison, args: &[&Column], count: usize) -> Option<Column> {
    zip(args, count, |a: T, b: T| bool::read(eval::compare(how, a.into(), b.into()).ok()?))
}

fn ints(op: Op, args: &[&Column], count: usize) -> Option<Column> {
    // The operation is written out where a constant one makes a tight loop.
    macro_rules! two {
        ($op:expr) => {
            zip(args, count, |a: i64, b: i64| {
                i64::try_from(eval::integer($op, a.into(), Some(b.into()), None).ok()?).ok()
            })
        };
    }
    macro_rules! one {
        ($op:expr) => {
            map(args, count, |a: i64| i64::try_from(eval::integer($op, a.into(), None, None).ok()?).ok())
        };
    }
    match op {
        Op::Add => two!(Op::Add),
        Op::Sub => two!(Op::Sub),
        Op::Mul => two!(Op::Mul),
        Op::Min => two!(Op::Min),
        Op::Max => two!(Op::Max),
        Op::Shl => two!(Op::Shl),
        Op::Shr(mode) => two!(Op::Shr(mode)),
        Op::DivInt(_) | Op::Pow => two!(op),
        Op::Neg => one!(Op::Neg),
        Op::Abs => one!(Op::Abs),
        Op::Wrap { bits, signed } => one!(Op::Wrap { bits, signed }),
        Op::Clz(_) => one!(op),
        Op::Clamp => zip3(args, count, |a: i64, lo: i64, hi: i64| {
            i64::try_from(eval::integer(Op::Clamp, a.into(), Some(lo.into()), Some(hi.into())).ok()?).ok()
        }),
        Op::ToInt(_) => Some(args[0].clone()).filter(|column| column.len() == count),
        Op::ToFloat(FloatType::F32) => map(args, count, |a: i64| f32::read(eval::to_float(a.into(), FloatType::F32))),
        Op::ToFloat(FloatType::F64) => map(args, count, |a: i64| f64::read(eval::to_float(a.into(), FloatType::F64))),
        _ => None,
    }
}

fn floats<F: Element + Into<f64>>(op: Op, args: &[&Column], count: usize) -> Option<Column> {
    const NONE: Value = Value::Bool(false);
    macro_rules! two {
        ($op:expr) => {
            zip(args, count, |a: F, b: F| F::read(eval::float($op, a.into(), b.into(), NONE).ok()?))
        };
    }
    macro_rules! step {
        ($type:ty, $op:expr) => {
            map(args, count, |a: F| <$type>::read(eval::float_step($op, [a.into(), NONE, NONE]).ok()?))
        };
    }
    match op {
        Op::Add => two!(Op::Add),
        Op::Sub => two!(Op::Sub),
        Op::Mul => two!(Op::Mul),
        Op::Div => two!(Op::Div),
        Op::Min => two!(Op::Min),
        Op::Max => two!(Op::Max),
        Op::Pow => two!(op),
        Op::Neg => map(args, count, |a: F| F::read(eval::float(Op::Neg, a.into(), NONE, NONE).ok()?)),
        Op::Abs => map(args, count, |a: F| F::read(eval::float(Op::Abs, a.into(), NONE, NONE).ok()?)),
        Op::Clamp | Op::Fma => {
            zip3(args, count, |a: F, b: F, c: F| F::read(eval::float(op, a.into(), b.into(), c.into()).ok()?))
        }
        Op::Mantissa => step!(F, Op::Mantissa),
        Op::Exponent => step!(i64, Op::Exponent),
        Op::Round(mode) => step!(F, Op::Round(mode)),
        Op::Significant(mode) => zip(args, count, |a: F, bits: i64| {
            F::read(eval::float_step(Op::Significant(mode), [a.into(), bits.into(), NONE]).ok()?)
        }),
        Op::Math(_) if args.len() == 1 => step!(f64, op),
        Op::Math(_) => zip(args, count, |a: F, b: F| f64::read(eval::float_step(op, [a.into(), b.into(), NONE]).ok()?)),
        Op::Ldexp => {
            zip(args, count, |a: F, n: i64| F::read(eval::float_step(Op::Ldexp, [a.into(), n.into(), NONE]).ok()?))
        }
        Op::ToInt(mode) => map(args, count, |a: F| i64::try_from(to_int(a.into(), mode)?).ok()),
        Op::ToFloat(FloatType::F32) => map(args, count, |a: F| f32::read(eval::to_float(a.into(), FloatType::F32))),
        Op::ToFloat(FloatType::F64) => map(args, count, |a: F| f64::read(eval::to_float(a.into(), FloatType::F64))),
        _ => None,
    }
}
