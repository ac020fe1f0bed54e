//! AVX2 micro-kernel of the f32 product: up to six rows by sixteen columns in registers.

use super::gemm::{Line, PANEL};
use std::arch::x86_64::*;

/// `sums[r][c] = Σ_k a[r][k]·w[k][c]` in ascending `k`, `sums` with a stride of 32.
///
/// # Safety
/// The machine has AVX2 and FMA. `a` holds `rows` rows of `k` values at `stride`, `lines` holds one or two panels of `k`
/// lines, and `sums` holds `32·rows` values.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply(a: &[f32], stride: usize, rows: usize, lines: &[Line], k: usize, sums: &mut [f32]) {
    for (panel, lines) in lines.chunks_exact(k).enumerate() {
        let b = lines.as_ptr().cast::<f32>();
        let mut row = 0;
        macro_rules! run {
            ($rows:literal) => {
                while rows - row >= $rows {
                    let (a, c) = (a[row * stride..].as_ptr(), sums[row * 2 * PANEL + panel * PANEL..].as_mut_ptr());
                    // SAFETY: these rows and the lines of the panel lie inside the slices, by the contract.
                    unsafe { kernel::<$rows>(k, a, stride, b, c) };
                    row += $rows;
                }
            };
        }
        run!(6);
        run!(2);
        run!(1);
    }
}

/// # Safety
/// As [`multiply`], for `R` rows and one panel.
#[target_feature(enable = "avx2,fma")]
unsafe fn kernel<const R: usize>(k: usize, a: *const f32, stride: usize, b: *const f32, c: *mut f32) {
    let mut acc = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: all addresses lie within the extents that the contract names.
    unsafe {
        for i in 0..k {
            let w = [_mm256_load_ps(b.add(i * PANEL)), _mm256_load_ps(b.add(i * PANEL + 8))];
            for (r, row) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*a.add(r * stride + i));
                for v in 0..2 {
                    row[v] = _mm256_fmadd_ps(x, w[v], row[v]);
                }
            }
        }
        for (r, row) in acc.iter().enumerate() {
            for (v, &value) in row.iter().enumerate() {
                _mm256_storeu_ps(c.add(r * 2 * PANEL + 8 * v), value);
            }
        }
    }
}
