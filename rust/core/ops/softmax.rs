//! Softmax and LogSoftmax. Sums run in order in f64; the result is rounded once.

use super::closure::{kernel, shaped};
use super::element::{Real, by_class};
use super::parallel::{fill, whole_rows};
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::View;
use crate::tensor::{Data, Tensor};

/// `e^(x - max) / Σ e^(x - max)` along an axis, or its logarithm.
///
/// Before opset 13 all dimensions from `axis` on are one row; from then on `axis` alone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Softmax {
    /// Whether the logarithm is taken.
    pub logarithm: bool,
}

/// The dimensions as `(outer, row, inner)`: rows step by `inner`.
pub(super) fn rows(facts: &Facts<'_>) -> Result<(usize, usize, usize)> {
    let shape = &facts.input(0)?.shape;
    let attribute = facts.node.int("axis", if facts.opset < 13 { 1 } else { -1 })?;
    if facts.opset < 13 {
        let axis = axis::normalize_split(facts, attribute, shape.len())?;
        return Ok((shape[..axis].iter().product(), shape[axis..].iter().product(), 1));
    }
    Ok(axis::around(shape, axis::normalize(facts, attribute, shape.len())?))
}

fn softmax_row<T: Real>(row: &mut [T], exponentials: &mut Vec<f64>, logarithm: bool) {
    let max = row.iter().fold(f64::NEG_INFINITY, |m, x| {
        let x = x.to_f64();
        if x.is_nan() || x > m { x } else { m }
    });
    exponentials.clear();
    exponentials.extend(row.iter().map(|x| libm::exp(x.to_f64() - max)));
    let sum: f64 = exponentials.iter().sum();
    let log_sum = libm::log(sum);
    for (y, e) in row.iter_mut().zip(exponentials) {
        *y = T::from_f64(if logarithm { y.to_f64() - max - log_sum } else { *e / sum });
    }
}

impl Op for Softmax {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["axis"])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        rows(facts)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Real>(
            engine: Engine<'_>,
            x: &[T],
            (outer, row, inner): (usize, usize, usize),
            logarithm: bool,
        ) -> Data {
            if x.is_empty() {
                return T::wrap(Vec::new());
            }
            // Rows become contiguous, and return to their places afterwards.
            let mut y = View::permuted(&[outer, row, inner], &[0, 2, 1]).copy(engine, x);
            fill(engine, &mut y, whole_rows(row), |_, part| {
                let mut exponentials = Vec::with_capacity(row);
                part.chunks_exact_mut(row).for_each(|r| softmax_row(r, &mut exponentials, logarithm));
            });
            T::wrap(View::permuted(&[outer, inner, row], &[0, 2, 1]).copy(engine, &y))
        }
        let rows = rows(facts)?;
        let shape = facts.input(0)?.shape.clone();
        let logarithm = self.logarithm;
        kernel(move |context, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let data = by_class!(x.data(), v =>
                real typed(context.engine(), v, rows, logarithm),
                integer return Err(Error::invalid("tensor_dtype", format!("{} integers, not floats", v.len()))),
                boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans, not floats", v.len()))),
            );
            Ok([Tensor::new(shape.clone(), data)?].into())
        })
    }
}
