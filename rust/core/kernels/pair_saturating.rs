//! Accumulation as by the 8-bit multiply-add of x86 without VNNI: sums of adjacent products saturate to 16 bits.
//!
//! `acc = init + Σ_j sat16(x[2j]·w[2j] + x[2j+1]·w[2j+1])` modulo 2^32, for unsigned activations and signed weights. Pairs
//! are adjacent along `K` in the order in which rows are given; a last single product is a pair with zero. Which order
//! a target uses is the caller's to say: [`conv2d_pair_saturating`] has (ky, kx, input channel of the group).

use super::conv::emit;
use super::epilogue::Epilogue;
use super::gather::Gather;
use super::isa::{Engine, multiversion};
use super::shape::ConvShape;

/// Output pixels that go to the epilogue together.
const PIXELS: usize = 16;

/// The sum of two adjacent products.
#[inline(always)]
pub fn pair(x: [u8; 2], w: [i8; 2]) -> i32 {
    i32::from(x[0]) * i32::from(w[0]) + i32::from(x[1]) * i32::from(w[1])
}

/// A sum of two products in 16 bits.
#[inline(always)]
pub fn saturated(pair: i32) -> i32 {
    pair.clamp(i16::MIN.into(), i16::MAX.into())
}

/// `out = epilogue(acc)` for row-major activations of `rows × K` and row-major `N × K` weights.
///
/// `init` is empty (zero) or has `N` entries. Panics where lengths disagree.
#[allow(clippy::too_many_arguments)]
pub fn gemm_pair_saturating<E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    a: &[u8],
    rows: usize,
    k: usize,
    weights: &[i8],
    init: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    if rows > 0 && k == 0 {
        // Empty sums are those of one zero.
        let (a, weights) = (vec![0; rows], vec![0; out.len() / rows]);
        return gemm_pair_saturating(engine, &a, rows, 1, &weights, init, epilogue, out);
    }
    if rows > 0 && !weights.is_empty() {
        let shape = ConvShape::new(1, [1, rows], k, weights.len() / k, [1, 1]);
        conv2d_pair_saturating(engine, &shape, a, 0, weights, init, epilogue, out);
    }
}

/// Convolves `x` (NHWC) with saturating pairs; `weights` are in ONNX's order, padding reads `pad`. See
/// [`super::conv2d`] for the other arguments.
#[allow(clippy::too_many_arguments)]
pub fn conv2d_pair_saturating<E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    shape: &ConvShape,
    x: &[u8],
    pad: u8,
    weights: &[i8],
    init: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    assert!(shape.validate().is_ok(), "a valid shape");
    assert_eq!(weights.len(), shape.weight_len(), "weights and their shape");
    assert_eq!(out.len(), shape.output_len(), "outputs and their shape");
    let (channels, depth, taps, group_in) = (shape.out_channels, shape.depth(), shape.taps(), shape.group_in());
    assert!(init.is_empty() || init.len() == channels, "one initial accumulator per channel");
    let gather = Gather::new(shape, x, pad);
    // Rows and weights are padded with a zero to whole pairs.
    let stride = depth.next_multiple_of(2);
    let mut ordered = vec![0i8; channels * stride];
    for (row, weights) in ordered.chunks_exact_mut(stride).zip(weights.chunks_exact(depth)) {
        for (k, w) in row[..depth].iter_mut().enumerate() {
            *w = weights[k % group_in * taps + k / group_in];
        }
    }
    let per_task = engine.share(shape.output_pixels(), PIXELS);
    engine.for_each_chunk(out, per_task * channels, |task, out| {
        let mut rows = Vec::new();
        let mut acc = vec![0i32; PIXELS * channels];
        for (t, out) in out.chunks_mut(PIXELS * channels).enumerate() {
            let first = task * per_task + t * PIXELS;
            let count = out.len() / channels;
            let acc = &mut acc[..out.len()];
            for group in 0..shape.groups {
                gather.rows(group, first, count, stride, &mut rows);
                let columns = group * shape.group_out()..(group + 1) * shape.group_out();
                multiply(engine.simd(), &rows, &ordered, stride, init, acc, channels, columns);
            }
            emit(engine.simd(), acc, channels, first, epilogue, out);
        }
    });
}

multiversion! {
    fn multiply(
        simd: Simd,
        rows: &[u8],
        weights: &[i8],
        depth: usize,
        init: &[i32],
        acc: &mut [i32],
        stride: usize,
        columns: std::ops::Range<usize>,
    ) {
        for (x, acc) in rows.chunks_exact(depth).zip(acc.chunks_exact_mut(stride)) {
            for c in columns.clone() {
                let mut sum = init.get(c).copied().unwrap_or(0);
                for (x, w) in x.chunks_exact(2).zip(weights[c * depth..][..depth].chunks_exact(2)) {
                    sum = sum.wrapping_add(saturated(pair([x[0], x[1]], [w[0], w[1]])));
                }
                acc[c] = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::Accumulators;
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    #[test]
    fn pairs_saturate_before_they_are_summed() {
        let mut out = [0i32];
        gemm_pair_saturating(Engine::single(), &[255, 255, 255], 1, 3, &[127, 127, 127], &[1], &Accumulators, &mut out);
        assert_eq!(out[0], 1 + 32_767 + 255 * 127);
    }

    #[test]
    fn equals_its_twin() {
        let base = ConvShape { pads: [1, 0, 2, 1], ..ConvShape::new(2, [6, 7], 5, 18, [3, 3]) };
        for shape in [
            base,
            ConvShape { in_channels: 6, groups: 2, stride: [2, 2], ..base },
            ConvShape { kernel: [1, 1], ..base },
        ] {
            let mut random = Random::new(shape.depth() as u64);
            let (x, w) = (random.codes::<u8>(shape.input_len()), random.codes::<i8>(shape.weight_len()));
            let init = random.ints(shape.out_channels, i32::MIN, i32::MAX);
            let expected = reference::conv2d_pair_saturating(&shape, &x, 200, &w, &init);
            on_every_engine(|engine| {
                let mut out = vec![0i32; shape.output_len()];
                conv2d_pair_saturating(engine, &shape, &x, 200, &w, &init, &Accumulators, &mut out);
                assert!(out == expected, "{shape:?} {:?}", engine.simd());
            });
        }
    }
}
