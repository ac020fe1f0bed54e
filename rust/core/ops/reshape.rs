//! Operators that give a tensor another shape: Reshape, Flatten, Squeeze, Unsqueeze, Identity and Dropout at inference.

use super::closure::{input, kernel};
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::Result;
use crate::tensor::{DType, Data, Shape, Tensor, element_count};

/// How the output's shape follows from the input's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reshape {
    /// By a list with 0 (keep) and -1 (what remains).
    Reshape,
    /// Two dimensions, split before `axis`.
    Flatten,
    /// Dimensions of size 1 are dropped.
    Squeeze,
    /// Dimensions of size 1 are added.
    Unsqueeze,
    /// The same.
    Identity,
}

impl Reshape {
    fn shape(self, facts: &Facts<'_>, x: &[usize]) -> Result<Vec<usize>> {
        match self {
            Reshape::Reshape => reshape(facts, x),
            Reshape::Flatten => {
                let split = axis::normalize_split(facts, facts.node.int("axis", 1)?, x.len())?;
                Ok(vec![x[..split].iter().product(), x[split..].iter().product()])
            }
            Reshape::Squeeze => {
                let axes = match signature::ints_by_opset(facts, "axes", 1, 13)? {
                    None => (0..x.len()).filter(|&i| x[i] == 1).collect(),
                    Some(axes) => axis::normalize_all(facts, &axes, x.len())?,
                };
                if let Some(a) = axes.iter().find(|&&a| x[a] != 1) {
                    return Err(facts.invalid(format!("axis {a} of {x:?} is not 1 and cannot be dropped")));
                }
                Ok((0..x.len()).filter(|i| !axes.contains(i)).map(|i| x[i]).collect())
            }
            Reshape::Unsqueeze => {
                let axes = signature::ints_by_opset(facts, "axes", 1, 13)?
                    .ok_or_else(|| facts.invalid("'axes' is missing"))?;
                let rank = x.len() + axes.len();
                let axes = axis::normalize_all(facts, &axes, rank)?;
                let mut rest = x.iter();
                Ok((0..rank).map(|i| if axes.contains(&i) { 1 } else { *rest.next().unwrap_or(&1) }).collect())
            }
            Reshape::Identity => Ok(x.to_vec()),
        }
    }
}

fn reshape(facts: &Facts<'_>, x: &[usize]) -> Result<Vec<usize>> {
    let wanted = if facts.opset < 5 {
        facts.node.ints("shape")?.ok_or_else(|| facts.invalid("attribute 'shape' is missing"))?.to_vec()
    } else {
        signature::constant_ints(facts, 1)?
    };
    let allow_zero = signature::flag(facts, "allowzero", false)?;
    if allow_zero && wanted.contains(&0) && wanted.contains(&-1) {
        return Err(facts.invalid(format!("shape {wanted:?} holds 0 and -1 while allowzero is set")));
    }
    let mut free = None;
    let mut shape = Vec::with_capacity(wanted.len());
    for (i, &d) in wanted.iter().enumerate() {
        shape.push(match d {
            -1 if free.replace(i).is_none() => 1,
            0 if !allow_zero => {
                *x.get(i).ok_or_else(|| facts.invalid(format!("shape {wanted:?} keeps dimension {i} of {x:?}")))?
            }
            d => usize::try_from(d).map_err(|_| facts.invalid(format!("shape {wanted:?} is not possible")))?,
        });
    }
    let (have, want) = (element_count(x)?, element_count(&shape)?);
    if let Some(i) = free {
        if want == 0 || have % want != 0 {
            return Err(facts.invalid(format!("{have} elements cannot take the shape {wanted:?}")));
        }
        shape[i] = have / want;
    } else if have != want {
        return Err(facts.invalid(format!("{have} elements cannot take the shape {wanted:?}")));
    }
    Ok(shape)
}

impl Op for Reshape {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let old = facts.opset < 13;
        let (inputs, attributes): (_, &[&str]) = match self {
            Reshape::Reshape if facts.opset < 5 => (1..=1, &["shape"]),
            Reshape::Reshape if facts.opset < 14 => (2..=2, &[]),
            Reshape::Reshape => (2..=2, &["allowzero"]),
            Reshape::Flatten => (1..=1, &["axis"]),
            Reshape::Squeeze | Reshape::Unsqueeze if old => (1..=1, &["axes"]),
            Reshape::Squeeze => (1..=2, &[]),
            Reshape::Unsqueeze => (2..=2, &[]),
            Reshape::Identity => (1..=1, &[]),
        };
        signature::check(facts, inputs, 1..=1, attributes)?;
        let x = facts.input(0)?;
        let shape = self.shape(facts, &x.shape)?;
        element_count(&shape)?;
        Ok(vec![(x.dtype, shape)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let shape = Shape::from(self.shape(facts, &facts.input(0)?.shape)?);
        kernel(move |context, inputs| {
            Ok([Tensor::new(shape.clone(), context.copy(0, input(inputs, 0)?.data()))?].into())
        })
    }
}

/// Dropout at inference: the input itself, and a mask of ones where it is read.
pub struct Dropout;

impl Op for Dropout {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let (inputs, attributes): (_, &[&str]) = match facts.opset {
            ..7 => (1..=1, &["ratio", "is_test"]),
            7..12 => (1..=1, &["ratio"]),
            _ => (1..=3, &["seed"]),
        };
        signature::check(facts, inputs, 1..=2, attributes)?;
        if facts.opset < 7 && !signature::flag(facts, "is_test", false)? {
            return Err(facts.unsupported("dropout in training mode is not supported"));
        }
        facts.node.float("ratio", 0.5)?;
        facts.node.int("seed", 0)?;
        if facts.optional(2).is_some() && facts.constant(2)?.to_f64().first() != Some(&0.0) {
            return Err(facts.unsupported("dropout in training mode is not supported"));
        }
        let x = facts.input(0)?;
        let mask = if facts.opset < 10 { x.dtype } else { DType::Bool };
        if mask != DType::Bool && facts.node.outputs.get(1).is_some_and(Option::is_some) {
            return Err(facts.unsupported("the mask of dropout before opset 10 is not supported"));
        }
        let all = [(x.dtype, x.shape.clone()), (mask, x.shape.clone())];
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let with_mask = facts.node.outputs.len() > 1;
        kernel(move |_, inputs| {
            let x = input(inputs, 0)?;
            let mut out = vec![x.clone()];
            if with_mask {
                out.push(Tensor::new(x.shape(), Data::Bool(vec![true; x.len()].into()))?);
            }
            Ok(out.into())
        })
    }
}
