//! Twins of the epilogues, one accumulator at a time.

use super::super::epilogue::ShiftRounding;
use super::super::quantize::Nearest;
use crate::program::Meeting;

/// `rint(clamp(f32(acc)·scale, lo, hi)) + zero_point`, saturated to `qmin..=qmax`.
pub fn float_scale(acc: i32, scale: f32, lo: f32, hi: f32, zero_point: i32, qmin: i32, qmax: i32) -> i32 {
    let product = acc as f32 * scale;
    let bounded = if product < lo {
        lo
    } else if product > hi {
        hi
    } else {
        product
    };
    let code = f64::from(bounded).round_ties_even() as i64 + i64::from(zero_point);
    code.clamp(qmin.into(), qmax.into()) as i32
}

/// `rint(f32(acc)·scale + offset) + zero_point`, saturated to `qmin..=qmax`.
pub fn float_affine(acc: i32, scale: f32, offset: f32, zero_point: i32, qmin: i32, qmax: i32) -> i32 {
    let product = acc as f32 * scale;
    let code = f64::from(product + offset).round_ties_even() as i64 + i64::from(zero_point);
    code.clamp(qmin.into(), qmax.into()) as i32
}

/// `sat(rint(fma(a, factors[0], fma(b, factors[1], constant))) + zero_point)`.
pub fn float_sum(a: i32, b: i32, factors: [f32; 2], constant: f32, zero_point: i32, qmin: i32, qmax: i32) -> i32 {
    let sum = libm::fmaf(a as f32, factors[0], libm::fmaf(b as f32, factors[1], constant));
    let code = f64::from(sum).round_ties_even() as i64 + i64::from(zero_point);
    code.clamp(qmin.into(), qmax.into()) as i32
}

/// A scaled real rounded to an integer, `+ zero_point`, saturated to `qmin..=qmax`.
pub fn quantize(scaled: f32, nearest: Nearest, zero_point: i64, qmin: i64, qmax: i64) -> i64 {
    let v = f64::from(scaled);
    let integer = match nearest {
        Nearest::Even => v.round_ties_even(),
        Nearest::Away => v.round(),
    };
    (integer as i64).saturating_add(zero_point).clamp(qmin, qmax)
}

/// Two integers added, subtracted or multiplied, modulo 2^32.
pub fn meet(how: Meeting, a: i32, b: i32) -> i32 {
    let (a, b) = (i128::from(a), i128::from(b));
    match how {
        Meeting::Sum => (a + b) as i32,
        Meeting::Difference => (a - b) as i32,
        Meeting::Product => (a * b) as i32,
    }
}

/// The left shift that wraps, the doubling high product rounded half up, the right shift rounded half away from zero.
#[allow(clippy::too_many_arguments)]
pub fn double_rounding(acc: i32, left: u32, multiplier: i32, right: u32, zero_point: i32, qmin: i32, qmax: i32) -> i32 {
    let shifted = (i128::from(acc) << left) as i32;
    let product = shift_right(i128::from(shifted) * i128::from(multiplier), 31, ShiftRounding::HalfUp);
    let saturated = product.clamp(i32::MIN.into(), i32::MAX.into());
    let code = shift_right(saturated, right, ShiftRounding::HalfAway) + i128::from(zero_point);
    code.clamp(qmin.into(), qmax.into()) as i32
}

/// `shr(acc·m + offset, s) + zero_point`, saturated to `qmin..=qmax`.
#[allow(clippy::too_many_arguments)]
pub fn mul_shift(
    acc: i32,
    multiplier: i32,
    offset: i64,
    shift: u32,
    rounding: ShiftRounding,
    zero_point: i32,
    qmin: i32,
    qmax: i32,
) -> i32 {
    let value = i128::from(acc) * i128::from(multiplier) + i128::from(offset);
    let code = shift_right(value, shift, rounding) + i128::from(zero_point);
    code.clamp(qmin.into(), qmax.into()) as i32
}

/// `value / 2^shift`, rounded.
pub fn shift_right(value: i128, shift: u32, rounding: ShiftRounding) -> i128 {
    let unit = 1i128 << shift;
    let (floor, rest) = (value.div_euclid(unit), value.rem_euclid(unit));
    let up = match (2 * rest).cmp(&unit) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => rounding != ShiftRounding::Floor,
        std::cmp::Ordering::Equal => match rounding {
            ShiftRounding::Floor => false,
            ShiftRounding::HalfUp => true,
            ShiftRounding::HalfEven => floor % 2 != 0,
            ShiftRounding::HalfAway => value >= 0,
        },
    };
    floor + i128::from(up)
}
