//! Axes: negative ones count from the back.

use super::Facts;
use crate::error::Result;

/// An axis in `-rank..rank` as an index.
pub fn normalize(facts: &Facts<'_>, axis: i64, rank: usize) -> Result<usize> {
    usize::try_from(if axis < 0 { axis.saturating_add(rank as i64) } else { axis })
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| facts.invalid(format!("axis {axis} is outside a tensor of rank {rank}")))
}

/// As [`normalize`] for a place between axes: `rank` itself is allowed.
pub fn normalize_split(facts: &Facts<'_>, axis: i64, rank: usize) -> Result<usize> {
    if usize::try_from(axis).is_ok_and(|a| a == rank) { Ok(rank) } else { normalize(facts, axis, rank) }
}

/// A list of axes in order of the caller; an error where one occurs twice.
pub fn normalize_all(facts: &Facts<'_>, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut out = Vec::with_capacity(axes.len().min(rank));
    for &axis in axes {
        let a = normalize(facts, axis, rank)?;
        if out.contains(&a) {
            return Err(facts.invalid(format!("axis {axis} occurs twice")));
        }
        out.push(a);
    }
    Ok(out)
}

/// The products of the dimensions before, at and after `axis`.
pub fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}
