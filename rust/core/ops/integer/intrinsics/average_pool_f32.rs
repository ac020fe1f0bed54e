//! Average pooling in float32, tap by tap.
//!
//! `r = scale_x · (x - zp_x)`; the sum of `r` over the window in row-major order, divided by the number of taps, each
//! step rounded to float32; `y = rint_half_even(mean / scale_y + zp_y)`, the zero point added before rounding.
//! Source: microsoft/onnxruntime@07d59c09 onnxruntime/contrib_ops/cpu/quantization/qlinear_pool.cc.

use super::super::lanes::compute_codes;
use super::super::window::{Planar, PoolGeometry, geometry, planar};
use super::Context;
use super::record::{Record, Trail};
use crate::error::Result;
use crate::kernels::{FloatAverage, float_average};
use crate::ops::closure::input;
use crate::ops::{Explanation, Facts, Kernel, Outputs, Place, RunContext};
use crate::tensor::{DType, Data, Tensor};

struct AveragePool {
    geometry: PoolGeometry,
    /// The geometry over channels-last images, where it has that form.
    planar: Option<Planar>,
    average: FloatAverage,
    dtype: DType,
}

pub(super) fn prepare(facts: &Facts<'_>, context: &Context<'_>) -> Result<Box<dyn Kernel>> {
    let (x, y) = super::unary_encodings(facts)?;
    super::require_8_bits(facts, [x, y])?;
    let (lo, hi) = context.clamp.unwrap_or((y.qmin(), y.qmax()));
    let average = FloatAverage {
        x: (x.scale[0] as f32, x.zero_point[0] as i32),
        y: (y.scale[0] as f32, y.zero_point[0] as i32),
        bounds: (lo as i32, hi as i32),
    };
    let (geometry, planar) = (geometry(facts)?, planar(facts)?);
    Ok(Box::new(AveragePool { geometry, planar, average, dtype: y.storage_dtype() }))
}

impl AveragePool {
    /// The code of output `index`; `real(i)` is element `i` of the input.
    fn element<R: Record>(&self, index: usize, real: impl Fn(usize) -> f32, record: &mut R) -> i32 {
        let mut sum = 0f32;
        let count = self.geometry.for_each_tap(index, |tap| sum += real(tap));
        let (mean, scaled) = self.average.scaled(sum, count as f32);
        record.note("sum of the reals, in float32 from first to last", sum);
        record.note("taps", count);
        record.note("mean, in float32", mean);
        record.note("divided by the output's scale, plus its zero point, in float32", scaled);
        self.average.code(scaled)
    }

    fn run_planar(&self, context: &RunContext<'_>, planar: &Planar, x: &Tensor) -> Result<Data> {
        let (engine, shape, counts) = (context.engine(), &planar.shape, &planar.counts);
        macro_rules! average {
            ($v:expr, $variant:ident, $t:ty) => {{
                let mut out = context.output::<$t>(0, shape.output_len());
                float_average(engine, shape, &self.average, counts, $v, &mut out);
                Data::$variant(out)
            }};
        }
        Ok(match (x.data(), self.dtype) {
            (Data::U8(v), DType::U8) => average!(v, U8, u8),
            (Data::U8(v), DType::I8) => average!(v, I8, i8),
            (Data::I8(v), DType::U8) => average!(v, U8, u8),
            (Data::I8(v), DType::I8) => average!(v, I8, i8),
            (other, _) => return Err(super::super::mac::wrong_codes(other)),
        })
    }
}

impl Kernel for AveragePool {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        if let Some(planar) = &self.planar {
            let shape = planar.output_shape(self.geometry.output_shape());
            return Ok([Tensor::new(shape, self.run_planar(context, planar, x)?)?].into());
        }
        let reals: Vec<f32> = x.to_i64()?.iter().map(|&code| self.average.real(code as i32)).collect();
        let data = compute_codes(context, self.dtype, self.geometry.outputs(), |start, out| {
            for (i, code) in out.iter_mut().enumerate() {
                *code = self.element(start + i, |tap| reals[tap], &mut ());
            }
            Ok(())
        })?;
        Ok([Tensor::new(self.geometry.output_shape(), data)?].into())
    }

    fn explain(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let x = input(inputs, 0)?;
        let (codes, index) = match &self.planar {
            Some(planar) => planar.in_order(x, place.index)?,
            None => (x.to_i64()?, place.index),
        };
        let mut taps = Vec::new();
        self.geometry.for_each_tap(index, |tap| taps.push(tap));
        let mut trail = Trail::default();
        let real = |tap: usize| self.average.real(codes[tap] as i32);
        trail.list("codes of the window", taps.iter().map(|&tap| codes[tap]));
        trail.list("their reals, in float32", taps.iter().map(|&tap| real(tap)));
        let code = self.element(index, real, &mut trail);
        Ok(Explanation { trace: trail.trace.end(i64::from(code)), ..Explanation::default() })
    }
}
