//! Softmax over 16-bit codes by two interpolated tables of 513 entries.
//!
//! One table holds `exp` over `[-10, 0]`, the other `1 / (1 + x)` over `[0, 1]`, both sampled so that the error of the linear
//! interpolation is halved. Differences to the largest code are scaled with two roundings, or one. The output encoding is scale 1/32768, zero point 0. A row of one element gives 32768: the plain
//! form saturates it, the wrapped form stores it in 16 bits as it is.
//! Source: tensorflow/tflite-micro@90b983c2 tensorflow/lite/kernels/internal/{common.h, reference/softmax.h}.

use super::Context;
use super::fixed_point::{multiplier, scale, scale_once};
use super::record::Record;
use super::rows::{RowFunction, RowKernel, Rows};
use crate::error::Result;
use crate::ops::{Facts, Kernel};

struct Softmax {
    multiplier: (i32, i32),
    exp: Vec<i32>,
    reciprocal: Vec<i32>,
    scale: fn(i32, (i32, i32)) -> i32,
    wraps: bool,
}

/// 513 samples of `f`, whose argument is `in_scale · (code - in_zero)`, in codes of `out_scale`; every step in float32.
fn table(f: impl Fn(f32) -> f32, in_scale: f32, in_zero: i32, out_scale: f32) -> Vec<i32> {
    let from = in_scale * (-32768 - in_zero) as f32;
    let to = in_scale * (32767 - in_zero) as f32;
    let step = (to - from) / 512.0;
    let half = step / 2.0;
    let unit = 65536.0 / (out_scale * 32767.0 - out_scale * -32768.0);
    let clamp = |v: f32| v.clamp(-32768.0, 32767.0) as i32;
    let mut out: Vec<i32> = (0..512u16)
        .map(|i| {
            let at = from + f32::from(i) * step;
            let next = f(from + f32::from(i + 1) * step);
            let sample = (f(at) * unit).round();
            let interpolated = ((next * unit + sample) / 2.0).round();
            let middle = (f(at + half) * unit).round();
            clamp(sample - ((interpolated - middle) / 2.0).round())
        })
        .collect();
    out.push(clamp((f(to) * unit).round()));
    out
}

fn look_up(table: &[i32], code: i64) -> i64 {
    let index = (256 + (code >> 7)) as usize;
    let (base, next) = (i64::from(table[index]), i64::from(table[index + 1]));
    base + (((next - base) * (code & 127) + 64) >> 7)
}

pub(super) fn prepare(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    softmax(facts, scale, false)
}

pub(super) fn prepare_once(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    softmax(facts, scale_once, false)
}

pub(super) fn prepare_wrapped(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    softmax(facts, scale, true)
}

fn softmax(facts: &Facts<'_>, scale: fn(i32, (i32, i32)) -> i32, wraps: bool) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    let plain = |e: &crate::encoding::Encoding| e.bitwidth == 16 && e.signed;
    if !plain(x) || !plain(y) || y.zero_point[0] != 0 || y.scale[0] != 1.0 / 32768.0 {
        return Err(facts.unsupported("encodings other than int16 with an output scale of 1/32768 and zero point 0"));
    }
    let function = Softmax {
        scale,
        wraps,
        multiplier: multiplier(x.scale[0] / (10.0 / 65535.0)),
        exp: table(|v| libm::exp(v.into()) as f32, 10.0 / 65535.0, 32767, 2.0 / 65535.0),
        reciprocal: table(|v| 1.0 / (1.0 + v), 1.0 / 65535.0, -32768, 2.0 / 65535.0),
    };
    Ok(Box::new(RowKernel { rows: Rows::of_softmax(facts)?, bits: 16, signed: true, function }))
}

impl RowFunction for Softmax {
    fn row<R: Record>(&self, codes: &[i64], record: &mut R) -> Vec<i64> {
        let largest = codes.iter().copied().max().unwrap_or(0);
        record.note("largest of the row", largest);
        record.note("multiplier, in units of 2^-31, and its exponent", format_args!("{:?}", self.multiplier));
        let mut terms = Vec::with_capacity(codes.len());
        for (i, &code) in codes.iter().enumerate() {
            let scaled = i64::from((self.scale)((code - largest) as i32, self.multiplier));
            let argument = (scaled + 32767).clamp(-32768, 32767);
            let term = look_up(&self.exp, argument);
            if record.follows(i) {
                record.note("its scaled difference", scaled);
                record.note("index into the exponentials", 256 + (argument >> 7));
                record.note("its exponential, interpolated", term);
            }
            terms.push(term);
        }
        record.list("exponentials of the row", &terms);
        let sum = terms.iter().fold(0i32, |sum, &t| sum.wrapping_add(t as i32));
        let headroom = sum.leading_zeros().max(1);
        let shifted = ((i64::from(sum) << (headroom - 1)) + (1 << 13)) >> 14;
        let argument = (shifted - (1 << 15) - (1 << 16)).clamp(-32768, 32767);
        let reciprocal = look_up(&self.reciprocal, argument);
        let right = 31 - headroom;
        let half = (1i64 << right) >> 1;
        record.note("sum of the exponentials", sum);
        record.note("leading zeros of the sum", headroom);
        record.note("index into the reciprocals", 256 + (argument >> 7));
        record.note("reciprocal of the sum, interpolated", reciprocal);
        record.note("right shift of the product", right);
        let mut out = Vec::with_capacity(terms.len());
        for (i, term) in terms.into_iter().enumerate() {
            let quotient = (term * reciprocal + half) >> right;
            if record.follows(i) {
                record.note("its quotient", quotient);
            }
            out.push(match self.wraps {
                // 16 bits hold it modulo 2^16.
                true => i64::from(quotient as i16),
                false => quotient.clamp(0, 32767),
            });
        }
        out
    }
}
