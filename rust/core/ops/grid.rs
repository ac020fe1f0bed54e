//! Picking elements by one index per dimension: padding and nearest-neighbour resizing.

use super::element::Element;
use super::parallel::{fill, whole_rows};
use crate::tensor::strides;

/// For each dimension and each index of the output, the index in the input; `None` holds the fill value.
pub type Sources = Vec<Vec<Option<usize>>>;

/// The tensor of shape `shape` whose elements `sources` picks; `value` where a dimension has none.
pub fn pick<T: Element>(pool: &rayon::ThreadPool, shape: &[usize], sources: &Sources, x: &[T], value: T) -> Vec<T> {
    let Some((columns, outer)) = sources.split_last() else {
        return x.to_vec();
    };
    let row = columns.len();
    let mut y = vec![value; sources.iter().map(Vec::len).product()];
    if y.is_empty() {
        return y;
    }
    let steps = strides(shape);
    fill(pool, &mut y, whole_rows(row), |start, part| {
        for (r, line) in part.chunks_exact_mut(row).enumerate() {
            let mut rest = start / row + r;
            let mut base = Some(0);
            for (source, &step) in outer.iter().zip(&steps).rev() {
                base = base.zip(source[rest % source.len()]).map(|(b, s)| b + s * step);
                rest /= source.len();
            }
            let Some(base) = base else { continue };
            for (o, source) in line.iter_mut().zip(columns) {
                if let Some(s) = source {
                    *o = x[base + s];
                }
            }
        }
    });
    y
}
