//! Conv over one to three spatial dimensions, in float32. Up to two run in the channel-last kernel, whose sums take
//! taps, then input channels, ascending by fused multiply-add; three run here, input channels first.

use super::closure::{kernel, optional, shaped};
use super::parallel::fill;
use super::window::{Window, kernel_shape, lift, valid_range};
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::{Error, Result};
use crate::kernels::float::{FloatConvWeights, conv2d_f32};
use crate::kernels::{self, to_channels_first, to_channels_last};
use crate::tensor::{Tensor, element_count};

/// Conv.
pub struct Conv;

/// Sizes of a Conv node: `[N, C, …]` by `[M, C / groups, …]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvShape {
    /// Batch.
    pub batch: usize,
    /// Input channels of all groups.
    pub channels: usize,
    /// Output channels of all groups.
    pub filters: usize,
    /// Groups.
    pub groups: usize,
    /// Spatial dimensions of the input.
    pub input: Vec<usize>,
    /// Spatial dimensions of the output.
    pub output: Vec<usize>,
    /// The window.
    pub window: Window,
}

/// Attribute `group`, at least 1.
pub fn groups(facts: &Facts<'_>) -> Result<usize> {
    let group = facts.node.int("group", 1)?;
    usize::try_from(group).ok().filter(|&g| g > 0).ok_or_else(|| facts.invalid(format!("group is {group}")))
}

/// Checks that a bias has one entry per output channel.
pub fn check_bias(facts: &Facts<'_>, filters: usize) -> Result<()> {
    facts.optional(2).map_or(Ok(()), |bias| signature::shape(facts, bias, &[filters]))
}

impl ConvShape {
    /// Reads and checks a node.
    pub fn from_node(facts: &Facts<'_>) -> Result<Self> {
        let attributes = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
        signature::check(facts, 2..=3, 1..=1, &attributes)?;
        let (x, w) = (facts.input(0)?, facts.input(1)?);
        if x.shape.len() != w.shape.len() || !(3..=5).contains(&x.shape.len()) {
            let (a, b) = (&x.shape, &w.shape);
            return Err(
                facts.unsupported(format!("convolution of {a:?} by {b:?}: one to three dimensions are supported"))
            );
        }
        let groups = groups(facts)?;
        let (channels, filters) = (x.shape[1], w.shape[0]);
        if w.shape[1].checked_mul(groups) != Some(channels) || filters % groups != 0 {
            return Err(facts.invalid(format!("weights of {:?} do not fit {:?} in {groups} groups", w.shape, x.shape)));
        }
        check_bias(facts, filters)?;
        let input = x.shape[2..].to_vec();
        let window = Window::from_node(facts, &input, &kernel_shape(facts, &w.shape[2..])?, false)?;
        let output = window.output_dims(facts, &input)?;
        Ok(ConvShape { batch: x.shape[0], channels, filters, groups, input, output, window })
    }

    /// The whole output shape, `[N, M, …]`.
    pub fn output_shape(&self) -> Vec<usize> {
        [&[self.batch, self.filters], self.output.as_slice()].concat()
    }

    /// The geometry for the kernels, where there are one or two spatial dimensions and all sizes are above zero.
    pub fn planar(&self) -> Option<kernels::ConvShape> {
        let ([1, h, w], true) = (lift(&self.input)?, self.input.len() < 3) else { return None };
        let window = self.window.lifted()?;
        let pair = |list: &[usize]| [list[1], list[2]];
        let ([top, left], [bottom, right]) = (pair(&window.pads_begin), pair(&window.pads_end));
        let shape = kernels::ConvShape {
            batch: self.batch,
            input: [h, w],
            in_channels: self.channels,
            out_channels: self.filters,
            kernel: pair(&window.kernel),
            stride: pair(&window.strides),
            dilation: pair(&window.dilations),
            pads: [top, left, bottom, right],
            groups: self.groups,
        };
        (shape.validate().is_ok() && self.batch * h * w > 0).then_some(shape)
    }
}

fn planar_kernel(facts: &Facts<'_>, conv: ConvShape, shape: kernels::ConvShape) -> Result<Box<dyn Kernel>> {
    let (x_shape, w_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
    let pack = move |w: &Tensor| Ok::<_, Error>(FloatConvWeights::new(&shape, &floats::read(w)?));
    let packed = facts.input(1)?.constant.as_deref().map(pack).transpose()?;
    kernel(move |context, inputs| {
        let x = shaped(inputs, 0, &x_shape)?;
        let fresh = match &packed {
            Some(_) => None,
            None => Some(pack(shaped(inputs, 1, &w_shape)?)?),
        };
        let Some(weights) = packed.as_ref().or(fresh.as_ref()) else {
            return Err(Error::invalid("run_input", "input 1 was not given"));
        };
        let bias = optional(inputs, 2).map(|_| shaped(inputs, 2, &[conv.filters])).transpose()?;
        let bias = bias.map(floats::read).transpose()?.unwrap_or_default();
        let (engine, values) = (context.engine(), floats::read(x)?);
        let mut last = vec![0f32; values.len()];
        to_channels_last(engine, [shape.batch, shape.in_channels, shape.input[0] * shape.input[1]], &values, &mut last);
        let mut sums = vec![0f32; shape.output_len()];
        conv2d_f32(engine, &shape, &last, weights, &bias, &mut sums);
        let mut y = vec![0f32; sums.len()];
        let pixels = shape.output().iter().product();
        to_channels_first(engine, [shape.batch, shape.out_channels, pixels], &sums, &mut y);
        Ok([floats::write(&conv.output_shape(), y, x.dtype())?].into())
    })
}

impl Op for Conv {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let shape = ConvShape::from_node(facts)?.output_shape();
        element_count(&shape)?;
        let x = facts.input(0)?;
        signature::float32(facts, x)?;
        for other in [facts.optional(1), facts.optional(2)].into_iter().flatten() {
            signature::same_dtype(facts, x, other)?;
        }
        Ok(vec![(x.dtype, shape)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let conv = ConvShape::from_node(facts)?;
        if let Some(shape) = conv.planar() {
            return planar_kernel(facts, conv, shape);
        }
        let sizes = [conv.channels, conv.filters, conv.groups];
        by_planes(facts, sizes, [&conv.input, &conv.output], &conv.window, |p, y| {
            y.fill(p.bias.unwrap_or(0.0));
            for c in 0..p.depth {
                let weights = &p.w[(p.filter * p.depth + c) * p.taps..][..p.taps];
                accumulate(y, p.channel(c), weights, p.window, p.input, p.output);
            }
        })
    }
}

/// What one plane of the output of a convolution, or of a transposed one, is made of; spatial dimensions are three.
pub(super) struct Plane<'a> {
    pub x: &'a [f32],
    pub w: &'a [f32],
    /// Entry of the bias, where there is one.
    pub bias: Option<f32>,
    /// Output channel.
    pub filter: usize,
    /// First of the input channels of its group, counted over all images.
    pub first: usize,
    /// Input channels of a group.
    pub depth: usize,
    /// Output channels of a group.
    pub per_group: usize,
    /// Elements of a channel's kernel.
    pub taps: usize,
    pub window: &'a Window,
    pub input: [usize; 3],
    pub output: [usize; 3],
}

impl<'a> Plane<'a> {
    /// The plane of an input channel of the group.
    pub fn channel(&self, c: usize) -> &'a [f32] {
        let plane = self.input.iter().product::<usize>();
        &self.x[(self.first + c) * plane..][..plane]
    }
}

/// The kernel of a convolution of either direction that `compute` makes plane by plane. `sizes` are input channels, output
/// channels and groups; `spatial` the dimensions of input and output.
pub(super) fn by_planes(
    facts: &Facts<'_>,
    [channels, filters, groups]: [usize; 3],
    [input, output]: [&[usize]; 2],
    window: &Window,
    compute: impl Fn(&Plane<'_>, &mut [f32]) + Send + Sync + 'static,
) -> Result<Box<dyn Kernel>> {
    let (x_shape, w_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
    let shape = [&[x_shape[0], filters], output].concat();
    let limit = || facts.unsupported("more than three spatial dimensions");
    let window = window.lifted().ok_or_else(limit)?;
    let (input, output) = (lift(input).ok_or_else(limit)?, lift(output).ok_or_else(limit)?);
    kernel(move |context, inputs| {
        let (x, w) = (shaped(inputs, 0, &x_shape)?, shaped(inputs, 1, &w_shape)?);
        let bias = optional(inputs, 2).map(|_| shaped(inputs, 2, &[filters])).transpose()?;
        let dtype = x.dtype();
        let (x, w, bias) = (floats::read(x)?, floats::read(w)?, bias.map(floats::read).transpose()?);
        let mut y = vec![0f32; element_count(&shape)?];
        let plane = output.iter().product::<usize>().max(1);
        let (depth, per_group) = (channels / groups, filters / groups);
        fill(context.engine(), &mut y, plane, |start, part| {
            let (image, filter) = (start / plane / filters, start / plane % filters);
            let plane = Plane {
                x: &x,
                w: &w,
                bias: bias.as_ref().map(|b| b[filter]),
                filter,
                first: image * channels + filter / per_group * depth,
                depth,
                per_group,
                taps: window.kernel.iter().product(),
                window: &window,
                input,
                output,
            };
            compute(&plane, part);
        });
        Ok([floats::write(&shape, y, dtype)?].into())
    })
}

/// Adds the convolution of one channel to one plane of the output.
fn accumulate(y: &mut [f32], x: &[f32], w: &[f32], window: &Window, input: [usize; 3], output: [usize; 3]) {
    let range = |i: usize, tap: usize| {
        valid_range(output[i], input[i], window.strides[i], tap * window.dilations[i], window.pads_begin[i])
    };
    let source =
        |i: usize, o: usize, tap: usize| o * window.strides[i] + tap * window.dilations[i] - window.pads_begin[i];
    for (t, &weight) in w.iter().enumerate() {
        let (kz, ky, kx) =
            (t / (window.kernel[1] * window.kernel[2]), t / window.kernel[2] % window.kernel[1], t % window.kernel[2]);
        let columns = range(2, kx);
        if columns.is_empty() {
            continue;
        }
        let first = source(2, columns.start, kx);
        for z in range(0, kz) {
            for r in range(1, ky) {
                let line = &x[(source(0, z, kz) * input[1] + source(1, r, ky)) * input[2] + first..];
                let out = &mut y[(z * output[1] + r) * output[2]..][columns.clone()];
                match window.strides[2] {
                    1 => out.iter_mut().zip(line).for_each(|(o, &v)| *o += weight * v),
                    s => out.iter_mut().zip(line.iter().step_by(s)).for_each(|(o, &v)| *o += weight * v),
                }
            }
        }
    }
}
