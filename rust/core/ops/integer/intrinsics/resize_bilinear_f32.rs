//! Bilinear interpolation of codes in float32, plus 0.5, truncated. Input and output share an encoding.
//!
//! Positions are `at · scale`, or `(at + 0.5) · scale - 0.5`; the two taps are their floor and ceiling within the image, and
//! the weight of the second is the distance to the first, negative before the image. The four terms are summed in order:
//! - plain: code · vertical · horizontal weight; top left, bottom left, top right, bottom right;
//! - weighted: code · (vertical · horizontal weight); top left, top right, bottom left, bottom right. Eightfold enlargement by
//!   half pixels of a multiple of eight channels has a kernel of its own there, which is not modelled.
//!
//! Source: google-ai-edge/LiteRT@f6745779 tflite/kernels/internal/{reference, optimized}/resize_bilinear.h.

use super::Context;
use super::planes::PlaneFunction;
use super::record::Record;
use super::resize_bilinear::{Alignment, geometry};
use crate::error::Result;
use crate::ops::{Facts, Kernel};

/// Two source positions and the weight of the second.
type Tap = (usize, usize, f32);

struct Resize {
    rows: Vec<Tap>,
    columns: Vec<Tap>,
    weighted: bool,
    width: usize,
}

fn taps(input: usize, output: usize, alignment: Alignment) -> Vec<Tap> {
    let scale = match alignment == Alignment::Corners && output > 1 {
        true => (input - 1) as f32 / (output - 1) as f32,
        false => input as f32 / output as f32,
    };
    (0..output)
        .map(|at| {
            let position = match alignment {
                Alignment::HalfPixel => (at as f32 + 0.5) * scale - 0.5,
                _ => at as f32 * scale,
            };
            let lower = (position.floor().max(0.0) as usize).min(input - 1);
            let upper = (position.ceil().max(0.0) as usize).min(input - 1);
            (lower, upper, position - lower as f32)
        })
        .collect()
}

pub(super) fn prepare_plain(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, false)
}

pub(super) fn prepare_weighted(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, true)
}

fn prepare(facts: &Facts<'_>, weighted: bool) -> Result<Box<dyn Kernel>> {
    let geometry = geometry(facts)?;
    let (input, shape) = (geometry.input, &geometry.shape);
    let eightfold = geometry.alignment == Alignment::HalfPixel && (0..2).all(|i| shape[i + 2] == 8 * input[i]);
    if weighted && eightfold && shape[1] % 8 == 0 {
        return Err(facts.unsupported("eightfold enlargement of a multiple of eight channels"));
    }
    let function = Resize {
        rows: taps(input[0], shape[2], geometry.alignment),
        columns: taps(input[1], shape[3], geometry.alignment),
        weighted,
        width: input[1],
    };
    Ok(Box::new(geometry.kernel(function)))
}

impl PlaneFunction for Resize {
    type Ready = ();

    fn ready(&self, _plane: &[i64]) {}

    fn pixel<R: Record>(&self, plane: &[i64], _ready: &(), [r, c]: [usize; 2], record: &mut R) -> i64 {
        let ((top, bottom, fy), (left, right, fx)) = (self.rows[r], self.columns[c]);
        let at = |r: usize, c: usize| plane[r * self.width + c] as f32;
        let (gy, gx) = (1.0 - fy, 1.0 - fx);
        let [a, b, c, d] = [at(top, left), at(top, right), at(bottom, left), at(bottom, right)];
        let sum = match self.weighted {
            false => a * gy * gx + c * fy * gx + b * gy * fx + d * fy * fx,
            true => a * (gy * gx) + b * (gy * fx) + c * (fy * gx) + d * (fy * fx),
        };
        record.note("rows and weight of the second", format_args!("{top}, {bottom}, {fy}"));
        record.note("columns and weight of the second", format_args!("{left}, {right}, {fx}"));
        record.list("the four codes", [a, b, c, d]);
        record.note("weighted sum, in float32", sum);
        record.note("plus a half, in float32", sum + 0.5);
        (sum + 0.5) as i64
    }
}
