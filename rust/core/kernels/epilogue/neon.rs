//! NEON forms of the epilogues: sixteen or four channels at a time, the rest by the scalar form.

use super::super::code::Code;
use super::fixed::{DoubleRounding, MulShift, ShiftRounding};
use super::{AccTile, Clip, FloatScale, OutTile};
use std::arch::aarch64::*;

/// Runs `$form::<O, V>(p, tile, out, c)`, which takes `4·V` columns from `c` on, over all whole fours of columns.
macro_rules! columns {
    ($form:ident($p:expr, $tile:expr, $out:expr)) => {{
        let (tile, mut out) = ($tile, $out);
        let mut c = 0;
        // SAFETY: the caller's; these columns are among those of the tile.
        unsafe {
            while tile.cols - c >= 16 {
                $form::<O, 4>($p, tile, &mut out, c);
                c += 16;
            }
            while tile.cols - c >= 4 {
                $form::<O, 1>($p, tile, &mut out, c);
                c += 4;
            }
        }
        if c < tile.cols {
            $p.apply_scalar(tile, out, c);
        }
    }};
}

/// Stores the low part of each lane.
///
/// # Safety
/// `4·V` elements may be written from `to` on; `V` is one or four.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store<O: Code, const V: usize>(to: *mut O, values: [int32x4_t; V]) {
    // SAFETY: by the contract; the width of the stores is that of `O`.
    unsafe {
        match (size_of::<O>(), V) {
            (1, 4) => {
                let low = vcombine_s16(vmovn_s32(values[0]), vmovn_s32(values[1 % V]));
                let high = vcombine_s16(vmovn_s32(values[2 % V]), vmovn_s32(values[3 % V]));
                vst1q_s8(to.cast(), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
            }
            (1, _) => {
                let low = vmovn_s32(values[0]);
                let bytes = vreinterpret_u32_s8(vmovn_s16(vcombine_s16(low, low)));
                to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(bytes));
            }
            (2, _) => (0..V).for_each(|v| vst1_s16(to.add(4 * v).cast(), vmovn_s32(values[v]))),
            _ => (0..V).for_each(|v| vst1q_s32(to.add(4 * v).cast(), values[v])),
        }
    }
}

/// Accumulators of row `r` from column `c` on.
///
/// # Safety
/// `4·V` of them exist.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load<const V: usize>(from: *const i32) -> [int32x4_t; V] {
    // SAFETY: the caller's.
    std::array::from_fn(|v| unsafe { vld1q_s32(from.add(4 * v)) })
}

/// Codes of values, by [`Clip::code`].
#[inline]
#[target_feature(enable = "neon")]
fn clip<const V: usize>(clip: Clip, values: [int32x4_t; V]) -> [int32x4_t; V] {
    let (lo, hi, zero_point) = (vdupq_n_s32(clip.lo), vdupq_n_s32(clip.hi), vdupq_n_s32(clip.zero_point));
    values.map(|v| vaddq_s32(vminq_s32(vmaxq_s32(v, lo), hi), zero_point))
}

/// # Safety
/// The tile lies within `acc` and `out`, and its channels within the parameters.
#[target_feature(enable = "neon")]
pub(super) unsafe fn float_scale<O: Code>(p: &FloatScale<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
    columns!(float_scale_columns(p, tile, out));
}

/// # Safety
/// As [`float_scale`]; `4·V` columns from `c` on exist.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn float_scale_columns<O: Code, const V: usize>(
    p: &FloatScale<O>,
    tile: AccTile<'_>,
    out: &mut OutTile<'_, O>,
    c: usize,
) {
    let (least, most) = (vdupq_n_f32(p.lo), vdupq_n_f32(p.hi));
    // SAFETY: whole channels and columns of the tile.
    unsafe {
        let scale: [float32x4_t; V] =
            std::array::from_fn(|v| vld1q_f32(p.scale.as_ptr().add(tile.channel + c + 4 * v)));
        for r in 0..tile.rows {
            let acc: [int32x4_t; V] = load(tile.acc.as_ptr().add(r * tile.stride + c));
            let values = std::array::from_fn(|v| {
                let product = vmulq_f32(vcvtq_f32_s32(acc[v]), scale[v]);
                vcvtnq_s32_f32(vminq_f32(vmaxq_f32(product, least), most))
            });
            store::<O, V>(out.data.as_mut_ptr().add(r * out.stride + c), clip(p.clip, values));
        }
    }
}

/// # Safety
/// The tile lies within `acc` and `out`, and its channels within the parameters.
#[target_feature(enable = "neon")]
pub(super) unsafe fn double_rounding<O: Code>(p: &DoubleRounding<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
    columns!(double_rounding_columns(p, tile, out));
}

/// # Safety
/// As [`double_rounding`]; `4·V` columns from `c` on exist.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn double_rounding_columns<O: Code, const V: usize>(
    p: &DoubleRounding<O>,
    tile: AccTile<'_>,
    out: &mut OutTile<'_, O>,
    c: usize,
) {
    let channel = tile.channel + c;
    // SAFETY: whole channels and columns of the tile.
    unsafe {
        let left: [int32x4_t; V] = load(p.left.as_ptr().add(channel));
        let multiplier: [int32x4_t; V] = load(p.multiplier.as_ptr().add(channel));
        let right = load::<V>(p.right.as_ptr().add(channel)).map(|v| vnegq_s32(v));
        for r in 0..tile.rows {
            let acc: [int32x4_t; V] = load(tile.acc.as_ptr().add(r * tile.stride + c));
            let values = std::array::from_fn(|v| {
                let t = vqrdmulhq_s32(vshlq_s32(acc[v], left[v]), multiplier[v]);
                // The shift rounds half up: one less where t is negative makes that half away from zero, and changes nothing
                // else. Where there is no shift, there is no sign in the product of bits; -2^31 is no tie.
                let t = vqaddq_s32(t, vshrq_n_s32::<31>(vandq_s32(t, right[v])));
                vrshlq_s32(t, right[v])
            });
            store::<O, V>(out.data.as_mut_ptr().add(r * out.stride + c), clip(p.clip, values));
        }
    }
}

/// # Safety
/// The tile lies within `acc` and `out`, and its channels within the parameters.
#[target_feature(enable = "neon")]
pub(super) unsafe fn mul_shift<O: Code>(p: &MulShift<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
    columns!(mul_shift_columns(p, tile, out));
}

/// # Safety
/// As [`mul_shift`]; `4·V` columns from `c` on exist.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn mul_shift_columns<O: Code, const V: usize>(
    p: &MulShift<O>,
    tile: AccTile<'_>,
    out: &mut OutTile<'_, O>,
    c: usize,
) {
    let (lo, hi) = (vdupq_n_s32(p.qmin), vdupq_n_s32(p.qmax));
    let (zero_point, one) = (vdupq_n_s64(p.zero_point.into()), vdupq_n_s64(1));
    let channel = tile.channel + c;
    let offset = p.summed.as_ref().unwrap_or(&p.offset);
    // SAFETY: whole channels and columns of the tile; `i` counts pairs of channels.
    unsafe {
        let pair = |values: &[i64], i: usize| vld1q_s64(values.as_ptr().add(channel + 2 * i));
        let multiplier: [int32x4_t; V] = load(p.multiplier.as_ptr().add(channel));
        let offset: [[int64x2_t; 2]; V] = std::array::from_fn(|v| [pair(offset, 2 * v), pair(offset, 2 * v + 1)]);
        let shift: [[int64x2_t; 2]; V] =
            std::array::from_fn(|v| [2 * v, 2 * v + 1].map(|i| vnegq_s64(pair(&p.shift, i))));
        // What the rounding adds to a value, besides what the offset has.
        let extra = |value: int64x2_t, shift: int64x2_t, i: usize| match p.rounding {
            ShiftRounding::Floor | ShiftRounding::HalfUp => vdupq_n_s64(0),
            ShiftRounding::HalfAway => {
                vaddq_s64(pair(&p.constant, i), vandq_s64(vshrq_n_s64::<63>(value), pair(&p.shifted, i)))
            }
            ShiftRounding::HalfEven => {
                let odd = vandq_s64(vshlq_s64(value, shift), one);
                vaddq_s64(pair(&p.constant, i), vandq_s64(odd, pair(&p.shifted, i)))
            }
        };
        for r in 0..tile.rows {
            let acc: [int32x4_t; V] = load(tile.acc.as_ptr().add(r * tile.stride + c));
            let values = std::array::from_fn(|v| {
                let half = |acc: int32x2_t, multiplier: int32x2_t, h: usize| {
                    let (shift, value) = (shift[v][h], vmlal_s32(offset[v][h], acc, multiplier));
                    let value = vaddq_s64(value, extra(value, shift, 2 * v + h));
                    vqmovn_s64(vaddq_s64(vshlq_s64(value, shift), zero_point))
                };
                let low = half(vget_low_s32(acc[v]), vget_low_s32(multiplier[v]), 0);
                let high = half(vget_high_s32(acc[v]), vget_high_s32(multiplier[v]), 1);
                vminq_s32(vmaxq_s32(vcombine_s32(low, high), lo), hi)
            });
            store::<O, V>(out.data.as_mut_ptr().add(r * out.stride + c), values);
        }
    }
}
