//! Division of a row by its Euclidean norm, in fixed point.
//!
//! The sum of squares of centred codes goes through a fixed-point inverse square root; the output encoding is scale 1/128,
//! zero point 0. The last product is rounded twice, or once. Source: tensorflow/tflite-micro@90b983c2
//! tensorflow/lite/kernels/internal/reference/integer_ops/l2normalization.h.

use super::Context;
use super::fixed_point::{inverse_sqrt, scale, scale_once};
use super::record::Record;
use super::rows::{RowFunction, RowKernel, Rows};
use crate::error::Result;
use crate::ops::{Facts, Kernel, axis};

struct Normalize {
    zero_point: i64,
    scale: fn(i32, (i32, i32)) -> i32,
}

pub(super) fn prepare_twice(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, scale)
}

pub(super) fn prepare_once(facts: &Facts<'_>, _context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    prepare(facts, scale_once)
}

fn prepare(facts: &Facts<'_>, scale: fn(i32, (i32, i32)) -> i32) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    if !y.signed || y.scale[0] != 1.0 / 128.0 || y.zero_point[0] != 0 {
        return Err(facts.unsupported("an output encoding other than int8 with scale 1/128 and zero point 0"));
    }
    if facts.node.int("p", 2)? != 2 {
        return Err(facts.unsupported("a norm other than p = 2"));
    }
    let shape = &facts.input(0)?.shape;
    let at = axis::normalize(facts, facts.node.int("axis", -1)?, shape.len())?;
    let function = Normalize { zero_point: x.zero_point[0], scale };
    Ok(Box::new(RowKernel { rows: Rows::along(shape, at), bits: 8, signed: true, function }))
}

impl RowFunction for Normalize {
    fn row<R: Record>(&self, codes: &[i64], record: &mut R) -> Vec<i64> {
        let centred: Vec<i32> = codes.iter().map(|&c| (c - self.zero_point) as i32).collect();
        let squares = centred.iter().fold(0i32, |sum, &c| sum.wrapping_add(c.wrapping_mul(c)));
        let (m, shift) = inverse_sqrt(squares);
        record.list("centred codes of the row", &centred);
        record.note("sum of the squares", squares);
        record.note("inverse square root: mantissa in units of 2^-31 and right shift", format_args!("{m}, {shift}"));
        let mut out = Vec::with_capacity(codes.len());
        for (i, &c) in centred.iter().enumerate() {
            let product = (self.scale)(c, (m, 7 - shift));
            if record.follows(i) {
                record.note("its centred code", c);
                record.note("its quotient, in units of 1/128", product);
            }
            out.push(i64::from(product.clamp(-128, 127)));
        }
        out
    }
}
