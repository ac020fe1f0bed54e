//! Picking elements by one index per dimension: padding and nearest-neighbour resizing.

use super::RunContext;
use super::element::Element;
use super::parallel::{fill, whole_rows};
use crate::tensor::{Elements, strides};

/// For each dimension and each index of the output, the index in the input; `None` holds the fill value.
pub type Sources = Vec<Vec<Option<usize>>>;

/// A run of neighbours in the output that are neighbours in the input: first of the output, of the input, and how many.
type Run = [usize; 3];

/// The runs of an axis; what has no source lies between them.
fn runs(sources: &[Option<usize>]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (to, from) in sources.iter().enumerate().filter_map(|(to, from)| Some((to, (*from)?))) {
        match runs.last_mut() {
            Some([first, start, count]) if *first + *count == to && *start + *count == from => *count += 1,
            _ => runs.push([to, from, 1]),
        }
    }
    runs
}

/// The tensor of shape `shape` whose elements `sources` picks; `value` where a dimension has none.
pub fn pick<T: Element>(
    context: &RunContext<'_>,
    shape: &[usize],
    sources: &Sources,
    x: &[T],
    value: T,
) -> Elements<T> {
    // Last axes that stay as they are make up elements of a larger size.
    let stays = |a: usize| sources[a].iter().copied().eq((0..shape[a]).map(Some));
    let moved = (0..shape.len()).rev().find(|&a| !stays(a)).map_or(0, |a| a + 1);
    let size: usize = shape[moved..].iter().product();
    let mut y = context.output(0, sources.iter().map(Vec::len).product());
    if y.is_empty() {
        return y;
    }
    let Some((columns, outer)) = sources[..moved].split_last() else {
        y.copy_from_slice(x);
        return y;
    };
    let row = columns.len() * size;
    let steps = strides(shape);
    let runs = runs(columns);
    fill(context.engine(), &mut y, whole_rows(row), |start, part| {
        for (r, line) in part.chunks_exact_mut(row).enumerate() {
            let mut rest = start / row + r;
            let mut base = Some(0);
            for (source, &step) in outer.iter().zip(&steps).rev() {
                base = base.zip(source[rest % source.len()]).map(|(b, s)| b + s * step);
                rest /= source.len();
            }
            let mut filled = 0;
            if let Some(base) = base {
                for run in &runs {
                    let [to, from, count] = run.map(|v| v * size);
                    line[filled..to].fill(value);
                    line[to..][..count].copy_from_slice(&x[base + from..][..count]);
                    filled = to + count;
                }
            }
            line[filled..].fill(value);
        }
    });
    y
}
