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
use super::resize_bilinear::{Alignment, Geometry, geometry};
use super::rows::narrow;
use crate::error::Result;
use crate::ops::closure::input;
use crate::ops::{Facts, Kernel, RunContext};
use crate::tensor::Tensor;

/// Two source positions and the weight of the second.
type Tap = (usize, usize, f32);

struct Resize {
    rows: Vec<Tap>,
    columns: Vec<Tap>,
    weighted: bool,
    geometry: Geometry,
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
    Ok(Box::new(Resize {
        rows: taps(input[0], shape[2], geometry.alignment),
        columns: taps(input[1], shape[3], geometry.alignment),
        weighted,
        geometry,
    }))
}

impl Kernel for Resize {
    fn run(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let codes = input(inputs, 0)?.to_i64()?;
        let [height, width] = self.geometry.input;
        let mut out = Vec::with_capacity(self.geometry.shape.iter().product());
        for plane in codes.chunks_exact((height * width).max(1)) {
            for &(top, bottom, fy) in &self.rows {
                for &(left, right, fx) in &self.columns {
                    let at = |r: usize, c: usize| plane[r * width + c] as f32;
                    let (gy, gx) = (1.0 - fy, 1.0 - fx);
                    let [a, b, c, d] = [at(top, left), at(top, right), at(bottom, left), at(bottom, right)];
                    let sum = match self.weighted {
                        false => a * gy * gx + c * fy * gx + b * gy * fx + d * fy * fx,
                        true => a * (gy * gx) + b * (gy * fx) + c * (fy * gx) + d * (fy * fx),
                    };
                    out.push((sum + 0.5) as i64);
                }
            }
        }
        Ok(vec![Tensor::new(self.geometry.shape.clone(), narrow(&out, self.geometry.bits, self.geometry.signed))?])
    }
}
