//! AArch64 micro-kernels: NEON, the dot product (FEAT_DotProd), the 8-bit matrix product (FEAT_I8MM).
//!
//! All are exact modulo 2^32. NEON alone widens products of signed bytes to 16 bits, which hold one of them, and adds pairs
//! of these in 32. The dot product takes signed bytes, the matrix product bytes of any signs; [`super::byte_form::ByteForm`] says
//! which of them a left operand has. Tiles are of six rows by sixteen columns: 24 of the 32 registers are accumulators, the
//! rest holds three pairs of rows and the weights of a few columns.
//!
//! Accumulators of sixteen columns go to the epilogue through the first-level cache; there are no fused forms.

mod depthwise;
mod dot;
mod product;

pub(super) use depthwise::{Strips, pixel};
pub(super) use product::Product;

use std::arch::aarch64::*;

/// Looks up all whole vectors of 16 codes; gives how many codes that is.
///
/// # Safety
/// The machine has NEON. `x` and `out` have the same length.
#[target_feature(enable = "neon")]
pub(super) unsafe fn lookup8(x: &[u8], table: &[u8; 256], out: &mut [u8]) -> usize {
    // SAFETY: sixteen vectors of the table, and whole vectors of both slices.
    unsafe {
        let quarter = |i: usize| vld1q_u8_x4(table.as_ptr().add(64 * i));
        let (a, b, c, d) = (quarter(0), quarter(1), quarter(2), quarter(3));
        let step = vdupq_n_u8(64);
        for i in 0..x.len() / 16 {
            // An index beyond a quarter leaves what the others found; smaller ones wrap beyond it.
            let codes = vld1q_u8(x.as_ptr().add(16 * i));
            let value = vqtbl4q_u8(a, codes);
            let codes = vsubq_u8(codes, step);
            let value = vqtbx4q_u8(value, b, codes);
            let codes = vsubq_u8(codes, step);
            let value = vqtbx4q_u8(value, c, codes);
            let codes = vsubq_u8(codes, step);
            vst1q_u8(out.as_mut_ptr().add(16 * i), vqtbx4q_u8(value, d, codes));
        }
    }
    x.len() / 16 * 16
}
