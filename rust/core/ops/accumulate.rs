//! Conv, Gemm and MatMul whose sums have a stated format. Every sum starts at +0, takes its terms by fused multiply-add in
//! the order of the float32 kernels (taps, then input channels; `k` ascending) and the bias at last.

use super::broadcast::Broadcast;
use super::closure::{kernel, optional, shaped};
use super::conv::{ConvShape, by_planes};
use super::matmul::{GemmShape, MatMulShape};
use super::parallel::fill;
use super::{Facts, Kernel, floats};
use crate::error::{Error, Result};
use crate::num::narrow::to_f32_odd;
use crate::num::{FloatType, Narrow};
use crate::tensor::element_count;

/// How sums and results hold reals.
#[derive(Debug, Clone, Copy)]
struct Sums {
    sums: Narrow,
    results: FloatType,
}

impl Sums {
    fn add(self, sum: f64, a: f32, b: f32) -> f64 {
        self.sums.fused(sum, a, b)
    }

    fn scaled(self, sum: f64, factor: f32) -> f64 {
        match self.sums.format {
            _ if factor == 1.0 => sum,
            FloatType::F64 => sum * f64::from(factor),
            _ => self.sums.fused(0.0, sum as f32, factor),
        }
    }

    /// The sum as float32: for results of 16 bits so that rounding it once more is one rounding.
    fn result(self, sum: f64) -> f32 {
        match self.results {
            FloatType::F16 | FloatType::Bf16 => to_f32_odd(sum),
            _ => sum as f32,
        }
    }
}

/// The kernel of an operator that sums products, with sums in `sums` for results that are rounded to `results`
/// afterwards. `None` for operators that do not, and for sums in float32, which the operators' own kernels have.
pub fn prepare(facts: &Facts<'_>, sums: Narrow, results: FloatType) -> Result<Option<Box<dyn Kernel>>> {
    if sums.format == FloatType::F32 {
        return Ok(None);
    }
    let sums = Sums { sums, results };
    match (facts.node.domain.as_str(), facts.node.op_type.as_str()) {
        ("", "Conv") => conv(facts, sums).map(Some),
        ("", "Gemm") => gemm(facts, sums).map(Some),
        ("", "MatMul") => matmul(facts, sums).map(Some),
        ("", "ConvTranspose") => {
            Err(facts.unsupported(format!("transposed convolution with sums in {}", sums.sums.format)))
        }
        _ => Ok(None),
    }
}

fn conv(facts: &Facts<'_>, sums: Sums) -> Result<Box<dyn Kernel>> {
    let conv = ConvShape::from_node(facts)?;
    let sizes = [conv.channels, conv.filters, conv.groups];
    by_planes(facts, sizes, [&conv.input, &conv.output], &conv.window, move |p, y| {
        let in_plane = p.input.iter().product::<usize>();
        for (at, y) in y.iter_mut().enumerate() {
            let mut sum = 0.0;
            for tap in 0..p.taps {
                let Some(place) = p.window.source(at, tap, p.input, p.output) else { continue };
                for c in 0..p.depth {
                    sum = sums.add(
                        sum,
                        p.x[(p.first + c) * in_plane + place],
                        p.w[(p.filter * p.depth + c) * p.taps + tap],
                    );
                }
            }
            if let Some(bias) = p.bias {
                sum = sums.add(sum, bias, 1.0);
            }
            *y = sums.result(sum);
        }
    })
}

fn matmul(facts: &Facts<'_>, sums: Sums) -> Result<Box<dyn Kernel>> {
    let (a_shape, b_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
    let plan = MatMulShape::new(facts, &a_shape, &b_shape)?;
    let MatMulShape { m, k, n, .. } = plan;
    kernel(move |context, inputs| {
        let (a, b) = (shaped(inputs, 0, &a_shape)?, shaped(inputs, 1, &b_shape)?);
        let (x, w) = (floats::read(a)?, floats::read(b)?);
        let mut y = vec![0f32; element_count(&plan.output)?];
        fill(context.engine(), &mut y, n.max(1), |start, part| {
            let (batch, row) = (start / (m * n), start / n % m);
            let (left, right) = (plan.batches.index(0, batch) * m * k + row * k, plan.batches.index(1, batch) * k * n);
            for (column, y) in part.iter_mut().enumerate() {
                let sum = (0..k).fold(0.0, |sum, i| sums.add(sum, x[left + i], w[right + i * n + column]));
                *y = sums.result(sum);
            }
        });
        Ok([floats::write(&plan.output, y, a.dtype())?].into())
    })
}

fn gemm(facts: &Facts<'_>, sums: Sums) -> Result<Box<dyn Kernel>> {
    let g = GemmShape::from_node(facts)?;
    let (a_shape, b_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
    kernel(move |context, inputs| {
        let (a, b) = (shaped(inputs, 0, &a_shape)?, shaped(inputs, 1, &b_shape)?);
        let (x, w, out) = (floats::read(a)?, floats::read(b)?, [g.m, g.n]);
        let c = optional(inputs, 2).map(|c| Ok::<_, Error>((Broadcast::new(&[c.shape(), &out])?, floats::read(c)?)));
        let c = c.transpose()?;
        if c.as_ref().is_some_and(|(plan, _)| plan.shape() != out) {
            return Err(Error::invalid("run_shape", format!("C does not fit {out:?}")));
        }
        let mut y = vec![0f32; g.m * g.n];
        fill(context.engine(), &mut y, g.n.max(1), |start, part| {
            let row = start / g.n;
            for (column, y) in part.iter_mut().enumerate() {
                let left = |i: usize| if g.trans_a { i * g.m + row } else { row * g.k + i };
                let right = |i: usize| if g.trans_b { column * g.k + i } else { i * g.n + column };
                let sum = (0..g.k).fold(0.0, |sum, i| sums.add(sum, x[left(i)], w[right(i)]));
                let mut sum = sums.scaled(sum, g.alpha);
                if let Some((plan, c)) = &c {
                    sum = sums.add(sum, c[plan.index(0, start + column)], g.beta);
                }
                *y = sums.result(sum);
            }
        });
        Ok([floats::write(&out, y, a.dtype())?].into())
    })
}
