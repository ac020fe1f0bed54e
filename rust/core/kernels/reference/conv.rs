//! Twins of the 8-bit matrix product and convolution.

use super::super::code::Code;
use super::super::shape::ConvShape;

/// `out[r][c] = init[c] + Σ_k a[r][k]·(w[k][c] - zero_points[c])` modulo 2^32; `weights` is row-major `K × N`, and empty
/// `init` or `zero_points` are zero.
pub fn gemm<X: Code, W: Code>(
    a: &[X],
    rows: usize,
    k: usize,
    n: usize,
    weights: &[W],
    zero_points: &[i32],
    init: &[i32],
) -> Vec<i32> {
    let mut out = Vec::with_capacity(rows * n);
    for r in 0..rows {
        for c in 0..n {
            let mut sum = i64::from(init.get(c).copied().unwrap_or(0));
            for i in 0..k {
                let w = weights[i * n + c].to_i32() - zero_points.get(c).copied().unwrap_or(0);
                sum += i64::from(a[r * k + i].to_i32()) * i64::from(w);
            }
            out.push(sum as i32);
        }
    }
    out
}

/// The sums of a convolution in 64 bits: NHWC input, weights in the order (output channel, input channel of the group,
/// ky, kx), padding read as the code `pad`.
pub fn conv2d<X: Code, W: Code>(
    shape: &ConvShape,
    x: &[X],
    pad: X,
    weights: &[W],
    zero_points: &[i32],
    init: &[i64],
) -> Vec<i64> {
    let [out_h, out_w] = shape.output();
    let (group_in, group_out) = (shape.group_in(), shape.group_out());
    let mut out = Vec::with_capacity(shape.output_len());
    for image in 0..shape.batch {
        for y in 0..out_h {
            for x_at in 0..out_w {
                for c in 0..shape.out_channels {
                    let mut sum = init.get(c).copied().unwrap_or(0);
                    for i in 0..group_in {
                        for ky in 0..shape.kernel[0] {
                            for kx in 0..shape.kernel[1] {
                                let channel = c / group_out * group_in + i;
                                let code = match shape.source(image, [y, x_at], [ky, kx]) {
                                    Some(pixel) => x[pixel * shape.in_channels + channel],
                                    None => pad,
                                };
                                let w = weights[(c * group_in + i) * shape.taps() + ky * shape.kernel[1] + kx].to_i32()
                                    - zero_points.get(c).copied().unwrap_or(0);
                                sum += i64::from(code.to_i32()) * i64::from(w);
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    out
}
