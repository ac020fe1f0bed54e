//! Reals to codes.

use super::code::Code;
use super::isa::{Engine, multiversion};

/// Elements per task.
const CHUNK: usize = 1 << 14;

/// How a float32 becomes an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearest {
    /// Ties to even.
    Even,
    /// Ties away from zero.
    Away,
}

/// `sat(nearest(x ∘ scale) + zero_point)`; `∘` is `·` or `/` in f32.
#[derive(Debug, Clone, Copy)]
pub struct FloatQuantize {
    divide: bool,
    scale: f32,
    nearest: Nearest,
    lo: f32,
    hi: f32,
    zero_point: i32,
}

impl FloatQuantize {
    /// Codes are saturated to `qmin..=qmax`. `None` where the vector form would not be exact: a scale that is zero or not
    /// finite, or bounds without the zero point beyond `±2^22`.
    pub fn new(
        divide: bool,
        scale: f32,
        nearest: Nearest,
        zero_point: i64,
        qmin: i64,
        qmax: i64,
    ) -> Option<FloatQuantize> {
        let bound = |q: i64| q.checked_sub(zero_point).filter(|v| v.unsigned_abs() <= 1 << 22);
        let (lo, hi) = (bound(qmin)? as f32, bound(qmax)? as f32);
        let fits = scale.is_finite() && scale != 0.0 && qmin <= qmax;
        let zero_point = i32::try_from(zero_point).ok()?;
        fits.then_some(FloatQuantize { divide, scale, nearest, lo, hi, zero_point })
    }
}

/// The codes of `x`, which holds no NaN. Panics where lengths disagree.
pub fn quantize<O: Code>(engine: Engine<'_>, form: &FloatQuantize, x: &[f32], out: &mut [O]) {
    assert_eq!(x.len(), out.len(), "input and output");
    engine.for_each_chunk(out, CHUNK, |i, out| {
        let x = &x[i * CHUNK..][..out.len()];
        match (form.divide, form.nearest) {
            (false, Nearest::Even) => by_product_to_even(engine.simd(), form, x, out),
            (true, Nearest::Even) => by_quotient_to_even(engine.simd(), form, x, out),
            (false, Nearest::Away) => by_product_away(engine.simd(), form, x, out),
            (true, Nearest::Away) => by_quotient_away(engine.simd(), form, x, out),
        }
    });
}

/// The code of a scaled real. Rounding moves no value past an integer, so the bounds may be applied before it.
#[inline(always)]
fn code<O: Code>(form: &FloatQuantize, scaled: f32, away: bool) -> O {
    let bounded = scaled.max(form.lo).min(form.hi);
    let even = bounded.round_ties_even();
    let tie = away && bounded - even == 0.5f32.copysign(bounded);
    let nearest = if tie { even + 1f32.copysign(bounded) } else { even };
    // SAFETY: the value lies between the bounds, which are within ±2^22; `max` leaves no NaN.
    let integer: i32 = unsafe { nearest.to_int_unchecked() };
    O::wrap32(integer.wrapping_add(form.zero_point))
}

multiversion! {
    fn by_product_to_even<O: Code>(simd: Simd, form: &FloatQuantize, x: &[f32], out: &mut [O]) {
        out.iter_mut().zip(x).for_each(|(o, x)| *o = code(form, x * form.scale, false));
    }
}

multiversion! {
    fn by_quotient_to_even<O: Code>(simd: Simd, form: &FloatQuantize, x: &[f32], out: &mut [O]) {
        out.iter_mut().zip(x).for_each(|(o, x)| *o = code(form, x / form.scale, false));
    }
}

multiversion! {
    fn by_product_away<O: Code>(simd: Simd, form: &FloatQuantize, x: &[f32], out: &mut [O]) {
        out.iter_mut().zip(x).for_each(|(o, x)| *o = code(form, x * form.scale, true));
    }
}

multiversion! {
    fn by_quotient_away<O: Code>(simd: Simd, form: &FloatQuantize, x: &[f32], out: &mut [O]) {
        out.iter_mut().zip(x).for_each(|(o, x)| *o = code(form, x / form.scale, true));
    }
}

/// Whether there is a NaN. The loop has no early end, so that it has vectors.
pub fn any_nan(engine: Engine<'_>, x: &[f32]) -> bool {
    engine
        .map(x.len().div_ceil(CHUNK), |i| {
            let mut found = false;
            scan(engine.simd(), &x[i * CHUNK..x.len().min((i + 1) * CHUNK)], &mut found);
            found
        })
        .contains(&true)
}

multiversion! {
    fn scan(simd: Simd, x: &[f32], found: &mut bool) {
        *found = x.iter().fold(false, |any, v| any | v.is_nan());
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::testing::on_every_engine;
    use super::*;

    #[test]
    fn codes_equal_their_twin_on_ties_and_extremes() {
        let mut x =
            vec![f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45, -0.0, 0.499_999_97, -0.499_999_97];
        for i in -2100..2100 {
            let v = i as f32 * 0.125;
            x.extend([v, v.next_up(), v.next_down(), v * 100.0]);
        }
        for (divide, scale) in [(false, 1.0), (false, 2.0), (true, 0.5), (true, 0.1), (false, 0.031_37), (true, -3.0)] {
            for nearest in [Nearest::Even, Nearest::Away] {
                for (zero_point, qmin, qmax) in [(0, -128, 127), (-3, -128, 127), (200, -128, 100), (-7, -20, 60)] {
                    let form = FloatQuantize::new(divide, scale, nearest, zero_point, qmin, qmax).unwrap();
                    let twin = |&v: &f32| {
                        let scaled = if divide { v / scale } else { v * scale };
                        reference::quantize(scaled, nearest, zero_point, qmin, qmax) as i8
                    };
                    let expected: Vec<i8> = x.iter().map(twin).collect();
                    on_every_engine(|engine| {
                        let mut out = vec![0i8; x.len()];
                        quantize(engine, &form, &x, &mut out);
                        assert!(out == expected, "{divide} {scale} {nearest:?} {zero_point} {:?}", engine.simd());
                    });
                }
            }
        }
        assert!(FloatQuantize::new(true, 0.0, Nearest::Even, 0, 0, 255).is_none());
        assert!(FloatQuantize::new(true, 1.0, Nearest::Even, 0, 0, 1 << 23).is_none());
    }

    #[test]
    fn one_nan_anywhere_is_found() {
        let mut x = vec![1.0f32; 40_000];
        on_every_engine(|engine| assert!(!any_nan(engine, &x)));
        for at in [0, 16_383, 16_384, 39_999] {
            x[at] = f32::NAN;
            on_every_engine(|engine| assert!(any_nan(engine, &x)));
            x[at] = f32::INFINITY;
        }
    }
}
