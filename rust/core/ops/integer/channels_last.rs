//! Movements of codes that keep the channels-last order of their operands.

use super::{Argument, Arrangement, Context, Layout, Prepared};
use crate::error::Result;
use crate::graph::Attribute;
use crate::kernels::{Engine, transpose};
use crate::map_data;
use crate::ops::closure::{input, kernel};
use crate::ops::pad::{AxisOrder, PadValue, pad_kernel};
use crate::ops::{Fact, Facts, Kernel, Op, RunContext};
use crate::tensor::{Data, Elements, Shape, Tensor};

/// The kernel of a movement that may stay in the order of its operands, where one of them is channels-last already.
/// `data` are the inputs that hold codes; `padding` is the code of a constant Pad.
pub fn prepare(
    facts: &Facts<'_>,
    context: &Context<'_>,
    op: &dyn Op,
    data: &[usize],
    padding: Option<i64>,
) -> Result<Option<Prepared>> {
    if context.clamp.is_some() || !data.iter().any(|&i| context.layouts.get(i) == Some(&Layout::ChannelsLast)) {
        return Ok(None);
    }
    let rank = facts.input(0)?.shape.len();
    let kernel = match facts.node.op_type.as_str() {
        "Concat" | "Split" => return along_channels(facts, op, data),
        "Reshape" => regrouped(facts)?,
        "Transpose" => groups_exchanged(facts)?,
        "Pad" => match padding.filter(|_| (3..=4).contains(&rank)) {
            Some(code) => Some(pad_kernel(facts, PadValue::Integer(code), AxisOrder::ChannelsLast)?),
            None => None,
        },
        _ => None,
    };
    let argument = |input| Argument { input, layout: if input == 0 { Layout::ChannelsLast } else { Layout::RowMajor } };
    let arguments = (0..facts.inputs.len()).map(argument).collect();
    let arrangement = Arrangement { arguments, layout: Layout::ChannelsLast };
    Ok(kernel.map(|kernel| Prepared { kernel, arrangement }))
}

/// Axes of channels of a tensor that has a channels-last form: one, or two where groups of channels have an axis of their own.
pub fn channel_axes(rank: usize) -> usize {
    if rank == 5 { 2 } else { 1 }
}

/// A shape in the order of memory.
pub fn turned(shape: &[usize]) -> Shape {
    let mut turned = Shape::from_slice(shape);
    turned[1..].rotate_left(channel_axes(shape.len()));
    turned
}

/// The shape of images with their channels last; those of rank 3 have one row, and no axis for it.
pub fn images(rank: usize, [batch, height, width, channels]: [usize; 4]) -> Shape {
    match rank {
        3 => Shape::from_slice(&[batch, width, channels]),
        _ => Shape::from_slice(&[batch, height, width, channels]),
    }
}

/// A Reshape that splits channels into groups, or joins them: nothing moves.
fn regrouped(facts: &Facts<'_>) -> Result<Option<Box<dyn Kernel>>> {
    let (Some(x), Some(Some(y))) = (facts.optional(0), facts.outputs.first()) else { return Ok(None) };
    let images = |shape: &[usize]| match *shape {
        [n, c, h, w] => Some((n, c, h, w)),
        [n, a, b, h, w] => Some((n, a * b, h, w)),
        _ => None,
    };
    if images(&x.shape).is_none() || images(&x.shape) != images(&y.shape) {
        return Ok(None);
    }
    let shape = turned(&y.shape);
    kernel(move |context, inputs| Ok([Tensor::new(shape.clone(), context.copy(0, input(inputs, 0)?.data()))?].into()))
        .map(Some)
}

/// A Transpose that exchanges the two axes of grouped channels.
fn groups_exchanged(facts: &Facts<'_>) -> Result<Option<Box<dyn Kernel>>> {
    let &[n, a, b, h, w] = facts.input(0)?.shape.as_slice() else { return Ok(None) };
    if facts.node.ints("perm")? != Some(&[0, 2, 1, 3, 4][..]) {
        return Ok(None);
    }
    kernel(move |context, inputs| {
        Ok([transposed(context, input(inputs, 0)?, [n * h * w, a, b], &[n, h, w, b, a])?].into())
    })
    .map(Some)
}

/// The tensor as `batch` matrices of `rows × columns`, each transposed; `shape` is that of the result.
pub fn transposed(context: &RunContext<'_>, x: &Tensor, sizes: [usize; 3], shape: &[usize]) -> Result<Tensor> {
    let data = map_data!(x.data(), v => {
        let mut out = context.output(0, v.len());
        transpose(context.engine(), sizes, v, &mut out);
        out
    });
    Tensor::new(shape, data)
}

/// The elements of [`transposed`], outside of a run.
pub fn transposed_data(engine: Engine<'_>, sizes: [usize; 3], x: &Data) -> Data {
    map_data!(x, v => {
        let mut out = Elements::vector(v.len());
        transpose(engine, sizes, v, &mut out);
        out
    })
}

/// Concat and Split along the channels: the same operator along the last axis.
fn along_channels(facts: &Facts<'_>, op: &dyn Op, data: &[usize]) -> Result<Option<Prepared>> {
    let rank = facts.input(0)?.shape.len();
    let axis = facts.node.int("axis", 0)?;
    if !(3..=4).contains(&rank) || (axis != 1 && axis != 1 - rank as i64) {
        return Ok(None);
    }
    let permute = |facts: &[Option<Fact>], which: &dyn Fn(usize) -> bool| {
        let mut out = facts.to_vec();
        for (_, fact) in out.iter_mut().enumerate().filter(|(i, _)| which(*i)) {
            if let Some(fact) = fact {
                fact.shape = turned(&fact.shape).into_vec();
                fact.constant = None;
            }
        }
        out
    };
    let mut node = facts.node.clone();
    node.attributes.insert("axis".into(), Attribute::Int(rank as i64 - 1));
    let (inputs, outputs) = (permute(facts.inputs, &|i| data.contains(&i)), permute(facts.outputs, &|_| true));
    let kernel = op.float(&Facts { node: &node, opset: facts.opset, inputs: &inputs, outputs: &outputs })?;
    let layout = |input| if data.contains(&input) { Layout::ChannelsLast } else { Layout::RowMajor };
    let arguments = (0..facts.inputs.len()).map(|input| Argument { input, layout: layout(input) }).collect();
    Ok(Some(Prepared { kernel, arrangement: Arrangement { arguments, layout: Layout::ChannelsLast } }))
}
