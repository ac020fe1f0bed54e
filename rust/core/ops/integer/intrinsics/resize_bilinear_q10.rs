//! Bilinear interpolation of codes with 10-bit weights per axis.
//!
//! Source positions and weights are multiples of 1/1024, rounded as `scale = (1024·in + out/2) / out`; the weighted sum of
//! four codes is divided by 2^20, half away from zero (at -0.5: -1) or half up (at -0.5: 0). Input and output share an
//! encoding.
//! Source: tensorflow/tflite-micro@90b983c2 tensorflow/lite/kernels/internal/reference/resize_bilinear.h.

use super::Context;
use super::rows::narrow;
use crate::error::Result;
use crate::num::{Rounding, shr_round};
use crate::ops::closure::input;
use crate::ops::{Facts, Kernel, RunContext};
use crate::tensor::Tensor;

/// Two source positions and the weight of the second, in 1/1024.
type Tap = (usize, usize, i64);

struct Resize {
    rows: Vec<Tap>,
    columns: Vec<Tap>,
    input: [usize; 2],
    shape: Vec<usize>,
    rounding: Rounding,
    bits: u32,
    signed: bool,
}

fn taps(input: usize, output: usize, align_corners: bool, half_pixel: bool) -> Vec<Tap> {
    let (i, o) = (input as i64, output as i64);
    let scale = match align_corners && o > 1 {
        true => (1024 * (i - 1) + (o - 1) / 2) / (o - 1),
        false => (1024 * i + o / 2) / o,
    };
    (0..o)
        .map(|at| {
            let position = at * scale + if half_pixel { scale / 2 - 512 } else { 0 };
            let lower = (position / 1024).max(0);
            let upper = ((position + 1023) / 1024).min(i - 1);
            (lower.min(i - 1) as usize, upper.max(0) as usize, position - 1024 * lower)
        })
        .collect()
}

pub(super) fn prepare_half_away(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, Rounding::HalfAway)
}

pub(super) fn prepare_half_up(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, Rounding::HalfUp)
}

fn prepare(facts: &Facts<'_>, rounding: Rounding) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    if !x.same_grid(y) {
        return Err(facts.unsupported("different encodings of input and output"));
    }
    let shape = &facts.input(0)?.shape;
    let out = facts.outputs[0].as_ref().ok_or_else(|| facts.invalid("no output"))?.shape.clone();
    if shape.len() != 4 || shape[..2] != out[..2] || facts.node.string("mode", "nearest")? != "linear" {
        return Err(facts.unsupported("anything but linear interpolation of the last two of four axes"));
    }
    let default = if facts.opset < 11 { "asymmetric" } else { "half_pixel" };
    let (align_corners, half_pixel) = match facts.node.string("coordinate_transformation_mode", default)? {
        "align_corners" => (true, false),
        "half_pixel" => (false, true),
        "asymmetric" => (false, false),
        other => return Err(facts.unsupported(format!("coordinate_transformation_mode {other}"))),
    };
    Ok(Box::new(Resize {
        rows: taps(shape[2], out[2], align_corners, half_pixel),
        columns: taps(shape[3], out[3], align_corners, half_pixel),
        input: [shape[2], shape[3]],
        shape: out,
        rounding,
        bits: y.bitwidth,
        signed: y.signed,
    }))
}

impl Kernel for Resize {
    fn run(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let codes = input(inputs, 0)?.to_i64()?;
        let [height, width] = self.input;
        let mut out = Vec::with_capacity(self.shape.iter().product());
        for plane in codes.chunks_exact((height * width).max(1)) {
            for &(top, bottom, fy) in &self.rows {
                for &(left, right, fx) in &self.columns {
                    let at = |r: usize, c: usize| plane[r * width + c];
                    let upper = at(top, left) * (1024 - fx) + at(top, right) * fx;
                    let lower = at(bottom, left) * (1024 - fx) + at(bottom, right) * fx;
                    let sum = upper * (1024 - fy) + lower * fy;
                    out.push(shr_round(sum.into(), 20, self.rounding) as i64);
                }
            }
        }
        Ok(vec![Tensor::new(self.shape.clone(), narrow(&out, self.bits, self.signed))?])
    }
}
