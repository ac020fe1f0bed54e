//! LpPool, GlobalLpPool and MaxUnpool.

use super::closure::{kernel, shaped};
use super::parallel::fill;
use super::pool::{Pool, taps, windows};
use super::window::spatial_list;
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::{Error, Result};
use crate::map_data;
use crate::tensor::{Tensor, element_count};

/// `(Σ |x|^p)^(1/p)` over each window, in f64, rounded once.
pub struct LpPool {
    /// Whether the window is the whole plane.
    pub global: bool,
}

impl LpPool {
    fn pool(&self) -> Pool {
        Pool { average: true, global: self.global }
    }

    /// Attribute `p`, at least 1; a float before opset 2.
    fn power(facts: &Facts<'_>) -> Result<f64> {
        let p = match facts.opset < 2 {
            true => facts.node.float("p", 2.0)?.into(),
            false => facts.node.int("p", 2)? as f64,
        };
        if p >= 1.0 { Ok(p) } else { Err(facts.invalid(format!("p is {p}"))) }
    }
}

impl Op for LpPool {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes: &[&str] = match (self.global, facts.opset) {
            (true, _) => &["p"],
            (false, ..18) => &["auto_pad", "kernel_shape", "p", "pads", "strides"],
            _ => &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "p", "pads", "strides"],
        };
        signature::check(facts, 1..=1, 1..=1, attributes)?;
        Self::power(facts)?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        Ok(vec![(x.dtype, self.pool().shape(facts)?.output_shape)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (pool, p) = (self.pool().shape(facts)?, Self::power(facts)?);
        let shape = facts.input(0)?.shape.clone();
        let term = move |x: f64| match p {
            1.0 => x.abs(),
            2.0 => x * x,
            _ => libm::pow(x.abs(), p),
        };
        let root = move |sum: f64| match p {
            1.0 => sum,
            2.0 => sum.sqrt(),
            _ => libm::pow(sum, 1.0 / p),
        };
        kernel(move |context, inputs| {
            let tensor = shaped(inputs, 0, &shape)?;
            let x = tensor.to_f64();
            let (plane, source): (usize, usize) = (pool.output.iter().product(), pool.input.iter().product());
            let mut y = vec![0.0; pool.planes * plane];
            fill(context.engine(), &mut y, plane, |start, part| {
                let x = &x[start / plane * source..][..source];
                windows(&pool, |at, spans| {
                    let mut sum = 0.0;
                    taps(&pool, spans, |i| sum += term(x[i]));
                    part[at] = root(sum);
                });
            });
            Ok([floats::write_f64(&pool.output_shape, y, tensor.dtype())?].into())
        })
    }
}

/// MaxUnpool: the elements at the places that MaxPool's second output names, zeros elsewhere. Moves any type.
///
/// Indices count within the tensor whose shape the attributes imply; with `output_shape`, coordinates stay and the
/// tensor grows at the end.
pub struct MaxUnpool;

impl MaxUnpool {
    /// The shape that the indices count in, and that of the output.
    fn shapes(facts: &Facts<'_>) -> Result<(Vec<usize>, Vec<usize>)> {
        let x = &facts.input(0)?.shape;
        if x.len() < 3 || x.contains(&0) {
            return Err(facts.invalid(format!("{x:?} cannot be unpooled")));
        }
        let rank = x.len() - 2;
        if !facts.node.attributes.contains_key("kernel_shape") {
            return Err(facts.invalid("attribute 'kernel_shape' is missing"));
        }
        let window = spatial_list(facts, "kernel_shape", rank, 1, 1)?;
        let strides = spatial_list(facts, "strides", rank, 1, 1)?;
        let pads = spatial_list(facts, "pads", 2 * rank, 0, 0)?;
        let mut implied = x[..2].to_vec();
        for i in 0..rank {
            let full = element_count(&[x[2 + i] - 1, strides[i]])? + window[i];
            let size = full.checked_sub(pads[i] + pads[rank + i]).filter(|&s| s > 0);
            implied.push(size.ok_or_else(|| facts.invalid(format!("pads {pads:?} leave nothing of {full} elements")))?);
        }
        element_count(&implied)?;
        if facts.optional(2).is_none() {
            return Ok((implied.clone(), implied));
        }
        let wanted = signature::constant_ints(facts, 2)?;
        let out: Vec<usize> = wanted.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
        if out.len() != x.len() || wanted.len() != x.len() || out[..2] != x[..2] {
            return Err(facts.invalid(format!("output_shape {wanted:?} does not fit {x:?}")));
        }
        element_count(&out)?;
        Ok((implied, out))
    }
}

impl Op for MaxUnpool {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=3, 1..=1, &["kernel_shape", "pads", "strides"])?;
        let (x, indices) = (facts.input(0)?, facts.input(1)?);
        signature::indices(facts, indices)?;
        signature::shape(facts, indices, &x.shape)?;
        Ok(vec![(x.dtype, Self::shapes(facts)?.1)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (implied, out) = Self::shapes(facts)?;
        let shape = facts.input(0)?.shape.clone();
        kernel(move |_, inputs| {
            let (x, indices) = (shaped(inputs, 0, &shape)?, shaped(inputs, 1, &shape)?);
            let outside = |i| Error::invalid("index_range", format!("index {i} is outside a tensor of shape {out:?}"));
            let count = element_count(&implied)?;
            let mut places = Vec::with_capacity(x.len());
            for i in indices.to_i64()? {
                let mut rest = usize::try_from(i).ok().filter(|&p| p < count).ok_or_else(|| outside(i))?;
                let (mut place, mut step) = (0, 1);
                for (&from, &to) in implied.iter().zip(&out).rev() {
                    if rest % from >= to {
                        return Err(outside(i));
                    }
                    place += rest % from * step;
                    step *= to;
                    rest /= from;
                }
                places.push(place);
            }
            let count = element_count(&out)?;
            let data = map_data!(x.data(), v => {
                let mut y = vec![Default::default(); count];
                places.iter().zip(v).for_each(|(&p, &x)| y[p] = x);
                y.into()
            });
            Ok([Tensor::new(out.clone(), data)?].into())
        })
    }
}
