//! Softmax over 8-bit codes in fixed point.
//!
//! Differences to the row's largest code are scaled to Q5.26, exponentials are Q0.31 and summed in Q12.19; the sum's
//! reciprocal comes from three Newton steps. Differences below the range of Q5.26 give the smallest code. The output
//! encoding is scale 1/256, zero point at the smallest code.
//! Source: tensorflow/tflite-micro@90b983c2 tensorflow/lite/kernels/internal/reference/softmax.h.

use super::Context;
use super::fixed_point::{exp_negative_q5, high_mul, multiplier, one_over_one_plus_x, shift_away};
use super::record::Record;
use super::rows::{RowFunction, RowKernel, Rows};
use crate::error::Result;
use crate::ops::{Facts, Kernel};

struct Softmax {
    multiplier: i32,
    left: u32,
    least: i64,
    bounds: (i64, i64),
}

pub(super) fn prepare(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    softmax(facts, f64::from(i32::MAX))
}

/// Multipliers of single rounding stay below 2^30.
pub(super) fn prepare_below_2_30(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    softmax(facts, f64::from((1 << 30) - 1))
}

fn softmax(facts: &Facts<'_>, largest: f64) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    if y.scale[0] != 1.0 / 256.0 || y.zero_point[0] != y.qmin() {
        return Err(
            facts.unsupported("an output encoding other than scale 1/256 with the zero point at the smallest code")
        );
    }
    let real = (x.scale[0] * f64::from(1u32 << 26)).min(largest);
    let (m, e) = multiplier(real);
    if !(0..=31).contains(&e) {
        return Err(facts.unsupported(format!("an input scale of {}", x.scale[0])));
    }
    let radius = (31.0 * f64::from(1u32 << 26) / libm::ldexp(1.0, e)).floor();
    Ok(Box::new(RowKernel {
        rows: Rows::of_softmax(facts)?,
        bits: 8,
        signed: y.signed,
        function: Softmax { multiplier: m, left: e as u32, least: -(radius as i64), bounds: (y.qmin(), y.qmax()) },
    }))
}

impl RowFunction for Softmax {
    fn row<R: Record>(&self, codes: &[i64], record: &mut R) -> Vec<i64> {
        let largest = codes.iter().copied().max().unwrap_or(0);
        record.note("largest of the row", largest);
        record
            .note("multiplier, in units of 2^-31, and left shift", format_args!("{}, {}", self.multiplier, self.left));
        record.note("differences below this give the smallest code", self.least);
        let mut terms = Vec::with_capacity(codes.len());
        for (i, &code) in codes.iter().enumerate() {
            let difference = code - largest;
            let term = (difference >= self.least).then(|| {
                let scaled = high_mul((difference as i32).wrapping_shl(self.left), self.multiplier);
                if record.follows(i) {
                    record.note("difference, Q5.26", scaled);
                }
                exp_negative_q5(scaled)
            });
            terms.push(term);
        }
        record.list("exponentials of the row, Q0.31", terms.iter().map(|t| t.unwrap_or(0)));
        let sum = terms.iter().flatten().fold(0i32, |sum, &e| sum.wrapping_add(shift_away(e, 12)));
        let headroom = sum.leading_zeros();
        let reciprocal = one_over_one_plus_x(((sum as u32) << headroom).wrapping_sub(1 << 31) as i32);
        let shift = (12 - headroom as i32 + 31 - 8).clamp(0, 31) as u32;
        record.note("sum of the exponentials, Q12.19", sum);
        record.note("leading zeros of the sum", headroom);
        record.note("reciprocal of the sum, Q0.31", reciprocal);
        record.note("right shift of the product", shift);
        let mut out = Vec::with_capacity(codes.len());
        for (i, term) in terms.into_iter().enumerate() {
            out.push(match term {
                None => self.bounds.0,
                Some(e) => {
                    let quotient = shift_away(high_mul(reciprocal, e), shift);
                    if record.follows(i) {
                        record.note("its exponential, Q0.31", e);
                        record.note("its quotient", quotient);
                    }
                    (i64::from(quotient) + self.bounds.0).clamp(self.bounds.0, self.bounds.1)
                }
            });
        }
        out
    }
}
