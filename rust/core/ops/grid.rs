//! Picking elements by one index per dimension: padding and nearest-neighbour resizing.

use super::RunContext;
use super::element::Element;
use super::parallel::{fill, whole_rows};
use crate::tensor::{Elements, Shape, strides};

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

/// Which elements of a tensor to pick.
pub struct Picks {
    shape: Vec<usize>,
    sources: Sources,
    /// Axes that do not stay as they are, and elements of the others behind them, which are moved together.
    moved: usize,
    size: usize,
    steps: Vec<usize>,
    /// Those of the last axis that is moved.
    runs: Vec<Run>,
}

impl Picks {
    /// Picks `sources` of a tensor of `shape`.
    pub fn new(shape: Vec<usize>, sources: Sources) -> Picks {
        let stays = |a: usize| sources[a].iter().copied().eq((0..shape[a]).map(Some));
        let moved = (0..shape.len()).rev().find(|&a| !stays(a)).map_or(0, |a| a + 1);
        let size = shape[moved..].iter().product();
        let runs = sources[..moved].last().map(|columns| runs(columns)).unwrap_or_default();
        Picks { moved, size, steps: strides(&shape), runs, shape, sources }
    }

    /// Shape of the input.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Shape of the output.
    pub fn output(&self) -> Shape {
        self.sources.iter().map(Vec::len).collect()
    }

    /// The elements that are picked of `x`; `value` where a dimension has none.
    pub fn of<T: Element>(&self, context: &RunContext<'_>, x: &[T], value: T) -> Elements<T> {
        let Picks { sources, size, steps, runs, .. } = self;
        let mut y = context.output(0, sources.iter().map(Vec::len).product());
        if y.is_empty() {
            return y;
        }
        let Some((columns, outer)) = sources[..self.moved].split_last() else {
            y.copy_from_slice(x);
            return y;
        };
        let row = columns.len() * size;
        fill(context.engine(), &mut y, whole_rows(row), |start, part| {
            for (r, line) in part.chunks_exact_mut(row).enumerate() {
                let mut rest = start / row + r;
                let mut base = Some(0);
                for (source, &step) in outer.iter().zip(steps).rev() {
                    base = base.zip(source[rest % source.len()]).map(|(b, s)| b + s * step);
                    rest /= source.len();
                }
                let mut filled = 0;
                if let Some(base) = base {
                    for run in runs {
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
}
