//! Softmax over uint8 codes as powers of two in fixed point.
//!
//! `2^(-s·(max - x))` has 15 bits from a piecewise polynomial of the fraction; the terms are summed with `31 - a` fraction
//! bits, where `2^a` bounds the length of the row; the sum's 15-bit reciprocal comes from a polynomial and Newton steps.
//! Rows of one element are 255, rows of two come from a table of float32 logistics. The output encoding is 0 to 1.
//! Source: XiaoMi/nnlib@df7ad3c1 hexagon/ops/src/op_softmax_d32.c, hexagon/include/hvx_mathops.h.

use super::Context;
use super::record::Record;
use super::rows::{RowFunction, RowKernel, Rows};
use crate::error::Result;
use crate::ops::{Facts, Kernel};

/// Rows from this length on, in tensors of four times as many elements, have another kernel.
const LONG_ROW: usize = 1408;

enum Arithmetic {
    /// Codes of rows of one.
    Constant,
    /// `255 / (1 + exp(-d))` for differences `d` in codes.
    Pair(Vec<i64>),
    /// Longer rows.
    Powers { factor: i64, shift: u32, headroom: u32, polynomials: Polynomials },
}

/// Which polynomials the instruction set has.
#[derive(Clone, Copy, PartialEq)]
enum Polynomials {
    /// Four segments, coefficients in 16 bits.
    FourSegments,
    /// Sixteen segments of a table.
    SixteenSegments,
}

pub(super) fn prepare(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    with(facts, Polynomials::FourSegments)
}

pub(super) fn prepare_sixteen(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    with(facts, Polynomials::SixteenSegments)
}

fn with(facts: &Facts<'_>, polynomials: Polynomials) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    if x.signed || y.signed || y.zero_point[0] != 0 || (y.scale[0] * 255.0 - 1.0).abs() > 1e-6 {
        return Err(facts.unsupported("other than uint8 codes, or an output range other than 0 to 1"));
    }
    let rows = Rows::of_softmax(facts)?;
    let (depth, elements) = (rows.depth(), facts.input(0)?.shape.iter().product::<usize>());
    let end = |code: i64| ((code - x.zero_point[0]) as f64 * x.scale[0]) as f32;
    let span = end(255) - end(0);
    let arithmetic = match depth {
        0 | 1 => Arithmetic::Constant,
        2 => Arithmetic::Pair(logistic_table(span)),
        _ if depth >= LONG_ROW && elements >= 4 * LONG_ROW => {
            return Err(facts.unsupported(format!("rows of {depth} elements")));
        }
        _ => powers(facts, span, depth, polynomials)?,
    };
    Ok(Box::new(RowKernel { rows, bits: 8, signed: false, function: arithmetic }))
}

// The constants have the digits of the arithmetic that is reproduced.
#[allow(clippy::approx_constant, clippy::excessive_precision)]
fn powers(facts: &Facts<'_>, span: f32, depth: usize, polynomials: Polynomials) -> Result<Arithmetic> {
    let scale = span * (1.0 / (255.0 * 0.693_147_180_559_94)) as f32;
    let shift = (7 - exponent(scale)).min(31);
    let headroom = (usize::BITS - (depth - 1).leading_zeros()).max(2);
    if shift < 0 || headroom > 16 {
        return Err(facts.unsupported(format!("an input range of {span} and rows of {depth}")));
    }
    let factor = nearest(scale * libm::ldexpf(1.0, shift + 8)).clamp(-32768, 32767);
    Ok(Arithmetic::Powers { factor, shift: shift as u32, headroom, polynomials })
}

/// The exponent of a normal float whose mantissa is in `[0.5, 1)`; -126 for zero.
fn exponent(v: f32) -> i32 {
    ((v.to_bits() >> 23) & 0xFF) as i32 - 126
}

/// To the nearest integer, by adding a half in float32.
fn nearest(v: f32) -> i64 {
    (v + 0.5f32.copysign(v)) as i64
}

/// Codes of `1 / (1 + exp(-d))` for `d` in codes of a range `span` wide, with a cubic for the power of two.
// The constants have the digits of the arithmetic that is reproduced.
#[allow(clippy::approx_constant, clippy::excessive_precision)]
fn logistic_table(span: f32) -> Vec<i64> {
    let step = libm::fmaf(span, 8_421_505.0 / 2_147_483_648.0, -(libm::ldexpf(16_711_423.0, -56) * span));
    let exp = |x: f32| {
        let power = nearest(x * (16384.0 / 0.693_147_180_56) as f32);
        let f = (power & 0x3FFF) as f32 * (1.0 / 16384.0);
        let cubic = libm::fmaf(f, libm::fmaf(f, libm::fmaf(f, 0.071_547_56, 0.237_936_59), 0.690_515_85), 1.0);
        libm::ldexpf(1.0, (power >> 14).clamp(-127, 128) as i32) * cubic
    };
    let mut code = 0;
    (0..256)
        .map(|d| match d {
            0 => 128,
            _ => {
                if code < 255 {
                    code = nearest(255.0 / (1.0 + exp(-step * d as f32)));
                }
                code
            }
        })
        .collect()
}

/// `a · b` as fractions of 15 bits, half up, saturated to 16 bits.
fn fraction(a: i64, b: i64) -> i64 {
    ((a * b + (1 << 14)) >> 15).clamp(-32768, 32767)
}

fn saturate(v: i64) -> i64 {
    v.clamp(-32768, 32767)
}

/// `(p·x ± c·2^15) >> 16` with the coefficient of the quarter that the 16-bit `x` lies in.
fn segment(p: i64, x: i64, coefficients: [i64; 4], subtract: bool) -> i64 {
    let c = coefficients[(x >> 14) as usize] << 15;
    saturate((p * x + if subtract { -c } else { c }) >> 16)
}

impl Polynomials {
    /// `2^-f` with 15 bits for a fraction of 16 bits.
    fn power(self, f: i64) -> i64 {
        match self {
            Polynomials::FourSegments => {
                let x = 0xFFFF - f;
                let p = [0x10CC, 0x13FF, 0x17C7, 0x1C3E][(x >> 14) as usize];
                let p = segment(p, x, [0x587C, 0x5538, 0x4D91, 0x4014], false);
                segment(p, x, [0x8001, 0x806C, 0x825B, 0x8773], false)
            }
            Polynomials::SixteenSegments => {
                let [c0, c1, c2] = POWER_SEGMENTS[(f >> 12) as usize];
                let x = (f & 0xFFF) >> 1;
                saturate(c0 + fraction(saturate(c1 + fraction(c2, x)), x))
            }
        }
    }

    /// `2^29 / d` for `d` from 2^14 to 2^15.
    fn reciprocal(self, d: i64) -> i64 {
        let refine = |x: i64| {
            let error = saturate(fraction(d, x) - (1 << 14));
            saturate(x - fraction(saturate(2 * error), x))
        };
        match self {
            Polynomials::FourSegments => {
                let x = (d << 2) & 0xFFFF;
                let p = [0x2E12, 0x199B, 0x0F69, 0x09E2][(x >> 14) as usize];
                let p = segment(p, x, [0x7D56, 0x6AB6, 0x5751, 0x472E], true);
                let p = segment(p, x, [0x8001, 0x7DE8, 0x794E, 0x736C], false);
                refine(saturate(2 * p))
            }
            Polynomials::SixteenSegments => {
                let x = i64::from((2 * d) as i16);
                let p = saturate(fraction(x, 10598) - 5306);
                refine(refine(saturate(fraction(x, p) + 16569)))
            }
        }
    }
}

/// Constant, linear and quadratic coefficients of `2^-f` in sixteen segments; the variable counts to 2048 in each.
const POWER_SEGMENTS: [[i64; 3]; 16] = [
    [32767, -22709, 7703],
    [31379, -21746, 7377],
    [30048, -20824, 7064],
    [28774, -19941, 6765],
    [27554, -19096, 6478],
    [26386, -18286, 6203],
    [25268, -17511, 5940],
    [24196, -16769, 5688],
    [23170, -16058, 5447],
    [22188, -15377, 5216],
    [21247, -14725, 4995],
    [20347, -14101, 4783],
    [19484, -13503, 4580],
    [18658, -12930, 4386],
    [17867, -12382, 4200],
    [17109, -11857, 4022],
];

impl RowFunction for Arithmetic {
    fn row<R: Record>(&self, codes: &[i64], record: &mut R) -> Vec<i64> {
        match self {
            Arithmetic::Constant => {
                record.note("a row of one element", 255);
                vec![255; codes.len()]
            }
            Arithmetic::Pair(table) => {
                let difference = codes[0].abs_diff(codes[1]) as usize;
                let larger = table[difference];
                record.note("difference, the index into the table of logistics", difference);
                record.note("entry, the larger one's code", larger);
                let first = if codes[0] >= codes[1] { larger } else { 255 - larger };
                vec![first, 255 - first]
            }
            Arithmetic::Powers { factor, shift, headroom, polynomials } => {
                let largest = codes.iter().copied().max().unwrap_or(0);
                let spare = 16 - headroom;
                record.note("largest of the row", largest);
                record.note("factor and right shift of differences", format_args!("{factor}, {shift}"));
                let mut wide = Vec::with_capacity(codes.len());
                for (i, &code) in codes.iter().enumerate() {
                    let power = ((largest - code) * 256 * factor) >> shift;
                    let fraction = polynomials.power(power & 0xFFFF);
                    let term: i64 = (fraction << spare) >> (power >> 16).min(31);
                    if record.follows(i) {
                        record.note("its power of two, in units of 2^-16", power);
                        record.note("2^-fraction, in 15 bits", fraction);
                        record.note("its term", term);
                    }
                    wide.push(term);
                }
                record.list("terms of the row", &wide);
                let sum: i64 = wide.iter().sum();
                let normal = (sum.max(1) as u32).leading_zeros().saturating_sub(1);
                let inverse = polynomials.reciprocal((sum << normal) >> 16);
                let reciprocal = fraction(inverse, 255 << 7);
                let last = (headroom + 3).saturating_sub(normal);
                record.note("sum of the terms", sum);
                record.note("left shift of the sum", normal);
                record.note("reciprocal of the shifted sum", inverse);
                record.note("the same times 255, in 16 bits", reciprocal);
                let mut out = Vec::with_capacity(wide.len());
                for (i, term) in wide.into_iter().enumerate() {
                    let half = if spare == 0 { 0 } else { 1 << (spare - 1) };
                    let narrow = saturate((term + half) >> spare);
                    let scaled = saturate(((narrow * reciprocal) >> last) >> 12);
                    if record.follows(i) {
                        record.note("its term, in 16 bits", narrow);
                        record.note("its quotient, with 6 fraction bits", scaled);
                    }
                    out.push(((scaled + 32) >> 6).clamp(0, 255));
                }
                out
            }
        }
    }
}
