//! Sums of differences over samples.

use super::{Basis, FirstDifference, TensorDiff};
use crate::encoding::{Encoding, ScaleIndex};
use crate::error::{Error, Result};
use crate::exec::Captured;
use std::collections::HashMap;

/// Tensors that only one of two runs has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpaired {
    /// Names that only the run under test has, in graph order.
    pub left: Vec<String>,
    /// Names that only the reference has, in its order.
    pub right: Vec<String>,
}

/// Differences of two runs, summed over samples: memory does not grow with their number.
#[derive(Debug, Default)]
pub struct Comparison {
    tallies: Vec<Tally>,
    places: HashMap<String, usize>,
    unpaired: Unpaired,
    samples: usize,
}

impl Comparison {
    /// A comparison without samples.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one sample: the run under test and the reference.
    ///
    /// # Errors
    /// `diff_shape` where a tensor has two numbers of elements.
    pub fn add(&mut self, left: &[Captured], right: &[Captured]) -> Result<()> {
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for (i, captured) in right.iter().enumerate() {
            for alias in &captured.aliases {
                by_name.entry(alias).or_insert(i);
            }
        }
        // A name outranks every alias.
        by_name.extend(right.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)));
        let mut used = vec![false; right.len()];
        for captured in left {
            let names = std::iter::once(&captured.name).chain(&captured.aliases);
            match names.filter_map(|n| by_name.get(n.as_str()).copied()).next() {
                Some(i) => {
                    used[i] = true;
                    let sample = self.samples;
                    self.tally(&captured.name).add(sample, captured, &right[i])?;
                }
                None if self.samples == 0 => self.unpaired.left.push(captured.name.clone()),
                None => {}
            }
        }
        if self.samples == 0 {
            let missing = right.iter().zip(&used).filter(|(_, used)| !**used);
            self.unpaired.right = missing.map(|(c, _)| c.name.clone()).collect();
        }
        self.samples += 1;
        Ok(())
    }

    fn tally(&mut self, name: &str) -> &mut Tally {
        let place = *self.places.entry(name.to_string()).or_insert_with(|| {
            self.tallies.push(Tally { name: name.to_string(), ..Tally::default() });
            self.tallies.len() - 1
        });
        &mut self.tallies[place]
    }

    /// Number of samples so far.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Tensors without a partner in the first sample.
    pub fn unpaired(&self) -> &Unpaired {
        &self.unpaired
    }

    /// The differences, in the order of the first run.
    pub fn finish(&self) -> Vec<TensorDiff> {
        self.tallies.iter().map(Tally::finish).collect()
    }
}

#[derive(Debug, Default)]
struct Tally {
    name: String,
    basis: Option<Basis>,
    elements: u64,
    differing: u64,
    largest_quanta: f64,
    sum_quanta: f64,
    sum_quanta_squared: f64,
    sum_squared: f64,
    sum_left: f64,
    sum_right: f64,
    sum_product: f64,
    max_abs: f64,
    first: Option<FirstDifference>,
}

impl Tally {
    fn add(&mut self, sample: usize, left: &Captured, right: &Captured) -> Result<()> {
        let count = left.value.len();
        if count != right.value.len() {
            return Err(Error::invalid(
                "diff_shape",
                format!("shape {:?} against {:?}", left.value.shape(), right.value.shape()),
            )
            .at_tensor(&self.name)
            .help("were both captured from the same inputs?"));
        }
        let (a, b) = (left.value.to_f64(), right.value.to_f64());
        self.add_reals(&a, &b);
        self.elements += count as u64;
        let same_grid = match (&left.encoding, &right.encoding) {
            (Some(l), Some(r)) => l.same_grid(r),
            (Some(_), None) | (None, Some(_)) => true,
            (None, None) => false,
        };
        let mut seen = Seen { sample, ..Seen::default() };
        let basis = match (&left.codes, &right.codes, left.encoding.as_ref().or(right.encoding.as_ref())) {
            (Some(l), Some(r), _) if same_grid && l.len() == count && r.len() == count => {
                let (l, r) = (l.to_i64()?, r.to_i64()?);
                for (i, (&l, &r)) in l.iter().zip(&r).enumerate() {
                    seen.quanta(i, (l - r) as f64, l as f64, r as f64, l != r);
                }
                Basis::Codes
            }
            (_, _, Some(encoding)) => {
                scaled(&mut seen, &a, &b, encoding, left.value.shape()).map_err(|e| e.at_tensor(&self.name))?;
                Basis::Scaled
            }
            _ => {
                for (i, (&l, &r)) in a.iter().zip(&b).enumerate() {
                    let equal = l == r || (l.is_nan() && r.is_nan());
                    seen.quanta(i, 0.0, l, r, !equal);
                }
                Basis::Reals
            }
        };
        self.basis = Some(self.basis.map_or(basis, |b| b.max(basis)));
        self.differing += seen.differing;
        self.largest_quanta = self.largest_quanta.max(seen.largest);
        self.sum_quanta += seen.sum;
        self.sum_quanta_squared += seen.sum_squared;
        self.first = self.first.or(seen.first);
        Ok(())
    }

    fn add_reals(&mut self, a: &[f64], b: &[f64]) {
        for (&l, &r) in a.iter().zip(b) {
            let equal = l == r || (l.is_nan() && r.is_nan());
            let d = if equal { 0.0 } else { l - r };
            // A NaN on one side only is an infinite difference, not one that comparisons overlook.
            let d = if d.is_nan() { f64::INFINITY } else { d };
            self.sum_squared += d * d;
            self.max_abs = self.max_abs.max(d.abs());
            self.sum_left += l * l;
            self.sum_right += r * r;
            self.sum_product += l * r;
        }
    }

    fn finish(&self) -> TensorDiff {
        let n = (self.elements.max(1)) as f64;
        let basis = self.basis.unwrap_or(Basis::Reals);
        let quanta = |v: f64| (basis != Basis::Reals).then_some(v);
        let cosine = match (self.sum_left == 0.0, self.sum_right == 0.0) {
            (true, true) => 1.0,
            (false, false) => self.sum_product / (self.sum_left.sqrt() * self.sum_right.sqrt()),
            _ => 0.0,
        };
        TensorDiff {
            name: self.name.clone(),
            basis,
            elements: self.elements,
            differing: self.differing,
            exact: 1.0 - self.differing as f64 / n,
            off_by_n: quanta(self.largest_quanta).map(|v| v.round() as u64),
            l1_quanta: quanta(self.sum_quanta / n),
            mse_quanta: quanta(self.sum_quanta_squared / n),
            mse: self.sum_squared / n,
            cosine,
            sqnr_db: (self.sum_squared > 0.0).then(|| 10.0 * (self.sum_right / self.sum_squared).log10()),
            max_abs: self.max_abs,
            first: self.first,
        }
    }
}

/// What one pass over the elements of one sample finds.
#[derive(Default)]
struct Seen {
    sample: usize,
    differing: u64,
    largest: f64,
    sum: f64,
    sum_squared: f64,
    first: Option<FirstDifference>,
}

impl Seen {
    fn quanta(&mut self, index: usize, quanta: f64, left: f64, right: f64, differs: bool) {
        let size = quanta.abs();
        self.largest = self.largest.max(size);
        self.sum += size;
        self.sum_squared += size * size;
        if differs {
            self.differing += 1;
            self.first.get_or_insert(FirstDifference { sample: self.sample, index, left, right });
        }
    }
}

/// Differences of reals in units of the scale; below half a scale two reals lie on the same point of the grid.
fn scaled(seen: &mut Seen, a: &[f64], b: &[f64], encoding: &Encoding, shape: &[usize]) -> Result<()> {
    let scale_of = ScaleIndex::new(encoding, shape)?;
    for (i, (&l, &r)) in a.iter().zip(b).enumerate() {
        let equal = l == r || (l.is_nan() && r.is_nan());
        let quanta = if equal { 0.0 } else { (l - r) / encoding.scale[scale_of.of(i)] };
        let quanta = if quanta.is_nan() { f64::INFINITY } else { quanta };
        seen.quanta(i, quanta, l, r, quanta.abs() >= 0.5);
    }
    Ok(())
}
