//! Copying a strided view of a tensor into a dense one: the one loop behind Transpose, Slice, Expand and their kin.

use super::RunContext;
use super::parallel::{CHUNK, fill};
use crate::kernels::Engine;
use crate::map_data;
use crate::tensor::{Data, View};

impl View {
    /// A dense copy in row-major order.
    pub fn copy<T: Copy + Default + Send + Sync>(&self, engine: Engine<'_>, input: &[T]) -> Vec<T> {
        let mut out = vec![T::default(); self.dims.iter().product()];
        self.copy_to(engine, input, &mut out);
        out
    }

    /// The same of a tensor's elements, as output `i`.
    pub fn output(&self, context: &RunContext<'_>, i: usize, data: &Data) -> Data {
        map_data!(data, v => {
            let mut out = context.output(i, self.dims.iter().product());
            self.copy_to(context.engine(), v, &mut out);
            out
        })
    }

    fn copy_to<T: Copy + Send + Sync>(&self, engine: Engine<'_>, input: &[T], out: &mut [T]) {
        if out.is_empty() {
            return;
        }
        let view = self.merged();
        let (Some((&row, outer)), Some((&step, outer_strides))) = (view.dims.split_last(), view.strides.split_last())
        else {
            return out.fill(input[view.offset]);
        };
        fill(engine, out, CHUNK, |start, part| {
            let mut at = 0;
            while at < part.len() {
                let (mut rest, column) = ((start + at) / row, (start + at) % row);
                let mut base = view.offset as isize + column as isize * step;
                for (&d, &s) in outer.iter().zip(outer_strides).rev() {
                    base += (rest % d) as isize * s;
                    rest /= d;
                }
                let n = (row - column).min(part.len() - at);
                let run = &mut part[at..at + n];
                match step {
                    1 => run.copy_from_slice(&input[base as usize..base as usize + n]),
                    0 => run.fill(input[base as usize]),
                    _ => {
                        for (t, o) in run.iter_mut().enumerate() {
                            *o = input[(base + t as isize * step) as usize];
                        }
                    }
                }
                at += n;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Team;

    #[test]
    fn views_read_what_their_strides_say() {
        let team = Team::new(2);
        let input: Vec<i32> = (0..24).collect();
        let transpose = View { dims: vec![4, 2, 3], strides: vec![1, 12, 4], offset: 0 };
        assert_eq!(transpose.copy(Engine::of_team(&team), &input)[..7], [0, 4, 8, 12, 16, 20, 1]);
        let backwards = View { dims: vec![3], strides: vec![-2], offset: 5 };
        assert_eq!(backwards.copy(Engine::of_team(&team), &input), [5, 3, 1]);
        let repeated = View { dims: vec![2, 2], strides: vec![0, 1], offset: 3 };
        assert_eq!(repeated.copy(Engine::of_team(&team), &input), [3, 4, 3, 4]);
        let point = View { dims: vec![1, 1], strides: vec![7, 9], offset: 3 };
        assert_eq!(point.copy(Engine::of_team(&team), &input), [3]);
        let dense = View { dims: vec![2, 3, 4], strides: vec![12, 4, 1], offset: 0 };
        assert_eq!(dense.merged().dims, [24]);
    }
}
