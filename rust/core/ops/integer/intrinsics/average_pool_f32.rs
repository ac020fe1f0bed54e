//! Average pooling in float32, tap by tap.
//!
//! `r = scale_x · (x - zp_x)`; the sum of `r` over the window in row-major order, divided by the number of taps, each
//! step rounded to float32; `y = rint_half_even(mean / scale_y + zp_y)`, the zero point added before rounding.
//! Source: microsoft/onnxruntime@07d59c09 onnxruntime/contrib_ops/cpu/quantization/qlinear_pool.cc.

use super::super::lanes::compute_codes;
use super::super::window::{PoolGeometry, geometry};
use super::Context;
use super::record::{Record, Trail};
use crate::error::Result;
use crate::ops::closure::input;
use crate::ops::{Explanation, Facts, Kernel, Place, RunContext};
use crate::tensor::{DType, Tensor};

struct AveragePool {
    geometry: PoolGeometry,
    x: (f32, i64),
    y: (f32, i64),
    bounds: (i64, i64),
    dtype: DType,
}

pub(super) fn prepare(facts: &Facts<'_>, context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    Ok(Box::new(AveragePool {
        geometry: geometry(facts)?,
        x: (x.scale[0] as f32, x.zero_point[0]),
        y: (y.scale[0] as f32, y.zero_point[0]),
        bounds: context.clamp.unwrap_or((y.qmin(), y.qmax())),
        dtype: y.storage_dtype(),
    }))
}

impl AveragePool {
    fn real(&self, code: i64) -> f32 {
        self.x.0 * (code - self.x.1) as i32 as f32
    }

    /// The code of output `index`; `real(i)` is element `i` of the input.
    fn element<R: Record>(&self, index: usize, real: impl Fn(usize) -> f32, record: &mut R) -> i64 {
        let mut sum = 0f32;
        let count = self.geometry.for_each_tap(index, |tap| sum += real(tap));
        let mean = sum / count as f32;
        let scaled = mean / self.y.0 + self.y.1 as f32;
        record.note("sum of the reals, in float32 from first to last", sum);
        record.note("taps", count);
        record.note("mean, in float32", mean);
        record.note("divided by the output's scale, plus its zero point, in float32", scaled);
        (scaled.round_ties_even() as i64).clamp(self.bounds.0, self.bounds.1)
    }
}

impl Kernel for AveragePool {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let reals: Vec<f32> = x.to_i64()?.iter().map(|&q| self.real(q)).collect();
        let data = compute_codes(context, self.dtype, self.geometry.outputs(), |start, out| {
            for (i, code) in out.iter_mut().enumerate() {
                *code = self.element(start + i, |tap| reals[tap], &mut ()) as i32;
            }
            Ok(())
        })?;
        Ok(vec![Tensor::new(self.geometry.output_shape().to_vec(), data)?])
    }

    fn explain(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let codes = input(inputs, 0)?.to_i64()?;
        let mut taps = Vec::new();
        self.geometry.for_each_tap(place.index, |tap| taps.push(tap));
        let mut trail = Trail::default();
        trail.list("codes of the window", taps.iter().map(|&tap| codes[tap]));
        trail.list("their reals, in float32", taps.iter().map(|&tap| self.real(codes[tap])));
        let code = self.element(place.index, |tap| self.real(codes[tap]), &mut trail);
        Ok(Explanation { trace: trail.trace.end(code), ..Explanation::default() })
    }
}
