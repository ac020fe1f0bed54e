//! Operators that take a part of their operand.

use super::super::import::{Attributes, Builder, Site};
use super::super::schema as s;
use super::uniform;
use crate::error::{Error, Result};
use crate::graph::TensorId;

/// SPLIT into equal parts and SPLIT_V into parts of given sizes, of which one may be -1: what is left.
pub fn split(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let by_sizes = site.op.kind == "SPLIT_V";
    site.op.operands(if by_sizes { 3..=3 } else { 2..=2 })?;
    let (x, axis) = if by_sizes { (0, 2) } else { (1, 0) };
    let (x, axis) = (site.op.input(x)?, site.op.input(axis)?);
    let parts = match by_sizes {
        true => site.op.options::<s::SplitVOptions<'_>>()?.num_splits(),
        false => site.op.options::<s::SplitOptions<'_>>()?.num_splits(),
    };
    if usize::try_from(parts).ok() != Some(site.op.outputs.len()) {
        return Err(Error::invalid("node_outputs", format!("{parts} parts and {} results", site.op.outputs.len())));
    }
    let given = match b.tensor(axis).integers()?.as_slice() {
        [axis] => *axis,
        other => return Err(Error::invalid("node_operand", format!("axes {other:?} instead of one"))),
    };
    let axis = b.axis(site, x, given)?;
    let size = {
        let shape = &b.tensor(x).shape;
        shape[if given < 0 { given + shape.len() as i64 } else { given } as usize]
    };
    for &t in &site.op.outputs {
        uniform(b, &[x, t])?;
    }
    let sizes = match by_sizes {
        false if parts > 0 && size % parts as usize == 0 => vec![(size / parts as usize) as i64; parts as usize],
        false => return Err(Error::invalid("node_options", format!("{size} elements in {parts} equal parts"))),
        true => {
            let mut sizes = b.tensor(site.op.input(1)?).integers()?;
            let known = sizes.iter().filter(|&&n| n >= 0).fold(0i64, |sum, &n| sum.saturating_add(n));
            let open = sizes.iter().filter(|&&n| n < 0).count();
            if open > 1 || sizes.len() != site.op.outputs.len() || known > size as i64 {
                return Err(Error::invalid("node_operand", format!("parts of sizes {sizes:?} of {size} elements")));
            }
            sizes.iter_mut().filter(|n| **n < 0).for_each(|n| *n = size as i64 - known);
            sizes
        }
    };
    let sizes = b.integers("sizes", site, sizes);
    let from = b.read(site, x)?;
    let outputs: Vec<TensorId> = site.op.outputs.iter().map(|&t| b.write(site, t)).collect();
    b.node(site, "Split", &[Some(from), Some(sizes)], &outputs).set_int("axis", axis);
    Ok(())
}

/// Adds a Slice; the lists run over the axes of the file.
fn cut(
    b: &mut Builder<'_, '_>,
    site: Site<'_, '_>,
    x: usize,
    [starts, ends, steps]: [Vec<i64>; 3],
    y: TensorId,
) -> Result<()> {
    let axes = (0..starts.len()).map(|a| b.axis(site, x, a as i64)).collect::<Result<Vec<_>>>()?;
    let starts = b.integers("starts", site, starts);
    let ends = b.integers("ends", site, ends);
    let axes = b.integers("axes", site, axes);
    let steps = b.integers("steps", site, steps);
    let from = b.read(site, x)?;
    b.node(site, "Slice", &[Some(from), Some(starts), Some(ends), Some(axes), Some(steps)], &[y]);
    Ok(())
}

/// SLICE: begins and sizes, of which -1 is all that is left.
pub fn slice(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(3..=3)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let starts = b.tensor(site.op.input(1)?).integers()?;
    let sizes = b.tensor(site.op.input(2)?).integers()?;
    let rank = b.tensor(x).rank();
    if starts.len() != rank || sizes.len() != rank || starts.iter().any(|&s| s < 0) || sizes.iter().any(|&s| s < -1) {
        return Err(Error::invalid("node_operand", format!("begins {starts:?} and sizes {sizes:?} of {rank} axes")));
    }
    let pairs = starts.iter().zip(&sizes);
    let ends = pairs.map(|(&s, &n)| if n < 0 { i64::MAX } else { s.saturating_add(n) }).collect();
    let y = b.write(site, y);
    cut(b, site, x, [starts, ends, vec![1; rank]], y)
}

/// STRIDED_SLICE with masks of begins, ends and single elements.
pub fn strided_slice(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(4..=4)?;
    let o = site.op.options::<s::StridedSliceOptions<'_>>()?;
    if o.ellipsis_mask() != 0 || o.new_axis_mask() != 0 || o.offset() {
        return Err(Error::unsupported("strided_slice", "STRIDED_SLICE with an ellipsis, a new axis or an offset"));
    }
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let mut lists = Vec::new();
    for i in 1..4 {
        lists.push(b.tensor(site.op.input(i)?).integers()?);
    }
    let [mut starts, mut ends, mut steps] =
        <[Vec<i64>; 3]>::try_from(lists).map_err(|_| Error::invalid("node_inputs", "begins, ends and strides"))?;
    let axes = starts.len();
    if ends.len() != axes || steps.len() != axes || axes > b.tensor(x).rank() || axes > 31 {
        let message = format!("{axes} begins, {} ends and {} strides", ends.len(), steps.len());
        return Err(Error::invalid("node_operand", message));
    }
    let mut single = Vec::new();
    for a in 0..axes {
        let has = |mask: i32| mask >> a & 1 == 1;
        if has(o.shrink_axis_mask()) {
            // The begin counts even where its mask is set.
            (ends[a], steps[a]) = (if starts[a] == -1 { i64::MAX } else { starts[a].saturating_add(1) }, 1);
            single.push(a as i64);
            continue;
        }
        if has(o.begin_mask()) {
            starts[a] = if steps[a] > 0 { 0 } else { i64::MAX };
        }
        if has(o.end_mask()) {
            ends[a] = if steps[a] > 0 { i64::MAX } else { i64::MIN };
        }
    }
    let result = b.write(site, y);
    if single.is_empty() {
        return cut(b, site, x, [starts, ends, steps], result);
    }
    let kept = b.like(x, "part", b.tensor(x).shape.clone());
    cut(b, site, x, [starts, ends, steps], kept)?;
    let single = b.integers("single", site, single);
    b.step("Squeeze", &[kept, single], result);
    Ok(())
}

/// GATHER of slices along an axis.
pub fn gather(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(2..=2)?;
    let o = site.op.optional_options::<s::GatherOptions<'_>>()?;
    let (axis, batches) = o.map_or((0, 0), |o| (o.axis(), o.batch_dims()));
    if batches != 0 {
        return Err(Error::unsupported("gather_batch", format!("GATHER with {batches} dimensions of batches")));
    }
    let (x, indices, y) = (site.op.input(0)?, site.op.input(1)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let axis = b.axis(site, x, axis.into())?;
    let inputs = [Some(b.read(site, x)?), Some(b.read(site, indices)?)];
    let y = b.write(site, y);
    b.node(site, "Gather", &inputs, &[y]).set_int("axis", axis);
    Ok(())
}
