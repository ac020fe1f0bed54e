//! The 8-bit products whose intrinsics are not stable.

use std::arch::aarch64::*;
use std::arch::asm;

/// `acc[i] + Σ_j w[4·i + j]·x[4·LANE + j]`, signed by signed.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_lane<const LANE: i32>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the feature is enabled; the instruction reads and writes registers only.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            acc = inlateout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

macro_rules! product {
    ($(#[$meta:meta])* $name:ident, $features:literal, $instruction:literal) => {
        $(#[$meta])*
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) fn $name(mut acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
            // SAFETY: the feature is enabled; the instruction reads and writes registers only.
            unsafe {
                asm!(
                    concat!($instruction, " {acc:v}.4s, {x:v}.16b, {w:v}.16b"),
                    acc = inlateout(vreg) acc,
                    x = in(vreg) x,
                    w = in(vreg) w,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            acc
        }
    };
}

product!(
    /// `acc[i] + Σ_j x[4·i + j]·w[4·i + j]`, signed by signed.
    dot, "neon,dotprod", "sdot"
);
product!(
    /// `acc[i] + Σ_j x[4·i + j]·w[4·i + j]`, the bytes of `x` unsigned, those of `w` signed.
    dot_unsigned, "neon,i8mm", "usdot"
);
product!(
    /// `acc[2·i + j] + Σ_k x[8·i + k]·w[8·j + k]`, signed by signed.
    matrix, "neon,i8mm", "smmla"
);
product!(
    /// `acc[2·i + j] + Σ_k x[8·i + k]·w[8·j + k]`, the bytes of `x` unsigned, those of `w` signed.
    matrix_unsigned, "neon,i8mm", "usmmla"
);
