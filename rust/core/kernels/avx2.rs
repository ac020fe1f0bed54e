//! AVX2 micro-kernels, with and without the dot product of AVX-VNNI.
//!
//! Without it products are formed by the 16-bit multiply-add on widened bytes, which is exact: the 8-bit one saturates
//! its pair sums to 16 bits.

use super::gemm::Lhs;
use super::pack::{Line, PANEL};
use std::arch::x86_64::*;

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
    /// `acc[r][c] = init[c] + Σ_k a[r][k]·w[k][c]` by 16-bit multiply-add, `acc` with a stride of `width`.
    multiply,
    kernel_madd,
    "avx2",
    [2, 1]
);
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

/// # Safety
/// As [`multiply`], for `R` rows and one panel.
#[target_feature(enable = "avx2")]
unsafe fn kernel_madd<const R: usize>(
    rows: [*const u8; R],
    runs: &[usize],
    per_run: usize,
    mut b: *const i8,
    init: *const i32,
    c: *mut i32,
    width: usize,
) {
    // acc[r][q] holds, for columns 4q..4q+4, the sums of the even and of the odd pairs of products side by side.
    let mut acc = [[_mm256_setzero_si256(); 4]; R];
    // SAFETY: all addresses lie within the extents that the contract names.
    unsafe {
        for run in runs {
            for k in 0..per_run {
                let w = [
                    _mm256_cvtepi8_epi16(_mm_load_si128(b.cast())),
                    _mm256_cvtepi8_epi16(_mm_load_si128(b.add(16).cast())),
                    _mm256_cvtepi8_epi16(_mm_load_si128(b.add(32).cast())),
                    _mm256_cvtepi8_epi16(_mm_load_si128(b.add(48).cast())),
                ];
                b = b.add(64);
                for (r, row) in acc.iter_mut().enumerate() {
                    let bytes = _mm_cvtsi32_si128(rows[r].add(run + 4 * k).cast::<i32>().read_unaligned());
                    let x = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(bytes));
                    for q in 0..4 {
                        row[q] = _mm256_add_epi32(row[q], _mm256_madd_epi16(x, w[q]));
                    }
                }
            }
        }
        for (r, row) in acc.iter().enumerate() {
            for half in 0..2 {
                let sums = _mm256_hadd_epi32(row[2 * half], row[2 * half + 1]);
                let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(sums);
                let start = _mm256_loadu_si256(init.add(8 * half).cast());
                _mm256_storeu_si256(c.add(r * width + 8 * half).cast(), _mm256_add_epi32(start, ordered));
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
