//! Exact float steps: floats taken apart, put together with one rounding, and turned into integers.

use super::rounding::{Rounding, shr_round};
use half::{bf16, f16};
use std::fmt;

/// A binary float format. Every operation on one rounds once, to nearest even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FloatType {
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

impl FloatType {
    /// All formats.
    pub const ALL: [FloatType; 4] = [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64];

    /// Name in programs.
    pub fn name(self) -> &'static str {
        match self {
            FloatType::F16 => "f16",
            FloatType::Bf16 => "bf16",
            FloatType::F32 => "f32",
            FloatType::F64 => "f64",
        }
    }

    /// Significant bits, the hidden one included.
    pub fn precision(self) -> u32 {
        match self {
            FloatType::F16 => 11,
            FloatType::Bf16 => 8,
            FloatType::F32 => 24,
            FloatType::F64 => 53,
        }
    }

    /// Exponent of the smallest subnormal.
    fn lowest(self) -> i64 {
        match self {
            FloatType::F16 => -24,
            FloatType::Bf16 => -133,
            FloatType::F32 => -149,
            FloatType::F64 => -1074,
        }
    }

    /// Largest exponent of a finite value's leading bit.
    fn highest(self) -> i64 {
        match self {
            FloatType::F16 => 15,
            FloatType::Bf16 | FloatType::F32 => 127,
            FloatType::F64 => 1023,
        }
    }

    /// `±magnitude · 2^exponent` rounded once to this format (to nearest even); the result as f64, which holds it exactly.
    pub fn round(self, negative: bool, magnitude: u128, exponent: i64) -> f64 {
        let sign = if negative { -1.0 } else { 1.0 };
        if magnitude == 0 {
            return 0.0 * sign;
        }
        let length = i64::from(128 - magnitude.leading_zeros());
        let wanted = (exponent + length - i64::from(self.precision())).max(self.lowest());
        let (mut digits, mut exponent) = (magnitude, exponent);
        if wanted > exponent {
            let drop = u32::try_from(wanted - exponent).unwrap_or(u32::MAX);
            digits = shr_unsigned(magnitude, drop);
            exponent = wanted;
        }
        if digits == 0 {
            return 0.0 * sign;
        }
        let length = i64::from(128 - digits.leading_zeros());
        if exponent + length - 1 > self.highest() {
            return f64::INFINITY * sign;
        }
        sign * assemble(digits, exponent)
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `v / 2^n` to nearest even, for all 128 bits.
fn shr_unsigned(v: u128, n: u32) -> u128 {
    if n > 128 {
        return 0;
    }
    if n == 128 {
        return u128::from(v > 1 << 127);
    }
    if n == 0 {
        return v;
    }
    let (floor, rest, half) = (v >> n, v & ((1 << n) - 1), 1u128 << (n - 1));
    floor + u128::from(rest > half || (rest == half && floor & 1 == 1))
}

/// `digits · 2^exponent` for a value that f64 holds exactly.
fn assemble(digits: u128, exponent: i64) -> f64 {
    let zeros = digits.trailing_zeros();
    let (digits, exponent) = ((digits >> zeros) as u64, exponent + i64::from(zeros));
    let length = i64::from(64 - digits.leading_zeros());
    let leading = exponent + length - 1;
    if leading >= -1022 {
        let fraction = (digits << (53 - length)) & ((1 << 52) - 1);
        f64::from_bits(((leading + 1023) as u64) << 52 | fraction)
    } else {
        f64::from_bits(digits << (exponent + 1074))
    }
}

/// A finite float as sign, magnitude and exponent: `±magnitude · 2^exponent`. None for infinities and NaN.
#[inline]
pub fn decompose(v: f64) -> Option<(bool, u64, i64)> {
    if !v.is_finite() {
        return None;
    }
    let bits = v.to_bits();
    let (biased, fraction) = ((bits >> 52 & 0x7ff) as i64, bits & ((1 << 52) - 1));
    let negative = bits >> 63 == 1;
    Some(if biased == 0 { (negative, fraction, -1074) } else { (negative, fraction | 1 << 52, biased - 1075) })
}

/// Bits of the exponent of a f64.
const EXPONENT: u64 = 0x7ff << 52;

/// The biased exponent of a normal f64; None for zeros, subnormals, infinities and NaN.
#[inline]
fn normal_exponent(v: f64) -> Option<i64> {
    Some((v.to_bits() >> 52 & 0x7ff) as i64).filter(|exponent| (1..0x7ff).contains(exponent))
}

/// A normal f64 with another biased exponent of 1 to 0x7fe.
#[inline]
fn with_exponent(v: f64, exponent: i64) -> f64 {
    f64::from_bits(v.to_bits() & !EXPONENT | (exponent as u64) << 52)
}

/// `v` rounded once to `format`; the result as f64. Signs of zeros, infinities and NaN stay.
#[inline]
pub fn round_to(v: f64, format: FloatType) -> f64 {
    match format {
        FloatType::F64 => v,
        FloatType::F32 => f64::from(v as f32),
        FloatType::F16 | FloatType::Bf16 => HalfGrid::new(format).round(v),
    }
}

/// `v` rounded to f16, which f32 holds; as [`HalfGrid::round`].
///
/// Sums, differences, products and quotients of f16 may be rounded to f32 first: its 24 bits are twice the 11 of f16 and two
/// more, so that no second rounding sees a tie that was none. (Figueroa 1995, "When is double rounding innocuous?")
#[inline(always)]
pub fn nearest_f16(v: f32) -> f32 {
    // Biased exponents of 2^-14 and 2^16; 2^23 spacings of f16 are 2^13 times the power of two below `v`.
    const SMALLEST: u32 = 127 - 14;
    const END: u32 = 127 + 16;
    let magnitude = v.abs();
    let exponent = (magnitude.to_bits() >> 23).clamp(SMALLEST, END);
    let magic = f32::from_bits((exponent + 13) << 23);
    let rounded = (magnitude + magic) - magic;
    (if rounded >= 65_536.0 { f32::INFINITY } else { rounded }).copysign(v)
}

/// `v` rounded to f16, once.
pub fn to_f16(v: f64) -> f16 {
    f16::from_f32(round_to(v, FloatType::F16) as f32)
}

/// `v` rounded to bf16, once.
pub fn to_bf16(v: f64) -> bf16 {
    bf16::from_f32(round_to(v, FloatType::Bf16) as f32)
}

/// Rounding of f64 to a narrow format without branches, so that loops over it have vectors.
///
/// With `u` the distance of neighbours in the format around `v`, `(|v| + 2^52·u) - 2^52·u` is `|v|` rounded to a multiple of
/// `u`, to nearest even: the neighbours of the sum are `u` apart. `u` follows from the exponent of `v`, and does not fall below
/// the smallest subnormal.
#[derive(Debug, Clone, Copy)]
pub struct HalfGrid {
    /// Biased exponents of the smallest normal number and of the first power of two that the format does not have.
    exponents: [u64; 2],
    /// From the biased exponent of `v` to that of `2^52·u`.
    rise: u64,
    /// From here on values round to infinity.
    end: f64,
}

impl HalfGrid {
    /// The grid of `format`, of at most 24 significant bits.
    pub fn new(format: FloatType) -> HalfGrid {
        let precision = i64::from(format.precision());
        let biased = |exponent: i64| (exponent + 1023) as u64;
        HalfGrid {
            exponents: [biased(format.lowest() + precision - 1), biased(format.highest() + 1)],
            rise: (53 - precision) as u64,
            end: f64::from_bits(biased(format.highest() + 1) << 52),
        }
    }

    /// As [`round_to`].
    #[inline(always)]
    pub fn round(self, v: f64) -> f64 {
        let magnitude = v.abs();
        let exponent = (magnitude.to_bits() >> 52).clamp(self.exponents[0], self.exponents[1]);
        let magic = f64::from_bits((exponent + self.rise) << 52);
        let rounded = (magnitude + magic) - magic;
        (if rounded >= self.end { f64::INFINITY } else { rounded }).copysign(v)
    }
}

/// f64 sum with inexact values rounded to odd.
fn odd_sum(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if !sum.is_finite() {
        return sum;
    }
    let high = sum - a;
    let error = (a - (sum - high)) + (b - high);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    let bits = sum.to_bits();
    f64::from_bits(if (error > 0.0) == (sum > 0.0) { bits + 1 } else { bits - 1 })
}

/// `a · b + c` of two f16 or bf16 products, rounded once to `format` (f16 or bf16).
pub fn fma_half(a: f64, b: f64, c: f64, format: FloatType) -> f64 {
    round_to(odd_sum(a * b, c), format)
}

/// An integer rounded once to `format`; the result as f64.
#[inline]
pub fn from_int(v: i128, format: FloatType) -> f64 {
    // Processors convert 64 bits; the rounding is the same.
    match (format, i64::try_from(v)) {
        (FloatType::F64, Ok(v)) => v as f64,
        (FloatType::F64, Err(_)) => v as f64,
        (FloatType::F32, Ok(v)) => f64::from(v as f32),
        (FloatType::F32, Err(_)) => f64::from(v as f32),
        _ => format.round(v < 0, v.unsigned_abs(), 0),
    }
}

/// The integer that `v` becomes under `mode`; None for NaN, infinities and magnitudes of `2^126` and above.
#[inline]
pub fn to_int(v: f64, mode: Rounding) -> Option<i128> {
    let (negative, magnitude, exponent) = decompose(v)?;
    let signed = if negative { -i128::from(magnitude) } else { magnitude.into() };
    if exponent >= 0 {
        (exponent + 53 <= 126 || magnitude == 0).then(|| signed << exponent.min(73))
    } else {
        Some(shr_round(signed, exponent.unsigned_abs() as u32, mode))
    }
}

/// [`to_int`] of an f32.
pub fn f32_to_int(v: f32, mode: Rounding) -> Option<i128> {
    to_int(v.into(), mode)
}

/// `v` rounded to an integer that stays a float. Zeros keep the sign of `v`; infinities and NaN stay.
#[inline]
pub fn round_integral(v: f64, mode: Rounding) -> f64 {
    if !v.is_finite() || v.abs() >= 4_503_599_627_370_496.0 {
        return v;
    }
    to_int(v, mode).map_or(v, |integer| from_int(integer, FloatType::F64).copysign(v))
}

/// `v = mantissa · 2^exponent` with `|mantissa|` in `[0.5, 1)`; zero gives `(0, 0)`, as C's `frexp`. None for
/// infinities and NaN. Subnormals are exact.
#[inline]
pub fn frexp(v: f64) -> Option<(f64, i32)> {
    match normal_exponent(v) {
        Some(exponent) => Some((with_exponent(v, 1022), (exponent - 1022) as i32)),
        None => frexp_of_any(v),
    }
}

fn frexp_of_any(v: f64) -> Option<(f64, i32)> {
    let (negative, magnitude, exponent) = decompose(v)?;
    if magnitude == 0 {
        return Some((v, 0));
    }
    let length = i64::from(64 - magnitude.leading_zeros());
    Some((FloatType::F64.round(negative, magnitude.into(), -length), (exponent + length) as i32))
}

/// [`frexp`] of an f32; the mantissa is an f32 again.
pub fn frexp_f32(v: f32) -> Option<(f32, i32)> {
    frexp(v.into()).map(|(mantissa, exponent)| (mantissa as f32, exponent))
}

/// `v · 2^n`, rounded once to `format` (inexact only where the result is subnormal or overflows).
#[inline]
pub fn ldexp(v: f64, n: i64, format: FloatType) -> f64 {
    // Between normal numbers of f64 nothing is lost before the rounding.
    match normal_exponent(v).map(|exponent| exponent.saturating_add(n)) {
        Some(exponent) if (1..0x7ff).contains(&exponent) => round_to(with_exponent(v, exponent), format),
        _ => ldexp_of_any(v, n, format),
    }
}

/// [`ldexp`] for all values and results.
fn ldexp_of_any(v: f64, n: i64, format: FloatType) -> f64 {
    match decompose(v) {
        Some((negative, magnitude, exponent)) => {
            format.round(negative, magnitude.into(), exponent + n.clamp(-100_000, 100_000))
        }
        None => v,
    }
}

/// `v` rounded to `bits` significant bits (1 to 53). Infinities and NaN stay.
pub fn significant(v: f64, bits: u32, mode: Rounding) -> f64 {
    let Some((negative, magnitude, exponent)) = decompose(v) else { return v };
    let length = 64 - magnitude.leading_zeros();
    if length <= bits {
        return v;
    }
    let drop = length - bits;
    let signed = if negative { -i128::from(magnitude) } else { magnitude.into() };
    let digits = shr_round(signed, drop, mode).unsigned_abs();
    FloatType::F64.round(negative, digits, exponent + i64::from(drop))
}

/// A finite float as an exact fraction in lowest terms, where both parts fit i128.
pub fn as_fraction(v: f64) -> Option<(i128, i128)> {
    let (negative, magnitude, exponent) = decompose(v)?;
    if magnitude == 0 {
        return Some((0, 1));
    }
    let zeros = magnitude.trailing_zeros();
    let (magnitude, exponent) = (i128::from(magnitude >> zeros), exponent + i64::from(zeros));
    let signed = if negative { -magnitude } else { magnitude };
    match exponent {
        0..=70 => Some((signed << exponent, 1)),
        -126..=-1 => Some((signed, 1 << -exponent)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<f64> {
        let mut values = vec![0.0, -0.0, 1.0, 0.1, -0.1, 0.5, 1.5, 2.5, -2.5, 5e-324, f64::MIN_POSITIVE, f64::MAX];
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let v = f64::from_bits(state);
            if v.is_finite() {
                values.extend([v, f64::from_bits(state & !(0x7ff << 52)), f64::from(v as f32)]);
            }
        }
        values.retain(|v| v.is_finite());
        values
    }

    #[test]
    fn frexp_and_ldexp_are_inverse_and_match_libm() {
        for v in samples() {
            let (mantissa, exponent) = frexp(v).unwrap();
            assert_eq!((mantissa, exponent), libm::frexp(v), "{v:e}");
            assert_eq!(ldexp(mantissa, exponent.into(), FloatType::F64).to_bits(), v.to_bits(), "{v:e}");
        }
        for bits in [1u32, 2, 3, 0x7f_ffff, 0x80_0000, 0x3f80_0000, 0x7f7f_ffff] {
            let v = f32::from_bits(bits);
            let (mantissa, exponent) = frexp_f32(v).unwrap();
            assert_eq!((mantissa, exponent), libm::frexpf(v));
        }
        assert!(frexp(f64::NAN).is_none() && frexp(f64::INFINITY).is_none());
    }

    #[test]
    fn subnormal_results_round_once() {
        for v in samples() {
            for n in [-1100, -1050, -1022, -60, 0, 60] {
                assert_eq!(ldexp(v, n, FloatType::F64).to_bits(), libm::scalbn(v, n as i32).to_bits(), "{v:e} {n}");
                for format in FloatType::ALL {
                    let expected = ldexp_of_any(v, n, format);
                    assert_eq!(ldexp(v, n, format).to_bits(), expected.to_bits(), "{v:e} {n} {format}");
                }
            }
        }
    }

    #[test]
    fn rounding_to_formats_equals_casts() {
        for v in samples() {
            let (negative, magnitude, exponent) = decompose(v).unwrap();
            let at = |format: FloatType| format.round(negative, magnitude.into(), exponent);
            assert_eq!(at(FloatType::F32).to_bits(), f64::from(v as f32).to_bits(), "{v:e}");
            assert_eq!(at(FloatType::F64).to_bits(), v.to_bits());
            assert_eq!(at(FloatType::F16).to_bits(), round_to(v, FloatType::F16).to_bits(), "{v:e}");
            assert_eq!(at(FloatType::Bf16).to_bits(), round_to(v, FloatType::Bf16).to_bits(), "{v:e}");
        }
    }

    #[test]
    fn halves_round_once_next_to_every_tie() {
        for bits in 0..0x7bffu16 {
            let (low, high) = (f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64());
            let tie = (low + high) / 2.0;
            let even = if bits & 1 == 0 { low } else { high };
            assert_eq!(round_to(tie, FloatType::F16), even);
            assert_eq!(round_to(tie.next_down(), FloatType::F16), low);
            assert_eq!(round_to(tie.next_up(), FloatType::F16), high);
        }
    }

    #[test]
    fn halves_of_f32_round_alike() {
        for v in samples() {
            let v = v as f32;
            for v in [v, v * 1e-20, v.clamp(-70_000.0, 70_000.0), f32::from_bits(v.to_bits() & 0x3fff_ffff)] {
                assert_eq!(f64::from(nearest_f16(v)).to_bits(), round_to(v.into(), FloatType::F16).to_bits(), "{v:e}");
            }
        }
        for bits in 0..0x7c00u16 {
            let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
            let tie = if high.is_finite() { (low + high) / 2.0 } else { 65_520.0 };
            let even = if bits & 1 == 0 { low } else { high };
            assert_eq!([tie.next_down(), tie, tie.next_up()].map(nearest_f16), [low, even, high], "{bits:x}");
            assert_eq!([tie.next_down(), tie, tie.next_up()].map(|v| nearest_f16(-v)), [-low, -even, -high]);
        }
        assert!(nearest_f16(f32::NAN).is_nan());
        assert_eq!(nearest_f16(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert_eq!(nearest_f16(f32::MAX), f32::INFINITY);
    }

    #[test]
    fn operations_on_f16_may_round_to_f32_first() {
        for a in (0..=u16::MAX).step_by(1021).chain([1, 2, 3, 0x3ff, 0x400, 0x401, 0x3c01, 0x7bff]).map(f16::from_bits)
        {
            for b in (0..=u16::MAX).map(f16::from_bits) {
                let ((x, y), (u, v)) = ((a.to_f32(), b.to_f32()), (a.to_f64(), b.to_f64()));
                for (narrow, wide) in [(x + y, u + v), (x - y, u - v), (x * y, u * v), (x / y, u / v)] {
                    let (got, want) = (nearest_f16(narrow), round_to(wide, FloatType::F16));
                    assert!(f64::from(got) == want || got.is_nan() && want.is_nan(), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn half_fma_is_exact() {
        // 1·1 + 2^-24: far below half an ulp; 1025·1 + tiny breaks a tie that a double rounding would lose.
        let tiny = f16::from_bits(1).to_f64();
        let one = 1.0;
        assert_eq!(fma_half(one, one, tiny, FloatType::F16), 1.0);
        let half_ulp = 2f64.powi(-11);
        assert_eq!(fma_half(half_ulp, one, one, FloatType::F16), 1.0);
        assert_eq!(fma_half(half_ulp, 1.0 + 2.0 * half_ulp, one, FloatType::F16), 1.0 + 2.0 * half_ulp);
        let mut state = 1u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = |shift: u32| f16::from_bits((state >> shift) as u16);
            let (a, b, c) = (pick(0), pick(16), pick(32));
            if !(a.is_finite() && b.is_finite() && c.is_finite()) {
                continue;
            }
            let units = |v: f16| (v.to_f64() * 16_777_216.0) as i128;
            let exact = units(a) * units(b) + (units(c) << 24);
            let expected = FloatType::F16.round(exact < 0, exact.unsigned_abs(), -48);
            assert_eq!(fma_half(a.to_f64(), b.to_f64(), c.to_f64(), FloatType::F16), expected, "{a} {b} {c}");
        }
    }

    #[test]
    fn float_to_int_by_every_mode() {
        for quarter in -64..=64i128 {
            let v = quarter as f64 / 4.0;
            for mode in Rounding::ALL {
                assert_eq!(to_int(v, mode), Some(shr_round(quarter, 2, mode)), "{v} {mode}");
                assert_eq!(round_integral(v, mode), shr_round(quarter, 2, mode) as f64, "{v} {mode}");
            }
        }
        assert_eq!(to_int(0.499_999_999_999_999_94, Rounding::HalfUp), Some(0));
        assert_eq!(f32_to_int(0.499_999_97, Rounding::HalfUp), Some(0));
        assert_eq!(to_int(2f64.powi(100), Rounding::Floor), Some(1 << 100));
        assert_eq!(to_int(-5e-324, Rounding::Floor), Some(-1));
        for v in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
            assert_eq!(to_int(v, Rounding::Trunc), None);
        }
    }

    #[test]
    fn significant_bits() {
        assert_eq!(significant(1.0 + 2f64.powi(-23), 24, Rounding::HalfEven), 1.0 + 2f64.powi(-23));
        for v in samples().into_iter().filter(|v| v.abs() > 1e-30 && v.abs() < 1e30) {
            assert_eq!(significant(v, 24, Rounding::HalfEven), f64::from(v as f32), "{v:e}");
            assert!(significant(v, 12, Rounding::Trunc).abs() <= v.abs());
            assert!(significant(v, 12, Rounding::Floor) <= v && significant(v, 12, Rounding::Ceil) >= v);
        }
        assert_eq!(significant(-2.5, 2, Rounding::HalfAway), -3.0);
        assert_eq!(significant(-2.5, 2, Rounding::HalfUp), -2.0);
    }

    #[test]
    fn integers_to_formats() {
        assert_eq!(from_int(2049, FloatType::F16), 2048.0);
        assert_eq!(from_int(2051, FloatType::F16), 2052.0);
        assert_eq!(from_int(65_520, FloatType::F16), f64::INFINITY);
        assert_eq!(from_int(65_519, FloatType::F16), 65_504.0);
        assert_eq!(from_int((1 << 24) + 1, FloatType::F32), 16_777_216.0);
        assert_eq!(from_int(257, FloatType::Bf16), 256.0);
    }

    #[test]
    fn fractions() {
        assert_eq!(as_fraction(-0.375), Some((-3, 8)));
        assert_eq!(as_fraction(6.0), Some((6, 1)));
        assert_eq!(as_fraction(1e300), None);
    }
}
