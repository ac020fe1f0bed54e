//! AVX2 micro-kernels, with and without the dot product of AVX-VNNI.
//!
//! Without it products are formed by the 16-bit multiply-add on widened bytes, which is exact: the 8-bit one saturates
//! its pair sums to 16 bits. Both operands are widened once for a block of rows and columns, since the instructions that do
//! it would otherwise take longer than the products.

use super::gemm::Lhs;
use super::pack::{Line, PANEL};
use super::scratch::{at_least, with_kept};
use std::arch::x86_64::*;
use std::cell::Cell;

macro_rules! multiply {
    ($(#[$meta:meta])* $name:ident, $kernel:ident, $features:literal, [$($rows:literal),+]) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// The machine has the features. All runs of all rows lie in the left operand, `per_run` groups of four each;
        /// `lines` holds `panels·groups` lines, `init` holds `16·panels` values and `acc` all rows at `width`.
        #[target_feature(enable = $features)]
        #[allow(clippy::too_many_arguments)]
        pub(super) unsafe fn $name(
            lhs: &Lhs<'_>,
            per_run: usize,
            lines: &[Line],
            groups: usize,
            panels: usize,
            init: &[i32],
            acc: &mut [i32],
            width: usize,
        ) {
            let a = lhs.bytes.as_ptr();
            for panel in 0..panels {
                let b = lines[panel * groups..].as_ptr().cast::<i8>();
                let init = init[panel * PANEL..].as_ptr();
                let mut row = 0;
                $(
                    while lhs.rows.len() - row >= $rows {
                        let c = acc[row * width + panel * PANEL..].as_mut_ptr();
                        let rows: [*const u8; $rows] = std::array::from_fn(|r| a.wrapping_add(lhs.rows[row + r]));
                        // SAFETY: these rows and all groups of the panel lie inside the slices, by the contract.
                        unsafe { $kernel::<$rows>(rows, lhs.runs, per_run, b, init, c, width) };
                        row += $rows;
                    }
                )+
            }
        }
    };
}

multiply!(
    /// `acc[r][c] = init[c] + Σ_k a[r][k]·w[k][c]` by the 256-bit dot product, `acc` with a stride of `width`.
    multiply_vnni,
    kernel_vnni,
    "avx2,avxvnni",
    [6, 4, 2, 1]
);

macro_rules! kernel_vnni {
    ($name:ident, $features:literal, $dot:ident) => {
        /// # Safety
        /// The machine has the features; otherwise as [`multiply_vnni`], for `R` rows and one panel.
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize>(
            rows: [*const u8; R],
            runs: &[usize],
            per_run: usize,
            mut b: *const i8,
            init: *const i32,
            c: *mut i32,
            width: usize,
        ) {
            let mut acc = [[_mm256_setzero_si256(); 2]; R];
            // SAFETY: all addresses lie within the extents that the contract names.
            unsafe {
                for v in 0..2 {
                    let start = _mm256_loadu_si256(init.add(8 * v).cast());
                    for row in &mut acc {
                        row[v] = start;
                    }
                }
                for run in runs {
                    for k in 0..per_run {
                        let w = [_mm256_load_si256(b.cast()), _mm256_load_si256(b.add(32).cast())];
                        b = b.add(64);
                        for (r, row) in acc.iter_mut().enumerate() {
                            let x = rows[r].add(run + 4 * k).cast::<i32>().read_unaligned();
                            for v in 0..2 {
                                row[v] = $dot(row[v], _mm256_set1_epi32(x), w[v]);
                            }
                        }
                    }
                }
                for (r, row) in acc.iter().enumerate() {
                    for (v, &value) in row.iter().enumerate() {
                        _mm256_storeu_si256(c.add(r * width + 8 * v).cast(), value);
                    }
                }
            }
        }
    };
}

kernel_vnni!(kernel_vnni, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);

thread_local! {
    /// Rows and a panel of weights in 16 bits.
    static WIDENED: Cell<[Vec<[i16; 16]>; 2]> = Cell::default();
}

/// `acc[r][c] = init[c] + Σ_k a[r][k]·w[k][c]` by 16-bit multiply-add, `acc` with a stride of `width`:
///
/// ```text
/// x = the rows in 16 bits, all runs of a row together
/// for panel
///     w = the panel in 16 bits, four k of a column side by side
///     for three rows
///         for group of four k:  sums[row][column][0..2] += x[row][4k..] · w[column][4k..], two products each
///         acc = init + sums[..][0] + sums[..][1]
/// ```
///
/// # Safety
/// As `multiply_vnni`, with AVX2.
#[target_feature(enable = "avx2")]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn multiply(
    lhs: &Lhs<'_>,
    per_run: usize,
    lines: &[Line],
    groups: usize,
    panels: usize,
    init: &[i32],
    acc: &mut [i32],
    width: usize,
) {
    let count = lhs.rows.len();
    // A row takes whole vectors; what lies behind its groups is not read.
    let pitch = groups.div_ceil(4);
    with_kept(&WIDENED, |[rows, panel_lines]| {
        let rows = at_least(rows, count * pitch).as_flattened_mut();
        for (&row, to) in lhs.rows.iter().zip(rows.chunks_exact_mut(pitch.max(1) * 16)) {
            for (run, to) in lhs.runs.iter().zip(to.chunks_exact_mut((per_run * 4).max(1))) {
                let from = &lhs.bytes[row + run..][..per_run * 4];
                to.iter_mut().zip(from).for_each(|(to, &byte)| *to = byte.into());
            }
        }
        // Few rows widen the weights as they read them.
        let widened = if count < 3 { &mut [] } else { at_least(panel_lines, groups * 4) };
        for panel in 0..panels {
            let lines = &lines[panel * groups..][..groups];
            for (line, to) in lines.iter().zip(widened.as_chunks_mut::<4>().0) {
                to.as_flattened_mut().iter_mut().zip(line.0).for_each(|(to, weight)| *to = weight.into());
            }
            let widened = widened.as_chunks::<4>().0;
            // SAFETY: sixteen weights each.
            let wide = |k: usize, q: usize| unsafe { _mm256_loadu_si256(widened[k][q].as_ptr().cast()) };
            let narrow = |k: usize, q: usize| unsafe {
                _mm256_cvtepi8_epi16(_mm_load_si128(lines[k].0.as_ptr().add(16 * q).cast()))
            };
            let init = &init[panel * PANEL..][..PANEL];
            let mut row = 0;
            while row < count {
                let x = rows[row * pitch * 16..].as_ptr();
                let out = &mut acc[row * width + panel * PANEL..];
                // Three at a time fill the registers; of four, two and two take less than three and one.
                let taken = match count - row {
                    left @ 1..=2 => left,
                    4 => 2,
                    _ => 3,
                };
                assert!(out.len() >= (taken - 1) * width + PANEL, "rows of accumulators");
                // SAFETY: `taken` rows of `groups` groups lie `pitch` vectors apart, and the accumulators are asserted.
                unsafe {
                    match taken {
                        1 if count < 3 => madd::<1>(x, pitch * 16, groups, narrow, init, out, width),
                        2 if count < 3 => madd::<2>(x, pitch * 16, groups, narrow, init, out, width),
                        1 => madd::<1>(x, pitch * 16, groups, wide, init, out, width),
                        2 => madd::<2>(x, pitch * 16, groups, wide, init, out, width),
                        _ => madd::<3>(x, pitch * 16, groups, wide, init, out, width),
                    }
                }
                row += taken;
            }
        }
    });
}

/// The sums of `R` rows of `x`, `pitch` apart, and a panel: `w(k, q)` are the weights of group `k` and the columns `4q..4q+4`.
///
/// # Safety
/// The machine has AVX2; each row has four values for each of `groups`, and `acc` holds a panel of each row, `width` apart.
#[target_feature(enable = "avx2")]
unsafe fn madd<const R: usize>(
    x: *const i16,
    pitch: usize,
    groups: usize,
    w: impl Fn(usize, usize) -> __m256i,
    init: &[i32],
    acc: &mut [i32],
    width: usize,
) {
    // sums[r][q] holds, for columns 4q..4q+4, the sums of the even and of the odd pairs of products side by side.
    let mut sums = [[_mm256_setzero_si256(); 4]; R];
    for k in 0..groups {
        // SAFETY: the caller's.
        let x: [__m256i; R] = std::array::from_fn(|r| unsafe {
            _mm256_set1_epi64x(x.add(r * pitch + 4 * k).cast::<i64>().read_unaligned())
        });
        for q in 0..4 {
            let w = w(k, q);
            for (sums, &x) in sums.iter_mut().zip(&x) {
                sums[q] = _mm256_add_epi32(sums[q], _mm256_madd_epi16(x, w));
            }
        }
    }
    for (row, acc) in sums.iter().zip(acc.chunks_mut(width)) {
        for half in 0..2 {
            let sums = _mm256_hadd_epi32(row[2 * half], row[2 * half + 1]);
            let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(sums);
            let (start, to) = (&init[8 * half..][..8], &mut acc[8 * half..][..8]);
            // SAFETY: eight values each.
            unsafe {
                let start = _mm256_loadu_si256(start.as_ptr().cast());
                _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm256_add_epi32(start, ordered));
            }
        }
    }
}

/// `acc[c] = init[c] + Σ_t taps[t][c]·w[t][c]` for the whole blocks of sixteen channels; gives how many channels that is.
///
/// # Safety
/// The machine has AVX2. `taps` has an even length and each tap, `init` and `acc` have the same length; `pairs` holds
/// `taps.len() / 2` entries per block.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn depthwise<const SIGNED: bool>(
    taps: &[&[u8]],
    pairs: &[[i16; 2 * PANEL]],
    init: &[i32],
    acc: &mut [i32],
) -> usize {
    let widen = |bytes: __m128i| if SIGNED { _mm256_cvtepi8_epi16(bytes) } else { _mm256_cvtepu8_epi16(bytes) };
    let per_block = taps.len() / 2;
    let whole = acc.len() / PANEL;
    for block in 0..whole {
        let c = block * PANEL;
        // SAFETY: sixteen whole channels of every tap, of `init` and of `acc`; the pairs of this block.
        unsafe {
            let mut low = _mm256_loadu_si256(init.as_ptr().add(c).cast());
            let mut high = _mm256_loadu_si256(init.as_ptr().add(c + 8).cast());
            for (p, pair) in taps.chunks_exact(2).enumerate() {
                let first = _mm_loadu_si128(pair[0].as_ptr().add(c).cast());
                let second = _mm_loadu_si128(pair[1].as_ptr().add(c).cast());
                let w: *const __m256i = pairs.as_ptr().add(block * per_block + p).cast();
                let x = widen(_mm_unpacklo_epi8(first, second));
                low = _mm256_add_epi32(low, _mm256_madd_epi16(x, _mm256_loadu_si256(w)));
                let x = widen(_mm_unpackhi_epi8(first, second));
                high = _mm256_add_epi32(high, _mm256_madd_epi16(x, _mm256_loadu_si256(w.add(1))));
            }
            _mm256_storeu_si256(acc.as_mut_ptr().add(c).cast(), low);
            _mm256_storeu_si256(acc.as_mut_ptr().add(c + 8).cast(), high);
        }
    }
    whole * PANEL
}

/// One row of a depthwise convolution of 3×3 taps next to each other: `acc[x][c] = init[c] + Σ x·w`, for sixteen channels at a
/// time. Each column of the input is widened once and stays in registers for the outputs that it reaches: two of its rows
/// side by side, and the third one beside zeros.
///
/// # Safety
/// The machine has AVX2. `from` points to the first byte of the first window; three rows, `pitch` apart, of all columns that
/// the outputs reach lie there. `acc` holds whole pixels of as many channels as `init`, at least sixteen; `columns` holds for
/// each sixteen channels, the last ones at the end, of each column of taps the weights of the first two rows side by side, and
/// then those of the third one beside zeros.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn depthwise_three<const SIGNED: bool>(
    from: *const u8,
    pitch: usize,
    stride: usize,
    columns: &[[[i16; 2 * PANEL]; 6]],
    init: &[i32],
    acc: &mut [i32],
) {
    let channels = init.len();
    for (block, weights) in columns.iter().enumerate() {
        let c = (block * PANEL).min(channels - PANEL);
        // SAFETY: three rows of sixteen channels of a column that the outputs reach.
        let column = |x: usize| unsafe {
            let at = from.add(x * channels + c);
            let [a, b, third] = std::array::from_fn(|row| _mm_loadu_si128(at.add(row * pitch).cast()));
            let (low, high) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
            let upper = _mm_unpackhi_epi64(third, third);
            match SIGNED {
                true => [
                    _mm256_cvtepi8_epi16(low),
                    _mm256_cvtepi8_epi16(high),
                    _mm256_cvtepi8_epi32(third),
                    _mm256_cvtepi8_epi32(upper),
                ],
                false => [
                    _mm256_cvtepu8_epi16(low),
                    _mm256_cvtepu8_epi16(high),
                    _mm256_cvtepu8_epi32(third),
                    _mm256_cvtepu8_epi32(upper),
                ],
            }
        };
        // SAFETY: sixteen weights.
        let weight = |i: usize, half: usize| unsafe { _mm256_loadu_si256(weights[i][16 * half..].as_ptr().cast()) };
        // SAFETY: sixteen channels.
        let start = [0, 8].map(|half| unsafe { _mm256_loadu_si256(init[c + half..][..8].as_ptr().cast()) });
        let mut x = [column(0), column(1), column(2)];
        for (i, pixel) in acc.chunks_exact_mut(channels).enumerate() {
            match (i, stride) {
                (0, _) => {}
                (_, 1) => x = [x[1], x[2], column(i + 2)],
                _ => x = [x[2], column(2 * i + 1), column(2 * i + 2)],
            }
            for (half, &start) in start.iter().enumerate() {
                let mut sum = start;
                for (kx, x) in x.iter().enumerate() {
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x[half], weight(2 * kx, half)));
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x[2 + half], weight(2 * kx + 1, half)));
                }
                // SAFETY: eight channels of the pixel.
                unsafe { _mm256_storeu_si256(pixel[c + 8 * half..][..8].as_mut_ptr().cast(), sum) };
            }
        }
    }
}

/// Looks up all whole vectors of 32 codes; gives how many codes that is.
///
/// # Safety
/// The machine has AVX2. `x` and `out` have the same length.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn lookup8(x: &[u8], table: &[u8; 256], out: &mut [u8]) -> usize {
    // SAFETY: sixteen vectors of the table, and whole vectors of both slices.
    unsafe {
        let part = |i: usize| _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().add(16 * i).cast()));
        let low_bits = _mm256_set1_epi8(15);
        for i in 0..x.len() / 32 {
            let codes = _mm256_loadu_si256(x.as_ptr().add(32 * i).cast());
            let low = _mm256_and_si256(codes, low_bits);
            let high = _mm256_andnot_si256(low_bits, codes);
            let mut value = _mm256_setzero_si256();
            for row in 0..16 {
                let chosen = _mm256_cmpeq_epi8(high, _mm256_set1_epi8((row << 4) as u8 as i8));
                let entry = _mm256_shuffle_epi8(part(row), low);
                value = _mm256_or_si256(value, _mm256_and_si256(chosen, entry));
            }
            _mm256_storeu_si256(out.as_mut_ptr().add(32 * i).cast(), value);
        }
    }
    x.len() / 32 * 32
}

#[cfg(test)]
mod tests {
    use super::super::byte_form::ByteForm;
    use super::super::isa::{Isa, Simd};
    use super::super::testing::Random;
    use super::*;

    kernel_vnni!(kernel_vl, "avx2,avx512vl,avx512vnni", _mm256_dpbusd_epi32);
    multiply!(
        /// The AVX-VNNI kernel in the encoding of AVX-512, which more machines have.
        multiply_vl,
        kernel_vl,
        "avx2,avx512vl,avx512vnni",
        [6, 4, 2, 1]
    );

    #[test]
    fn the_256_bit_dot_product_equals_the_16_bit_multiply_add() {
        if Simd::new(Isa::Avx512Vnni).is_none() {
            return;
        }
        let mut random = Random::new(21);
        let groups = 9;
        let a = random.codes::<u8>(13 * 40);
        let w = random.codes::<i8>(2 * groups * 64);
        let lines: Vec<Line> = w.chunks_exact(64).map(|c| Line(c.try_into().unwrap())).collect();
        let init = random.ints(32, i32::MIN, i32::MAX);
        for (rows, panels) in [(1, 2), (5, 1), (13, 2)] {
            let (mut dot, mut madd) = (vec![0; rows * 32], vec![0; rows * 32]);
            let starts: Vec<usize> = (0..rows).map(|r| 40 * r).collect();
            let lhs = Lhs {
                bytes: &a,
                rows: &starts,
                runs: &[0, 12, 23],
                form: ByteForm::new(Simd::new(Isa::Scalar).unwrap(), false),
            };
            // SAFETY: the machine has AVX-512 VNNI, and the slices hold what the kernels ask for.
            unsafe {
                multiply_vl(&lhs, 3, &lines, groups, panels, &init, &mut dot, 32);
                multiply(&lhs, 3, &lines, groups, panels, &init, &mut madd, 32);
            }
            assert_eq!(dot, madd);
        }
    }
}
