//! Fixed-point functions on 32-bit integers.
//!
//! `Qm.n` has `m` integer and `n` fraction bits besides the sign. Facts: google/gemmlowp fixedpoint/fixedpoint.h;
//! tensorflow/tflite-micro@90b983c2 tensorflow/lite/kernels/internal/{common.cc, quantization_util.cc}.

use crate::num::{Rounding, shr_round};

fn saturate(v: i128) -> i32 {
    v.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// `a·b / 2^31` rounded half up (at -0.5: 0), saturated.
pub fn high_mul(a: i32, b: i32) -> i32 {
    saturate(shr_round(i128::from(a) * i128::from(b), 31, Rounding::HalfUp))
}

/// `v / 2^n` rounded half away from zero (at -0.5: -1).
pub fn shift_away(v: i32, n: u32) -> i32 {
    saturate(shr_round(v.into(), n, Rounding::HalfAway))
}

/// `v·2^n`, saturated.
pub fn shift_up(v: i32, n: u32) -> i32 {
    saturate(i128::from(v) << n)
}

/// Mantissa in units of 2^-31 and exponent of a real; zero and reals below 2^-32 give `(0, 0)`.
pub fn multiplier(real: f64) -> (i32, i32) {
    if real == 0.0 {
        return (0, 0);
    }
    let (mantissa, mut exponent) = libm::frexp(real);
    let mut raw = libm::round(mantissa * 2_147_483_648.0) as i64;
    if raw == 1 << 31 {
        raw /= 2;
        exponent += 1;
    }
    if exponent < -31 { (0, 0) } else { (raw as i32, exponent) }
}

/// `v · m · 2^(e - 31)` with two roundings; the left shift wraps.
pub fn scale(v: i32, (m, e): (i32, i32)) -> i32 {
    let left = e.clamp(0, 31) as u32;
    shift_away(high_mul(v.wrapping_shl(left), m), e.min(0).unsigned_abs())
}

/// `v · m · 2^(e - 31)` with one rounding, half up (at -0.5: 0); exponents above 30 are the largest multiplier.
pub fn scale_once(v: i32, (m, e): (i32, i32)) -> i32 {
    let (m, e) = if e > 30 { (i32::MAX, 30) } else { (m, e) };
    shr_round(i128::from(v) * i128::from(m), (31 - e) as u32, Rounding::HalfUp) as i32
}

/// `exp(a)` for `a` in `[-1/4, 0)`, Q0.31: Taylor polynomial of degree 4 around -1/8.
fn exp_quarter(a: i32) -> i32 {
    let x = a.wrapping_add(1 << 28);
    let x2 = high_mul(x, x);
    let x3 = high_mul(x2, x);
    let x4 = high_mul(x2, x2);
    let tail = shift_away(high_mul(shift_away(x4, 2).wrapping_add(x3), 715_827_883).wrapping_add(x2), 1);
    1_895_147_668i32.wrapping_add(high_mul(1_895_147_668, x.wrapping_add(tail)))
}

/// `exp(a)` for `a <= 0` in Q5.26, result in Q0.31.
pub fn exp_negative_q5(a: i32) -> i32 {
    const FACTORS: [i32; 7] = [1_672_461_947, 1_302_514_674, 790_015_084, 290_630_308, 39_332_535, 720_401, 242];
    if a == 0 {
        return i32::MAX;
    }
    let quarter = 1 << 24;
    let part = (a & (quarter - 1)) - quarter;
    let rest = part.wrapping_sub(a);
    FACTORS.iter().enumerate().fold(exp_quarter(shift_up(part, 5)), |result, (i, &factor)| {
        if rest & (1 << (24 + i)) != 0 { high_mul(result, factor) } else { result }
    })
}

/// `1 / (1 + a)` for `a` in `[0, 1)`, both Q0.31: three Newton steps.
pub fn one_over_one_plus_x(a: i32) -> i32 {
    let d = ((i64::from(a) + (1 << 31)) >> 1) as i32;
    let mut x = 1_515_870_810i32.wrapping_add(high_mul(d, -1_010_580_540));
    for _ in 0..3 {
        let error = (1i32 << 29).wrapping_sub(high_mul(d, x));
        x = x.wrapping_add(shift_up(high_mul(x, error), 2));
    }
    shift_up(x, 1)
}

/// `1 / sqrt(v)` as mantissa and right shift: five Newton steps in Q3.28.
pub fn inverse_sqrt(v: i32) -> (i32, i32) {
    if v <= 1 {
        return (i32::MAX, 0);
    }
    let (mut v, mut shift) = (v, 11);
    while v >= 1 << 29 {
        v /= 4;
        shift += 1;
    }
    let pairs = (v.leading_zeros() as i32 - 1) / 2 - 1;
    shift -= pairs;
    v <<= 2 * pairs;
    let half_input = shift_away(v >> 1, 1);
    let half_three = (1 << 28) + (1 << 27);
    let mut x = 1i32 << 28;
    for _ in 0..5 {
        let cube = shift_up(high_mul(high_mul(x, x), x), 6);
        x = shift_up(high_mul(half_three, x).wrapping_sub(high_mul(half_input, cube)), 3);
    }
    x = high_mul(x, 1_518_500_250);
    if shift < 0 { (x << -shift, 0) } else { (x, shift) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_round_as_named() {
        assert_eq!([high_mul(1 << 30, -1), high_mul(1 << 30, 1), high_mul(1 << 30, -3)], [0, 1, -1]);
        assert_eq!([shift_away(-1, 1), shift_away(1, 1), shift_away(-3, 1)], [-1, 1, -2]);
        assert_eq!(high_mul(i32::MIN, i32::MIN), i32::MAX);
    }

    #[test]
    fn functions_approximate_what_they_are_named_after() {
        for i in 1..2000 {
            let a = -i * 60_000;
            let exact = (f64::from(a) / 67_108_864.0).exp();
            assert!((f64::from(exp_negative_q5(a)) / 2_147_483_648.0 - exact).abs() < 1e-6, "exp {a}");
            let u = i * 1_000_000;
            let exact = 1.0 / (1.0 + f64::from(u) / 2_147_483_648.0);
            assert!((f64::from(one_over_one_plus_x(u)) / 2_147_483_648.0 - exact).abs() < 1e-6, "reciprocal {u}");
            let (m, shift) = inverse_sqrt(i * 997);
            let got = f64::from(m) / 2f64.powi(31) / 2f64.powi(shift);
            assert!((got * f64::from(i * 997).sqrt() - 1.0).abs() < 1e-5, "inverse square root {i}");
        }
    }
}
