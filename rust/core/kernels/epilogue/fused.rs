//! What a micro-kernel needs to turn its accumulators into bytes without leaving the registers.

use super::fixed::{DoubleRounding, MulShift, Width};
use super::steps::Steps;
use super::{Clip, Code, FloatScale};

/// The last step of every fused form: `sat8(v + zero_point)` of a 32-bit value, as bytes.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AVX-512 kernels alone fuse epilogues"))]
pub struct Bytes {
    /// Added to the value, which may saturate to 16 bits before and after.
    pub(crate) zero_point: i16,
    /// Bounds of the unsigned byte.
    pub(crate) least: u8,
    pub(crate) most: u8,
    /// XORed to the byte in the end: turns `code + 128` into a signed code.
    pub(crate) flip: u8,
}

impl Bytes {
    /// For codes between the bounds. `None` where these are no codes of the type, or where the zero point is so far outside of it
    /// that saturating to 16 bits before it is added would show.
    pub(crate) fn of(zero_point: i32, [least, most]: [i64; 2], signed: bool) -> Option<Bytes> {
        let bias: i16 = if signed { 128 } else { 0 };
        let byte = |code: i64| u8::try_from(code + i64::from(bias)).ok();
        let near = zero_point.unsigned_abs() <= 1 << 13;
        Some(Bytes {
            zero_point: near.then(|| zero_point as i16 + bias)?,
            least: byte(least)?,
            most: byte(most)?,
            flip: if signed { 0x80 } else { 0 },
        })
    }

    /// For values that are clamped to `lo..=hi` before the zero point is added. `None` also where the output is not of one byte.
    fn new<O: Code>(clip: Clip, lo: i32, hi: i32) -> Option<Bytes> {
        let code = |v: i32| i64::from(v.clamp(clip.lo, clip.hi)) + i64::from(clip.zero_point);
        (size_of::<O>() == 1).then(|| Bytes::of(clip.zero_point, [code(lo), code(hi)], O::MIN < 0))?
    }
}

/// An epilogue that writes bytes and has a form in registers; see the types of the same names.
#[derive(Debug, Clone, Copy)]
pub enum Fused<'a> {
    /// [`FloatScale`]
    FloatScale {
        /// Factor per channel.
        scale: &'a [f32],
        /// Whether no product leaves 32 bits.
        bounded: bool,
        /// What becomes of the rounded product.
        bytes: Bytes,
    },
    /// [`DoubleRounding`]
    DoubleRounding {
        /// Left shifts per channel.
        left: &'a [i32],
        /// Multipliers per channel.
        multiplier: &'a [i32],
        /// Right shifts per channel.
        right: &'a [i32],
        /// Whether there are no left shifts, and half of the last place may be added to the product within 32 bits.
        plain: bool,
        /// What becomes of the shifted value.
        bytes: Bytes,
    },
    /// [`MulShift`]
    MulShift {
        /// Multipliers per channel.
        multiplier: &'a [i32],
        /// Offsets per channel, with the constant part of the rounding.
        offset: &'a [i64],
        /// Shifts per channel.
        shift: &'a [i64],
        /// Whether the shifted value fits 32 bits.
        fits_32: bool,
        /// What becomes of the shifted value.
        bytes: Bytes,
    },
    /// The float form of [`DoubleRounding`] or [`MulShift`]: `floor(down(acc·high + near(acc·low + offset)))`.
    Steps {
        /// Factors per channel, whose sum is the scale.
        high: &'a [f32],
        /// The smaller ones.
        low: &'a [f32],
        /// For accumulators that are not negative, and for those that are, per channel.
        offset: [&'a [f32]; 2],
        /// Whether the two differ.
        split: bool,
        /// What becomes of the value.
        bytes: Bytes,
    },
    /// [`MulShift`] where 32 bits hold every step.
    NarrowShift {
        /// Multipliers per channel.
        multiplier: &'a [i32],
        /// Offsets per channel, with the constant part of the rounding.
        offset: &'a [i32],
        /// Shifts per channel.
        shift: &'a [i32],
        /// What becomes of the shifted value.
        bytes: Bytes,
    },
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AVX-512 kernels alone fuse epilogues"))]
impl Fused<'_> {
    /// What becomes of the values.
    pub(crate) fn bytes(&self) -> Bytes {
        match self {
            Fused::FloatScale { bytes, .. }
            | Fused::DoubleRounding { bytes, .. }
            | Fused::MulShift { bytes, .. }
            | Fused::Steps { bytes, .. }
            | Fused::NarrowShift { bytes, .. } => *bytes,
        }
    }

    /// Channels that there are parameters for.
    pub(crate) fn channels(&self) -> usize {
        match self {
            Fused::FloatScale { scale, .. } => scale.len(),
            Fused::Steps { high, low, offset, .. } => {
                [high.len(), low.len(), offset[0].len(), offset[1].len()].into_iter().min().unwrap_or(0)
            }
            Fused::DoubleRounding { multiplier, left, right, .. } => multiplier.len().min(left.len()).min(right.len()),
            Fused::MulShift { multiplier, offset, shift, .. } => multiplier.len().min(offset.len()).min(shift.len()),
            Fused::NarrowShift { multiplier, offset, shift, .. } => multiplier.len().min(offset.len()).min(shift.len()),
        }
    }
}

impl<O: Code> FloatScale<O> {
    pub(super) fn fused_form(&self) -> Option<Fused<'_>> {
        let round = |v: f32| v.round_ties_even() as i32;
        let bytes = Bytes::new::<O>(self.clip, round(self.lo), round(self.hi))?;
        Some(Fused::FloatScale { scale: &self.scale, bounded: self.bounded, bytes })
    }
}

impl Steps {
    fn fused_form(&self, bytes: Bytes) -> Fused<'_> {
        let Steps { high, low, offset, split } = self;
        Fused::Steps { high, low, offset: offset.each_ref().map(Vec::as_slice), split: *split, bytes }
    }
}

impl<O: Code> DoubleRounding<O> {
    pub(super) fn fused_form(&self) -> Option<Fused<'_>> {
        let bytes = Bytes::new::<O>(self.clip, i32::MIN, i32::MAX)?;
        if let Some(steps) = &self.steps {
            return Some(steps.fused_form(bytes));
        }
        let (left, multiplier, right) = (&self.left, &self.multiplier, &self.right);
        Some(Fused::DoubleRounding { left, multiplier, right, plain: self.plain, bytes })
    }
}

impl<O: Code> MulShift<O> {
    pub(super) fn fused_form(&self) -> Option<Fused<'_>> {
        let bytes = Bytes::new::<O>(self.clip()?, i32::MIN, i32::MAX)?;
        if let Some(steps) = &self.steps {
            return Some(steps.fused_form(bytes));
        }
        let summed = self.summed.as_deref()?;
        if let Some([multiplier, offset, shift]) = &self.narrow {
            return Some(Fused::NarrowShift { multiplier, offset, shift, bytes });
        }
        let (multiplier, shift) = (&self.multiplier, &self.shift);
        Some(Fused::MulShift { multiplier, offset: summed, shift, fits_32: self.width == Width::Result32, bytes })
    }
}
