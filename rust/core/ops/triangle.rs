//! Trilu and EyeLike: diagonals of matrices.

use super::cast::{by_number, cast};
use super::closure::{kernel, shaped};
use super::element::Element;
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::Result;
use crate::map_data;
use crate::tensor::{DType, Data, Tensor, element_count};

/// Trilu: the upper or lower triangle of each matrix, bounded by diagonal `k`; zeros elsewhere. Moves any type.
pub struct Trilu;

impl Trilu {
    fn diagonal(facts: &Facts<'_>) -> Result<i64> {
        if facts.optional(1).is_none() {
            return Ok(0);
        }
        match facts.constant(1)?.as_i64()? {
            [k] => Ok(*k),
            other => Err(facts.invalid(format!("k has {} elements, a scalar is expected", other.len()))),
        }
    }
}

impl Op for Trilu {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=2, 1..=1, &["upper"])?;
        signature::flag(facts, "upper", true)?;
        Self::diagonal(facts)?;
        let x = facts.input(0)?;
        if x.shape.len() < 2 {
            return Err(facts.invalid(format!("'{}' has shape {:?}: no matrix", x.name, x.shape)));
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Element>(x: &[T], rows: usize, columns: usize, kept: impl Fn(i64) -> bool) -> Vec<T> {
            let value = |(i, &v): (usize, &T)| {
                let distance = (i % columns) as i64 - (i / columns % rows) as i64;
                if kept(distance) { v } else { T::default() }
            };
            x.iter().enumerate().map(value).collect()
        }
        let (k, upper) = (Self::diagonal(facts)?, signature::flag(facts, "upper", true)?);
        let shape = facts.input(0)?.shape.clone();
        let (rows, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let kept = |distance: i64| if upper { distance >= k } else { distance <= k };
            Ok([Tensor::new(shape.clone(), map_data!(x.data(), v => typed(v, rows, columns, kept).into()))?].into())
        })
    }
}

/// EyeLike: ones on diagonal `k` of a matrix as large as the input, zeros elsewhere. Its kernel needs no inputs.
pub struct EyeLike;

impl EyeLike {
    fn dtype(facts: &Facts<'_>) -> Result<DType> {
        match facts.node.attributes.contains_key("dtype") {
            false => Ok(facts.input(0)?.dtype),
            true => by_number(facts.node.int("dtype", 0)?)
                .ok_or_else(|| facts.unsupported("the attribute 'dtype' names no supported type")),
        }
    }
}

impl Op for EyeLike {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["dtype", "k"])?;
        facts.node.int("k", 0)?;
        let x = facts.input(0)?;
        if x.shape.len() != 2 {
            return Err(facts.invalid(format!("'{}' has shape {:?}: no matrix", x.name, x.shape)));
        }
        Ok(vec![(Self::dtype(facts)?, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (k, dtype) = (facts.node.int("k", 0)?, Self::dtype(facts)?);
        let shape = facts.input(0)?.shape.clone();
        kernel(move |context, _| {
            let (count, columns) = (element_count(&shape)?, shape[1]);
            let one = |i: usize| (i % columns) as i64 - (i / columns) as i64 == k;
            let ones = Data::Bool((0..count).map(one).collect());
            Ok([Tensor::new(shape.clone(), cast(context.engine(), &ones, dtype)?)?].into())
        })
    }

    fn depends_on_shapes_alone(&self) -> bool {
        true
    }
}
