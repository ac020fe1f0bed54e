//! AVX-512 VNNI micro-kernels: up to twelve rows by 32 columns in registers.

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
