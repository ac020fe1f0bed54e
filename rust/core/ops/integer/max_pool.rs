//! Maxima of codes over windows of channels-last images.

use super::channels_last::images;
use super::{Arrangement, Context, Layout, Prepared};
use crate::error::{Error, Result};
use crate::kernels::{PoolShape, max_pool};
use crate::ops::closure::input;
use crate::ops::explanation::{coordinates, elided, result, shown};
use crate::ops::pool::Pool;
use crate::ops::{Explanation, Facts, Kernel, Outputs, Place, RunContext};
use crate::tensor::{Data, Tensor};

/// The geometry of a pool over one or two spatial axes, the first of which is then 1; `None` for others, and where a window
/// lies in the padding alone.
pub fn planar(facts: &Facts<'_>, pool: Pool) -> Result<Option<PoolShape>> {
    let x = &facts.input(0)?.shape;
    if !(3..=4).contains(&x.len()) {
        return Ok(None);
    }
    let shape = pool.shape(facts)?;
    let pair = |v: &[usize]| [v[v.len() - 2], v[v.len() - 1]];
    let (begin, end) = (pair(&shape.window.pads_begin), pair(&shape.window.pads_end));
    let planar = PoolShape {
        batch: x[0],
        input: pair(&shape.input),
        channels: x[1],
        output: pair(&shape.output),
        kernel: pair(&shape.window.kernel),
        stride: pair(&shape.window.strides),
        dilation: pair(&shape.window.dilations),
        pads: [begin[0], begin[1], end[0], end[1]],
    };
    Ok(planar.validate().is_ok().then_some(planar))
}

/// MaxPool and GlobalMaxPool with one output, where the geometry is planar.
pub fn prepare(facts: &Facts<'_>, context: &Context<'_>) -> Result<Option<Prepared>> {
    let global = match facts.node.op_type.as_str() {
        "MaxPool" => false,
        "GlobalMaxPool" => true,
        _ => return Ok(None),
    };
    let codes = facts.input(0)?.encoding.is_some();
    if !codes || facts.node.outputs.iter().skip(1).any(Option::is_some) {
        return Ok(None);
    }
    let Some(shape) = planar(facts, Pool { average: false, global })? else { return Ok(None) };
    let kernel = Maxima { shape, rank: facts.input(0)?.shape.len(), clamp: context.clamp };
    Ok(Some(Prepared { kernel: Box::new(kernel), arrangement: Arrangement::first(Layout::ChannelsLast) }))
}

struct Maxima {
    shape: PoolShape,
    rank: usize,
    clamp: Option<(i64, i64)>,
}

impl Kernel for Maxima {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        macro_rules! maxima {
            ($v:expr, $variant:ident, $t:ty) => {{
                let mut out = context.output::<$t>(0, self.shape.output_len());
                max_pool(context.engine(), &self.shape, $v, &mut out);
                if let Some((lo, hi)) = self.clamp {
                    out.iter_mut().for_each(|c| *c = (*c).clamp(lo as $t, hi as $t));
                }
                Data::$variant(out)
            }};
        }
        let data = match x.data() {
            Data::U8(v) => maxima!(v, U8, u8),
            Data::I8(v) => maxima!(v, I8, i8),
            Data::U16(v) => maxima!(v, U16, u16),
            Data::I16(v) => maxima!(v, I16, i16),
            Data::I32(v) => maxima!(v, I32, i32),
            other => return Err(super::mac::wrong_codes(other)),
        };
        let PoolShape { batch, output: [height, width], channels, .. } = self.shape;
        Ok([Tensor::new(images(self.rank, [batch, height, width, channels]), data)?].into())
    }

    fn explain(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let x = input(inputs, 0)?;
        let PoolShape { input: [rows, columns], output: [height, width], channels, .. } = self.shape;
        let end = result(&self.run(context, inputs)?, place)?;
        let [image, y, across, channel] = coordinates(&[self.shape.batch, height, width, channels], place.index)[..]
        else {
            return Err(Error::invalid("explain_index", format!("element {} of a pool", place.index)));
        };
        let source = |axis: usize, at: usize, tap: usize| {
            at * self.shape.stride[axis] + tap * self.shape.dilation[axis] - self.shape.pads[axis]
        };
        let mut window = Vec::new();
        for ky in self.shape.span(0, y) {
            for kx in self.shape.span(1, across) {
                let (row, column) = (source(0, y, ky), source(1, across, kx));
                window.push((row, column, ((image * rows + row) * columns + column) * channels + channel));
            }
        }
        let codes = x.to_i64()?;
        let mut explanation = Explanation::default();
        explanation.add("elements of the window", window.len());
        let values: Vec<String> = window.iter().map(|w| shown(x, w.2)).collect::<Result<_>>()?;
        explanation.trace.add("input", "x in the window", elided(values));
        // The first of equal ones.
        if let Some(&(row, column, at)) = window.iter().rev().max_by_key(|w| codes[w.2]) {
            let element = if self.rank == 3 { vec![image, channel, column] } else { vec![image, channel, row, column] };
            explanation.add("from", format!("input 0, x{element:?}"));
            explanation.trace.add("step", format!("largest: x{element:?}"), codes[at]);
        }
        if let Some((lo, hi)) = self.clamp {
            explanation.trace.add("step", format!("clamp to {lo}..={hi}"), &end);
        }
        explanation.trace = explanation.trace.end(end);
        Ok(explanation)
    }
}
