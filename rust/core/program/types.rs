//! Values, types and rates.

use crate::num::FloatType;
use crate::num::float::{to_bf16, to_f16};
use half::{bf16, f16};
use std::fmt;
use std::sync::Arc;

/// A scalar of the arithmetic language.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// An exact integer.
    Int(i128),
    /// IEEE binary16.
    F16(f16),
    /// bfloat16.
    Bf16(bf16),
    /// IEEE binary32.
    F32(f32),
    /// IEEE binary64.
    F64(f64),
    /// A truth value.
    Bool(bool),
}

impl Value {
    /// `v`, which must be a value of `format`, as such.
    #[inline(always)]
    pub(super) fn float(v: f64, format: FloatType) -> Value {
        match format {
            FloatType::F16 => Value::F16(to_f16(v)),
            FloatType::Bf16 => Value::Bf16(to_bf16(v)),
            FloatType::F32 => Value::F32(v as f32),
            FloatType::F64 => Value::F64(v),
        }
    }

    /// A float as f64, exactly; None for integers and truth values.
    #[inline(always)]
    pub fn as_float(self) -> Option<f64> {
        match self {
            Value::F16(v) => Some(v.to_f64()),
            Value::Bf16(v) => Some(v.to_f64()),
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            Value::Int(_) | Value::Bool(_) => None,
        }
    }

    /// An integer; None for the rest.
    #[inline]
    pub fn as_int(self) -> Option<i128> {
        if let Value::Int(v) = self { Some(v) } else { None }
    }

    /// A truth value; None for the rest.
    pub fn as_bool(self) -> Option<bool> {
        if let Value::Bool(v) = self { Some(v) } else { None }
    }

    #[inline]
    pub(super) fn type_of(self) -> Type {
        match self {
            Value::Int(_) => Type::Int,
            Value::Bool(_) => Type::Bool,
            Value::F16(_) => Type::Float(FloatType::F16),
            Value::Bf16(_) => Type::Float(FloatType::Bf16),
            Value::F32(_) => Type::Float(FloatType::F32),
            Value::F64(_) => Type::Float(FloatType::F64),
        }
    }

    /// Equality of bits: NaN equals itself and zeros of different sign differ.
    #[inline]
    pub fn same_bits(self, other: Value) -> bool {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::F16(a), Value::F16(b)) => a.to_bits() == b.to_bits(),
            (Value::Bf16(a), Value::Bf16(b)) => a.to_bits() == b.to_bits(),
            (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
            (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(v) => write!(f, "{v}"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::F16(v) => write!(f, "{v:?}"),
            Value::Bf16(v) => write!(f, "{v:?}"),
            Value::F32(v) => write!(f, "{v:?}"),
            Value::F64(v) => write!(f, "{v:?}"),
        }
    }
}

impl From<i64> for Value {
    #[inline]
    fn from(v: i64) -> Value {
        Value::Int(v.into())
    }
}

impl From<f32> for Value {
    #[inline]
    fn from(v: f32) -> Value {
        Value::F32(v)
    }
}

impl From<f64> for Value {
    #[inline]
    fn from(v: f64) -> Value {
        Value::F64(v)
    }
}

impl From<bool> for Value {
    #[inline]
    fn from(v: bool) -> Value {
        Value::Bool(v)
    }
}

/// Type of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Type {
    Int,
    Bool,
    Float(FloatType),
    /// A real number written in the text; takes the type of what it meets.
    Literal,
    /// A list of constants.
    Table,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Int => f.write_str("int"),
            Type::Bool => f.write_str("bool"),
            Type::Float(format) => f.write_str(format.name()),
            Type::Literal => f.write_str("real literal"),
            Type::Table => f.write_str("table"),
        }
    }
}

/// How often a value changes. Lower rates broadcast to higher ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Rate {
    Const,
    Channel,
    /// Depends on the variable of a loop that is evaluated at prepare.
    Loop,
    Row,
    Elem,
}

impl Rate {
    /// Whether the value is known only while the kernel runs.
    pub fn is_run(self) -> bool {
        self >= Rate::Row
    }
}

/// A value or a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Datum {
    Value(Value),
    Table(Arc<Vec<Value>>),
}

/// What is proven about a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Interval {
    Int(i128, i128),
    Float { lo: f64, hi: f64, nan: bool },
    Other,
}

impl Interval {
    /// Any float.
    pub const ANY_FLOAT: Interval = Interval::Float { lo: f64::NEG_INFINITY, hi: f64::INFINITY, nan: true };

    /// The bounds of an integer; everything for the rest.
    pub fn int(self) -> (i128, i128) {
        if let Interval::Int(lo, hi) = self { (lo, hi) } else { (i128::MIN, i128::MAX) }
    }

    /// The bounds of a float, and whether NaN may occur.
    pub fn float(self) -> (f64, f64, bool) {
        match self {
            Interval::Float { lo, hi, nan } => (lo, hi, nan),
            _ => (f64::NEG_INFINITY, f64::INFINITY, true),
        }
    }

    /// The least interval that holds the given values.
    pub fn of(values: impl Iterator<Item = Value>) -> Interval {
        let mut out: Option<Interval> = None;
        for value in values {
            if let (Some(Interval::Int(lo, hi)), Value::Int(v)) = (&mut out, value) {
                (*lo, *hi) = ((*lo).min(v), (*hi).max(v));
                continue;
            }
            let one = match value {
                Value::Int(v) => Interval::Int(v, v),
                Value::Bool(_) => return Interval::Other,
                float => {
                    let v = float.as_float().unwrap_or(f64::NAN);
                    if v.is_nan() {
                        Interval::Float { lo: f64::INFINITY, hi: f64::NEG_INFINITY, nan: true }
                    } else {
                        Interval::Float { lo: v, hi: v, nan: false }
                    }
                }
            };
            out = Some(out.map_or(one, |all| all.union(one)));
        }
        match out {
            Some(Interval::Float { lo, hi, .. }) if lo > hi => Interval::ANY_FLOAT,
            other => other.unwrap_or(Interval::Other),
        }
    }

    /// The least interval that holds both.
    pub fn union(self, other: Interval) -> Interval {
        match (self, other) {
            (Interval::Int(a, b), Interval::Int(c, d)) => Interval::Int(a.min(c), b.max(d)),
            (Interval::Float { lo: a, hi: b, nan: n }, Interval::Float { lo: c, hi: d, nan: m }) => {
                Interval::Float { lo: a.min(c), hi: b.max(d), nan: n || m }
            }
            _ => Interval::Other,
        }
    }

    /// Whether the interval lies in `lo..=hi`.
    pub fn within(self, lo: i128, hi: i128) -> bool {
        matches!(self, Interval::Int(a, b) if a >= lo && b <= hi)
    }

    /// Whether every value fits i64.
    pub fn fits_i64(self) -> bool {
        self.within(i64::MIN.into(), i64::MAX.into())
    }

    /// Whether every value fits i32.
    pub fn fits_i32(self) -> bool {
        self.within(i32::MIN.into(), i32::MAX.into())
    }

    /// Whether a value lies in the interval.
    pub fn holds(self, value: Value) -> bool {
        match (self, value) {
            (Interval::Int(lo, hi), Value::Int(v)) => (lo..=hi).contains(&v),
            (Interval::Float { lo, hi, nan }, v) => {
                v.as_float().is_some_and(|v| if v.is_nan() { nan } else { v >= lo && v <= hi })
            }
            _ => true,
        }
    }
}
