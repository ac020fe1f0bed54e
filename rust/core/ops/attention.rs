//! Attention and RotaryEmbedding. All sums run in f64, and results are rounded once: at least as precise as any
//! `softmax_precision` asks for.

use super::broadcast::Broadcast;
use super::cast::by_number;
use super::closure::{kernel, optional, shaped};
use super::parallel::fill;
use super::{Fact, Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::Result;
use crate::tensor::{DType, Data, Tensor, element_count};

/// Attention: `softmax(scale · Q·Kᵀ + bias) · V` per head. Heads of K and V serve several heads of Q each.
///
/// The bias is the mask, -infinity where a query may not see a key: causal ones end at the query's position, which
/// counts from the end of the past keys or of the valid ones. A query that sees no key gives zeros.
pub struct Attention;

/// Where heads lie in a tensor: `[batch, heads, sequence, size]`, or `[batch, sequence, heads · size]`.
#[derive(Debug, Clone, Copy)]
struct Heads {
    batch: usize,
    heads: usize,
    sequence: usize,
    size: usize,
    merged: bool,
}

impl Heads {
    fn new(facts: &Facts<'_>, fact: &Fact, attribute: &str) -> Result<Self> {
        let count = match facts.node.attributes.contains_key(attribute) {
            true => Some(facts.node.int(attribute, 0)?),
            false => None,
        };
        match (fact.shape.as_slice(), count) {
            (&[batch, heads, sequence, size], count) => {
                if count.is_some_and(|c| usize::try_from(c) != Ok(heads)) {
                    return Err(facts.invalid(format!("{attribute} contradicts '{}' {:?}", fact.name, fact.shape)));
                }
                Ok(Heads { batch, heads, sequence, size, merged: false })
            }
            (&[batch, sequence, hidden], Some(count)) => {
                let heads = usize::try_from(count).ok().filter(|&h| h > 0 && hidden % h == 0);
                let heads = heads.ok_or_else(|| {
                    facts.invalid(format!("'{}' {:?} does not divide into {count} heads", fact.name, fact.shape))
                })?;
                Ok(Heads { batch, heads, sequence, size: hidden / heads, merged: true })
            }
            (other, None) if other.len() == 3 => Err(facts.invalid(format!("attribute '{attribute}' is missing"))),
            (other, _) => Err(facts.invalid(format!("'{}' has shape {other:?}", fact.name))),
        }
    }

    /// Index of the first element of a row.
    fn at(&self, batch: usize, head: usize, position: usize) -> usize {
        match self.merged {
            false => ((batch * self.heads + head) * self.sequence + position) * self.size,
            true => ((batch * self.sequence + position) * self.heads + head) * self.size,
        }
    }

    fn shape(&self) -> Vec<usize> {
        match self.merged {
            false => vec![self.batch, self.heads, self.sequence, self.size],
            true => vec![self.batch, self.sequence, self.heads * self.size],
        }
    }
}

#[derive(Debug, Clone)]
struct Plan {
    q: Heads,
    k: Heads,
    v: Heads,
    /// Keys from earlier runs.
    past: usize,
    scale: f64,
    softcap: f64,
    causal: bool,
    /// Keys that a query sees to the left and to the right of its own position.
    window: [Option<i64>; 2],
    /// What the fourth output holds: scores, capped scores, biased scores, probabilities.
    stage: i64,
    mask: Option<Vec<usize>>,
}

impl Plan {
    fn new(facts: &Facts<'_>) -> Result<Self> {
        let q = Heads::new(facts, facts.input(0)?, "q_num_heads")?;
        let (k, v) =
            (Heads::new(facts, facts.input(1)?, "kv_num_heads")?, Heads::new(facts, facts.input(2)?, "kv_num_heads")?);
        let fits = (q.batch, q.batch, k.heads, k.sequence, q.size) == (k.batch, v.batch, v.heads, v.sequence, k.size)
            && (q.merged, q.merged) == (k.merged, v.merged)
            && k.heads > 0
            && q.heads % k.heads == 0;
        if !fits {
            let [a, b, c] = [q, k, v].map(|h| h.shape());
            return Err(facts.invalid(format!("queries {a:?}, keys {b:?} and values {c:?} do not fit")));
        }
        let past = match (facts.optional(4), facts.optional(5)) {
            (None, None) => 0,
            (Some(key), Some(value)) => {
                let past = key.shape.get(2).copied().unwrap_or(0);
                signature::shape(facts, key, &[k.batch, k.heads, past, k.size])?;
                signature::shape(facts, value, &[v.batch, v.heads, past, v.size])?;
                past
            }
            _ => return Err(facts.invalid("past_key and past_value come together")),
        };
        let total = past + k.sequence;
        let mask = match facts.optional(3) {
            None => None,
            Some(mask) => {
                let mut shape = mask.shape.clone();
                let Some(last) = shape.last_mut() else { return Err(facts.invalid("the mask is a scalar")) };
                // What a mask does not reach is not seen; one of a single column is padded, too.
                *last = if *last <= total { total } else { *last };
                let all = [q.batch, q.heads, q.sequence, total];
                if Broadcast::new(&[&shape, &all])?.shape() != all {
                    return Err(facts.invalid(format!("a mask of {:?} does not fit scores of {all:?}", mask.shape)));
                }
                Some(mask.shape.clone())
            }
        };
        if let Some(valid) = facts.optional(6) {
            signature::indices(facts, valid)?;
            signature::shape(facts, valid, &[q.batch])?;
            if past > 0 {
                return Err(facts.invalid("nonpad_kv_seqlen excludes past keys"));
            }
        }
        let window = |name: &str| match facts.node.int(name, -1)? {
            -1 => Ok(None),
            w if w >= 0 => Ok(Some(w)),
            w => Err(facts.invalid(format!("{name} is {w}"))),
        };
        let scale = match facts.node.attributes.contains_key("scale") {
            true => f64::from(facts.node.float("scale", 0.0)?),
            false => 1.0 / (q.size as f64).sqrt(),
        };
        let stage = facts.node.int("qk_matmul_output_mode", 0)?;
        if !(0..=3).contains(&stage) {
            return Err(facts.invalid(format!("qk_matmul_output_mode is {stage}")));
        }
        if facts.node.attributes.contains_key("softmax_precision")
            && !by_number(facts.node.int("softmax_precision", 1)?).is_some_and(DType::is_float)
        {
            return Err(facts.invalid("softmax_precision is no float type"));
        }
        element_count(&[q.batch, q.heads, q.sequence, total])?;
        Ok(Plan {
            q,
            k,
            v,
            past,
            scale,
            softcap: facts.node.float("softcap", 0.0)?.into(),
            causal: signature::flag(facts, "is_causal", false)?,
            window: [window("left_window_size")?, window("right_window_size")?],
            stage,
            mask,
        })
    }

    fn keys(&self) -> usize {
        self.past + self.k.sequence
    }

    fn present(&self, heads: Heads) -> Vec<usize> {
        vec![heads.batch, heads.heads, self.keys(), heads.size]
    }

    /// Past and new rows of K or V as `[batch, heads, keys, size]`.
    fn joined(&self, heads: Heads, new: &[f64], past: &[f64]) -> Vec<f64> {
        let mut out = Vec::with_capacity(heads.batch * heads.heads * self.keys() * heads.size);
        for b in 0..heads.batch {
            for h in 0..heads.heads {
                let block = self.past * heads.size;
                out.extend_from_slice(&past[(b * heads.heads + h) * block..][..block]);
                for s in 0..heads.sequence {
                    out.extend_from_slice(&new[heads.at(b, h, s)..][..heads.size]);
                }
            }
        }
        out
    }

    /// Whether a query at `position` among all keys may see key `j`.
    fn sees(&self, position: i64, j: i64) -> bool {
        (!self.causal || j <= position)
            && self.window[0].is_none_or(|w| position.saturating_sub(j) <= w)
            && self.window[1].is_none_or(|w| j.saturating_sub(position) <= w)
    }
}

/// Probabilities of scores; zeros where all are -infinity.
fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return vec![0.0; scores.len()];
    }
    let exponentials: Vec<f64> = scores.iter().map(|s| libm::exp(s - max)).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

impl Op for Attention {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let mut attributes = vec!["is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale"];
        attributes.extend(["softcap", "softmax_precision"]);
        if facts.opset >= 25 {
            attributes.extend(["left_window_size", "right_window_size"]);
        }
        signature::check(facts, 3..=if facts.opset < 24 { 6 } else { 7 }, 1..=4, &attributes)?;
        let (q, v) = (facts.input(0)?, facts.input(2)?);
        signature::float(facts, q)?;
        signature::float(facts, v)?;
        let pairs = [(Some(q), facts.optional(1)), (Some(q), facts.optional(4)), (Some(v), facts.optional(5))];
        for (a, b) in pairs.into_iter().filter_map(|(a, b)| a.zip(b)) {
            signature::same_dtype(facts, a, b)?;
        }
        let plan = Plan::new(facts)?;
        let y = Heads { size: plan.v.size, ..plan.q }.shape();
        element_count(&y)?;
        let all = [
            (q.dtype, y),
            (q.dtype, plan.present(plan.k)),
            (v.dtype, plan.present(plan.v)),
            (q.dtype, vec![plan.q.batch, plan.q.heads, plan.q.sequence, plan.keys()]),
        ];
        all.iter().try_for_each(|(_, shape)| element_count(shape).map(drop))?;
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (plan, outputs) = (Plan::new(facts)?, facts.node.outputs.len());
        let shapes = [0, 1, 2].map(|i| facts.inputs[i].as_ref().map(|f| f.shape.clone()).unwrap_or_default());
        kernel(move |context, inputs| {
            let (q, k) = (shaped(inputs, 0, &shapes[0])?, shaped(inputs, 1, &shapes[1])?);
            let v = shaped(inputs, 2, &shapes[2])?;
            let past = |i: usize| optional(inputs, i).map(Tensor::to_f64).unwrap_or_default();
            let (queries, keys) = (q.to_f64(), plan.joined(plan.k, &k.to_f64(), &past(4)));
            let values = plan.joined(plan.v, &v.to_f64(), &past(5));
            let mask = optional(inputs, 3).map(|m| Mask::new(&plan, m)).transpose()?;
            let valid = optional(inputs, 6).map(Tensor::to_i64).transpose()?;
            let (count, size, width) = (plan.keys(), plan.q.size, plan.v.size);
            // The row of the result and, where it is read, that of the fourth output.
            let mut rows = vec![(Vec::new(), Vec::new()); plan.q.batch * plan.q.heads * plan.q.sequence];
            fill(context.engine(), &mut rows, 4, |start, part| {
                for (i, row) in part.iter_mut().enumerate() {
                    let (i, s) = ((start + i) / plan.q.sequence, (start + i) % plan.q.sequence);
                    let (b, h) = (i / plan.q.heads, i % plan.q.heads);
                    let kv = b * plan.k.heads + h / (plan.q.heads / plan.k.heads);
                    let query = &queries[plan.q.at(b, h, s)..][..size];
                    let valid = valid.as_ref().map(|v| v[b]);
                    let position =
                        s as i64 + valid.map_or(plan.past as i64, |v| v.saturating_sub(plan.q.sequence as i64));
                    let bias: Vec<f64> = (0..count)
                        .map(|j| {
                            let seen = plan.sees(position, j as i64) && valid.is_none_or(|v| (j as i64) < v);
                            let bias = mask.as_ref().map_or(0.0, |m| m.at([b, h, s, j]));
                            if seen { bias } else { f64::NEG_INFINITY }
                        })
                        .collect();
                    let mut scores: Vec<f64> = (0..count)
                        .map(|j| {
                            let key = &keys[(kv * count + j) * size..][..size];
                            plan.scale * query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>()
                        })
                        .collect();
                    let mut stages = vec![scores.clone()];
                    if plan.softcap > 0.0 {
                        scores.iter_mut().for_each(|s| *s = plan.softcap * libm::tanh(*s / plan.softcap));
                    }
                    stages.push(scores.clone());
                    scores.iter_mut().zip(&bias).for_each(|(s, b)| *s += b);
                    stages.push(scores.clone());
                    let blind = bias.iter().all(|&b| b == f64::NEG_INFINITY);
                    stages.push(if blind { vec![0.0; count] } else { softmax(&scores) });
                    row.0 = vec![0.0; width];
                    for (j, p) in stages[3].iter().enumerate() {
                        let value = &values[(kv * count + j) * width..][..width];
                        row.0.iter_mut().zip(value).for_each(|(y, v)| *y += p * v);
                    }
                    if outputs > 3 {
                        row.1 = stages.swap_remove(plan.stage as usize);
                    }
                }
            });
            let layout = Heads { size: width, ..plan.q };
            let mut y = vec![0.0; rows.len() * width];
            for (i, row) in rows.iter().enumerate() {
                let (i, s) = (i / plan.q.sequence, i % plan.q.sequence);
                y[layout.at(i / plan.q.heads, i % plan.q.heads, s)..][..width].copy_from_slice(&row.0);
            }
            let mut out = vec![floats::write_f64(&layout.shape(), y, q.dtype())?];
            if outputs > 1 {
                out.push(floats::write_f64(&plan.present(plan.k), keys, q.dtype())?);
            }
            if outputs > 2 {
                out.push(floats::write_f64(&plan.present(plan.v), values, v.dtype())?);
            }
            if outputs > 3 {
                let stage = rows.into_iter().flat_map(|r| r.1).collect();
                out.push(floats::write_f64(&[plan.q.batch, plan.q.heads, plan.q.sequence, count], stage, q.dtype())?);
            }
            Ok(out.into())
        })
    }
}

/// A mask as a bias; -infinity beyond its last column.
struct Mask {
    values: Vec<f64>,
    /// Size and step of each dimension of the scores; a size of 1 is repeated.
    dims: [(usize, usize); 4],
}

impl Mask {
    fn new(plan: &Plan, mask: &Tensor) -> Result<Self> {
        let shape = mask.shape();
        if plan.mask.as_deref() != Some(shape) {
            return Err(crate::Error::invalid("run_shape", format!("a mask of {shape:?} was not prepared for")));
        }
        let values = match mask.data() {
            Data::Bool(v) => v.iter().map(|&b| if b { 0.0 } else { f64::NEG_INFINITY }).collect(),
            _ => mask.to_f64(),
        };
        let mut dims = [(1, 0); 4];
        let mut step = 1;
        for (d, &size) in dims.iter_mut().rev().zip(shape.iter().rev()) {
            *d = (size, step);
            step *= size;
        }
        Ok(Mask { values, dims })
    }

    fn at(&self, place: [usize; 4]) -> f64 {
        if place[3] >= self.dims[3].0 {
            return f64::NEG_INFINITY;
        }
        let step = |(&p, &(size, step)): (&usize, &(usize, usize))| if size == 1 { 0 } else { p * step };
        self.values[place.iter().zip(&self.dims).map(step).sum::<usize>()]
    }
}

/// RotaryEmbedding: pairs of elements of each head are rotated by an angle that depends on the position; elements behind
/// `rotary_embedding_dim` stay.
pub struct RotaryEmbedding;

impl RotaryEmbedding {
    /// The heads and the rotated elements of each.
    fn plan(facts: &Facts<'_>) -> Result<(Heads, usize)> {
        let x = Heads::new(facts, facts.input(0)?, "num_heads")?;
        let rotated = facts.node.int("rotary_embedding_dim", 0)?;
        let rotated = if rotated == 0 { x.size } else { usize::try_from(rotated).unwrap_or(usize::MAX) };
        if rotated > x.size || rotated % 2 != 0 {
            return Err(facts.invalid(format!("{rotated} elements of heads of {} cannot be rotated", x.size)));
        }
        Ok((x, rotated))
    }
}

impl Op for RotaryEmbedding {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 3..=4, 1..=1, &["interleaved", "num_heads", "rotary_embedding_dim"])?;
        signature::flag(facts, "interleaved", false)?;
        let (x, cos, sin) = (facts.input(0)?, facts.input(1)?, facts.input(2)?);
        signature::float(facts, x)?;
        signature::same_dtype(facts, x, cos)?;
        signature::same_dtype(facts, x, sin)?;
        let (heads, rotated) = Self::plan(facts)?;
        let expected = match facts.optional(3) {
            None => vec![heads.batch, heads.sequence, rotated / 2],
            Some(positions) => {
                signature::indices(facts, positions)?;
                signature::shape(facts, positions, &[heads.batch, heads.sequence])?;
                vec![cos.shape.first().copied().unwrap_or(0), rotated / 2]
            }
        };
        signature::shape(facts, cos, &expected)?;
        signature::shape(facts, sin, &expected)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (heads, rotated) = Self::plan(facts)?;
        let interleaved = signature::flag(facts, "interleaved", false)?;
        let (shape, table) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let (cos, sin) = (shaped(inputs, 1, &table)?.to_f64(), shaped(inputs, 2, &table)?.to_f64());
            let rows = match optional(inputs, 3) {
                Some(positions) => super::gather::resolve(positions, table[0])?,
                None => (0..heads.batch * heads.sequence).collect(),
            };
            let (half, mut y) = (rotated / 2, x.to_f64());
            for (token, row) in rows.into_iter().enumerate() {
                for h in 0..heads.heads {
                    let at = heads.at(token / heads.sequence, h, token % heads.sequence);
                    for i in 0..half {
                        let (a, b) = if interleaved { (at + 2 * i, at + 2 * i + 1) } else { (at + i, at + half + i) };
                        let (c, s, u, v) = (cos[row * half + i], sin[row * half + i], y[a], y[b]);
                        (y[a], y[b]) = (c * u - s * v, s * u + c * v);
                    }
                }
            }
            Ok([floats::write_f64(&shape, y, x.dtype())?].into())
        })
    }
}
