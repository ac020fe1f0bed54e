//! Slice: attributes before opset 10, inputs from then on. Moves any type.

use super::transpose::move_kernel;
use super::{Facts, Inferred, Kernel, Op, axis, signature};
use crate::error::Result;
use crate::tensor::View;

/// Slice.
pub struct Slice;

fn list(facts: &Facts<'_>, name: &str, i: usize) -> Result<Option<Vec<i64>>> {
    signature::ints_by_opset(facts, name, i, 10)
}

fn view(facts: &Facts<'_>) -> Result<View> {
    let shape = &facts.input(0)?.shape;
    let missing = |name: &str| facts.invalid(format!("'{name}' is missing"));
    let starts = list(facts, "starts", 1)?.ok_or_else(|| missing("starts"))?;
    let ends = list(facts, "ends", 2)?.ok_or_else(|| missing("ends"))?;
    let axes = list(facts, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = if facts.opset < 10 { None } else { list(facts, "steps", 4)? };
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
        return Err(facts.invalid("starts, ends, axes and steps have different lengths"));
    }
    let axes = axis::normalize_all(facts, &axes, shape.len())?;
    let mut view = View::dense(shape);
    for (((&a, &start), &end), &step) in axes.iter().zip(&starts).zip(&ends).zip(&steps) {
        let (start, count) =
            range(shape[a] as i64, start, end, step).ok_or_else(|| facts.invalid("a step of 0 goes nowhere"))?;
        view.dims[a] = count;
        view.offset += start * view.strides[a].unsigned_abs();
        // A step beyond the dimension takes one element: its size is of no account.
        view.strides[a] = if count > 1 { view.strides[a] * step as isize } else { 0 };
    }
    if view.dims.contains(&0) {
        view.offset = 0;
    }
    Ok(view)
}

/// First index and number of elements of `start..end` by `step` in a dimension of `size`, as in Python: negative
/// indices count from the back and both are clamped. `None` for a step of 0.
pub fn range(size: i64, start: i64, end: i64, step: i64) -> Option<(usize, usize)> {
    let from_back = |i: i64| if i < 0 { i.saturating_add(size) } else { i };
    let (start, end) = (from_back(start), from_back(end));
    let count = match step {
        0 => return None,
        1.. => {
            let (start, end) = (start.clamp(0, size), end.clamp(0, size));
            return Some((start as usize, (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as usize));
        }
        _ => (start.clamp(-1, size - 1), end.clamp(-1, size - 1)),
    };
    let (start, end) = count;
    Some((start.max(0) as usize, (start - end).max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as usize))
}

impl Op for Slice {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let (inputs, attributes): (_, &[&str]) =
            if facts.opset < 10 { (1..=1, &["starts", "ends", "axes"]) } else { (3..=5, &[]) };
        signature::check(facts, inputs, 1..=1, attributes)?;
        Ok(vec![(facts.input(0)?.dtype, view(facts)?.dims.into_vec())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let view = view(facts)?;
        let out = view.dims.clone();
        move_kernel(facts.input(0)?.shape.clone(), view, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_python() {
        for size in 0..5i64 {
            for start in -7..7i64 {
                for end in -7..7i64 {
                    for step in [-6, -2, -1, 1, 2, 6] {
                        let (s, n) = range(size, start, end, step).unwrap();
                        let fix = |i: i64, lo: i64, hi: i64| (if i < 0 { i + size } else { i }).clamp(lo, hi);
                        let (lo, hi) = if step > 0 { (0, size) } else { (-1, size - 1) };
                        let (mut i, stop) = (fix(start, lo, hi), fix(end, lo, hi));
                        let mut expected = Vec::new();
                        while if step > 0 { i < stop } else { i > stop } {
                            expected.push(i);
                            i += step;
                        }
                        let got: Vec<i64> = (0..n as i64).map(|k| s as i64 + k * step).collect();
                        assert_eq!(got, expected, "{size} {start} {end} {step}");
                    }
                }
            }
        }
        assert_eq!(range(4, i64::MAX, i64::MIN, -1), Some((3, 4)));
        assert_eq!(range(4, 0, 4, 0), None);
    }
}
