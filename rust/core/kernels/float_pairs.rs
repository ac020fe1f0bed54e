//! Functions of two codes of one byte that a float sum gives as well.
//!
//! Fixed-point sums round the weighted codes to some twenty bits, add them, and round the result to a code. A sum in float32 rounds
//! elsewhere, so it differs where a result is very close to a tie; but there are 65 536 pairs at most, which can all be looked at. For
//! given factors, the constants that are right in exact arithmetic are an interval; the middle of it is taken, and what the kernel
//! then computes is compared with what the function gave, pair by pair.

use super::code::Code8;
use super::isa::{Engine, Simd, multiversion};
use super::pairs::{FloatSum, float_sum};

/// An interval so empty that factors next to these will not do either.
const HOPELESS: f64 = -1.0 / 1024.0;

/// What a function gives for all pairs of some codes.
#[derive(Debug, Clone, Copy)]
pub struct PairResults<'a, A, B, O> {
    /// The codes of the first operand.
    pub first: &'a [A],
    /// The codes of the second operand.
    pub second: &'a [B],
    /// The results of the first code with all second ones, then those of the next.
    pub results: &'a [O],
}

multiversion! {
    /// Narrows `interval` to the constants `c` with `least ≤ first·a + second·b + c ≤ most` for the pairs of one code `a`.
    fn narrow(
        simd: Simd,
        added: f64,
        factor: f64,
        codes: &[f64],
        bounds: [&[f64]; 2],
        interval: &mut [f64; 2],
    ) {
        let larger = |a: f64, b: f64| if b > a { b } else { a };
        let smaller = |a: f64, b: f64| if b < a { b } else { a };
        let [least, most] = bounds;
        let (codes, most) = (&codes[..least.len()], &most[..least.len()]);
        let (mut lo, mut hi) = ([interval[0]; 8], [interval[1]; 8]);
        let ((codes, rest), (least, least_rest), (most, most_rest)) =
            (codes.as_chunks::<8>(), least.as_chunks::<8>(), most.as_chunks::<8>());
        for ((codes, least), most) in codes.iter().zip(least).zip(most) {
            for i in 0..8 {
                let sum = added + factor * codes[i];
                lo[i] = larger(lo[i], least[i] - sum);
                hi[i] = smaller(hi[i], most[i] - sum);
            }
        }
        for ((code, least), most) in rest.iter().zip(least_rest).zip(most_rest) {
            let sum = added + factor * code;
            lo[0] = larger(lo[0], least - sum);
            hi[0] = smaller(hi[0], most - sum);
        }
        *interval = [lo.into_iter().fold(interval[0], larger), hi.into_iter().fold(interval[1], smaller)];
    }
}

impl<A: Code8, B: Code8, O: Code8> PairResults<'_, A, B, O> {
    /// A float sum with these results, and the operand that is multiplied last in it. `factors` are about those of the sum.
    /// Panics where lengths disagree.
    pub fn float_sum(&self, simd: Simd, factors: [f64; 2]) -> Option<(usize, FloatSum)> {
        assert!(!self.second.is_empty() && self.results.len() == self.first.len() * self.second.len(), "all pairs");
        let codes = self.results.iter().map(|&v| v.to_i32());
        let (qmin, qmax) = (codes.clone().min()?, codes.clone().max()?);
        // Sums around zero have the finest floats.
        let zero_point = (qmin + qmax + 1) / 2;
        let value = |code: i32| f64::from(code - zero_point);
        let least: Vec<f64> =
            codes.clone().map(|v| if v > qmin { value(v) - 0.5 } else { f64::NEG_INFINITY }).collect();
        let most: Vec<f64> = codes.map(|v| if v < qmax { value(v) + 0.5 } else { f64::INFINITY }).collect();
        let second: Vec<f64> = self.second.iter().map(|&b| b.to_i32().into()).collect();
        let near = |factor: f64| {
            let nearest = factor as f32;
            [nearest, nearest.next_up(), nearest.next_down()]
        };
        for (outer, inner) in [(0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (1, 1), (2, 2), (1, 2), (2, 1)] {
            let factors = [near(factors[0])[outer], near(factors[1])[inner]];
            let [first_factor, second_factor] = factors.map(f64::from);
            let mut interval = [f64::NEG_INFINITY, f64::INFINITY];
            let rows = least.chunks_exact(second.len()).zip(most.chunks_exact(second.len()));
            for (&a, (least, most)) in self.first.iter().zip(rows) {
                narrow(
                    simd,
                    first_factor * f64::from(a.to_i32()),
                    second_factor,
                    &second,
                    [least, most],
                    &mut interval,
                );
            }
            let [lo, hi] = interval;
            if hi - lo < HOPELESS {
                return None;
            }
            let constant = (lo + hi) / 2.0;
            if !constant.is_finite() || hi < lo {
                continue;
            }
            for last in [0, 1] {
                let sum = FloatSum::new([factors[last], factors[1 - last]], constant as f32, zero_point, qmin, qmax)?;
                if self.are_of(simd, last, &sum) {
                    return Some((last, sum));
                }
            }
        }
        None
    }

    /// Whether a sum gives these results.
    fn are_of(&self, simd: Simd, last: usize, sum: &FloatSum) -> bool {
        let engine = Engine::single().with(simd);
        let mut repeated = vec![A::default(); self.second.len()];
        let mut out = vec![O::default(); self.second.len()];
        self.first.iter().zip(self.results.chunks_exact(self.second.len())).all(|(&a, results)| {
            repeated.fill(a);
            match last {
                0 => float_sum(engine, sum, &repeated, self.second, &mut out),
                _ => float_sum(engine, sum, self.second, &repeated, &mut out),
            }
            out == results
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::super::testing::Random;
    use super::*;

    /// What TFLite's quantized Add gives: operands shifted to the left by 20 bits, scaled and summed, and the sum scaled.
    fn fixed_point(factors: [f64; 2], zeros: [i32; 3]) -> Vec<i8> {
        let codes = || i32::from(i8::MIN)..=i32::from(i8::MAX);
        let largest = 2.0 * factors[0].max(factors[1]);
        let operand = |code: i32, i: usize| (f64::from(code - zeros[i]) * 1048576.0 * factors[i] / largest).round();
        let result = |a: i32, b: i32| {
            let scaled = (operand(a, 0) + operand(b, 1)) * largest / 1048576.0;
            (scaled.round() as i32 + zeros[2]).clamp(-128, 127) as i8
        };
        codes().flat_map(|a| codes().map(move |b| (a, b))).map(|(a, b)| result(a, b)).collect()
    }

    #[test]
    fn what_is_found_gives_all_results_on_every_set() {
        let codes: Vec<i8> = (i8::MIN..=i8::MAX).collect();
        let mut random = Random::new(3);
        let mut found = 0;
        for case in 0..40 {
            let factors = [random.next(), random.next()].map(|v| 0.3 + v as f64 / f64::powi(2.0, 48));
            let zeros = [random.next(), random.next(), random.next()].map(|v| (v % 256) as i32 - 128);
            let results = fixed_point(factors, if case % 3 == 0 { [0; 3] } else { zeros });
            let pairs = PairResults { first: &codes, second: &codes, results: &results };
            let sums = Isa::available().into_iter().map(|isa| pairs.float_sum(Simd::new(isa).unwrap(), factors));
            let sums: Vec<_> = sums.collect();
            assert!(sums.iter().all(|s| format!("{s:?}") == format!("{:?}", sums[0])), "the set does not show");
            let Some((last, sum)) = sums[0] else { continue };
            found += 1;
            for isa in Isa::available() {
                assert!(pairs.are_of(Simd::new(isa).unwrap(), last, &sum));
            }
        }
        assert!(found > 20, "{found}");
    }

    #[test]
    fn what_is_no_sum_is_refused() {
        let codes: Vec<u8> = (0..=255).collect();
        let simd = Simd::best();
        let of = |f: &dyn Fn(i32, i32) -> i32, factors| {
            let results: Vec<u8> = (0..65_536).map(|i| f(i >> 8, i & 255).clamp(0, 255) as u8).collect();
            PairResults { first: &codes, second: &codes, results: &results }.float_sum(simd, factors).is_some()
        };
        assert!(of(&|a, b| a + b, [1.0, 1.0]));
        assert!(of(&|a, b| (a - b + 255) / 2, [0.5, -0.5]));
        assert!(!of(&|a, b| a * b / 255, [0.5, 0.5]));
        assert!(!of(&|a, b| (a + b) / 2 + i32::from(a == 17 && b == 200), [0.5, 0.5]), "one pair differs");
        assert!(!of(&|a, b| a + b, [f64::NAN, 1.0]));
        assert!(!of(&|a, b| a + b, [f64::INFINITY, 1.0]));
        assert!(!of(&|_, _| 7, [0.0, 0.0]), "any constant would do");
    }
}
