//! Softmax by a table of 256 float32 exponentials. Codes are moved so that the row's largest meets the last entry, and the
//! sum runs in float32 from first to last.
//!
//! - Shifted: with `top` the largest code of the type and `D` the length of a row, entry `i` is
//!   `exp((i - top + shift) · scale_x)` in float64, cast to float32, where `shift = max(0, ln(f32::MAX / D) - 5) / scale_x`;
//!   `y = rint_half_even(entry · floor(1 / scale_y) / sum) + zp_y`, saturated. Where the product overflows float32 (a row
//!   of one element), the original converts an infinity to an integer: that gives 127 for int8 and the zero point for uint8.
//!   Source: microsoft/onnxruntime@07d59c09 onnxruntime/contrib_ops/cpu/quantization/qlinear_softmax.cc.
//! - Reciprocal: entry `i` is `exp(-scale_x · (255 - i))` of a float32 product; `inverse = 1 / (sum · scale_y)` and
//!   `y = round_half_away(entry · inverse) + zp_y`, saturated, every step in float32.
//!   Source: google-ai-edge/LiteRT@f6745779 tflite/kernels/internal/optimized/optimized_ops.h.

use super::Context;
use super::rows::{Rows, narrow};
use crate::error::Result;
use crate::ops::closure::input;
use crate::ops::{Facts, Kernel, RunContext};
use crate::tensor::Tensor;

/// From an entry and the sum of its row to a distance from the zero point.
#[derive(Clone, Copy)]
enum Quotient {
    /// By a factor, then divided.
    Divided { factor: f32 },
    /// Times the reciprocal of the scaled sum.
    Reciprocal { scale: f32 },
}

struct Softmax {
    rows: Rows,
    table: Vec<f32>,
    quotient: Quotient,
    zero_point: i64,
    signed: bool,
}

pub(super) fn prepare_shifted(facts: &Facts<'_>, context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, context, |x, y, depth| {
        let headroom = libm::log(f64::from(f32::MAX / depth.max(1) as f32));
        let shift = (headroom - 5.0).max(0.0) / f64::from(x);
        let table = (0..256).map(|i| libm::exp((f64::from(i) - 255.0 + shift) * f64::from(x)) as f32).collect();
        (table, Quotient::Divided { factor: (1.0 / y).floor() })
    })
}

pub(super) fn prepare_reciprocal(facts: &Facts<'_>, context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, context, |x, y, _| {
        let table = (0..256u16).map(|i| libm::exp(f64::from(-x * f32::from(255 - i))) as f32).collect();
        (table, Quotient::Reciprocal { scale: y })
    })
}

/// `build` gives table and quotient from the scales of input and output and the length of a row.
fn prepare(
    facts: &Facts<'_>,
    context: &Context<'_>,
    build: impl Fn(f32, f32, usize) -> (Vec<f32>, Quotient),
) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    if x.signed != y.signed || context.clamp.is_some() {
        return Err(facts.unsupported("a change of signedness or a fused activation"));
    }
    let rows = Rows::of_softmax(facts)?;
    let (table, quotient) = build(x.scale[0] as f32, y.scale[0] as f32, rows.depth());
    Ok(Box::new(Softmax { rows, table, quotient, zero_point: y.zero_point[0], signed: y.signed }))
}

impl Softmax {
    fn row(&self, codes: &[i64]) -> Vec<i64> {
        let largest = codes.iter().copied().max().unwrap_or(0);
        let entry = |code: i64| self.table[(255 - (largest - code)) as usize];
        let sum = codes.iter().fold(0f32, |sum, &code| sum + entry(code));
        let (least, most) = if self.signed { (-128, 127) } else { (0, 255) };
        let code = |code: i64| match self.quotient {
            Quotient::Divided { factor } => {
                let quotient = (entry(code) * factor / sum).round_ties_even();
                match (quotient.is_finite(), self.signed) {
                    (true, _) => (quotient as i64 + self.zero_point).min(most),
                    (false, true) => 127,
                    (false, false) => self.zero_point,
                }
            }
            Quotient::Reciprocal { scale } => {
                let inverse = 1.0 / (sum * scale);
                ((entry(code) * inverse).round() as i64 + self.zero_point).clamp(least, most)
            }
        };
        codes.iter().map(|&c| code(c)).collect()
    }
}

impl Kernel for Softmax {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let out = self.rows.map(context, &x.to_i64()?, |row| self.row(row));
        Ok(vec![Tensor::new(x.shape().to_vec(), narrow(&out, 8, self.signed))?])
    }
}
