//! Softmax by a table of 256 float32 exponentials.
//!
//! With `top` the largest code of the type and `D` the length of a row, entry `i` of the table is
//! `exp((i - top + shift) · scale_x)` in float64, cast to float32, where `shift = max(0, ln(f32::MAX / D) - 5) / scale_x`.
//! Codes are moved so that the row's largest meets the last entry. The sum runs in float32 from first to last;
//! `y = rint_half_even(entry · floor(1 / scale_y) / sum) + zp_y`. Unsigned results saturate; signed ones wrap, as the
//! original does.
//! Source: microsoft/onnxruntime@07d59c09 onnxruntime/contrib_ops/cpu/quantization/qlinear_softmax.cc.

use super::super::arguments::required;
use super::super::lanes::storage;
use super::Context;
use crate::error::Result;
use crate::ops::{Facts, Kernel, RunContext, axis};
use crate::tensor::{DType, Data, Tensor};

struct Softmax {
    table: Vec<f32>,
    factor: f32,
    zero_point: i64,
    signed: bool,
    /// Rows before, elements along and elements behind the axis.
    outer: usize,
    depth: usize,
    inner: usize,
    dtype: DType,
}

pub(super) fn prepare(facts: &Facts<'_>, context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    if x.signed != y.signed || context.clamp.is_some() {
        return Err(facts.unsupported("a change of signedness or a fused activation"));
    }
    let shape = &facts.input(0)?.shape;
    let modern = facts.opset >= 13;
    let at = axis::normalize(facts, facts.node.int("axis", if modern { -1 } else { 1 })?, shape.len())?;
    let (outer, depth, inner) = match modern {
        true => axis::around(shape, at),
        false => (shape[..at].iter().product(), shape[at..].iter().product(), 1),
    };
    let scale = f64::from(x.scale[0] as f32);
    let headroom = libm::log(f64::from(f32::MAX / depth.max(1) as f32));
    let shift = (headroom - 5.0).max(0.0) / scale;
    let table = (0..256).map(|i| libm::exp((f64::from(i) - 255.0 + shift) * scale) as f32).collect();
    Ok(Box::new(Softmax {
        table,
        factor: (1.0 / y.scale[0] as f32).floor(),
        zero_point: y.zero_point[0],
        signed: y.signed,
        outer,
        depth,
        inner,
        dtype: storage(y),
    }))
}

impl Softmax {
    /// Codes of one row, strided by `inner`.
    fn row(&self, codes: &[i64], out: &mut [i64], start: usize) {
        let at = |i: usize| start + i * self.inner;
        let largest = (0..self.depth).map(|i| codes[at(i)]).max().unwrap_or(0);
        let entry = |i: usize| self.table[(255 - (largest - codes[at(i)])) as usize];
        let sum = (0..self.depth).map(entry).fold(0f32, |sum, e| sum + e);
        for i in 0..self.depth {
            let v = (entry(i) * self.factor / sum).round_ties_even() as i64 + self.zero_point;
            out[at(i)] = match self.signed {
                false => v.min(255),
                true => i64::from(v.min(255) as i8),
            };
        }
    }
}

impl Kernel for Softmax {
    fn run(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let codes = x.to_i64()?;
        let mut out = vec![0i64; codes.len()];
        for o in 0..self.outer {
            for i in 0..self.inner {
                self.row(&codes, &mut out, o * self.depth * self.inner + i);
            }
        }
        let data = match self.dtype {
            DType::I8 => Data::I8(out.iter().map(|&v| v as i8).collect()),
            _ => Data::U8(out.iter().map(|&v| v as u8).collect()),
        };
        Ok(vec![Tensor::new(x.shape().to_vec(), data)?])
    }
}
