//! Range → grid: how a minimum and a maximum become scale and zero point.
//!
//! Producers of encodings disagree in the precision of the division, in the tie of the zero point, in the narrowest
//! range that they accept and in what a symmetric grid is. Each [`Formula`] is one producer's answer.
//!
//! In all formulas `n` is the number of steps of the grid (`2^bitwidth - 1`, one less for a narrow range), and the range
//! is first widened to contain zero: `lo = min(min, 0)`, `hi = max(max, 0)`.

use super::{Encoding, Granularity, Rounding};
use crate::error::{Error, Result};
use crate::num::float::round_integral;

/// Source of the formula that turns a range into a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Formula {
    /// AIMET-torch 2.42, all steps in f32.
    ///
    /// * Narrowest scale `s_min = min(2^-23, 0.01 / n)`. A range narrower than `n · s_min` grows by `n · s_min` at its
    ///   upper end, or, symmetric, by `floor(n/2) · s_min` above and `ceil(n/2) · s_min` below.
    /// * Asymmetric: `scale = (hi - lo) / n`, `zero_point = clamp(qmin - half_even(lo / scale), qmin, qmax)`.
    /// * Symmetric: `scale = max(hi / floor(n/2), -lo / ceil(n/2))`, zero in the middle. At two bits the positive side
    ///   is divided by `ceil(n/2)` as well.
    /// * The grid is kept as its two ends in f32: the scale is `(scale·(qmax - zp) - scale·(qmin - zp)) / n` once more.
    /// * Narrow ranges and unsigned symmetric grids do not exist.
    AimetTorch,
    /// AIMET-onnx 2.42: as [`Formula::AimetTorch`] with f64 steps and zero points rounded half away from zero; has
    /// narrow ranges (`n = 2^bitwidth - 2`) and unsigned symmetric grids.
    AimetOnnx,
    /// AIMET's C++ core of October 2024, in f64: ranges below 0.01 grow at the upper end,
    /// symmetric `scale = max(-lo, hi) / floor(n/2)`, zero points rounded half away from zero.
    AimetCpp2024,
    /// The end with the smaller rounding error gives the zero point (TensorFlow Lite), in f64.
    ///
    /// * Asymmetric: `scale = (hi - lo) / n`; the zero point is computed from the end whose rounding error is smaller
    ///   (`qmin - lo/scale` if `|qmin| + |lo/scale| < |qmax| + |hi/scale|`, else `qmax - hi/scale`), rounded half away
    ///   from zero and kept in the grid.
    /// * Symmetric: `scale = max(-lo, hi) / (2^(bitwidth-1) - 1)`, zero point 0.
    /// * A range of zero width gives scale 1 (and, asymmetric, `zero_point = qmin`).
    CloserEnd,
    /// The range itself is nudged until zero is a grid point (Hexagon nnlib, `include/quantize.h`), in f32.
    ///
    /// * Unsigned 8 bits: `z = -255·lo / (hi - lo)`. If the fraction of `z` lies within `(2^-14, 1 - 2^-14)`, one end
    ///   moves outwards: the upper one (`z` falls to its floor) if `floor(z) > 0` and (`floor(z) > 253` or
    ///   `(frac - 1)·lo ≥ frac·hi`), else the lower one (`z` rises). `scale = (hi - lo)/255`,
    ///   `zero_point = half_away(-lo/scale)`.
    /// * Unsigned 16 bits: the same with 65536 steps (the maximum is the code 65536, which does not exist) and 2^-6.
    /// * Signed, symmetric, 16 or 32 bits: `scale = max(-lo, hi) / 2^(bitwidth-1)`, zero point 0.
    /// * The divisor of `z` and of an untouched scale is at least 1e-4 wide; `scale = (hi - lo)/255` is a two-part
    ///   multiplication.
    NudgedRange,
}

/// What grid to derive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormulaOptions {
    /// Whose formula.
    pub formula: Formula,
    /// 2 to 32.
    pub bitwidth: u32,
    /// Signed codes.
    pub signed: bool,
    /// Zero in the middle of the grid.
    pub symmetric: bool,
    /// Leave the lowest code out ("strict symmetric"); needs `symmetric`.
    pub narrow_range: bool,
    /// Use all codes of the unsigned grid (zero point 0) where `symmetric` is asked and the range has no negative part.
    pub unsigned_symmetric: bool,
}

impl FormulaOptions {
    /// Unsigned asymmetric: the usual activation.
    pub fn activation(formula: Formula, bitwidth: u32) -> Self {
        FormulaOptions {
            formula,
            bitwidth,
            signed: false,
            symmetric: false,
            narrow_range: false,
            unsigned_symmetric: false,
        }
    }

    /// Signed symmetric: the usual weight.
    pub fn weight(formula: Formula, bitwidth: u32) -> Self {
        FormulaOptions { signed: true, symmetric: true, ..Self::activation(formula, bitwidth) }
    }

    /// Steps of the grid: number of codes minus one.
    pub fn steps(&self) -> f64 {
        ((1i64 << self.bitwidth) - 1 - i64::from(self.narrow_range)) as f64
    }

    /// Refuses combinations that the formula's source does not have.
    pub fn validate(&self) -> Result<()> {
        if !(2..=32).contains(&self.bitwidth) {
            return Err(Error::invalid("encoding_bitwidth", format!("bitwidth {} is not in 2..=32", self.bitwidth)));
        }
        if self.narrow_range && !self.symmetric {
            return Err(Error::invalid("formula_options", "a narrow range needs a symmetric grid")
                .help("set symmetric, or clear narrow_range"));
        }
        let refuse = |message: &str, help: &str| Err(Error::invalid("formula_options", message).help(help));
        match self.formula {
            Formula::AimetTorch if self.narrow_range || self.unsigned_symmetric => refuse(
                "this formula has neither narrow ranges nor unsigned symmetric grids",
                "use the formula of AIMET-onnx or of the 2024 C++ core",
            ),
            Formula::CloserEnd if self.unsigned_symmetric || (self.symmetric && !self.signed) => {
                refuse("symmetric grids of this formula are signed", "set signed, and clear unsigned_symmetric")
            }
            Formula::NudgedRange => {
                let known = match (self.signed, self.symmetric) {
                    (false, false) => matches!(self.bitwidth, 8 | 16),
                    (true, true) => matches!(self.bitwidth, 16 | 32),
                    _ => false,
                };
                if !known || self.narrow_range || self.unsigned_symmetric {
                    return refuse(
                        "this formula has unsigned asymmetric grids of 8 and 16 bits and signed symmetric ones of 16 and 32",
                        "choose one of these, or another formula",
                    );
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The per-tensor grid for reals from `min` to `max`.
    ///
    /// # Errors
    /// `encoding_range` where an end is not finite or `min > max`, or where the scale leaves the range of floats;
    /// `formula_options` where the formula does not have the combination of options.
    pub fn encoding(&self, min: f64, max: f64) -> Result<Encoding> {
        let (scale, zero_point) = self.scale_and_zero_point(min, max)?;
        let encoding = Encoding {
            scale: vec![scale],
            zero_point: vec![zero_point],
            bitwidth: self.bitwidth,
            signed: self.signed,
            symmetric: self.symmetric,
            narrow_range: self.narrow_range,
            granularity: Granularity::PerTensor,
            lpbq: None,
        };
        encoding.validate()?;
        Ok(encoding)
    }

    /// Scale and zero point for reals from `min` to `max`; errors as [`FormulaOptions::encoding`].
    pub fn scale_and_zero_point(&self, min: f64, max: f64) -> Result<(f64, i64)> {
        self.validate()?;
        if !(min.is_finite() && max.is_finite()) {
            return Err(Error::invalid("encoding_range", format!("the range {min} to {max} is not finite"))
                .help("look for NaN or infinite values in the calibration data"));
        }
        if min > max {
            return Err(Error::invalid("encoding_range", format!("the minimum {min} lies above the maximum {max}")));
        }
        let (lo, hi) = (min.min(0.0), max.max(0.0));
        let (scale, zero_point) = match self.formula {
            Formula::AimetTorch => self.through_range(self.aimet(lo, hi, single, Rounding::HalfEven)),
            Formula::AimetOnnx => self.aimet(lo, hi, |x| x, Rounding::HalfAway),
            Formula::AimetCpp2024 => self.aimet_cpp_2024(lo, hi),
            Formula::CloserEnd => self.closer_end(lo, hi),
            Formula::NudgedRange => self.nudged_range(lo, hi),
        };
        if !(scale.is_finite() && scale > 0.0) {
            return Err(Error::invalid(
                "encoding_range",
                format!("the range {min} to {max} gives the scale {scale}, which is not a positive number"),
            ));
        }
        Ok((scale, zero_point))
    }

    fn qmin(&self) -> i64 {
        let lowest = if self.signed { -(1i64 << (self.bitwidth - 1)) } else { 0 };
        lowest + i64::from(self.narrow_range)
    }

    fn qmax(&self) -> i64 {
        if self.signed { (1i64 << (self.bitwidth - 1)) - 1 } else { (1i64 << self.bitwidth) - 1 }
    }

    /// Code of zero in a symmetric grid.
    fn middle(&self) -> i64 {
        if self.signed { 0 } else { 1i64 << (self.bitwidth - 1) }
    }

    /// Whether the grid has zero in its middle for a range that starts at `lo`.
    fn is_centred(&self, lo: f64) -> bool {
        self.symmetric && !(self.unsigned_symmetric && lo >= 0.0)
    }

    /// Zero point of an asymmetric grid: `lo` is the real number of the lowest code before nudging.
    fn zero_point_from_min(&self, lo_over_scale: f64, tie: Rounding) -> i64 {
        let steps = round_integral(lo_over_scale, tie) as i64;
        (self.qmin() - steps).clamp(self.qmin(), self.qmax())
    }

    /// `to` rounds every intermediate result to the precision of the source.
    fn aimet(&self, lo: f64, hi: f64, to: fn(f64) -> f64, tie: Rounding) -> (f64, i64) {
        let n = self.steps();
        let (below, above) = ((n / 2.0).ceil(), (n / 2.0).floor());
        let narrowest = to(f64::from(f32::EPSILON).min(0.01 / n));
        let (mut lo, mut hi) = (to(lo), to(hi));
        let centred = self.is_centred(lo);
        if to(to(hi - lo) / n) < narrowest {
            if centred {
                hi = to(hi + to(above * narrowest));
                lo = to(lo - to(below * narrowest));
            } else {
                hi = to(hi + to(n * narrowest));
            }
        }
        if centred {
            let positive = if n == 3.0 { below } else { above };
            return (to(hi / positive).max(to(-lo / below)), self.middle());
        }
        let scale = to(to(hi - lo) / n);
        (scale, self.zero_point_from_min(to(lo / scale), tie))
    }

    /// The producer keeps the ends of the grid in f32 and derives the scale from them again.
    fn through_range(&self, (scale, zero_point): (f64, i64)) -> (f64, i64) {
        let end = |code: i64| single(scale * (code - zero_point) as f64);
        let width = single(end(self.qmax()) - end(self.qmin()));
        (single(width / self.steps()), zero_point)
    }

    fn aimet_cpp_2024(&self, lo: f64, hi: f64) -> (f64, i64) {
        let n = self.steps();
        let hi = hi.max(lo + 0.01);
        if self.is_centred(lo) {
            return (hi.max(-lo) / (n / 2.0).floor(), self.middle());
        }
        let scale = (hi - lo) / n;
        (scale, self.zero_point_from_min(lo / scale, Rounding::HalfAway))
    }

    fn closer_end(&self, lo: f64, hi: f64) -> (f64, i64) {
        let zero_width = lo == hi;
        if self.symmetric {
            let largest_code = ((1i64 << (self.bitwidth - 1)) - 1) as f64;
            return (if zero_width { 1.0 } else { hi.max(-lo) / largest_code }, 0);
        }
        let (qmin, qmax) = (self.qmin() as f64, self.qmax() as f64);
        if zero_width {
            return (1.0, self.qmin());
        }
        let scale = (hi - lo) / (qmax - qmin);
        let (from_min, from_max) = (qmin - lo / scale, qmax - hi / scale);
        let min_error = qmin.abs() + (lo / scale).abs();
        let max_error = qmax.abs() + (hi / scale).abs();
        let exact = if min_error < max_error { from_min } else { from_max };
        (scale, round_integral(exact.clamp(qmin, qmax), Rounding::HalfAway) as i64)
    }

    fn nudged_range(&self, lo: f64, hi: f64) -> (f64, i64) {
        let (mut lo, hi) = (lo as f32, hi as f32);
        if self.symmetric {
            let half = (1i64 << (self.bitwidth - 1)) as f32;
            return (f64::from(hi.max(-lo).max(1e-4) / half), 0);
        }
        let (n, tolerance) = if self.bitwidth == 8 { (255f32, 1.0 / 16384.0) } else { (65536f32, 1.0 / 64.0) };
        let mut range = (hi - lo).max(1e-4);
        let exact = -lo * (n / range);
        let whole = exact.floor();
        let fraction = exact - whole;
        if fraction > tolerance && fraction < 1.0 - tolerance {
            if whole > 0.0 && (whole > n - 2.0 || (fraction - 1.0) * lo >= fraction * hi) {
                range = -n * lo / whole;
            } else {
                lo = hi * (whole + 1.0) / (whole + 1.0 - n);
                range = hi - lo;
            }
        }
        let scale = if self.bitwidth == 8 { divide_by_255(range) } else { range / n };
        let zero = round_integral(f64::from(-lo * (n / range)), Rounding::HalfAway) as i64;
        (f64::from(scale), zero.clamp(0, self.qmax()))
    }
}

/// `x / 255` without a division: the reciprocal in two parts, the larger product unrounded in a fused multiply-add.
fn divide_by_255(x: f32) -> f32 {
    const LARGE: f32 = 0x80_8081 as f32 / (1u64 << 31) as f32;
    const SMALL: f32 = -(0xFE_FEFF as f32) / (1u64 << 56) as f32;
    libm::fmaf(x, LARGE, SMALL * x)
}

/// Rounds to f32: the sum, difference, product and quotient of two f32 computed in f64 and then rounded to f32 equal
/// the f32 operation (f64 has more than twice its digits).
fn single(x: f64) -> f64 {
    f64::from(x as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Formula; 5] =
        [Formula::AimetTorch, Formula::AimetOnnx, Formula::AimetCpp2024, Formula::CloserEnd, Formula::NudgedRange];

    fn get(options: FormulaOptions, min: f64, max: f64) -> (f64, i64) {
        options.scale_and_zero_point(min, max).unwrap()
    }

    #[test]
    fn a_recorded_activation_is_reproduced() {
        // The first activation of a real export: min and max of the file lie on the grid.
        let options = FormulaOptions::activation(Formula::AimetTorch, 8);
        assert_eq!(get(options, -4.464321613311768, 4.095092296600342), (0.03356632962822914, 133));
    }

    #[test]
    fn a_recorded_weight_shows_that_the_ends_are_kept() {
        // Channel 7 of a depthwise weight of a real export; the direct quotient is 0.045082587748765945.
        let options = FormulaOptions::weight(Formula::AimetTorch, 4);
        assert_eq!(get(options, -0.1803303360939026, 0.3155781030654907), (0.04508258402347565, 0));
    }

    #[test]
    fn ends_must_be_finite_and_ordered() {
        for formula in ALL {
            let options = FormulaOptions::activation(formula, 8);
            for (min, max) in
                [(f64::NAN, 1.0), (0.0, f64::NAN), (f64::NEG_INFINITY, 1.0), (0.0, f64::INFINITY), (1.0, 0.5)]
            {
                assert_eq!(options.encoding(min, max).unwrap_err().code(), "encoding_range");
            }
        }
        let f32_overflow = FormulaOptions::activation(Formula::AimetTorch, 8).encoding(-3e38, 3e38);
        assert_eq!(f32_overflow.unwrap_err().code(), "encoding_range");
    }

    #[test]
    fn zero_is_a_grid_point_of_every_formula() {
        for formula in ALL {
            for (min, max) in
                [(-1.0, 2.0), (0.5, 3.0), (-3.0, -0.5), (0.0, 0.0), (-1e-9, 1e-9), (-0.01, 100.0), (-100.0, 0.01)]
            {
                let encoding = FormulaOptions::activation(formula, 8).encoding(min, max).unwrap();
                assert!((0..=255).contains(&encoding.zero_point[0]));
                assert!(encoding.scale[0] > 0.0);
            }
        }
    }

    #[test]
    fn the_tie_of_the_zero_point_follows_the_source() {
        // 255 steps of 1: lo / scale is -2.5 exactly.
        assert_eq!(get(FormulaOptions::activation(Formula::AimetTorch, 8), -2.5, 252.5), (1.0, 2));
        assert_eq!(get(FormulaOptions::activation(Formula::AimetOnnx, 8), -2.5, 252.5), (1.0, 3));
        assert_eq!(get(FormulaOptions::activation(Formula::AimetCpp2024, 8), -2.5, 252.5), (1.0, 3));
        assert_eq!(get(FormulaOptions::activation(Formula::CloserEnd, 8), -2.5, 252.5), (1.0, 3));
        let signed = FormulaOptions { signed: true, ..FormulaOptions::activation(Formula::AimetTorch, 8) };
        assert_eq!(get(signed, -2.5, 252.5), (1.0, -126));
        assert_eq!(get(signed, -3.5, 251.5), (1.0, -124));
        let signed = FormulaOptions { formula: Formula::CloserEnd, ..signed };
        assert_eq!(get(signed, -2.5, 252.5), (1.0, -126));
    }

    #[test]
    fn symmetric_scales_divide_each_side_by_its_codes() {
        let torch = FormulaOptions::weight(Formula::AimetTorch, 8);
        assert_eq!(get(torch, -128.0, 1.0), (1.0, 0));
        assert_eq!(get(torch, -1.0, 127.0), (1.0, 0));
        assert_eq!(get(FormulaOptions { formula: Formula::AimetCpp2024, ..torch }, -127.0, 1.0), (1.0, 0));
        assert_eq!(get(FormulaOptions { formula: Formula::CloserEnd, ..torch }, -127.0, 1.0), (1.0, 0));
        let unsigned_codes = FormulaOptions { signed: false, ..torch };
        assert_eq!(get(unsigned_codes, -128.0, 1.0), (1.0, 128));
    }

    #[test]
    fn two_bits_waste_no_code() {
        let options = FormulaOptions::weight(Formula::AimetTorch, 2);
        assert_eq!(get(options, -2.0, 1.0).0, 1.0);
        assert_eq!(get(options, -1.0, 2.0).0, 1.0);
        assert_eq!(get(FormulaOptions { formula: Formula::AimetCpp2024, ..options }, -1.0, 2.0).0, 2.0);
    }

    #[test]
    fn a_narrow_range_has_one_code_less() {
        let options = FormulaOptions { narrow_range: true, ..FormulaOptions::weight(Formula::AimetOnnx, 8) };
        let encoding = options.encoding(-127.0, 5.0).unwrap();
        assert_eq!((encoding.scale[0], encoding.zero_point[0], encoding.qmin(), encoding.qmax()), (1.0, 0, -127, 127));
        assert!(FormulaOptions { formula: Formula::AimetTorch, ..options }.encoding(-1.0, 1.0).is_err());
        assert!(FormulaOptions { symmetric: false, ..options }.encoding(-1.0, 1.0).is_err());
    }

    #[test]
    fn unsigned_symmetric_uses_all_codes_of_a_positive_range() {
        let options =
            FormulaOptions { unsigned_symmetric: true, signed: false, ..FormulaOptions::weight(Formula::AimetOnnx, 8) };
        assert_eq!(get(options, 0.0, 255.0), (1.0, 0));
        assert_eq!(get(options, -128.0, 127.0), (1.0, 128));
    }

    #[test]
    fn ranges_of_no_width_grow() {
        let eps = f64::from(f32::EPSILON);
        assert_eq!(get(FormulaOptions::activation(Formula::AimetTorch, 8), 0.0, 0.0), (eps, 0));
        assert_eq!(get(FormulaOptions::weight(Formula::AimetTorch, 8), 0.0, 0.0), (eps, 0));
        let (scale, _) = get(FormulaOptions::weight(Formula::AimetOnnx, 32), 0.0, 0.0);
        assert!((scale / (0.01 / 4294967295.0) - 1.0).abs() < 1e-12);
        assert_eq!(get(FormulaOptions::activation(Formula::AimetCpp2024, 8), 0.0, 0.0), (0.01 / 255.0, 0));
        assert_eq!(get(FormulaOptions::activation(Formula::CloserEnd, 8), 0.0, 0.0), (1.0, 0));
    }

    #[test]
    fn nudged_ranges_put_zero_on_an_integer_and_legal_ranges_stay() {
        let options = FormulaOptions::activation(Formula::NudgedRange, 8);
        assert_eq!(get(options, -128.0, 127.0), (1.0, 128));
        // z = 0.5: the lower end moves out until z is 1.
        let (scale, zero) = get(options, -0.5, 254.5);
        assert_eq!(zero, 1);
        assert_eq!(scale, f64::from((254.5f32 + 254.5 / 254.0) / 255.0));
        // z = 254.5: the upper end moves out until z is 254.
        let (scale, zero) = get(options, -254.5, 0.5);
        assert_eq!(zero, 254);
        assert!((scale - 254.5 / 254.0).abs() < 1e-6);
        // z = 2.5: moving the lower end costs less relative to the range above.
        let (scale, zero) = get(options, -2.5, 252.5);
        assert_eq!(zero, 3);
        assert!((scale - 252.5 / 252.0).abs() < 1e-6);
        assert_eq!(get(FormulaOptions::activation(Formula::NudgedRange, 16), 0.0, 65536.0), (1.0, 0));
        assert_eq!(get(FormulaOptions::weight(Formula::NudgedRange, 16), -32768.0, 1.0), (1.0, 0));
        assert!(FormulaOptions::weight(Formula::NudgedRange, 8).encoding(-1.0, 1.0).is_err());
    }
}
