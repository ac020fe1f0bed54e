//! OneHot and Hardmax: a one among zeros along an axis.

use super::closure::{kernel, shaped};
use super::element::{Element, Real, by_class};
use super::softmax;
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::{Error, Result};
use crate::map_data;
use crate::tensor::{DType, Data, Tensor, element_count};

/// OneHot: an axis of `depth` elements is added; along it, the element at the index has the second of the two values,
/// the others the first. Negative indices count from the back; one outside of `-depth..depth` marks no element.
pub struct OneHot;

impl OneHot {
    /// Place of the new axis, its size and the output's shape.
    fn plan(facts: &Facts<'_>) -> Result<(usize, usize, Vec<usize>)> {
        let indices = facts.input(0)?;
        let depth = facts.constant(1)?.to_f64();
        let [depth] = depth[..] else { return Err(facts.invalid("the depth is no scalar")) };
        if !(depth >= 1.0 && depth < (1u64 << 32) as f64) {
            return Err(facts.invalid(format!("a depth of {depth} is not possible")));
        }
        let at = axis::normalize(facts, facts.node.int("axis", -1)?, indices.shape.len() + 1)?;
        let mut shape = indices.shape.clone();
        shape.insert(at, depth as usize);
        element_count(&shape)?;
        Ok((at, depth as usize, shape))
    }
}

impl Op for OneHot {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 3..=3, 1..=1, &["axis"])?;
        let values = facts.input(2)?;
        signature::shape(facts, values, &[2])?;
        for i in 0..2 {
            if facts.input(i)?.dtype == DType::Bool {
                return Err(facts.invalid(format!("input {i} is bool, numbers are expected")));
            }
        }
        Ok(vec![(values.dtype, Self::plan(facts)?.2)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Element>(values: &[T], indices: &[f64], inner: usize, depth: usize, count: usize) -> Vec<T> {
            let mut y = vec![values[0]; count];
            for (i, &index) in indices.iter().enumerate() {
                let place = if index < 0.0 { index + depth as f64 } else { index };
                if place >= 0.0 && place < depth as f64 {
                    y[(i / inner * depth + place as usize) * inner + i % inner] = values[1];
                }
            }
            y
        }
        let (at, depth, shape) = Self::plan(facts)?;
        let index_shape = facts.input(0)?.shape.clone();
        let inner: usize = index_shape[at..].iter().product();
        kernel(move |_, inputs| {
            // Indices are numbers of any type; those that count are far below what f64 holds exactly.
            let indices: Vec<f64> = shaped(inputs, 0, &index_shape)?.to_f64().into_iter().map(f64::trunc).collect();
            let (values, count) = (shaped(inputs, 2, &[2])?, element_count(&shape)?);
            let data = map_data!(values.data(), v => typed(v, &indices, inner, depth, count).into());
            Ok([Tensor::new(shape.clone(), data)?].into())
        })
    }
}

/// Hardmax: one at the first largest element of a row, zeros elsewhere. Rows are those of Softmax.
pub struct Hardmax;

impl Op for Hardmax {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["axis"])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        softmax::rows(facts)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Real>(x: &[T], (outer, row, inner): (usize, usize, usize)) -> Data {
            let mut y = vec![T::default(); x.len()];
            for line in 0..if row == 0 { 0 } else { outer * inner } {
                let at = |i: usize| line / inner * row * inner + i * inner + line % inner;
                let best = (1..row).fold(0, |best, i| if x[at(i)] > x[at(best)] { i } else { best });
                y[at(best)] = T::from_f64(1.0);
            }
            T::wrap(y)
        }
        let rows = softmax::rows(facts)?;
        let shape = facts.input(0)?.shape.clone();
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let data = by_class!(x.data(), v =>
                real typed(v, rows),
                integer return Err(Error::invalid("tensor_dtype", format!("{} integers, not floats", v.len()))),
                boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans, not floats", v.len()))),
            );
            Ok([Tensor::new(shape.clone(), data)?].into())
        })
    }
}
