//! Reductions over axes. Reals are folded in row-major order in f64 and rounded once; integers are folded exactly and
//! wrap at the end.

use super::closure::{kernel, shaped};
use super::element::{Element, Integer, Real, by_class};
use super::parallel::fill;
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::View;
use crate::tensor::{DType, Data, Tensor};
use std::cmp::Ordering;

/// What is computed of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// The sum.
    Sum,
    /// The sum divided by the count; integers truncate.
    Mean,
    /// The largest; NaN wins.
    Max,
    /// The smallest; NaN wins.
    Min,
    /// The product.
    Prod,
    /// The sum of absolute values.
    L1,
    /// The root of the sum of squares.
    L2,
    /// The sum of squares.
    SumSquare,
    /// The logarithm of the sum.
    LogSum,
    /// The logarithm of the sum of exponentials.
    LogSumExp,
}

/// Which dimensions go, and what remains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReducePlan {
    /// Shape of the input.
    pub input: Vec<usize>,
    /// Reduced axes, ascending.
    pub axes: Vec<usize>,
    /// Shape of the output.
    pub output: Vec<usize>,
    /// Elements per sum.
    pub count: usize,
}

impl Reduce {
    /// First opset in which the axes are an input.
    fn axes_input_from(self) -> i64 {
        if self == Reduce::Sum { 13 } else { 18 }
    }

    /// Reads and checks a node.
    pub fn plan(self, facts: &Facts<'_>) -> Result<ReducePlan> {
        let shape = &facts.input(0)?.shape;
        let given = signature::ints_by_opset(facts, "axes", 1, self.axes_input_from())?.unwrap_or_default();
        let mut axes = axis::normalize_all(facts, &given, shape.len())?;
        if given.is_empty() && !signature::flag(facts, "noop_with_empty_axes", false)? {
            axes = (0..shape.len()).collect();
        }
        axes.sort_unstable();
        let keep = signature::flag(facts, "keepdims", true)?;
        let mut output = Vec::with_capacity(shape.len());
        for (i, &d) in shape.iter().enumerate() {
            match axes.contains(&i) {
                false => output.push(d),
                true if keep => output.push(1),
                true => {}
            }
        }
        let count = axes.iter().map(|&a| shape[a]).product();
        Ok(ReducePlan { input: shape.clone(), axes, output, count })
    }

    fn reals(self, row: &[f64]) -> f64 {
        let sum = |f: fn(f64) -> f64| row.iter().map(|&x| f(x)).sum::<f64>();
        let extreme = |first: f64, better: fn(f64, f64) -> bool| {
            row.iter().fold(first, |m, &x| if x.is_nan() || better(x, m) { x } else { m })
        };
        match self {
            // An empty sum is +0.
            Reduce::Sum => 0.0 + sum(|x| x),
            Reduce::Mean => sum(|x| x) / row.len() as f64,
            Reduce::Max => extreme(f64::NEG_INFINITY, |x, m| x > m),
            Reduce::Min => extreme(f64::INFINITY, |x, m| x < m),
            Reduce::Prod => row.iter().product(),
            Reduce::L1 => 0.0 + sum(f64::abs),
            Reduce::L2 => (0.0 + sum(|x| x * x)).sqrt(),
            Reduce::SumSquare => 0.0 + sum(|x| x * x),
            Reduce::LogSum => libm::log(0.0 + sum(|x| x)),
            Reduce::LogSumExp => {
                let max = extreme(f64::NEG_INFINITY, |x, m| x > m);
                if max.is_infinite() {
                    return max;
                }
                max + libm::log(row.iter().map(|&x| libm::exp(x - max)).sum::<f64>())
            }
        }
    }

    /// `limits` are the smallest and largest value of the type.
    fn integers(self, row: impl Iterator<Item = i128>, count: usize, limits: (i128, i128)) -> i128 {
        match self {
            Reduce::Max => row.max().unwrap_or(limits.0),
            Reduce::Min => row.min().unwrap_or(limits.1),
            Reduce::Prod => row.fold(1, i128::wrapping_mul),
            Reduce::Mean => row.sum::<i128>() / (count.max(1) as i128),
            Reduce::L1 => row.map(i128::abs).sum(),
            Reduce::L2 => libm::sqrt(row.map(|x| (x as f64) * (x as f64)).sum()) as i128,
            Reduce::SumSquare => row.fold(0, |s, x| s.wrapping_add(x.wrapping_mul(x))),
            Reduce::Sum => row.sum(),
            Reduce::LogSum => libm::log(row.sum::<i128>() as f64) as i128,
            Reduce::LogSumExp => libm::log(row.map(|x| libm::exp(x as f64)).sum()) as i128,
        }
    }
}

impl Op for Reduce {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let (inputs, attributes): (_, &[&str]) = if facts.opset < self.axes_input_from() {
            (1..=1, &["axes", "keepdims"])
        } else {
            (1..=2, &["keepdims", "noop_with_empty_axes"])
        };
        signature::check(facts, inputs, 1..=1, attributes)?;
        let x = facts.input(0)?;
        let boolean = x.dtype == DType::Bool;
        if boolean && !(matches!(self, Reduce::Max | Reduce::Min) && facts.opset >= 20) {
            return Err(facts.invalid("booleans are not reduced here"));
        }
        Ok(vec![(x.dtype, self.plan(facts)?.output)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn reals<T: Real>(engine: Engine<'_>, rows: &[T], plan: &ReducePlan, op: Reduce) -> Data {
            T::wrap(each_row(engine, rows, plan, |row| {
                let row: Vec<f64> = row.iter().map(|x| x.to_f64()).collect();
                T::from_f64(op.reals(&row))
            }))
        }
        fn integers<T: Integer>(engine: Engine<'_>, rows: &[T], plan: &ReducePlan, op: Reduce) -> Data {
            let bits = 8 * T::DTYPE.size();
            let signed = T::wrapping_from(-1).to_i128() < 0;
            let limits = if signed { (-1i128 << (bits - 1), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
            T::wrap(each_row(engine, rows, plan, |row| {
                T::wrapping_from(op.integers(row.iter().map(|x| x.to_i128()), row.len(), limits))
            }))
        }
        let (op, plan) = (*self, self.plan(facts)?);
        kernel(move |context, inputs| {
            let x = shaped(inputs, 0, &plan.input)?;
            let data = by_class!(x.data(), v =>
                real reals(context.engine(), &gathered(context.engine(), v, &plan), &plan, op),
                integer integers(context.engine(), &gathered(context.engine(), v, &plan), &plan, op),
                boolean {
                    let rows = gathered(context.engine(), v, &plan);
                    Data::Bool(match op {
                        Reduce::Max => each_row(context.engine(), &rows, &plan, |row| row.contains(&true)).into(),
                        Reduce::Min => each_row(context.engine(), &rows, &plan, |row| !row.contains(&false)).into(),
                        _ => return Err(Error::invalid("tensor_dtype", "booleans have no arithmetic")),
                    })
                },
            );
            Ok([Tensor::new(plan.output.clone(), data)?].into())
        })
    }
}

/// The elements with the reduced axes innermost: each row is one reduction.
pub fn gathered<'a, T: Copy + Default + Send + Sync>(
    engine: Engine<'_>,
    x: &'a [T],
    plan: &ReducePlan,
) -> std::borrow::Cow<'a, [T]> {
    let kept = (0..plan.input.len()).filter(|i| !plan.axes.contains(i));
    let permutation: Vec<usize> = kept.chain(plan.axes.iter().copied()).collect();
    if permutation.is_sorted() { x.into() } else { View::permuted(&plan.input, &permutation).copy(engine, x).into() }
}

fn each_row<T: Element, O: Copy + Default + Send>(
    engine: Engine<'_>,
    rows: &[T],
    plan: &ReducePlan,
    f: impl Fn(&[T]) -> O + Sync,
) -> Vec<O> {
    let mut y = vec![O::default(); plan.output.iter().product()];
    fill(engine, &mut y, (1 << 14) / plan.count.clamp(1, 1 << 14), |start, part| {
        for (i, o) in part.iter_mut().enumerate() {
            *o = f(&rows[(start + i) * plan.count..][..plan.count]);
        }
    });
    y
}

/// ArgMax and ArgMin: the index of the extreme element along an axis, as int64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgExtreme {
    /// Whether the largest is sought.
    pub largest: bool,
}

impl ArgExtreme {
    fn plan(facts: &Facts<'_>) -> Result<ReducePlan> {
        let shape = &facts.input(0)?.shape;
        let axis = axis::normalize(facts, facts.node.int("axis", 0)?, shape.len())?;
        let mut output = shape.clone();
        match signature::flag(facts, "keepdims", true)? {
            true => output[axis] = 1,
            false => {
                output.remove(axis);
            }
        }
        if shape[axis] == 0 {
            return Err(facts.invalid(format!("axis {axis} of {shape:?} has no elements")));
        }
        Ok(ReducePlan { input: shape.clone(), axes: vec![axis], output, count: shape[axis] })
    }
}

impl Op for ArgExtreme {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes: &[&str] =
            if facts.opset < 12 { &["axis", "keepdims"] } else { &["axis", "keepdims", "select_last_index"] };
        signature::check(facts, 1..=1, 1..=1, attributes)?;
        signature::flag(facts, "select_last_index", false)?;
        if facts.input(0)?.dtype == DType::Bool {
            return Err(facts.invalid("booleans are not compared here"));
        }
        Ok(vec![(DType::I64, Self::plan(facts)?.output)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (largest, plan) = (self.largest, Self::plan(facts)?);
        let last = signature::flag(facts, "select_last_index", false)?;
        let wanted = if largest { Ordering::Greater } else { Ordering::Less };
        kernel(move |context, inputs| {
            fn extreme<T: Element>(row: &[T], wanted: Ordering, last: bool) -> i64 {
                let mut best = 0;
                for (i, x) in row.iter().enumerate().skip(1) {
                    let order = x.partial_cmp(&row[best]);
                    if order == Some(wanted) || (last && order == Some(Ordering::Equal)) {
                        best = i;
                    }
                }
                best as i64
            }
            let x = shaped(inputs, 0, &plan.input)?;
            let indices = crate::with_data!(x.data(), v => {
                let rows = gathered(context.engine(), v, &plan);
                each_row(context.engine(), &rows, &plan, |row| extreme(row, wanted, last))
            });
            Ok([Tensor::new(plan.output.clone(), Data::I64(indices.into()))?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_rows_give_the_neutral_element() {
        assert_eq!(Reduce::Sum.reals(&[]), 0.0);
        assert_eq!(Reduce::Prod.reals(&[]), 1.0);
        assert_eq!(Reduce::Max.reals(&[]), f64::NEG_INFINITY);
        assert_eq!(Reduce::LogSumExp.reals(&[]), f64::NEG_INFINITY);
        assert_eq!(Reduce::Min.integers(std::iter::empty(), 0, (-128, 127)), 127);
        assert!(Reduce::Max.reals(&[1.0, f64::NAN, 2.0]).is_nan());
    }

    #[test]
    fn log_sum_exp_does_not_overflow() {
        assert_eq!(Reduce::LogSumExp.reals(&[1000.0, 1000.0]), 1000.0 + std::f64::consts::LN_2);
    }
}
