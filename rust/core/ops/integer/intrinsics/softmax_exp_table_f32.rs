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
use super::record::Record;
use super::rows::{RowFunction, RowKernel, Rows};
use crate::error::Result;
use crate::ops::{Facts, Kernel};

/// From an entry and the sum of its row to a distance from the zero point.
#[derive(Clone, Copy)]
enum Quotient {
    /// By a factor, then divided.
    Divided { factor: f32 },
    /// Times the reciprocal of the scaled sum.
    Reciprocal { scale: f32 },
}

struct Softmax {
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
    let function = Softmax { table, quotient, zero_point: y.zero_point[0], signed: y.signed };
    Ok(Box::new(RowKernel { rows, bits: 8, signed: y.signed, function }))
}

impl RowFunction for Softmax {
    fn row<R: Record>(&self, codes: &[i64], record: &mut R) -> Vec<i64> {
        let largest = codes.iter().copied().max().unwrap_or(0);
        let index = |code: i64| (255 - (largest - code)) as usize;
        let entry = |code: i64| self.table[index(code)];
        let sum = codes.iter().fold(0f32, |sum, &code| sum + entry(code));
        record.note("largest of the row", largest);
        record.list("table entries of the row", codes.iter().map(|&c| entry(c)));
        record.note("sum of the entries, in float32 from first to last", sum);
        let (least, most) = if self.signed { (-128, 127) } else { (0, 255) };
        let mut out = Vec::with_capacity(codes.len());
        for (i, &code) in codes.iter().enumerate() {
            let entry = entry(code);
            let (what, factor, quotient, y) = match self.quotient {
                Quotient::Divided { factor } => {
                    let quotient = entry * factor / sum;
                    let rounded = quotient.round_ties_even();
                    let y = match (rounded.is_finite(), self.signed) {
                        (true, _) => (rounded as i64 + self.zero_point).min(most),
                        (false, true) => 127,
                        (false, false) => self.zero_point,
                    };
                    ("factor", factor, quotient, y)
                }
                Quotient::Reciprocal { scale } => {
                    let inverse = 1.0 / (sum * scale);
                    let quotient = entry * inverse;
                    let y = (quotient.round() as i64 + self.zero_point).clamp(least, most);
                    ("reciprocal of the scaled sum", inverse, quotient, y)
                }
            };
            if record.follows(i) {
                record.note("its index into the table", index(code));
                record.note("its entry", entry);
                record.note(what, factor);
                record.note("its quotient, not rounded", quotient);
                record.note("zero point", self.zero_point);
            }
            out.push(y);
        }
        out
    }
}
