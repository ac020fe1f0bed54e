//! LinearAttention: a state per head instead of keys, updated token by token. Runs in f64; results are rounded once.

use super::closure::{kernel, optional, shaped};
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::Result;
use crate::tensor::{Tensor, element_count};

/// Per token: `S ← e^decay · S` (gated), `v ← beta · (v - Sᵀk)` (delta), `S ← S + k·vᵀ`, output `scale · Sᵀq`. Heads of keys
/// and values serve several heads of queries each.
pub struct LinearAttention;

#[derive(Debug, Clone, Copy)]
struct Plan {
    batch: usize,
    tokens: usize,
    /// Heads of queries, and of keys and values.
    heads: [usize; 2],
    /// Elements of a key and of a value.
    sizes: [usize; 2],
    scale: f64,
    /// Entries of decay per token, 0 without it; of beta likewise.
    decay: usize,
    beta: usize,
}

impl Plan {
    fn new(facts: &Facts<'_>) -> Result<Self> {
        let positive = |name: &str| {
            let value = facts.node.int(name, 0)?;
            let value = usize::try_from(value).ok().filter(|&v| v > 0);
            value.ok_or_else(|| facts.invalid(format!("attribute '{name}' must be above 0")))
        };
        let heads = [positive("q_num_heads")?, positive("kv_num_heads")?];
        let (q, k, v) = (facts.input(0)?, facts.input(1)?, facts.input(2)?);
        let (&[batch, tokens, wide], Some(&values)) = (q.shape.as_slice(), v.shape.last()) else {
            return Err(facts.invalid(format!("'{}' has shape {:?}, three dimensions are expected", q.name, q.shape)));
        };
        if heads[0] % heads[1] != 0 || wide % heads[0] != 0 || values % heads[1] != 0 {
            return Err(facts.invalid(format!("{:?} and {:?} do not divide into {heads:?} heads", q.shape, v.shape)));
        }
        let sizes = [wide / heads[0], values / heads[1]];
        signature::shape(facts, k, &[batch, tokens, heads[1] * sizes[0]])?;
        signature::shape(facts, v, &[batch, tokens, values])?;
        if let Some(past) = facts.optional(3) {
            signature::shape(facts, past, &[batch, heads[1], sizes[0], sizes[1]])?;
        }
        let (gated, delta) = match facts.node.string("update_rule", "gated_delta")? {
            "linear" => (false, false),
            "gated" => (true, false),
            "delta" => (false, true),
            "gated_delta" => (true, true),
            other => return Err(facts.invalid(format!("update_rule '{other}' is not known"))),
        };
        let entries = |i: usize, wanted: bool, allowed: [usize; 2]| -> Result<usize> {
            match facts.optional(i) {
                None if !wanted => Ok(0),
                Some(fact) if wanted => {
                    let last = fact.shape.last().copied().unwrap_or(0);
                    signature::shape(facts, fact, &[batch, tokens, last])?;
                    let valid = allowed.contains(&last) && last > 0;
                    if valid { Ok(last) } else { Err(facts.invalid(format!("'{}' has {last} entries", fact.name))) }
                }
                _ => Err(facts.invalid(format!("the update_rule does not go with the given input {i}, or lacks it"))),
            }
        };
        let scale = match facts.node.float("scale", 0.0)? {
            0.0 => 1.0 / (sizes[0] as f64).sqrt(),
            scale => scale.into(),
        };
        // A hint for implementations that work on several tokens at once.
        facts.node.int("chunk_size", 64)?;
        Ok(Plan {
            batch,
            tokens,
            heads,
            sizes,
            scale,
            decay: entries(4, gated, [heads[1], heads[1] * sizes[0]])?,
            beta: entries(5, delta, [heads[1], 1])?,
        })
    }

    fn state_shape(&self) -> [usize; 4] {
        [self.batch, self.heads[1], self.sizes[0], self.sizes[1]]
    }
}

impl Op for LinearAttention {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes = ["chunk_size", "kv_num_heads", "q_num_heads", "scale", "update_rule"];
        signature::check(facts, 3..=6, 1..=2, &attributes)?;
        let q = facts.input(0)?;
        for i in [0, 1, 2, 4, 5] {
            let Some(fact) = facts.optional(i) else { continue };
            signature::float(facts, fact)?;
            signature::same_dtype(facts, q, fact)?;
        }
        let state = facts.optional(3).map_or(Ok(q.dtype), |s| signature::float(facts, s).map(|()| s.dtype))?;
        let plan = Plan::new(facts)?;
        let y = vec![plan.batch, plan.tokens, plan.heads[0] * plan.sizes[1]];
        element_count(&y)?;
        element_count(&plan.state_shape())?;
        let all = [(q.dtype, y), (state, plan.state_shape().to_vec())];
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (plan, outputs) = (Plan::new(facts)?, facts.node.outputs.len());
        let shape = facts.input(0)?.shape.clone();
        kernel(move |_, inputs| {
            let q = shaped(inputs, 0, &shape)?;
            let read = |i: usize| optional(inputs, i).map(Tensor::to_f64).unwrap_or_default();
            let (queries, keys, values, decay, beta) = (q.to_f64(), read(1), read(2), read(4), read(5));
            let ([q_heads, heads], [dk, dv]) = (plan.heads, plan.sizes);
            let state_type = optional(inputs, 3).map_or(q.dtype(), Tensor::dtype);
            let mut states = match optional(inputs, 3) {
                Some(past) => past.to_f64(),
                None => vec![0.0; element_count(&plan.state_shape())?],
            };
            let mut y = vec![0.0; plan.batch * plan.tokens * q_heads * dv];
            for token in 0..plan.batch * plan.tokens {
                for h in 0..heads {
                    let state = &mut states[(token / plan.tokens * heads + h) * dk * dv..][..dk * dv];
                    let key = &keys[(token * heads + h) * dk..][..dk];
                    let mut value = values[(token * heads + h) * dv..][..dv].to_vec();
                    if plan.decay > 0 {
                        for (d, row) in state.chunks_exact_mut(dv.max(1)).enumerate() {
                            let entry = if plan.decay == heads { h } else { h * dk + d };
                            let factor = libm::exp(decay[token * plan.decay + entry]);
                            row.iter_mut().for_each(|s| *s *= factor);
                        }
                    }
                    if plan.beta > 0 {
                        let factor = beta[token * plan.beta + h % plan.beta];
                        for (m, v) in value.iter_mut().enumerate() {
                            let known: f64 = (0..dk).map(|d| state[d * dv + m] * key[d]).sum();
                            *v = factor * (*v - known);
                        }
                    }
                    for (row, k) in state.chunks_exact_mut(dv.max(1)).zip(key) {
                        row.iter_mut().zip(&value).for_each(|(s, v)| *s += k * v);
                    }
                    for head in h * (q_heads / heads)..(h + 1) * (q_heads / heads) {
                        let query = &queries[(token * q_heads + head) * dk..][..dk];
                        let out = &mut y[(token * q_heads + head) * dv..][..dv];
                        for (m, y) in out.iter_mut().enumerate() {
                            *y = plan.scale * (0..dk).map(|d| state[d * dv + m] * query[d]).sum::<f64>();
                        }
                    }
                }
            }
            let mut out = vec![floats::write_f64(&[plan.batch, plan.tokens, q_heads * dv], y, q.dtype())?];
            if outputs > 1 {
                out.push(floats::write_f64(&plan.state_shape(), states, state_type)?);
            }
            Ok(out.into())
        })
    }
}
