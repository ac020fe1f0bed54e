//! AVX2 forms of the epilogues: eight (32-bit) or four (64-bit) channels at a time, the rest by the scalar form.

use super::super::code::Code;
use super::fixed::{DoubleRounding, MulShift, ShiftRounding};
use super::{AccTile, FloatScale, OutTile};
use std::arch::x86_64::*;

/// # Safety
/// The machine has the features. The tile lies within `acc` and `out`, and its channels within the parameters.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn float_scale<O: Code>(p: &FloatScale<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
    let (least, most) = (_mm256_set1_ps(p.lo), _mm256_set1_ps(p.hi));
    let (lo, hi) = (_mm256_set1_epi32(p.clip.lo), _mm256_set1_epi32(p.clip.hi));
    let zero_point = _mm256_set1_epi32(p.clip.zero_point);
    let whole = tile.cols / 8 * 8;
    for c in (0..whole).step_by(8) {
        // SAFETY: eight whole channels and columns of the tile.
        unsafe {
            let scale = _mm256_loadu_ps(p.scale.as_ptr().add(tile.channel + c));
            for r in 0..tile.rows {
                let acc = _mm256_loadu_si256(tile.acc.as_ptr().add(r * tile.stride + c).cast());
                let v = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale);
                let v = _mm256_min_ps(_mm256_max_ps(v, least), most);
                let q = _mm256_cvtps_epi32(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v));
                let q = _mm256_add_epi32(_mm256_min_epi32(_mm256_max_epi32(q, lo), hi), zero_point);
                let mut codes = [0i32; 8];
                _mm256_storeu_si256(codes.as_mut_ptr().cast(), q);
                for (o, q) in out.data[r * out.stride + c..][..8].iter_mut().zip(codes) {
                    *o = O::wrap32(q);
                }
            }
        }
    }
    if whole < tile.cols {
        p.apply_scalar(tile, out, whole);
    }
}

/// # Safety
/// The machine has the features. The tile lies within `acc` and `out`, and its channels within the parameters.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn double_rounding<O: Code>(p: &DoubleRounding<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
    let one = _mm256_set1_epi32(1);
    let nudge = _mm256_set1_epi64x(1 << 30);
    let (lo, hi) = (_mm256_set1_epi32(p.clip.lo), _mm256_set1_epi32(p.clip.hi));
    let zero_point = _mm256_set1_epi32(p.clip.zero_point);
    let whole = tile.cols / 8 * 8;
    for c in (0..whole).step_by(8) {
        let channel = tile.channel + c;
        // SAFETY: eight whole channels and columns of the tile.
        unsafe {
            let load = |v: &[i32]| _mm256_loadu_si256(v.as_ptr().add(channel).cast());
            let (left, right, even) = (load(&p.left), load(&p.right), load(&p.multiplier));
            let odd = _mm256_srli_epi64::<32>(even);
            let mask = _mm256_sub_epi32(_mm256_sllv_epi32(one, right), one);
            let half = _mm256_srli_epi32::<1>(mask);
            for r in 0..tile.rows {
                let acc = _mm256_loadu_si256(tile.acc.as_ptr().add(r * tile.stride + c).cast());
                let t = _mm256_sllv_epi32(acc, left);
                let low = _mm256_add_epi64(_mm256_mul_epi32(t, even), nudge);
                let high = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64::<32>(t), odd), nudge);
                let t = _mm256_blend_epi32::<0xAA>(_mm256_srli_epi64::<31>(low), _mm256_slli_epi64::<1>(high));
                // Half away from zero: up where the remainder exceeds half, or reaches it and t is not negative.
                let threshold = _mm256_sub_epi32(half, _mm256_srai_epi32::<31>(t));
                let up = _mm256_cmpgt_epi32(_mm256_and_si256(t, mask), threshold);
                let q = _mm256_sub_epi32(_mm256_srav_epi32(t, right), up);
                let q = _mm256_add_epi32(_mm256_min_epi32(_mm256_max_epi32(q, lo), hi), zero_point);
                let mut codes = [0i32; 8];
                _mm256_storeu_si256(codes.as_mut_ptr().cast(), q);
                for (o, q) in out.data[r * out.stride + c..][..8].iter_mut().zip(codes) {
                    *o = O::wrap32(q);
                }
            }
        }
    }
    if whole < tile.cols {
        p.apply_scalar(tile, out, whole);
    }
}

/// The arithmetic right shift of 64-bit lanes, which AVX2 lacks: `bias` is `2^63 >> shift`.
#[inline]
#[target_feature(enable = "avx2")]
fn srav_epi64(v: __m256i, shift: __m256i, bias: __m256i) -> __m256i {
    let top = _mm256_set1_epi64x(i64::MIN);
    _mm256_sub_epi64(_mm256_srlv_epi64(_mm256_xor_si256(v, top), shift), bias)
}

/// # Safety
/// As [`double_rounding`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn mul_shift<O: Code>(p: &MulShift<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
    let zero = _mm256_setzero_si256();
    let one = _mm256_set1_epi64x(1);
    let (lo, hi) = (_mm256_set1_epi64x(p.qmin.into()), _mm256_set1_epi64x(p.qmax.into()));
    let zero_point = _mm256_set1_epi64x(p.zero_point.into());
    let whole = tile.cols / 4 * 4;
    for c in (0..whole).step_by(4) {
        let channel = tile.channel + c;
        // SAFETY: four whole channels and columns of the tile.
        unsafe {
            let load = |v: &[i64]| _mm256_loadu_si256(v.as_ptr().add(channel).cast());
            let m = _mm256_cvtepi32_epi64(_mm_loadu_si128(p.multiplier.as_ptr().add(channel).cast()));
            let (offset, constant) = (load(&p.offset), load(&p.constant));
            let (shift, shifted) = (load(&p.shift), load(&p.shifted));
            let bias = _mm256_srlv_epi64(_mm256_set1_epi64x(i64::MIN), shift);
            for r in 0..tile.rows {
                let acc = _mm_loadu_si128(tile.acc.as_ptr().add(r * tile.stride + c).cast());
                let v = _mm256_add_epi64(_mm256_mul_epi32(_mm256_cvtepi32_epi64(acc), m), offset);
                let extra = match p.rounding {
                    ShiftRounding::Floor | ShiftRounding::HalfUp => zero,
                    ShiftRounding::HalfAway => _mm256_and_si256(_mm256_cmpgt_epi64(zero, v), shifted),
                    ShiftRounding::HalfEven => {
                        _mm256_and_si256(_mm256_and_si256(srav_epi64(v, shift, bias), one), shifted)
                    }
                };
                let v = _mm256_add_epi64(_mm256_add_epi64(v, constant), extra);
                let q = _mm256_add_epi64(srav_epi64(v, shift, bias), zero_point);
                let q = _mm256_blendv_epi8(q, lo, _mm256_cmpgt_epi64(lo, q));
                let q = _mm256_blendv_epi8(q, hi, _mm256_cmpgt_epi64(q, hi));
                let mut codes = [0i64; 4];
                _mm256_storeu_si256(codes.as_mut_ptr().cast(), q);
                for (o, q) in out.data[r * out.stride + c..][..4].iter_mut().zip(codes) {
                    *o = O::wrap(q);
                }
            }
        }
    }
    if whole < tile.cols {
        p.apply_scalar(tile, out, whole);
    }
}
