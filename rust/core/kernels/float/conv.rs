//! f32 convolutions over NHWC tensors with a fixed order of summation.

use super::super::gather::Gather;
use super::super::isa::{Engine, multiversion};
use super::super::shape::{ConvShape, TransposeShape};
use super::gemm::{FloatWeights, tile};

/// Output pixels that are gathered together.
const PIXELS: usize = 48;

/// Weights of an f32 convolution, packed once.
#[derive(Debug, Clone)]
pub struct FloatConvWeights {
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// One matrix per group; rows in the order (ky, kx, input channel).
    Groups(Vec<FloatWeights>),
    /// One line of all channels per tap.
    Depthwise(Vec<f32>),
}

impl FloatConvWeights {
    /// Packs weights in ONNX's order (output channel, input channel of the group, ky, kx).
    pub fn new(shape: &ConvShape, weights: &[f32]) -> Self {
        assert_eq!(weights.len(), shape.weight_len(), "weights and their shape");
        let (taps, group_in, group_out) = (shape.taps(), shape.group_in(), shape.group_out());
        if group_in == 1 && group_out == 1 {
            let channels = shape.out_channels;
            let lines = (0..taps * channels).map(|i| weights[i % channels * taps + i / channels]).collect();
            return FloatConvWeights { form: Form::Depthwise(lines) };
        }
        let group = |g: usize| {
            FloatWeights::new(shape.depth(), group_out, |k, n| {
                weights[((g * group_out + n) * group_in + k % group_in) * taps + k / group_in]
            })
        };
        FloatConvWeights { form: Form::Groups((0..shape.groups).map(group).collect()) }
    }
}

/// `out = (Σ x·w) + bias` over NHWC tensors.
///
/// The sum starts at +0 and takes (ky, kx, input channel) in ascending order by fused multiply-add; padding enters as
/// zeros. An empty `bias` is not added. Panics where lengths disagree or [`ConvShape::validate`] fails.
pub fn conv2d_f32(
    engine: Engine<'_>,
    shape: &ConvShape,
    x: &[f32],
    weights: &FloatConvWeights,
    bias: &[f32],
    out: &mut [f32],
) {
    assert!(shape.validate().is_ok(), "a valid shape");
    assert!(x.len() == shape.input_len() && out.len() == shape.output_len(), "tensors and their shapes");
    assert!(bias.is_empty() || bias.len() == shape.out_channels, "one bias per channel");
    let gather = Gather::new(shape, x, 0.0);
    let (channels, depth, group_out) = (shape.out_channels, shape.depth(), shape.group_out());
    let simd = engine.simd();
    let per_task = engine.share(shape.output_pixels(), 12);
    match &weights.form {
        Form::Depthwise(lines) => {
            assert_eq!(lines.len(), channels * shape.taps(), "weights of the same shape");
            let (output, zeros) = (shape.output(), vec![0.0; channels]);
            engine.for_each_chunk(out, per_task * channels, |task, out| {
                let mut taps: Vec<&[f32]> = Vec::with_capacity(shape.taps());
                for (p, out) in out.chunks_exact_mut(channels).enumerate() {
                    let (image, at) = shape.locate(output, task * per_task + p);
                    taps.clear();
                    for ky in 0..shape.kernel[0] {
                        for kx in 0..shape.kernel[1] {
                            let source = shape.source(image, at, [ky, kx]);
                            taps.push(source.map_or(&zeros[..], |pixel| &x[pixel * channels..][..channels]));
                        }
                    }
                    multiply_taps(simd, &taps, lines, out);
                    out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
                }
            });
        }
        Form::Groups(groups) => {
            let fits = |w: &FloatWeights| w.k() == depth && w.n() == group_out;
            assert!(groups.len() == shape.groups && groups.iter().all(fits), "weights of the same shape");
            engine.for_each_chunk(out, per_task * channels, |task, out| {
                let mut rows = Vec::new();
                for (t, out) in out.chunks_mut(PIXELS * channels).enumerate() {
                    let first = task * per_task + t * PIXELS;
                    let count = out.len() / channels;
                    for (g, w) in groups.iter().enumerate() {
                        let a = if gather.is_plain() {
                            &x[first * depth..(first + count) * depth]
                        } else {
                            gather.rows(g, first, count, depth, &mut rows);
                            &rows[..]
                        };
                        let columns = g * group_out..(g + 1) * group_out;
                        let bias = if bias.is_empty() { bias } else { &bias[columns.clone()] };
                        let panels = 0..group_out.div_ceil(super::gemm::PANEL);
                        tile(simd, a, depth, count, w, panels, bias, &mut out[columns.start..], channels);
                    }
                }
            });
        }
    }
}

/// Weights of an f32 transposed convolution, packed once.
#[derive(Debug, Clone)]
pub struct FloatTransposeWeights {
    /// In the order (ky, kx, input channel, output channel of the group).
    lines: Vec<f32>,
}

impl FloatTransposeWeights {
    /// Packs weights in ONNX's order (input channel, output channel of the group, ky, kx).
    pub fn new(shape: &TransposeShape, weights: &[f32]) -> Self {
        assert_eq!(weights.len(), shape.weight_len(), "weights and their shape");
        let (taps, group_out) = (shape.kernel[0] * shape.kernel[1], shape.group_out());
        let mut lines = vec![0.0; weights.len()];
        for (i, &w) in weights.iter().enumerate() {
            let (tap, n, channel) = (i % taps, i / taps % group_out, i / taps / group_out);
            lines[(tap * shape.in_channels + channel) * group_out + n] = w;
        }
        FloatTransposeWeights { lines }
    }
}

/// Transposed convolution: `out = (Σ x·w) + bias` over the inputs that reach each output, NHWC.
///
/// The sum starts at +0 and takes (ky, kx, input channel) in ascending order by fused multiply-add. An empty `bias` is
/// not added. Panics where lengths disagree or [`TransposeShape::validate`] fails.
pub fn conv_transpose2d_f32(
    engine: Engine<'_>,
    shape: &TransposeShape,
    x: &[f32],
    weights: &FloatTransposeWeights,
    bias: &[f32],
    out: &mut [f32],
) {
    assert!(shape.validate().is_ok(), "a valid shape");
    assert!(x.len() == shape.input_len() && out.len() == shape.output_len(), "tensors and their shapes");
    assert_eq!(weights.lines.len(), shape.weight_len(), "weights of the same shape");
    assert!(bias.is_empty() || bias.len() == shape.out_channels, "one bias per channel");
    let (channels, in_channels) = (shape.out_channels, shape.in_channels);
    let (group_in, group_out) = (shape.group_in(), shape.group_out());
    let [height, width] = shape.output;
    let [kernel_h, kernel_w] = shape.kernel;
    engine.for_each_chunk(out, width * channels, |line, out| {
        let (image, y) = (line / height, line % height);
        for (x_at, out) in out.chunks_exact_mut(channels).enumerate() {
            out.fill(0.0);
            for ky in 0..kernel_h {
                let Some(iy) = shape.source(0, y, ky) else { continue };
                for kx in 0..kernel_w {
                    let Some(ix) = shape.source(1, x_at, kx) else { continue };
                    let pixel = (image * shape.input[0] + iy) * shape.input[1] + ix;
                    let values = &x[pixel * in_channels..][..in_channels];
                    let tap =
                        &weights.lines[(ky * kernel_w + kx) * in_channels * group_out..][..in_channels * group_out];
                    multiply_outer(engine.simd(), values, tap, group_in, group_out, out);
                }
            }
            out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
        }
    });
}

multiversion! {
    /// `out[c] = Σ_t taps[t][c]·lines[t][c]` in the order of the taps.
    fn multiply_taps(simd: Simd, taps: &[&[f32]], lines: &[f32], out: &mut [f32]) {
        const LANES: usize = 16;
        let channels = out.len();
        let (whole, rest) = out.as_chunks_mut::<LANES>();
        let done = whole.len() * LANES;
        for (i, out) in whole.iter_mut().enumerate() {
            let mut sums = [0.0f32; LANES];
            for (x, w) in taps.iter().zip(lines.chunks_exact(channels)) {
                let (x, w) = (&x[i * LANES..][..LANES], &w[i * LANES..][..LANES]);
                for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
                    *sum = x.mul_add(*w, *sum);
                }
            }
            *out = sums;
        }
        for (c, out) in rest.iter_mut().enumerate() {
            let products = taps.iter().zip(lines.chunks_exact(channels)).map(|(x, w)| (x[done + c], w[done + c]));
            *out = products.fold(0.0, |sum, (x, w)| x.mul_add(w, sum));
        }
    }
}

multiversion! {
    fn multiply_outer(simd: Simd, x: &[f32], w: &[f32], group_in: usize, group_out: usize, acc: &mut [f32]) {
        for ((x, w), acc) in x.chunks_exact(group_in).zip(w.chunks_exact(group_in * group_out)).zip(acc.chunks_exact_mut(group_out)) {
            for (&x, w) in x.iter().zip(w.chunks_exact(group_out)) {
                for (a, &w) in acc.iter_mut().zip(w) {
                    *a = x.mul_add(w, *a);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reference;
    use super::super::super::testing::{Random, on_every_engine};
    use super::*;

    #[test]
    fn conv_equals_its_twin_bit_for_bit() {
        let base = ConvShape { pads: [1, 0, 2, 1], ..ConvShape::new(2, [6, 9], 5, 18, [3, 2]) };
        for shape in [
            base,
            ConvShape { stride: [2, 1], dilation: [1, 2], ..base },
            ConvShape { in_channels: 18, groups: 18, ..base },
            ConvShape { in_channels: 6, groups: 2, ..base },
            ConvShape { kernel: [1, 1], pads: [0; 4], out_channels: 40, ..base },
        ] {
            let mut random = Random::new(shape.depth() as u64);
            let (x, w) = (random.floats(shape.input_len()), random.floats(shape.weight_len()));
            let bias = random.floats(shape.out_channels);
            let expected = reference::conv2d_f32(&shape, &x, &w, &bias);
            let weights = FloatConvWeights::new(&shape, &w);
            on_every_engine(|engine| {
                let mut out = vec![f32::NAN; shape.output_len()];
                conv2d_f32(engine, &shape, &x, &weights, &bias, &mut out);
                let same = out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{shape:?} {:?} {}", engine.simd(), engine.threads());
            });
        }
    }

    #[test]
    fn conv_transpose_equals_its_twin_bit_for_bit() {
        let base = TransposeShape {
            batch: 2,
            input: [3, 5],
            output: [6, 10],
            in_channels: 6,
            out_channels: 10,
            kernel: [3, 3],
            stride: [2, 2],
            dilation: [1, 1],
            pads: [1, 1],
            groups: 1,
        };
        for shape in
            [base, TransposeShape { groups: 2, ..base }, TransposeShape { dilation: [2, 1], stride: [1, 3], ..base }]
        {
            let mut random = Random::new(8);
            let (x, w) = (random.floats(shape.input_len()), random.floats(shape.weight_len()));
            let bias = random.floats(shape.out_channels);
            let expected = reference::conv_transpose2d_f32(&shape, &x, &w, &bias);
            let weights = FloatTransposeWeights::new(&shape, &w);
            on_every_engine(|engine| {
                let mut out = vec![f32::NAN; shape.output_len()];
                conv_transpose2d_f32(engine, &shape, &x, &weights, &bias, &mut out);
                let same = out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{shape:?} {:?} {}", engine.simd(), engine.threads());
            });
        }
    }
}
