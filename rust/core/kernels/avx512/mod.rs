//! AVX-512 VNNI micro-kernels.

mod depthwise;
mod product;
mod requantize;

pub(super) use depthwise::Strips;
pub(super) use product::Product;

use std::arch::x86_64::*;

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
