//! Bilinear interpolation of uint8 codes: rows with 7-bit weights, then columns with 15-bit weights, and one rounding.
//!
//! Source positions are multiples of 2^-32, `in·2^32 / out` rounded, plus half of the weight's last bit. Twice the size in
//! both directions (without aligned corners) takes averages instead: down across columns, and across rows down for all but
//! the last block of four columns, whose averages round up. The same size copies.
//! Source: XiaoMi/nnlib@df7ad3c1 hexagon/ops/src/op_resizebilinear_d32.c, hexagon/asm_src/resizebilinear_d32_h.S.

use super::Context;
use super::resize_bilinear::require_sizes;
use super::rows::narrow;
use crate::error::Result;
use crate::ops::closure::input;
use crate::ops::{Facts, Kernel, RunContext};
use crate::tensor::Tensor;

/// The lower of two neighbouring source positions, and the weight of the upper.
type Tap = (usize, i64);

enum Form {
    Copy,
    Double,
    Weighted { rows: Vec<Tap>, columns: Vec<Tap> },
}

struct Resize {
    form: Form,
    input: [usize; 2],
    shape: Vec<usize>,
}

/// Positions along an axis of `input` elements, with weights of `bits` bits; the last element ends the axis.
fn taps(input: usize, output: usize, align_corners: bool, bits: u32) -> Vec<Tap> {
    let less = u64::from(align_corners && output > 1);
    let (i, o) = (input as u64 - less, output as u64 - less);
    let step = ((i << 32) + (o >> 1)) / o;
    let last = input - 1;
    let mut position = 1u64 << (31 - bits);
    (0..output)
        .map(|_| {
            let lower = (position >> 32) as usize;
            let weight = i64::from((position as u32) >> (32 - bits));
            position += step;
            if lower >= last { (last, 0) } else { (lower, weight) }
        })
        .collect()
}

pub(super) fn prepare(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    if x.signed || !x.same_grid(y) {
        return Err(facts.unsupported("other than uint8 codes, or different encodings of input and output"));
    }
    require_sizes(facts)?;
    let shape = &facts.input(0)?.shape;
    let out = facts.outputs[0].as_ref().ok_or_else(|| facts.invalid("no output"))?.shape.clone();
    if shape.len() != 4 || shape[..2] != out[..2] || facts.node.string("mode", "nearest")? != "linear" {
        return Err(facts.unsupported("anything but linear interpolation of the last two of four axes"));
    }
    let default = if facts.opset < 11 { "asymmetric" } else { "half_pixel" };
    let align_corners = match facts.node.string("coordinate_transformation_mode", default)? {
        "align_corners" => true,
        "asymmetric" => false,
        other => return Err(facts.unsupported(format!("coordinate_transformation_mode {other}"))),
    };
    let (from, to) = ([shape[2], shape[3]], [out[2], out[3]]);
    if from.contains(&0) || to.contains(&0) || from.iter().chain(&to).any(|&d| d >= 1 << 24) {
        return Err(facts.unsupported(format!("a resize of {from:?} to {to:?}")));
    }
    let form = if !align_corners && (0..2).all(|d| to[d] == 2 * from[d]) {
        Form::Double
    } else if from == to {
        Form::Copy
    } else {
        Form::Weighted {
            rows: taps(from[0], to[0], align_corners, 7),
            columns: taps(from[1], to[1], align_corners, 15),
        }
    };
    Ok(Box::new(Resize { form, input: from, shape: out }))
}

/// Twice the size in both directions.
fn double(plane: &[i64], [height, width]: [usize; 2], out: &mut Vec<i64>) {
    let at = |r: usize, c: usize| {
        let row = &plane[r * width..][..width];
        let next = row[(c / 2 + 1).min(width - 1)];
        if c.is_multiple_of(2) { row[c / 2] } else { (row[c / 2] + next) >> 1 }
    };
    // Columns in front of the last block of four inputs.
    let rounded_down = (width - 1) / 4 * 8;
    for r in 0..2 * height {
        for c in 0..2 * width {
            let upper = at(r / 2, c);
            let lower = at((r / 2 + 1).min(height - 1), c);
            out.push(match r.is_multiple_of(2) {
                true => upper,
                false => (upper + lower + i64::from(c >= rounded_down)) >> 1,
            });
        }
    }
}

impl Kernel for Resize {
    fn run(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let codes = input(inputs, 0)?.to_i64()?;
        let [height, width] = self.input;
        let mut out = Vec::with_capacity(self.shape.iter().product());
        for plane in codes.chunks_exact(height * width) {
            match &self.form {
                Form::Copy => out.extend_from_slice(plane),
                Form::Double => double(plane, self.input, &mut out),
                Form::Weighted { rows, columns } => {
                    for &(top, fy) in rows {
                        let bottom = (top + 1).min(height - 1);
                        let at = |c: usize| plane[top * width + c] * (128 - fy) + plane[bottom * width + c] * fy;
                        for &(left, fx) in columns {
                            let lower = at(left);
                            let delta = at((left + 1).min(width - 1)) - lower;
                            out.push((lower + ((delta * fx + (1 << 14)) >> 15) + 64) >> 7);
                        }
                    }
                }
            }
        }
        Ok(vec![Tensor::new(self.shape.clone(), narrow(&out, 8, false))?])
    }
}
