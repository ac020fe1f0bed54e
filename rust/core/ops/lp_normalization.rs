//! LpNormalization: a row divided by its norm.

use super::closure::{input, kernel};
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::Result;
use crate::tensor::{Data, Tensor};

/// `x / ‖x‖_p` along an axis for `p` of 1 or 2, in f32; sums run in order in f64. A row of zeros stays as it is.
pub struct LpNormalization;

fn plan(facts: &Facts<'_>) -> Result<((usize, usize, usize), i64)> {
    signature::check(facts, 1..=1, 1..=1, &["axis", "p"])?;
    let shape = &facts.input(0)?.shape;
    let at = axis::normalize(facts, facts.node.int("axis", -1)?, shape.len())?;
    match facts.node.int("p", 2)? {
        p @ 1..=2 => Ok((axis::around(shape, at), p)),
        p => Err(facts.invalid(format!("p is {p}, not 1 or 2"))),
    }
}

impl Op for LpNormalization {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        plan(facts)?;
        let x = facts.input(0)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let ((outer, depth, inner), p) = plan(facts)?;
        kernel(move |_, inputs| {
            let x = input(inputs, 0)?;
            let mut out = x.as_f32()?.to_vec();
            for row in 0..outer * inner {
                let at = |i: usize| row / inner * depth * inner + i * inner + row % inner;
                let powers = (0..depth).map(|i| f64::from(out[at(i)])).map(|v| if p == 1 { v.abs() } else { v * v });
                let sum: f64 = powers.sum();
                let norm = if p == 1 { sum } else { sum.sqrt() };
                if norm != 0.0 {
                    (0..depth).for_each(|i| out[at(i)] = (f64::from(out[at(i)]) / norm) as f32);
                }
            }
            Ok([Tensor::new(x.shape(), Data::F32(out.into()))?].into())
        })
    }
}
