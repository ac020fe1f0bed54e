//! CumSum and CumProd along an axis. Reals run in f64 and each partial result is rounded once; integers wrap.

use super::closure::{kernel, shaped};
use super::element::{Integer, Real, by_class};
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cumulative {
    /// Sums.
    Sum,
    /// Products.
    Product,
}

/// How a row is walked.
#[derive(Debug, Clone, Copy)]
struct Walk {
    op: Cumulative,
    /// From the last element to the first.
    reverse: bool,
    /// An element does not count for itself.
    exclusive: bool,
}

impl Cumulative {
    fn axis(facts: &Facts<'_>) -> Result<usize> {
        let axis = facts.constant(1)?;
        let list = axis.to_i64().map_err(|e| e.at_node(&facts.node.name, &facts.node.op_type))?;
        let [axis] = list[..] else { return Err(facts.invalid("the axis is no scalar")) };
        axis::normalize(facts, axis, facts.input(0)?.shape.len())
    }
}

/// Calls `step(total, element)` along each line of the axis, and writes totals with `write`.
fn walk<T: Copy, A: Copy>(
    x: &[T],
    (outer, size, inner): (usize, usize, usize),
    walk: Walk,
    start: A,
    step: impl Fn(A, T) -> A,
    write: impl Fn(A) -> T,
) -> Vec<T> {
    let mut y = x.to_vec();
    for line in 0..outer * inner {
        let at = |i: usize| line / inner * size * inner + i * inner + line % inner;
        let mut total = start;
        for i in 0..size {
            let at = at(if walk.reverse { size - 1 - i } else { i });
            let next = step(total, x[at]);
            y[at] = write(if walk.exclusive { total } else { next });
            total = next;
        }
    }
    y
}

fn reals<T: Real>(x: &[T], around: (usize, usize, usize), how: Walk) -> Data {
    let y = match how.op {
        Cumulative::Sum => walk(x, around, how, 0.0, |t, v: T| t + v.to_f64(), T::from_f64),
        Cumulative::Product => walk(x, around, how, 1.0, |t, v: T| t * v.to_f64(), T::from_f64),
    };
    T::wrap(y)
}

fn integers<T: Integer>(x: &[T], around: (usize, usize, usize), how: Walk) -> Data {
    let y = match how.op {
        Cumulative::Sum => walk(x, around, how, 0i128, |t, v: T| t + v.to_i128(), T::wrapping_from),
        Cumulative::Product => {
            walk(x, around, how, 1i128, |t: i128, v: T| t.wrapping_mul(v.to_i128()), T::wrapping_from)
        }
    };
    T::wrap(y)
}

impl Op for Cumulative {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["exclusive", "reverse"])?;
        signature::flag(facts, "exclusive", false)?;
        signature::flag(facts, "reverse", false)?;
        let x = facts.input(0)?;
        if x.dtype == DType::Bool {
            return Err(facts.invalid("booleans have no arithmetic"));
        }
        Self::axis(facts)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let shape = facts.input(0)?.shape.clone();
        let around = axis::around(&shape, Self::axis(facts)?);
        let how = Walk {
            op: *self,
            reverse: signature::flag(facts, "reverse", false)?,
            exclusive: signature::flag(facts, "exclusive", false)?,
        };
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let data = by_class!(x.data(), v =>
                real reals(v, around, how),
                integer integers(v, around, how),
                boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans have no sum", v.len()))),
            );
            Ok([Tensor::new(shape.clone(), data)?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_walked_both_ways() {
        let how = |reverse, exclusive| Walk { op: Cumulative::Sum, reverse, exclusive };
        let x = [1i32, 2, 3, 4, 5, 6];
        let run = |around, how| integers(&x, around, how);
        assert_eq!(run((2, 3, 1), how(false, false)), Data::I32(vec![1, 3, 6, 4, 9, 15].into()));
        assert_eq!(run((2, 3, 1), how(true, true)), Data::I32(vec![5, 3, 0, 11, 6, 0].into()));
        assert_eq!(run((1, 2, 3), how(false, true)), Data::I32(vec![0, 0, 0, 1, 2, 3].into()));
        let product = Walk { op: Cumulative::Product, reverse: false, exclusive: false };
        assert_eq!(integers(&[100i8, 3], (1, 2, 1), product), Data::I8(vec![100, 44].into()));
    }
}
