//! LRN, MeanVarianceNormalization and RMSNormalization. Sums run in order in f64; results are rounded once.

use super::closure::{kernel, shaped};
use super::normalization::{epsilon, stash_type};
use super::reduce::{ReducePlan, gathered};
use super::{Facts, Inferred, Kernel, Op, axis, floats, signature};
use crate::error::Result;
use crate::tensor::element_count;

/// LRN: `x / (bias + alpha / size · Σ x²)^beta`, with the sum over a window of `size` channels around each.
pub struct Lrn;

/// Attribute `size`, at least 1.
fn size(facts: &Facts<'_>) -> Result<usize> {
    let size = facts.node.int("size", 0)?;
    usize::try_from(size).ok().filter(|&s| s > 0).ok_or_else(|| facts.invalid(format!("size is {size}")))
}

impl Op for Lrn {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["alpha", "beta", "bias", "size"])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        if x.shape.len() < 2 {
            return Err(facts.invalid(format!("'{}' has shape {:?}: no channels", x.name, x.shape)));
        }
        size(facts)?;
        for (name, default) in [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)] {
            facts.node.float(name, default)?;
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let size = size(facts)?;
        let attribute = |name, default| facts.node.float(name, default).map(f64::from);
        let (alpha, beta, bias) = (attribute("alpha", 1e-4)?, attribute("beta", 0.75)?, attribute("bias", 1.0)?);
        let shape = facts.input(0)?.shape.clone();
        let (batch, channels, plane) = axis::around(&shape, 1);
        kernel(move |_, inputs| {
            let tensor = shaped(inputs, 0, &shape)?;
            let x = tensor.to_f64();
            let mut y = vec![0.0; x.len()];
            for line in 0..batch * plane {
                let at = |c: usize| line / plane * channels * plane + c * plane + line % plane;
                for c in 0..channels {
                    let (first, end) =
                        (c.saturating_sub((size - 1) / 2), (c.saturating_add(size / 2) + 1).min(channels));
                    let squares: f64 = (first..end).map(|i| x[at(i)] * x[at(i)]).sum();
                    y[at(c)] = x[at(c)] / libm::pow(bias + alpha / size as f64 * squares, beta);
                }
            }
            Ok([floats::write_f64(&shape, y, tensor.dtype())?].into())
        })
    }
}

/// MeanVarianceNormalization: `(x - mean) / (√variance + 1e-9)` over axes.
pub struct MeanVarianceNormalization;

impl MeanVarianceNormalization {
    fn plan(facts: &Facts<'_>) -> Result<ReducePlan> {
        let shape = &facts.input(0)?.shape;
        let axes = axis::normalize_all(facts, facts.node.ints("axes")?.unwrap_or(&[0, 2, 3]), shape.len())?;
        let output: Vec<usize> = (0..shape.len()).map(|i| if axes.contains(&i) { 1 } else { shape[i] }).collect();
        let count = axes.iter().map(|&a| shape[a]).product();
        Ok(ReducePlan { input: shape.clone(), axes, output, count })
    }
}

impl Op for MeanVarianceNormalization {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["axes"])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        if Self::plan(facts)?.count == 0 {
            return Err(facts.invalid(format!("'{}' has shape {:?}: nothing to normalize", x.name, x.shape)));
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let mut plan = Self::plan(facts)?;
        plan.axes.sort_unstable();
        kernel(move |context, inputs| {
            let tensor = shaped(inputs, 0, &plan.input)?;
            let x = tensor.to_f64();
            // Indices take the way of the elements, so that results find back.
            let places: Vec<usize> = (0..x.len()).collect();
            let places = gathered(context.engine(), &places, &plan);
            let mut y = vec![0.0; x.len()];
            for row in places.chunks_exact(plan.count) {
                let mean = row.iter().map(|&i| x[i]).sum::<f64>() / plan.count as f64;
                let variance = row.iter().map(|&i| (x[i] - mean) * (x[i] - mean)).sum::<f64>() / plan.count as f64;
                row.iter().for_each(|&i| y[i] = (x[i] - mean) / (variance.sqrt() + 1e-9));
            }
            Ok([floats::write_f64(&plan.input, y, tensor.dtype())?].into())
        })
    }
}

/// RMSNormalization over all dimensions from `axis` on: `x / √(mean of squares + epsilon) · scale`.
pub struct RmsNormalization;

impl Op for RmsNormalization {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["axis", "epsilon", "stash_type"])?;
        stash_type(facts)?;
        epsilon(facts)?;
        let (x, scale) = (facts.input(0)?, facts.input(1)?);
        signature::float(facts, x)?;
        signature::float(facts, scale)?;
        let axis = axis::normalize(facts, facts.node.int("axis", -1)?, x.shape.len())?;
        let row = &x.shape[axis..];
        let fits = scale.shape.len() <= row.len()
            && scale.shape.iter().rev().zip(row.iter().rev()).all(|(&s, &d)| s == d || s == 1);
        if !fits {
            return Err(facts.unsupported(format!("scales of {:?} do not fit rows of {row:?}", scale.shape)));
        }
        Ok(vec![(scale.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let epsilon = epsilon(facts)?;
        let (shape, scale_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        let axis = axis::normalize(facts, facts.node.int("axis", -1)?, shape.len())?;
        let row = element_count(&shape[axis..])?;
        let plan = super::broadcast::Broadcast::new(&[&scale_shape, &shape[axis..]])?;
        kernel(move |_, inputs| {
            let (x, scale) = (shaped(inputs, 0, &shape)?.to_f64(), shaped(inputs, 1, &scale_shape)?);
            let (dtype, values) = (scale.dtype(), scale.to_f64());
            let mut y = x;
            for line in y.chunks_exact_mut(row.max(1)) {
                let squares = line.iter().map(|x| x * x).sum::<f64>() / row as f64;
                let inverse = 1.0 / (squares + epsilon).sqrt();
                line.iter_mut().enumerate().for_each(|(i, x)| *x = *x * inverse * values[plan.index(0, i)]);
            }
            Ok([floats::write_f64(&shape, y, dtype)?].into())
        })
    }
}
