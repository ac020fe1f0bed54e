//! Twins of the 8-bit matrix product and convolution.

use super::super::code::Code;
use super::super::shape::{ConvShape, TransposeShape};

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

/// Sums of 16-bit saturated pairs of products, pairs adjacent in the order (ky, kx, input channel of the group).
pub fn conv2d_pair_saturating(shape: &ConvShape, x: &[u8], pad: u8, weights: &[i8], init: &[i32]) -> Vec<i32> {
    let output = shape.output();
    let (group_in, group_out) = (shape.group_in(), shape.group_out());
    let mut out = Vec::with_capacity(shape.output_len());
    for pixel in 0..shape.output_pixels() {
        let (image, at) = shape.locate(output, pixel);
        for c in 0..shape.out_channels {
            let mut products = Vec::new();
            for ky in 0..shape.kernel[0] {
                for kx in 0..shape.kernel[1] {
                    for i in 0..group_in {
                        let channel = c / group_out * group_in + i;
                        let code =
                            shape.source(image, at, [ky, kx]).map_or(pad, |p| x[p * shape.in_channels + channel]);
                        let w = weights[(c * group_in + i) * shape.taps() + ky * shape.kernel[1] + kx];
                        products.push(i64::from(code) * i64::from(w));
                    }
                }
            }
            let pairs = products.chunks(2).map(|p| p.iter().sum::<i64>().clamp(-32_768, 32_767));
            out.push((i64::from(init.get(c).copied().unwrap_or(0)) + pairs.sum::<i64>()) as i32);
        }
    }
    out
}

/// The sums of a transposed convolution in 64 bits, in scatter form: every input element adds to the outputs it reaches.
pub fn conv_transpose2d<X: Code, W: Code>(
    shape: &TransposeShape,
    x: &[X],
    zero_point: X,
    weights: &[W],
    zero_points: &[i32],
    bias: &[i64],
) -> Vec<i64> {
    let channels = shape.out_channels;
    let mut out = vec![0i64; shape.output_len()];
    for (i, o) in out.iter_mut().enumerate() {
        *o = bias.get(i % channels).copied().unwrap_or(0);
    }
    let [kernel_h, kernel_w] = shape.kernel;
    for (i, code) in x.iter().enumerate() {
        let (channel, pixel) = (i % shape.in_channels, i / shape.in_channels);
        let (ix, iy) = (pixel % shape.input[1], pixel / shape.input[1] % shape.input[0]);
        let image = pixel / (shape.input[0] * shape.input[1]);
        for n in 0..shape.group_out() {
            let c = channel / shape.group_in() * shape.group_out() + n;
            for ky in 0..kernel_h {
                for kx in 0..kernel_w {
                    let y = (iy * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.pads[0]);
                    let x = (ix * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.pads[1]);
                    if y < shape.output[0] && x < shape.output[1] {
                        let w = weights[((channel * shape.group_out() + n) * kernel_h + ky) * kernel_w + kx].to_i32()
                            - zero_points.get(c).copied().unwrap_or(0);
                        let centred = i64::from(code.to_i32()) - i64::from(zero_point.to_i32());
                        out[((image * shape.output[0] + y) * shape.output[1] + x) * channels + c] +=
                            centred * i64::from(w);
                    }
                }
            }
        }
    }
    out
}

/// Products of pairs of matrices of centred codes, modulo 2^32; see [`super::super::matmul`].
pub fn matmul<A: Code, B: Code>(
    [m, k, n]: [usize; 3],
    a: &[A],
    zero_point_a: i32,
    b: &[B],
    zero_point_b: &[i32],
    pairs: &[(usize, usize)],
    init: &[i32],
) -> Vec<i32> {
    let mut out = Vec::new();
    for &(left, right) in pairs {
        for r in 0..m {
            for c in 0..n {
                let mut sum = i64::from(init.get(c).copied().unwrap_or(0));
                let zero_point_b = if zero_point_b.len() == 1 { zero_point_b[0] } else { zero_point_b[c] };
                for i in 0..k {
                    let x = a[(left * m + r) * k + i].to_i32() - zero_point_a;
                    sum += i64::from(x) * i64::from(b[(right * k + i) * n + c].to_i32() - zero_point_b);
                }
                out.push(sum as i32);
            }
        }
    }
    out
}
