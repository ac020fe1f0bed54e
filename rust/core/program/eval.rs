//! The definition: what each operation computes, on exact values.

use super::graph::{Cell, Comparison, Math, Node, Op};
use super::types::{Datum, Type, Value};
use crate::error::Result;
use crate::num::float::{fma_half, frexp, from_int, ldexp, round_integral, round_to, significant, to_int};
use crate::num::{FloatType, div_round, sat, shr_round, wrap};
use std::borrow::Borrow;
use std::sync::Arc;

/// Applies the operation of `node`. `select`, `&&` and `||` look only at what they choose.
pub(super) fn apply<C: Borrow<Cell>>(node: &Node, args: &[C]) -> Cell {
    let truth = |cell: &Cell| -> Result<bool> {
        match cell {
            Ok(Datum::Value(Value::Bool(v))) => Ok(*v),
            Ok(_) => Err(node.site.error("program_type", "expected bool")),
            Err(error) => Err(error.clone()),
        }
    };
    let arg = |i: usize| -> &Cell { args[i].borrow() };
    match node.op {
        Op::Select => return if truth(arg(0))? { arg(1).clone() } else { arg(2).clone() },
        Op::And => return if truth(arg(0))? { arg(1).clone() } else { Ok(Datum::Value(Value::Bool(false))) },
        Op::Or => return if truth(arg(0))? { Ok(Datum::Value(Value::Bool(true))) } else { arg(1).clone() },
        _ => {}
    }
    let mut values: [Value; 3] = [Value::Bool(false); 3];
    let mut table: Option<&Arc<Vec<Value>>> = None;
    if node.op == Op::List {
        let mut out = Vec::with_capacity(args.len());
        for cell in args {
            match cell.borrow() {
                Ok(Datum::Value(v)) => out.push(*v),
                Ok(Datum::Table(_)) => return Err(node.site.error("program_type", "a list holds scalars")),
                Err(error) => return Err(error.clone()),
            }
        }
        return Ok(Datum::Table(Arc::new(out)));
    }
    for (i, cell) in args.iter().enumerate() {
        match cell.borrow() {
            Ok(Datum::Value(v)) => values[i] = *v,
            Ok(Datum::Table(t)) => table = Some(t),
            Err(error) => return Err(error.clone()),
        }
    }
    let fail = |message: String| node.site.error("program_value", message);
    let value = match (table, node.op) {
        (Some(table), op) => on_table(op, table, values).map_err(fail)?,
        (None, _) => scalar(node, values).map_err(fail)?,
    };
    Ok(Datum::Value(value))
}

fn on_table(op: Op, table: &[Value], values: [Value; 3]) -> Result<Value, String> {
    let ints = || table.iter().map(|v| v.as_int()).collect::<Option<Vec<i128>>>();
    match op {
        Op::At => {
            // `at(table, i)`: the index is the second argument.
            let index = values[1].as_int().ok_or("an index is an int")?;
            let found = usize::try_from(index).ok().and_then(|i| table.get(i));
            found.copied().ok_or_else(|| format!("index {index} is outside 0..={}", table.len() - 1))
        }
        Op::Bucket => {
            let count = match values[0] {
                Value::Int(v) => table.iter().filter(|e| e.as_int().is_some_and(|e| e <= v)).count(),
                float => {
                    let v = float.as_float().ok_or("bucket takes a number")?;
                    table.iter().filter(|e| e.as_float().is_some_and(|e| e <= v)).count()
                }
            };
            Ok(Value::Int(count as i128))
        }
        Op::Length => Ok(Value::Int(table.len() as i128)),
        Op::Sum => {
            if let Some(ints) = ints() {
                let sum = ints.iter().try_fold(0i128, |a, b| a.checked_add(*b));
                return sum.map(Value::Int).ok_or_else(|| "the sum leaves 127 bits".into());
            }
            let sum = table.iter().filter_map(|v| v.as_float()).fold(0.0, |a, b| a + b);
            Ok(Value::F64(sum))
        }
        Op::MaxAbs => match ints() {
            Some(ints) => {
                let top = ints.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
                i128::try_from(top).map(Value::Int).map_err(|_| "the magnitude leaves 127 bits".into())
            }
            None => fold_floats(table, |a, b| if b.abs() > a.abs() { b.abs() } else { a.abs() }),
        },
        Op::TableMin => match ints() {
            Some(ints) => Ok(Value::Int(ints.into_iter().min().unwrap_or(0))),
            None => fold_floats(table, |a, b| if b < a { b } else { a }),
        },
        Op::TableMax => match ints() {
            Some(ints) => Ok(Value::Int(ints.into_iter().max().unwrap_or(0))),
            None => fold_floats(table, |a, b| if b > a { b } else { a }),
        },
        other => Err(format!("{other:?} takes no table")),
    }
}

fn fold_floats(table: &[Value], f: impl Fn(f64, f64) -> f64) -> Result<Value, String> {
    let first = table.first().ok_or("the table is empty")?;
    let Type::Float(format) = first.type_of() else { return Err("a table of numbers is needed".into()) };
    let start = first.as_float().unwrap_or_default();
    Ok(Value::float(table.iter().filter_map(|v| v.as_float()).fold(f(start, start), f), format))
}

fn scalar(node: &Node, values: [Value; 3]) -> Result<Value, String> {
    let [a, b, c] = values;
    match node.op {
        Op::Not => return a.as_bool().map(|v| Value::Bool(!v)).ok_or_else(|| "! takes a bool".into()),
        Op::Compare(how) => return compare(how, a, b),
        Op::ToFloat(format) => return Ok(to_float(a, format)),
        Op::ToInt(mode) => {
            let v = match a {
                Value::Int(v) => return Ok(Value::Int(v)),
                Value::Bool(v) => return Ok(Value::Int(v.into())),
                float => float.as_float().unwrap_or_default(),
            };
            if !node.rate.is_run() {
                return to_int(v, mode).map(Value::Int).ok_or_else(|| format!("{v:?} does not become an integer"));
            }
            let (lo, hi) = node.range().int();
            let v = to_int(v, mode).unwrap_or(if v.is_nan() {
                0
            } else if v > 0.0 {
                hi
            } else {
                lo
            });
            return Ok(Value::Int(sat(v, lo, hi)));
        }
        _ => {}
    }
    match (node.op, a) {
        (Op::Mantissa | Op::Exponent | Op::Ldexp | Op::Significant(_) | Op::Round(_) | Op::Math(_), _) => {
            float_step(node.op, values)
        }
        (Op::FloorLog2, Value::Int(v)) if v > 0 => Ok(Value::Int(v.ilog2().into())),
        (Op::FloorLog2, Value::Int(v)) => Err(format!("floor_log2 of {v}")),
        (Op::FloorLog2, v) => {
            let v = v.as_float().unwrap_or_default();
            let exponent = frexp(v).filter(|_| v > 0.0).ok_or_else(|| format!("floor_log2 of {v:?}"))?.1;
            Ok(Value::Int(i128::from(exponent) - 1))
        }
        (op, Value::Int(a)) => integer(op, a, b.as_int(), c.as_int()).map(Value::Int),
        (op, a) => float(op, a, b, c),
    }
}

/// Any scalar in a float format, rounded once.
#[inline(always)]
pub(super) fn to_float(a: Value, format: FloatType) -> Value {
    Value::float(
        match a {
            Value::Int(v) => from_int(v, format),
            Value::Bool(v) => f64::from(u8::from(v)),
            float => round_to(float.as_float().unwrap_or_default(), format),
        },
        format,
    )
}

/// Steps that give a truth value.
#[inline(always)]
pub(super) fn compare(how: Comparison, a: Value, b: Value) -> Result<Value, String> {
    #[inline(always)]
    fn by<T: PartialOrd>(how: Comparison, a: T, b: T) -> bool {
        match how {
            Comparison::Less => a < b,
            Comparison::LessEqual => a <= b,
            Comparison::Greater => a > b,
            Comparison::GreaterEqual => a >= b,
            Comparison::Equal => a == b,
            Comparison::NotEqual => a != b,
        }
    }
    Ok(Value::Bool(match (a, b) {
        (Value::Int(a), Value::Int(b)) => by(how, a, b),
        (Value::Bool(a), Value::Bool(b)) => by(how, a, b),
        (a, b) => by(
            how,
            a.as_float().ok_or("comparison of different types")?,
            b.as_float().ok_or("comparison of different types")?,
        ),
    }))
}

/// Steps on integers.
#[inline(always)]
pub(super) fn integer(op: Op, a: i128, b: Option<i128>, c: Option<i128>) -> Result<i128, String> {
    let b_or = || b.ok_or_else(|| format!("{op:?} misses an int"));
    let overflow = || "the value leaves 127 bits".to_string();
    let count = || {
        let n = b_or()?;
        u32::try_from(n).ok().filter(|n| *n <= 1 << 16).ok_or_else(|| format!("shift by {n}"))
    };
    match op {
        Op::Neg => a.checked_neg().ok_or_else(overflow),
        Op::Abs => a.checked_abs().ok_or_else(overflow),
        Op::Add => a.checked_add(b_or()?).ok_or_else(overflow),
        Op::Sub => a.checked_sub(b_or()?).ok_or_else(overflow),
        Op::Mul => a.checked_mul(b_or()?).ok_or_else(overflow),
        Op::Min => Ok(a.min(b_or()?)),
        Op::Max => Ok(a.max(b_or()?)),
        Op::Clamp => Ok(sat(a, b_or()?, c.ok_or("clamp misses a bound")?)),
        Op::DivInt(mode) => match b_or()? {
            0 => Err("division by zero".into()),
            d => Ok(div_round(a, d, mode)),
        },
        Op::Pow => {
            let n = b_or()?;
            let n = u32::try_from(n).map_err(|_| format!("power {n} of an int"))?;
            if (-1..=1).contains(&a) {
                return Ok(if n == 0 || (a == -1 && n % 2 == 0) { 1 } else { a });
            }
            a.checked_pow(n.min(1000)).ok_or_else(overflow)
        }
        Op::Shl => {
            let n = count()?;
            if a == 0 {
                return Ok(0);
            }
            // Nothing is lost where shifting back gives the value again.
            if n > 126 || (a << n) >> n != a { Err(overflow()) } else { Ok(a << n) }
        }
        Op::Shr(mode) => Ok(shr_round(a, count()?, mode)),
        Op::Wrap { bits, signed } => Ok(wrap(a, bits, signed)),
        Op::Clz(bits) => {
            if a < 0 || (bits < 127 && a >> bits != 0) {
                return Err(format!("clz of {a}, which is no unsigned number of {bits} bits"));
            }
            let length = 128 - a.leading_zeros();
            Ok(i128::from(bits) - i128::from(length))
        }
        other => Err(format!("{other:?} takes no int")),
    }
}

/// Arithmetic of floats of one format.
#[inline(always)]
pub(super) fn float(op: Op, a: Value, b: Value, c: Value) -> Result<Value, String> {
    /// Comparisons choose the operand itself, so zeros and NaN follow from `<` alone.
    fn choose(less: bool, yes: Value, no: Value) -> Value {
        if less { yes } else { no }
    }
    let Type::Float(format) = a.type_of() else { return Err(format!("{op:?} takes no {}", a.type_of())) };
    let number = |v: Value| v.as_float().ok_or_else(|| format!("{op:?} misses a float"));
    let x = number(a)?;
    match op {
        Op::Neg => return Ok(Value::float(-x, format)),
        Op::Abs => return Ok(Value::float(x.abs(), format)),
        Op::Min => return Ok(choose(x < number(b)?, a, b)),
        Op::Max => return Ok(choose(x > number(b)?, a, b)),
        Op::Clamp => {
            let raised = choose(number(b)? > x, b, a);
            return Ok(choose(number(c)? < number(raised)?, c, raised));
        }
        _ => {}
    }
    let y = number(b)?;
    Ok(match (op, a, b) {
        (Op::Add, Value::F32(a), Value::F32(b)) => Value::F32(a + b),
        (Op::Sub, Value::F32(a), Value::F32(b)) => Value::F32(a - b),
        (Op::Mul, Value::F32(a), Value::F32(b)) => Value::F32(a * b),
        (Op::Div, Value::F32(a), Value::F32(b)) => Value::F32(a / b),
        (Op::Fma, Value::F32(a), Value::F32(b)) => Value::F32(libm::fmaf(a, b, number(c)? as f32)),
        (Op::Fma, Value::F64(a), Value::F64(b)) => Value::F64(libm::fma(a, b, number(c)?)),
        (Op::Fma, ..) => Value::float(fma_half(x, y, number(c)?, format), format),
        // f64 itself, or f16 and bf16 through f64: 53 bits suffice for their one rounding.
        (Op::Add, ..) => Value::float(round_to(x + y, format), format),
        (Op::Sub, ..) => Value::float(round_to(x - y, format), format),
        (Op::Mul, ..) => Value::float(round_to(x * y, format), format),
        (Op::Div, ..) => Value::float(round_to(x / y, format), format),
        (Op::Pow, ..) if format == FloatType::F64 => Value::F64(libm::pow(x, y)),
        _ => return Err(format!("{op:?} takes no {format}")),
    })
}

/// Steps that take a float apart, put it together, or compute a function of it.
#[inline(always)]
pub(super) fn float_step(op: Op, [a, b, _]: [Value; 3]) -> Result<Value, String> {
    let Type::Float(format) = a.type_of() else { return Err(format!("expected a float, found {}", a.type_of())) };
    let x = a.as_float().unwrap_or_default();
    match op {
        Op::Mantissa => Ok(frexp(x).map_or(a, |(mantissa, _)| Value::float(mantissa, format))),
        Op::Exponent => match frexp(x) {
            Some((_, exponent)) => Ok(Value::Int(exponent.into())),
            None => Err(format!("{x:?} has no exponent")),
        },
        Op::Ldexp => {
            let n = b.as_int().ok_or("ldexp misses its exponent")?;
            Ok(Value::float(ldexp(x, n.clamp(-100_000, 100_000) as i64, format), format))
        }
        Op::Significant(mode) => {
            let bits = b.as_int().filter(|n| (1..=53).contains(n)).ok_or("fl keeps 1 to 53 bits")?;
            Ok(Value::float(significant(x, bits as u32, mode), format))
        }
        Op::Round(mode) => Ok(Value::float(round_integral(x, mode), format)),
        Op::Math(function) => Ok(Value::F64(math(function, x, b.as_float().unwrap_or_default()))),
        other => Err(format!("{other:?} is no float step")),
    }
}

/// Functions of f64 by the `libm` crate, so that every platform gives the same bits.
pub(super) fn math(function: Math, x: f64, y: f64) -> f64 {
    match function {
        Math::Exp => libm::exp(x),
        Math::Exp2 => libm::exp2(x),
        Math::Expm1 => libm::expm1(x),
        Math::Log => libm::log(x),
        Math::Log2 => libm::log2(x),
        Math::Log1p => libm::log1p(x),
        Math::Sqrt => libm::sqrt(x),
        Math::Rsqrt => 1.0 / libm::sqrt(x),
        Math::Cbrt => libm::cbrt(x),
        Math::Sin => libm::sin(x),
        Math::Cos => libm::cos(x),
        Math::Tan => libm::tan(x),
        Math::Atan => libm::atan(x),
        Math::Tanh => libm::tanh(x),
        Math::Erf => libm::erf(x),
        Math::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        Math::Pow => libm::pow(x, y),
    }
}
