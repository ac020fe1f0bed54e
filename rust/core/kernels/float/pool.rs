//! f32 windows over NHWC tensors.

use super::super::isa::{Engine, multiversion};
use super::super::pool::{fold, fold_line};
use super::super::shape::PoolShape;

/// Largest value of each window, in the order (ky, kx); padding does not take part. A NaN in the window gives NaN.
pub fn max_pool_f32(engine: Engine<'_>, shape: &PoolShape, x: &[f32], out: &mut [f32]) {
    fold(engine, shape, x, out, maxima);
}

/// Sum of the values of each window, in the order (ky, kx) from the first value on; padding does not take part. The
/// average is this divided by [`window_counts`](super::super::window_counts).
pub fn window_sum_f32(engine: Engine<'_>, shape: &PoolShape, x: &[f32], out: &mut [f32]) {
    fold(engine, shape, x, out, sums);
}

multiversion! {
    fn maxima(simd: Simd, shape: &PoolShape, x: &[f32], y: usize, out: &mut [f32]) {
        fold_line(shape, x, y, out, |acc, x, first| {
            if first {
                acc.copy_from_slice(x);
            } else {
                acc.iter_mut().zip(x).for_each(|(a, &x)| *a = if x > *a || x.is_nan() { x } else { *a });
            }
        });
    }
}

multiversion! {
    fn sums(simd: Simd, shape: &PoolShape, x: &[f32], y: usize, out: &mut [f32]) {
        fold_line(shape, x, y, out, |acc, x, first| {
            if first {
                acc.copy_from_slice(x);
            } else {
                acc.iter_mut().zip(x).for_each(|(a, &x)| *a += x);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reference;
    use super::super::super::testing::{Random, on_every_engine};
    use super::*;

    #[test]
    fn equal_their_twins_bit_for_bit() {
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
        for shape in [base, PoolShape::global(2, [5, 6], 19)] {
            let mut x = Random::new(2).floats(shape.input_len());
            x[40] = f32::NAN;
            x[41] = -0.0;
            let (maxima, sums) = (reference::max_pool_f32(&shape, &x), reference::window_sum_f32(&shape, &x));
            on_every_engine(|engine| {
                let same = |out: &[f32], want: &[f32]| {
                    out.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
                };
                let mut out = vec![0.0; shape.output_len()];
                max_pool_f32(engine, &shape, &x, &mut out);
                assert!(same(&out, &maxima) && out.iter().any(|v| v.is_nan()), "{shape:?} {:?}", engine.simd());
                window_sum_f32(engine, &shape, &x, &mut out);
                assert!(same(&out, &sums), "{shape:?} {:?}", engine.simd());
            });
        }
    }
}
