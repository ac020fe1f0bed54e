//! Depthwise convolution of 8-bit NHWC activations, one output channel per input channel, exact modulo 2^32.
//!
//! Pairs of taps are interleaved per channel and multiplied by the 16-bit multiply-add, sixteen channels at a time.
//! Weights are centred by their zero points when they are packed, so they may be signed or unsigned.

use super::code::Code8;
use super::conv::emit;
use super::epilogue::Epilogue;
use super::isa::{Engine, Isa, Simd};
use super::shape::ConvShape;

/// Channels of one block.
pub(crate) const BLOCK: usize = 16;
/// Output pixels that go to the epilogue together.
const PIXELS: usize = 16;

/// Weights of a depthwise convolution, packed once: `[block of 16 channels][pair of taps][channel][tap of the pair]`.
#[derive(Debug, Clone)]
pub(crate) struct DepthwiseWeights {
    channels: usize,
    taps: usize,
    pairs: Vec<[i16; 2 * BLOCK]>,
    column_sums: Vec<i32>,
}

impl DepthwiseWeights {
    /// Packs weights in the order (channel, tap), less the zero point of each channel.
    pub(crate) fn new<W: Code8>(channels: usize, taps: usize, weights: &[W], zero_points: &[i32]) -> Self {
        assert!(weights.len() == channels * taps && zero_points.len() == channels);
        let per_block = taps.div_ceil(2);
        let mut pairs = vec![[0i16; 2 * BLOCK]; channels.div_ceil(BLOCK) * per_block];
        let mut column_sums = vec![0i32; channels];
        for (c, sum) in column_sums.iter_mut().enumerate() {
            for tap in 0..taps {
                let w = weights[c * taps + tap].to_i32() - zero_points[c];
                assert!((-256..=255).contains(&w), "a zero point is a code of its weights");
                pairs[c / BLOCK * per_block + tap / 2][c % BLOCK * 2 + tap % 2] = w as i16;
                *sum += w;
            }
        }
        DepthwiseWeights { channels, taps, pairs, column_sums }
    }

    pub(crate) fn column_sums(&self) -> &[i32] {
        &self.column_sums
    }
}

/// See [`super::conv2d`], which calls this for weights of the depthwise form.
#[allow(clippy::too_many_arguments)]
pub(crate) fn depthwise<X: Code8, E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    shape: &ConvShape,
    x: &[X],
    pad: X,
    weights: &DepthwiseWeights,
    init: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    let channels = shape.out_channels;
    assert!(weights.channels == channels && weights.taps == shape.taps(), "weights of the same shape");
    let zero = vec![0; channels];
    let init = if init.is_empty() { &zero[..] } else { init };
    let output = shape.output();
    let padding = vec![pad; channels];
    let (x, padding) = (X::bytes(x), X::bytes(&padding));
    let per_task = engine.share(shape.output_pixels(), PIXELS);
    engine.for_each_chunk(out, per_task * channels, |task, out| {
        let mut acc = vec![0i32; PIXELS * channels];
        let mut taps: Vec<&[u8]> = Vec::with_capacity(weights.taps + 1);
        for (t, out) in out.chunks_mut(PIXELS * channels).enumerate() {
            let first = task * per_task + t * PIXELS;
            let acc = &mut acc[..out.len()];
            for (p, acc) in acc.chunks_exact_mut(channels).enumerate() {
                let (image, at) = shape.locate(output, first + p);
                taps.clear();
                for ky in 0..shape.kernel[0] {
                    for kx in 0..shape.kernel[1] {
                        taps.push(match shape.source(image, at, [ky, kx]) {
                            Some(pixel) => &x[pixel * channels..][..channels],
                            None => padding,
                        });
                    }
                }
                if taps.len() % 2 == 1 {
                    // The weights of the missing tap are zero.
                    taps.push(padding);
                }
                pixel(engine.simd(), X::SIGNED, &taps, weights, init, acc);
            }
            emit(engine.simd(), acc, channels, first, epilogue, out);
        }
    });
}

/// `acc[c] = init[c] + Σ_t taps[t][c]·w[t][c]`.
fn pixel(simd: Simd, signed: bool, taps: &[&[u8]], weights: &DepthwiseWeights, init: &[i32], acc: &mut [i32]) {
    let channels = weights.channels;
    assert!(taps.iter().all(|t| t.len() == channels) && taps.len() == weights.taps.next_multiple_of(2));
    assert!(init.len() == channels && acc.len() == channels);
    let done = match simd.isa() {
        Isa::Scalar => 0,
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every richer set has AVX2; the assertions above are the lengths that the kernel reads and writes.
        _ if signed => unsafe { super::avx2::depthwise::<true>(taps, &weights.pairs, init, acc) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        _ => unsafe { super::avx2::depthwise::<false>(taps, &weights.pairs, init, acc) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => 0,
    };
    let per_block = taps.len() / 2;
    for c in done..channels {
        let mut sum = init[c];
        for (t, tap) in taps.iter().enumerate() {
            let w = i32::from(weights.pairs[c / BLOCK * per_block + t / 2][c % BLOCK * 2 + t % 2]);
            let x = if signed { i32::from(tap[c] as i8) } else { i32::from(tap[c]) };
            sum = sum.wrapping_add(x * w);
        }
        acc[c] = sum;
    }
}
