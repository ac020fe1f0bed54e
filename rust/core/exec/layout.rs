//! Conversions between memory layouts, and other steps that belong to no operator.

use crate::error::{Error, Result};
use crate::graph::TensorInfo;
use crate::map_data;
use crate::ops::integer::Layout;
use crate::ops::{Kernel, RunContext};
use crate::tensor::{Data, Tensor};

/// The other of the two layouts.
pub fn other(layout: Layout) -> Layout {
    match layout {
        Layout::RowMajor => Layout::ChannelsLast,
        Layout::ChannelsLast => Layout::RowMajor,
    }
}

/// The layout in which the outside sees a tensor.
pub fn of_file(info: &TensorInfo) -> Layout {
    if info.channels_last { Layout::ChannelsLast } else { Layout::RowMajor }
}

/// The shape in ONNX's order of a tensor that the outside sees with `shape`.
pub fn graph_shape(info: &TensorInfo, shape: &[usize]) -> Result<Vec<usize>> {
    match shape {
        shape if !info.channels_last => Ok(shape.to_vec()),
        &[n, h, w, c] => Ok(vec![n, c, h, w]),
        shape => {
            Err(Error::invalid("layout_rank", format!("shape {shape:?} has no channels-last form"))
                .at_tensor(&info.name))
        }
    }
}

/// The shape that the outside sees of a tensor whose shape in ONNX's order is `shape`.
pub fn file_shape(info: &TensorInfo, shape: &[usize]) -> Vec<usize> {
    match shape {
        &[n, c, h, w] if info.channels_last => vec![n, h, w, c],
        shape => shape.to_vec(),
    }
}

/// The flat index in ONNX's order of an element that the outside counts as `index`; `shape` is in ONNX's order.
pub fn graph_index(info: &TensorInfo, shape: &[usize], index: usize) -> usize {
    match shape {
        &[_, c, h, w] if info.channels_last => {
            let (pixel, channel) = (index / c, index % c);
            let (image, place) = (pixel / (h * w), pixel % (h * w));
            (image * c + channel) * h * w + place
        }
        _ => index,
    }
}

/// A tensor of rank 3 or 4 in another layout; its shape follows the order in memory.
pub fn convert(tensor: &Tensor, to: Layout) -> Result<Tensor> {
    let shape = tensor.shape();
    if !(3..=4).contains(&shape.len()) {
        return Err(Error::invalid("layout_rank", format!("a tensor of shape {shape:?} has no channels-last form")));
    }
    let batch = shape[0];
    let (rows, columns, new_shape) = match to {
        Layout::ChannelsLast => {
            let spatial: usize = shape[2..].iter().product();
            let mut new_shape = vec![batch];
            new_shape.extend(&shape[2..]);
            new_shape.push(shape[1]);
            (shape[1], spatial, new_shape)
        }
        Layout::RowMajor => {
            let channels = shape[shape.len() - 1];
            let spatial: usize = shape[1..shape.len() - 1].iter().product();
            let mut new_shape = vec![batch, channels];
            new_shape.extend(&shape[1..shape.len() - 1]);
            (spatial, channels, new_shape)
        }
    };
    let data = map_data!(tensor.data(), v => transpose_batched(v, rows, columns));
    Tensor::new(new_shape, data)
}

/// Transposes each `rows × columns` matrix of `data`, in blocks that fit L1.
fn transpose_batched<T: Copy>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
    const BLOCK: usize = 32;
    let mut out = data.to_vec();
    if rows * columns == 0 {
        return out;
    }
    for (from, to) in data.chunks_exact(rows * columns).zip(out.chunks_exact_mut(rows * columns)) {
        for r0 in (0..rows).step_by(BLOCK) {
            for c0 in (0..columns).step_by(BLOCK) {
                for c in c0..(c0 + BLOCK).min(columns) {
                    for r in r0..(r0 + BLOCK).min(rows) {
                        to[c * rows + r] = from[r * columns + c];
                    }
                }
            }
        }
    }
    out
}

/// Where an element of a tensor of `shape` (ONNX order) lies in the channels-last form.
pub fn channels_last_index(shape: &[usize], index: usize) -> usize {
    let spatial: usize = shape[2..].iter().product();
    let (row, s) = (index / spatial, index % spatial);
    let (n, c) = (row / shape[1], row % shape[1]);
    (n * spatial + s) * shape[1] + c
}

/// Converts its argument to a layout.
pub struct LayoutKernel {
    to: Layout,
}

impl LayoutKernel {
    /// A conversion to `to`.
    pub fn new(to: Layout) -> Self {
        LayoutKernel { to }
    }
}

impl Kernel for LayoutKernel {
    fn run(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let x = inputs.first().copied().flatten().ok_or_else(|| Error::invalid("input_missing", "no argument"))?;
        Ok(vec![convert(x, self.to)?])
    }
}

/// Clamps reals; the float form of a fused activation.
pub struct ClipKernel {
    /// Lower bound.
    pub lo: f32,
    /// Upper bound.
    pub hi: f32,
}

impl Kernel for ClipKernel {
    fn run(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let x = inputs.first().copied().flatten().ok_or_else(|| Error::invalid("input_missing", "no argument"))?;
        let clipped = x.as_f32()?.iter().map(|v| v.max(self.lo).min(self.hi)).collect();
        Ok(vec![Tensor::new(x.shape().to_vec(), Data::F32(clipped))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converting_there_and_back_is_the_identity() {
        let data: Vec<f32> = (0..2 * 3 * 5 * 7).map(|i| i as f32).collect();
        let x = Tensor::f32(&[2, 3, 5, 7], data);
        let there = convert(&x, Layout::ChannelsLast).unwrap();
        assert_eq!(there.shape(), [2, 5, 7, 3]);
        assert_eq!(there.as_f32().unwrap()[1], 35.0);
        assert_eq!(convert(&there, Layout::RowMajor).unwrap(), x);
        let info = TensorInfo { channels_last: true, ..TensorInfo::default() };
        for (index, &value) in there.as_f32().unwrap().iter().enumerate() {
            assert_eq!(graph_index(&info, x.shape(), index), value as usize);
            assert_eq!(channels_last_index(x.shape(), value as usize), index);
        }
    }
}
