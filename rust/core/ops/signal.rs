//! DFT, STFT and the windows. Sums run in order in f64 with angles reduced exactly; results are rounded once.

use super::cast::by_number;
use super::closure::{kernel, optional, shaped};
use super::parallel::fill;
use super::{Facts, Inferred, Kernel, Op, axis, floats, signature};
use crate::error::Result;
use crate::tensor::{DType, MAX_ELEMENTS, element_count};
use std::f64::consts::PI;

/// A scalar among the inputs, which must be known before the run.
fn scalar(facts: &Facts<'_>, i: usize) -> Result<Option<i64>> {
    if facts.optional(i).is_none() {
        return Ok(None);
    }
    match signature::constant_ints(facts, i)?[..] {
        [value] => Ok(Some(value)),
        _ => Err(facts.invalid(format!("input {i} is no scalar"))),
    }
}

/// A length among the inputs: a scalar of at least 1.
fn length(facts: &Facts<'_>, i: usize) -> Result<Option<usize>> {
    let Some(value) = scalar(facts, i)? else { return Ok(None) };
    let size = usize::try_from(value).ok().filter(|n| (1..=MAX_ELEMENTS).contains(n));
    size.map(Some).ok_or_else(|| facts.invalid(format!("input {i} is {value}, a length is expected")))
}

/// `e^(2πi·k/n)` for all `k`, as cosines and sines.
fn roots(n: usize) -> Vec<(f64, f64)> {
    (0..n).map(|k| 2.0 * PI * k as f64 / n as f64).map(|a| (libm::cos(a), libm::sin(a))).collect()
}

/// Element `k` of the transform of `x`, which has length `roots.len()` once zeros are added or its end is cut.
fn transformed(x: impl Iterator<Item = (f64, f64)>, k: usize, roots: &[(f64, f64)], inverse: bool) -> (f64, f64) {
    let n = roots.len();
    let (mut re, mut im) = (0.0, 0.0);
    for (t, (a, b)) in x.take(n).enumerate() {
        let (c, s) = roots[(t as u128 * k as u128 % n as u128) as usize];
        let s = if inverse { s } else { -s };
        re += a * c - b * s;
        im += a * s + b * c;
    }
    if inverse { (re / n as f64, im / n as f64) } else { (re, im) }
}

/// DFT of reals (last dimension 1) or complex numbers (2) along an axis.
pub struct Dft;

struct DftPlan {
    axis: usize,
    length: usize,
    inverse: bool,
    onesided: bool,
    shape: Vec<usize>,
    output: Vec<usize>,
}

impl DftPlan {
    fn new(facts: &Facts<'_>) -> Result<Self> {
        let shape = facts.input(0)?.shape.clone();
        let (inverse, onesided) =
            (signature::flag(facts, "inverse", false)?, signature::flag(facts, "onesided", false)?);
        let rank = shape.len();
        if rank < 2 || !matches!(shape[rank - 1], 1 | 2) {
            return Err(facts.invalid(format!("{shape:?} holds neither real nor complex signals")));
        }
        let at = if facts.opset < 20 { facts.node.int("axis", 1)? } else { scalar(facts, 2)?.unwrap_or(-2) };
        let axis = axis::normalize(facts, at, rank)?;
        if axis == rank - 1 {
            return Err(facts.invalid("the last axis holds real and imaginary parts"));
        }
        let complex = shape[rank - 1] == 2;
        if onesided && complex != inverse {
            return Err(facts.invalid("one side is that of the transform of reals"));
        }
        let own = if inverse && onesided { 2 * shape[axis].saturating_sub(1) } else { shape[axis] };
        let length = length(facts, 1)?.unwrap_or(own);
        if length == 0 {
            return Err(facts.invalid(format!("{shape:?} has nothing to transform")));
        }
        let mut output = shape.clone();
        output[axis] = if onesided && !inverse { length / 2 + 1 } else { length };
        output[rank - 1] = if onesided && inverse { 1 } else { 2 };
        element_count(&output)?;
        Ok(DftPlan { axis, length, inverse, onesided, shape, output })
    }
}

impl Op for Dft {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let (inputs, attributes): (_, &[&str]) = match facts.opset < 20 {
            true => (1..=2, &["axis", "inverse", "onesided"]),
            false => (1..=3, &["inverse", "onesided"]),
        };
        signature::check(facts, inputs, 1..=1, attributes)?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        Ok(vec![(x.dtype, DftPlan::new(facts)?.output)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let plan = DftPlan::new(facts)?;
        kernel(move |context, inputs| {
            let tensor = shaped(inputs, 0, &plan.shape)?;
            let x = tensor.to_f64();
            let parts = plan.shape[plan.shape.len() - 1];
            let (_, size, inner) = axis::around(&plan.shape, plan.axis);
            let (inner, roots) = (inner / parts, roots(plan.length));
            let bins = plan.output[plan.axis];
            let mut y = vec![(0.0, 0.0); element_count(&plan.output)? / plan.output[plan.output.len() - 1]];
            fill(context.engine(), &mut y, 256, |start, out| {
                for (i, y) in out.iter_mut().enumerate() {
                    let i = start + i;
                    let (outer, k, column) = (i / inner / bins, i / inner % bins, i % inner);
                    let value = |t: usize| {
                        let at = ((outer * size + t) * inner + column) * parts;
                        (x[at], if parts == 2 { x[at + 1] } else { 0.0 })
                    };
                    // The other side of a transform of reals mirrors the first one.
                    let mirrored = |t: usize| {
                        let half = plan.length / 2;
                        let (s, sign) = if t <= half { (t, 1.0) } else { (plan.length - t, -1.0) };
                        if s >= size {
                            return (0.0, 0.0);
                        }
                        let (a, b) = value(s);
                        let real = s == 0 || 2 * s == plan.length;
                        (a, if real { 0.0 } else { sign * b })
                    };
                    *y = match plan.onesided && plan.inverse {
                        true => transformed((0..plan.length).map(mirrored), k, &roots, true),
                        false => transformed((0..size).map(value), k, &roots, plan.inverse),
                    };
                }
            });
            let single = plan.output[plan.output.len() - 1] == 1;
            let y = y.into_iter().flat_map(|(a, b)| if single { vec![a] } else { vec![a, b] }).collect();
            Ok([floats::write_f64(&plan.output, y, tensor.dtype())?].into())
        })
    }
}

/// STFT: transforms of frames of `[batch, length, 1 or 2]`, each multiplied by a window.
pub struct Stft;

struct StftPlan {
    step: usize,
    frame: usize,
    shape: [usize; 3],
    output: Vec<usize>,
}

impl StftPlan {
    fn new(facts: &Facts<'_>) -> Result<Self> {
        let x = facts.input(0)?;
        let &[batch, size, parts @ 1..=2] = x.shape.as_slice() else {
            return Err(facts.invalid(format!("'{}' has shape {:?}: no signals", x.name, x.shape)));
        };
        let onesided = signature::flag(facts, "onesided", true)?;
        if onesided && parts == 2 {
            return Err(facts.invalid("one side is that of the transform of reals"));
        }
        let step = length(facts, 1)?.ok_or_else(|| facts.invalid("frame_step is missing"))?;
        let window = facts.optional(2).map(|w| element_count(&w.shape)).transpose()?;
        let frame = length(facts, 3)?.or(window).unwrap_or(size);
        if frame == 0 || frame > size || window.is_some_and(|w| w != frame) {
            return Err(facts.invalid(format!("frames of {frame} do not fit {:?} or the window", x.shape)));
        }
        let bins = if onesided { frame / 2 + 1 } else { frame };
        let output = vec![batch, (size - frame) / step + 1, bins, 2];
        element_count(&output)?;
        Ok(StftPlan { step, frame, shape: [batch, size, parts], output })
    }
}

impl Op for Stft {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=4, 1..=1, &["onesided"])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        if let Some(window) = facts.optional(2) {
            signature::same_dtype(facts, x, window)?;
        }
        Ok(vec![(x.dtype, StftPlan::new(facts)?.output)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let plan = StftPlan::new(facts)?;
        kernel(move |context, inputs| {
            let tensor = shaped(inputs, 0, &plan.shape)?;
            let (x, [_, size, parts]) = (tensor.to_f64(), plan.shape);
            let window = optional(inputs, 2).map_or_else(|| vec![1.0; plan.frame], |w| w.to_f64());
            let (frames, bins, roots) = (plan.output[1], plan.output[2], roots(plan.frame));
            let mut y = vec![(0.0, 0.0); element_count(&plan.output)? / 2];
            fill(context.engine(), &mut y, 256, |start, out| {
                for (i, y) in out.iter_mut().enumerate() {
                    let i = start + i;
                    let (batch, frame, k) = (i / bins / frames, i / bins % frames, i % bins);
                    let values = (0..plan.frame).map(|t| {
                        let at = (batch * size + frame * plan.step + t) * parts;
                        (x[at] * window[t], if parts == 2 { x[at + 1] * window[t] } else { 0.0 })
                    });
                    *y = transformed(values, k, &roots, false);
                }
            });
            let y = y.into_iter().flat_map(|(a, b)| [a, b]).collect();
            Ok([floats::write_f64(&plan.output, y, tensor.dtype())?].into())
        })
    }
}

/// `Σ coefficient_k · cos(2πk·i/N)` over `size` points, where `N` is `size`, or `size - 1` where it is not periodic.
pub struct CosineWindow(pub &'static [f64]);

/// Coefficients of HammingWindow as ONNX gives them.
pub const HAMMING: [f64; 2] = [25.0 / 46.0, -21.0 / 46.0];

impl CosineWindow {
    fn plan(facts: &Facts<'_>) -> Result<(DType, usize)> {
        let size = scalar(facts, 0)?.ok_or_else(|| facts.invalid("the size is missing"))?;
        let size = usize::try_from(size).ok().filter(|&s| s <= MAX_ELEMENTS);
        let dtype = by_number(facts.node.int("output_datatype", 1)?).filter(|d| d.is_float());
        match (dtype, size) {
            (Some(dtype), Some(size)) => Ok((dtype, size)),
            (None, _) => Err(facts.unsupported("a window of that output_datatype")),
            (_, None) => Err(facts.invalid("the size is impossible")),
        }
    }
}

impl Op for CosineWindow {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["output_datatype", "periodic"])?;
        signature::flag(facts, "periodic", true)?;
        let (dtype, size) = Self::plan(facts)?;
        Ok(vec![(dtype, vec![size])])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (dtype, size) = Self::plan(facts)?;
        let period = if signature::flag(facts, "periodic", true)? { size } else { size.saturating_sub(1) }.max(1);
        let coefficients = self.0;
        kernel(move |_, _| {
            let value = |i: usize| {
                let terms = coefficients.iter().enumerate();
                terms.map(|(k, c)| c * libm::cos(2.0 * PI * (k * i % period) as f64 / period as f64)).sum::<f64>()
            };
            Ok([floats::write_f64(&[size], (0..size).map(value).collect(), dtype)?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_invert_each_other() {
        let (n, x) = (6, [1.0, -2.0, 0.5, 3.0, 0.0, -1.0]);
        let roots = roots(n);
        let forward: Vec<(f64, f64)> =
            (0..n).map(|k| transformed(x.iter().map(|&v| (v, 0.0)), k, &roots, false)).collect();
        assert!((forward[0].0 - 1.5).abs() < 1e-12);
        for (t, &v) in x.iter().enumerate() {
            let back = transformed(forward.iter().copied(), t, &roots, true);
            assert!((back.0 - v).abs() < 1e-12 && back.1.abs() < 1e-12);
        }
    }
}
