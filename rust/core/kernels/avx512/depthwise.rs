//! Depthwise convolution: four rows of a column of the input are interleaved per channel, once for all outputs of the row
//! that they reach, and multiplied by the 8-bit dot product. The padding is made on the way.
//!
//! Channels are taken 64, 32 or 16 at a time, in `V` = 4, 2 or 1 vectors, which hold them in the order in which unpacking leaves
//! them: lane `4·i + b` of vector `q` is channel `4·V·i + 4·q + b`. Packing results to bytes restores the order.

use super::super::epilogue::{Bytes, Fused};
use super::super::pack::Line;
use super::super::shape::ConvShape;
use super::requantize::{Requantize, to_bytes, with_requantize};
use std::arch::x86_64::*;
use std::ops::Range;

/// Output pixels of a row whose input is interleaved together.
const STRIP: usize = 32;

/// Most columns of the input that a strip may reach over.
const MOST_COLUMNS: usize = 1 << 12;

/// Operands of a depthwise convolution.
pub(in super::super) struct Strips<'a> {
    /// Geometry, and the output's height and width.
    pub shape: &'a ConvShape,
    pub output: [usize; 2],
    /// The bytes of activations (NHWC) and padding, which are unsigned once they are XORed with `flip`.
    pub bytes: &'a [u8],
    pub pad: u8,
    pub flip: u8,
    /// `[block of 64 channels][four rows of taps][column of taps][sixteen channels × four rows]`; vector `q` of a block holds
    /// the channels `16·i + 4·q + b` in the order of `i` and `b` below four.
    pub lines: &'a [Line],
    /// Initial accumulators.
    pub init: &'a [i32],
}

/// What becomes of the accumulators of some channels.
trait Finish: Copy {
    /// Parameters of a vector of channels.
    type Parameters: Copy;
    /// Type of the output.
    type Out;
    /// Whether fewer than four vectors can be written.
    const NARROW: bool;

    /// The parameters of the channels `channel + index[i]`, of the lanes that `lanes` selects.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL and DQ; selected lanes are channels.
    unsafe fn load(self, channel: usize, index: __m512i, lanes: __mmask16) -> Self::Parameters;

    /// Writes the first `16·V` channels, or as many as `bytes` selects.
    ///
    /// # Safety
    /// As [`Finish::load`]; `out` holds the channels.
    unsafe fn write<const V: usize>(
        self,
        sums: [__m512i; V],
        parameters: &[Self::Parameters; V],
        bytes: __mmask64,
        out: *mut Self::Out,
    );
}

#[derive(Clone, Copy)]
struct Store;

impl Finish for Store {
    type Parameters = ();
    type Out = i32;
    const NARROW: bool = false;

    #[inline]
    unsafe fn load(self, _: usize, _: __m512i, _: __mmask16) {}

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn write<const V: usize>(self, sums: [__m512i; V], _: &[(); V], bytes: __mmask64, out: *mut i32) {
        // A transpose of 4 × 4 groups of four lanes.
        let [a, b, c, d] = std::array::from_fn(|q| sums[q % V]);
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
    type Parameters = Q::Parameters;
    type Out = u8;
    const NARROW: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(self, channel: usize, index: __m512i, lanes: __mmask16) -> Q::Parameters {
        // SAFETY: the caller's.
        unsafe { self.q.gather(channel, index, lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn write<const V: usize>(
        self,
        sums: [__m512i; V],
        parameters: &[Q::Parameters; V],
        bytes: __mmask64,
        out: *mut u8,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let value = |q: usize| if q < V { Q::value(sums[q], parameters[q]) } else { _mm512_setzero_si512() };
            let codes = to_bytes([value(0), value(1), value(2), value(3)], self.bytes);
            match V {
                4 if bytes == !0 => _mm512_storeu_si512(out.cast(), codes),
                4 => _mm512_mask_storeu_epi8(out.cast(), bytes, codes),
                2 => {
                    let order = _mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6);
                    let codes = _mm512_castsi512_si256(_mm512_permutexvar_epi64(order, codes));
                    _mm256_mask_storeu_epi8(out.cast(), bytes as __mmask32, codes);
                }
                _ => {
                    let order = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
                    let codes = _mm512_castsi512_si128(_mm512_permutexvar_epi32(order, codes));
                    _mm_mask_storeu_epi8(out.cast(), bytes as __mmask16, codes);
                }
            }
        }
    }
}

/// Some of the channels of a part of the output.
struct Block<'a> {
    /// First channel.
    channel: usize,
    /// Number of channels, at most `16·V`.
    count: usize,
    /// Output rows of all images.
    rows: &'a Range<usize>,
}

/// Rows of the input that a group of four taps meets, at the first channel of a block.
#[derive(Clone, Copy)]
struct Four {
    /// Where each begins.
    rows: [*const u8; 4],
    /// The channels to read of each: none where it lies in the padding, or where there is no tap.
    selected: [__mmask64; 4],
}

/// Columns of the input that `pixels` neighbouring outputs reach over; `None` where they are beyond counting.
fn span(shape: &ConvShape, pixels: usize) -> Option<usize> {
    let (steps, taps) = (pixels.checked_sub(1)?, shape.kernel[1].checked_sub(1)?);
    let reach = taps.checked_mul(shape.dilation[1])?.checked_add(1)?;
    steps.checked_mul(shape.stride[1])?.checked_add(reach)
}

impl Strips<'_> {
    /// Whether the columns that strips of this shape reach over are few enough to be interleaved.
    pub(in super::super) fn suit(shape: &ConvShape) -> bool {
        span(shape, shape.output()[1].min(STRIP)).is_some_and(|columns| columns <= MOST_COLUMNS)
    }

    /// The sums of the output rows `rows` of all images; `out` begins with the first of them.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL, DQ and VNNI. The shape suits; the bytes are those of the shape; lines and initial
    /// accumulators hold all channels, `out` holds the rows, and nothing else uses what is written.
    pub(in super::super) unsafe fn store(&self, rows: Range<usize>, columns: &mut Vec<Line>, out: *mut i32) {
        // SAFETY: the caller's.
        unsafe { self.blocks(Store, rows, 0..self.shape.out_channels, columns, out) }
    }

    /// The codes of some output rows and the channels `channels` of them, which begin at a multiple of 64; `out` begins with the
    /// first channel of the first of the rows.
    ///
    /// # Safety
    /// As [`Strips::store`]; there are parameters for all channels.
    pub(in super::super) unsafe fn finish(
        &self,
        fused: &Fused<'_>,
        rows: Range<usize>,
        channels: Range<usize>,
        columns: &mut Vec<Line>,
        out: *mut u8,
    ) {
        let bytes = fused.bytes();
        // SAFETY: the caller's.
        with_requantize!(fused, q => unsafe { self.blocks(Codes { q, bytes }, rows, channels, columns, out) });
    }

    /// # Safety
    /// As [`Strips::store`] or [`Strips::finish`].
    unsafe fn blocks<F: Finish>(
        &self,
        finish: F,
        rows: Range<usize>,
        channels: Range<usize>,
        columns: &mut Vec<Line>,
        out: *mut F::Out,
    ) {
        assert!(channels.start.is_multiple_of(64) && channels.end <= self.shape.out_channels, "blocks of channels");
        let three = self.shape.kernel == [3, 3] && self.shape.dilation[1] == 1 && self.shape.stride[1] <= 2;
        let mut channel = channels.start;
        while channel < channels.end {
            let left = channels.end - channel;
            let vectors = match left {
                17..=48 if F::NARROW => 2,
                ..=16 if F::NARROW => 1,
                _ => 4,
            };
            let block = Block { channel, count: left.min(16 * vectors), rows: &rows };
            // SAFETY: the caller's, for the channels of the block.
            unsafe {
                match (three, vectors) {
                    (true, 4) => self.three_by_three::<4, F>(finish, &block, out),
                    (true, 2) => self.three_by_three::<2, F>(finish, &block, out),
                    (true, _) => self.three_by_three::<1, F>(finish, &block, out),
                    (false, 4) => self.any::<4, F>(finish, &block, columns, out),
                    (false, 2) => self.any::<2, F>(finish, &block, columns, out),
                    (false, _) => self.any::<1, F>(finish, &block, columns, out),
                }
            }
            channel += block.count;
        }
    }

    /// The rows of taps from `4·group` on for an output row.
    fn four(&self, block: &Block<'_>, row: usize, group: usize) -> Four {
        let ConvShape { input: [height, width], kernel, stride, dilation, pads, in_channels, .. } = *self.shape;
        let (image, y) = (row / self.output[0], row % self.output[0]);
        let mut four = Four { rows: [self.bytes.as_ptr(); 4], selected: [0; 4] };
        for i in 0..(kernel[0] - 4 * group).min(4) {
            let at = (y * stride[0] + (4 * group + i) * dilation[0]).wrapping_sub(pads[0]);
            if at < height {
                let from = (image * height + at) * width * in_channels + block.channel;
                four.rows[i] = self.bytes.as_ptr().wrapping_add(from);
                four.selected[i] = first_bytes(block.count);
            }
        }
        four
    }

    /// Lanes of the vectors: the channels that they hold, relative to the first one, and which of these exist.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn lanes<const V: usize>(count: usize) -> ([__m512i; V], [__mmask16; V]) {
        let index = std::array::from_fn(|q| {
            let channel: [i32; 16] = std::array::from_fn(|lane| (lane / 4 * 4 * V + 4 * q + lane % 4) as i32);
            // SAFETY: sixteen integers.
            unsafe { _mm512_loadu_si512(channel.as_ptr().cast()) }
        });
        (index, index.map(|i| _mm512_cmplt_epi32_mask(i, _mm512_set1_epi32(count as i32))))
    }

    /// Vector `q` of the weights of a column of taps of a group of four rows, in the order of `V` vectors.
    fn line<const V: usize>(&self, channel: usize, group: usize, kx: usize, q: usize) -> Line {
        let [kernel_h, kernel_w] = self.shape.kernel;
        let first = ((channel / 64 * kernel_h.div_ceil(4) + group) * kernel_w + kx) * 4;
        if V == 4 {
            return self.lines[first + q];
        }
        let mut line = Line([0; 64]);
        for (i, quarter) in line.0.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            // Four channels by four rows of taps.
            let four = channel % 64 / 4 + V * i + q;
            *quarter = self.lines[first + four % 4].0.as_chunks().0[four / 4];
        }
        line
    }

    /// The parameters and initial accumulators of a block.
    ///
    /// # Safety
    /// As [`Strips::blocks`], for the channels of the block.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn begin<const V: usize, F: Finish>(
        &self,
        finish: F,
        block: &Block<'_>,
    ) -> ([F::Parameters; V], [__m512i; V]) {
        let (index, lanes) = Self::lanes::<V>(block.count);
        let init = self.init.as_ptr().wrapping_add(block.channel).cast();
        // SAFETY: selected lanes are channels of the block.
        unsafe {
            let start = |q: usize| _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), lanes[q], index[q], init);
            (std::array::from_fn(|q| finish.load(block.channel, index[q], lanes[q])), std::array::from_fn(start))
        }
    }

    /// Kernels of three rows and three neighbouring columns, and strides of one or two: the columns of a window stay in
    /// registers from one pixel to the next.
    ///
    /// # Safety
    /// As [`Strips::blocks`], for the channels of the block.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn three_by_three<const V: usize, F: Finish>(&self, finish: F, block: &Block<'_>, out: *mut F::Out) {
        let channels = self.shape.out_channels;
        let (stride, width) = (self.shape.stride[1], self.output[1]);
        let codes = self.columns();
        let selected = first_bytes(block.count);
        // SAFETY: the caller's; columns are of the input, outputs of the rows.
        unsafe {
            let (parameters, start) = self.begin::<V, F>(finish, block);
            let weights: [[__m512i; V]; 3] = std::array::from_fn(|kx| {
                std::array::from_fn(|q| {
                    let line = self.line::<V>(block.channel, 0, kx, q);
                    _mm512_load_si512(line.0.as_ptr().cast())
                })
            });
            for (y, row) in block.rows.clone().enumerate() {
                let four = self.four(block, row, 0);
                let column = |x: usize| codes.column::<V, 3>(&four, x);
                let mut to = out.wrapping_add(y * width * channels + block.channel);
                let mut x = [column(0), column(1), column(2)];
                for pixel in 1..=width {
                    let mut sums = start;
                    for kx in 0..3 {
                        for q in 0..V {
                            sums[q] = _mm512_dpbusd_epi32(sums[q], x[kx][q], weights[kx][q]);
                        }
                    }
                    finish.write(sums, &parameters, selected, to);
                    to = to.wrapping_add(channels);
                    x = match stride {
                        1 => [x[1], x[2], column(pixel + 2)],
                        _ => [x[2], column(2 * pixel + 1), column(2 * pixel + 2)],
                    };
                }
            }
        }
    }

    /// Kernels of any size, stride and dilation.
    ///
    /// # Safety
    /// As [`Strips::blocks`], for the channels of the block.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn any<const V: usize, F: Finish>(
        &self,
        finish: F,
        block: &Block<'_>,
        columns: &mut Vec<Line>,
        out: *mut F::Out,
    ) {
        let shape = self.shape;
        let (channels, [kernel_h, kernel_w]) = (shape.out_channels, shape.kernel);
        let (stride, dilation, width) = (shape.stride[1], shape.dilation[1], self.output[1]);
        let groups = kernel_h.div_ceil(4);
        let span_of = |pixels: usize| span(shape, pixels).expect("a shape that suits strips");
        let codes = self.columns();
        let selected = first_bytes(block.count);
        // The weights, then the columns of a strip.
        columns.clear();
        let at = |group: usize, kx: usize| (group * kernel_w + kx) * V;
        for (group, kx) in (0..groups).flat_map(|group| (0..kernel_w).map(move |kx| (group, kx))) {
            columns.extend((0..V).map(|q| self.line::<V>(block.channel, group, kx, q)));
        }
        let (first, all) = (columns.len(), columns.len() + span_of(width.min(STRIP)) * groups * V);
        columns.resize(all, Line([0; 64]));
        let weights: *const __m512i = columns.as_ptr().cast();
        let columns: *mut __m512i = columns[first..].as_mut_ptr().cast();
        // SAFETY: the caller's; weights and columns are those just made room for, outputs are of the rows.
        unsafe {
            let (parameters, start) = self.begin::<V, F>(finish, block);
            for (y, row) in block.rows.clone().enumerate() {
                for strip in (0..width).step_by(STRIP) {
                    let pixels = (width - strip).min(STRIP);
                    for group in 0..groups {
                        let four = self.four(block, row, group);
                        for x in 0..span_of(pixels) {
                            let quads = codes.column::<V, 4>(&four, strip * stride + x);
                            let to = columns.add((x * groups + group) * V);
                            (0..V).for_each(|q| to.add(q).write(quads[q]));
                        }
                    }
                    for pixel in 0..pixels {
                        let mut sums = start;
                        for group in 0..groups {
                            for kx in 0..kernel_w {
                                let x = columns.add(((pixel * stride + kx * dilation) * groups + group) * V);
                                let w = weights.add(at(group, kx));
                                for (q, sum) in sums.iter_mut().enumerate() {
                                    *sum = _mm512_dpbusd_epi32(*sum, *x.add(q), *w.add(q));
                                }
                            }
                        }
                        let to = out.wrapping_add((y * width + strip + pixel) * channels + block.channel);
                        finish.write(sums, &parameters, selected, to);
                    }
                }
            }
        }
    }

    /// What columns are made of.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn columns(&self) -> Columns {
        Columns {
            channels: self.shape.in_channels,
            width: self.shape.input[1],
            left: self.shape.pads[1],
            pad: _mm512_set1_epi8(self.pad as i8),
            flip: _mm512_set1_epi8(self.flip as i8),
        }
    }
}

/// What the columns of the padded input are made of.
#[derive(Clone, Copy)]
struct Columns {
    /// Bytes from one pixel to the next, pixels of a row, and columns of padding before them.
    channels: usize,
    width: usize,
    left: usize,
    /// Codes of the padding, and what is XORed to all codes.
    pad: __m512i,
    flip: __m512i,
}

/// The mask of the first `count` of 64 bytes.
fn first_bytes(count: usize) -> __mmask64 {
    if count >= 64 { !0 } else { (1 << count) - 1 }
}

impl Columns {
    /// The codes of `16·V` channels of the first `ROWS` of four rows in column `x` of the padded input, interleaved to four bytes
    /// per channel.
    ///
    /// # Safety
    /// The machine has the features; the rows and the selected channels are of the input.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn column<const V: usize, const ROWS: usize>(&self, four: &Four, x: usize) -> [__m512i; V] {
        let inside = x.wrapping_sub(self.left);
        if inside >= self.width {
            return [_mm512_xor_si512(self.pad, self.flip); V];
        }
        let load = |i: usize| match i < ROWS {
            // SAFETY: the caller's.
            true => unsafe { self.load::<V>(four.rows[i].wrapping_add(inside * self.channels), four.selected[i]) },
            false => _mm512_setzero_si512(),
        };
        let rows = [load(0), load(1), load(2), load(3)];
        let low = [_mm512_unpacklo_epi8(rows[0], rows[1]), _mm512_unpacklo_epi8(rows[2], rows[3])];
        let high = [_mm512_unpackhi_epi8(rows[0], rows[1]), _mm512_unpackhi_epi8(rows[2], rows[3])];
        std::array::from_fn(|q| match q {
            0 => _mm512_unpacklo_epi16(low[0], low[1]),
            1 => _mm512_unpackhi_epi16(low[0], low[1]),
            2 => _mm512_unpacklo_epi16(high[0], high[1]),
            _ => _mm512_unpackhi_epi16(high[0], high[1]),
        })
    }

    /// `16·V` unsigned codes, `4·V` of them at the beginning of each quarter; those of the padding where none is selected.
    ///
    /// # Safety
    /// As [`Columns::column`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load<const V: usize>(&self, from: *const u8, selected: __mmask64) -> __m512i {
        // SAFETY: the caller's; masked bytes are not read.
        let codes = unsafe {
            match V {
                4 => _mm512_mask_loadu_epi8(self.pad, selected, from.cast()),
                2 => {
                    let pad = _mm512_castsi512_si256(self.pad);
                    let codes = _mm256_mask_loadu_epi8(pad, selected as __mmask32, from.cast());
                    let order = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
                    _mm512_permutexvar_epi64(order, _mm512_castsi256_si512(codes))
                }
                _ => {
                    let pad = _mm512_castsi512_si128(self.pad);
                    let codes = _mm_mask_loadu_epi8(pad, selected as __mmask16, from.cast());
                    let order = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
                    _mm512_permutexvar_epi32(order, _mm512_castsi128_si512(codes))
                }
            }
        };
        _mm512_xor_si512(codes, self.flip)
    }
}
