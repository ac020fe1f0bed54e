//! Holding reals in a format: one rounding, and what happens at the ends of its range.

use super::FloatType;
use half::{bf16, f16};

/// What becomes of a result below the smallest normal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subnormals {
    /// It stays.
    #[default]
    Keep,
    /// It becomes zero with its sign.
    Flush,
}

/// What becomes of a result beyond the largest finite number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beyond {
    /// It becomes infinite.
    #[default]
    Infinity,
    /// It becomes the largest finite number, and so do infinities. NaN stays.
    Saturate,
}

/// How a target holds reals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrow {
    /// The format.
    pub format: FloatType,
    /// Below the range of normal numbers.
    pub subnormals: Subnormals,
    /// Above the range.
    pub beyond: Beyond,
}

impl Narrow {
    /// Plain IEEE behaviour in a format.
    pub fn ieee(format: FloatType) -> Narrow {
        Narrow { format, subnormals: Subnormals::Keep, beyond: Beyond::Infinity }
    }

    /// `x` rounded to the format, to nearest even; float32 holds the result exactly. A format of 64 bits stays float32.
    pub fn round(self, x: f32) -> f32 {
        let (rounded, least, largest) = match self.format {
            FloatType::F16 => {
                (f16::from_f32_const(x).to_f32_const(), f16::MIN_POSITIVE.to_f32_const(), f16::MAX.to_f32_const())
            }
            FloatType::Bf16 => {
                (bf16::from_f32_const(x).to_f32_const(), bf16::MIN_POSITIVE.to_f32_const(), bf16::MAX.to_f32_const())
            }
            FloatType::F32 | FloatType::F64 => (x, f32::MIN_POSITIVE, f32::MAX),
        };
        if self.subnormals == Subnormals::Flush && rounded.abs() < least {
            return 0f32.copysign(rounded);
        }
        if self.beyond == Beyond::Saturate && rounded.abs() > largest {
            return largest.copysign(rounded);
        }
        rounded
    }

    /// `sum + a·b` rounded once to the format (to float64 for that one, where the product is exact).
    pub fn fused(self, sum: f64, a: f32, b: f32) -> f64 {
        let product = f64::from(a) * f64::from(b);
        match self.format {
            FloatType::F64 => sum + product,
            FloatType::F32 => self.round(a.mul_add(b, sum as f32)).into(),
            // Rounded to odd, a sum keeps what a second rounding needs.
            FloatType::F16 | FloatType::Bf16 => self.round(to_f32_odd(add_odd(sum, product))).into(),
        }
    }
}

/// `a + b`, where an inexact sum goes to the neighbour with an odd significand.
fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let virtual_b = sum - a;
    let error = (a - (sum - virtual_b)) + (b - virtual_b);
    odd(sum, error)
}

/// f64 to f32, rounding an inexact value to the neighbour with an odd significand: a later rounding to fewer bits is then
/// the rounding of the exact value.
pub fn to_f32_odd(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) == x || x.is_nan() {
        return nearest;
    }
    if nearest.is_infinite() {
        return f32::MAX.copysign(nearest);
    }
    if nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    let outwards = x.abs() > f64::from(nearest).abs();
    f32::from_bits(if outwards { nearest.to_bits() + 1 } else { nearest.to_bits() - 1 })
}

/// Of the two neighbours around `sum + error`, the odd one; `sum` is the nearest.
fn odd(sum: f64, error: f64) -> f64 {
    if error == 0.0 || !error.is_finite() || !sum.is_finite() || sum.to_bits() & 1 == 1 {
        return sum;
    }
    let outwards = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if outwards { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [FloatType; 2] = [FloatType::F16, FloatType::Bf16];

    fn value(format: FloatType, bits: u16) -> f32 {
        match format {
            FloatType::F16 => f16::from_bits(bits).to_f32_const(),
            _ => bf16::from_bits(bits).to_f32_const(),
        }
    }

    #[test]
    fn every_value_of_a_format_stays_but_for_the_ends() {
        for format in FORMATS {
            for bits in 0..=u16::MAX {
                let x = value(format, bits);
                let plain = Narrow::ieee(format).round(x);
                assert!(plain.to_bits() == x.to_bits() || (x.is_nan() && plain.is_nan()), "{format} {bits:04x}");
                let hard = Narrow { format, subnormals: Subnormals::Flush, beyond: Beyond::Saturate }.round(x);
                let (exponent, mask) = if format == FloatType::F16 { (10, 0x1f) } else { (7, 0xff) };
                let biased = bits >> exponent & mask;
                let expected = match biased {
                    0 => 0f32.copysign(x),
                    e if e == mask && x.is_infinite() => value(format, (bits & 0x8000 | mask << exponent) - 1),
                    _ => x,
                };
                assert!(hard.to_bits() == expected.to_bits() || (x.is_nan() && hard.is_nan()), "{format} {bits:04x}");
            }
        }
    }

    #[test]
    fn between_two_values_the_nearest_or_the_even_one_is_taken() {
        for format in FORMATS {
            let infinity = if format == FloatType::F16 { 0x7c00 } else { 0x7f80 };
            for bits in 0..infinity - 1 {
                let (lo, hi) = (value(format, bits), value(format, bits + 1));
                let (middle, even) = (lo / 2.0 + hi / 2.0, if bits % 2 == 0 { lo } else { hi });
                let round = |x| Narrow::ieee(format).round(x);
                assert_eq!(round(middle), even, "{format} {bits:04x}");
                assert_eq!(round(f32::from_bits(middle.to_bits() - 1)), lo, "{format} {bits:04x}");
                assert_eq!(round(f32::from_bits(middle.to_bits() + 1)), hi, "{format} {bits:04x}");
                assert_eq!(round(-middle), -even);
            }
        }
    }

    #[test]
    fn overflow_begins_half_a_step_above_the_largest() {
        let (plain, hard) =
            (Narrow::ieee(FloatType::F16), Narrow { beyond: Beyond::Saturate, ..Narrow::ieee(FloatType::F16) });
        assert_eq!((plain.round(65519.0), plain.round(65520.0)), (65504.0, f32::INFINITY));
        assert_eq!((hard.round(65520.0), hard.round(-1e30)), (65504.0, -65504.0));
    }

    /// The exact sum as a fraction, rounded by the reference.
    fn fused_twin(format: FloatType, sum: f64, a: f32, b: f32) -> f64 {
        let parts = |v: f64| super::super::float::decompose(v).expect("finite");
        let ((sn, sm, se), (an, am, ae), (bn, bm, be)) = (parts(sum), parts(a.into()), parts(b.into()));
        let (product, exponent) = (i128::from(am) * i128::from(bm), ae + be);
        let low = if sm == 0 {
            exponent
        } else if product == 0 {
            se
        } else {
            se.min(exponent)
        };
        let shifted = |m: i128, e: i64, negative: bool| {
            let v = if m == 0 { 0 } else { m << (e - low) };
            if negative { -v } else { v }
        };
        let total = shifted(sm.into(), se, sn) + shifted(product, exponent, an != bn);
        format.round(total < 0, total.unsigned_abs(), low)
    }

    #[test]
    fn fused_steps_round_once() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as u16
        };
        for format in FORMATS {
            let mut checked = 0;
            while checked < 20000 {
                // Exponents near each other, so that terms meet, cancel and tie.
                let pick = |bits: u16| match format {
                    FloatType::F16 => value(format, bits & 0x83ff | 0x3800 | (bits & 0x400)),
                    _ => value(format, bits & 0x807f | 0x3f00 | (bits & 0x80)),
                };
                let (sum, a, b) = (pick(next()), pick(next()), pick(next()));
                let expected = fused_twin(format, sum.into(), a, b);
                let got = Narrow::ieee(format).fused(sum.into(), a, b);
                assert!(got == expected, "{format}: {sum} + {a}·{b} = {got}, not {expected}");
                checked += 1;
            }
        }
        // A tie that a tiny product breaks beyond what float64 holds.
        let tie = Narrow::ieee(FloatType::Bf16).fused(1.0, 1.0, f32::powi(2.0, -8));
        assert_eq!(tie, 1.0);
        let broken = add_odd(1.0 + f64::powi(2.0, -8), f64::powi(2.0, -80));
        assert_eq!(Narrow::ieee(FloatType::Bf16).round(to_f32_odd(broken)), 1.0 + f32::powi(2.0, -7));
    }
}
