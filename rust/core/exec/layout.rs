//! Conversions between memory layouts, and other steps that belong to no operator.

use crate::error::{Error, Result};
use crate::graph::TensorInfo;
use crate::kernels::Engine;
use crate::ops::integer::Layout;
use crate::ops::integer::channels_last::{channel_axes, transposed, transposed_data};
use crate::ops::{Kernel, Outputs, RunContext};
use crate::tensor::{Data, Shape, Tensor};

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
        &[_, _, _, _] if info.channels_last => Layout::ChannelsLast.element(shape, index),
        _ => index,
    }
}

/// A tensor of rank 3 to 5 in another layout; its shape follows the order in memory.
pub fn convert(tensor: &Tensor, to: Layout) -> Result<Tensor> {
    let (sizes, shape) = transposition(tensor.shape(), to)?;
    Tensor::new(shape, transposed_data(Engine::single(), sizes, tensor.data()))
}

/// The batched matrix transposition that brings a tensor of `shape` to a layout, and the shape of the result.
fn transposition(shape: &[usize], to: Layout) -> Result<([usize; 3], Shape)> {
    if !(3..=5).contains(&shape.len()) {
        return Err(Error::invalid("layout_rank", format!("a tensor of shape {shape:?} has no channels-last form")));
    }
    let (batch, rest) = (shape[0], &shape[1..]);
    let channels = channel_axes(shape.len());
    let (rows, columns) = rest.split_at(match to {
        Layout::ChannelsLast => channels,
        Layout::RowMajor => rest.len() - channels,
    });
    Ok((
        [batch, rows.iter().product(), columns.iter().product()],
        [&[batch], columns, rows].into_iter().flatten().copied().collect(),
    ))
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
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = inputs.first().copied().flatten().ok_or_else(|| Error::invalid("input_missing", "no argument"))?;
        let (sizes, shape) = transposition(x.shape(), self.to)?;
        Ok([transposed(context, x, sizes, &shape)?].into())
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
    fn run(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = inputs.first().copied().flatten().ok_or_else(|| Error::invalid("input_missing", "no argument"))?;
        let clipped = x.as_f32()?.iter().map(|v| v.max(self.lo).min(self.hi)).collect();
        Ok([Tensor::new(x.shape(), Data::F32(clipped))?].into())
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
            assert_eq!(Layout::ChannelsLast.index(x.shape(), value as usize), index);
        }
    }
}
