//! ConvTranspose over one to three spatial dimensions, in float32: sums run over input channel, then taps, ascending.

use super::conv::{by_planes, check_bias, groups};
use super::window::{Window, kernel_shape, spatial_list, valid_range};
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::Result;
use crate::tensor::element_count;

/// ConvTranspose.
pub struct ConvTranspose;

/// Sizes of a ConvTranspose node: `[N, C, …]` by `[C, M / groups, …]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvTransposeShape {
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
    /// The window of the convolution that this one transposes: it maps outputs to inputs. Padding at the end that
    /// would be negative is written as a larger output with zero padding.
    pub window: Window,
}

impl ConvTransposeShape {
    /// Reads and checks a node.
    ///
    /// Without `output_shape`, a dimension is `stride · (input - 1) + output_padding + extent - pads`, where SAME modes
    /// pad so that it becomes at most `stride · input` (less where the window is smaller than its stride). With it, the padding is what remains, and its odd element is at the end
    /// for `SAME_UPPER`, at the beginning otherwise.
    pub fn from_node(facts: &Facts<'_>) -> Result<Self> {
        let attributes =
            ["auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads", "strides"];
        signature::check(facts, 2..=3, 1..=1, &attributes)?;
        let (x, w) = (facts.input(0)?, facts.input(1)?);
        if x.shape.len() != w.shape.len() || !(3..=5).contains(&x.shape.len()) {
            let (a, b) = (&x.shape, &w.shape);
            return Err(
                facts.unsupported(format!("convolution of {a:?} by {b:?}: one to three dimensions are supported"))
            );
        }
        let groups = groups(facts)?;
        let channels = x.shape[1];
        if w.shape[0] != channels || channels % groups != 0 {
            return Err(facts.invalid(format!("weights of {:?} do not fit {:?} in {groups} groups", w.shape, x.shape)));
        }
        let filters = element_count(&[w.shape[1], groups])?;
        check_bias(facts, filters)?;
        let input = x.shape[2..].to_vec();
        let rank = input.len();
        let mut window = Window {
            kernel: kernel_shape(facts, &w.shape[2..])?,
            strides: spatial_list(facts, "strides", rank, 1, 1)?,
            dilations: spatial_list(facts, "dilations", rank, 1, 1)?,
            pads_begin: Vec::new(),
            pads_end: Vec::new(),
            ceil_mode: false,
        };
        let pads = spatial_list(facts, "pads", 2 * rank, 0, 0)?;
        let extra = spatial_list(facts, "output_padding", rank, 0, 0)?;
        let auto_pad = facts.node.string("auto_pad", "NOTSET")?;
        if !["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"].contains(&auto_pad) {
            return Err(facts.invalid(format!("auto_pad '{auto_pad}' is not known")));
        }
        if auto_pad != "NOTSET" && pads.iter().any(|&p| p != 0) {
            return Err(facts.invalid(format!("auto_pad {auto_pad} excludes explicit pads {pads:?}")));
        }
        let wanted = match facts.node.ints("output_shape")? {
            None => None,
            // Some exporters give the batch and channels, too.
            Some(list) if list.len() == rank + 2 => Some(list[2..].to_vec()),
            Some(_) => {
                spatial_list(facts, "output_shape", rank, 1, 1)?;
                facts.node.ints("output_shape")?.map(<[i64]>::to_vec)
            }
        };
        let mut output = Vec::with_capacity(rank);
        for i in 0..rank {
            let (stride, extent) = (window.strides[i], window.extent(facts, i)?);
            if input[i] == 0 {
                return Err(facts.invalid(format!("'{}' has shape {:?}: nothing to transpose", x.name, x.shape)));
            }
            let full = element_count(&[stride, input[i] - 1])? + extra[i] + extent;
            let split = |total: usize, upper: bool| {
                if upper { (total / 2, total - total / 2) } else { (total - total / 2, total / 2) }
            };
            let (out, begin, end) = match (&wanted, auto_pad) {
                (Some(shape), _) => {
                    let out = usize::try_from(shape[i]).unwrap_or(0);
                    let (begin, end) = split(full.saturating_sub(out), auto_pad == "SAME_UPPER");
                    (out, begin, end)
                }
                (None, "SAME_UPPER" | "SAME_LOWER") => {
                    let out = element_count(&[stride, input[i]])?.min(full);
                    let (begin, end) = split(full.saturating_sub(out), auto_pad == "SAME_UPPER");
                    (out, begin, end)
                }
                _ => {
                    let out = full
                        .checked_sub(pads[i] + pads[rank + i])
                        .filter(|&o| o > 0)
                        .ok_or_else(|| facts.invalid(format!("pads {pads:?} leave nothing of dimension {i}")))?;
                    (out, pads[i], pads[rank + i])
                }
            };
            output.push(out);
            window.pads_begin.push(begin);
            window.pads_end.push(end);
        }
        Ok(ConvTransposeShape { batch: x.shape[0], channels, filters, groups, input, output, window })
    }

    /// The whole output shape, `[N, M, …]`.
    pub fn output_shape(&self) -> Vec<usize> {
        [&[self.batch, self.filters], self.output.as_slice()].concat()
    }
}

impl Op for ConvTranspose {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let shape = ConvTransposeShape::from_node(facts)?.output_shape();
        element_count(&shape)?;
        let x = facts.input(0)?;
        signature::float32(facts, x)?;
        for other in [facts.optional(1), facts.optional(2)].into_iter().flatten() {
            signature::same_dtype(facts, x, other)?;
        }
        Ok(vec![(x.dtype, shape)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let conv = ConvTransposeShape::from_node(facts)?;
        let sizes = [conv.channels, conv.filters, conv.groups];
        by_planes(facts, sizes, [&conv.input, &conv.output], &conv.window, |p, y| {
            y.fill(p.bias.unwrap_or(0.0));
            let group = p.filter / p.per_group * p.depth;
            for c in 0..p.depth {
                let weights = &p.w[((group + c) * p.per_group + p.filter % p.per_group) * p.taps..][..p.taps];
                scatter(y, p.channel(c), weights, p.window, p.input, p.output);
            }
        })
    }
}

/// Adds the transposed convolution of one channel to one plane of the output.
fn scatter(y: &mut [f32], x: &[f32], w: &[f32], window: &Window, input: [usize; 3], output: [usize; 3]) {
    let range = |i: usize, tap: usize| {
        valid_range(input[i], output[i], window.strides[i], tap * window.dilations[i], window.pads_begin[i])
    };
    let target =
        |i: usize, o: usize, tap: usize| o * window.strides[i] + tap * window.dilations[i] - window.pads_begin[i];
    for (t, &weight) in w.iter().enumerate() {
        let (kz, ky, kx) =
            (t / (window.kernel[1] * window.kernel[2]), t / window.kernel[2] % window.kernel[1], t % window.kernel[2]);
        let columns = range(2, kx);
        if columns.is_empty() {
            continue;
        }
        let first = target(2, columns.start, kx);
        for z in range(0, kz) {
            for r in range(1, ky) {
                let line = &x[(z * input[1] + r) * input[2]..][columns.clone()];
                let out = &mut y[(target(0, z, kz) * output[1] + target(1, r, ky)) * output[2] + first..];
                out.iter_mut().step_by(window.strides[2]).zip(line).for_each(|(o, &v)| *o += weight * v);
            }
        }
    }
}
