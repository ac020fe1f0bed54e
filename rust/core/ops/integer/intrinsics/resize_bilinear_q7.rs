//! Bilinear interpolation of uint8 codes: rows with 7-bit weights, then columns with 15-bit weights, and one rounding.
//!
//! Source positions are multiples of 2^-32, `in·2^32 / out` rounded, plus half of the weight's last bit. Twice the size in
//! both directions (without aligned corners) takes averages instead: down across columns, and across rows down for all but
//! the last block of four columns, whose averages round up. The same size copies.
//! Source: XiaoMi/nnlib@df7ad3c1 hexagon/ops/src/op_resizebilinear_d32.c, hexagon/asm_src/resizebilinear_d32_h.S.

use super::Context;
use super::planes::{PlaneFunction, PlaneKernel};
use super::record::Record;
use super::resize_bilinear::require_sizes;
use crate::error::Result;
use crate::ops::{Facts, Kernel};

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
    let function = Resize { form, input: from };
    Ok(Box::new(PlaneKernel { plane: from[0] * from[1], shape: out, bits: 8, signed: false, function }))
}

impl Resize {
    /// A pixel of twice the size in both directions.
    fn double<R: Record>(&self, plane: &[i64], [r, c]: [usize; 2], record: &mut R) -> i64 {
        let [height, width] = self.input;
        let at = |r: usize| {
            let row = &plane[r * width..][..width];
            let next = row[(c / 2 + 1).min(width - 1)];
            if c.is_multiple_of(2) { row[c / 2] } else { (row[c / 2] + next) >> 1 }
        };
        let (upper, lower) = (at(r / 2), at((r / 2 + 1).min(height - 1)));
        record.note("upper row, averaged across where the column is odd", upper);
        if r.is_multiple_of(2) {
            return upper;
        }
        // Columns in front of the last block of four inputs.
        let rounds_up = i64::from(c >= (width - 1) / 4 * 8);
        record.note("lower row, averaged across where the column is odd", lower);
        record.note("added before the sum is halved", rounds_up);
        (upper + lower + rounds_up) >> 1
    }
}

impl PlaneFunction for Resize {
    type Ready = ();

    fn ready(&self, _plane: &[i64]) {}

    fn pixel<R: Record>(&self, plane: &[i64], _ready: &(), [r, c]: [usize; 2], record: &mut R) -> i64 {
        let [height, width] = self.input;
        match &self.form {
            Form::Copy => {
                let code = plane[r * width + c];
                record.note("the code at the same place", code);
                code
            }
            Form::Double => self.double(plane, [r, c], record),
            Form::Weighted { rows, columns } => {
                let ((top, fy), (left, fx)) = (rows[r], columns[c]);
                let (bottom, right) = ((top + 1).min(height - 1), (left + 1).min(width - 1));
                let at = |c: usize| plane[top * width + c] * (128 - fy) + plane[bottom * width + c] * fy;
                let lower = at(left);
                let delta = at(right) - lower;
                let across = lower + ((delta * fx + (1 << 14)) >> 15);
                record.note("rows and weight of the second", format_args!("{top}, {bottom}, {fy} of 128"));
                record.note("columns and weight of the second", format_args!("{left}, {right}, {fx} of 32768"));
                record.list(
                    "the four codes",
                    [top, bottom].iter().flat_map(|r| [plane[r * width + left], plane[r * width + right]]),
                );
                record.note("left column, with 7 fraction bits", lower);
                record.note("right minus left", delta);
                record.note("between them, with 7 fraction bits", across);
                (across + 64) >> 7
            }
        }
    }
}
