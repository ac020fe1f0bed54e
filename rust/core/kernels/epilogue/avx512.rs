//! AVX-512 forms of the epilogues: sixteen channels at a time, parameters in registers over all rows.

use super::super::avx512::requantize::{self, Requantize};
use super::super::code::Code;
use super::fixed::{DoubleRounding, MulShift, ShiftRounding, Width};
use super::{AccTile, Clip, FloatScale, OutTile};
use std::arch::x86_64::*;

/// Stores the low part of each lane that `mask` selects.
///
/// # Safety
/// The machine has the features, and the selected elements from `to` on may be written.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn store<O: Code>(to: *mut O, mask: __mmask16, value: __m512i) {
    // SAFETY: by the contract; the width of the store is that of `O`.
    unsafe {
        match (size_of::<O>(), mask) {
            (1, 0xFFFF) => _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(value)),
            (1, _) => _mm_mask_storeu_epi8(to.cast(), mask, _mm512_cvtepi32_epi8(value)),
            (2, 0xFFFF) => _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(value)),
            (2, _) => _mm256_mask_storeu_epi16(to.cast(), mask, _mm512_cvtepi32_epi16(value)),
            _ => _mm512_mask_storeu_epi32(to.cast(), mask, value),
        }
    }
}

/// The mask of the first `count` of sixteen lanes.
fn first_lanes(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

/// # Safety
/// The machine has the features. The tile lies within `acc` and `out`, and its channels within the parameters.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn float_scale<O: Code>(p: &FloatScale<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
    let (least, most) = (_mm512_set1_ps(p.lo), _mm512_set1_ps(p.hi));
    let (lo, hi) = (_mm512_set1_epi32(p.clip.lo), _mm512_set1_epi32(p.clip.hi));
    let zero_point = _mm512_set1_epi32(p.clip.zero_point);
    for c in (0..tile.cols).step_by(16) {
        let lanes = first_lanes(tile.cols - c);
        // SAFETY: masked lanes are not touched; the others are channels and columns of the tile.
        unsafe {
            let scale = _mm512_maskz_loadu_ps(lanes, p.scale.as_ptr().add(tile.channel + c));
            for r in 0..tile.rows {
                let acc = _mm512_maskz_loadu_epi32(lanes, tile.acc.as_ptr().add(r * tile.stride + c));
                let v = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
                let q = _mm512_cvt_roundps_epi32::<NEAREST_EVEN>(_mm512_min_ps(_mm512_max_ps(v, least), most));
                let q = _mm512_add_epi32(_mm512_min_epi32(_mm512_max_epi32(q, lo), hi), zero_point);
                store(out.data.as_mut_ptr().add(r * out.stride + c), lanes, q);
            }
        }
    }
}

/// Rounding of a conversion, whatever the mode of the thread is.
const NEAREST_EVEN: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// # Safety
/// The machine has the features. The tile lies within `acc` and `out`, and its channels within the parameters.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn double_rounding<O: Code>(p: &DoubleRounding<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
    let (left, multiplier, right) = (&p.left, &p.multiplier, &p.right);
    // SAFETY: the caller's.
    unsafe {
        match p.plain {
            true => lines(requantize::PlainRounding { multiplier, right }, p.clip, tile, out),
            false => lines(requantize::DoubleRounding { left, multiplier, right }, p.clip, tile, out),
        }
    }
}

/// Requantizes sixteen channels at a time.
///
/// # Safety
/// As [`double_rounding`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn lines<Q: Requantize, O: Code>(q: Q, clip: Clip, tile: AccTile<'_>, out: OutTile<'_, O>) {
    let (lo, hi) = (_mm512_set1_epi32(clip.lo), _mm512_set1_epi32(clip.hi));
    let zero_point = _mm512_set1_epi32(clip.zero_point);
    for c in (0..tile.cols).step_by(16) {
        let lanes = first_lanes(tile.cols - c);
        // SAFETY: masked lanes are not touched; the others are channels and columns of the tile.
        unsafe {
            let parameters = q.load(tile.channel + c, lanes);
            for r in 0..tile.rows {
                let acc = _mm512_maskz_loadu_epi32(lanes, tile.acc.as_ptr().add(r * tile.stride + c));
                let v = Q::value(acc, parameters);
                let v = _mm512_add_epi32(_mm512_min_epi32(_mm512_max_epi32(v, lo), hi), zero_point);
                store(out.data.as_mut_ptr().add(r * out.stride + c), lanes, v);
            }
        }
    }
}

/// # Safety
/// As [`double_rounding`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn mul_shift<O: Code>(p: &MulShift<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
    if let (Width::Result32, Some(offset), Some(clip)) = (p.width, &p.summed, p.clip()) {
        let form = requantize::MulShift32 { multiplier: &p.multiplier, offset, shift: &p.shift };
        // SAFETY: the caller's.
        return unsafe { lines(form, clip, tile, out) };
    }
    let zero_point = _mm512_set1_epi64(p.zero_point.into());
    let (lo, hi) = (_mm512_set1_epi32(p.qmin), _mm512_set1_epi32(p.qmax));
    let one = _mm512_set1_epi64(1);
    for c in (0..tile.cols).step_by(16) {
        let lanes = first_lanes(tile.cols - c);
        let halves = [lanes as __mmask8, (lanes >> 8) as __mmask8];
        let channel = tile.channel + c;
        // SAFETY: masked lanes are not touched; the others are channels and columns of the tile. Addresses of lanes
        // that are all masked are formed by `wrapping_add`, since they may lie beyond the allocation.
        unsafe {
            let load =
                |v: &[i64], h: usize| _mm512_maskz_loadu_epi64(halves[h], v.as_ptr().wrapping_add(channel + 8 * h));
            let m = _mm512_maskz_loadu_epi32(lanes, p.multiplier.as_ptr().add(channel));
            let m = [_mm512_castsi512_si256(m), _mm512_extracti64x4_epi64::<1>(m)].map(|m| _mm512_cvtepi32_epi64(m));
            let offset = [load(&p.offset, 0), load(&p.offset, 1)];
            let constant = [load(&p.constant, 0), load(&p.constant, 1)];
            let shift = [load(&p.shift, 0), load(&p.shift, 1)];
            let shifted = [load(&p.shifted, 0), load(&p.shifted, 1)];
            for r in 0..tile.rows {
                let acc = _mm512_maskz_loadu_epi32(lanes, tile.acc.as_ptr().add(r * tile.stride + c));
                let acc = [_mm512_castsi512_si256(acc), _mm512_extracti64x4_epi64::<1>(acc)];
                let mut q = [_mm256_setzero_si256(); 2];
                for h in 0..2 {
                    let v = _mm512_mul_epi32(_mm512_cvtepi32_epi64(acc[h]), m[h]);
                    let v = _mm512_add_epi64(v, offset[h]);
                    let extra = match p.rounding {
                        ShiftRounding::Floor | ShiftRounding::HalfUp => _mm512_setzero_si512(),
                        ShiftRounding::HalfAway => _mm512_and_si512(_mm512_srai_epi64::<63>(v), shifted[h]),
                        ShiftRounding::HalfEven => {
                            _mm512_and_si512(_mm512_and_si512(_mm512_srav_epi64(v, shift[h]), one), shifted[h])
                        }
                    };
                    let v = _mm512_add_epi64(_mm512_add_epi64(v, constant[h]), extra);
                    let v = _mm512_add_epi64(_mm512_srav_epi64(v, shift[h]), zero_point);
                    q[h] = _mm512_cvtsepi64_epi32(v);
                }
                let q = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(q[0]), q[1]);
                let q = _mm512_min_epi32(_mm512_max_epi32(q, lo), hi);
                store(out.data.as_mut_ptr().add(r * out.stride + c), lanes, q);
            }
        }
    }
}
