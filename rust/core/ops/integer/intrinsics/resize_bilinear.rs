//! Bilinear interpolation of codes with fixed-point weights.
//!
//! An output position lies between two source positions per axis; the weight of the second is an integer of 10 or 11
//! fraction bits, and the weighted sum of four codes is rounded once. Input and output share an encoding.
//! - `q10`: positions are integers too, multiples of `scale = (1024·in + out/2) / out`; the sum is rounded half away from
//!   zero (at -0.5: -1) or half up (at -0.5: 0).
//!   Source: tensorflow/tflite-micro@90b983c2 tensorflow/lite/kernels/internal/reference/resize_bilinear.h.
//! - `q11`: positions are float32, clamped to the image; their fractions are rounded half-even to multiples of 1/2048, and
//!   the sum half up.
//!   Source: google/XNNPACK@75db3c09 src/indirection.c, src/s8-ibilinear/scalar.c.in.

use super::Context;
use super::planes::{PlaneFunction, PlaneKernel};
use super::record::Record;
use crate::error::Result;
use crate::num::{Rounding, shr_round};
use crate::ops::resize::Resize as ResizeOp;
use crate::ops::{Facts, Kernel};

/// Two source positions and the weight of the second, in units of the last fraction bit.
type Tap = (usize, usize, i64);

/// How output positions lie on the input.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Alignment {
    Asymmetric,
    Corners,
    HalfPixel,
}

impl Geometry {
    /// The kernel of a function of images that have this geometry.
    pub fn kernel<F: PlaneFunction>(self, function: F) -> PlaneKernel<F> {
        let Geometry { input: [height, width], shape, bits, signed, .. } = self;
        PlaneKernel { plane: height * width, shape, bits, signed, function }
    }
}

/// The taps of one axis, from the sizes of input and output.
type Taps = fn(usize, usize, Alignment) -> Vec<Tap>;

/// What a resize of images needs to know of its node.
pub(super) struct Geometry {
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Shape of the output, `N C H W`.
    pub shape: Vec<usize>,
    /// How positions lie.
    pub alignment: Alignment,
    /// Bits of the codes.
    pub bits: u32,
    /// Whether the codes have a sign.
    pub signed: bool,
}

struct Resize {
    rows: Vec<Tap>,
    columns: Vec<Tap>,
    fraction_bits: u32,
    rounding: Rounding,
    width: usize,
}

fn taps_q10(input: usize, output: usize, alignment: Alignment) -> Vec<Tap> {
    let (i, o) = (input as i64, output as i64);
    let scale = match alignment == Alignment::Corners && o > 1 {
        true => (1024 * (i - 1) + (o - 1) / 2) / (o - 1),
        false => (1024 * i + o / 2) / o,
    };
    (0..o)
        .map(|at| {
            let position = at * scale + if alignment == Alignment::HalfPixel { scale / 2 - 512 } else { 0 };
            let lower = (position / 1024).max(0);
            let upper = ((position + 1023) / 1024).min(i - 1);
            (lower.min(i - 1) as usize, upper.max(0) as usize, position - 1024 * lower)
        })
        .collect()
}

fn taps_q11(input: usize, output: usize, alignment: Alignment) -> Vec<Tap> {
    let inner = usize::from(alignment == Alignment::Corners && output != 1);
    let scale = (input - inner) as f32 / (output - inner) as f32;
    let offset = if alignment == Alignment::HalfPixel { 0.5 * scale - 0.5 } else { 0.0 };
    let last = input - 1;
    (0..output)
        .map(|at| {
            let position = (at as f32 * scale + offset).max(0.0).min(last as f32);
            let lower = position as usize;
            let weight = ((position - lower as f32) * 2048.0).round_ties_even();
            (lower, (lower + 1).min(last), weight as i64)
        })
        .collect()
}

pub(super) fn prepare_q10(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, taps_q10, 10, Rounding::HalfAway)
}

pub(super) fn prepare_q10_half_up(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, taps_q10, 10, Rounding::HalfUp)
}

pub(super) fn prepare_q11(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, taps_q11, 11, Rounding::HalfUp)
}

/// Fails for scales that are not the ratios of the sizes, from which alone these kernels take positions, and for filters that
/// widen.
pub(super) fn require_sizes(facts: &Facts<'_>) -> Result<()> {
    let op = if facts.node.op_type == "Upsample" { ResizeOp::Upsample } else { ResizeOp::Resize };
    let plan = op.plan(facts)?;
    if plan.axes.iter().flatten().any(|axis| axis.antialias && axis.scale < 1.0) {
        return Err(facts.unsupported("antialias"));
    }
    match plan.follows_sizes() {
        true => Ok(()),
        false => Err(facts.unsupported("scales other than the ratios of the sizes")),
    }
}

/// The geometry of a node; an error where it is anything but linear interpolation of images on one grid.
pub(super) fn geometry(facts: &Facts<'_>) -> Result<Geometry> {
    let (x, y) = super::unary_encodings(facts)?;
    if !x.same_grid(y) {
        return Err(facts.unsupported("different encodings of input and output"));
    }
    require_sizes(facts)?;
    let shape = &facts.input(0)?.shape;
    let out = facts.outputs[0].as_ref().ok_or_else(|| facts.invalid("no output"))?.shape.clone();
    if shape.len() != 4 || shape[..2] != out[..2] || facts.node.string("mode", "nearest")? != "linear" {
        return Err(facts.unsupported("anything but linear interpolation of the last two of four axes"));
    }
    if shape[2..].contains(&0) || out[2..].contains(&0) {
        return Err(facts.unsupported("an image without pixels"));
    }
    let default = if facts.opset < 11 { "asymmetric" } else { "half_pixel" };
    let alignment = match facts.node.string("coordinate_transformation_mode", default)? {
        "align_corners" => Alignment::Corners,
        "half_pixel" => Alignment::HalfPixel,
        "asymmetric" => Alignment::Asymmetric,
        other => return Err(facts.unsupported(format!("coordinate_transformation_mode {other}"))),
    };
    Ok(Geometry { input: [shape[2], shape[3]], shape: out, alignment, bits: y.bitwidth, signed: y.signed })
}

fn prepare(facts: &Facts<'_>, taps: Taps, fraction_bits: u32, rounding: Rounding) -> Result<Box<dyn Kernel>> {
    let geometry = geometry(facts)?;
    let function = Resize {
        rows: taps(geometry.input[0], geometry.shape[2], geometry.alignment),
        columns: taps(geometry.input[1], geometry.shape[3], geometry.alignment),
        fraction_bits,
        rounding,
        width: geometry.input[1],
    };
    Ok(Box::new(geometry.kernel(function)))
}

impl PlaneFunction for Resize {
    type Ready = ();

    fn ready(&self, _plane: &[i64]) {}

    fn pixel<R: Record>(&self, plane: &[i64], _ready: &(), [r, c]: [usize; 2], record: &mut R) -> i64 {
        let ((top, bottom, fy), (left, right, fx)) = (self.rows[r], self.columns[c]);
        let one = 1 << self.fraction_bits;
        let at = |r: usize, c: usize| plane[r * self.width + c];
        let [a, b, c, d] = [at(top, left), at(top, right), at(bottom, left), at(bottom, right)];
        let (upper, lower) = (a * (one - fx) + b * fx, c * (one - fx) + d * fx);
        let sum = upper * (one - fy) + lower * fy;
        record.note("rows and weight of the second", format_args!("{top}, {bottom}, {fy} of {one}"));
        record.note("columns and weight of the second", format_args!("{left}, {right}, {fx} of {one}"));
        record.list("the four codes", [a, b, c, d]);
        record.note("sum of the upper row", upper);
        record.note("sum of the lower row", lower);
        record.note("weighted sum", sum);
        record.note("right shift, and rounding", format_args!("{}, {}", 2 * self.fraction_bits, self.rounding.name()));
        shr_round(sum.into(), 2 * self.fraction_bits, self.rounding) as i64
    }
}
