//! Softmax over 16-bit codes by two interpolated tables of 513 entries.
//!
//! One table holds `exp` over `[-10, 0]`, the other `1 / (1 + x)` over `[0, 1]`, both sampled so that the error of the linear
//! interpolation is halved. The output encoding is scale 1/32768, zero point 0.
//! Source: tensorflow/tflite-micro@90b983c2 tensorflow/lite/kernels/internal/{common.h, reference/softmax.h}.

use super::super::arguments::required;
use super::fixed_point::{multiplier, scale};
use super::rows::{Rows, narrow};
use super::Context;
use crate::error::Result;
use crate::ops::{Facts, Kernel, RunContext};
use crate::tensor::Tensor;

struct Softmax {
    rows: Rows,
    multiplier: (i32, i32),
    exp: Vec<i32>,
    reciprocal: Vec<i32>,
}

/// 513 samples of `f` over `[from, to]`, for codes of 16 bits that stand for that range, as codes of `[low, high]`.
fn table(f: impl Fn(f64) -> f64, (from, to): (f64, f64), (low, high): (f64, f64)) -> Vec<i32> {
    let step = (to - from) / 512.0;
    let unit = 65536.0 / (high - low);
    let clamp = |v: f64| v.clamp(-32768.0, 32767.0) as i32;
    let mut out: Vec<i32> = (0..512)
        .map(|i| {
            let at = from + f64::from(i) * step;
            let sample = libm::round(f(at) * unit);
            let interpolated = libm::round((f(from + f64::from(i + 1) * step) * unit + sample) / 2.0);
            let middle = libm::round(f(at + step / 2.0) * unit);
            clamp(sample - libm::round((interpolated - middle) / 2.0))
        })
        .collect();
    out.push(clamp(libm::round(f(to) * unit)));
    out
}

fn look_up(table: &[i32], code: i64) -> i64 {
    let index = (256 + (code >> 7)) as usize;
    let (base, next) = (i64::from(table[index]), i64::from(table[index + 1]));
    base + (((next - base) * (code & 127) + 64) >> 7)
}

pub(super) fn prepare(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    let plain = |e: &crate::encoding::Encoding| e.bitwidth == 16 && e.signed;
    if !plain(x) || !plain(y) || y.zero_point[0] != 0 || y.scale[0] != 1.0 / 32768.0 {
        return Err(facts.unsupported("encodings other than int16 with an output scale of 1/32768 and zero point 0"));
    }
    let unit = |range: f64| (-range * 32768.0 / 65535.0, range * 32767.0 / 65535.0);
    let exp_range = { let (a, b) = unit(10.0); (a - 10.0 * 32767.0 / 65535.0, b - 10.0 * 32767.0 / 65535.0) };
    let one_range = { let (a, b) = unit(1.0); (a + 32768.0 / 65535.0, b + 32768.0 / 65535.0) };
    let out = unit(2.0);
    Ok(Box::new(Softmax {
        rows: Rows::of_softmax(facts)?,
        multiplier: multiplier(x.scale[0] / (10.0 / 65535.0)),
        exp: table(libm::exp, exp_range, out),
        reciprocal: table(|v| 1.0 / (1.0 + v), one_range, out),
    }))
}

impl Softmax {
    fn row(&self, codes: &[i64]) -> Vec<i64> {
        let largest = codes.iter().copied().max().unwrap_or(0);
        let terms: Vec<i64> = codes
            .iter()
            .map(|&c| {
                let scaled = i64::from(scale((c - largest) as i32, self.multiplier)) + 32767;
                look_up(&self.exp, scaled.clamp(-32768, 32767))
            })
            .collect();
        let sum = terms.iter().fold(0i32, |sum, &t| sum.wrapping_add(t as i32));
        let headroom = sum.leading_zeros().max(1);
        let shifted = ((i64::from(sum) << (headroom - 1)) + (1 << 13)) >> 14;
        let reciprocal = look_up(&self.reciprocal, (shifted - (1 << 15) - (1 << 16)).clamp(-32768, 32767));
        let right = 31 - headroom;
        let half = (1i64 << right) >> 1;
        terms.into_iter().map(|t| ((t * reciprocal + half) >> right).clamp(0, 32767)).collect()
    }
}

impl Kernel for Softmax {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let out = self.rows.map(context, &x.to_i64()?, |row| self.row(row));
        Ok(vec![Tensor::new(x.shape().to_vec(), narrow(&out, 16, true))?])
    }
}
