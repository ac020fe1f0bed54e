//! ScatterElements (Scatter), ScatterND and TensorScatter: a copy of a tensor with some elements replaced. Updates are
//! applied in order; without a reduction they move any type.

use super::closure::{kernel, optional, shaped};
use super::element::{Integer, Real, by_class};
use super::gather::{resolve, resolve_one, resolve_tuples};
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor, element_count, strides};
use crate::{map_data, with_data};

/// How an update meets what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    Replace,
    Add,
    Mul,
    Min,
    Max,
}

impl Reduction {
    fn from_node(facts: &Facts<'_>) -> Result<Self> {
        let reduction = match facts.node.string("reduction", "none")? {
            "none" => return Ok(Reduction::Replace),
            "add" => Reduction::Add,
            "mul" => Reduction::Mul,
            "min" if facts.opset >= 18 => Reduction::Min,
            "max" if facts.opset >= 18 => Reduction::Max,
            other => return Err(facts.invalid(format!("reduction '{other}' is not known"))),
        };
        if facts.input(0)?.dtype == DType::Bool {
            return Err(facts.unsupported("booleans are replaced only"));
        }
        Ok(reduction)
    }

    fn real(self, old: f64, new: f64) -> f64 {
        match self {
            Reduction::Replace => new,
            Reduction::Add => old + new,
            Reduction::Mul => old * new,
            Reduction::Min if old.is_nan() || old < new => old,
            Reduction::Max if old.is_nan() || old > new => old,
            Reduction::Min | Reduction::Max => new,
        }
    }

    fn integer(self, old: i128, new: i128) -> i128 {
        match self {
            Reduction::Replace => new,
            Reduction::Add => old + new,
            Reduction::Mul => old.wrapping_mul(new),
            Reduction::Min => old.min(new),
            Reduction::Max => old.max(new),
        }
    }

    /// Applies update `i`, a block of `block` elements, at place `places[i]`, for each `i`.
    fn apply(self, x: &Tensor, updates: &Tensor, places: &[usize], block: usize) -> Result<Tensor> {
        fn reals<T: Real>(y: &mut [T], updates: &Data, places: &[usize], block: usize, op: Reduction) -> Option<()> {
            let updates = T::view(updates)?;
            for (at, update) in places.iter().zip(updates.chunks_exact(block.max(1))) {
                for (y, u) in y[*at..].iter_mut().zip(update) {
                    *y = T::from_f64(op.real(y.to_f64(), u.to_f64()));
                }
            }
            Some(())
        }
        fn integers<T: Integer>(
            y: &mut [T],
            updates: &Data,
            places: &[usize],
            block: usize,
            op: Reduction,
        ) -> Option<()> {
            let updates = T::view(updates)?;
            for (at, update) in places.iter().zip(updates.chunks_exact(block.max(1))) {
                for (y, u) in y[*at..].iter_mut().zip(update) {
                    *y = T::wrapping_from(op.integer(y.to_i128(), u.to_i128()));
                }
            }
            Some(())
        }
        fn replace<T: super::element::Element>(
            y: &mut [T],
            updates: &Data,
            places: &[usize],
            block: usize,
        ) -> Option<()> {
            let updates = T::view(updates)?;
            for (at, update) in places.iter().zip(updates.chunks_exact(block.max(1))) {
                y[*at..*at + update.len()].copy_from_slice(update);
            }
            Some(())
        }
        let mut out = x.clone();
        if block == 0 {
            return Ok(out);
        }
        let done = match self {
            Reduction::Replace => with_data!(out.data_mut(), y => replace(y, updates.data(), places, block)),
            _ => by_class!(out.data_mut(), y =>
                real reals(y, updates.data(), places, block, self),
                integer integers(y, updates.data(), places, block, self),
                boolean y.first().and(None),
            ),
        };
        done.ok_or_else(|| Error::invalid("tensor_dtype", "updates and data must be of one type"))?;
        Ok(out)
    }
}

/// ScatterElements: element `i` of the updates goes to the coordinates of `i`, with the index in place of `axis`.
pub struct ScatterElements;

impl Op for ScatterElements {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes: &[&str] = if facts.opset < 16 { &["axis"] } else { &["axis", "reduction"] };
        signature::check(facts, 3..=3, 1..=1, attributes)?;
        let (x, indices, updates) = (facts.input(0)?, facts.input(1)?, facts.input(2)?);
        signature::indices(facts, indices)?;
        signature::same_dtype(facts, x, updates)?;
        signature::shape(facts, updates, &indices.shape)?;
        Reduction::from_node(facts)?;
        let axis = axis::normalize(facts, facts.node.int("axis", 0)?, x.shape.len())?;
        let fits = indices.shape.len() == x.shape.len()
            && (0..x.shape.len()).all(|d| d == axis || indices.shape[d] <= x.shape[d]);
        if !fits {
            return Err(facts.invalid(format!("indices of {:?} do not fit {:?}", indices.shape, x.shape)));
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let reduction = Reduction::from_node(facts)?;
        let (shape, index_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        let axis = axis::normalize(facts, facts.node.int("axis", 0)?, shape.len())?;
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let (indices, updates) = (shaped(inputs, 1, &index_shape)?, shaped(inputs, 2, &index_shape)?);
            let steps = strides(&shape);
            let place = |(position, index): (usize, usize)| {
                let (mut rest, mut at) = (position, index * steps[axis]);
                for d in (0..shape.len()).rev() {
                    if d != axis {
                        at += rest % index_shape[d] * steps[d];
                    }
                    rest /= index_shape[d];
                }
                at
            };
            let places: Vec<usize> = resolve(indices, shape[axis])?.into_iter().enumerate().map(place).collect();
            Ok([reduction.apply(x, updates, &places, 1)?].into())
        })
    }
}

/// ScatterND: slices of the updates go to the tuples of indices in the last dimension of the second input.
pub struct ScatterNd;

impl Op for ScatterNd {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes: &[&str] = if facts.opset < 16 { &[] } else { &["reduction"] };
        signature::check(facts, 3..=3, 1..=1, attributes)?;
        let (x, indices, updates) = (facts.input(0)?, facts.input(1)?, facts.input(2)?);
        signature::indices(facts, indices)?;
        signature::same_dtype(facts, x, updates)?;
        Reduction::from_node(facts)?;
        let Some((&depth, outer)) = indices.shape.split_last() else {
            return Err(facts.invalid("the indices are a scalar"));
        };
        if depth > x.shape.len() {
            return Err(facts.invalid(format!("tuples of {depth} indices do not fit {:?}", x.shape)));
        }
        signature::shape(facts, updates, &[outer, &x.shape[depth..]].concat())?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let reduction = Reduction::from_node(facts)?;
        let shape = facts.input(0)?.shape.clone();
        let (index_shape, update_shape) = (facts.input(1)?.shape.clone(), facts.input(2)?.shape.clone());
        let depth = index_shape.last().copied().unwrap_or(0);
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let (indices, updates) = (shaped(inputs, 1, &index_shape)?, shaped(inputs, 2, &update_shape)?);
            let places = resolve_tuples(indices, &shape)?;
            Ok([reduction.apply(x, updates, &places, element_count(&shape[depth..])?)?].into())
        })
    }
}

/// TensorScatter: per batch, the update replaces a run along `axis` that begins at the write index (0 without one); in
/// mode `circular` the run goes on at the beginning. Moves any type.
pub struct TensorScatter;

impl TensorScatter {
    fn plan(facts: &Facts<'_>) -> Result<(usize, bool)> {
        let (x, update) = (facts.input(0)?, facts.input(1)?);
        let axis = axis::normalize(facts, facts.node.int("axis", -2)?, x.shape.len())?;
        if axis == 0 {
            return Err(facts.invalid("the axis cannot be the batch"));
        }
        let mut fits = update.shape.len() == x.shape.len();
        fits = fits
            && (0..x.shape.len()).all(|d| update.shape[d] == x.shape[d] || (d == axis && update.shape[d] < x.shape[d]));
        if !fits {
            return Err(facts.invalid(format!("an update of {:?} does not fit {:?}", update.shape, x.shape)));
        }
        match facts.node.string("mode", "linear")? {
            "linear" => Ok((axis, false)),
            "circular" => Ok((axis, true)),
            other => Err(facts.invalid(format!("mode '{other}' is neither 'linear' nor 'circular'"))),
        }
    }
}

impl Op for TensorScatter {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=3, 1..=1, &["axis", "mode"])?;
        let x = facts.input(0)?;
        signature::same_dtype(facts, x, facts.input(1)?)?;
        Self::plan(facts)?;
        if let Some(starts) = facts.optional(2) {
            signature::indices(facts, starts)?;
            signature::shape(facts, starts, &x.shape[..1])?;
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (axis, circular) = Self::plan(facts)?;
        let (shape, update_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        kernel(move |_, inputs| {
            let (x, update) = (shaped(inputs, 0, &shape)?, shaped(inputs, 1, &update_shape)?);
            let starts = match optional(inputs, 2) {
                Some(starts) => starts.to_i64()?,
                None => vec![0; shape[0]],
            };
            let (size, run) = (shape[axis], update_shape[axis]);
            let (_, _, inner) = axis::around(&shape, axis);
            let lines: usize = shape[1..axis].iter().product();
            let mut places = Vec::with_capacity(shape[0] * lines * run);
            for (batch, &start) in starts.iter().enumerate() {
                // A run of no elements may begin behind the last one.
                let start = if run == 0 { 0 } else { resolve_one(start, size)? };
                if start + run > size && !circular {
                    let message = format!("{run} elements from {start} on leave a dimension of {size}");
                    return Err(Error::invalid("index_range", message));
                }
                for line in 0..lines {
                    places.extend((0..run).map(|i| ((batch * lines + line) * size + (start + i) % size) * inner));
                }
            }
            Ok([Reduction::Replace.apply(x, update, &places, inner)?].into())
        })
    }
}

/// ReverseSequence: of each batch, the first elements along the time axis are reversed, as many as `sequence_lens` says.
/// Moves any type.
pub struct ReverseSequence;

impl ReverseSequence {
    fn axes(facts: &Facts<'_>) -> Result<(usize, usize)> {
        let (batch, time) = (facts.node.int("batch_axis", 1)?, facts.node.int("time_axis", 0)?);
        match (batch, time) {
            (0, 1) if facts.input(0)?.shape.len() >= 2 => Ok((0, 1)),
            (1, 0) if facts.input(0)?.shape.len() >= 2 => Ok((1, 0)),
            _ => Err(facts.invalid(format!("batch axis {batch} and time axis {time} are not the first two axes"))),
        }
    }
}

impl Op for ReverseSequence {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["batch_axis", "time_axis"])?;
        let (x, lengths) = (facts.input(0)?, facts.input(1)?);
        let (batch, _) = Self::axes(facts)?;
        signature::indices(facts, lengths)?;
        signature::shape(facts, lengths, &x.shape[batch..=batch])?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (batch, time) = Self::axes(facts)?;
        let shape = facts.input(0)?.shape.clone();
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let lengths = shaped(inputs, 1, &shape[batch..=batch])?.to_i64()?;
            let length = |&l: &i64| usize::try_from(l).ok().filter(|&l| l <= shape[time]);
            let lengths: Option<Vec<usize>> = lengths.iter().map(length).collect();
            let lengths = lengths.ok_or_else(|| {
                Error::invalid("index_range", format!("a sequence length is outside 0..={}", shape[time]))
            })?;
            let inner: usize = shape[2..].iter().product();
            let source = |row: usize| {
                let (first, second) = (row / shape[1], row % shape[1]);
                let (t, b) = if time == 0 { (first, second) } else { (second, first) };
                let from = if t < lengths[b] { lengths[b] - 1 - t } else { t };
                if time == 0 { from * shape[1] + b } else { b * shape[1] + from }
            };
            let data = map_data!(x.data(), v => {
                let mut y = Vec::with_capacity(v.len());
                for row in 0..shape[0] * shape[1] {
                    y.extend_from_slice(&v[source(row) * inner..][..inner]);
                }
                y.into()
            });
            Ok([Tensor::new(shape.clone(), data)?].into())
        })
    }
}
