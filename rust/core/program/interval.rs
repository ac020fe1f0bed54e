//! Interval analysis: what is proven about the result of an operation from what is proven about its operands.

use super::graph::{Math, Op};
use super::types::{Interval, Type};
use crate::num::float::{frexp, from_int, ldexp, round_integral, round_to, to_int};
use crate::num::{FloatType, div_round, shr_round};

/// The range of `op` on operands of the given ranges, or why it may fail. `ty` is the type of the result, `operand`
/// that of the first operand.
pub(super) fn range_of(op: Op, ty: Type, operand: Type, args: &[Interval]) -> Result<Interval, String> {
    match (op, ty) {
        (_, Type::Bool | Type::Table) => Ok(Interval::Other),
        (Op::Select, _) => Ok(args[1].union(args[2])),
        (Op::At, _) => Ok(args[0]),
        (_, Type::Int) => int_range(op, operand, args).map(|(lo, hi)| Interval::Int(lo, hi)),
        (_, Type::Float(format)) => Ok(float_range(op, format, args)),
        (_, Type::Literal) => Ok(Interval::ANY_FLOAT),
    }
}

fn int_range(op: Op, operand: Type, args: &[Interval]) -> Result<(i128, i128), String> {
    let overflow = || "the proven range leaves 127 bits".to_string();
    let (a, b) = args[0].int();
    let second = args.get(1).map_or((0, 0), |i| i.int());
    let corners = |f: &dyn Fn(i128, i128) -> Option<i128>| -> Result<(i128, i128), String> {
        let mut all = [0; 4];
        for (slot, (x, y)) in all.iter_mut().zip([(a, second.0), (a, second.1), (b, second.0), (b, second.1)]) {
            *slot = f(x, y).ok_or_else(overflow)?;
        }
        Ok((all.into_iter().min().unwrap_or(0), all.into_iter().max().unwrap_or(0)))
    };
    let counts = || -> Result<(u32, u32), String> {
        let (lo, hi) = second;
        if lo < 0 {
            return Err(format!("the shift count may be {lo}"));
        }
        Ok((u32::try_from(lo.min(1 << 16)).unwrap_or(0), u32::try_from(hi.min(1 << 16)).unwrap_or(0)))
    };
    match op {
        Op::Neg => Ok((b.checked_neg().ok_or_else(overflow)?, a.checked_neg().ok_or_else(overflow)?)),
        Op::Abs => {
            let top = a.checked_abs().ok_or_else(overflow)?.max(b.checked_abs().ok_or_else(overflow)?);
            Ok((
                if a > 0 {
                    a
                } else if b < 0 {
                    -b
                } else {
                    0
                },
                top,
            ))
        }
        Op::Add => Ok((a.checked_add(second.0).ok_or_else(overflow)?, b.checked_add(second.1).ok_or_else(overflow)?)),
        Op::Sub => Ok((a.checked_sub(second.1).ok_or_else(overflow)?, b.checked_sub(second.0).ok_or_else(overflow)?)),
        Op::Mul => corners(&|x, y| x.checked_mul(y)),
        Op::Min => Ok((a.min(second.0), b.min(second.1))),
        Op::Max => Ok((a.max(second.0), b.max(second.1))),
        Op::Clamp => {
            let top = args[2].int();
            Ok((a.max(second.0).min(top.0), b.max(second.1).min(top.1)))
        }
        Op::Shl => {
            counts()?;
            corners(&|x, n| {
                if x == 0 {
                    return Some(0);
                }
                if n > 126 { None } else { x.checked_mul(1i128 << n) }
            })
        }
        Op::Shr(mode) => {
            counts()?;
            // Rounding is monotone, and v / 2^n is monotone in n for each sign of v.
            corners(&|x, n| Some(shr_round(x, n.min(1 << 16) as u32, mode)))
        }
        Op::DivInt(mode) => {
            if second.0 <= 0 && second.1 >= 0 {
                return Err(format!("the divisor may be zero: its range is {}..={}", second.0, second.1));
            }
            corners(&|x, d| Some(div_round(x, d, mode)))
        }
        Op::Wrap { bits, signed } => {
            let (lo, hi) = type_range(bits, signed);
            Ok(if a >= lo && b <= hi { (a, b) } else { (lo, hi) })
        }
        Op::Clz(bits) => {
            let top = type_range(bits, false).1;
            if a < 0 || b > top {
                return Err(format!("clz takes 0..={top}, the value may be {}", if a < 0 { a } else { b }));
            }
            let count = |v: i128| i128::from(bits) - i128::from(128 - v.leading_zeros());
            Ok((count(b), count(a)))
        }
        Op::FloorLog2 if operand == Type::Int => {
            if a <= 0 {
                return Err(format!("floor_log2 takes positive values, the value may be {a}"));
            }
            Ok((a.ilog2().into(), b.ilog2().into()))
        }
        Op::FloorLog2 => {
            let (lo, _, nan) = args[0].float();
            if nan || lo <= 0.0 {
                return Err("floor_log2 takes positive values; clamp the float before it".into());
            }
            Ok((-1074, 1023))
        }
        Op::Exponent => {
            let (lo, hi, nan) = args[0].float();
            let top = frexp(lo.abs().max(hi.abs())).filter(|_| !nan).map_or(1024, |(_, exponent)| exponent);
            Ok((-1073, i128::from(top.max(0))))
        }
        Op::ToInt(mode) => {
            if operand == Type::Bool {
                return Ok((0, 1));
            }
            if operand == Type::Int {
                return Ok((a, b));
            }
            let (lo, hi, _) = args[0].float();
            let (least, most) = (i128::from(i64::MIN), i128::from(i64::MAX));
            let bound = |v: f64, default: i128| to_int(v, mode).unwrap_or(default).clamp(least, most);
            Ok((bound(lo, if lo > 0.0 { most } else { least }), bound(hi, if hi < 0.0 { least } else { most })))
        }
        Op::Bucket | Op::Length => Ok((0, 1 << 20)),
        other => Err(format!("{other:?} needs constants")),
    }
}

/// Least and greatest value of `bits` bits.
pub(super) fn type_range(bits: u32, signed: bool) -> (i128, i128) {
    let bits = bits.min(126);
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn float_range(op: Op, format: FloatType, args: &[Interval]) -> Interval {
    let (a, b, nan) = args[0].float();
    let (c, d, other_nan) = args.get(1).map_or((0.0, 0.0, false), |i| i.float());
    let finite = [a, b, c, d].iter().all(|v| v.is_finite()) && !nan && !other_nan;
    let hull = |values: &[f64]| widen(values, format);
    match op {
        Op::ToFloat(format) => match args[0] {
            Interval::Int(lo, hi) => Interval::Float { lo: from_int(lo, format), hi: from_int(hi, format), nan: false },
            Interval::Float { .. } => Interval::Float { lo: round_to(a, format), hi: round_to(b, format), nan },
            Interval::Other => Interval::Float { lo: 0.0, hi: 1.0, nan: false },
        },
        Op::Neg => Interval::Float { lo: -b, hi: -a, nan },
        Op::Abs => {
            let lo = if a > 0.0 {
                a
            } else if b < 0.0 {
                -b
            } else {
                0.0
            };
            Interval::Float { lo, hi: a.abs().max(b.abs()), nan }
        }
        Op::Add if finite => hull(&[a + c, b + d]),
        Op::Sub if finite => hull(&[a - d, b - c]),
        Op::Mul if finite => hull(&[a * c, a * d, b * c, b * d]),
        Op::Div if finite && (c > 0.0 || d < 0.0) => hull(&[a / c, a / d, b / c, b / d]),
        Op::Fma if finite => {
            let (e, f, third_nan) = args[2].float();
            let products = [a * c, a * d, b * c, b * d];
            if third_nan || !e.is_finite() || !f.is_finite() || products.iter().any(|p| !p.is_finite()) {
                return Interval::ANY_FLOAT;
            }
            let (lo, hi) = products.iter().fold((f64::MAX, f64::MIN), |(lo, hi), p| (lo.min(*p), hi.max(*p)));
            hull(&[(lo + e).next_down(), (hi + f).next_up()])
        }
        // `min(a, b)` is b where a is NaN, and NaN where b is.
        Op::Min => Interval::Float { lo: a.min(c), hi: if nan { d } else { b.min(d) }, nan: other_nan },
        Op::Max => Interval::Float { lo: if nan { c } else { a.max(c) }, hi: b.max(d), nan: other_nan },
        Op::Clamp => {
            let (e, f, third_nan) = args[2].float();
            if other_nan || third_nan {
                return Interval::ANY_FLOAT;
            }
            Interval::Float { lo: a.max(c).min(e), hi: b.max(d).min(f), nan }
        }
        Op::Round(mode) => Interval::Float { lo: round_integral(a, mode), hi: round_integral(b, mode), nan },
        Op::Ldexp if a.is_finite() && b.is_finite() && !nan => {
            let (least, most) = args[1].int();
            if least < -1000 || most > 1000 {
                return Interval::ANY_FLOAT;
            }
            let scaled = |v: f64, n: i128| ldexp(v, n as i64, FloatType::F64);
            hull(&[scaled(a, least), scaled(a, most), scaled(b, least), scaled(b, most)])
        }
        Op::Mantissa if finite => Interval::Float { lo: -1.0, hi: 1.0, nan: false },
        Op::Math(Math::Tanh | Math::Erf) => Interval::Float { lo: -1.0, hi: 1.0, nan },
        Op::Math(Math::Sigmoid) => Interval::Float { lo: 0.0, hi: 1.0, nan },
        Op::Math(Math::Exp | Math::Exp2) => Interval::Float { lo: 0.0, hi: f64::INFINITY, nan },
        _ => Interval::ANY_FLOAT,
    }
}

/// The hull of f64 results, with room for the rounding of `format`.
fn widen(values: &[f64], format: FloatType) -> Interval {
    if values.iter().any(|v| !v.is_finite()) {
        return Interval::ANY_FLOAT;
    }
    let lo = values.iter().fold(f64::MAX, |a, b| a.min(*b));
    let hi = values.iter().fold(f64::MIN, |a, b| a.max(*b));
    let margin = |v: f64| match format {
        FloatType::F64 => 0.0,
        FloatType::F32 => v.abs() * 1.2e-7 + 1e-45,
        FloatType::F16 => v.abs() * 1e-3 + 6e-8,
        FloatType::Bf16 => v.abs() * 8e-3 + 1e-40,
    };
    let (lo, hi) = ((lo - margin(lo)).next_down(), (hi + margin(hi)).next_up());
    Interval::Float { lo: beyond(lo, format), hi: beyond(hi, format), nan: false }
}

/// Infinity where a bound may round to it.
fn beyond(v: f64, format: FloatType) -> f64 {
    let near = round_to(v, format);
    if near.is_infinite() { near } else { v }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::Rounding;

    #[test]
    fn shifts_and_products() {
        let wide = Interval::Int(i32::MIN.into(), i32::MAX.into());
        let m = Interval::Int(1 << 30, (1 << 31) - 1);
        let product = range_of(Op::Mul, Type::Int, Type::Int, &[wide, m]).unwrap();
        assert!(product.fits_i64());
        let down =
            range_of(Op::Shr(Rounding::HalfUp), Type::Int, Type::Int, &[product, Interval::Int(31, 31)]).unwrap();
        assert_eq!(down, Interval::Int(-(1 << 31) + 1, (1 << 31) - 2));
        let n = Interval::Int(-1, 3);
        assert!(range_of(Op::Shr(Rounding::Floor), Type::Int, Type::Int, &[wide, n]).is_err());
        assert!(range_of(Op::DivInt(Rounding::Floor), Type::Int, Type::Int, &[wide, n]).is_err());
        let far = Interval::Int(0, 120);
        assert!(range_of(Op::Shl, Type::Int, Type::Int, &[wide, far]).is_err());
    }

    #[test]
    fn clamping_a_float_bounds_the_integer() {
        let any = Interval::ANY_FLOAT;
        let (lo, hi) = (
            Interval::Float { lo: -128.0, hi: -128.0, nan: false },
            Interval::Float { lo: 127.0, hi: 127.0, nan: false },
        );
        let f32 = Type::Float(FloatType::F32);
        let clamped = range_of(Op::Clamp, f32, f32, &[any, lo, hi]).unwrap();
        let int = range_of(Op::ToInt(Rounding::HalfEven), Type::Int, f32, &[clamped]).unwrap();
        assert_eq!(int, Interval::Int(-128, 127));
        let all = range_of(Op::ToInt(Rounding::HalfEven), Type::Int, f32, &[any]).unwrap();
        assert_eq!(all, Interval::Int(i64::MIN.into(), i64::MAX.into()));
    }
}
