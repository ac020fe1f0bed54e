//! Rows along one axis of a tensor, however far apart their elements lie.

use super::record::{Record, Trail};
use crate::error::Result;
use crate::ops::closure::input;
use crate::ops::explanation::elided;
use crate::ops::{Explanation, Facts, Kernel, Outputs, Place, RunContext, axis};
use crate::tensor::{Data, Tensor};

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

    /// Index of the first element of row `r`.
    fn start(&self, r: usize) -> usize {
        r / self.inner * self.depth * self.inner + r % self.inner
    }

    /// The elements of row `r`.
    fn gathered(&self, values: &[i64], r: usize) -> Vec<i64> {
        (0..self.depth).map(|i| values[self.start(r) + i * self.inner]).collect()
    }

    /// Row of an element, and its place there.
    fn locate(&self, index: usize) -> (usize, usize) {
        let place = index / self.inner % self.depth;
        (index / (self.inner * self.depth) * self.inner + index % self.inner, place)
    }

    /// Applies `f` to every row; rows are computed alone, so their order does not matter.
    fn map(&self, context: &RunContext<'_>, values: &[i64], f: impl Fn(&[i64]) -> Vec<i64> + Sync) -> Vec<i64> {
        let row = |r: usize| f(&self.gathered(values, r));
        let rows = context.engine().map(self.outer * self.inner, row);
        let mut out = vec![0; values.len()];
        for (r, row) in rows.iter().enumerate() {
            row.iter().enumerate().for_each(|(i, &v)| out[self.start(r) + i * self.inner] = v);
        }
        out
    }
}

/// A function from the codes of a row to as many.
pub trait RowFunction: Send + Sync {
    /// The codes of one row.
    fn row<R: Record>(&self, codes: &[i64], record: &mut R) -> Vec<i64>;
}

/// The kernel of a function of rows.
pub struct RowKernel<F> {
    /// Which rows.
    pub rows: Rows,
    /// Bits of the output's codes.
    pub bits: u32,
    /// Whether the output's codes have a sign.
    pub signed: bool,
    /// The function.
    pub function: F,
}

impl<F: RowFunction> Kernel for RowKernel<F> {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        let out = self.rows.map(context, &x.to_i64()?, |row| self.function.row(row, &mut ()));
        Ok([Tensor::new(x.shape(), narrow(&out, self.bits, self.signed))?].into())
    }

    fn explain(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let codes = input(inputs, 0)?.to_i64()?;
        let (r, element) = self.rows.locate(place.index);
        let row = self.rows.gathered(&codes, r);
        let mut trail = Trail { element, ..Trail::default() };
        let mut explanation = Explanation::default();
        explanation.add("elements of the row", row.len());
        trail.trace.add("input", "x in the row", elided(&row));
        trail.trace.add("input", format!("x, element {element} of the row"), row[element]);
        let code = self.function.row(&row, &mut trail)[element];
        explanation.trace = trail.trace.end(code);
        Ok(explanation)
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
