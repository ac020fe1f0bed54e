//! ConvTranspose on codes: each input element adds its products to a window of the output. Sums are 64 bits wide and exact.

use super::super::{Arrangement, Context, IntegerOp, Layout, Prepared};
use super::arithmetic::{Arithmetic, Mac};
use crate::error::Result;
use crate::ops::closure::input;
use crate::ops::conv_transpose::ConvTransposeShape;
use crate::ops::window::{Window, lift};
use crate::ops::{Explanation, Facts, Kernel, Outputs, Place, RunContext};
use crate::program::{Channels, Env, Lanes, TileProgram};
use crate::tensor::{DType, Data, Tensor};
use std::sync::Arc;

pub struct ConvTranspose;

fn mac<'a>(facts: &Facts<'a>) -> Result<Mac<'a>> {
    let (x, w) = (facts.input(0)?, facts.input(1)?);
    let y = facts.outputs.first().and_then(Option::as_ref).ok_or_else(|| facts.invalid("no output"))?;
    let groups = facts.node.int("group", 1)?.max(1) as usize;
    let taps: usize = w.shape[2..].iter().product();
    Ok(Mac {
        x,
        w,
        bias: facts.optional(2),
        y,
        depth: w.shape[0] / groups * taps,
        channels: w.shape[1] * groups,
        channel_axis: 1,
        window: None,
        file: None,
    })
}

impl IntegerOp for ConvTranspose {
    fn data_inputs(&self, _facts: &Facts<'_>) -> Vec<usize> {
        vec![0, 1]
    }

    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        mac(facts)?.environment(facts, clamp)
    }

    fn arrangement(&self, _facts: &Facts<'_>, _layouts: &[Layout]) -> Option<Arrangement> {
        Some(Arrangement::first(Layout::RowMajor))
    }

    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>, env: Env) -> Result<Prepared> {
        let weights = mac(facts)?.reencoded(facts, context.spec)?;
        let mac = mac(facts)?.with_weights(weights.as_ref());
        let (x, w, y) = mac.encodings(facts)?;
        if w.scale.len() > 1 && facts.node.int("group", 1)? != 1 {
            return Err(facts.unsupported("per-channel weights of a grouped ConvTranspose"));
        }
        let codes = mac.w.codes.clone().ok_or_else(|| facts.unsupported("weights that are not constant"))?;
        let shape = ConvTransposeShape::from_node(facts)?;
        let (Some(window), Some(input), Some(output)) =
            (shape.window.lifted(), lift(&shape.input), lift(&shape.output))
        else {
            return Err(facts.unsupported("more than three spatial axes"));
        };
        let arithmetic = mac.arithmetic(facts, context, env)?;
        let kernel = ConvTransposeKernel {
            tile: arithmetic.compiled.tile(),
            weights: codes.to_i64()?,
            x_zero: x.zero_point[0],
            w_zero: w.zero_point.clone(),
            dtype: y.storage_dtype(),
            shape,
            window,
            input,
            output,
            arithmetic,
        };
        Ok(Prepared { kernel: Box::new(kernel), arrangement: Arrangement::first(Layout::RowMajor) })
    }
}

struct ConvTransposeKernel {
    shape: ConvTransposeShape,
    window: Window,
    input: [usize; 3],
    output: [usize; 3],
    weights: Vec<i64>,
    x_zero: i64,
    w_zero: Vec<i64>,
    arithmetic: Arithmetic,
    tile: TileProgram,
    dtype: DType,
}

impl ConvTransposeKernel {
    /// Calls `term(output position, x, w)` for every product of one output plane, centred.
    fn for_each_product(&self, codes: &[i64], plane: usize, mut term: impl FnMut(usize, i64, i64)) {
        let shape = &self.shape;
        let (image, filter) = (plane / shape.filters, plane % shape.filters);
        let (group_in, group_out) = (shape.channels / shape.groups, shape.filters / shape.groups);
        let (group, local) = (filter / group_out, filter % group_out);
        let w_zero = *self.w_zero.get(filter).unwrap_or(&self.w_zero[0]);
        let [id, ih, iw] = self.input;
        let [_, oh, ow] = self.output;
        let kernel = &self.window.kernel;
        let taps: usize = kernel.iter().product();
        let place = |i: usize, at: usize, tap: usize| {
            (at * self.window.strides[i] + tap * self.window.dilations[i])
                .checked_sub(self.window.pads_begin[i])
                .filter(|&o| o < self.output[i])
        };
        for c in group * group_in..(group + 1) * group_in {
            let x = &codes[(image * shape.channels + c) * id * ih * iw..][..id * ih * iw];
            let w = &self.weights[(c * group_out + local) * taps..][..taps];
            for (i, &x) in x.iter().enumerate() {
                let (z, r, q) = (i / (ih * iw), i / iw % ih, i % iw);
                for (t, &w) in w.iter().enumerate() {
                    let (tz, tr, tq) = (t / (kernel[1] * kernel[2]), t / kernel[2] % kernel[1], t % kernel[2]);
                    if let (Some(oz), Some(or), Some(oq)) = (place(0, z, tz), place(1, r, tr), place(2, q, tq)) {
                        term((oz * oh + or) * ow + oq, x - self.x_zero, w - w_zero);
                    }
                }
            }
        }
    }

    fn plane(&self, codes: &[i64], plane: usize) -> Result<Vec<i32>> {
        let filter = plane % self.shape.filters;
        let bias = self.arithmetic.bias.get(filter).copied().unwrap_or(0);
        let mut acc = vec![bias; self.output.iter().product()];
        self.for_each_product(codes, plane, |at, x, w| acc[at] = acc[at].wrapping_add(x.wrapping_mul(w)));
        if self.arithmetic.accumulator.width == 32 {
            acc.iter_mut().for_each(|a| *a = i64::from(*a as i32));
        }
        let mut out = vec![0; acc.len()];
        let channel = Channels::Uniform(filter % self.arithmetic.compiled.channels());
        self.tile.run(&[Lanes::I64(&acc)], channel, &mut out)?;
        Ok(out)
    }
}

impl Kernel for ConvTransposeKernel {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let codes = Arc::new(input(inputs, 0)?.to_i64()?);
        let planes = self.shape.batch * self.shape.filters;
        let all = context.engine().map(planes, |p| self.plane(&codes, p)).into_iter().collect::<Result<Vec<_>>>()?;
        let flat = all.iter().flatten();
        let data = match self.dtype {
            DType::U8 => Data::U8(flat.map(|&v| v as u8).collect()),
            DType::I8 => Data::I8(flat.map(|&v| v as i8).collect()),
            DType::U16 => Data::U16(flat.map(|&v| v as u16).collect()),
            DType::I16 => Data::I16(flat.map(|&v| v as i16).collect()),
            _ => Data::I32(flat.copied().collect()),
        };
        Ok([Tensor::new(self.shape.output_shape(), data)?].into())
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        let codes = input(inputs, 0)?.to_i64()?;
        let size: usize = self.output.iter().product();
        let (plane, position) = (index / size, index % size);
        let mut terms = Vec::new();
        self.for_each_product(&codes, plane, |at, x, w| {
            if at == position {
                terms.push((x, w));
            }
        });
        self.arithmetic.explain(plane % self.shape.filters, &terms)
    }
}
