//! Constants of a program: one value for all channels, or one per channel.

mod steps;
#[cfg(test)]
mod tests;

pub(super) use steps::apply;

use super::graph::Cell;
use super::types::{Datum, Interval, Type, Value};
use crate::error::{Error, Result};
use crate::num::FloatType;
use std::borrow::Cow;
use std::sync::Arc;

/// The values of a constant. Several values of one type that has an own variant are held in that variant.
#[derive(Debug, Clone)]
pub(super) enum Column {
    /// One value, for all channels.
    One(Cell),
    /// Ints of 64 bits.
    Ints(Arc<[i64]>),
    F32(Arc<[f32]>),
    F64(Arc<[f64]>),
    Bools(Arc<[bool]>),
    /// Tables, wider ints, narrower floats, and what has errors in between.
    Cells(Arc<[Cell]>),
    /// Values that are no longer kept.
    Forgotten,
}

/// A type whose columns have a variant of their own.
pub(super) trait Element: Copy + Default + Into<Value> {
    /// Their type in the language.
    const TYPE: Type;
    /// Several values.
    fn column(values: Arc<[Self]>) -> Column;
    /// The values of a column of this type.
    fn slice(column: &Column) -> Option<&[Self]>;
    /// The value as one of this type, where it is one.
    fn read(value: Value) -> Option<Self>;
}

macro_rules! element {
    ($type:ident, $column:ident, $language:expr, $value:pat => $read:expr) => {
        impl Element for $type {
            const TYPE: Type = $language;
            fn column(values: Arc<[Self]>) -> Column {
                Column::$column(values)
            }
            fn slice(column: &Column) -> Option<&[Self]> {
                if let Column::$column(values) = column { Some(values) } else { None }
            }
            #[inline(always)]
            fn read(value: Value) -> Option<Self> {
                if let $value = value { $read } else { None }
            }
        }
    };
}

element!(i64, Ints, Type::Int, Value::Int(v) => i64::try_from(v).ok());
element!(f32, F32, Type::Float(FloatType::F32), Value::F32(v) => Some(v));
element!(f64, F64, Type::Float(FloatType::F64), Value::F64(v) => Some(v));
element!(bool, Bools, Type::Bool, Value::Bool(v) => Some(v));

/// Evaluates an expression for the elements of whichever variant a column has; `$value` is one of them as
/// `Option<Value>`, `None` for an error or a table. The expression is compiled per variant, so that loops know the type.
macro_rules! per_value {
    ($column:expr, $values:ident => $loop:expr) => {
        match $column {
            Column::One(cell) => {
                let $values = std::iter::once(scalar(cell));
                $loop
            }
            Column::Ints(values) => {
                let $values = values.iter().map(|&v| Some(Value::from(v)));
                $loop
            }
            Column::F32(values) => {
                let $values = values.iter().map(|&v| Some(Value::from(v)));
                $loop
            }
            Column::F64(values) => {
                let $values = values.iter().map(|&v| Some(Value::from(v)));
                $loop
            }
            Column::Bools(values) => {
                let $values = values.iter().map(|&v| Some(Value::from(v)));
                $loop
            }
            Column::Cells(cells) => {
                let $values = cells.iter().map(scalar);
                $loop
            }
            Column::Forgotten => {
                let $values = std::iter::empty::<Option<Value>>();
                $loop
            }
        }
    };
}

/// The value of a cell that is no error and no table.
pub(super) fn scalar(cell: &Cell) -> Option<Value> {
    if let Ok(Datum::Value(v)) = cell { Some(*v) } else { None }
}

impl From<Value> for Column {
    fn from(value: Value) -> Column {
        Column::One(Ok(Datum::Value(value)))
    }
}

impl From<Vec<Cell>> for Column {
    fn from(cells: Vec<Cell>) -> Column {
        fn typed<T: Element>(cells: &[Cell]) -> Option<Column> {
            let values = cells.iter().map(|cell| T::read(scalar(cell)?)).collect::<Option<Vec<T>>>();
            Some(T::column(values?.into()))
        }
        let found = match cells.first() {
            Some(_) if cells.len() == 1 => return cells.into_iter().next().map_or(Column::Forgotten, Column::One),
            Some(Ok(Datum::Value(Value::Int(_)))) => typed::<i64>(&cells),
            Some(Ok(Datum::Value(Value::F32(_)))) => typed::<f32>(&cells),
            Some(Ok(Datum::Value(Value::F64(_)))) => typed::<f64>(&cells),
            Some(Ok(Datum::Value(Value::Bool(_)))) => typed::<bool>(&cells),
            _ => None,
        };
        found.unwrap_or_else(|| Column::Cells(cells.into()))
    }
}

impl Column {
    /// A column of values of one type.
    pub fn of<T: Element>(values: impl IntoIterator<Item = T>) -> Column {
        let values: Arc<[T]> = values.into_iter().collect();
        if let [one] = *values { one.into().into() } else { T::column(values) }
    }

    /// Number of values that are kept.
    pub fn len(&self) -> usize {
        match self {
            Column::One(_) => 1,
            Column::Ints(values) => values.len(),
            Column::F32(values) => values.len(),
            Column::F64(values) => values.len(),
            Column::Bools(values) => values.len(),
            Column::Cells(cells) => cells.len(),
            Column::Forgotten => 0,
        }
    }

    /// The value of a channel, where it is kept.
    pub fn cell(&self, channel: usize) -> Option<Cow<'_, Cell>> {
        fn value<T: Element>(values: &[T], channel: usize) -> Option<Cow<'static, Cell>> {
            values.get(channel).map(|&v| Cow::Owned(Ok(Datum::Value(v.into()))))
        }
        match self {
            Column::One(cell) => Some(Cow::Borrowed(cell)),
            Column::Ints(values) => value(values, channel),
            Column::F32(values) => value(values, channel),
            Column::F64(values) => value(values, channel),
            Column::Bools(values) => value(values, channel),
            Column::Cells(cells) => cells.get(channel).map(Cow::Borrowed),
            Column::Forgotten => None,
        }
    }

    /// The one value for all channels, or those of the general variant.
    fn cells(&self) -> &[Cell] {
        match self {
            Column::One(cell) => std::slice::from_ref(cell),
            Column::Cells(cells) => cells,
            _ => &[],
        }
    }

    /// The error of the first channel that has one.
    pub fn check(&self) -> Result<(), &Error> {
        self.cells().iter().try_for_each(|cell| cell.as_ref().map(|_| ()))
    }

    /// The tables among the values.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Vec<Value>>> {
        self.cells().iter().filter_map(|cell| if let Ok(Datum::Table(table)) = cell { Some(table) } else { None })
    }

    /// The type of the first value, where it is a scalar.
    pub fn first_type(&self) -> Option<Type> {
        match self {
            Column::Ints(_) => Some(i64::TYPE),
            Column::F32(_) => Some(f32::TYPE),
            Column::F64(_) => Some(f64::TYPE),
            Column::Bools(_) => Some(bool::TYPE),
            _ => self.cells().first().and_then(scalar).map(Value::type_of),
        }
    }

    /// `f` of every value; of `None` for an error or a table.
    #[inline]
    pub fn map<T>(&self, mut f: impl FnMut(Option<Value>) -> T) -> Vec<T> {
        per_value!(self, values => values.map(&mut f).collect())
    }

    /// `f` of every value; `None` where one is an error or a table, or `f` gives that.
    #[inline]
    pub fn try_map<T>(&self, mut f: impl FnMut(Value) -> Option<T>) -> Option<Vec<T>> {
        per_value!(self, values => {
            let mut out = Vec::with_capacity(self.len());
            for value in values {
                out.push(f(value?)?);
            }
            Some(out)
        })
    }

    /// Whether `f` holds for every value; it is given `None` for an error or a table.
    #[inline]
    pub fn all(&self, mut f: impl FnMut(Option<Value>) -> bool) -> bool {
        per_value!(self, values => { let mut values = values; values.all(&mut f) })
    }

    /// The one value that all channels have, bit for bit.
    pub fn uniform(&self) -> Option<Value> {
        let first = scalar(&*self.cell(0)?)?;
        let uniform = match self {
            // The usual conditions, in loops that become vectors.
            Column::Bools(values) => values.iter().all(|&v| v == values[0]),
            Column::Ints(values) => values.iter().all(|&v| v == values[0]),
            _ => self.all(|v| v.is_some_and(|v| v.same_bits(first))),
        };
        uniform.then_some(first)
    }

    /// Whether it holds values of one type, one per channel.
    pub fn is_typed(&self) -> bool {
        matches!(self, Column::Ints(_) | Column::F32(_) | Column::F64(_) | Column::Bools(_))
    }

    /// What [`Node::range`](super::graph::Node::range) does not look up.
    pub fn proven(&self) -> Interval {
        if self.is_typed() { Interval::Other } else { self.range() }
    }

    /// The least interval that holds the values that there are, those in tables too.
    pub fn range(&self) -> Interval {
        fn floats<T: Element + PartialOrd + Into<f64>>(values: &[T], ends: [T; 2]) -> Interval {
            let [lo, hi] = bounds(values, ends);
            // Only NaN differs from itself. No early end: that would keep vectors away.
            #[allow(clippy::eq_op)]
            let nan = values.iter().fold(false, |nan, v| nan | (v != v));
            if lo > hi { Interval::ANY_FLOAT } else { Interval::Float { lo: lo.into(), hi: hi.into(), nan } }
        }
        match self {
            Column::Ints(values) => {
                let (lo, hi) = values.iter().fold((i64::MAX, i64::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)));
                Interval::Int(lo.into(), hi.into())
            }
            Column::F32(values) => floats(values, [f32::INFINITY, f32::NEG_INFINITY]),
            Column::F64(values) => floats(values, [f64::INFINITY, f64::NEG_INFINITY]),
            Column::Bools(_) | Column::Forgotten => Interval::Other,
            Column::One(_) | Column::Cells(_) if self.tables().next().is_some() => {
                Interval::of(self.tables().flat_map(|table| table.iter().copied()))
            }
            Column::One(_) | Column::Cells(_) => Interval::of(self.cells().iter().filter_map(scalar)),
        }
    }
}

/// Least and greatest of the floats that are numbers; `ends` are the greatest and the least that there may be.
#[inline]
fn bounds<T: Copy + PartialOrd>(values: &[T], [top, bottom]: [T; 2]) -> [T; 2] {
    let (least, most) = (|a: T, b: T| if b < a { b } else { a }, |a: T, b: T| if b > a { b } else { a });
    let (eights, rest) = values.as_chunks::<8>();
    let (mut lo, mut hi) = ([top; 8], [bottom; 8]);
    for eight in eights {
        for i in 0..8 {
            lo[i] = least(lo[i], eight[i]);
            hi[i] = most(hi[i], eight[i]);
        }
    }
    let all = |ends: [T; 8], end: T, f: fn(T, T) -> T| ends.iter().chain(rest).fold(end, |a, &b| f(a, b));
    [all(lo, top, least), all(hi, bottom, most)]
}
