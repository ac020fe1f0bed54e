//! Rows along one axis of a tensor, however far apart their elements lie.

use crate::error::Result;
use crate::ops::{Facts, RunContext, axis};
use crate::tensor::Data;
use rayon::prelude::*;

/// How a tensor divides into rows.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    outer: usize,
    depth: usize,
    inner: usize,
}

impl Rows {
    /// Rows along `axis` of a shape.
    pub fn along(shape: &[usize], at: usize) -> Rows {
        let (outer, depth, inner) = axis::around(shape, at);
        Rows { outer, depth, inner }
    }

    /// The rows of a Softmax node: one axis from opset 13 on, all axes from `axis` on before.
    pub fn of_softmax(facts: &Facts<'_>) -> Result<Rows> {
        let shape = &facts.input(0)?.shape;
        let modern = facts.opset >= 13;
        let at = axis::normalize(facts, facts.node.int("axis", if modern { -1 } else { 1 })?, shape.len())?;
        Ok(match modern {
            true => Rows::along(shape, at),
            false => Rows { outer: shape[..at].iter().product(), depth: shape[at..].iter().product(), inner: 1 },
        })
    }

    /// Elements of a row.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Applies `f` to every row; rows are computed alone, so their order does not matter.
    pub fn map(&self, context: &RunContext<'_>, values: &[i64], f: impl Fn(&[i64]) -> Vec<i64> + Sync) -> Vec<i64> {
        let row = |r: usize| {
            let start = r / self.inner * self.depth * self.inner + r % self.inner;
            let gathered: Vec<i64> = (0..self.depth).map(|i| values[start + i * self.inner]).collect();
            f(&gathered)
        };
        let rows: Vec<Vec<i64>> =
            context.pool.install(|| (0..self.outer * self.inner).into_par_iter().map(row).collect());
        let mut out = vec![0; values.len()];
        for (r, row) in rows.iter().enumerate() {
            let start = r / self.inner * self.depth * self.inner + r % self.inner;
            row.iter().enumerate().for_each(|(i, &v)| out[start + i * self.inner] = v);
        }
        out
    }
}

/// Codes in the storage of their width; values must fit.
pub fn narrow(values: &[i64], bits: u32, signed: bool) -> Data {
    match (bits, signed) {
        (..=8, true) => Data::I8(values.iter().map(|&v| v as i8).collect()),
        (..=8, false) => Data::U8(values.iter().map(|&v| v as u8).collect()),
        (_, true) => Data::I16(values.iter().map(|&v| v as i16).collect()),
        (_, false) => Data::U16(values.iter().map(|&v| v as u16).collect()),
    }
}
