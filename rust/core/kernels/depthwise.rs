//! Depthwise convolution of 8-bit NHWC activations, one output channel per input channel, exact modulo 2^32.
//!
//! With AVX-512 VNNI and with the dot product of AArch64, four rows of an input column are interleaved per channel and
//! multiplied by the 8-bit dot product: with the former 64, 32 or 16 channels at a time, and padding on the way; with the latter
//! 16, from a copy with the padding around it. AVX2 widens the columns of 3×3 taps, from such a copy too, to 16 bits and
//! multiplies pairs of their rows. Elsewhere, for weights that leave `i8` when they are centred by their zero points,
//! and for taps far apart, taps are widened and multiplied in 16 bits, on x86 pairs of them by the multiply-add.

#[cfg(target_arch = "x86_64")]
use super::avx512::Strips;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::byte_form::ByteForm;
use super::code::Code8;
use super::conv::emit;
use super::epilogue::Epilogue;
#[cfg(target_arch = "x86_64")]
use super::isa::Shared;
use super::isa::{Engine, Isa, Simd};
#[cfg(target_arch = "aarch64")]
use super::neon::Strips;
use super::pack::{Line, less_excess};
use super::scratch::{Call, Scratch, at_least};
use super::shape::ConvShape;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::window::Padded;
use smallvec::SmallVec;
#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

/// Channels of one block.
pub(crate) const BLOCK: usize = 16;
/// Output pixels that go to the epilogue together.
const PIXELS: usize = 16;

/// Weights of a depthwise convolution, packed once.
#[derive(Debug, Clone)]
pub(crate) struct DepthwiseWeights {
    channels: usize,
    kernel: [usize; 2],
    /// `[block of 16 channels][pair of taps][channel][tap of the pair]`.
    pairs: Vec<[i16; 2 * BLOCK]>,
    /// `[block of 64 channels][four rows of taps][column of taps][vector of sixteen channels × four rows]`, where weights
    /// fit; vector `q` of a block holds the channels `16·i + 4·q + b` in the order of `i` and `b` below four.
    quads: Option<Vec<Line>>,
    /// See [`DepthwiseWeights::columns_of_three`].
    #[cfg(target_arch = "x86_64")]
    columns: OnceLock<Vec<[[i16; 2 * BLOCK]; 6]>>,
    column_sums: Vec<i32>,
}

impl DepthwiseWeights {
    /// Packs weights in the order (channel, tap), less the zero point of each channel.
    pub(crate) fn new<W: Code8>(channels: usize, kernel: [usize; 2], weights: &[W], zero_points: &[i32]) -> Self {
        let taps = kernel[0] * kernel[1];
        assert!(weights.len() == channels * taps && zero_points.len() == channels);
        let per_block = taps.div_ceil(2);
        let per_64 = kernel[0].div_ceil(4) * kernel[1] * 4;
        let mut pairs = vec![[0i16; 2 * BLOCK]; channels.div_ceil(BLOCK) * per_block];
        let mut lines = vec![Line([0; 64]); channels.div_ceil(64) * per_64];
        let mut column_sums = vec![0i32; channels];
        let mut range = (0, 0);
        for (block, sums) in column_sums.chunks_mut(BLOCK).enumerate() {
            let rows = weights[block * BLOCK * taps..].chunks_exact(taps.max(1));
            let pairs = &mut pairs[block * per_block..][..per_block];
            let lines = &mut lines[block * BLOCK / 64 * per_64..][..per_64];
            for tap in 0..taps {
                let (ky, kx) = (tap / kernel[1], tap % kernel[1]);
                let (pairs, _) = pairs[tap / 2].as_chunks_mut::<2>();
                let lines = &mut lines[(ky / 4 * kernel[1] + kx) * 4..][..4];
                let quads =
                    lines.iter_mut().flat_map(|line| line.0[block * BLOCK % 64..][..BLOCK].as_chunks_mut::<4>().0);
                let to = pairs.iter_mut().zip(quads).zip(sums.iter_mut());
                let zero_points = &zero_points[block * BLOCK..];
                for (((pair, quad), sum), (row, zero)) in to.zip(rows.clone().zip(zero_points)) {
                    let w = row[tap].to_i32() - zero;
                    range = (w.min(range.0), w.max(range.1));
                    pair[tap % 2] = w as i16;
                    quad[ky % 4] = w as i8;
                    *sum += w;
                }
            }
        }
        assert!(range.0 >= -256 && range.1 <= 255, "a zero point is a code of its weights");
        let fits = range.0 >= i8::MIN.into() && range.1 <= i8::MAX.into();
        DepthwiseWeights {
            channels,
            kernel,
            pairs,
            quads: fits.then_some(lines),
            #[cfg(target_arch = "x86_64")]
            columns: OnceLock::new(),
            column_sums,
        }
    }

    /// The weights of 3×3 taps, for each sixteen channels, of which the last ones end with the last channel: of each column of
    /// taps, those of the first two rows side by side, and those of the third one beside zeros.
    #[cfg(target_arch = "x86_64")]
    fn columns_of_three(&self) -> &[[[i16; 2 * BLOCK]; 6]] {
        let weight =
            |channel: usize, tap: usize| self.pairs[channel / BLOCK * 5 + tap / 2][channel % BLOCK * 2 + tap % 2];
        let block = |block: usize| {
            let first = (block * BLOCK).min(self.channels - BLOCK);
            std::array::from_fn(|i| {
                std::array::from_fn(|lane| match (i % 2 * 2 + lane % 2, i / 2) {
                    (3, _) => 0,
                    (row, column) => weight(first + lane / 2, row * 3 + column),
                })
            })
        };
        self.columns.get_or_init(|| (0..self.channels.div_ceil(BLOCK)).map(block).collect())
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
    assert!(weights.channels == channels && weights.kernel == shape.kernel, "weights of the same shape");
    #[cfg(target_arch = "x86_64")]
    if engine.simd().vectors() == Isa::Avx512Vnni
        && Strips::suit(shape)
        && let Some(lines) = &weights.quads
    {
        return vectors(engine, shape, x, pad, weights, lines, init, epilogue, out);
    }
    #[cfg(target_arch = "x86_64")]
    if matches!(engine.simd().vectors(), Isa::Avx2 | Isa::AvxVnni)
        && shape.kernel == [3, 3]
        && shape.dilation[1] == 1
        && shape.stride[1] <= 2
        && channels >= BLOCK
        && let Some(padded) = Padded::new(engine, shape, X::bytes(x), X::bytes(&[pad])[0], 0)
    {
        return three_by_three::<X, E>(engine, shape, &padded, weights, init, epilogue, out);
    }
    #[cfg(target_arch = "aarch64")]
    if matches!(engine.simd().vectors(), Isa::NeonDot | Isa::NeonI8mm)
        && let Some(lines) = &weights.quads
    {
        let pad = X::bytes(&[pad])[0];
        let form = ByteForm::new(engine.simd(), X::SIGNED);
        if let Some(padded) = Padded::new(engine, shape, X::bytes(x), pad, form.flip) {
            return strips(engine, shape, &padded, form, weights, lines, init, epilogue, out);
        }
    }
    let output = shape.output();
    let (x, pad) = (X::bytes(x), X::bytes(&[pad])[0]);
    let per_task = engine.share(shape.output_pixels(), PIXELS);
    Call::with(|Call { init: start, scratch, .. }| {
        less_excess(init, &weights.column_sums, 0, start);
        scratch.bytes.clear();
        scratch.bytes.resize(channels, pad);
        let padding = &scratch.bytes[..];
        engine.for_each_chunk(out, per_task * channels, |task, out| {
            Scratch::with(|Scratch { acc, .. }| {
                let acc = at_least(acc, PIXELS * channels);
                let mut taps: SmallVec<[&[u8]; 64]> = SmallVec::new();
                let mut first = task * per_task;
                let mut rest = out;
                while !rest.is_empty() {
                    let (image, at) = shape.locate(output, first);
                    let pixels = (rest.len() / channels).min(PIXELS).min(output[1] - at[1]);
                    let (out, after) = rest.split_at_mut(pixels * channels);
                    let acc = &mut acc[..out.len()];
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
                        pixel(engine.simd(), X::SIGNED, &taps, weights, start, acc);
                    }
                    emit(engine.simd(), acc, channels, first, epilogue, out);
                    first += pixels;
                    rest = after;
                }
            });
        });
    });
}

/// The form for the 8-bit dot product of AVX-512: tasks are runs of output rows, or blocks of channels where these are shared
/// out more evenly.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::too_many_arguments)]
fn vectors<X: Code8, E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    shape: &ConvShape,
    x: &[X],
    pad: X,
    weights: &DepthwiseWeights,
    lines: &[Line],
    init: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    let channels = shape.out_channels;
    let [height, width] = shape.output();
    let form = ByteForm::new(engine.simd(), X::SIGNED);
    let (rows, blocks, row) = (shape.batch * height, channels.div_ceil(64), width * channels);
    assert!(
        engine.simd().vectors() == Isa::Avx512Vnni && shape.in_channels == channels && x.len() == shape.input_len()
    );
    assert!(lines.len() == blocks * shape.kernel[0].div_ceil(4) * shape.kernel[1] * 4);
    assert!(weights.column_sums.len() == channels && out.len() == rows * row);
    let (bytes, pad, output) = (X::bytes(x), X::bytes(&[pad])[0], [height, width]);
    let (rows_each, blocks_each) = (engine.share(rows, 1), engine.share(blocks, 1));
    Call::with(|Call { init: start, .. }| {
        less_excess(init, &weights.column_sums, form.excess, start);
        let strips = Strips { shape, output, bytes, pad, flip: form.flip, lines, init: start };
        let Some(fused) = epilogue.fused() else {
            engine.for_each_chunk(out, rows_each * row, |task, out| {
                Scratch::with(|Scratch { acc, lines: columns, .. }| {
                    let acc = at_least(acc, row);
                    for (i, out) in out.chunks_exact_mut(row).enumerate() {
                        let at = task * rows_each + i;
                        // SAFETY: the instruction set and the lengths are asserted above; the accumulators are those of one
                        // row.
                        unsafe { strips.store(at..at + 1, columns, acc.as_mut_ptr()) };
                        emit(engine.simd(), acc, channels, at * width, epilogue, out);
                    }
                });
            });
            return;
        };
        assert!(
            size_of::<E::Out>() == 1 && fused.channels() >= channels,
            "fused epilogues write bytes of all channels"
        );
        let by_rows =
            engine.largest_share(rows, rows_each) * blocks <= engine.largest_share(blocks, blocks_each) * rows;
        let [rows_each, blocks_each] = if by_rows { [rows_each, blocks] } else { [rows, blocks_each] };
        let parts = blocks.div_ceil(blocks_each);
        let out = Shared::new(out);
        engine.for_each_task(rows.div_ceil(rows_each) * parts, |task| {
            let (first, block) = (task / parts * rows_each, task % parts * blocks_each);
            let rows = first..rows.min(first + rows_each);
            let part = block * 64..channels.min((block + blocks_each) * 64);
            Scratch::with(|Scratch { lines: columns, .. }| {
                // SAFETY: as above; tasks write different rows or channels.
                unsafe { strips.finish(&fused, rows, part, columns, out.at(first * row).cast()) };
            });
        });
    });
}

/// The form of 3×3 taps for AVX2: tasks are runs of output rows.
#[cfg(target_arch = "x86_64")]
fn three_by_three<X: Code8, E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    shape: &ConvShape,
    padded: &Padded<'_>,
    weights: &DepthwiseWeights,
    init: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    let channels = shape.out_channels;
    let [height, width] = shape.output();
    let (row, pitch, stride) = (width * channels, padded.pitch() * shape.dilation[0], shape.stride[1]);
    assert!(matches!(engine.simd().vectors(), Isa::Avx2 | Isa::AvxVnni) && channels >= BLOCK && stride <= 2);
    assert!(shape.kernel == [3, 3] && shape.dilation[1] == 1 && shape.in_channels == channels);
    let columns = weights.columns_of_three();
    let per_task = engine.share(shape.batch * height, 1);
    Call::with(|Call { init: start, .. }| {
        less_excess(init, &weights.column_sums, 0, start);
        engine.for_each_chunk(out, per_task * row, |task, out| {
            Scratch::with(|Scratch { acc, .. }| {
                let acc = at_least(acc, row);
                for (i, out) in out.chunks_exact_mut(row).enumerate() {
                    let at = task * per_task + i;
                    let from = &padded.bytes()[padded.start(at / height, [at % height, 0])..];
                    assert!(from.len() >= 2 * pitch + ((width - 1) * stride + 3) * channels, "windows of a row");
                    // SAFETY: the instruction set, the windows and the shape are asserted; weights and initial accumulators are
                    // those of all channels, and the accumulators those of one row.
                    unsafe {
                        match X::SIGNED {
                            true => {
                                super::avx2::depthwise_three::<true>(from.as_ptr(), pitch, stride, columns, start, acc)
                            }
                            false => {
                                super::avx2::depthwise_three::<false>(from.as_ptr(), pitch, stride, columns, start, acc)
                            }
                        }
                    }
                    emit(engine.simd(), acc, channels, at * width, epilogue, out);
                }
            });
        });
    });
}

/// The form for the 8-bit dot products of AArch64: tasks are runs of output rows.
#[cfg(target_arch = "aarch64")]
#[allow(clippy::too_many_arguments)]
fn strips<E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    shape: &ConvShape,
    padded: &Padded<'_>,
    form: ByteForm,
    weights: &DepthwiseWeights,
    lines: &[Line],
    init: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    let channels = shape.out_channels;
    let [height, width] = shape.output();
    assert!(lines.len() == channels.div_ceil(64) * shape.kernel[0].div_ceil(4) * shape.kernel[1] * 4);
    assert!(weights.column_sums.len() == channels && out.len() == shape.output_len() && shape.in_channels == channels);
    let per_task = engine.share(shape.batch * height, 1);
    Call::with(|Call { init: start, .. }| {
        less_excess(init, &weights.column_sums, form.excess, start);
        let strips = Strips { shape, bytes: padded.bytes(), pitch: padded.pitch(), form, lines, init: start };
        engine.for_each_chunk(out, per_task * width * channels, |task, out| {
            Scratch::with(|Scratch { acc, lines: columns, .. }| {
                let acc = at_least(acc, width * channels);
                for (i, out) in out.chunks_exact_mut(width * channels).enumerate() {
                    let row = task * per_task + i;
                    let start = padded.start(row / height, [row % height, 0]);
                    // SAFETY: the lengths are asserted above; `padded` has the windows of all pixels in the form of this set.
                    unsafe { strips.store(engine.simd(), start, columns, acc) };
                    emit(engine.simd(), acc, channels, row * width, epilogue, out);
                }
            });
        });
    });
}

/// `acc[c] = init[c] + Σ_t taps[t][c]·w[t][c]`.
fn pixel(simd: Simd, signed: bool, taps: &[&[u8]], weights: &DepthwiseWeights, init: &[i32], acc: &mut [i32]) {
    let channels = weights.channels;
    assert!(
        taps.iter().all(|t| t.len() == channels)
            && taps.len() == (weights.kernel[0] * weights.kernel[1]).next_multiple_of(2)
    );
    assert!(init.len() == channels && acc.len() == channels);
    let done = match simd.vectors() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: these sets have AVX2; the assertions above are the lengths that the kernel reads and writes.
        Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni | Isa::AmxInt8 => unsafe {
            match signed {
                true => super::avx2::depthwise::<true>(taps, &weights.pairs, init, acc),
                false => super::avx2::depthwise::<false>(taps, &weights.pairs, init, acc),
            }
        },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: these sets have NEON; the assertions above are the lengths that the kernel reads and writes.
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe {
            match signed {
                true => super::neon::pixel::<true>(taps, &weights.pairs, init, acc),
                false => super::neon::pixel::<false>(taps, &weights.pairs, init, acc),
            }
        },
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
