//! Gather and GatherElements. They move any type; an index outside the axis is an error.

use super::closure::{kernel, shaped};
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::{Error, Result};
use crate::map_data;
use crate::tensor::{DType, Tensor, element_count};

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
        if !matches!(indices.dtype, DType::I32 | DType::I64) {
            return Err(facts.invalid(format!("'{}' is {}, int32 or int64 is expected", indices.name, indices.dtype)));
        }
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

fn resolve(indices: &Tensor, size: usize) -> Result<Vec<usize>> {
    let resolved = |&i: &i64| {
        usize::try_from(if i < 0 { i.saturating_add(size as i64) } else { i }).ok().filter(|&u| u < size).ok_or_else(
            || Error::invalid("index_range", format!("index {i} is outside a dimension of {size} elements")),
        )
    };
    indices.to_i64()?.iter().map(resolved).collect()
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
                    y
                }),
                Gather::Elements => {
                    let steps = crate::tensor::strides(&shape);
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
            Ok(vec![Tensor::new(out.clone(), data)?])
        })
    }
}
