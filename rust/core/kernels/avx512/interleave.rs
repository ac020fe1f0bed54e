//! Interleaving weights: sixteen columns of four bytes become one line.

use super::super::pack::{Line, PANEL};
use std::arch::x86_64::*;

/// The first lines of a panel, sixteen at a time; gives how many those are. Bytes are XORed with `flip`.
///
/// Sixteen vectors of sixteen quads, one of each column, are a matrix that is transposed: quads of two columns are paired, then
/// pairs, then quarters of vectors twice.
///
/// # Safety
/// The machine has AVX-512 F. All columns are equally long; `lines` has room for as many.
#[target_feature(enable = "avx512f")]
pub(in super::super) unsafe fn interleave(columns: &[&[[u8; 4]]; PANEL], flip: u8, lines: *mut Line) -> usize {
    let flip = _mm512_set1_epi8(flip as i8);
    let blocks = columns[0].len() / PANEL;
    for block in 0..blocks {
        // SAFETY: whole blocks of the columns and lines.
        unsafe {
            let column = |c: usize| _mm512_loadu_si512(columns[c].as_ptr().add(block * PANEL).cast());
            let x: [__m512i; 16] = std::array::from_fn(column);
            let pairs: [__m512i; 16] = std::array::from_fn(|i| match i % 2 {
                0 => _mm512_unpacklo_epi32(x[i], x[i + 1]),
                _ => _mm512_unpackhi_epi32(x[i - 1], x[i]),
            });
            // Vector 4·i + j: quads 4·q + j of columns 4·i to 4·i + 3 in quarter q.
            let fours: [__m512i; 16] = std::array::from_fn(|i| {
                let (low, high) = (pairs[i / 4 * 4 + i % 4 / 2], pairs[i / 4 * 4 + i % 4 / 2 + 2]);
                if i % 2 == 0 { _mm512_unpacklo_epi64(low, high) } else { _mm512_unpackhi_epi64(low, high) }
            });
            for j in 0..4 {
                let [a, b, c, d] = std::array::from_fn(|i| fours[4 * i + j]);
                let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xDD>(a, b));
                let (cd_even, cd_odd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xDD>(c, d));
                let quarters = [
                    _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even),
                    _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd),
                    _mm512_shuffle_i32x4::<0xDD>(ab_even, cd_even),
                    _mm512_shuffle_i32x4::<0xDD>(ab_odd, cd_odd),
                ];
                for (q, line) in quarters.into_iter().enumerate() {
                    let to = lines.add(block * PANEL + 4 * q + j);
                    _mm512_store_si512(to.cast(), _mm512_xor_si512(line, flip));
                }
            }
        }
    }
    blocks * PANEL
}
