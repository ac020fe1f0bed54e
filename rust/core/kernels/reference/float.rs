//! Twins of the f32 kernels, in the order of summation that they promise.

use super::super::shape::{ConvShape, PoolShape, TransposeShape};
use super::pool::windows;

/// Sum from +0 in the given order by fused multiply-add, then the bias where there is one.
fn sum(products: impl Iterator<Item = (f32, f32)>, bias: Option<&f32>) -> f32 {
    let sum = products.fold(0.0f32, |s, (x, w)| x.mul_add(w, s));
    bias.map_or(sum, |b| sum + b)
}

/// See [`super::super::float::gemm_f32`]; `weights` is row-major `K × N`.
pub fn gemm_f32(a: &[f32], rows: usize, k: usize, n: usize, weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let element = |i: usize| {
        let (r, c) = (i / n, i % n);
        sum((0..k).map(|j| (a[r * k + j], weights[j * n + c])), bias.get(c))
    };
    (0..rows * n).map(element).collect()
}

/// See [`super::super::float::conv2d_f32`]; `weights` are in ONNX's order.
pub fn conv2d_f32(shape: &ConvShape, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let (group_in, group_out, output) = (shape.group_in(), shape.group_out(), shape.output());
    let element = |i: usize| {
        let c = i % shape.out_channels;
        let (image, at) = shape.locate(output, i / shape.out_channels);
        let product = |k: usize| {
            let (tap, channel) = (k / group_in, k % group_in);
            let source = shape.source(image, at, [tap / shape.kernel[1], tap % shape.kernel[1]]);
            let x = source.map_or(0.0, |p| x[p * shape.in_channels + c / group_out * group_in + channel]);
            (x, weights[(c * group_in + channel) * shape.taps() + tap])
        };
        sum((0..shape.depth()).map(product), bias.get(c))
    };
    (0..shape.output_len()).map(element).collect()
}

/// See [`super::super::float::conv_transpose2d_f32`]; `weights` are in ONNX's order.
pub fn conv_transpose2d_f32(shape: &TransposeShape, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let (group_in, group_out) = (shape.group_in(), shape.group_out());
    let taps = shape.kernel[0] * shape.kernel[1];
    let element = |i: usize| {
        let (c, pixel) = (i % shape.out_channels, i / shape.out_channels);
        let (x_at, y) = (pixel % shape.output[1], pixel / shape.output[1] % shape.output[0]);
        let image = pixel / shape.output[1] / shape.output[0];
        let product = |k: usize| {
            let (tap, channel) = (k / group_in, c / group_out * group_in + k % group_in);
            let iy = shape.source(0, y, tap / shape.kernel[1])?;
            let ix = shape.source(1, x_at, tap % shape.kernel[1])?;
            let pixel = (image * shape.input[0] + iy) * shape.input[1] + ix;
            let w = weights[(channel * group_out + c % group_out) * taps + tap];
            Some((x[pixel * shape.in_channels + channel], w))
        };
        sum((0..taps * group_in).filter_map(product), bias.get(c))
    };
    (0..shape.output_len()).map(element).collect()
}

/// See [`super::super::float::max_pool_f32`].
pub fn max_pool_f32(shape: &PoolShape, x: &[f32]) -> Vec<f32> {
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    windows(shape, x).into_iter().map(|w| w.into_iter().reduce(larger).unwrap_or_default()).collect()
}

/// See [`super::super::float::window_sum_f32`].
pub fn window_sum_f32(shape: &PoolShape, x: &[f32]) -> Vec<f32> {
    windows(shape, x).into_iter().map(|w| w.into_iter().reduce(|a, b| a + b).unwrap_or_default()).collect()
}
