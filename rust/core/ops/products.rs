//! Which factors the products of one element have: Conv, ConvTranspose, Gemm and MatMul in ONNX's order.

use super::conv_transpose::ConvTransposeShape;
use super::explanation::{coordinates, met};
use super::window::{Window, kernel_shape};
use super::{Facts, signature};
use crate::error::Result;

/// How the elements of two operands meet.
pub struct Products {
    x: Vec<usize>,
    w: Vec<usize>,
    y: Vec<usize>,
    kind: Kind,
}

enum Kind {
    Conv { window: Window, groups: usize },
    ConvTranspose { window: Window, groups: usize },
    Matrix { transposed: [bool; 2] },
}

impl Products {
    /// The products of a node; `None` for operators that have none.
    pub fn of(facts: &Facts<'_>) -> Result<Option<Products>> {
        let kind = match facts.node.op_type.as_str() {
            "Conv" => {
                let (x, w) = (facts.input(0)?, facts.input(1)?);
                let kernel = kernel_shape(facts, &w.shape[2..])?;
                let window = Window::from_node(facts, &x.shape[2..], &kernel, false)?;
                Kind::Conv { window, groups: x.shape[1] / w.shape[1].max(1) }
            }
            "ConvTranspose" => {
                let ConvTransposeShape { window, groups, .. } = ConvTransposeShape::from_node(facts)?;
                Kind::ConvTranspose { window, groups }
            }
            "Gemm" => {
                let flag = |name| signature::flag(facts, name, false);
                Kind::Matrix { transposed: [flag("transA")?, flag("transB")?] }
            }
            "MatMul" => Kind::Matrix { transposed: [false; 2] },
            _ => return Ok(None),
        };
        let y = facts.outputs.first().and_then(Option::as_ref).ok_or_else(|| facts.invalid("no output"))?;
        Ok(Some(Products {
            x: facts.input(0)?.shape.clone(),
            w: facts.input(1)?.shape.clone(),
            y: y.shape.clone(),
            kind,
        }))
    }

    /// The output's shape.
    pub fn output(&self) -> &[usize] {
        &self.y
    }

    /// The axis of the output along which a bias of one element per channel runs; `None` where biases broadcast.
    pub fn channel_axis(&self) -> Option<usize> {
        (!matches!(self.kind, Kind::Matrix { .. })).then_some(1)
    }

    /// The flat indices of both factors of every product that element `index` sums.
    pub fn at(&self, index: usize) -> Vec<(usize, usize)> {
        match &self.kind {
            Kind::Conv { window, groups } => self.windows(window, *groups, index, |i, o, tap| {
                (o * window.strides[i] + tap * window.dilations[i]).checked_sub(window.pads_begin[i])
            }),
            Kind::ConvTranspose { window, groups } => self.windows(window, *groups, index, |i, o, tap| {
                let ahead = (o + window.pads_begin[i]).checked_sub(tap * window.dilations[i])?;
                ahead.is_multiple_of(window.strides[i]).then(|| ahead / window.strides[i])
            }),
            Kind::Matrix { transposed } => self.matrix(*transposed, index),
        }
    }

    /// `source(axis, output position, tap)` is the input position.
    fn windows(
        &self,
        window: &Window,
        groups: usize,
        index: usize,
        source: impl Fn(usize, usize, usize) -> Option<usize>,
    ) -> Vec<(usize, usize)> {
        let at = coordinates(&self.y, index);
        let (spatial, filters, channels) = (&self.x[2..], self.y[1], self.x[1]);
        let (inputs, outputs) = (channels / groups.max(1), filters / groups.max(1));
        let (filter, group) = (at[1], at[1] / outputs.max(1));
        let (plane, taps): (usize, usize) = (spatial.iter().product(), window.kernel.iter().product());
        let mut out = Vec::new();
        for c in 0..inputs {
            let channel = group * inputs + c;
            let weights = match self.kind {
                Kind::ConvTranspose { .. } => channel * outputs + filter % outputs,
                _ => filter * inputs + c,
            };
            for tap in 0..taps {
                let place = coordinates(&window.kernel, tap);
                let flat = (0..spatial.len()).try_fold(0, |flat, i| {
                    let p = source(i, at[2 + i], place[i]).filter(|&p| p < spatial[i])?;
                    Some(flat * spatial[i] + p)
                });
                if let Some(flat) = flat {
                    out.push(((at[0] * channels + channel) * plane + flat, weights * taps + tap));
                }
            }
        }
        out
    }

    fn matrix(&self, transposed: [bool; 2], index: usize) -> Vec<(usize, usize)> {
        let at = coordinates(&self.y, index);
        let (vector_x, vector_w) = (self.x.len() == 1, self.w.len() == 1);
        let columns = usize::from(!vector_w);
        let rows = usize::from(!vector_x);
        let batch = at.len().saturating_sub(rows + columns);
        let (row, column) = (if vector_x { 0 } else { at[batch] }, if vector_w { 0 } else { at[at.len() - 1] });
        let batches = &self.y[..batch];
        let number = at[..batch].iter().zip(batches).fold(0, |n, (a, d)| n * d + a);
        // First element of the matrix, and its two sizes as stored.
        let matrix = |shape: &[usize], is_left: bool| match shape {
            [k] if is_left => (0, [1, *k]),
            [k] => (0, [*k, 1]),
            [outer @ .., a, b] => (met(outer, batches, number).unwrap_or(0) * a * b, [*a, *b]),
            [] => (0, [1, 1]),
        };
        let ((x, xs), (w, ws)) = (matrix(&self.x, true), matrix(&self.w, false));
        let depth = if transposed[0] { xs[0] } else { xs[1] };
        (0..depth)
            .map(|k| {
                let left = if transposed[0] { k * xs[1] + row } else { row * xs[1] + k };
                let right = if transposed[1] { column * ws[1] + k } else { k * ws[1] + column };
                (x + left, w + right)
            })
            .collect()
    }
}
