//! The grid of least squared error over a histogram (aimet-torch's SQNR and TF-Enhanced analyzers).

use super::{Histogram, Observer, empty};
use crate::encoding::{Formula, FormulaOptions};
use crate::error::Result;

/// Tries grids of several scales and offsets and takes the range of the one with the least expected squared error,
/// where values that the grid clips weigh `gamma` times. The first of equal candidates wins.
///
/// With `n` steps and the observed range (zero included): asymmetric scales are `k/16 · range/n` for k = 1..=17, offsets
/// are 20 numbers from `-n` to 0 in steps of `n/19`, rounded half to even, and that of the observed range; each
/// candidate is cut to the observed range. Symmetric scales are `k/100 · 2·max|x|/n` for k = 1..=101. The error of a bin
/// is that of its midpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct GridSearch {
    histogram: Histogram,
    gamma: f64,
}

/// A candidate: reals from `scale · offset` to `scale · (offset + n)`.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    scale: f64,
    offset: f64,
}

impl GridSearch {
    /// 2048 bins without growth limit, clipping weight 3.
    pub fn sqnr() -> Result<Self> {
        Self::new(2048, None, 3.0)
    }

    /// 512 bins, growth limit 3, clipping weight 3.
    pub fn tf_enhanced() -> Result<Self> {
        Self::new(512, Some(3.0), 3.0)
    }

    /// Any number of bins, growth limit and clipping weight; errors as [`Histogram::new`].
    pub fn new(num_bins: usize, growth_limit: Option<f64>, gamma: f64) -> Result<Self> {
        Ok(GridSearch { histogram: Histogram::new(num_bins, growth_limit)?, gamma })
    }

    fn candidates(&self, lo: f64, hi: f64, options: &FormulaOptions) -> Vec<Candidate> {
        let n = options.steps();
        let centred = options.symmetric && !(options.unsigned_symmetric && lo >= 0.0);
        if centred {
            let largest = 2.0 * hi.max(-lo) / n;
            let offset = -(n / 2.0).ceil();
            return (1..=101).map(|k| Candidate { scale: largest * f64::from(k) / 100.0, offset }).collect();
        }
        let largest = (hi - lo) / n;
        let observed = (lo / largest).round_ties_even();
        let (floor, ceiling) = (observed * largest, (observed + n) * largest);
        let mut offsets: Vec<f64> = (0..20).map(|i| (-n + n / 19.0 * f64::from(i)).round_ties_even()).collect();
        offsets.push(observed);
        let mut candidates = Vec::with_capacity(17 * offsets.len());
        for k in 1..=17 {
            let scale = largest * f64::from(k) / 16.0;
            for offset in &offsets {
                let min = (scale * offset).max(floor);
                let max = (scale * (offset + n)).min(ceiling);
                let scale = (max - min) / n;
                if scale > 0.0 {
                    candidates.push(Candidate { scale, offset: (min / scale).round_ties_even() });
                }
            }
        }
        candidates
    }

    fn cost(&self, candidate: Candidate, n: f64) -> f64 {
        let Candidate { scale, offset } = candidate;
        let Some((min, max)) = self.histogram.range() else { return 0.0 };
        let counts = self.histogram.counts();
        let width = (f64::from(max) - f64::from(min)) / counts.len() as f64;
        let mut cost = 0.0;
        for (i, &count) in counts.iter().enumerate().filter(|(_, c)| **c > 0.0) {
            let x = f64::from(min) + width * (i as f64 + 0.5);
            let code = (x / scale).round_ties_even() - offset;
            let kept = code.clamp(0.0, n);
            let error = x - (kept + offset) * scale;
            cost += if kept == code { 1.0 } else { self.gamma } * count * error * error;
        }
        cost
    }
}

impl Observer for GridSearch {
    fn observe(&mut self, batch: &[f32]) -> Result<()> {
        self.histogram.observe(batch)
    }

    fn range(&self, options: &FormulaOptions) -> Result<(f64, f64)> {
        options.validate()?;
        let (min, max) = self.histogram.range().ok_or_else(empty)?;
        let (lo, hi) = (f64::from(min).min(0.0), f64::from(max).max(0.0));
        let n = options.steps();
        let mut best: Option<(f64, Candidate)> = None;
        for candidate in self.candidates(lo, hi, options) {
            let cost = self.cost(candidate, n);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, candidate));
            }
        }
        let Some((_, Candidate { scale, offset })) = best else { return Ok((lo, hi)) };
        let centred = options.symmetric && !(options.unsigned_symmetric && lo >= 0.0);
        // These symmetric formulas divide both sides by the number of positive codes.
        if centred && matches!(options.formula, Formula::AimetCpp2024 | Formula::CloserEnd) {
            let reach = scale * (n / 2.0).floor();
            return Ok((-reach, reach));
        }
        Ok((scale * offset, scale * (offset + n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic, roughly normal values.
    fn normal(count: usize) -> Vec<f32> {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
    }

    fn squared_error(data: &[f32], scale: f64, zero_point: i64, lo: f64, hi: f64) -> f64 {
        data.iter()
            .map(|&x| {
                let code = ((f64::from(x) / scale).round_ties_even() + zero_point as f64).clamp(lo, hi);
                (f64::from(x) - scale * (code - zero_point as f64)).powi(2)
            })
            .sum()
    }

    #[test]
    fn outliers_are_clipped_where_that_lowers_the_error() {
        let mut data = normal(20000);
        data.push(60.0);
        let options = FormulaOptions::activation(Formula::AimetTorch, 4);
        let mut search = GridSearch::sqnr().unwrap();
        search.observe(&data).unwrap();
        let found = search.finish(&options).unwrap();
        let whole = options.encoding(-6.0, 60.0).unwrap();
        let error = |e: &crate::encoding::Encoding| squared_error(&data, e.scale[0], e.zero_point[0], 0.0, 15.0);
        assert!(error(&found) < 0.8 * error(&whole), "{} {}", error(&found), error(&whole));
        assert!(found.max() < 60.0);
    }

    #[test]
    fn symmetric_searches_keep_zero_in_the_middle() {
        let data = normal(20000);
        for formula in [Formula::AimetTorch, Formula::AimetCpp2024] {
            let options = FormulaOptions::weight(formula, 4);
            let mut search = GridSearch::tf_enhanced().unwrap();
            search.observe(&data).unwrap();
            let (lo, hi) = search.range(&options).unwrap();
            let codes = if formula == Formula::AimetTorch { 8.0 / 7.0 } else { 1.0 };
            assert!((lo + hi * codes).abs() < 1e-12);
            let encoding = search.finish(&options).unwrap();
            assert_eq!(encoding.zero_point, [0]);
            let peak = data.iter().fold(0f32, |m, x| m.max(x.abs()));
            let whole = options.encoding(-f64::from(peak), f64::from(peak)).unwrap();
            let error = |scale| squared_error(&data, scale, 0, -8.0, 7.0);
            assert!(error(encoding.scale[0]) < error(whole.scale[0]));
        }
    }

    #[test]
    fn a_grid_without_error_is_found() {
        // Midpoints of bins that lie on the observed grid have no error under it, and clipping costs.
        let options = FormulaOptions::activation(Formula::AimetTorch, 8);
        let mut search = GridSearch::new(256, None, 3.0).unwrap();
        search.observe(&[-0.5, 255.5]).unwrap();
        let (lo, hi) = search.range(&options).unwrap();
        assert!(lo >= -2.0 && hi >= 253.0, "{lo} {hi}");
    }

    #[test]
    fn batches_may_come_in_pieces() {
        let data = normal(4000);
        let options = FormulaOptions::activation(Formula::AimetTorch, 8);
        let mut whole = GridSearch::sqnr().unwrap();
        whole.observe(&data).unwrap();
        let mut again = GridSearch::sqnr().unwrap();
        again.observe(&data).unwrap();
        assert_eq!(whole.range(&options).unwrap(), again.range(&options).unwrap());
        assert_eq!(GridSearch::sqnr().unwrap().range(&options).unwrap_err().code(), "calibrate_empty");
    }
}
