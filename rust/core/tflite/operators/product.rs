//! Multiply-accumulate operators: convolutions and matrix products.

use super::super::import::{Attributes, Builder, Site, TO_FRONT};
use super::super::schema as s;
use super::{fused, image_shape, positive, uniform};
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::graph::{Clamp, Node, TensorId};
use std::sync::Arc;

/// The window of a convolution or pool: pairs are vertical first.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Elements.
    pub kernel: [usize; 2],
    /// Steps.
    pub strides: [usize; 2],
    /// Distances of the elements.
    pub dilations: [usize; 2],
    /// The schema's `Padding`: 0 for SAME, 1 for VALID.
    pub padding: i8,
}

impl Window {
    /// A window whose kernel has elements.
    fn of_kernel(kernel: [usize; 2], strides: [usize; 2], dilations: [usize; 2], padding: i8) -> Result<Window> {
        match kernel.contains(&0) {
            true => Err(Error::invalid("node_shape", format!("a kernel of {kernel:?} elements"))),
            false => Ok(Window { kernel, strides, dilations, padding }),
        }
    }

    /// Sets the attributes of ONNX's node that reads the image `x`. SAME pads at the end first.
    pub fn set(&self, b: &Builder<'_, '_>, x: usize, node: &mut Node) -> Result<()> {
        let [_, height, width, _] = image_shape(b, x)?;
        node.set_axes("kernel_shape", &self.kernel).set_axes("strides", &self.strides);
        match self.padding {
            1 => {}
            0 if b.tensor(x).open[1..3].contains(&true) => {
                node.set_text("auto_pad", "SAME_UPPER");
            }
            0 => {
                let total = |i: usize, size: usize| {
                    let reach = (self.kernel[i] - 1).saturating_mul(self.dilations[i]).saturating_add(1);
                    let steps = size.div_ceil(self.strides[i]).saturating_sub(1);
                    steps.saturating_mul(self.strides[i]).saturating_add(reach).saturating_sub(size)
                };
                let (v, h) = (total(0, height), total(1, width));
                node.set_axes("pads", &[v / 2, h / 2, v - v / 2, h - h / 2]);
            }
            other => return Err(Error::invalid("node_options", format!("padding {other}"))),
        }
        Ok(())
    }
}

/// The operands of a convolution.
struct Operands {
    x: usize,
    w: usize,
    y: usize,
    bias: Option<usize>,
}

impl Operands {
    fn new(b: &Builder<'_, '_>, site: Site<'_, '_>, x: usize, w: usize, bias: usize) -> Result<Operands> {
        let op = site.op;
        let operands = Operands { x: op.input(x)?, w: op.input(w)?, y: op.output()?, bias: op.optional(bias) };
        uniform(b, &[operands.x, operands.w, operands.y])?;
        Ok(operands)
    }

    /// The bias as the graph has it: integers count in units of the accumulator, also where the file gives them no scale.
    fn bias(&self, b: &mut Builder<'_, '_>) -> Result<Option<TensorId>> {
        let Some(bias) = self.bias else { return Ok(None) };
        let tensor = b.tensor(bias);
        let (x, w) = (&b.tensor(self.x).encoding, &b.tensor(self.w).encoding);
        match (x, w) {
            (Some(x), Some(w)) if tensor.encoding.is_none() => {
                if tensor.dtype.is_float() {
                    return Err(
                        Error::unsupported("dynamic_range", "a bias of reals beside codes").at_tensor(&tensor.name)
                    );
                }
                let scale: Vec<f64> = w.scale.iter().map(|w| x.scale[0] * w).collect();
                let granularity =
                    if scale.len() == 1 { Granularity::PerTensor } else { Granularity::PerChannel { axis: 0 } };
                let zero_point = vec![0; scale.len()];
                let grid = Encoding { scale, zero_point, bitwidth: 32, signed: true, granularity, ..(**w).clone() };
                // Read by convolutions of other scales, the integers stand for other reals.
                let values = tensor.values()?;
                let name = b.name_of(bias);
                b.add_constant(name, values, Some(Arc::new(grid))).map(Some)
            }
            _ => b.constant(bias, 0, &[]).map(Some),
        }
    }

    /// Adds the node.
    fn node<'b>(
        &self,
        b: &'b mut Builder<'_, '_>,
        site: Site<'_, '_>,
        op_type: &str,
        w: TensorId,
        clamp: Option<Clamp>,
    ) -> Result<&'b mut Node> {
        let bias = self.bias(b)?;
        let x = b.read(site, self.x)?;
        let y = b.write(site, self.y);
        let mut inputs = vec![Some(x), Some(w)];
        inputs.extend(bias.map(Some));
        Ok(b.node(site, op_type, &inputs, &[y]).set_clamp(clamp))
    }
}

/// Adds a convolution whose weights are in ONNX's order and whose window is known.
fn convolve(
    b: &mut Builder<'_, '_>,
    site: Site<'_, '_>,
    operands: &Operands,
    w: TensorId,
    group: usize,
    window: Window,
    activation: i8,
) -> Result<()> {
    let mut attributes = Node::default();
    window.set(b, operands.x, &mut attributes)?;
    attributes.set_axes("dilations", &window.dilations).set_int("group", group as i64);
    let node = operands.node(b, site, "Conv", w, fused(activation)?)?;
    node.attributes = attributes.attributes;
    Ok(())
}

/// The window that the options of a convolution state.
macro_rules! window {
    ($options:expr, $kernel:expr) => {
        Window::of_kernel(
            $kernel,
            [positive("stride_h", $options.stride_h())?, positive("stride_w", $options.stride_w())?],
            [
                positive("dilation_h_factor", $options.dilation_h_factor())?,
                positive("dilation_w_factor", $options.dilation_w_factor())?,
            ],
            $options.padding(),
        )?
    };
}

/// CONV_2D; fewer input channels in the weights than in the image are groups.
pub fn convolution(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(2..=3)?;
    let o = site.op.options::<s::Conv2DOptions<'_>>()?;
    let operands = Operands::new(b, site, 0, 1, 2)?;
    let [_, height, width, depth] = image_shape(b, operands.w)?;
    let [.., channels] = image_shape(b, operands.x)?;
    if depth == 0 || channels % depth != 0 {
        let message = format!("weights of {depth} input channels for an image of {channels}");
        return Err(Error::invalid("node_shape", message));
    }
    let window = window!(o, [height, width]);
    let w = b.constant(operands.w, 0, &TO_FRONT)?;
    convolve(b, site, &operands, w, channels / depth, window, o.fused_activation_function())
}

/// DEPTHWISE_CONV_2D: one group per input channel.
pub fn depthwise(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(2..=3)?;
    let o = site.op.options::<s::DepthwiseConv2DOptions<'_>>()?;
    let operands = Operands::new(b, site, 0, 1, 2)?;
    let [one, height, width, outputs] = image_shape(b, operands.w)?;
    let [.., channels] = image_shape(b, operands.x)?;
    if one != 1 || channels == 0 || outputs % channels != 0 {
        let message = format!("weights of shape {:?} for {channels} channels", b.tensor(operands.w).shape);
        return Err(Error::invalid("node_shape", message));
    }
    // Writers of the format leave the multiplier out where the shapes say it.
    let multiplier = o.depth_multiplier();
    if multiplier != 0 && usize::try_from(multiplier).ok() != Some(outputs / channels) {
        let message = format!("depth_multiplier {multiplier} for {channels} channels and {outputs} outputs");
        return Err(Error::invalid("node_options", message));
    }
    let window = window!(o, [height, width]);
    let w = b.constant(operands.w, 0, &[3, 0, 1, 2])?;
    convolve(b, site, &operands, w, channels, window, o.fused_activation_function())
}

/// TRANSPOSE_CONV: operand 0 is the shape of the result, whose padding decides where the kernels lie.
pub fn transposed(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(3..=4)?;
    let o = site.op.options::<s::TransposeConvOptions<'_>>()?;
    let operands = Operands::new(b, site, 2, 1, 3)?;
    let wanted = b.tensor(site.op.input(0)?).integers()?;
    let [_, height, width, _] = image_shape(b, operands.w)?;
    let [_, x_height, x_width, _] = image_shape(b, operands.x)?;
    if !(0..=1).contains(&o.padding()) {
        return Err(Error::invalid("node_options", format!("padding {}", o.padding())));
    }
    if b.tensor(operands.x).open[1..3].contains(&true) {
        return Err(Error::unsupported("open_dimension", "a transposed convolution of an image of open size")
            .at_tensor(&b.tensor(operands.x).name));
    }
    let strides = [positive("stride_h", o.stride_h())?, positive("stride_w", o.stride_w())?];
    let (mut begin, mut end, mut extra) = ([0; 2], [0; 2], [0; 2]);
    for (i, (size, kernel)) in [(x_height, height), (x_width, width)].into_iter().enumerate() {
        let out = wanted.get(i + 1).copied().and_then(|d| usize::try_from(d).ok()).filter(|&d| d > 0);
        let out = out.ok_or_else(|| Error::invalid("node_operand", format!("a result of shape {wanted:?}")))?;
        // The padding is that of the convolution which would read the result; what lies behind the result is dropped.
        let steps = match o.padding() {
            0 => out.div_ceil(strides[i]),
            _ => out.saturating_add(strides[i]).saturating_sub(kernel) / strides[i],
        };
        let reach = |steps: usize| steps.saturating_sub(1).saturating_mul(strides[i]).saturating_add(kernel);
        begin[i] = if steps == 0 { 0 } else { reach(steps).saturating_sub(out) / 2 };
        let (full, last) = (reach(size), begin[i].saturating_add(out));
        (end[i], extra[i]) = (full.saturating_sub(last), last.saturating_sub(full));
    }
    let w = b.constant(operands.w, 0, &[3, 0, 1, 2])?;
    let node = operands.node(b, site, "ConvTranspose", w, fused(o.fused_activation_function())?)?;
    node.set_axes("kernel_shape", &[height, width]).set_axes("strides", &strides);
    node.set_axes("pads", &[begin[0], begin[1], end[0], end[1]]).set_axes("output_padding", &extra);
    Ok(())
}

/// FULLY_CONNECTED: the image is a list of rows, whatever its shape.
pub fn fully_connected(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(2..=3)?;
    let o = site.op.options::<s::FullyConnectedOptions<'_>>()?;
    if o.weights_format() != 0 {
        return Err(Error::unsupported("weights_format", format!("weights in format {}", o.weights_format())));
    }
    let operands = Operands::new(b, site, 0, 1, 2)?;
    let &[outputs, depth] = b.tensor(operands.w).shape.as_slice() else {
        return Err(Error::invalid("node_shape", format!("weights of shape {:?}", b.tensor(operands.w).shape)));
    };
    let clamp = fused(o.fused_activation_function())?;
    let x_shape = &b.tensor(operands.x).shape;
    let y_shape = &b.tensor(operands.y).shape;
    let is_rows = |shape: &[usize], n: usize| shape.len() == 2 && shape[1] == n;
    let (x_rows, y_rows) = (is_rows(x_shape, depth), is_rows(y_shape, outputs));
    let wide = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut x = b.read(site, operands.x)?;
    if !x_rows {
        let rows = b.integers("rows", site, vec![-1, wide(depth)]);
        let flat = b.like(operands.x, "rows", vec![1, depth]);
        b.step("Reshape", &[x, rows], flat);
        x = flat;
    }
    let w = b.read(site, operands.w)?;
    let y = b.write(site, operands.y);
    let result = if y_rows { y } else { b.like(operands.y, "rows", vec![1, outputs]) };
    let mut inputs = vec![Some(x), Some(w)];
    inputs.extend(operands.bias(b)?.map(Some));
    b.node(site, "Gemm", &inputs, &[result]).set_int("transB", 1).set_clamp(clamp);
    if !y_rows {
        // The first dimension takes what is left, so that the batch may have any size.
        let mut shape: Vec<i64> = b.tensor(operands.y).shape.iter().map(|&d| wide(d)).collect();
        if let Some(first) = shape.first_mut() {
            *first = -1;
        }
        let shape = b.integers("shape", site, shape);
        b.step("Reshape", &[result, shape], y);
    }
    Ok(())
}

/// BATCH_MATMUL.
pub fn matrices(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(2..=2)?;
    let o = site.op.options::<s::BatchMatMulOptions<'_>>()?;
    let y = site.op.output()?;
    uniform(b, &[site.op.input(0)?, site.op.input(1)?, y])?;
    let mut inputs = Vec::new();
    for (i, adjoint) in [o.adj_x(), o.adj_y()].into_iter().enumerate() {
        let t = site.op.input(i)?;
        let mut order: Vec<usize> = (0..b.tensor(t).rank()).collect();
        let id = match (adjoint, order.len()) {
            (false, _) => b.read(site, t)?,
            (true, ..2) => return Err(Error::invalid("node_shape", "a matrix of fewer than two dimensions")),
            (true, rank) => {
                order.swap(rank - 1, rank - 2);
                if b.tensor(t).is_constant() {
                    b.constant(t, 0, &order)?
                } else {
                    let from = b.read(site, t)?;
                    let to = b.like(t, "transposed", order.clone());
                    b.step("Transpose", &[from], to).set_axes("perm", &order);
                    to
                }
            }
        };
        inputs.push(Some(id));
    }
    let y = b.write(site, y);
    b.node(site, "MatMul", &inputs, &[y]);
    Ok(())
}
