//! AVX-512 VNNI micro-kernels: up to twelve rows by 32 columns in registers.

use super::depthwise::Strips;
use super::gemm::BLOCK_COLUMNS;
use super::pack::Line;
use std::arch::x86_64::*;

/// `acc[r][c] = init[c] + Σ_k a[r][k]·w[k][c]`, `acc` with a stride of 32.
///
/// # Safety
/// The machine has the features below. `a` holds `rows` rows of `4·groups` bytes at `stride`, `lines` holds
/// `panels·groups` lines, `init` holds `16·panels` values and `acc` holds `32·rows`; `rows > 0`, `panels` is 1 or 2.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn multiply(
    a: &[u8],
    stride: usize,
    rows: usize,
    lines: &[Line],
    groups: usize,
    panels: usize,
    init: &[i32],
    acc: &mut [i32],
) {
    let mut row = 0;
    macro_rules! run {
        ($rows:literal) => {
            while rows - row >= $rows {
                let (a, c) = (a[row * stride..].as_ptr(), acc[row * BLOCK_COLUMNS..].as_mut_ptr());
                let b = lines.as_ptr().cast::<i8>();
                // SAFETY: rows `row..row + $rows` and all groups of the panels lie inside the slices, by the contract.
                unsafe {
                    if panels == 2 {
                        kernel::<$rows, 2>(groups, a, stride, b, init.as_ptr(), c);
                    } else {
                        kernel::<$rows, 1>(groups, a, stride, b, init.as_ptr(), c);
                    }
                }
                row += $rows;
            }
        };
    }
    run!(12);
    run!(6);
    run!(4);
    run!(2);
    run!(1);
}

/// # Safety
/// As [`multiply`], for `R` rows and `V` panels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn kernel<const R: usize, const V: usize>(
    groups: usize,
    a: *const u8,
    stride: usize,
    b: *const i8,
    init: *const i32,
    c: *mut i32,
) {
    let mut acc = [[_mm512_setzero_si512(); V]; R];
    // SAFETY: all addresses lie within the extents that the contract names.
    unsafe {
        for v in 0..V {
            let start = _mm512_loadu_si512(init.add(16 * v).cast());
            for row in &mut acc {
                row[v] = start;
            }
        }
        for k in 0..groups {
            let mut w = [_mm512_setzero_si512(); V];
            for (v, w) in w.iter_mut().enumerate() {
                *w = _mm512_load_si512(b.add((v * groups + k) * 64).cast());
            }
            for (r, row) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(a.add(r * stride + 4 * k).cast::<i32>().read_unaligned());
                for v in 0..V {
                    row[v] = _mm512_dpbusd_epi32(row[v], x, w[v]);
                }
            }
        }
        for (r, row) in acc.iter().enumerate() {
            for (v, &value) in row.iter().enumerate() {
                _mm512_storeu_si512(c.add(r * BLOCK_COLUMNS + 16 * v).cast(), value);
            }
        }
    }
}

/// Looks up all whole vectors of 64 codes; gives how many codes that is.
///
/// # Safety
/// The machine has the features. `x` and `out` have the same length.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) unsafe fn lookup8(x: &[u8], table: &[u8; 256], out: &mut [u8]) -> usize {
    // SAFETY: four vectors of the table, and whole vectors of both slices.
    unsafe {
        let part = |i: usize| _mm512_loadu_si512(table.as_ptr().add(64 * i).cast());
        let (a, b, c, d) = (part(0), part(1), part(2), part(3));
        for i in 0..x.len() / 64 {
            let codes = _mm512_loadu_si512(x.as_ptr().add(64 * i).cast());
            let low = _mm512_permutex2var_epi8(a, codes, b);
            let high = _mm512_permutex2var_epi8(c, codes, d);
            let value = _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low, high);
            _mm512_storeu_si512(out.as_mut_ptr().add(64 * i).cast(), value);
        }
    }
    x.len() / 64 * 64
}

/// Depthwise sums of one strip of output pixels of a row.
///
/// `columns` holds, per input column and group of four input rows, the codes of 64 channels interleaved to four bytes
/// per channel.
///
/// # Safety
/// The machine has the features. `strips` holds tensors of its shape, the weights' lines for it and an initial
/// accumulator per channel; `acc` holds whole pixels of one output row from `at` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn depthwise(
    strips: &Strips<'_>,
    image: usize,
    at: [usize; 2],
    acc: &mut [i32],
    columns: &mut Vec<Line>,
) {
    let shape = strips.shape;
    let channels = shape.out_channels;
    let [kernel_h, kernel_w] = shape.kernel;
    let (stride, dilation) = (shape.stride[1], shape.dilation[1]);
    let groups = kernel_h.div_ceil(4);
    let pixels = acc.len() / channels;
    let span = (pixels - 1) * stride + (kernel_w - 1) * dilation + 1;
    columns.resize(span * groups * 4, Line([0; 64]));
    let flip = _mm512_set1_epi8(strips.flip as i8);
    // Lane l of the result's quarter q must hold channels 16q + 4l..: a transpose of 4 × 4 groups of four bytes.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for block in 0..channels.div_ceil(64) {
        let c = block * 64;
        let count = (channels - c).min(64);
        let lanes: __mmask64 = if count == 64 { !0 } else { (1 << count) - 1 };
        // SAFETY: loads read `count` channels of a pixel inside the input or of the padding; the columns are those just
        // resized; weights, initial accumulators and sums are those of this block, masked to its channels.
        unsafe {
            for group in 0..groups {
                for column in 0..span {
                    let x = (at[1] * stride + column).wrapping_sub(shape.pads[1]);
                    let mut rows = [_mm512_setzero_si512(); 4];
                    for (i, row) in rows.iter_mut().enumerate().take(kernel_h - 4 * group) {
                        let y =
                            (at[0] * shape.stride[0] + (4 * group + i) * shape.dilation[0]).wrapping_sub(shape.pads[0]);
                        let from = if y < shape.input[0] && x < shape.input[1] {
                            strips.x.as_ptr().add(((image * shape.input[0] + y) * shape.input[1] + x) * channels + c)
                        } else {
                            strips.padding.as_ptr().add(c)
                        };
                        let codes = _mm512_maskz_loadu_epi8(lanes, from.cast());
                        *row = _mm512_permutexvar_epi32(order, _mm512_xor_si512(codes, flip));
                    }
                    let low = [_mm512_unpacklo_epi8(rows[0], rows[1]), _mm512_unpacklo_epi8(rows[2], rows[3])];
                    let high = [_mm512_unpackhi_epi8(rows[0], rows[1]), _mm512_unpackhi_epi8(rows[2], rows[3])];
                    let to: *mut __m512i = columns.as_mut_ptr().add((column * groups + group) * 4).cast();
                    to.write(_mm512_unpacklo_epi16(low[0], low[1]));
                    to.add(1).write(_mm512_unpackhi_epi16(low[0], low[1]));
                    to.add(2).write(_mm512_unpacklo_epi16(high[0], high[1]));
                    to.add(3).write(_mm512_unpackhi_epi16(high[0], high[1]));
                }
            }
            let lines: *const __m512i = strips.lines.as_ptr().add(block * groups * kernel_w * 4).cast();
            let parts = [0, 1, 2, 3].map(|q| (lanes >> (16 * q)) as __mmask16);
            let start =
                [0, 1, 2, 3].map(|q| _mm512_maskz_loadu_epi32(parts[q], strips.init.as_ptr().wrapping_add(c + 16 * q)));
            for pixel in 0..pixels {
                let mut sums = start;
                for group in 0..groups {
                    for kx in 0..kernel_w {
                        let column = pixel * stride + kx * dilation;
                        let x: *const __m512i = columns.as_ptr().add((column * groups + group) * 4).cast();
                        let w = lines.add((group * kernel_w + kx) * 4);
                        for (q, sum) in sums.iter_mut().enumerate() {
                            *sum = _mm512_dpbusd_epi32(*sum, *x.add(q), *w.add(q));
                        }
                    }
                }
                for (q, sum) in sums.into_iter().enumerate() {
                    let to = acc.as_mut_ptr().wrapping_add(pixel * channels + c + 16 * q);
                    if parts[q] == 0xFFFF {
                        _mm512_storeu_si512(to.cast(), sum);
                    } else {
                        _mm512_mask_storeu_epi32(to, parts[q], sum);
                    }
                }
            }
        }
    }
}
