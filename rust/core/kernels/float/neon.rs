//! NEON micro-kernel of the f32 product: up to six rows by sixteen columns in registers.

use super::gemm::{Line, PANEL};
use std::arch::aarch64::*;

/// `sums[r][c] = Σ_k a[r][k]·w[k][c]` in ascending `k`, `sums` with a stride of 32.
///
/// # Safety
/// `a` holds `rows` rows of `k` values at `stride`, `lines` holds one or two panels of `k` lines, and `sums` holds `32·rows`
/// values.
#[target_feature(enable = "neon")]
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
#[target_feature(enable = "neon")]
unsafe fn kernel<const R: usize>(k: usize, a: *const f32, stride: usize, b: *const f32, c: *mut f32) {
    let mut acc = [[vdupq_n_f32(0.0); 4]; R];
    // SAFETY: all addresses lie within the extents that the contract names.
    unsafe {
        for i in 0..k {
            let w: [float32x4_t; 4] = std::array::from_fn(|v| vld1q_f32(b.add(i * PANEL + 4 * v)));
            for (r, row) in acc.iter_mut().enumerate() {
                let x = *a.add(r * stride + i);
                for v in 0..4 {
                    row[v] = vfmaq_n_f32(row[v], w[v], x);
                }
            }
        }
        for (r, row) in acc.iter().enumerate() {
            for (v, &value) in row.iter().enumerate() {
                vst1q_f32(c.add(r * 2 * PANEL + 4 * v), value);
            }
        }
    }
}
