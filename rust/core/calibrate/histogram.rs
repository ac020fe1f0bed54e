//! Histograms that grow with the range of the data (aimet-torch 2.42), and percentiles of them.

use super::{Observer, empty, finite_range};
use crate::encoding::FormulaOptions;
use crate::error::{Error, Result};

/// Counts of values in bins of equal width.
///
/// The first batch sets the range (widened by 0.5, or 4 float steps, on both sides where it has no width). A later batch that leaves the
/// range extends it to the union; counts move to the new bins, each old bin split over at most two new ones in
/// proportion to its width, in whole counts (half to even). With a growth limit `g` the range ends at
/// `[min0 - g/2·R0, max0 + g/2·R0]` of the first batch, and values beyond count in the end bins.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    num_bins: usize,
    growth_limit: Option<f64>,
    state: Option<State>,
}

#[derive(Debug, Clone, PartialEq)]
struct State {
    counts: Vec<f64>,
    min: f32,
    max: f32,
    limits: (f32, f32),
}

impl Histogram {
    /// An empty histogram.
    ///
    /// # Errors
    /// `calibrate_bins` for fewer than 2 or more than 2^20 bins, or a growth limit that is not a number of 0 or more.
    pub fn new(num_bins: usize, growth_limit: Option<f64>) -> Result<Self> {
        if !(2..=1 << 20).contains(&num_bins) {
            return Err(Error::invalid("calibrate_bins", format!("{num_bins} bins are not in 2..=2^20")));
        }
        if let Some(g) = growth_limit.filter(|g| !(g.is_finite() && *g >= 0.0)) {
            return Err(Error::invalid("calibrate_bins", format!("growth limit {g} is not a number of 0 or more")));
        }
        Ok(Histogram { num_bins, growth_limit, state: None })
    }

    /// Counts per bin; empty before the first value.
    pub fn counts(&self) -> &[f64] {
        self.state.as_ref().map_or(&[], |s| &s.counts)
    }

    /// Lower and upper end of the bins; `None` before the first value.
    pub fn range(&self) -> Option<(f32, f32)> {
        self.state.as_ref().map(|s| (s.min, s.max))
    }

    /// Left edge of bin `i`; edge `num_bins` is the upper end.
    pub fn edge(&self, i: usize) -> Option<f64> {
        let (min, max) = self.range()?;
        if i >= self.num_bins {
            return Some(f64::from(max));
        }
        Some(f64::from(min) + (f64::from(max) - f64::from(min)) * i as f64 / self.num_bins as f64)
    }

    /// Counts the values of a batch.
    pub fn observe(&mut self, batch: &[f32]) -> Result<()> {
        let Some((lo, hi)) = finite_range(batch)? else { return Ok(()) };
        if let Some(i) = batch.iter().position(|x| x.is_infinite()) {
            return Err(Error::invalid("calibrate_infinite", format!("element {i} of the batch is infinite"))
                .help("a histogram needs finite values; min-max calibration accepts them"));
        }
        let bins = self.num_bins;
        let too_wide = || {
            Error::invalid("calibrate_range", format!("values from {lo} to {hi} cannot be binned"))
                .help("the width of the range overflows 32-bit floats")
        };
        let state = match &mut self.state {
            Some(state) => {
                let (min, max) = (lo.max(state.limits.0).min(state.min), hi.min(state.limits.1).max(state.max));
                if !(max - min).is_finite() {
                    return Err(too_wide());
                }
                state.grow(min, max);
                state
            }
            empty @ None => {
                // Half a unit, or a few steps of the float where half a unit is less than one.
                let half = (4.0 * f32::EPSILON * lo.abs()).max(0.5);
                let (min, max) = if lo == hi { (lo - half, hi + half) } else { (lo, hi) };
                if !(max - min).is_finite() {
                    return Err(too_wide());
                }
                let limits = self.growth_limit.map_or((f32::MIN, f32::MAX), |g| {
                    let reach = g / 2.0 * (f64::from(max) - f64::from(min));
                    ((f64::from(min) - reach) as f32, (f64::from(max) + reach) as f32)
                });
                empty.insert(State { counts: vec![0.0; bins], min, max, limits })
            }
        };
        for &x in batch {
            let bin = state.bin(x);
            state.counts[bin] += 1.0;
        }
        Ok(())
    }
}

impl State {
    /// The bin of a value, in f32: `floor((x - min) · bins / (max - min))`, the upper end in the last bin.
    fn bin(&self, x: f32) -> usize {
        let x = x.clamp(self.min, self.max);
        let position = (x - self.min) * self.counts.len() as f32 / (self.max - self.min);
        (position as usize).min(self.counts.len() - 1)
    }

    fn grow(&mut self, min: f32, max: f32) {
        if (min, max) == (self.min, self.max) {
            return;
        }
        let bins = self.counts.len();
        let (new_min, old_min) = (f64::from(min), f64::from(self.min));
        let new_width = (f64::from(max) - new_min) / bins as f64;
        let old_width = (f64::from(self.max) - old_min) / bins as f64;
        let mut counts = vec![0.0; bins];
        for (i, &count) in self.counts.iter().enumerate() {
            let start = old_min + old_width * i as f64;
            let target = (((start - new_min) / new_width) as usize).min(bins - 1);
            let target_end = new_min + new_width * (target + 1) as f64;
            let share = ((target_end - start) / old_width * count).round_ties_even().clamp(0.0, count);
            counts[target] += share;
            counts[(target + 1).min(bins - 1)] += count - share;
        }
        self.counts = counts;
        (self.min, self.max) = (min, max);
    }
}

/// The range that leaves out a share of the values at both ends (aimet-torch): with cumulated counts `c`, the bins
/// `first(c ≥ total·p/100)` and `first(c ≥ total·(1 - p/100))` give their left edges; `p = 100` gives the whole range.
#[derive(Debug, Clone, PartialEq)]
pub struct Percentile {
    histogram: Histogram,
    percentile: f64,
}

impl Percentile {
    /// Bins that the source uses.
    pub const DEFAULT_BINS: usize = 2048;

    /// An observer for `percentile` in 50..=100.
    pub fn new(num_bins: usize, percentile: f64) -> Result<Self> {
        if !(50.0..=100.0).contains(&percentile) {
            return Err(Error::invalid("calibrate_percentile", format!("percentile {percentile} is not in 50..=100"))
                .help("99.99 leaves out one value of ten thousand at each end"));
        }
        Ok(Percentile { histogram: Histogram::new(num_bins, None)?, percentile })
    }
}

impl Observer for Percentile {
    fn observe(&mut self, batch: &[f32]) -> Result<()> {
        self.histogram.observe(batch)
    }

    fn range(&self, _: &FormulaOptions) -> Result<(f64, f64)> {
        let (min, max) = self.histogram.range().ok_or_else(empty)?;
        let (mut lo, mut hi) = (f64::from(min), f64::from(max));
        if self.percentile < 100.0 {
            let counts = self.histogram.counts();
            let total: f64 = counts.iter().sum();
            let edge_at = |share: f64| {
                let mut sum = 0.0;
                let bin = counts.iter().position(|c| {
                    sum += c;
                    sum >= total * share
                });
                self.histogram.edge(bin.unwrap_or(counts.len() - 1))
            };
            lo = edge_at(1.0 - self.percentile / 100.0).ok_or_else(empty)?;
            hi = edge_at(self.percentile / 100.0).ok_or_else(empty)?;
        }
        Ok((lo.min(0.0), hi.max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Formula;

    fn options() -> FormulaOptions {
        FormulaOptions::activation(Formula::AimetTorch, 8)
    }

    #[test]
    fn a_batch_fills_bins_of_equal_width() {
        let mut h = Histogram::new(4, None).unwrap();
        h.observe(&[0.0, 0.9, 1.0, 2.5, 4.0]).unwrap();
        assert_eq!(h.counts(), [2.0, 1.0, 1.0, 1.0]);
        assert_eq!((h.range(), h.edge(1), h.edge(4)), (Some((0.0, 4.0)), Some(1.0), Some(4.0)));
    }

    #[test]
    fn a_constant_batch_gets_a_width() {
        let mut h = Histogram::new(2, None).unwrap();
        h.observe(&[3.0, 3.0]).unwrap();
        assert_eq!((h.range(), h.counts()), (Some((2.5, 3.5)), [0.0, 2.0].as_slice()));
        let mut large = Histogram::new(2, None).unwrap();
        large.observe(&[1e9]).unwrap();
        assert!(large.range().is_some_and(|(lo, hi)| lo < 1e9 && hi > 1e9));
    }

    #[test]
    fn growth_moves_counts_and_keeps_their_sum() {
        let mut h = Histogram::new(4, None).unwrap();
        h.observe(&[0.0, 1.0, 1.5, 2.0, 2.2, 2.6, 3.0, 4.0]).unwrap();
        assert_eq!(h.counts(), [1.0, 2.0, 3.0, 2.0]);
        h.observe(&[8.0]).unwrap();
        assert_eq!(h.range(), Some((0.0, 8.0)));
        assert_eq!(h.counts(), [3.0, 5.0, 0.0, 1.0]);
        // Bins of 2 become bins of 2.5 from -2: the second old bin (start 2) is cut at 3, its 5 counts split 2 and 3
        // (2.5 is a tie), the others fall whole into one bin.
        h.observe(&[-2.0]).unwrap();
        assert_eq!(h.counts().iter().sum::<f64>(), 10.0);
        assert_eq!(h.counts(), [1.0 + 1.0, 2.0 + 2.0, 3.0, 1.0]);
    }

    #[test]
    fn a_growth_limit_gathers_outliers_in_the_end_bins() {
        let mut h = Histogram::new(4, Some(2.0)).unwrap();
        h.observe(&[0.0, 4.0]).unwrap();
        h.observe(&[100.0, -100.0, 100.0]).unwrap();
        assert_eq!(h.range(), Some((-4.0, 8.0)));
        assert_eq!(h.counts()[0], 1.0);
        assert_eq!(h.counts()[3], 2.0);
        assert_eq!(h.counts().iter().sum::<f64>(), 5.0);
    }

    #[test]
    fn percentiles_take_left_edges() {
        let mut p = Percentile::new(100, 90.0).unwrap();
        p.observe(&(0..=100).map(|i| i as f32 - 50.0).collect::<Vec<_>>()).unwrap();
        // 101 values; the last bin holds two. 0.1·101 = 10.1 is reached in bin 10, 90.9 in bin 90.
        assert_eq!(p.range(&options()).unwrap(), (-40.0, 40.0));
        let mut whole = Percentile::new(100, 100.0).unwrap();
        whole.observe(&[1.0, 5.0]).unwrap();
        assert_eq!(whole.range(&options()).unwrap(), (0.0, 5.0));
    }

    #[test]
    fn wrong_arguments_and_values_are_refused() {
        assert_eq!(Percentile::new(100, 49.0).unwrap_err().code(), "calibrate_percentile");
        assert_eq!(Percentile::new(100, f64::NAN).unwrap_err().code(), "calibrate_percentile");
        assert_eq!(Histogram::new(1, None).unwrap_err().code(), "calibrate_bins");
        let mut h = Histogram::new(4, None).unwrap();
        assert_eq!(h.observe(&[f32::INFINITY]).unwrap_err().code(), "calibrate_infinite");
        assert_eq!(h.observe(&[0.0, f32::NAN]).unwrap_err().code(), "calibrate_nan");
        assert_eq!(h.observe(&[f32::MIN, f32::MAX]).unwrap_err().code(), "calibrate_range");
        h.observe(&[0.0, f32::MAX]).unwrap();
        assert_eq!(h.observe(&[f32::MIN]).unwrap_err().code(), "calibrate_range");
        assert_eq!(Percentile::new(4, 99.0).unwrap().range(&options()).unwrap_err().code(), "calibrate_empty");
    }
}
