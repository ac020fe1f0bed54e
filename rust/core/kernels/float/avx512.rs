//! AVX-512 micro-kernel of the f32 product: up to twelve rows by 32 columns in registers.

use super::gemm::{Line, PANEL};
use std::arch::x86_64::*;

/// `sums[r][c] = Σ_k a[r][k]·w[k][c]` in ascending `k`, `sums` with a stride of 32.
///
/// # Safety
/// The machine has AVX-512 F. `a` holds `rows` rows of `k` values at `stride`, `lines` holds one or two panels of `k` lines,
/// and `sums` holds `32·rows` values.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn multiply(a: &[f32], stride: usize, rows: usize, lines: &[Line], k: usize, sums: &mut [f32]) {
    let two = lines.len() == 2 * k;
    let b = lines.as_ptr().cast::<f32>();
    let mut row = 0;
    macro_rules! run {
        ($rows:literal) => {
            while rows - row >= $rows {
                let (a, c) = (a[row * stride..].as_ptr(), sums[row * 2 * PANEL..].as_mut_ptr());
                // SAFETY: these rows and all lines lie inside the slices, by the contract.
                unsafe {
                    if two {
                        kernel::<$rows, 2>(k, a, stride, b, c);
                    } else {
                        kernel::<$rows, 1>(k, a, stride, b, c);
                    }
                }
                row += $rows;
            }
        };
    }
    run!(12);
    run!(6);
    run!(2);
    run!(1);
}

/// # Safety
/// As [`multiply`], for `R` rows and `V` panels.
#[target_feature(enable = "avx512f")]
unsafe fn kernel<const R: usize, const V: usize>(k: usize, a: *const f32, stride: usize, b: *const f32, c: *mut f32) {
    let mut acc = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: all addresses lie within the extents that the contract names.
    unsafe {
        for i in 0..k {
            let mut w = [_mm512_setzero_ps(); V];
            for (v, w) in w.iter_mut().enumerate() {
                *w = _mm512_load_ps(b.add((v * k + i) * PANEL));
            }
            for (r, row) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(r * stride + i));
                for v in 0..V {
                    row[v] = _mm512_fmadd_ps(x, w[v], row[v]);
                }
            }
        }
        for (r, row) in acc.iter().enumerate() {
            for (v, &value) in row.iter().enumerate() {
                _mm512_storeu_ps(c.add(r * 2 * PANEL + v * PANEL), value);
            }
        }
    }
}
