//! DynamicQuantizeLinear, MatMulInteger and ConvInteger: quantization whose scale follows from the data of each run, and
//! exact sums of integers.

use super::closure::{kernel, optional, shaped};
use super::conv::groups;
use super::matmul::MatMulShape;
use super::parallel::fill;
use super::window::{Window, kernel_shape, lift};
use super::{Fact, Facts, Inferred, Kernel, Op, signature};
use crate::error::Result;
use crate::tensor::{DType, Data, Tensor, element_count};

/// DynamicQuantizeLinear, in float32 as ONNX writes it: the range of the tensor and zero becomes 0 to 255; ties to even.
pub struct DynamicQuantizeLinear;

/// Scale and zero point for a range; 1 and 0 where the range is empty.
fn grid(lo: f32, hi: f32) -> (f32, u8) {
    let (lo, hi) = (lo.min(0.0), hi.max(0.0));
    let scale = (hi - lo) / 255.0;
    if scale == 0.0 {
        return (1.0, 0);
    }
    (scale, (0.0 - lo / scale).clamp(0.0, 255.0).round_ties_even() as u8)
}

impl Op for DynamicQuantizeLinear {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=3, &[])?;
        let x = facts.input(0)?;
        if x.dtype != DType::F32 {
            return Err(facts.invalid(format!("'{}' is {}, float32 is expected", x.name, x.dtype)));
        }
        let all = [(DType::U8, x.shape.clone()), (DType::F32, Vec::new()), (DType::U8, Vec::new())];
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (shape, outputs) = (facts.input(0)?.shape.clone(), facts.node.outputs.len());
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &shape)?.as_f32()?;
            let (lo, hi) = x.iter().fold((0f32, 0f32), |(lo, hi), &v| (lo.min(v), hi.max(v)));
            let (scale, zero) = grid(lo, hi);
            let code = |&v: &f32| ((v / scale).round_ties_even() + f32::from(zero)).clamp(0.0, 255.0) as u8;
            let all = [
                Tensor::new(shape.clone(), Data::U8(x.iter().map(code).collect()))?,
                Tensor::new(Vec::new(), Data::F32(vec![scale].into()))?,
                Tensor::new(Vec::new(), Data::U8(vec![zero].into()))?,
            ];
            Ok(all.into_iter().take(outputs).collect())
        })
    }
}

/// Checks two 8-bit operands and their zero points (inputs 2 and 3), which have one entry, or one per row of the left or
/// per column or filter of the right operand.
fn operands(facts: &Facts<'_>, rows: Option<usize>, columns: usize) -> Result<()> {
    let eight = |fact: &Fact| match fact.dtype {
        DType::I8 | DType::U8 => Ok(()),
        other => Err(facts.invalid(format!("'{}' is {other}, 8-bit integers are expected", fact.name))),
    };
    for (i, entries) in [(0, rows), (1, Some(columns))] {
        eight(facts.input(i)?)?;
        let Some(zero) = facts.optional(i + 2) else { continue };
        signature::same_dtype(facts, facts.input(i)?, zero)?;
        let count = element_count(&zero.shape)?;
        if zero.shape.len() > 1 || !(count == 1 || entries == Some(count)) {
            return Err(facts.unsupported(format!("zero points of {:?} for input {i}", zero.shape)));
        }
    }
    Ok(())
}

/// The values of operand `i`, and its zero points; `[0]` where there are none.
fn values(inputs: &[Option<&Tensor>], i: usize, shape: &[usize]) -> Result<(Vec<i64>, Vec<i64>)> {
    let zeros = optional(inputs, i + 2).map(Tensor::to_i64).transpose()?;
    Ok((shaped(inputs, i, shape)?.to_i64()?, zeros.unwrap_or_else(|| vec![0])))
}

/// MatMulInteger: `Σ (a - a_zero) · (b - b_zero)` as int32, which wraps.
pub struct MatMulInteger;

impl Op for MatMulInteger {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=4, 1..=1, &[])?;
        let plan = MatMulShape::new(facts, &facts.input(0)?.shape, &facts.input(1)?.shape)?;
        operands(facts, Some(plan.m), plan.n)?;
        Ok(vec![(DType::I32, plan.output)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (a_shape, b_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        let plan = MatMulShape::new(facts, &a_shape, &b_shape)?;
        let MatMulShape { m, k, n, .. } = plan;
        kernel(move |context, inputs| {
            let ((a, a_zero), (b, b_zero)) = (values(inputs, 0, &a_shape)?, values(inputs, 1, &b_shape)?);
            let mut y = vec![0i32; element_count(&plan.output)?];
            fill(context.engine(), &mut y, n.max(1), |start, part| {
                let (batch, row) = (start / (m * n), start / n % m);
                let (left, right) =
                    (plan.batches.index(0, batch) * m * k + row * k, plan.batches.index(1, batch) * k * n);
                for (column, y) in part.iter_mut().enumerate() {
                    let (za, zb) = (a_zero[row % a_zero.len()], b_zero[column % b_zero.len()]);
                    let term = |i: usize| (a[left + i] - za) * (b[right + i * n + column] - zb);
                    *y = (0..k).map(term).sum::<i64>() as i32;
                }
            });
            Ok([Tensor::new(plan.output.clone(), Data::I32(y.into()))?].into())
        })
    }
}

/// ConvInteger over one to three spatial dimensions: `Σ (x - x_zero) · (w - w_zero)` as int32, which wraps; padding counts
/// as `x_zero`.
pub struct ConvInteger;

struct ConvPlan {
    window: Window,
    groups: usize,
    input: [usize; 3],
    output: [usize; 3],
    shape: Vec<usize>,
}

impl ConvPlan {
    fn new(facts: &Facts<'_>) -> Result<Self> {
        let (x, w) = (&facts.input(0)?.shape, &facts.input(1)?.shape);
        if x.len() != w.len() || !(3..=5).contains(&x.len()) {
            return Err(facts.unsupported(format!("convolution of {x:?} by {w:?}")));
        }
        let groups = groups(facts)?;
        if w[1].checked_mul(groups) != Some(x[1]) || w[0] % groups != 0 {
            return Err(facts.invalid(format!("weights of {w:?} do not fit {x:?} in {groups} groups")));
        }
        let window = Window::from_node(facts, &x[2..], &kernel_shape(facts, &w[2..])?, false)?;
        let output = window.output_dims(facts, &x[2..])?;
        let shape = [&[x[0], w[0]], output.as_slice()].concat();
        element_count(&shape)?;
        let limit = || facts.unsupported("more than three spatial dimensions");
        let (input, output) = (lift(&x[2..]).ok_or_else(limit)?, lift(&output).ok_or_else(limit)?);
        Ok(ConvPlan { window: window.lifted().ok_or_else(limit)?, groups, input, output, shape })
    }
}

impl Op for ConvInteger {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
        signature::check(facts, 2..=4, 1..=1, &attributes)?;
        let plan = ConvPlan::new(facts)?;
        operands(facts, None, plan.shape[1])?;
        Ok(vec![(DType::I32, plan.shape)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let plan = ConvPlan::new(facts)?;
        let (x_shape, w_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        kernel(move |context, inputs| {
            let ((x, x_zero), (w, w_zero)) = (values(inputs, 0, &x_shape)?, values(inputs, 1, &w_shape)?);
            let (channels, filters, depth) = (x_shape[1], w_shape[0], w_shape[1]);
            let (plane, in_plane): (usize, usize) = (plan.output.iter().product(), plan.input.iter().product());
            let taps: usize = plan.window.kernel.iter().product();
            let mut y = vec![0i32; element_count(&plan.shape)?];
            fill(context.engine(), &mut y, plane.max(1), |start, part| {
                let (n, m) = (start / plane / filters, start / plane % filters);
                let (first, zero) = (n * channels + m / (filters / plan.groups) * depth, w_zero[m % w_zero.len()]);
                for (at, y) in part.iter_mut().enumerate() {
                    let mut sum = 0i64;
                    for tap in 0..taps {
                        let Some(place) = plan.window.source(at, tap, plan.input, plan.output) else { continue };
                        for c in 0..depth {
                            let weight = w[(m * depth + c) * taps + tap] - zero;
                            sum += (x[(first + c) * in_plane + place] - x_zero[0]) * weight;
                        }
                    }
                    *y = sum as i32;
                }
            });
            Ok([Tensor::new(plan.shape.clone(), Data::I32(y.into()))?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_hold_zero() {
        assert_eq!(grid(0.0, 0.0), (1.0, 0));
        assert_eq!(grid(1.0, 255.0), (1.0, 0));
        assert_eq!(grid(-255.0, -1.0), (1.0, 255));
        assert_eq!(grid(-2.5, 252.5), (1.0, 2));
    }
}
