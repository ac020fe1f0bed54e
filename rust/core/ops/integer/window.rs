//! Pools and reductions: a sum over a window, and a program from sum and count to code.

use super::channels_last::turned;
use super::environment::{add_attributes, add_encoding, add_output, encoding_of};
use super::lanes::{CHUNK, compute_codes};
use super::{Arrangement, Context, IntegerOp, Layout, Prepared, max_pool};
use crate::error::{Error, Result};
use crate::kernels::{Engine, PoolShape, transpose, window_counts, window_sum_from};
use crate::ops::closure::input;
use crate::ops::pool::Pool;
use crate::ops::window::Window as WindowShape;
use crate::ops::{Explanation, Fact, Facts, Kernel, Outputs, Place, RunContext, axis};
use crate::program::{Channels, Compiled, Env, Lanes, TileProgram, Value};
use crate::spec::{Action, Terms};
use crate::tensor::{DType, Data, Shape, Tensor, strides};
use smallvec::SmallVec;

/// Which elements each output sums: up to three spatial axes, or any set of reduced axes.
#[derive(Debug, Clone)]
pub struct PoolGeometry {
    output_shape: Vec<usize>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Pool { input: Vec<usize>, window: WindowShape, include_pad: bool },
    Reduce { kept: Vec<(usize, usize)>, offsets: Vec<usize> },
}

/// The geometry of pools, reductions and ArgMax and ArgMin.
pub fn geometry(facts: &Facts<'_>) -> Result<PoolGeometry> {
    let x = &facts.input(0)?.shape;
    let y = facts.outputs.first().and_then(Option::as_ref).ok_or_else(|| facts.invalid("no output"))?;
    let kind = match facts.node.op_type.as_str() {
        "AveragePool" | "LpPool" | "MaxPool" => {
            let kernel = facts.node.ints("kernel_shape")?.ok_or_else(|| facts.invalid("no kernel_shape"))?;
            let kernel: Vec<usize> = kernel.iter().map(|&k| k.max(1) as usize).collect();
            let ceil = facts.node.int("ceil_mode", 0)? != 0;
            let window = WindowShape::from_node(facts, &x[2..], &kernel, ceil)?;
            Kind::Pool { input: x.clone(), window, include_pad: facts.node.int("count_include_pad", 0)? != 0 }
        }
        "GlobalAveragePool" | "GlobalLpPool" | "GlobalMaxPool" => reduce(x, &(2..x.len()).collect::<Vec<_>>()),
        "ArgMax" | "ArgMin" => reduce(x, &[axis::normalize(facts, facts.node.int("axis", 0)?, x.len())?]),
        _ => {
            let axes = match (facts.optional(1), facts.node.ints("axes")?) {
                (Some(_), _) => facts.constant(1)?.to_i64()?,
                (None, Some(axes)) => axes.to_vec(),
                (None, None) => Vec::new(),
            };
            let axes = match (axes.is_empty(), facts.node.int("noop_with_empty_axes", 0)? != 0) {
                (true, true) => return Err(facts.unsupported("noop_with_empty_axes without axes on codes")),
                (true, false) => (0..x.len() as i64).collect(),
                (false, _) => axes,
            };
            reduce(x, &axis::normalize_all(facts, &axes, x.len())?)
        }
    };
    Ok(PoolGeometry { output_shape: y.shape.clone(), kind })
}

fn reduce(shape: &[usize], axes: &[usize]) -> Kind {
    let steps = strides(shape);
    let mut offsets = vec![0];
    for i in (0..shape.len()).filter(|i| axes.contains(i)) {
        offsets =
            offsets.iter().flat_map(|&o| (0..shape[i]).map(move |k| (o, k))).map(|(o, k)| o + k * steps[i]).collect();
    }
    let kept = (0..shape.len()).filter(|i| !axes.contains(i)).map(|i| (shape[i], steps[i])).collect();
    Kind::Reduce { kept, offsets }
}

impl PoolGeometry {
    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.output_shape.iter().product()
    }

    /// Shape of the output.
    pub fn output_shape(&self) -> &[usize] {
        &self.output_shape
    }

    /// Most taps that an output can have.
    fn most_taps(&self) -> usize {
        match &self.kind {
            Kind::Pool { window, .. } => window.kernel.iter().product(),
            Kind::Reduce { offsets, .. } => offsets.len(),
        }
    }

    /// The count of every output, where it is the same for all.
    fn constant_count(&self) -> Option<usize> {
        match &self.kind {
            Kind::Reduce { offsets, .. } => Some(offsets.len()),
            Kind::Pool { .. } => None,
        }
    }

    /// Channels of an output `N C 1 1` that reduces the images of a four-dimensional input.
    fn image_channels(&self, input: &[usize]) -> Option<usize> {
        match (&self.kind, self.output_shape.as_slice(), input) {
            (Kind::Reduce { .. }, [n, c, 1, 1], [m, d, _, _]) if (n, c) == (m, d) => Some(*c),
            _ => None,
        }
    }

    /// Visits the flat input indices that output `index` sums, in row-major order, and gives the divisor of a mean.
    pub fn for_each_tap(&self, index: usize, mut visit: impl FnMut(usize)) -> usize {
        match &self.kind {
            Kind::Reduce { kept, offsets } => {
                let (mut rest, mut base) = (index, 0);
                for &(size, step) in kept.iter().rev() {
                    base += rest % size * step;
                    rest /= size;
                }
                offsets.iter().for_each(|&o| visit(base + o));
                offsets.len()
            }
            Kind::Pool { input, window, include_pad } => {
                let (spatial, out) = (&input[2..], &self.output_shape[2..]);
                let (mut rest, mut step, mut count) = (index, 1, 1);
                let mut base = 0;
                // Of each axis, the last one first, the distance between taps and their number.
                let mut taps: SmallVec<[[usize; 2]; 3]> = SmallVec::new();
                for i in (0..out.len()).rev() {
                    let (dilation, kernel) = (window.dilations[i], window.kernel[i]);
                    let start = rest % out[i] * window.strides[i];
                    rest /= out[i];
                    // The first tap that does not lie before `end`, which is counted from the begin of the padding.
                    let first_at = |end: usize| end.saturating_sub(start).div_ceil(dilation).min(kernel);
                    let pad = window.pads_begin[i];
                    let (first, behind) = (first_at(pad), first_at(pad + spatial[i]));
                    count *= match include_pad {
                        true => first_at(pad + spatial[i] + window.pads_end[i]),
                        false => behind - first,
                    };
                    base += (start + first * dilation).saturating_sub(pad) * step;
                    taps.push([dilation * step, behind - first]);
                    step *= spatial[i];
                }
                walk(&taps, base + rest * step, &mut visit);
                count
            }
        }
    }
}

/// Visits the sums of `base` and multiples of the distances, those of the last pair outermost.
fn walk(taps: &[[usize; 2]], base: usize, visit: &mut impl FnMut(usize)) {
    match taps {
        [] => visit(base),
        [rest @ .., [distance, count]] => (0..*count).for_each(|i| walk(rest, base + i * distance, visit)),
    }
}

/// The arrangement of a pool; `planar` says whether the planes of images are reduced.
pub fn arrangement(planar: bool, y: &Fact) -> Arrangement {
    let layout = if planar { Layout::ChannelsLast } else { Layout::RowMajor };
    // The channels of one pixel lie in the same order in both layouts.
    let pixel = y.shape.len() < 3 || y.shape[2..].iter().all(|&d| d == 1);
    Arrangement { layout: if pixel { Layout::RowMajor } else { layout }, ..Arrangement::first(layout) }
}

/// Pools and reductions on codes.
pub struct Window;

impl IntegerOp for Window {
    fn data_inputs(&self, _facts: &Facts<'_>) -> Vec<usize> {
        vec![0]
    }

    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        self.env(facts, clamp, Terms::Centred)
    }

    fn arrangement(&self, facts: &Facts<'_>, _layouts: &[Layout]) -> Option<Arrangement> {
        let y = facts.outputs.first()?.as_ref()?;
        Some(arrangement(planar(facts).ok()?.is_some(), y))
    }

    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>, env: Env) -> Result<Prepared> {
        let Action::Program { program, .. } = &context.body.action else {
            return Err(facts.unsupported(format!("action '{}' of a pool", context.body.action.label())));
        };
        let terms = context.body.accumulator.terms;
        let mut env = if terms == Terms::Centred { env } else { self.env(facts, context.clamp, terms)? };
        let geometry = geometry(facts)?;
        if let Some(channels) = geometry.image_channels(&facts.input(0)?.shape)
            && program.reads("channel")
        {
            env.channel_ints("channel", (0..channels).map(|c| c as i64));
        }
        let compiled = program.compile(&env)?;
        let x = encoding_of(facts, facts.input(0)?)?;
        let y = facts.outputs[0].as_ref().ok_or_else(|| facts.invalid("no output"))?;
        let planar = planar(facts)?;
        let arrangement = arrangement(planar.is_some(), y);
        let kernel = WindowKernel {
            geometry,
            planar,
            tile: compiled.tile(),
            compiled,
            zero_point: if terms == Terms::Centred { x.zero_point[0] } else { 0 },
            dtype: encoding_of(facts, y)?.storage_dtype(),
        };
        Ok(Prepared { kernel: Box::new(kernel), arrangement })
    }
}

/// The window as one over channels-last images.
pub struct Planar {
    /// Geometry.
    pub shape: PoolShape,
    /// Divisor of each output of a plane.
    pub counts: Vec<i32>,
    /// Elements of the input that each window meets.
    met: Vec<i32>,
}

/// The planar form; `None` for other reductions than those over one or two spatial axes.
pub fn planar(facts: &Facts<'_>) -> Result<Option<Planar>> {
    let x = &facts.input(0)?.shape;
    let rank = x.len();
    let shape = match facts.node.op_type.as_str() {
        "AveragePool" => max_pool::planar(facts, Pool { average: true, global: false })?,
        _ => {
            let Kind::Reduce { kept, offsets } = geometry(facts)?.kind else { return Ok(None) };
            let spatial = x.get(2..).unwrap_or_default();
            // Sizes alone do not tell one axis from another.
            let images = x.iter().copied().zip(strides(x)).take(2);
            let whole = offsets.len() == spatial.iter().product::<usize>() && kept.iter().copied().eq(images);
            let input = match spatial {
                [width] => [1, *width],
                [height, width] => [*height, *width],
                _ => return Ok(None),
            };
            let shape = PoolShape::global(x[0], input, x[1]);
            (whole && shape.validate().is_ok()).then_some(shape)
        }
    };
    let include_pad = facts.node.int("count_include_pad", 0)? != 0;
    let fits = |s: &PoolShape| (3..=4).contains(&rank) && s.kernel[0] * s.kernel[1] < 1 << 14;
    Ok(shape.filter(fits).map(|shape| Planar {
        counts: window_counts(&shape, include_pad).into_iter().map(|n| n.max(1) as i32).collect(),
        met: window_counts(&shape, false).into_iter().map(|n| n as i32).collect(),
        shape,
    }))
}

impl Window {
    fn env(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>, terms: Terms) -> Result<Env> {
        let x = encoding_of(facts, facts.input(0)?)?;
        if x.scale.len() != 1 {
            return Err(facts.unsupported("a pool over a per-channel activation"));
        }
        let y = facts.outputs[0].as_ref().ok_or_else(|| facts.invalid("no output"))?;
        let geometry = geometry(facts)?;
        let most = geometry.most_taps() as i128;
        let zero_point = if terms == Terms::Centred { i128::from(x.zero_point[0]) } else { 0 };
        let (lo, hi) = (i128::from(x.qmin()) - zero_point, i128::from(x.qmax()) - zero_point);
        let mut env = Env::new();
        env.input_int("acc", (lo * most).min(0), (hi * most).max(0));
        match geometry.constant_count() {
            Some(n) => env.constant("n", Value::Int(n as i128)),
            None => env.input_int("n", 1, most),
        };
        add_encoding(&mut env, "x", x);
        add_output(&mut env, encoding_of(facts, y)?, clamp);
        let channels = geometry.image_channels(&facts.input(0)?.shape);
        env.constant("images", Value::Bool(channels.is_some()));
        env.constant("channels", Value::Int(channels.unwrap_or(0) as i128));
        env.constant("attr.count_include_pad", Value::Int(0));
        add_attributes(&mut env, facts.node, &[]);
        Ok(env)
    }
}

struct WindowKernel {
    geometry: PoolGeometry,
    planar: Option<Planar>,
    compiled: Compiled,
    tile: TileProgram,
    zero_point: i64,
    dtype: DType,
}

impl WindowKernel {
    /// Sum and count of one output.
    fn sum(&self, codes: &Codes<'_>, index: usize) -> (i64, usize) {
        let mut sum = 0i64;
        let mut taps = 0i64;
        let count = self.geometry.for_each_tap(index, |tap| {
            sum += codes.at(tap);
            taps += 1;
        });
        (sum - taps * self.zero_point, count.max(1))
    }
}

/// Codes of any storage type.
enum Codes<'a> {
    U8(&'a [u8]),
    I8(&'a [i8]),
    U16(&'a [u16]),
    I16(&'a [i16]),
    Wide(Vec<i64>),
}

impl<'a> Codes<'a> {
    fn new(x: &'a Tensor) -> Result<Self> {
        Ok(match x.data() {
            Data::U8(v) => Codes::U8(v),
            Data::I8(v) => Codes::I8(v),
            Data::U16(v) => Codes::U16(v),
            Data::I16(v) => Codes::I16(v),
            _ => Codes::Wide(x.to_i64()?),
        })
    }

    fn at(&self, i: usize) -> i64 {
        match self {
            Codes::U8(v) => v[i].into(),
            Codes::I8(v) => v[i].into(),
            Codes::U16(v) => v[i].into(),
            Codes::I16(v) => v[i].into(),
            Codes::Wide(v) => v[i],
        }
    }
}

impl Planar {
    /// The shape of an output of shape `y`, as [`arrangement`] has it in memory.
    pub fn output_shape(&self, y: &[usize]) -> Shape {
        if self.shape.output == [1, 1] { y.into() } else { turned(y) }
    }

    /// All codes in ONNX's order, and where element `index` of the output stands in that.
    pub fn in_order(&self, x: &Tensor, index: usize) -> Result<(Vec<i64>, usize)> {
        let [height, width] = self.shape.input;
        let (channels, plane) = (self.shape.channels, self.shape.output[0] * self.shape.output[1]);
        let mut ordered = vec![0i64; x.len()];
        transpose(Engine::single(), [self.shape.batch, height * width, channels], &x.to_i64()?, &mut ordered);
        let (pixel, channel) = (index / channels, index % channels);
        Ok((ordered, (pixel / plane * channels + channel) * plane + pixel % plane))
    }
}

impl WindowKernel {
    /// All outputs, from channels-last codes.
    fn run_planar(&self, context: &RunContext<'_>, planar: &Planar, x: &Tensor) -> Result<Outputs> {
        let Planar { shape, counts, met } = planar;
        if x.len() != shape.input_len() {
            return Err(Error::invalid(
                "run_shape",
                format!("{} codes where the node was prepared for {shape:?}", x.len()),
            ));
        }
        let channels = shape.channels;
        let plane = shape.output[0] * shape.output[1];
        let counts_vary = self.geometry.constant_count().is_none();
        let data = compute_codes(context, self.dtype, shape.output_len(), |start, out| {
            let (mut sums, mut divisors) = ([0i32; CHUNK], [0i32; CHUNK]);
            let sums = &mut sums[..out.len()];
            match x.data() {
                Data::U8(v) => window_sum_from(context.simd, shape, v, start, sums),
                Data::I8(v) => window_sum_from(context.simd, shape, v, start, sums),
                Data::U16(v) => window_sum_from(context.simd, shape, v, start, sums),
                Data::I16(v) => window_sum_from(context.simd, shape, v, start, sums),
                other => return Err(super::mac::wrong_codes(other)),
            }
            let mut at = 0;
            while at < out.len() {
                let pixel = (start + at) / channels % plane;
                let part = at..out.len().min(at + channels - (start + at) % channels);
                at = part.end;
                // Padding is no part of the sums, whether it counts or not.
                let offset = met[pixel] * self.zero_point as i32;
                sums[part.clone()].iter_mut().for_each(|sum| *sum -= offset);
                divisors[part].fill(counts[pixel]);
            }
            let lanes = [Lanes::I32(sums), Lanes::I32(&divisors[..out.len()])];
            let lanes = &lanes[..1 + usize::from(counts_vary)];
            let cyclic = match self.compiled.channels() {
                1 => Channels::Uniform(0),
                c => Channels::Cyclic { start: start % c },
            };
            self.tile.run(lanes, cyclic, out)
        })?;
        Ok([Tensor::new(planar.output_shape(self.geometry.output_shape()), data)?].into())
    }
}

impl Kernel for WindowKernel {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        if let Some(planar) = &self.planar {
            return self.run_planar(context, planar, x);
        }
        let codes = Codes::new(x)?;
        let counts_vary = self.geometry.constant_count().is_none();
        let data = compute_codes(context, self.dtype, self.geometry.outputs(), |start, out| {
            let mut sums = [0i64; CHUNK];
            let mut counts = [0i32; CHUNK];
            for i in 0..out.len() {
                let (sum, count) = self.sum(&codes, start + i);
                (sums[i], counts[i]) = (sum, count as i32);
            }
            let lanes = [Lanes::I64(&sums[..out.len()]), Lanes::I32(&counts[..out.len()])];
            let lanes = &lanes[..1 + usize::from(counts_vary)];
            let channels = match self.compiled.channels() {
                1 => Channels::Uniform(0),
                c => Channels::Cyclic { start: start % c },
            };
            self.tile.run(lanes, channels, out)
        })?;
        Ok([Tensor::new(self.geometry.output_shape(), data)?].into())
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        let x = input(inputs, 0)?;
        let (codes, index) = match &self.planar {
            Some(planar) => planar.in_order(x, index).map(|(codes, index)| (Codes::Wide(codes), index))?,
            None => (Codes::new(x)?, index),
        };
        let (sum, count) = self.sum(&codes, index);
        let mut values = vec![Value::Int(sum.into())];
        if self.geometry.constant_count().is_none() {
            values.push(Value::Int(count as i128));
        }
        Ok(Explanation {
            operands: vec![("acc".into(), sum.to_string()), ("n".into(), count.to_string())],
            trace: self.compiled.trace(index % self.compiled.channels(), &values)?,
            ..Explanation::default()
        })
    }
}
