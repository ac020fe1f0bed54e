//! Conv on codes: one- and two-dimensional, any groups, strides, dilations and pads.

use super::super::channels_last::images;
use super::super::{Arrangement, Context, IntegerOp, Layout, Prepared};
use super::arithmetic::{Arithmetic, Mac, MacWindow};
use super::epilogue::{AnyEpilogue, narrow, tiles, with_epilogue};
use super::reference;
use crate::encoding::Encoding;
use crate::error::Result;
use crate::graph::Constant;
use crate::kernels::{
    Accumulator, Code8, Codes, ConvShape, ConvWeights, Then, WideWeights, conv2d, conv2d_pair_saturating, conv2d_then,
    conv2d_wide,
};
use crate::ops::closure::input;
use crate::ops::window::{Window, kernel_shape};
use crate::ops::{Explanation, Facts, Kernel, Outputs, Place, RunContext};
use crate::program::Env;
use crate::spec::Overflow;
use crate::tensor::{DType, Data, Tensor};

pub struct Conv;

/// The node's operands.
fn mac<'a>(facts: &Facts<'a>) -> Result<Mac<'a>> {
    let (x, w) = (facts.input(0)?, facts.input(1)?);
    let y = facts.outputs.first().and_then(Option::as_ref).ok_or_else(|| facts.invalid("no output"))?;
    let depth = w.shape[1..].iter().product();
    let ConvShape { kernel, stride, dilation, groups, .. } = shape(facts)?;
    let depthwise = groups > 1 && w.shape.get(1) == Some(&1) && w.shape[0] == groups;
    let window = Some(MacWindow { kernel, stride, dilation, groups, depthwise });
    Ok(Mac { x, w, bias: facts.optional(2), y, depth, channels: w.shape[0], channel_axis: 0, window, file: None })
}

/// The geometry; one-dimensional convolutions get a height of one.
fn shape(facts: &Facts<'_>) -> Result<ConvShape> {
    let (x, w) = (&facts.input(0)?.shape, &facts.input(1)?.shape);
    let rank = x.len().saturating_sub(2);
    if !(1..=2).contains(&rank) {
        return Err(facts.unsupported(format!("a convolution over {rank} spatial axes on codes")));
    }
    let window = Window::from_node(facts, &x[2..], &kernel_shape(facts, &w[2..])?, false)?;
    let lift = |v: &[usize], fill: usize| if rank == 1 { [fill, v[0]] } else { [v[0], v[1]] };
    let mut shape = ConvShape::new(x[0], lift(&x[2..], 1), x[1], w[0], lift(&w[2..], 1));
    shape.stride = lift(&window.strides, 1);
    shape.dilation = lift(&window.dilations, 1);
    let (begin, end) = (lift(&window.pads_begin, 0), lift(&window.pads_end, 0));
    shape.pads = [begin[0], begin[1], end[0], end[1]];
    shape.groups = facts.node.int("group", 1)?.max(1) as usize;
    shape.validate().map_err(|e| e.at_node(&facts.node.name, &facts.node.op_type))?;
    Ok(shape)
}

impl IntegerOp for Conv {
    fn data_inputs(&self, _facts: &Facts<'_>) -> Vec<usize> {
        vec![0, 1]
    }

    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        mac(facts)?.environment(facts, clamp)
    }

    fn arrangement(&self, _facts: &Facts<'_>, _layouts: &[Layout]) -> Option<Arrangement> {
        Some(Arrangement::first(Layout::ChannelsLast))
    }

    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>, env: Env) -> Result<Prepared> {
        let weights = mac(facts)?.reencoded(facts, context.spec)?;
        let mac = mac(facts)?.with_weights(weights.as_ref());
        let arithmetic = mac.arithmetic(facts, context, env)?;
        let (x, w, y) = mac.encodings(facts)?;
        let Some(codes) = mac.w.codes.clone() else {
            return Err(facts.unsupported("weights that are not constant"));
        };
        let shape = shape(facts)?;
        let w_zero: Vec<i32> = w.zero_point.iter().map(|&z| z as i32).collect();
        let x_zero = x.zero_point[0];
        let dtype = y.storage_dtype();
        let is_narrow = x.bitwidth <= 8 && w.bitwidth <= 8 && arithmetic.accumulator.width == 32;
        let pairs = arithmetic.accumulator.overflow == Overflow::PairSat16;
        // Where the file holds the input channels last, so do packed weights.
        let stored = codes.codes_in_order(&CHANNELS_LAST).filter(|_| is_narrow && !pairs);
        let outputs = shape.output_pixels();
        let pack = |weights| Form::narrow(weights, &arithmetic, x_zero, facts, (dtype, outputs));
        let form = match stored {
            Some(Codes::I8(v)) => pack(ConvWeights::from_channels_last(&shape, v, &w_zero))?,
            Some(Codes::U8(v)) => pack(ConvWeights::from_channels_last(&shape, v, &w_zero))?,
            _ => match (is_narrow, codes.data()) {
                (true, Data::I8(v)) if pairs => {
                    require_pairs(facts, x, w)?;
                    let init = arithmetic.bias_i32(facts)?;
                    let init = ConvWeights::new(&shape, v, &[]).centred_init(&init, x_zero as i32);
                    let epilogue = narrow(&arithmetic.compiled, shape.out_channels, dtype, 0);
                    Form::Pairs { weights: v.to_vec(), init, epilogue }
                }
                _ if pairs => return Err(facts.unsupported("pair_sat16 of other than uint8 by int8")),
                (true, Data::I8(v)) => pack(ConvWeights::new(&shape, v, &w_zero))?,
                (true, Data::U8(v)) => pack(ConvWeights::new(&shape, v, &w_zero))?,
                _ => {
                    let values: Vec<i32> = codes.to_i64()?.iter().map(|&v| v as i32).collect();
                    Form::wide(WideWeights::new(&shape, &values, &w_zero), &arithmetic, x_zero, dtype)
                }
            },
        };
        let rank = mac.x.shape.len() - 2;
        let kernel = ConvKernel { shape, form, x_zero, w_zero, codes, arithmetic, rank, dtype };
        Ok(Prepared { kernel: Box::new(kernel), arrangement: Arrangement::first(Layout::ChannelsLast) })
    }
}

/// The axes (output channel, input channel, ky, kx) of weights that have the input channels last.
const CHANNELS_LAST: [usize; 4] = [0, 3, 1, 2];

enum Form {
    /// 8-bit codes, 32-bit sums.
    Narrow { weights: ConvWeights, init: Vec<i32>, epilogue: AnyEpilogue<i32> },
    /// uint8 by int8, adjacent products saturated to 16 bits before they are summed.
    Pairs { weights: Vec<i8>, init: Vec<i32>, epilogue: AnyEpilogue<i32> },
    /// Any codes, 32-bit sums.
    Wide32 { weights: WideWeights, init: Vec<i32>, epilogue: AnyEpilogue<i32> },
    /// Any codes, 64-bit sums.
    Wide64 { weights: WideWeights, init: Vec<i64>, epilogue: AnyEpilogue<i64> },
}

impl Form {
    fn narrow(
        weights: ConvWeights,
        arithmetic: &Arithmetic,
        x_zero: i64,
        facts: &Facts<'_>,
        (dtype, outputs): (DType, usize),
    ) -> Result<Form> {
        let init = weights.centred_init(&arithmetic.bias_i32(facts)?, x_zero as i32);
        let epilogue = narrow(&arithmetic.compiled, weights.column_sums().len(), dtype, outputs);
        Ok(Form::Narrow { weights, init, epilogue })
    }

    fn wide(weights: WideWeights, arithmetic: &Arithmetic, x_zero: i64, dtype: DType) -> Form {
        let init = weights.centred_init(&arithmetic.bias, x_zero as i32);
        if arithmetic.accumulator.width == 64 {
            return Form::Wide64 { weights, init, epilogue: tiles(&arithmetic.compiled, dtype) };
        }
        let epilogue = narrow(&arithmetic.compiled, weights.column_sums().len(), dtype, 0);
        Form::Wide32 { weights, init: init.into_iter().map(|v| v as i32).collect(), epilogue }
    }
}

struct ConvKernel {
    shape: ConvShape,
    form: Form,
    x_zero: i64,
    w_zero: Vec<i32>,
    codes: Constant,
    arithmetic: Arithmetic,
    rank: usize,
    dtype: DType,
}

impl ConvKernel {
    fn run_wide<A: Accumulator>(
        &self,
        context: &RunContext<'_>,
        x: &Data,
        weights: &WideWeights,
        init: &[A],
        epilogue: &AnyEpilogue<A>,
    ) -> Result<Data> {
        let (shape, len) = (&self.shape, self.shape.output_len());
        macro_rules! run {
            ($v:expr, $t:ty) => {
                with_epilogue!(context, epilogue, len, (e, out) => {
                    conv2d_wide(context.engine(), shape, $v, self.x_zero as $t, weights, init, e, &mut out)
                })
            };
        }
        Ok(match x {
            Data::U8(v) => run!(v, u8),
            Data::I8(v) => run!(v, i8),
            Data::U16(v) => run!(v, u16),
            Data::I16(v) => run!(v, i16),
            other => return Err(wrong_codes(other)),
        })
    }

    /// The outputs of 8-bit codes; `then` gets those of one byte.
    fn run_narrow<X: Code8>(
        &self,
        context: &RunContext<'_>,
        x: &[X],
        pad: X,
        (weights, init, epilogue): (&ConvWeights, &[i32], &AnyEpilogue<i32>),
        then: Option<Then<'_, u8>>,
    ) -> Data {
        let (engine, shape, len) = (context.engine(), &self.shape, self.shape.output_len());
        match (epilogue, then) {
            (AnyEpilogue::U8(e), Some(then)) => {
                let mut out = context.output::<u8>(0, len);
                conv2d_then(engine, shape, x, pad, weights, init, &**e, Some(then), &mut out);
                Data::U8(out)
            }
            (AnyEpilogue::I8(e), Some(then)) => {
                let mut out = context.output::<i8>(0, len);
                let then = |start: usize, codes: &mut [i8]| then(start, i8::bytes_mut(codes));
                conv2d_then(engine, shape, x, pad, weights, init, &**e, Some(&then), &mut out);
                Data::I8(out)
            }
            _ => with_epilogue!(context, epilogue, len, (e, out) => {
                conv2d(engine, shape, x, pad, weights, init, e, &mut out);
            }),
        }
    }

    /// The output; `then` is for kernels that hand theirs on.
    fn compute(&self, context: &RunContext<'_>, x: &Tensor, then: Option<Then<'_, u8>>) -> Result<Outputs> {
        let engine = context.engine();
        let shape = &self.shape;
        let len = shape.output_len();
        let data = match &self.form {
            _ if self.arithmetic.is_reference() => {
                let (x, weights) = (reference::codes(x.data())?, reference::codes(self.codes.data())?);
                let (x, weights, w_zero) = (&x[..], &weights[..], &self.w_zero[..]);
                let twin = reference::Convolution { shape, x, x_zero: self.x_zero, weights, w_zero };
                twin.run(context, &self.arithmetic, self.dtype)?
            }
            Form::Narrow { weights, init, epilogue } => match x.data() {
                Data::U8(v) => self.run_narrow(context, v, self.x_zero as u8, (weights, init, epilogue), then),
                Data::I8(v) => self.run_narrow(context, v, self.x_zero as i8, (weights, init, epilogue), then),
                other => return Err(wrong_codes(other)),
            },
            Form::Pairs { weights, init, epilogue } => match x.data() {
                Data::U8(v) => with_epilogue!(context, epilogue, len, (e, out) => {
                    conv2d_pair_saturating(engine, shape, v, self.x_zero as u8, weights, init, e, &mut out)
                }),
                other => return Err(wrong_codes(other)),
            },
            Form::Wide32 { weights, init, epilogue } => self.run_wide(context, x.data(), weights, init, epilogue)?,
            Form::Wide64 { weights, init, epilogue } => self.run_wide(context, x.data(), weights, init, epilogue)?,
        };
        let [h, w] = shape.output();
        let dims = images(self.rank + 2, [shape.batch, h, w, shape.out_channels]);
        Ok([Tensor::new(dims, data)?].into())
    }
}

impl Kernel for ConvKernel {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        self.compute(context, input(inputs, 0)?, None)
    }

    fn hands_on(&self) -> Option<DType> {
        match &self.form {
            _ if self.arithmetic.is_reference() => None,
            Form::Narrow { weights, .. } if weights.hands_on() => Some(self.dtype).filter(|t| t.size() == 1),
            _ => None,
        }
    }

    fn run_then(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], then: Then<'_, u8>) -> Result<Outputs> {
        assert!(self.hands_on().is_some(), "a kernel that hands its output on");
        self.compute(context, input(inputs, 0)?, Some(then))
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        let x = input(inputs, 0)?.to_i64()?;
        let w = self.codes.to_i64()?;
        let shape = &self.shape;
        let [oh, ow] = shape.output();
        let (pixel, channel) = (index / shape.out_channels, index % shape.out_channels);
        let (image, at) = (pixel / (oh * ow), [pixel / ow % oh, pixel % ow]);
        let (group_in, taps) = (shape.group_in(), shape.taps());
        let group = channel / shape.group_out();
        let w_zero = i64::from(*self.w_zero.get(channel).unwrap_or(&self.w_zero[0]));
        let weight = |c: usize, tap: usize| w[(channel * group_in + c) * taps + tap];
        let code = |c: usize, tap: usize| {
            let place = [tap / shape.kernel[1], tap % shape.kernel[1]];
            let source = shape.source(image, at, place)?;
            Some(x[source * shape.in_channels + group * group_in + c])
        };
        if self.arithmetic.sums_pairs() {
            let order = (0..taps).flat_map(|tap| (0..group_in).map(move |c| (c, tap)));
            let met = |(c, tap)| (code(c, tap).unwrap_or(self.x_zero) as u8, weight(c, tap) as i8);
            return self.arithmetic.explain_pairs(channel, self.x_zero, &order.map(met).collect::<Vec<_>>());
        }
        let mut terms = Vec::new();
        for c in 0..group_in {
            for tap in 0..taps {
                if let Some(x) = code(c, tap) {
                    terms.push((x - self.x_zero, weight(c, tap) - w_zero));
                }
            }
        }
        self.arithmetic.explain(channel, &terms)
    }
}

/// Fails unless activations are uint8 and weights are centred int8: what saturating pairs are defined for.
pub fn require_pairs(facts: &Facts<'_>, x: &Encoding, w: &Encoding) -> Result<()> {
    match !x.signed && x.bitwidth <= 8 && w.signed && w.zero_point.iter().all(|&z| z == 0) {
        true => Ok(()),
        false => Err(facts.unsupported("pair_sat16 of other than uint8 by int8 with zero point 0")),
    }
}

/// The error for codes of a type that the kernel was not prepared for.
pub fn wrong_codes(data: &Data) -> crate::Error {
    crate::Error::invalid("codes_dtype", format!("{} does not hold codes of this kernel", data.dtype()))
}
