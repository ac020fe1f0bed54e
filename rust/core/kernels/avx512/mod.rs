//! AVX-512 VNNI micro-kernels, and AMX ones, which finish their sums in AVX-512.

pub(super) mod amx;
mod depthwise;
mod interleave;
mod product;
pub(super) mod requantize;

pub(super) use depthwise::Strips;
pub(super) use interleave::interleave;
pub(super) use product::Product;

use super::epilogue::Bytes;
use super::isa::{Isa, Simd};
use std::arch::x86_64::*;

/// What multiplies blocks of rows besides vectors.
pub(super) fn tiles(simd: Simd) -> Option<amx::Tiles> {
    (simd.isa() == Isa::AmxInt8).then_some(amx::Tiles::Hardware)
}

/// `rint(fma(f32(a), factors[0], fma(f32(b), factors[1], constant)))` of all whole vectors of 64 codes, as bytes; gives how many
/// codes that is. `A` and `B` say whether the operands are signed.
///
/// # Safety
/// The machine has the features. All slices have the same length; no sum leaves 32 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn float_sum<const A: bool, const B: bool>(
    factors: [f32; 2],
    constant: f32,
    a: &[u8],
    b: &[u8],
    bytes: Bytes,
    out: &mut [u8],
) -> usize {
    let [outer, inner] = factors.map(|f| _mm512_set1_ps(f));
    let constant = _mm512_set1_ps(constant);
    // SAFETY: whole vectors of all slices.
    unsafe {
        let reals = |codes: *const u8, signed: bool| {
            let codes = _mm_loadu_si128(codes.cast());
            _mm512_cvtepi32_ps(if signed { _mm512_cvtepi8_epi32(codes) } else { _mm512_cvtepu8_epi32(codes) })
        };
        for i in 0..out.len() / 64 {
            let sum = |part: usize| {
                let at = 64 * i + 16 * part;
                let rest = _mm512_fmadd_ps(reals(b.as_ptr().add(at), B), inner, constant);
                _mm512_cvt_roundps_epi32::<{ requantize::NEAREST_EVEN }>(_mm512_fmadd_ps(
                    reals(a.as_ptr().add(at), A),
                    outer,
                    rest,
                ))
            };
            let codes = requantize::to_bytes([sum(0), sum(1), sum(2), sum(3)], bytes);
            _mm512_storeu_si512(out.as_mut_ptr().add(64 * i).cast(), requantize::exchange_quarters(codes));
        }
    }
    out.len() / 64 * 64
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

/// Looks up all whole vectors of 64 codes in a table of integers whose bytes lie in four planes, the lowest first; gives how
/// many codes that is.
///
/// Each plane gives a vector of bytes. Interleaving the four twice makes integers, but within quarters of the vectors; the
/// codes are put in such an order before that the integers come out in that of the codes.
///
/// # Safety
/// The machine has the features. `codes` and `out` have the same length.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) unsafe fn lookup8_i32(codes: &[u8], planes: &[[u8; 256]; 4], out: &mut [i32]) -> usize {
    // SAFETY: four vectors of each plane, and whole vectors of both slices.
    unsafe {
        let table = planes.each_ref().map(|plane| {
            let part = |i: usize| _mm512_loadu_si512(plane.as_ptr().add(64 * i).cast());
            [part(0), part(1), part(2), part(3)]
        });
        for i in 0..codes.len() / 64 {
            let codes = requantize::exchange_quarters(_mm512_loadu_si512(codes.as_ptr().add(64 * i).cast()));
            let upper = _mm512_movepi8_mask(codes);
            let [p0, p1, p2, p3] = table.map(|[a, b, c, d]| {
                let (low, high) = (_mm512_permutex2var_epi8(a, codes, b), _mm512_permutex2var_epi8(c, codes, d));
                _mm512_mask_blend_epi8(upper, low, high)
            });
            let (low, high) = (_mm512_unpacklo_epi8(p0, p1), _mm512_unpackhi_epi8(p0, p1));
            let (low_top, high_top) = (_mm512_unpacklo_epi8(p2, p3), _mm512_unpackhi_epi8(p2, p3));
            let out = out.as_mut_ptr().add(64 * i);
            _mm512_storeu_si512(out.cast(), _mm512_unpacklo_epi16(low, low_top));
            _mm512_storeu_si512(out.add(16).cast(), _mm512_unpackhi_epi16(low, low_top));
            _mm512_storeu_si512(out.add(32).cast(), _mm512_unpacklo_epi16(high, high_top));
            _mm512_storeu_si512(out.add(48).cast(), _mm512_unpackhi_epi16(high, high_top));
        }
    }
    codes.len() / 64 * 64
}
