//! Depthwise convolution: with the dot product four rows of a column of the input are interleaved per channel, once for all
//! outputs of the row that they reach; without it taps are widened one by one.

use super::super::byte_form::ByteForm;
use super::super::isa::{Isa, Simd};
use super::super::pack::{Line, PANEL};
use super::super::shape::ConvShape;
use super::dot::{dot, dot_unsigned};
use std::arch::aarch64::*;

/// Output pixels of a row whose input is interleaved together.
const STRIP: usize = 32;

/// Sixteen channels of four rows, four bytes per channel; or the sums of sixteen channels.
type Quads<T> = [T; 4];

/// Operands of a depthwise convolution.
pub(in super::super) struct Strips<'a> {
    /// Geometry.
    pub shape: &'a ConvShape,
    /// Bytes with their padding, the bytes from one row to the next, and their form.
    pub bytes: &'a [u8],
    pub pitch: usize,
    pub form: ByteForm,
    /// `[block of 64 channels][four rows of taps][column of taps][vector of sixteen channels × four rows]`; vector `q` of a
    /// block holds the channels `16·i + 4·q + b` in the order of `i` and `b` below four.
    pub lines: &'a [Line],
    /// Initial accumulators.
    pub init: &'a [i32],
}

/// Sixteen channels, of which the first `count` exist.
#[derive(Clone, Copy)]
struct Block {
    /// First channel.
    channel: usize,
    count: usize,
    /// Weights of the first column of the first four rows of taps.
    weights: *const i8,
    init: Quads<int32x4_t>,
}

impl Strips<'_> {
    /// The sums of a whole output row, whose windows start at byte `start`.
    ///
    /// # Safety
    /// `simd` has the dot product. The windows of all pixels of the row lie in the bytes, in the form for that set; the lines
    /// and initial accumulators hold all channels, `out` holds the row.
    pub(in super::super) unsafe fn store(&self, simd: Simd, start: usize, columns: &mut Vec<Line>, out: &mut [i32]) {
        assert!(simd.isa() >= Isa::NeonDot && out.len() == self.shape.output()[1] * self.shape.out_channels);
        let out = out.as_mut_ptr();
        // SAFETY: the caller's; unsigned bytes are the form of machines with FEAT_I8MM only.
        unsafe { if self.form.signed { self.signed(start, columns, out) } else { self.unsigned(start, columns, out) } }
    }

    /// # Safety
    /// As [`Strips::store`].
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn signed(&self, start: usize, columns: &mut Vec<Line>, out: *mut i32) {
        // SAFETY: the caller's.
        unsafe { self.row(start, columns, out, |sum, x, w| dot(sum, x, w)) }
    }

    /// # Safety
    /// As [`Strips::store`]; the machine has FEAT_I8MM.
    #[target_feature(enable = "neon,i8mm")]
    unsafe fn unsigned(&self, start: usize, columns: &mut Vec<Line>, out: *mut i32) {
        // SAFETY: the caller's.
        unsafe { self.row(start, columns, out, |sum, x, w| dot_unsigned(sum, x, w)) }
    }

    /// # Safety
    /// As [`Strips::store`].
    #[inline(always)]
    unsafe fn row(
        &self,
        start: usize,
        columns: &mut Vec<Line>,
        out: *mut i32,
        dot: impl Fn(int32x4_t, int8x16_t, int8x16_t) -> int32x4_t + Copy,
    ) {
        let shape = self.shape;
        let per_block = shape.kernel[0].div_ceil(4) * shape.kernel[1] * 4;
        for channel in (0..shape.out_channels).step_by(PANEL) {
            let mut init = [0; PANEL];
            let count = (shape.out_channels - channel).min(PANEL);
            init[..count].copy_from_slice(&self.init[channel..][..count]);
            let lines = &self.lines[channel / 64 * per_block..][..per_block];
            // SAFETY: sixteen values; the part of these channels within each line.
            let block = unsafe {
                let init = std::array::from_fn(|q| vld1q_s32(init.as_ptr().add(4 * q)));
                let weights = lines.as_ptr().cast::<i8>().add(channel % 64);
                Block { channel, count, weights, init }
            };
            // SAFETY: the caller's, for the channels of the block.
            unsafe {
                match (shape.kernel == [3, 3] && shape.dilation[1] == 1, shape.stride[1], count) {
                    (true, 1, PANEL) => self.three_by_three::<1>(block, start, out, dot),
                    (true, 2, PANEL) => self.three_by_three::<2>(block, start, out, dot),
                    _ => self.any_columns(block, start, columns, out, dot),
                }
            }
        }
    }

    /// Sixteen whole channels of a row, for kernels of three rows and three neighbouring columns: the columns of a window and
    /// all weights stay in registers from one pixel to the next.
    ///
    /// # Safety
    /// As [`Strips::store`].
    #[inline(always)]
    unsafe fn three_by_three<const STRIDE: usize>(
        &self,
        block: Block,
        start: usize,
        out: *mut i32,
        dot: impl Fn(int32x4_t, int8x16_t, int8x16_t) -> int32x4_t,
    ) {
        let (channels, row_step) = (self.shape.out_channels, self.shape.dilation[0] * self.pitch);
        let mut from = self.bytes.as_ptr().wrapping_add(start + block.channel);
        let mut out = out.wrapping_add(block.channel);
        // SAFETY: the caller's: columns of the windows, outputs of the row.
        unsafe {
            let mut next = || {
                let column = column(from, row_step, 3, PANEL);
                from = from.wrapping_add(channels);
                column
            };
            let weights: [Quads<int8x16_t>; 3] = std::array::from_fn(|kx| self.weights(block, 0, kx));
            let mut x = [next(), [vdupq_n_s8(0); 4], [vdupq_n_s8(0); 4]];
            if STRIDE == 1 {
                x[1] = next();
            }
            for _ in 0..self.shape.output()[1] {
                if STRIDE == 2 {
                    x[1] = next();
                }
                x[2] = next();
                for q in 0..4 {
                    let sum = dot(block.init[q], x[0][q], weights[0][q]);
                    let sum = dot(dot(sum, x[1][q], weights[1][q]), x[2][q], weights[2][q]);
                    vst1q_s32(out.add(4 * q), sum);
                }
                out = out.wrapping_add(channels);
                x = if STRIDE == 1 { [x[1], x[2], x[2]] } else { [x[2], x[1], x[2]] };
            }
        }
    }

    /// The channels of a block of a row, for kernels of any size.
    ///
    /// # Safety
    /// As [`Strips::store`].
    #[inline(always)]
    unsafe fn any_columns(
        &self,
        block: Block,
        start: usize,
        columns: &mut Vec<Line>,
        out: *mut i32,
        dot: impl Fn(int32x4_t, int8x16_t, int8x16_t) -> int32x4_t,
    ) {
        let shape = self.shape;
        let (channels, row_step) = (shape.out_channels, shape.dilation[0] * self.pitch);
        let [kernel_h, kernel_w] = shape.kernel;
        let (stride, dilation, width) = (shape.stride[1], shape.dilation[1], shape.output()[1]);
        let groups = kernel_h.div_ceil(4);
        let span_of = |pixels: usize| (pixels - 1) * stride + (kernel_w - 1) * dilation + 1;
        columns.resize(span_of(width.min(STRIP)) * groups, Line([0; 64]));
        let columns: *mut i8 = columns.as_mut_ptr().cast();
        for strip in (0..width).step_by(STRIP) {
            let pixels = (width - strip).min(STRIP);
            let from = self.bytes.as_ptr().wrapping_add(start + strip * stride * channels + block.channel);
            // SAFETY: the caller's, for columns of the windows of this strip and its outputs; the interleaved columns are
            // those just resized.
            unsafe {
                for x in 0..span_of(pixels) {
                    for group in 0..groups {
                        let from = from.wrapping_add(x * channels + 4 * group * row_step);
                        let quads = column(from, row_step, kernel_h - 4 * group, block.count);
                        let to = columns.add((x * groups + group) * 64);
                        (0..4).for_each(|q| vst1q_s8(to.add(16 * q), quads[q]));
                    }
                }
                for pixel in 0..pixels {
                    let mut sums = block.init;
                    for kx in 0..kernel_w {
                        for group in 0..groups {
                            let x = columns.add(((pixel * stride + kx * dilation) * groups + group) * 64);
                            let w = self.weights(block, group, kx);
                            for q in 0..4 {
                                sums[q] = dot(sums[q], vld1q_s8(x.add(16 * q)), w[q]);
                            }
                        }
                    }
                    let to = out.wrapping_add((strip + pixel) * channels + block.channel);
                    if block.count == PANEL {
                        (0..4).for_each(|q| vst1q_s32(to.add(4 * q), sums[q]));
                    } else {
                        let mut values = [0; PANEL];
                        (0..4).for_each(|q| vst1q_s32(values.as_mut_ptr().add(4 * q), sums[q]));
                        to.copy_from_nonoverlapping(values.as_ptr(), block.count);
                    }
                }
            }
        }
    }

    /// Weights of a column of four rows of taps.
    ///
    /// # Safety
    /// The taps exist.
    #[inline(always)]
    unsafe fn weights(&self, block: Block, group: usize, kx: usize) -> Quads<int8x16_t> {
        let line = (group * self.shape.kernel[1] + kx) * 4;
        // SAFETY: the caller's.
        unsafe { std::array::from_fn(|q| vld1q_s8(block.weights.add((line + q) * 64))) }
    }
}

/// The `count` bytes from `from` on of at most four pixels `row_step` apart, interleaved to four bytes per channel; what is
/// missing is zero.
///
/// # Safety
/// `count` bytes of the `present` pixels may be read.
#[inline(always)]
unsafe fn column(from: *const u8, row_step: usize, present: usize, count: usize) -> Quads<int8x16_t> {
    let load = |i: usize| {
        let from = from.wrapping_add(i * row_step);
        // SAFETY: the caller's.
        unsafe {
            match (i < present, count) {
                (false, _) => vdupq_n_s8(0),
                (true, PANEL) => vld1q_s8(from.cast()),
                (true, _) => {
                    let mut bytes = [0u8; PANEL];
                    bytes.as_mut_ptr().copy_from_nonoverlapping(from, count);
                    vld1q_s8(bytes.as_ptr().cast())
                }
            }
        }
    };
    let rows = [load(0), load(1), load(2), load(3)];
    // SAFETY: every machine of the architecture has these instructions.
    unsafe {
        let low = [vzip1q_s8(rows[0], rows[1]), vzip1q_s8(rows[2], rows[3])].map(|v| vreinterpretq_s16_s8(v));
        let high = [vzip2q_s8(rows[0], rows[1]), vzip2q_s8(rows[2], rows[3])].map(|v| vreinterpretq_s16_s8(v));
        [
            vzip1q_s16(low[0], low[1]),
            vzip2q_s16(low[0], low[1]),
            vzip1q_s16(high[0], high[1]),
            vzip2q_s16(high[0], high[1]),
        ]
        .map(|v| vreinterpretq_s8_s16(v))
    }
}

/// `acc[c] = init[c] + Σ_t taps[t][c]·w[t][c]` for the whole blocks of sixteen channels; gives how many channels that is.
///
/// # Safety
/// The machine has NEON. `taps` has an even length and each tap, `init` and `acc` have the same length; `pairs` holds
/// `taps.len() / 2` entries per block.
#[target_feature(enable = "neon")]
pub(in super::super) unsafe fn pixel<const SIGNED: bool>(
    taps: &[&[u8]],
    pairs: &[[i16; 2 * PANEL]],
    init: &[i32],
    acc: &mut [i32],
) -> usize {
    let per_block = taps.len() / 2;
    let whole = acc.len() / PANEL;
    for block in 0..whole {
        let c = block * PANEL;
        // SAFETY: sixteen whole channels of every tap, of `init` and of `acc`; the pairs of this block.
        unsafe {
            let mut sums: [int32x4_t; 4] = std::array::from_fn(|q| vld1q_s32(init.as_ptr().add(c + 4 * q)));
            for (p, pair) in taps.chunks_exact(2).enumerate() {
                let w: *const i16 = pairs.as_ptr().add(block * per_block + p).cast();
                let (low, high) = (vld2q_s16(w), vld2q_s16(w.add(PANEL)));
                for (tap, [low, high]) in pair.iter().zip([[low.0, high.0], [low.1, high.1]]) {
                    let bytes = vld1q_u8(tap.as_ptr().add(c));
                    let [first, second] = if SIGNED {
                        let bytes = vreinterpretq_s8_u8(bytes);
                        [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)]
                    } else {
                        [vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes)].map(|v| vreinterpretq_s16_u16(v))
                    };
                    sums[0] = vmlal_s16(sums[0], vget_low_s16(first), vget_low_s16(low));
                    sums[1] = vmlal_high_s16(sums[1], first, low);
                    sums[2] = vmlal_s16(sums[2], vget_low_s16(second), vget_low_s16(high));
                    sums[3] = vmlal_high_s16(sums[3], second, high);
                }
            }
            for (q, sums) in sums.into_iter().enumerate() {
                vst1q_s32(acc.as_mut_ptr().add(c + 4 * q), sums);
            }
        }
    }
    whole * PANEL
}
