//! Depthwise convolution: four rows of a column of the input are interleaved per channel, once for all outputs of the row
//! that they reach, and multiplied by the 8-bit dot product.
//!
//! Vectors hold their channels in the order in which unpacking leaves them: lane `4·i + b` of vector `q` is channel
//! `16·i + 4·q + b` of a block of 64. Packing results to bytes restores the order.

use super::super::epilogue::{Bytes, Fused};
use super::super::pack::Line;
use super::super::shape::ConvShape;
use super::requantize::{Requantize, to_bytes, with_requantize};
use std::arch::x86_64::*;

/// Output pixels of a row whose input is interleaved together.
const STRIP: usize = 32;

/// Operands of a depthwise convolution.
pub(in super::super) struct Strips<'a> {
    /// Geometry.
    pub shape: &'a ConvShape,
    /// Unsigned bytes with their padding, and the bytes from one row to the next.
    pub bytes: &'a [u8],
    pub pitch: usize,
    /// `[block of 64 channels][four rows of taps][column of taps][sixteen channels × four rows]`.
    pub lines: &'a [Line],
    /// Initial accumulators.
    pub init: &'a [i32],
}

/// What becomes of the accumulators of a block of channels.
trait Finish: Copy {
    /// Parameters of a block.
    type Block: Copy;
    /// Type of the output.
    type Out;

    /// The parameters of the channels from `channel` on; `lanes` selects those that exist, per vector.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL and DQ.
    unsafe fn block(self, channel: usize, index: [__m512i; 4], lanes: [__mmask16; 4]) -> Self::Block;

    /// Writes the first channels of a block, as many as `bytes` selects.
    ///
    /// # Safety
    /// As [`Finish::block`]; `out` holds the channels.
    unsafe fn write(self, sums: [__m512i; 4], block: Self::Block, bytes: __mmask64, out: *mut Self::Out);
}

#[derive(Clone, Copy)]
struct Store;

impl Finish for Store {
    type Block = ();
    type Out = i32;

    #[inline]
    unsafe fn block(self, _: usize, _: [__m512i; 4], _: [__mmask16; 4]) {}

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn write(self, [a, b, c, d]: [__m512i; 4], (): (), bytes: __mmask64, out: *mut i32) {
        // A transpose of 4 × 4 groups of four lanes.
        let (ab0, ab1) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xEE>(a, b));
        let (cd0, cd1) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xEE>(c, d));
        let rows = [
            _mm512_shuffle_i32x4::<0x88>(ab0, cd0),
            _mm512_shuffle_i32x4::<0xDD>(ab0, cd0),
            _mm512_shuffle_i32x4::<0x88>(ab1, cd1),
            _mm512_shuffle_i32x4::<0xDD>(ab1, cd1),
        ];
        for (i, row) in rows.into_iter().enumerate() {
            // SAFETY: masked lanes are not touched; the others are channels of the output.
            unsafe {
                _mm512_mask_storeu_epi32(out.wrapping_add(16 * i), (bytes >> (16 * i)) as __mmask16, row);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Codes<Q> {
    q: Q,
    bytes: Bytes,
}

impl<Q: Requantize> Finish for Codes<Q> {
    type Block = [Q::Parameters; 4];
    type Out = u8;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn block(self, channel: usize, index: [__m512i; 4], lanes: [__mmask16; 4]) -> [Q::Parameters; 4] {
        // SAFETY: selected lanes are channels.
        unsafe { std::array::from_fn(|q| self.q.gather(channel, index[q], lanes[q])) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn write(self, sums: [__m512i; 4], block: [Q::Parameters; 4], bytes: __mmask64, out: *mut u8) {
        // SAFETY: the caller's.
        unsafe {
            let value = |q: usize| Q::value(sums[q], block[q]);
            let codes = to_bytes([value(0), value(1), value(2), value(3)], self.bytes);
            if bytes == !0 {
                _mm512_storeu_si512(out.cast(), codes);
            } else {
                _mm512_mask_storeu_epi8(out.cast(), bytes, codes);
            }
        }
    }
}

impl Strips<'_> {
    /// The sums of whole output rows, whose windows start at the bytes `starts`.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL, DQ and VNNI. The windows of all pixels of the rows lie in the bytes, the lines
    /// and initial accumulators hold all channels, `out` holds the rows.
    pub(in super::super) unsafe fn store(&self, starts: &[usize], columns: &mut Vec<Line>, out: *mut i32) {
        // SAFETY: the caller's.
        unsafe { self.rows(Store, starts, columns, out) }
    }

    /// The codes of whole output rows.
    ///
    /// # Safety
    /// As [`Strips::store`]; there are parameters for all channels.
    pub(in super::super) unsafe fn finish(
        &self,
        fused: &Fused<'_>,
        starts: &[usize],
        columns: &mut Vec<Line>,
        out: *mut u8,
    ) {
        // SAFETY: the caller's.
        with_requantize!(fused, q => unsafe { self.rows(Codes { q, bytes: fused.bytes() }, starts, columns, out) });
    }

    /// # Safety
    /// As [`Strips::store`] or [`Strips::finish`].
    unsafe fn rows<F: Finish>(&self, finish: F, starts: &[usize], columns: &mut Vec<Line>, out: *mut F::Out) {
        let [kernel_h, kernel_w] = self.shape.kernel;
        // SAFETY: the caller's.
        unsafe {
            match (kernel_h, kernel_w) {
                (3, 3) => self.blocks::<3, 3, F>(finish, starts, columns, out),
                _ => self.blocks::<0, 0, F>(finish, starts, columns, out),
            }
        }
    }

    /// # Safety
    /// As [`Strips::rows`]; `KH` and `KW` are the kernel's size, or both zero.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn blocks<const KH: usize, const KW: usize, F: Finish>(
        &self,
        finish: F,
        starts: &[usize],
        columns: &mut Vec<Line>,
        out: *mut F::Out,
    ) {
        let shape = self.shape;
        let channels = shape.out_channels;
        let [kernel_h, kernel_w] = if KH > 0 { [KH, KW] } else { shape.kernel };
        let (stride, dilation) = (shape.stride[1], shape.dilation[1]);
        let groups = kernel_h.div_ceil(4);
        let width = shape.output()[1];
        let row_step = shape.dilation[0] * self.pitch;
        let span_of = |pixels: usize| (pixels - 1) * stride + (kernel_w - 1) * dilation + 1;
        columns.resize(span_of(width.min(STRIP)) * groups * 4, Line([0; 64]));
        let columns: *mut __m512i = columns.as_mut_ptr().cast();
        let first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 32, 33, 34, 35, 48, 49, 50, 51);
        let index = [0, 4, 8, 12].map(|q| _mm512_add_epi32(first, _mm512_set1_epi32(q)));
        for block in 0..channels.div_ceil(64) {
            let c = block * 64;
            let count = (channels - c).min(64);
            let bytes: __mmask64 = if count == 64 { !0 } else { (1 << count) - 1 };
            let lanes = index.map(|i| _mm512_cmplt_epi32_mask(i, _mm512_set1_epi32(count as i32)));
            // SAFETY: loads read `count` channels of pixels of the windows; the columns are those just resized; weights,
            // initial accumulators, parameters and outputs are those of this block, masked to its channels.
            unsafe {
                let parameters = finish.block(c, index, lanes);
                let zero = _mm512_setzero_si512();
                let init = self.init.as_ptr().wrapping_add(c).cast();
                let start: [__m512i; 4] =
                    std::array::from_fn(|q| _mm512_mask_i32gather_epi32::<4>(zero, lanes[q], index[q], init));
                let lines: *const __m512i = self.lines.as_ptr().add(block * groups * kernel_w * 4).cast();
                let mut weights = [[zero; 4]; 3];
                if KW == 3 && KH <= 4 {
                    for (kx, w) in weights.iter_mut().enumerate() {
                        *w = std::array::from_fn(|q| *lines.add(kx * 4 + q));
                    }
                }
                if KW == 3 && KH <= 4 && dilation == 1 && stride <= 2 {
                    // The columns of a window stay in registers from one pixel to the next.
                    for (y, &row) in starts.iter().enumerate() {
                        let mut from = self.bytes.as_ptr().wrapping_add(row + c);
                        let mut x = [[zero; 4]; 3];
                        x[1] = column(from, row_step, KH, bytes);
                        if stride == 1 {
                            from = from.wrapping_add(channels);
                            x[2] = column(from, row_step, KH, bytes);
                        } else {
                            x[2] = x[1];
                        }
                        let mut to = out.wrapping_add(y * width * channels + c);
                        for _ in 0..width {
                            if stride == 1 {
                                x = [x[1], x[2], x[2]];
                            } else {
                                from = from.wrapping_add(channels);
                                x = [x[2], column(from, row_step, KH, bytes), x[2]];
                            }
                            from = from.wrapping_add(channels);
                            x[2] = column(from, row_step, KH, bytes);
                            let mut sums = start;
                            for kx in 0..3 {
                                for q in 0..4 {
                                    sums[q] = _mm512_dpbusd_epi32(sums[q], x[kx][q], weights[kx][q]);
                                }
                            }
                            finish.write(sums, parameters, bytes, to);
                            to = to.wrapping_add(channels);
                        }
                    }
                    continue;
                }
                for (y, &row) in starts.iter().enumerate() {
                    for strip in (0..width).step_by(STRIP) {
                        let pixels = (width - strip).min(STRIP);
                        let from = self.bytes.as_ptr().wrapping_add(row + strip * stride * channels + c);
                        for group in 0..groups {
                            let from = from.wrapping_add(4 * group * row_step);
                            for x in 0..span_of(pixels) {
                                let present = kernel_h - 4 * group;
                                let quads = column(from.wrapping_add(x * channels), row_step, present, bytes);
                                let to = columns.add((x * groups + group) * 4);
                                (0..4).for_each(|q| to.add(q).write(quads[q]));
                            }
                        }
                        for pixel in 0..pixels {
                            let mut sums = start;
                            for group in 0..groups {
                                for kx in 0..kernel_w {
                                    let x = columns.add(((pixel * stride + kx * dilation) * groups + group) * 4);
                                    let w = lines.add((group * kernel_w + kx) * 4);
                                    for (q, sum) in sums.iter_mut().enumerate() {
                                        *sum = _mm512_dpbusd_epi32(*sum, *x.add(q), *w.add(q));
                                    }
                                }
                            }
                            let to = out.wrapping_add((y * width + strip + pixel) * channels + c);
                            finish.write(sums, parameters, bytes, to);
                        }
                    }
                }
            }
        }
    }
}

/// The codes of 64 channels of at most four pixels `row_step` apart, interleaved to four bytes per channel.
///
/// # Safety
/// The machine has the features; the selected bytes of the `present` pixels may be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn column(from: *const u8, row_step: usize, present: usize, bytes: __mmask64) -> [__m512i; 4] {
    let load = |i: usize| match i < present {
        // SAFETY: the caller's; masked bytes are not read.
        true => unsafe { _mm512_maskz_loadu_epi8(bytes, from.wrapping_add(i * row_step).cast()) },
        false => _mm512_setzero_si512(),
    };
    let rows = [load(0), load(1), load(2), load(3)];
    let low = [_mm512_unpacklo_epi8(rows[0], rows[1]), _mm512_unpacklo_epi8(rows[2], rows[3])];
    let high = [_mm512_unpackhi_epi8(rows[0], rows[1]), _mm512_unpackhi_epi8(rows[2], rows[3])];
    [
        _mm512_unpacklo_epi16(low[0], low[1]),
        _mm512_unpackhi_epi16(low[0], low[1]),
        _mm512_unpacklo_epi16(high[0], high[1]),
        _mm512_unpackhi_epi16(high[0], high[1]),
    ]
}
