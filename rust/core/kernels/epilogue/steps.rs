//! Fixed-point requantization as a float one that gives the same codes.
//!
//! With a multiplier `M`, an exponent `E` and a constant `C` for the rounding, the value of an accumulator is the staircase
//!
//! ```text
//! f(acc) = floor(acc·S + c)        S = M / 2^E,  c = C / 2^E
//! ```
//!
//! where `c` may differ between accumulators of either sign. Two roundings are one staircase as well, because
//! `floor((floor(a) + b) / n) = floor((a + b) / n)` for integers `b` and `n`. A staircase of bytes has at most 255 steps: it
//! is known by where it reaches each of their values `k`, at the accumulator `n(k) = ceil((k - c) / S)`. What is computed here is
//!
//! ```text
//! g(acc) = floor(down(acc·high + near(acc·low + o)))        high + low = S
//! ```
//!
//! with two fused multiply-adds, which round down and to nearest. An integer below a number is also below the number rounded down to a
//! float, so the outer rounding does no harm: all that `g` errs by is the inner rounding and that of `o`. Both are of numbers
//! below one in magnitude, at most 2^-25 each, and `g` reaches every `k` where `f` does if
//!
//! ```text
//! n(k)·S + o - k ≥ 2^-24        (n(k) - 1)·S + o - k < -2^-24        for every k
//! ```
//!
//! `n(k)·S + c - k` is `ρ(k) / 2^E` with `ρ(k) = (C - k·2^E) mod M`, so that the least and the greatest `ρ` say how far `o` may be
//! from `c`; the middle between the two bounds is taken. Both functions rise with the accumulator as long as values are near those
//! of a byte, where accumulators are floats without rounding if `S ≥ 2^-14`; beyond, both saturate. Nothing else need be looked at.

use super::super::isa::{Simd, multiversion};
use std::ops::RangeInclusive;

/// `f` of one channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Staircase {
    pub multiplier: i32,
    /// The constants of accumulators that are not negative, and of those that are.
    pub constants: [i64; 2],
    pub exponent: u32,
}

impl Staircase {
    /// `2^E`
    fn one(&self) -> i64 {
        1 << self.exponent
    }

    /// `S`
    fn scale(&self) -> f64 {
        f64::from(self.multiplier) / self.one() as f64
    }
}

/// The parameters of `g` for each channel.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    pub high: Vec<f32>,
    pub low: Vec<f32>,
    /// For accumulators that are not negative, and for those that are.
    pub offset: [Vec<f32>; 2],
    /// Whether the two differ.
    pub split: bool,
}

/// Channels whose steps are gone through together.
const LANES: usize = 16;

/// Greatest exponent: constants and `k·2^E` fit 64 bits.
const MOST_EXPONENT: u32 = 50;

/// Least `S`.
const LEAST_SCALE: f64 = 1.0 / (1 << 14) as f64;

/// Room for `o` between its bounds: more than twice what the two roundings err by.
const ROOM: f64 = 1.0 / (1 << 22) as f64;

/// `ρ` of some channels: at the first `k`, modulo what, how it falls from one `k` to the next, and its ends so far.
struct Remainders {
    first: [u32; LANES],
    modulus: [u32; LANES],
    fall: [u32; LANES],
    ends: [[u32; LANES]; 2],
}

multiversion! {
    /// Goes through the remainders of `count` steps.
    fn walk(simd: Simd, remainders: &mut Remainders, count: usize) {
        let Remainders { first, modulus, fall, ends: [least, most] } = remainders;
        let mut at = *first;
        for _ in 0..count {
            for i in 0..LANES {
                least[i] = least[i].min(at[i]);
                most[i] = most[i].max(at[i]);
                // One of the two has wrapped around, and is the larger one.
                let next = at[i].wrapping_sub(fall[i]);
                at[i] = next.min(next.wrapping_add(modulus[i]));
            }
        }
    }
}

impl Steps {
    /// The form of these channels whose values count from `bounds.start()` to `bounds.end()`, which are at most 255 apart. `None`
    /// where a channel has none, or its accumulators, at most `reach` in magnitude, leave 32 bits as values.
    pub(super) fn find(simd: Simd, channels: &[Staircase], bounds: RangeInclusive<i32>, reach: u32) -> Option<Steps> {
        let (lo, hi) = (i64::from(*bounds.start()), i64::from(*bounds.end()));
        if !(lo..=lo + 255).contains(&hi) || lo.abs().max(hi.abs()) > 1 << 9 {
            return None;
        }
        let fits = |c: &Staircase| {
            c.multiplier > 0
                && c.exponent <= MOST_EXPONENT
                && c.constants.iter().all(|constant| (0..c.one()).contains(constant))
                && c.scale() >= LEAST_SCALE
                && f64::from(reach) * c.scale() < f64::from(1 << 30)
        };
        if !channels.iter().all(fits) {
            return None;
        }
        let count = channels.len();
        let split = channels.iter().any(|c| c.constants[0] != c.constants[1]);
        let none = || Vec::with_capacity(count);
        let mut out = Steps { high: none(), low: none(), offset: [none(), none()], split };
        // The values that each sign reaches: those above zero, and the others.
        let sides = [lo.max(0) + 1..=hi, lo + 1..=hi.min(0)];
        for group in channels.chunks(LANES) {
            let mut ends = [[[u32::MAX; LANES], [0; LANES]]; 2];
            for (side, values) in sides.iter().enumerate() {
                let mut remainders = Remainders {
                    first: [0; LANES],
                    modulus: [1; LANES],
                    fall: [0; LANES],
                    ends: [[u32::MAX; LANES], [0; LANES]],
                };
                for (i, c) in group.iter().enumerate() {
                    let modulus = i64::from(c.multiplier);
                    let below = (c.constants[side] - values.start() * c.one()).rem_euclid(modulus);
                    remainders.first[i] = below as u32;
                    remainders.modulus[i] = c.multiplier as u32;
                    remainders.fall[i] = (c.one() % modulus) as u32;
                }
                walk(simd, &mut remainders, (values.end() + 1 - values.start()).max(0) as usize);
                ends[side] = remainders.ends;
            }
            for (i, c) in group.iter().enumerate() {
                let side = |s: usize| [ends[s][0][i], ends[s][1][i]];
                let [above, below] = match c.constants[0] == c.constants[1] {
                    true => [[side(0)[0].min(side(1)[0]), side(0)[1].max(side(1)[1])]; 2],
                    false => [side(0), side(1)],
                };
                let high = c.scale() as f32;
                out.high.push(high);
                out.low.push((c.scale() - f64::from(high)) as f32);
                out.offset[0].push(offset(c, c.constants[0], above)?);
                out.offset[1].push(offset(c, c.constants[1], below)?);
            }
        }
        Some(out)
    }
}

/// `o` for remainders between two ends; the first is greater where there are none.
fn offset(c: &Staircase, constant: i64, [least, most]: [u32; 2]) -> Option<f32> {
    let (down, up) = (i64::from(least), i64::from(c.multiplier) - i64::from(most));
    let one = c.one() as f64;
    if least > most {
        return Some((constant as f64 / one) as f32);
    }
    let room = (down + up) as f64 / one;
    let middle = (constant as f64 + (up - down) as f64 / 2.0) / one;
    // The inner sum stays below one: what it adds to `o` is less than 2^-14 where the value is a byte.
    (room >= ROOM && (0.0..=0.99).contains(&middle)).then_some(middle as f32)
}

#[cfg(test)]
mod tests {
    use super::super::super::isa::{Isa, Simd};
    use super::super::super::testing::Random;
    use super::*;

    fn value(c: &Staircase, acc: i64) -> i64 {
        let constant = c.constants[usize::from(acc < 0)];
        ((i128::from(acc) * i128::from(c.multiplier) + i128::from(constant)) >> c.exponent) as i64
    }

    /// `g`, its outer sum exactly: a sum rounded down has the same integer below it.
    fn stepped(steps: &Steps, channel: usize, acc: i64) -> i64 {
        let fixed = |v: f32| (f64::from(v) * f64::powi(2.0, 80)) as i128;
        let x = acc as i32 as f32;
        let inner = x.mul_add(steps.low[channel], steps.offset[usize::from(acc < 0)][channel]);
        ((x as i128 * fixed(steps.high[channel]) + fixed(inner)) >> 80) as i64
    }

    /// Compares around every step of every channel, and far away.
    fn check(channels: &[Staircase], bounds: RangeInclusive<i32>, reach: u32) -> bool {
        let found: Vec<Option<Steps>> = Isa::available()
            .into_iter()
            .map(|isa| Steps::find(Simd::new(isa).unwrap(), channels, bounds.clone(), reach))
            .collect();
        let bits = |s: &Steps| s.offset.each_ref().map(|o| o.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        assert!(found.windows(2).all(|pair| pair[0].as_ref().map(bits) == pair[1].as_ref().map(bits)));
        let Some(steps) = &found[0] else { return false };
        let (lo, hi) = (i64::from(*bounds.start()), i64::from(*bounds.end()));
        for (i, c) in channels.iter().enumerate() {
            let one = 1i128 << c.exponent;
            let near = (lo - 2..=hi + 2).flat_map(|k| {
                let at = (i128::from(k) * one / i128::from(c.multiplier)) as i64;
                at - 3..=at + 3
            });
            let reach = i64::from(reach);
            let far = (0..31).flat_map(|bit| [1i64 << bit, -(1i64 << bit)]).chain([reach, -reach, reach - 1]);
            for acc in near.chain(far).chain(-3..=3).filter(|acc| acc.abs() <= reach) {
                let expected = value(c, acc).clamp(lo, hi);
                assert_eq!(stepped(steps, i, acc).clamp(lo, hi), expected, "{c:?} {bounds:?} {acc}");
            }
        }
        true
    }

    /// Multipliers whose products tie and that hardly do, all shifts, one or two roundings.
    #[test]
    fn steps_are_those_of_the_staircase() {
        let mut random = Random::new(5);
        let mut found = 0;
        let tied = [1 << 30, 3 << 29, (1 << 30) + 1, i32::MAX, i32::MAX - 1, 5 << 28, 0x4000_0100];
        let multipliers: Vec<i32> = tied.into_iter().chain(random.ints(57, 1 << 30, i32::MAX)).collect();
        for right in 0..14 {
            for bounds in [-128..=127, 0..=255, -255..=0, -3..=252, -200..=55, 0..=6, 5..=90] {
                for twice in [false, true] {
                    let half = 1i64 << 30 << right;
                    let first = if twice && right > 0 { 1i64 << 30 } else { 0 };
                    let away = if twice && right > 0 { 1i64 << 31 } else { 0 };
                    let constants = [half + first, half + first - away];
                    let channels: Vec<Staircase> = multipliers
                        .iter()
                        .map(|&multiplier| Staircase { multiplier, constants, exponent: 31 + right })
                        .collect();
                    for channel in &channels {
                        found += usize::from(check(std::slice::from_ref(channel), bounds.clone(), 1 << 24));
                    }
                    check(&channels[..40], bounds.clone(), 1 << 20);
                }
            }
        }
        // All but the smallest scales, whose steps leave too little room.
        assert!(found > 11_000, "{found}");
    }

    #[test]
    fn small_multipliers_have_wide_steps() {
        for multiplier in 1..200 {
            for exponent in [3, 7, 11] {
                for constant in [0, (1 << exponent) / 2, (1 << exponent) / 2 - 1] {
                    let constants = [constant, constant - i64::from(constant > 1)];
                    check(&[Staircase { multiplier, constants, exponent }], -128..=127, 1 << 16);
                }
            }
        }
    }

    #[test]
    fn what_has_no_float_form_is_refused() {
        let simd = Simd::best();
        let good = Staircase { multiplier: 1 << 30, constants: [1 << 37; 2], exponent: 38 };
        let find = |c: Staircase, bounds, reach| Steps::find(simd, &[good, c], bounds, reach).is_some();
        assert!(find(good, -128..=127, 1 << 20));
        assert!(!find(Staircase { multiplier: 0, ..good }, -128..=127, 1 << 20));
        assert!(!find(Staircase { multiplier: -5, ..good }, -128..=127, 1 << 20));
        assert!(!find(Staircase { constants: [-1; 2], ..good }, -128..=127, 1 << 20));
        assert!(!find(Staircase { constants: [1 << 38; 2], ..good }, -128..=127, 1 << 20));
        assert!(!find(Staircase { multiplier: 1 << 20, ..good }, -128..=127, 1 << 20), "scale of 2^-18");
        assert!(!find(Staircase { exponent: 51, ..good }, -128..=127, 1 << 20));
        assert!(!find(Staircase { multiplier: i32::MAX, constants: [0; 2], exponent: 0 }, -128..=127, 1 << 20));
        assert!(!find(good, -128..=128, 1 << 20));
        assert!(!find(good, 600..=700, 1 << 20));
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 5..=4;
        assert!(!find(good, reversed, 1 << 20));
    }
}
