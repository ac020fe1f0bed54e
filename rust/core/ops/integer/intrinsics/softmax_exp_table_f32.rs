//! Softmax by a table of 256 float32 exponentials.
//!
//! With `top` the largest code of the type and `D` the length of a row, entry `i` of the table is
//! `exp((i - top + shift) · scale_x)` in float64, cast to float32, where `shift = max(0, ln(f32::MAX / D) - 5) / scale_x`.
//! Codes are moved so that the row's largest meets the last entry. The sum runs in float32 from first to last;
//! `y = rint_half_even(entry · floor(1 / scale_y) / sum) + zp_y`, saturated. Where the product overflows float32 (a row
//! of one element), the original converts an infinity to an integer: that gives 127 for int8 and the zero point for uint8.
//! Source: microsoft/onnxruntime@07d59c09 onnxruntime/contrib_ops/cpu/quantization/qlinear_softmax.cc.

use super::Context;
use super::rows::{Rows, narrow};
use crate::error::Result;
use crate::ops::closure::input;
use crate::ops::{Facts, Kernel, RunContext};
use crate::tensor::Tensor;

struct Softmax {
    rows: Rows,
    table: Vec<f32>,
    factor: f32,
    zero_point: i64,
    signed: bool,
}

pub(super) fn prepare(facts: &Facts<'_>, context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    if x.signed != y.signed || context.clamp.is_some() {
        return Err(facts.unsupported("a change of signedness or a fused activation"));
    }
    let rows = Rows::of_softmax(facts)?;
    let scale = f64::from(x.scale[0] as f32);
    let headroom = libm::log(f64::from(f32::MAX / rows.depth().max(1) as f32));
    let shift = (headroom - 5.0).max(0.0) / scale;
    let table = (0..256).map(|i| libm::exp((f64::from(i) - 255.0 + shift) * scale) as f32).collect();
    let factor = (1.0 / y.scale[0] as f32).floor();
    Ok(Box::new(Softmax { rows, table, factor, zero_point: y.zero_point[0], signed: y.signed }))
}

impl Softmax {
    fn row(&self, codes: &[i64]) -> Vec<i64> {
        let largest = codes.iter().copied().max().unwrap_or(0);
        let entry = |code: i64| self.table[(255 - (largest - code)) as usize];
        let sum = codes.iter().fold(0f32, |sum, &code| sum + entry(code));
        codes
            .iter()
            .map(|&code| {
                let quotient = (entry(code) * self.factor / sum).round_ties_even();
                match (quotient.is_finite(), self.signed) {
                    (true, true) => (quotient as i64 + self.zero_point).min(127),
                    (true, false) => (quotient as i64 + self.zero_point).min(255),
                    (false, true) => 127,
                    (false, false) => self.zero_point,
                }
            })
            .collect()
    }
}

impl Kernel for Softmax {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let out = self.rows.map(context, &x.to_i64()?, |row| self.row(row));
        Ok(vec![Tensor::new(x.shape().to_vec(), narrow(&out, 8, self.signed))?])
    }
}
