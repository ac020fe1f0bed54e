//! Twins of the pools: every window looks at every position and asks whether it lies in the input.

use super::super::average::FloatAverage;
use super::super::code::{Code, Code8};
use super::super::shape::PoolShape;

/// The elements of the window of each output, in the order (ky, kx), padding left out.
pub(crate) fn windows<T: Copy>(shape: &PoolShape, x: &[T]) -> Vec<Vec<T>> {
    let [height, width] = shape.output;
    let mut out = Vec::new();
    for i in 0..shape.output_len() {
        let (c, x_at, y) = (i % shape.channels, i / shape.channels % width, i / shape.channels / width % height);
        let image = i / shape.channels / width / height;
        let mut window = Vec::new();
        for ky in 0..shape.kernel[0] {
            for kx in 0..shape.kernel[1] {
                let iy = (y * shape.stride[0] + ky * shape.dilation[0]) as isize - shape.pads[0] as isize;
                let ix = (x_at * shape.stride[1] + kx * shape.dilation[1]) as isize - shape.pads[1] as isize;
                if (0..shape.input[0] as isize).contains(&iy) && (0..shape.input[1] as isize).contains(&ix) {
                    let pixel = (image * shape.input[0] + iy as usize) * shape.input[1] + ix as usize;
                    window.push(x[pixel * shape.channels + c]);
                }
            }
        }
        out.push(window);
    }
    out
}

/// Largest code of each window.
pub fn max_pool<T: Code>(shape: &PoolShape, x: &[T]) -> Vec<T> {
    windows(shape, x).into_iter().map(|w| w.into_iter().max().unwrap_or_default()).collect()
}

/// Sum of the codes of each window.
pub fn window_sum<T: Code>(shape: &PoolShape, x: &[T]) -> Vec<i64> {
    windows(shape, x).into_iter().map(|w| w.into_iter().map(|v| i64::from(v.to_i32())).sum()).collect()
}

/// See [`super::super::float_average`].
pub fn float_average<X: Code8, Y: Code>(
    shape: &PoolShape,
    FloatAverage { x: (x_scale, x_zero), y: (y_scale, y_zero), bounds }: &FloatAverage,
    counts: &[i32],
    x: &[X],
) -> Vec<Y> {
    let mean = |(i, window): (usize, Vec<X>)| {
        let sum = window.into_iter().fold(0f32, |sum, code| sum + x_scale * (code.to_i32() - x_zero) as f32);
        let scaled = sum / counts[i / shape.channels % counts.len()] as f32 / y_scale + *y_zero as f32;
        let floor = scaled.floor();
        let up = scaled - floor > 0.5 || (scaled - floor == 0.5 && floor % 2.0 != 0.0);
        let code = if scaled.is_nan() { 0.0 } else { floor + f32::from(up) };
        Y::wrap(f64::from(code).clamp(bounds.0.into(), bounds.1.into()) as i64)
    };
    windows(shape, x).into_iter().enumerate().map(mean).collect()
}
