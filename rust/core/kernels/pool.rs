//! Windows over NHWC codes: maxima, sums and counts.

use super::code::Code;
use super::isa::{Engine, Simd, multiversion};
use super::shape::PoolShape;
use super::wide::Accumulator;

/// Largest code of each window; padding does not take part. Panics where lengths disagree or
/// [`PoolShape::validate`] fails.
pub fn max_pool<T: Code>(engine: Engine<'_>, shape: &PoolShape, x: &[T], out: &mut [T]) {
    fold(engine, shape, x, out, maxima);
}

/// Sum of the codes of each window; padding does not take part, and [`window_counts`] says how many did. Sums are
/// modulo the width of `A`.
pub fn window_sum<A: Accumulator, T: Code>(engine: Engine<'_>, shape: &PoolShape, x: &[T], out: &mut [A]) {
    fold(engine, shape, x, out, sums);
}

/// The sums of [`window_sum`] from element `start` of the output on. Panics where lengths disagree.
pub fn window_sum_from<A: Accumulator, T: Code>(simd: Simd, shape: &PoolShape, x: &[T], start: usize, out: &mut [A]) {
    assert!(x.len() == shape.input_len() && start + out.len() <= shape.output_len(), "tensors and their shapes");
    sums_from(simd, shape, x, start, out);
}

/// Elements of each window, one number per output row and column of an image: those that meet the input, or with
/// `include_pad` also those in the declared padding (what lies beyond it, as `ceil_mode` may reach, never counts).
pub fn window_counts(shape: &PoolShape, include_pad: bool) -> Vec<usize> {
    let count = |axis: usize, at: usize| {
        if include_pad { shape.padded_count(axis, at) } else { shape.span(axis, at).len() }
    };
    let [height, width] = shape.output;
    (0..height * width).map(|i| count(0, i / width) * count(1, i % width)).collect()
}

/// Calls `line(simd, shape, image's x, y, out)` for each line of outputs.
pub(crate) fn fold<T: Copy + Sync, A: Copy + Send>(
    engine: Engine<'_>,
    shape: &PoolShape,
    x: &[T],
    out: &mut [A],
    line: impl Fn(Simd, &PoolShape, &[T], usize, &mut [A]) + Sync + Send,
) {
    assert!(shape.validate().is_ok(), "a valid shape");
    assert!(x.len() == shape.input_len() && out.len() == shape.output_len(), "tensors and their shapes");
    let [height, width] = shape.output;
    let image = shape.input[0] * shape.input[1] * shape.channels;
    engine.for_each_chunk(out, width * shape.channels, |i, out| {
        line(engine.simd(), shape, &x[i / height * image..][..image], i % height, out);
    });
}

/// Calls `step(acc, pixel, is_first)` for the pixels of the windows of one line of outputs, in the order (ky, kx).
#[inline(always)]
pub(crate) fn fold_line<T: Copy, A: Copy>(
    shape: &PoolShape,
    x: &[T],
    y: usize,
    out: &mut [A],
    step: impl Fn(&mut [A], &[T], bool),
) {
    let channels = shape.channels;
    for (x_at, acc) in out.chunks_exact_mut(channels).enumerate() {
        let mut first = true;
        for ky in shape.span(0, y) {
            let iy = y * shape.stride[0] + ky * shape.dilation[0] - shape.pads[0];
            for kx in shape.span(1, x_at) {
                let ix = x_at * shape.stride[1] + kx * shape.dilation[1] - shape.pads[1];
                step(acc, &x[(iy * shape.input[1] + ix) * channels..][..channels], first);
                first = false;
            }
        }
    }
}

multiversion! {
    fn maxima<T: Code>(simd: Simd, shape: &PoolShape, x: &[T], y: usize, out: &mut [T]) {
        for (at, out) in out.chunks_exact_mut(shape.channels).enumerate() {
            let window = Window { shape, x, y, at };
            // Pieces of fixed length stay in registers until the window ends.
            let done = window.pieces::<64>(0, out);
            let done = window.pieces::<16>(done, out);
            let done = window.pieces::<4>(done, out);
            window.pieces::<1>(done, out);
        }
    }
}

/// The window of one pixel of outputs.
struct Window<'a, T> {
    shape: &'a PoolShape,
    x: &'a [T],
    y: usize,
    at: usize,
}

impl<T: Code> Window<'_, T> {
    /// The maxima of as many pieces of `P` channels from `first` on as there are; gives the channel behind them.
    #[inline(always)]
    fn pieces<const P: usize>(&self, first: usize, out: &mut [T]) -> usize {
        let PoolShape { channels, stride, dilation, pads, input, .. } = *self.shape;
        let (rows, columns) = (self.shape.span(0, self.y), self.shape.span(1, self.at));
        let mut channel = first;
        while channel + P <= channels {
            let mut most = [T::wrap(T::MIN); P];
            for ky in rows.clone() {
                let line = (self.y * stride[0] + ky * dilation[0] - pads[0]) * input[1];
                for kx in columns.clone() {
                    let pixel = line + self.at * stride[1] + kx * dilation[1] - pads[1];
                    let x: &[T; P] = self.x[pixel * channels + channel..][..P].try_into().expect("of this length");
                    most.iter_mut().zip(x).for_each(|(m, &x)| *m = (*m).max(x));
                }
            }
            out[channel..channel + P].copy_from_slice(&most);
            channel += P;
        }
        channel
    }
}

multiversion! {
    fn sums<A: Accumulator, T: Code>(simd: Simd, shape: &PoolShape, x: &[T], y: usize, out: &mut [A]) {
        fold_line(shape, x, y, out, |acc, x, first| {
            if first {
                acc.fill(A::default());
            }
            acc.iter_mut().zip(x).for_each(|(a, x)| *a = a.mac(x.to_i32(), 1));
        });
    }
}

multiversion! {
    fn sums_from<A: Accumulator, T: Code>(simd: Simd, shape: &PoolShape, x: &[T], start: usize, out: &mut [A]) {
        let ([height, width], channels) = (shape.output, shape.channels);
        out.fill(A::default());
        let mut at = 0;
        while at < out.len() {
            let (pixel, channel) = ((start + at) / channels, (start + at) % channels);
            let (image, y, x_at) = (pixel / (height * width), pixel / width % height, pixel % width);
            let run = (channels - channel).min(out.len() - at);
            for ky in shape.span(0, y) {
                let iy = image * shape.input[0] + y * shape.stride[0] + ky * shape.dilation[0] - shape.pads[0];
                for kx in shape.span(1, x_at) {
                    let ix = x_at * shape.stride[1] + kx * shape.dilation[1] - shape.pads[1];
                    let codes = &x[(iy * shape.input[1] + ix) * channels + channel..][..run];
                    out[at..at + run].iter_mut().zip(codes).for_each(|(a, x)| *a = a.mac(x.to_i32(), 1));
                }
            }
            at += run;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    fn shapes() -> Vec<PoolShape> {
        let base = PoolShape {
            batch: 2,
            input: [7, 8],
            channels: 37,
            output: [4, 4],
            kernel: [3, 3],
            stride: [2, 2],
            dilation: [1, 1],
            pads: [1, 1, 1, 1],
        };
        vec![
            base,
            PoolShape { pads: [0; 4], output: [3, 4], ..base },
            PoolShape { dilation: [2, 2], output: [3, 3], pads: [1, 1, 1, 0], ..base },
            PoolShape::global(3, [5, 6], 3),
        ]
    }

    fn check<T: Code>(shape: &PoolShape) {
        let x = Random::new(4).codes::<T>(shape.input_len());
        let maxima = reference::max_pool(shape, &x);
        let sums = reference::window_sum(shape, &x);
        on_every_engine(|engine| {
            let mut out = vec![T::default(); shape.output_len()];
            max_pool(engine, shape, &x, &mut out);
            assert!(out == maxima, "{shape:?}");
            let mut out = vec![0i64; shape.output_len()];
            window_sum(engine, shape, &x, &mut out);
            assert!(out == sums, "{shape:?}");
            let mut out = vec![0i32; shape.output_len()];
            window_sum(engine, shape, &x, &mut out);
            assert!(out.iter().zip(&sums).all(|(&a, &b)| i64::from(a) == b), "{shape:?}");
            out.fill(-1);
            for (start, len) in [(0, out.len()), (5, 1), (30, 40), (out.len() - 1, 1)] {
                let part = &mut out[start.min(sums.len())..(start + len).min(sums.len())];
                window_sum_from(engine.simd(), shape, &x, start.min(sums.len()), part);
            }
            assert!(out.iter().zip(&sums).all(|(&a, &b)| i64::from(a) == b), "{shape:?}");
        });
    }

    #[test]
    fn equal_their_twins_for_every_type() {
        for shape in shapes() {
            check::<u8>(&shape);
            check::<i8>(&shape);
            check::<u16>(&shape);
            check::<i16>(&shape);
        }
    }

    #[test]
    fn counts_know_padding_and_what_lies_beyond() {
        // Two windows of three over four elements and one of padding at either end; the third reaches past the padding.
        let shape = PoolShape {
            batch: 1,
            input: [1, 4],
            channels: 1,
            output: [1, 3],
            kernel: [1, 3],
            stride: [1, 2],
            dilation: [1, 1],
            pads: [0, 1, 0, 1],
        };
        assert_eq!(window_counts(&shape, false), [2, 3, 1]);
        assert_eq!(window_counts(&shape, true), [3, 3, 2]);
    }
}
