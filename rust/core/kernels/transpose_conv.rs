//! Transposed convolution in gather form: every output element sums the input elements that reach it.
//!
//! Which taps reach an output depends only on its position modulo the stride, so each such phase is a dense product with
//! its own packed weights. Taps that reach outside of the input read the zero point and add nothing.

use super::byte_form::ByteForm;
use super::code::{Code, Code8};
use super::conv::emit;
use super::epilogue::{Accumulators, Epilogue};
use super::gemm::{Lhs, Place, tile};
use super::isa::Engine;
use super::pack::PackedWeights;
use super::shape::TransposeShape;
use super::wide::Accumulator;

/// Weights of a transposed convolution, packed once.
#[derive(Debug, Clone)]
pub struct TransposeWeights {
    /// Phases in row-major order of `stride[0] × stride[1]`.
    phases: Vec<Phase>,
}

#[derive(Debug, Clone)]
struct Phase {
    taps: Vec<[usize; 2]>,
    /// One matrix per group; rows in the order (tap, input channel).
    groups: Vec<PackedWeights>,
}

impl TransposeWeights {
    /// Packs weights in ONNX's order (input channel, output channel of the group, ky, kx). `zero_points` has one entry
    /// per output channel, or one for all, or none (zero). Panics where lengths disagree.
    pub fn new<W: Code8>(shape: &TransposeShape, weights: &[W], zero_points: &[i32]) -> Self {
        assert!(shape.validate().is_ok(), "a valid shape");
        assert_eq!(weights.len(), shape.weight_len(), "weights and their shape");
        let many = zero_points.len() > 1;
        assert!(!many || zero_points.len() == shape.out_channels, "one zero point per channel, or one");
        let (group_in, group_out) = (shape.group_in(), shape.group_out());
        let [kernel_h, kernel_w] = shape.kernel;
        let reaches = |axis: usize, phase: usize, tap: usize| tap * shape.dilation[axis] % shape.stride[axis] == phase;
        let mut phases = Vec::with_capacity(shape.stride[0] * shape.stride[1]);
        for phase_y in 0..shape.stride[0] {
            for phase_x in 0..shape.stride[1] {
                let taps: Vec<[usize; 2]> = (0..kernel_h * kernel_w)
                    .map(|tap| [tap / kernel_w, tap % kernel_w])
                    .filter(|&[ky, kx]| reaches(0, phase_y, ky) && reaches(1, phase_x, kx))
                    .collect();
                let pack = |group: usize| {
                    let columns = group * group_out..(group + 1) * group_out;
                    let zero_points = if many { &zero_points[columns] } else { zero_points };
                    PackedWeights::new(taps.len() * group_in, group_out, zero_points, |k, n| {
                        let ([ky, kx], channel) = (taps[k / group_in], group * group_in + k % group_in);
                        weights[((channel * group_out + n) * kernel_h + ky) * kernel_w + kx]
                    })
                };
                let groups = (0..shape.groups).map(pack).collect();
                phases.push(Phase { taps, groups });
            }
        }
        TransposeWeights { phases }
    }
}

/// Transposed convolution of `x` (NHWC) that writes `epilogue(acc)` to `out` (NHWC).
///
/// `acc[p][c] = bias[c] + Σ (x - zero_point)·(w - zero_point_w)` modulo 2^32 over the inputs that reach pixel `p`. An
/// empty `bias` is zero. Panics where lengths disagree or [`TransposeShape::validate`] fails.
#[allow(clippy::too_many_arguments)]
pub fn conv_transpose2d<X: Code8, E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    shape: &TransposeShape,
    x: &[X],
    zero_point: X,
    weights: &TransposeWeights,
    bias: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    assert!(shape.validate().is_ok(), "a valid shape");
    assert!(x.len() == shape.input_len() && out.len() == shape.output_len(), "tensors and their shapes");
    assert!(bias.is_empty() || bias.len() == shape.out_channels, "one bias per channel");
    assert_eq!(weights.phases.len(), shape.stride[0] * shape.stride[1], "weights of the same shape");
    let (group_in, group_out, channels) = (shape.group_in(), shape.group_out(), shape.out_channels);
    let fits = |phase: &Phase| {
        let depth = phase.taps.len() * group_in;
        phase.groups.len() == shape.groups && phase.groups.iter().all(|g| g.k() == depth && g.n() == group_out)
    };
    assert!(weights.phases.iter().all(fits), "weights of the same shape");
    let form = ByteForm::new(engine.simd(), X::SIGNED);
    let inits: Vec<Vec<Vec<i32>>> = weights
        .phases
        .iter()
        .map(|phase| {
            let init = |(g, packed): (usize, &PackedWeights)| {
                let bias = if bias.is_empty() { bias } else { &bias[g * group_out..(g + 1) * group_out] };
                let mut init = Vec::new();
                packed.kernel_init(&packed.centred_init(bias, zero_point.to_i32()), form.excess, &mut init);
                init
            };
            phase.groups.iter().enumerate().map(init).collect()
        })
        .collect();
    let bytes = X::bytes(x);
    let zero = X::bytes(&[zero_point])[0];
    let [height, width] = shape.output;
    engine.for_each_chunk(out, width * channels, |line, out| {
        let (image, y) = (line / height, line % height);
        let mut acc = vec![0i32; width * channels];
        let (mut sums, mut row_sums) = (Vec::new(), Vec::new());
        let phase_y = (y + shape.pads[0]) % shape.stride[0];
        for first in 0..shape.stride[1].min(width) {
            let index = phase_y * shape.stride[1] + (first + shape.pads[1]) % shape.stride[1];
            let phase = &weights.phases[index];
            let pixels: Vec<usize> = (first..width).step_by(shape.stride[1]).collect();
            let depth = phase.taps.len() * group_in;
            let stride = depth.next_multiple_of(4);
            let mut part = vec![0i32; pixels.len() * group_out];
            for (g, packed) in phase.groups.iter().enumerate() {
                let mut rows = vec![zero ^ form.flip; pixels.len() * stride];
                for (r, &x_at) in pixels.iter().enumerate() {
                    for (t, &[ky, kx]) in phase.taps.iter().enumerate() {
                        let (Some(iy), Some(ix)) = (shape.source(0, y, ky), shape.source(1, x_at, kx)) else {
                            continue;
                        };
                        let pixel = (image * shape.input[0] + iy) * shape.input[1] + ix;
                        let from = &bytes[pixel * shape.in_channels + g * group_in..][..group_in];
                        let to = &mut rows[r * stride + t * group_in..][..group_in];
                        to.iter_mut().zip(from).for_each(|(to, &from)| *to = from ^ form.flip);
                    }
                }
                let starts: Vec<usize> = (0..pixels.len()).map(|r| r * stride).collect();
                let lhs = Lhs { bytes: &rows, rows: &starts, runs: &[0], form };
                let place = Place { row: 0, channel: 0 };
                let (panels, init) = (0..packed.panels(), &inits[index][g]);
                tile(
                    engine.simd(),
                    &lhs,
                    packed,
                    panels,
                    init,
                    place,
                    &Accumulators,
                    &mut part,
                    group_out,
                    &mut sums,
                    &mut row_sums,
                );
                for (&pixel, part) in pixels.iter().zip(part.chunks_exact(group_out)) {
                    acc[pixel * channels + g * group_out..][..group_out].copy_from_slice(part);
                }
            }
        }
        emit(engine.simd(), &acc, channels, line * width, epilogue, out);
    });
}

/// Transposed convolution of 8- or 16-bit codes with accumulators of type `A`; `weights` are in ONNX's order (input
/// channel, output channel of the group, ky, kx), and `zero_points` are those of the weights. See [`conv_transpose2d`].
#[allow(clippy::too_many_arguments)]
pub fn conv_transpose2d_wide<A: Accumulator, X: Code, W: Code, E: Epilogue<A> + ?Sized>(
    engine: Engine<'_>,
    shape: &TransposeShape,
    x: &[X],
    zero_point: X,
    weights: &[W],
    zero_points: &[i32],
    bias: &[A],
    epilogue: &E,
    out: &mut [E::Out],
) {
    assert!(shape.validate().is_ok(), "a valid shape");
    assert!(x.len() == shape.input_len() && out.len() == shape.output_len(), "tensors and their shapes");
    assert_eq!(weights.len(), shape.weight_len(), "weights and their shape");
    assert!(bias.is_empty() || bias.len() == shape.out_channels, "one bias per channel");
    let (group_in, group_out, channels) = (shape.group_in(), shape.group_out(), shape.out_channels);
    let many = zero_points.len() > 1;
    assert!(!many || zero_points.len() == channels, "one zero point per channel, or one");
    let [kernel_h, kernel_w] = shape.kernel;
    // (ky, kx, input channel, output channel of the group), so that the innermost loop is over output channels.
    let mut ordered = vec![0i32; weights.len()];
    for (i, w) in weights.iter().enumerate() {
        let (tap, n, channel) =
            (i % (kernel_h * kernel_w), i / (kernel_h * kernel_w) % group_out, i / (kernel_h * kernel_w * group_out));
        let column = channel / group_in * group_out + n;
        let centre = if many { zero_points[column] } else { zero_points.first().copied().unwrap_or(0) };
        ordered[(tap * shape.in_channels + channel) * group_out + n] = w.to_i32() - centre;
    }
    let [height, width] = shape.output;
    engine.for_each_chunk(out, width * channels, |line, out| {
        let (image, y) = (line / height, line % height);
        let mut acc = vec![A::default(); width * channels];
        for (x_at, acc) in acc.chunks_exact_mut(channels).enumerate() {
            if !bias.is_empty() {
                acc.copy_from_slice(bias);
            }
            for ky in 0..kernel_h {
                let Some(iy) = shape.source(0, y, ky) else { continue };
                for kx in 0..kernel_w {
                    let Some(ix) = shape.source(1, x_at, kx) else { continue };
                    let pixel = (image * shape.input[0] + iy) * shape.input[1] + ix;
                    let codes = &x[pixel * shape.in_channels..][..shape.in_channels];
                    let tap = &ordered[(ky * kernel_w + kx) * shape.in_channels * group_out..];
                    for ((channel, code), w) in codes.iter().enumerate().zip(tap.chunks_exact(group_out)) {
                        let code = code.to_i32() - zero_point.to_i32();
                        let acc = &mut acc[channel / group_in * group_out..][..group_out];
                        acc.iter_mut().zip(w).for_each(|(a, &w)| *a = a.mac(code, w));
                    }
                }
            }
        }
        emit(engine.simd(), &acc, channels, line * width, epilogue, out);
    });
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    fn check<X: Code8, W: Code8>(shape: &TransposeShape, zero_points: &[i32]) {
        let mut random = Random::new(shape.weight_len() as u64);
        let (x, w) = (random.codes::<X>(shape.input_len()), random.codes::<W>(shape.weight_len()));
        let bias = random.ints(shape.out_channels, i32::MIN, i32::MAX);
        let zero = X::wrap(random.next() as i64);
        let spread: Vec<i32> = (0..shape.out_channels).map(|c| zero_points[c % zero_points.len()]).collect();
        let wide: Vec<i64> = bias.iter().map(|&v| v.into()).collect();
        let expected = reference::conv_transpose2d(shape, &x, zero, &w, &spread, &wide);
        let narrow: Vec<i32> = expected.iter().map(|&v| v as i32).collect();
        let packed = TransposeWeights::new(shape, &w, &spread);
        on_every_engine(|engine| {
            let mut out = vec![0i32; shape.output_len()];
            conv_transpose2d(engine, shape, &x, zero, &packed, &bias, &Accumulators, &mut out);
            assert!(out == narrow, "{shape:?} {:?}", engine.simd());
            let mut out = vec![0i64; shape.output_len()];
            conv_transpose2d_wide(engine, shape, &x, zero, &w, &spread, &wide, &Accumulators, &mut out);
            assert!(out == expected, "wide: {shape:?} {:?}", engine.simd());
        });
    }

    #[test]
    fn equals_its_scattering_twin() {
        let base = TransposeShape {
            batch: 2,
            input: [3, 5],
            output: [7, 11],
            in_channels: 6,
            out_channels: 10,
            kernel: [3, 3],
            stride: [2, 2],
            dilation: [1, 1],
            pads: [0, 0],
            groups: 1,
        };
        for shape in [
            base,
            TransposeShape { pads: [1, 1], output: [6, 10], ..base },
            TransposeShape { stride: [1, 3], output: [5, 15], ..base },
            TransposeShape { stride: [3, 2], kernel: [2, 2], output: [9, 10], ..base },
            TransposeShape { dilation: [2, 3], output: [9, 15], ..base },
            TransposeShape { groups: 2, ..base },
            TransposeShape { stride: [4, 4], kernel: [1, 2], output: [12, 20], ..base },
        ] {
            check::<u8, i8>(&shape, &[0]);
            check::<i8, i8>(&shape, &[0]);
            check::<u8, u8>(&shape, &[128, 7]);
            check::<i8, u8>(&shape, &[3]);
        }
    }
}
