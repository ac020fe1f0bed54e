//! Gather, GatherElements and GatherND. They move any type; an index outside the axis is an error.

use super::closure::{kernel, shaped};
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::{Error, Result};
use crate::map_data;
use crate::tensor::{Tensor, element_count, strides};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gather {
    /// Slices along an axis, by index.
    Slices,
    /// One element per index; the other coordinates are those of the index.
    Elements,
}

impl Gather {
    fn plan(self, facts: &Facts<'_>) -> Result<(usize, Vec<usize>)> {
        let (x, indices) = (facts.input(0)?, facts.input(1)?);
        signature::indices(facts, indices)?;
        let axis = axis::normalize(facts, facts.node.int("axis", 0)?, x.shape.len())?;
        let shape = match self {
            Gather::Slices => [&x.shape[..axis], &indices.shape, &x.shape[axis + 1..]].concat(),
            Gather::Elements => {
                let fits = indices.shape.len() == x.shape.len()
                    && (0..x.shape.len()).all(|d| d == axis || indices.shape[d] <= x.shape[d]);
                if !fits {
                    return Err(facts.invalid(format!("indices of {:?} do not fit {:?}", indices.shape, x.shape)));
                }
                indices.shape.clone()
            }
        };
        element_count(&shape)?;
        Ok((axis, shape))
    }
}

/// An index into a dimension of `size` elements; negative ones count from the back.
pub(super) fn resolve_one(i: i64, size: usize) -> Result<usize> {
    usize::try_from(if i < 0 { i.saturating_add(size as i64) } else { i })
        .ok()
        .filter(|&u| u < size)
        .ok_or_else(|| Error::invalid("index_range", format!("index {i} is outside a dimension of {size} elements")))
}

/// Indices into a dimension of `size` elements.
pub(super) fn resolve(indices: &Tensor, size: usize) -> Result<Vec<usize>> {
    indices.to_i64()?.into_iter().map(|i| resolve_one(i, size)).collect()
}

/// Indices of slices whose first coordinates form the last dimension of `indices`: for each tuple, the first element
/// of the slice in a tensor whose dimensions behind the batch are `shape`.
pub(super) fn resolve_tuples(indices: &Tensor, shape: &[usize]) -> Result<Vec<usize>> {
    let depth = indices.shape().last().copied().unwrap_or(0);
    let (steps, values) = (strides(shape), indices.to_i64()?);
    if depth == 0 {
        return Ok(vec![0; element_count(&indices.shape()[..indices.shape().len().saturating_sub(1)])?]);
    }
    let place = |tuple: &[i64]| {
        let coordinates = tuple.iter().zip(shape).zip(&steps);
        coordinates.map(|((&i, &size), &step)| Ok(resolve_one(i, size)? * step)).sum()
    };
    values.chunks_exact(depth).map(place).collect()
}

impl Op for Gather {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["axis"])?;
        Ok(vec![(facts.input(0)?.dtype, self.plan(facts)?.1)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (axis, out) = self.plan(facts)?;
        let (shape, index_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        let this = *self;
        kernel(move |_, inputs| {
            let (x, indices) = (shaped(inputs, 0, &shape)?, shaped(inputs, 1, &index_shape)?);
            let (outer, size, inner) = axis::around(&shape, axis);
            let indices = resolve(indices, size)?;
            let data = match this {
                Gather::Slices => map_data!(x.data(), v => {
                    let mut y = Vec::with_capacity(outer * indices.len() * inner);
                    for o in 0..outer {
                        for &i in &indices {
                            y.extend_from_slice(&v[(o * size + i) * inner..][..inner]);
                        }
                    }
                    y.into()
                }),
                Gather::Elements => {
                    let steps = strides(&shape);
                    let sources = indices.iter().enumerate().map(|(position, &index)| {
                        let mut rest = position;
                        let mut source = index * steps[axis];
                        for d in (0..shape.len()).rev() {
                            if d != axis {
                                source += rest % index_shape[d] * steps[d];
                            }
                            rest /= index_shape[d];
                        }
                        source
                    });
                    map_data!(x.data(), v => sources.map(|s| v[s]).collect())
                }
            };
            Ok([Tensor::new(out.clone(), data)?].into())
        })
    }
}

/// GatherND: slices by tuples of indices, which are the last dimension of the second input; the first `batch_dims`
/// dimensions of both inputs go together.
pub struct GatherNd;

/// Sizes of a GatherND node.
struct TuplePlan {
    batches: usize,
    /// Dimensions that tuples point into, and those of a slice.
    inner: Vec<usize>,
    slice: usize,
    output: Vec<usize>,
}

impl GatherNd {
    fn plan(facts: &Facts<'_>) -> Result<TuplePlan> {
        let (x, indices) = (facts.input(0)?, facts.input(1)?);
        signature::indices(facts, indices)?;
        let Some((&depth, outer)) = indices.shape.split_last() else {
            return Err(facts.invalid("the indices are a scalar"));
        };
        let batch = facts.node.int("batch_dims", 0)?;
        let batch = usize::try_from(batch)
            .ok()
            .filter(|&b| b <= outer.len() && b <= x.shape.len() && x.shape[..b] == outer[..b])
            .ok_or_else(|| {
                facts.invalid(format!("{:?} and {:?} have no {batch} batch dimensions", x.shape, indices.shape))
            })?;
        let inner = x.shape[batch..].to_vec();
        if depth > inner.len() {
            return Err(facts.invalid(format!("tuples of {depth} indices do not fit {inner:?}")));
        }
        let output = [outer, &inner[depth..]].concat();
        element_count(&output)?;
        let (batches, slice) = (outer[..batch].iter().product(), inner[depth..].iter().product());
        Ok(TuplePlan { batches, inner, slice, output })
    }
}

impl Op for GatherNd {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes: &[&str] = if facts.opset < 12 { &[] } else { &["batch_dims"] };
        signature::check(facts, 2..=2, 1..=1, attributes)?;
        Ok(vec![(facts.input(0)?.dtype, Self::plan(facts)?.output)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let plan = Self::plan(facts)?;
        let (shape, index_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        kernel(move |_, inputs| {
            let (x, indices) = (shaped(inputs, 0, &shape)?, shaped(inputs, 1, &index_shape)?);
            let places = resolve_tuples(indices, &plan.inner)?;
            let (per_batch, block) = (places.len() / plan.batches.max(1), plan.inner.iter().product::<usize>());
            let data = map_data!(x.data(), v => {
                let mut y = Vec::with_capacity(places.len() * plan.slice);
                for (i, place) in places.iter().enumerate() {
                    y.extend_from_slice(&v[i / per_batch * block + place..][..plan.slice]);
                }
                y.into()
            });
            Ok([Tensor::new(plan.output.clone(), data)?].into())
        })
    }
}
