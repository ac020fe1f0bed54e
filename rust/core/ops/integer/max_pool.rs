//! Maxima of codes over windows of channels-last images.

use super::{Argument, Context, Layout, Prepared};
use crate::error::Result;
use crate::kernels::{PoolShape, max_pool};
use crate::ops::closure::input;
use crate::ops::pool::Pool;
use crate::ops::{Facts, Kernel, RunContext};
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
    Ok(Some(Prepared {
        kernel: Box::new(kernel),
        arguments: vec![Argument { input: 0, layout: Layout::ChannelsLast }],
        layout: Layout::ChannelsLast,
    }))
}

struct Maxima {
    shape: PoolShape,
    rank: usize,
    clamp: Option<(i64, i64)>,
}

impl Kernel for Maxima {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        macro_rules! maxima {
            ($v:expr, $variant:ident, $t:ty) => {{
                let mut out = context.buffer::<$t>(self.shape.output_len());
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
        let dims = if self.rank == 3 { vec![batch, width, channels] } else { vec![batch, height, width, channels] };
        Ok(vec![Tensor::new(dims, data)?])
    }
}
