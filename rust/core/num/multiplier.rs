//! Fixed-point multipliers: a real factor as `mantissa · 2^(exponent - bits)`.

use super::float::{frexp, ldexp, to_int};
use super::{FloatType, Rounding};

/// `factor ≈ mantissa · 2^(exponent - bits)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Multiplier {
    /// In `[2^(bits-1), 2^bits)` for positive factors; 0 for zero.
    pub mantissa: i64,
    /// Binary exponent of the factor, as C's `frexp` gives it (carry included).
    pub exponent: i32,
    /// Width of the mantissa.
    pub bits: u32,
}

impl Multiplier {
    /// Normalises a finite `factor` to a mantissa of `bits` (1 to 62), rounded by `mode`. A mantissa that rounds up to
    /// `2^bits` is halved and its exponent raised. None for infinities, NaN and widths out of range.
    pub fn normalised(factor: f64, bits: u32, mode: Rounding) -> Option<Multiplier> {
        if !(1..=62).contains(&bits) {
            return None;
        }
        let (fraction, exponent) = frexp(factor)?;
        let mantissa = to_int(ldexp(fraction, bits.into(), FloatType::F64), mode)? as i64;
        Some(if mantissa.unsigned_abs() == 1 << bits {
            Multiplier { mantissa: mantissa / 2, exponent: exponent + 1, bits }
        } else {
            Multiplier { mantissa, exponent, bits }
        })
    }

    /// Right shift that follows the product: `value = x · mantissa / 2^shift`.
    pub fn shift(self) -> i32 {
        self.bits as i32 - self.exponent
    }

    /// The factor that the multiplier stands for.
    pub fn value(self) -> f64 {
        ldexp(self.mantissa as f64, -i64::from(self.shift()), FloatType::F64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q31_of_common_factors() {
        let m = Multiplier::normalised(0.5, 31, Rounding::HalfAway).unwrap();
        assert_eq!((m.mantissa, m.exponent, m.shift()), (1 << 30, 0, 31));
        let m = Multiplier::normalised(1.0 - 2f64.powi(-40), 31, Rounding::HalfAway).unwrap();
        assert_eq!((m.mantissa, m.exponent), (1 << 30, 1));
        let m = Multiplier::normalised(1.0 - 2f64.powi(-40), 31, Rounding::Trunc).unwrap();
        assert_eq!((m.mantissa, m.exponent), ((1 << 31) - 1, 0));
        assert_eq!(Multiplier::normalised(0.0, 31, Rounding::HalfAway).unwrap().mantissa, 0);
        assert!(Multiplier::normalised(f64::NAN, 31, Rounding::HalfAway).is_none());
        assert!(Multiplier::normalised(1.0, 0, Rounding::HalfAway).is_none());
    }

    #[test]
    fn widths_stay_within_half_a_unit() {
        for bits in 7..=32 {
            for i in 1..2000 {
                let factor = f64::from(i) * 0.000_37;
                let m = Multiplier::normalised(factor, bits, Rounding::HalfEven).unwrap();
                assert!(m.mantissa >= 1 << (bits - 1) && m.mantissa < 1 << bits);
                assert!((m.value() - factor).abs() <= factor * 2f64.powi(-(bits as i32)), "{factor} {bits}");
            }
        }
    }
}
