//! DeformConv, Col2Im and CausalConvWithState: relatives of convolution. Sums run in f64 and are rounded once.

use super::closure::{kernel, optional, shaped};
use super::conv::{check_bias, groups};
use super::elementwise::sigmoid;
use super::parallel::fill;
use super::window::{Window, kernel_shape};
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::Result;
use crate::tensor::{Tensor, element_count};

/// DeformConv over two spatial dimensions: each tap reads at an offset, bilinearly, with zeros outside, and is weighted by
/// a mask.
pub struct DeformConv;

struct DeformPlan {
    window: Window,
    groups: usize,
    offset_groups: usize,
    x: [usize; 4],
    w: [usize; 4],
    output: [usize; 2],
}

impl DeformPlan {
    fn new(facts: &Facts<'_>) -> Result<Self> {
        let (x, w, offset) = (facts.input(0)?, facts.input(1)?, facts.input(2)?);
        let (Ok(x_shape), Ok(w_shape)) = (<[usize; 4]>::try_from(&x.shape[..]), <[usize; 4]>::try_from(&w.shape[..]))
        else {
            return Err(facts.unsupported(format!("deformable convolution of {:?} by {:?}", x.shape, w.shape)));
        };
        let groups = groups(facts)?;
        if w_shape[1].checked_mul(groups) != Some(x_shape[1]) || w_shape[0] % groups != 0 {
            return Err(facts.invalid(format!("weights of {w_shape:?} do not fit {x_shape:?} in {groups} groups")));
        }
        check_bias_at(facts, 3, w_shape[0])?;
        let offset_groups = facts.node.int("offset_group", 1)?;
        let offset_groups = usize::try_from(offset_groups).ok().filter(|&g| g > 0 && x_shape[1] % g == 0);
        let offset_groups =
            offset_groups.ok_or_else(|| facts.invalid("offset_group does not divide the input channels"))?;
        let window = Window::from_node(facts, &x_shape[2..], &kernel_shape(facts, &w_shape[2..])?, false)?;
        let output = window.output_dims(facts, &x_shape[2..])?;
        let taps = element_count(&[offset_groups, w_shape[2], w_shape[3]])?;
        signature::shape(facts, offset, &[x_shape[0], 2 * taps, output[0], output[1]])?;
        if let Some(mask) = facts.optional(4) {
            signature::shape(facts, mask, &[x_shape[0], taps, output[0], output[1]])?;
        }
        let output = [output[0], output[1]];
        element_count(&[x_shape[0], w_shape[0], output[0], output[1]])?;
        Ok(DeformPlan { window, groups, offset_groups, x: x_shape, w: w_shape, output })
    }
}

/// Checks that bias `i` has one entry per output channel.
fn check_bias_at(facts: &Facts<'_>, i: usize, filters: usize) -> Result<()> {
    facts.optional(i).map_or(Ok(()), |bias| signature::shape(facts, bias, &[filters]))
}

/// The value of an image between its pixels; zero outside.
fn bilinear(image: &[f64], [height, width]: [usize; 2], y: f64, x: f64) -> f64 {
    // Comparisons that NaN fails.
    if !(y > -1.0 && y < height as f64 && x > -1.0 && x < width as f64) {
        return 0.0;
    }
    let (top, left) = (y.floor(), x.floor());
    let pixel = |row: f64, column: f64| {
        let inside = row >= 0.0 && row < height as f64 && column >= 0.0 && column < width as f64;
        if inside { image[row as usize * width + column as usize] } else { 0.0 }
    };
    let (dy, dx) = (y - top, x - left);
    (1.0 - dy) * ((1.0 - dx) * pixel(top, left) + dx * pixel(top, left + 1.0))
        + dy * ((1.0 - dx) * pixel(top + 1.0, left) + dx * pixel(top + 1.0, left + 1.0))
}

impl Op for DeformConv {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes = ["dilations", "group", "kernel_shape", "offset_group", "pads", "strides"];
        signature::check(facts, 3..=5, 1..=1, &attributes)?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        for other in (1..5).filter_map(|i| facts.optional(i)) {
            signature::same_dtype(facts, x, other)?;
        }
        let plan = DeformPlan::new(facts)?;
        Ok(vec![(x.dtype, vec![plan.x[0], plan.w[0], plan.output[0], plan.output[1]])])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let plan = DeformPlan::new(facts)?;
        kernel(move |context, inputs| {
            let tensor = shaped(inputs, 0, &plan.x)?;
            let (x, w) = (tensor.to_f64(), shaped(inputs, 1, &plan.w)?.to_f64());
            let [offset, bias, mask] = [2, 3, 4].map(|i| optional(inputs, i).map(Tensor::to_f64));
            let offset = offset.unwrap_or_default();
            let [batch, channels, height, width] = plan.x;
            let [filters, depth, rows, columns] = plan.w;
            let (taps, plane) = (rows * columns, plan.output[0] * plan.output[1]);
            let shape = [batch, filters, plan.output[0], plan.output[1]];
            let mut y = vec![0.0; element_count(&shape)?];
            fill(context.engine(), &mut y, 64, |start, part| {
                for (i, y) in part.iter_mut().enumerate() {
                    let i = start + i;
                    let (n, m, at) = (i / plane / filters, i / plane % filters, i % plane);
                    let mut sum = bias.as_ref().map_or(0.0, |b| b[m]);
                    for c in 0..depth {
                        let channel = m / (filters / plan.groups) * depth + c;
                        let group = n * plan.offset_groups + channel / (channels / plan.offset_groups);
                        let image = &x[(n * channels + channel) * height * width..][..height * width];
                        for tap in 0..taps {
                            let place = [at / plan.output[1], at % plan.output[1]];
                            let tap_place = [tap / columns, tap % columns];
                            let position = |d: usize| {
                                let base = place[d] * plan.window.strides[d] + tap_place[d] * plan.window.dilations[d];
                                base as f64 - plan.window.pads_begin[d] as f64
                                    + offset[((group * taps + tap) * 2 + d) * plane + at]
                            };
                            let value = bilinear(image, [height, width], position(0), position(1));
                            let mask = mask.as_ref().map_or(1.0, |v| v[(group * taps + tap) * plane + at]);
                            sum += value * mask * w[(m * depth + c) * taps + tap];
                        }
                    }
                    *y = sum;
                }
            });
            Ok([floats::write_f64(&shape, y, tensor.dtype())?].into())
        })
    }
}

/// Col2Im: blocks of an image, one per column of `[N, C · block, L]`, added where they lie.
pub struct Col2Im;

struct ColumnPlan {
    window: Window,
    image: Vec<usize>,
    /// Blocks along each dimension.
    blocks: Vec<usize>,
    shape: Vec<usize>,
    channels: usize,
}

impl ColumnPlan {
    fn new(facts: &Facts<'_>) -> Result<Self> {
        let shape = facts.input(0)?.shape.clone();
        let sizes = |i: usize| -> Result<Vec<usize>> {
            let list = signature::constant_ints(facts, i)?;
            let sizes: Vec<usize> = list.iter().filter_map(|&d| usize::try_from(d).ok().filter(|&d| d > 0)).collect();
            element_count(&sizes)?;
            if sizes.len() == list.len() {
                Ok(sizes)
            } else {
                Err(facts.invalid(format!("sizes {list:?} are impossible")))
            }
        };
        let (image, block) = (sizes(1)?, sizes(2)?);
        if image.len() != block.len() || image.is_empty() {
            return Err(facts.invalid(format!("blocks of {block:?} do not fit an image of {image:?}")));
        }
        let window = Window::from_node(facts, &image, &block, false)?;
        let blocks = window.output_dims(facts, &image)?;
        let (taps, count) = (element_count(&block)?, element_count(&blocks)?);
        match shape[..] {
            [batch, rows, columns] if rows % taps == 0 && columns == count => {
                element_count(&[&[batch, rows / taps], image.as_slice()].concat())?;
                Ok(ColumnPlan { window, image, blocks, channels: rows / taps, shape })
            }
            _ => Err(facts.invalid(format!("columns of {shape:?} are not {count} blocks of {block:?}"))),
        }
    }

    fn output(&self) -> Vec<usize> {
        [&[self.shape[0], self.channels], self.image.as_slice()].concat()
    }
}

impl Op for Col2Im {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 3..=3, 1..=1, &["dilations", "pads", "strides"])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        Ok(vec![(x.dtype, ColumnPlan::new(facts)?.output())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let plan = ColumnPlan::new(facts)?;
        kernel(move |_, inputs| {
            let tensor = shaped(inputs, 0, &plan.shape)?;
            let x = tensor.to_f64();
            let output = plan.output();
            let pixels: usize = plan.image.iter().product();
            let (taps, count): (usize, usize) = (plan.window.kernel.iter().product(), plan.blocks.iter().product());
            let mut y = vec![0.0; element_count(&output)?];
            for (i, value) in x.iter().enumerate() {
                let (plane, mut tap, mut block) = (i / count / taps, i / count % taps, i % count);
                let (mut place, mut step) = (Some(0), 1);
                for d in (0..plan.image.len()).rev() {
                    let (t, b) = (tap % plan.window.kernel[d], block % plan.blocks[d]);
                    let at = b * plan.window.strides[d] + t * plan.window.dilations[d];
                    let at = at.checked_sub(plan.window.pads_begin[d]).filter(|&p| p < plan.image[d]);
                    place = place.zip(at).map(|(p, a)| p + a * step);
                    step *= plan.image[d];
                    (tap, block) = (tap / plan.window.kernel[d], block / plan.blocks[d]);
                }
                if let Some(place) = place {
                    y[plane * pixels + place] += value;
                }
            }
            Ok([floats::write_f64(&output, y, tensor.dtype())?].into())
        })
    }
}

/// CausalConvWithState: a convolution per channel over `[N, C, L]` that sees the past only, which is an input, and gives
/// the past of the next run.
pub struct CausalConvWithState;

impl CausalConvWithState {
    /// Taps, and whether the result is multiplied by its sigmoid.
    fn plan(facts: &Facts<'_>) -> Result<(usize, bool)> {
        let (x, w) = (facts.input(0)?, facts.input(1)?);
        let &[batch, channels, _] = x.shape.as_slice() else {
            return Err(facts.invalid(format!("'{}' has shape {:?}, three dimensions are expected", x.name, x.shape)));
        };
        let taps = w.shape.last().copied().unwrap_or(0);
        signature::shape(facts, w, &[channels, 1, taps])?;
        if taps == 0 {
            return Err(facts.invalid("the weights have no taps"));
        }
        check_bias(facts, channels)?;
        if let Some(past) = facts.optional(3) {
            signature::shape(facts, past, &[batch, channels, taps - 1])?;
        }
        match facts.node.string("activation", "none")? {
            "none" => Ok((taps, false)),
            "silu" | "swish" => Ok((taps, true)),
            other => Err(facts.invalid(format!("activation '{other}' is not known"))),
        }
    }
}

impl Op for CausalConvWithState {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=4, 1..=2, &["activation"])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        for other in (1..4).filter_map(|i| facts.optional(i)) {
            signature::same_dtype(facts, x, other)?;
        }
        let (taps, _) = Self::plan(facts)?;
        let state = vec![x.shape[0], x.shape[1], taps - 1];
        element_count(&state)?;
        let all = [(x.dtype, x.shape.clone()), (x.dtype, state)];
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (taps, activated) = Self::plan(facts)?;
        let (shape, outputs) = (facts.input(0)?.shape.clone(), facts.node.outputs.len());
        let (channels, size, past) = (shape[1], shape[2], taps - 1);
        kernel(move |_, inputs| {
            let tensor = shaped(inputs, 0, &shape)?;
            let (x, w) = (tensor.to_f64(), shaped(inputs, 1, &[channels, 1, taps])?.to_f64());
            let [bias, state] = [2, 3].map(|i| optional(inputs, i).map(Tensor::to_f64));
            let (mut y, mut present) = (Vec::with_capacity(x.len()), Vec::new());
            for line in 0..shape[0] * channels {
                let mut all = state.as_ref().map_or_else(|| vec![0.0; past], |s| s[line * past..][..past].to_vec());
                all.extend_from_slice(&x[line * size..][..size]);
                let (w, bias) =
                    (&w[line % channels * taps..][..taps], bias.as_ref().map_or(0.0, |b| b[line % channels]));
                y.extend((0..size).map(|t| {
                    let sum = w.iter().zip(&all[t..]).map(|(a, b)| a * b).sum::<f64>() + bias;
                    if activated { sum * sigmoid(sum) } else { sum }
                }));
                present.extend_from_slice(&all[size..]);
            }
            let mut out = vec![floats::write_f64(&shape, y, tensor.dtype())?];
            if outputs > 1 {
                out.push(floats::write_f64(&[shape[0], channels, past], present, tensor.dtype())?);
            }
            Ok(out.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_fade_into_zeros() {
        let image = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(bilinear(&image, [2, 2], 0.5, 0.5), 2.5);
        assert_eq!(bilinear(&image, [2, 2], -0.5, 0.0), 0.5);
        assert_eq!(bilinear(&image, [2, 2], 1.5, 1.5), 1.0);
        assert_eq!(bilinear(&image, [2, 2], f64::NAN, 0.0), 0.0);
        assert_eq!(bilinear(&image, [2, 2], 2.0, 0.0), 0.0);
    }
}
