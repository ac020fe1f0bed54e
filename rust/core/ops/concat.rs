//! Concat and Split. They move any type.

use super::closure::{input, kernel, shaped};
use super::element::Element;
use super::{Facts, Inferred, Kernel, Op, RunContext, axis, signature};
use crate::error::{Error, Result};
use crate::map_data;
use crate::tensor::{Data, Elements, Shape, Tensor, View, element_count};
use smallvec::SmallVec;

/// Concat. On codes, all inputs must have one grid.
pub struct Concat;

impl Concat {
    fn plan(facts: &Facts<'_>) -> Result<(usize, Vec<usize>)> {
        let first = facts.input(0)?;
        let attribute = match facts.node.attributes.contains_key("axis") {
            true => facts.node.int("axis", 0)?,
            false if facts.opset < 4 => 1,
            false => return Err(facts.invalid("attribute 'axis' is missing")),
        };
        let axis = axis::normalize(facts, attribute, first.shape.len())?;
        let mut shape = first.shape.clone();
        for i in 1..facts.inputs.len() {
            let fact = facts.input(i)?;
            signature::same_dtype(facts, first, fact)?;
            let fits = fact.shape.len() == shape.len()
                && (0..shape.len()).all(|d| d == axis || fact.shape[d] == first.shape[d]);
            if !fits {
                let (a, b) = (&first.shape, &fact.shape);
                return Err(facts.invalid(format!("{a:?} and {b:?} do not join along axis {axis}")));
            }
            shape[axis] = shape[axis].saturating_add(fact.shape[axis]);
        }
        element_count(&shape)?;
        Ok((axis, shape))
    }
}

impl Op for Concat {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=usize::MAX, 1..=1, &["axis"])?;
        Ok(vec![(facts.input(0)?.dtype, Self::plan(facts)?.1)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn join<T: Element>(
            context: &RunContext<'_>,
            _: &[T],
            parts: &[&Data],
            blocks: &[usize],
            outer: usize,
        ) -> Result<Elements<T>> {
            let parts: Option<SmallVec<[&[T]; 8]>> = parts.iter().map(|p| T::view(p)).collect();
            let parts = parts.ok_or_else(|| Error::invalid("tensor_dtype", "Concat needs inputs of one type"))?;
            let mut out = context.output(0, outer * blocks.iter().sum::<usize>());
            let mut rest = &mut out[..];
            for o in 0..outer {
                for (part, &block) in parts.iter().zip(blocks) {
                    let (to, behind) = rest.split_at_mut(block);
                    to.copy_from_slice(&part[o * block..(o + 1) * block]);
                    rest = behind;
                }
            }
            Ok(out)
        }
        let (axis, shape) = Self::plan(facts)?;
        let shapes: Vec<Vec<usize>> =
            (0..facts.inputs.len()).map(|i| Ok(facts.input(i)?.shape.clone())).collect::<Result<_>>()?;
        let shape = Shape::from(shape);
        let blocks: Vec<usize> = shapes.iter().map(|s| s[axis..].iter().product()).collect();
        let outer: usize = shape[..axis].iter().product();
        kernel(move |context, inputs| {
            let parts: SmallVec<[&Data; 8]> =
                shapes.iter().enumerate().map(|(i, s)| Ok(shaped(inputs, i, s)?.data())).collect::<Result<_>>()?;
            let data = map_data!(input(inputs, 0)?.data(), v => join(context, v, &parts, &blocks, outer)?);
            Ok([Tensor::new(shape.clone(), data)?].into())
        })
    }
}

/// Split.
pub struct Split;

impl Split {
    fn plan(facts: &Facts<'_>) -> Result<(usize, Vec<usize>)> {
        let x = facts.input(0)?;
        let axis = axis::normalize(facts, facts.node.int("axis", 0)?, x.shape.len())?;
        let (size, count) = (x.shape[axis], facts.node.outputs.len());
        if facts.node.attributes.contains_key("num_outputs") {
            let wanted = facts.node.int("num_outputs", 0)?;
            if usize::try_from(wanted) != Ok(count) {
                return Err(facts.invalid(format!("num_outputs is {wanted}, the node has {count} outputs")));
            }
            if facts.optional(1).is_some() {
                return Err(facts.invalid("num_outputs excludes the input 'split'"));
            }
        }
        let parts: Vec<usize> = match signature::ints_by_opset(facts, "split", 1, 13)? {
            Some(list) => {
                let parts: Vec<usize> = list.iter().filter_map(|&v| usize::try_from(v).ok()).collect();
                let sum = parts.iter().try_fold(0usize, |a, &b| a.checked_add(b));
                if parts.len() != list.len() || parts.len() != count || sum != Some(size) {
                    return Err(
                        facts.invalid(format!("{size} elements do not split into {list:?} for {count} outputs"))
                    );
                }
                parts
            }
            None => {
                let part = size.div_ceil(count);
                if size % count != 0 && (facts.opset < 18 || part * (count - 1) > size) {
                    return Err(facts.invalid(format!("{size} elements do not split into {count} parts")));
                }
                (0..count).map(|i| part.min(size - (i * part).min(size))).collect()
            }
        };
        Ok((axis, parts))
    }
}

impl Op for Split {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let (inputs, attributes): (_, &[&str]) = match facts.opset {
            ..13 => (1..=1, &["axis", "split"]),
            13..18 => (1..=2, &["axis"]),
            _ => (1..=2, &["axis", "num_outputs"]),
        };
        signature::check(facts, inputs, 1..=usize::MAX, attributes)?;
        let x = facts.input(0)?;
        let (axis, parts) = Self::plan(facts)?;
        let shape = |part: usize| {
            let mut shape = x.shape.clone();
            shape[axis] = part;
            shape
        };
        Ok(parts.into_iter().map(|p| (x.dtype, shape(p))).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (axis, parts) = Self::plan(facts)?;
        let shape = facts.input(0)?.shape.clone();
        let mut view = View::dense(&shape);
        let mut at = 0;
        let mut views = Vec::with_capacity(parts.len());
        for part in parts {
            view.dims[axis] = part;
            views.push(View { offset: at * view.strides[axis] as usize, ..view.clone() });
            at += part;
        }
        kernel(move |context, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let part = |(i, view): (usize, &View)| Tensor::new(view.dims.clone(), view.output(context, i, x.data()));
            views.iter().enumerate().map(part).collect()
        })
    }
}
