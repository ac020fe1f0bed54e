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
        let view = self.merged();
        fill(engine, out, CHUNK, |start, part| view.read(input, start, part, |v| v));
    }

    /// Index in the input of element `position`.
    pub fn index(&self, position: usize) -> usize {
        let (mut rest, mut index) = (position, self.offset as isize);
        for (&d, &s) in self.dims.iter().zip(&self.strides).rev() {
            index += (rest % d) as isize * s;
            rest /= d;
        }
        index as usize
    }

    /// Element `start` of the view and those behind it after `convert`; faster for views that are merged.
    pub fn read<T: Copy, U: Copy>(&self, input: &[T], start: usize, out: &mut [U], convert: impl Fn(T) -> U) {
        let (Some((&row, outer)), Some((&step, outer_strides))) = (self.dims.split_last(), self.strides.split_last())
        else {
            return out.fill(convert(input[self.offset]));
        };
        let mut at = 0;
        while at < out.len() {
            let (mut rest, column) = ((start + at) / row, (start + at) % row);
            let mut base = self.offset as isize + column as isize * step;
            for (&d, &s) in outer.iter().zip(outer_strides).rev() {
                base += (rest % d) as isize * s;
                rest /= d;
            }
            let n = (row - column).min(out.len() - at);
            let run = &mut out[at..at + n];
            match step {
                1 => run.iter_mut().zip(&input[base as usize..base as usize + n]).for_each(|(o, &v)| *o = convert(v)),
                0 => run.fill(convert(input[base as usize])),
                _ => {
                    for (t, o) in run.iter_mut().enumerate() {
                        *o = convert(input[(base + t as isize * step) as usize]);
                    }
                }
            }
            at += n;
        }
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
        let transpose = View::new(&[4, 2, 3], &[1, 12, 4], 0);
        assert_eq!(transpose.copy(Engine::of_team(&team), &input)[..7], [0, 4, 8, 12, 16, 20, 1]);
        let backwards = View::new(&[3], &[-2], 5);
        assert_eq!(backwards.copy(Engine::of_team(&team), &input), [5, 3, 1]);
        let repeated = View::new(&[2, 2], &[0, 1], 3);
        assert_eq!(repeated.copy(Engine::of_team(&team), &input), [3, 4, 3, 4]);
        let point = View::new(&[1, 1], &[7, 9], 3);
        assert_eq!(point.copy(Engine::of_team(&team), &input), [3]);
        let dense = View::new(&[2, 3, 4], &[12, 4, 1], 0);
        assert_eq!(dense.merged().dims[..], [24]);
    }
}
