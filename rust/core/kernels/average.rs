//! Means of reals over windows of NHWC codes, in float32.

use super::code::{Code, Code8};
use super::isa::{Engine, multiversion};
use super::pool::fold_line;
use super::scratch::{Scratch, at_least};
use super::shape::PoolShape;

/// How codes become reals, and their mean a code.
#[derive(Debug, Clone, Copy)]
pub struct FloatAverage {
    /// Scale and zero point of the input.
    pub x: (f32, i32),
    /// Scale and zero point of the output.
    pub y: (f32, i32),
    /// Least and largest code of the output.
    pub bounds: (i32, i32),
}

impl FloatAverage {
    /// The real of a code.
    #[inline(always)]
    pub fn real(&self, code: i32) -> f32 {
        self.x.0 * (code - self.x.1) as f32
    }

    /// Mean, and mean in steps of the output with its zero point.
    #[inline(always)]
    pub fn scaled(&self, sum: f32, count: f32) -> (f32, f32) {
        let mean = sum / count;
        (mean, mean / self.y.0 + self.y.1 as f32)
    }

    /// The nearest code, ties to even; zero for what is no number, if the bounds hold it.
    #[inline(always)]
    pub fn code(&self, scaled: f32) -> i32 {
        (scaled.round_ties_even() as i32).clamp(self.bounds.0, self.bounds.1)
    }
}

/// Means over each window: the reals of its codes are summed from first to last and divided by the window's entry of `counts`,
/// of which there is one for each pixel of an output image. Panics where lengths disagree or [`PoolShape::validate`] fails.
pub fn float_average<X: Code8, Y: Code>(
    engine: Engine<'_>,
    shape: &PoolShape,
    average: &FloatAverage,
    counts: &[i32],
    x: &[X],
    out: &mut [Y],
) {
    assert!(shape.validate().is_ok(), "a valid shape");
    assert!(x.len() == shape.input_len() && out.len() == shape.output_len(), "tensors and their shapes");
    let [height, width] = shape.output;
    assert_eq!(counts.len(), height * width, "one count for each pixel of an output image");
    let image = shape.input[0] * shape.input[1] * shape.channels;
    engine.for_each_chunk(out, width * shape.channels, |i, out| {
        Scratch::with(|scratch| {
            let sums = at_least(&mut scratch.reals, out.len());
            let (x, y, simd) = (&x[i / height * image..][..image], i % height, engine.simd());
            sum(simd, shape, average, x, y, sums);
            finish(simd, average, &counts[y * width..][..width], sums, out);
        });
    });
}

multiversion! {
    fn sum<X: Code8>(simd: Simd, shape: &PoolShape, average: &FloatAverage, x: &[X], y: usize, sums: &mut [f32]) {
        sums.fill(0.0);
        fold_line(shape, x, y, sums, |sums, x, _| {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += average.real(x.to_i32()));
        });
    }
}

multiversion! {
    fn finish<Y: Code>(simd: Simd, average: &FloatAverage, counts: &[i32], sums: &[f32], out: &mut [Y]) {
        let channels = out.len() / counts.len().max(1);
        let pixels = sums.chunks_exact(channels.max(1)).zip(out.chunks_exact_mut(channels.max(1)));
        for ((sums, out), &count) in pixels.zip(counts) {
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out = Y::wrap32(average.code(average.scaled(sum, count as f32).1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::window_counts;
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    fn check<X: Code8>(shape: &PoolShape, average: &FloatAverage) {
        let x = Random::new(9).codes::<X>(shape.input_len());
        for include_pad in [false, true] {
            let counts: Vec<i32> = window_counts(shape, include_pad).into_iter().map(|n| n as i32).collect();
            let expected: Vec<u8> = reference::float_average(shape, average, &counts, &x);
            on_every_engine(|engine| {
                let mut out = vec![0u8; shape.output_len()];
                float_average(engine, shape, average, &counts, &x, &mut out);
                assert!(out == expected, "{shape:?} {:?} {} threads", engine.simd(), engine.threads());
            });
        }
    }

    #[test]
    fn equals_its_twin_on_ties_and_at_the_bounds() {
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
        let pairs = PoolShape { kernel: [1, 2], output: [4, 4], pads: [0; 4], ..base };
        for shape in [base, pairs, PoolShape { dilation: [2, 1], ..base }, PoolShape::global(3, [5, 6], 3)] {
            // Means of two codes are ties where the scales are one; larger scales leave the bounds.
            for average in [
                FloatAverage { x: (1.0, 3), y: (1.0, 7), bounds: (0, 255) },
                FloatAverage { x: (0.037, 128), y: (0.011, 100), bounds: (20, 240) },
                FloatAverage { x: (3e38, 128), y: (0.5, 100), bounds: (1, 255) },
            ] {
                check::<u8>(&shape, &average);
                check::<i8>(&shape, &average);
            }
        }
    }
}
