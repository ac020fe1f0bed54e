//! Depthwise convolution of 8-bit NHWC activations, one output channel per input channel, exact modulo 2^32.
//!
//! With AVX-512 VNNI four rows of an input column are interleaved per channel, once for all outputs that they reach, and
//! multiplied by the 8-bit dot product, 64 channels at a time. Elsewhere, and for weights that leave `i8` when they are
//! centred by their zero points, pairs of taps are interleaved and multiplied by the 16-bit multiply-add.

use super::code::Code8;
use super::conv::emit;
use super::epilogue::Epilogue;
use super::isa::{Engine, Isa, Simd};
use super::pack::Line;
use super::shape::ConvShape;

/// Channels of one block.
pub(crate) const BLOCK: usize = 16;
/// Output pixels that go to the epilogue together.
const PIXELS: usize = 16;

/// Weights of a depthwise convolution, packed once.
#[derive(Debug, Clone)]
pub(crate) struct DepthwiseWeights {
    channels: usize,
    taps: usize,
    /// `[block of 16 channels][pair of taps][channel][tap of the pair]`.
    pairs: Vec<[i16; 2 * BLOCK]>,
    /// `[block of 64 channels][four rows of taps][column of taps][sixteen channels × four rows]`, where weights fit.
    quads: Option<Vec<Line>>,
    column_sums: Vec<i32>,
}

impl DepthwiseWeights {
    /// Packs weights in the order (channel, tap), less the zero point of each channel.
    pub(crate) fn new<W: Code8>(channels: usize, kernel: [usize; 2], weights: &[W], zero_points: &[i32]) -> Self {
        let taps = kernel[0] * kernel[1];
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
        let groups = kernel[0].div_ceil(4);
        let mut lines = vec![Line([0; 64]); channels.div_ceil(64) * groups * kernel[1] * 4];
        let mut fits = true;
        for c in 0..channels {
            for tap in 0..taps {
                let w = weights[c * taps + tap].to_i32() - zero_points[c];
                let (ky, kx) = (tap / kernel[1], tap % kernel[1]);
                let line = ((c / 64 * groups + ky / 4) * kernel[1] + kx) * 4 + c % 64 / 16;
                fits &= i8::try_from(w).is_ok();
                lines[line].0[c % 16 * 4 + ky % 4] = w as i8;
            }
        }
        DepthwiseWeights { channels, taps, pairs, quads: fits.then_some(lines), column_sums }
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
    let strips = Strips::new(engine.simd(), shape, x, padding, weights, X::SIGNED, init);
    engine.for_each_chunk(out, per_task * channels, |task, out| {
        let mut acc = vec![0i32; PIXELS * channels];
        let mut taps: Vec<&[u8]> = Vec::with_capacity(weights.taps + 1);
        let mut columns = Vec::new();
        let mut first = task * per_task;
        let mut rest = out;
        while !rest.is_empty() {
            let (image, at) = shape.locate(output, first);
            let pixels = (rest.len() / channels).min(PIXELS).min(output[1] - at[1]);
            let (out, after) = rest.split_at_mut(pixels * channels);
            let acc = &mut acc[..out.len()];
            if let Some(strips) = &strips {
                strips.run(image, at, acc, &mut columns);
            } else {
                for (p, acc) in acc.chunks_exact_mut(channels).enumerate() {
                    taps.clear();
                    for ky in 0..shape.kernel[0] {
                        for kx in 0..shape.kernel[1] {
                            taps.push(match shape.source(image, [at[0], at[1] + p], [ky, kx]) {
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
            }
            emit(engine.simd(), acc, channels, first, epilogue, out);
            first += pixels;
            rest = after;
        }
    });
}

/// Computes strips of neighbouring output pixels by the 8-bit dot product.
pub(crate) struct Strips<'a> {
    pub shape: &'a ConvShape,
    pub x: &'a [u8],
    /// One pixel of the padding code.
    pub padding: &'a [u8],
    /// What turns the bytes into unsigned ones by exclusive or.
    pub flip: u8,
    pub lines: &'a [Line],
    /// Initial accumulators, less `128·Σw` for signed activations.
    pub init: Vec<i32>,
}

impl<'a> Strips<'a> {
    /// `None` where the machine or the weights do not allow it.
    fn new(
        simd: Simd,
        shape: &'a ConvShape,
        x: &'a [u8],
        padding: &'a [u8],
        weights: &'a DepthwiseWeights,
        signed: bool,
        init: &[i32],
    ) -> Option<Self> {
        let lines = weights.quads.as_deref().filter(|_| simd.isa() == Isa::Avx512Vnni)?;
        let channels = shape.out_channels;
        let size = channels.div_ceil(64) * shape.kernel[0].div_ceil(4) * shape.kernel[1] * 4;
        assert!(lines.len() == size && init.len() == channels && padding.len() == channels);
        assert!(x.len() == shape.input_len() && shape.in_channels == channels);
        let centre = if signed { 128 } else { 0i32 };
        let init = init.iter().zip(&weights.column_sums).map(|(&i, &s)| i.wrapping_sub(centre.wrapping_mul(s)));
        Some(Strips { shape, x, padding, flip: if signed { 0x80 } else { 0 }, lines, init: init.collect() })
    }

    /// Accumulates the pixels from `at` on, as many as `acc` holds, which all lie in the same output row.
    fn run(&self, image: usize, at: [usize; 2], acc: &mut [i32], columns: &mut Vec<Line>) {
        let [height, width] = self.shape.output();
        let pixels = acc.len() / self.shape.out_channels;
        assert!(pixels > 0 && image < self.shape.batch && at[0] < height && at[1] + pixels <= width);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `new` proved the instruction set and the lengths; the strip lies within the output.
        unsafe {
            super::avx512::depthwise(self, image, at, acc, columns);
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("strips are made on AVX-512 machines only: {:?}", (acc.len(), columns.len()));
    }
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
