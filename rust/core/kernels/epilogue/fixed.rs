//! Integer requantization: the doubling high product with two roundings, and the 64-bit product with one.

use super::super::code::Code;
use super::super::isa::{Isa, Simd, multiversion};
use super::steps::{Staircase, Steps};
use super::{AccTile, Clip, Epilogue, Fused, OutTile, check};
use std::marker::PhantomData;

/// `t = wrap32(acc << left[c])`, `t = sat32((t·m[c] + 2^30) >> 31)`, `y = sat(RA(t, right[c]) + zero_point)` with `RA`
/// the right shift rounded half away from zero (at -0.5: -1).
#[derive(Debug, Clone)]
pub struct DoubleRounding<O> {
    pub(super) left: Vec<i32>,
    pub(super) multiplier: Vec<i32>,
    pub(super) right: Vec<i32>,
    pub(super) clip: Clip,
    /// Whether nothing is shifted to the left, and adding half of the last place to the product stays within 32 bits.
    pub(super) plain: bool,
    pub(super) steps: Option<Steps>,
    out: PhantomData<O>,
}

impl<O: Code> DoubleRounding<O> {
    /// One multiplier and two shift counts per channel. `None` where lengths differ, a shift is not in `0..=31`, a
    /// multiplier is -2^31 (the one case in which the product saturates), or the code range lies outside of `O`.
    pub fn new(
        left: Vec<i32>,
        multiplier: Vec<i32>,
        right: Vec<i32>,
        zero_point: i32,
        qmin: i32,
        qmax: i32,
    ) -> Option<Self> {
        let lengths = left.len() == multiplier.len() && right.len() == multiplier.len();
        let shifts = left.iter().chain(&right).all(|s| (0..=31).contains(s));
        let clip = Clip::new::<O>(qmin, qmax, zero_point)?;
        let fits = lengths && shifts && !multiplier.contains(&i32::MIN);
        fits.then_some(
            DoubleRounding { left, multiplier, right, clip, plain: false, steps: None, out: PhantomData }
                .within(1 << 31),
        )
    }

    /// Promises that no accumulator exceeds `reach` in magnitude.
    #[must_use]
    pub fn within(self, reach: u32) -> Self {
        let fits = |r: &i32| i64::from(reach) + (1i64 << r) / 2 < 1 << 31;
        let plain = self.left.iter().all(|&l| l == 0) && self.right.iter().all(fits);
        DoubleRounding { plain, steps: None, ..self }
    }

    /// Looks for the float form of bytes, for accumulators that do not exceed `reach` in magnitude. Worth its time where a channel
    /// has hundreds of outputs.
    #[must_use]
    pub fn in_steps(self, simd: Simd, reach: u32) -> Self {
        let new = self.within(reach);
        if !new.plain || size_of::<O>() != 1 {
            return new;
        }
        let staircase = |(&multiplier, &right): (&i32, &i32)| {
            let half = if right == 0 { 0 } else { 1i64 << (right + 30) };
            let away = if right == 0 { 0 } else { 1i64 << 31 };
            let constant = half + (1 << 30);
            Staircase { multiplier, constants: [constant, constant - away], exponent: 31 + right as u32 }
        };
        let channels: Vec<Staircase> = new.multiplier.iter().zip(&new.right).map(staircase).collect();
        DoubleRounding { steps: Steps::find(simd, &channels, new.clip.lo..=new.clip.hi, reach), ..new }
    }

    /// Columns `from..` of the tile, one at a time.
    pub(super) fn apply_scalar(&self, tile: AccTile<'_>, mut out: OutTile<'_, O>, from: usize) {
        let channels = tile.channel..tile.channel + tile.cols;
        let (left, right) = (&self.left[channels.clone()], &self.right[channels.clone()]);
        let multiplier = &self.multiplier[channels];
        for r in 0..tile.rows {
            let (acc, out) = (tile.line(r), out.line(r, tile.cols));
            for c in from..tile.cols {
                let t = i64::from(acc[c].wrapping_shl(left[c] as u32));
                let t = ((t * i64::from(multiplier[c]) + (1 << 30)) >> 31) as i32;
                out[c] = self.clip.code(half_away(t, right[c]));
            }
        }
    }
}

#[inline(always)]
fn half_away(t: i32, shift: i32) -> i32 {
    let mask = ((1i64 << shift) - 1) as i32;
    let threshold = (mask >> 1) + i32::from(t < 0);
    (t >> shift) + i32::from((t & mask) > threshold)
}

impl<O: Code> Epilogue for DoubleRounding<O> {
    type Out = O;
    fn apply(&self, simd: Simd, tile: AccTile<'_>, out: OutTile<'_, O>) {
        check(&tile, &out, self.multiplier.len());
        match simd.vectors() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the `Simd` proves the features, `check` the extents.
            Isa::Avx512Vnni => unsafe { super::avx512::double_rounding(self, tile, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 | Isa::AvxVnni => unsafe { super::avx2::double_rounding(self, tile, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe { super::neon::double_rounding(self, tile, out) },
            _ => self.apply_scalar(tile, out, 0),
        }
    }
    fn fused(&self) -> Option<Fused<'_>> {
        self.fused_form()
    }
}

/// Integers that the steps of a [`MulShift`] need, given the reach of the accumulators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// Of 64 bits.
    All64,
    /// Of 64 bits; the shifted value has 32.
    Result32,
    /// Of 32 bits.
    All32,
}

/// How [`MulShift`] rounds its shift. At -0.5: half_up 0, floor -1, half_even 0, half_away -1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShiftRounding {
    /// Towards minus infinity.
    Floor,
    /// To nearest, ties up.
    HalfUp,
    /// To nearest, ties to even.
    HalfEven,
    /// To nearest, ties away from zero.
    HalfAway,
}

/// `y = clamp(shr(acc·m[c] + offset[c], s[c], rounding) + zero_point, qmin, qmax)`, exact in 64 bits.
#[derive(Debug, Clone)]
pub struct MulShift<O> {
    pub(super) multiplier: Vec<i32>,
    pub(super) offset: Vec<i64>,
    /// The constant part of the rounding.
    pub(super) constant: Vec<i64>,
    pub(super) shift: Vec<i64>,
    /// All ones where the shift is not zero: only then the data-dependent part of the rounding counts.
    pub(super) shifted: Vec<i64>,
    /// Offset and constant part of the rounding in one, where that is all of the rounding.
    pub(super) summed: Option<Vec<i64>>,
    pub(super) rounding: ShiftRounding,
    pub(super) zero_point: i32,
    pub(super) qmin: i32,
    pub(super) qmax: i32,
    pub(super) width: Width,
    /// Multiplier, offset with the constant part of the rounding, and shift, where 32 bits hold all steps.
    pub(super) narrow: Option<[Vec<i32>; 3]>,
    pub(super) steps: Option<Steps>,
    out: PhantomData<O>,
}

impl<O: Code> MulShift<O> {
    /// One multiplier, offset and shift per channel. `None` where lengths differ, a shift is not in `0..=62`, an offset
    /// reaches `±2^61` (up to there no step leaves 64 bits), or the code range is empty or lies outside of `O`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        multiplier: Vec<i32>,
        offset: Vec<i64>,
        shift: Vec<u32>,
        rounding: ShiftRounding,
        zero_point: i32,
        qmin: i32,
        qmax: i32,
    ) -> Option<Self> {
        let lengths = offset.len() == multiplier.len() && shift.len() == multiplier.len();
        let fits = shift.iter().all(|&s| s <= 62) && offset.iter().all(|o| o.unsigned_abs() < 1 << 61);
        let range = i64::from(qmin) >= O::MIN && i64::from(qmax) <= O::MAX && qmin <= qmax;
        if !(lengths && fits && range) {
            return None;
        }
        let constant = |s: u32| match rounding {
            _ if s == 0 => 0,
            ShiftRounding::Floor => 0,
            ShiftRounding::HalfUp | ShiftRounding::HalfAway => 1i64 << (s - 1),
            ShiftRounding::HalfEven => (1i64 << (s - 1)) - 1,
        };
        let simple = matches!(rounding, ShiftRounding::Floor | ShiftRounding::HalfUp);
        let new = MulShift {
            summed: simple.then(|| offset.iter().zip(&shift).map(|(&o, &s)| o + constant(s)).collect()),
            constant: shift.iter().map(|&s| constant(s)).collect(),
            offset,
            shifted: shift.iter().map(|&s| -i64::from(s != 0)).collect(),
            shift: shift.into_iter().map(i64::from).collect(),
            multiplier,
            rounding,
            zero_point,
            qmin,
            qmax,
            width: Width::All64,
            narrow: None,
            steps: None,
            out: PhantomData,
        };
        Some(new.within(1 << 31))
    }

    /// Promises that no accumulator exceeds `reach` in magnitude.
    #[must_use]
    pub fn within(self, reach: u32) -> Self {
        let width = self.width_within(reach);
        let narrow = (width == Width::All32).then(|| {
            let offset = self.offset.iter().zip(&self.constant).map(|(o, c)| (o + c) as i32);
            [self.multiplier.clone(), offset.collect(), self.shift.iter().map(|&s| s as i32).collect()]
        });
        MulShift { width, narrow, steps: None, ..self }
    }

    /// Looks for the float form of bytes, for accumulators that do not exceed `reach` in magnitude. Worth its time where a channel
    /// has hundreds of outputs.
    #[must_use]
    pub fn in_steps(self, simd: Simd, reach: u32) -> Self {
        let new = self.within(reach);
        let (Some(clip), None, true) = (new.clip(), &new.narrow, size_of::<O>() == 1) else { return new };
        // Half away from zero has the sign of the accumulator where there is no offset.
        let by_sign = new.rounding == ShiftRounding::HalfAway && new.offset.iter().all(|&o| o == 0);
        if new.rounding == ShiftRounding::HalfEven || new.rounding == ShiftRounding::HalfAway && !by_sign {
            return new;
        }
        let staircase = |c: usize| {
            let constant = new.offset[c] + new.constant[c];
            let away = i64::from(by_sign && new.shift[c] > 0);
            let constants = [constant, constant - away];
            Staircase { multiplier: new.multiplier[c], constants, exponent: new.shift[c] as u32 }
        };
        let channels: Vec<Staircase> = (0..new.multiplier.len()).map(staircase).collect();
        MulShift { steps: Steps::find(simd, &channels, clip.lo..=clip.hi, reach), ..new }
    }

    /// Bounds before the zero point is added.
    pub(super) fn clip(&self) -> Option<Clip> {
        Clip::new::<O>(self.qmin, self.qmax, self.zero_point)
    }

    fn width_within(&self, reach: u32) -> Width {
        let fits = |shifted: bool| {
            (0..self.multiplier.len()).all(|c| {
                let product = i128::from(reach) * i128::from(self.multiplier[c].unsigned_abs());
                let sum = product + i128::from(self.offset[c].unsigned_abs()) + i128::from(self.constant[c]);
                sum >> (if shifted { self.shift[c] } else { 0 }) < (1 << 31) - 1
            })
        };
        match (fits(false) && self.shift.iter().all(|&s| s < 32), fits(true)) {
            (true, _) => Width::All32,
            (_, true) => Width::Result32,
            _ => Width::All64,
        }
    }

    /// Columns `from..` of the tile, one at a time.
    pub(super) fn apply_scalar(&self, tile: AccTile<'_>, mut out: OutTile<'_, O>, from: usize) {
        for r in 0..tile.rows {
            let (acc, out) = (tile.line(r), out.line(r, tile.cols));
            for c in from..tile.cols {
                let i = tile.channel + c;
                let v = i64::from(acc[c]) * i64::from(self.multiplier[i]) + self.offset[i];
                let extra = match self.rounding {
                    ShiftRounding::Floor | ShiftRounding::HalfUp => 0,
                    ShiftRounding::HalfAway => v >> 63,
                    ShiftRounding::HalfEven => (v >> self.shift[i]) & 1,
                };
                let v = v + self.constant[i] + (extra & self.shifted[i]);
                let q = (v >> self.shift[i]) + i64::from(self.zero_point);
                out[c] = O::wrap(q.clamp(self.qmin.into(), self.qmax.into()));
            }
        }
    }
}

impl<O: Code> Epilogue for MulShift<O> {
    type Out = O;
    fn apply(&self, simd: Simd, tile: AccTile<'_>, out: OutTile<'_, O>) {
        check(&tile, &out, self.multiplier.len());
        if let Some(parameters) = &self.narrow {
            let parameters = parameters.each_ref().map(|v| &v[tile.channel..][..tile.cols]);
            let clip = self.clip().expect("the range is checked when this is made");
            return narrow_shift(simd, parameters, self.rounding, clip, tile, out);
        }
        match simd.vectors() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the `Simd` proves the features, `check` the extents.
            Isa::Avx512Vnni => unsafe { super::avx512::mul_shift(self, tile, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 | Isa::AvxVnni => unsafe { super::avx2::mul_shift(self, tile, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe { super::neon::mul_shift(self, tile, out) },
            _ => self.apply_scalar(tile, out, 0),
        }
    }
    fn fused(&self) -> Option<Fused<'_>> {
        self.fused_form()
    }
}

multiversion! {
    /// `sat(shr(acc·m[c] + offset[c], shift[c], rounding) + zero_point)` in 32 bits, the constant part of the rounding in the
    /// offset.
    fn narrow_shift<O: Code>(
        simd: Simd,
        parameters: [&[i32]; 3],
        rounding: ShiftRounding,
        clip: Clip,
        tile: AccTile<'_>,
        out: OutTile<'_, O>,
    ) {
        // What the data add to the rounding; nothing where nothing is shifted. `sum` includes the constant part.
        let some = |shift: i32| -i32::from(shift != 0);
        match rounding {
            ShiftRounding::Floor | ShiftRounding::HalfUp => shift_lines(parameters, clip, tile, out, |_, _| 0),
            ShiftRounding::HalfAway => shift_lines(parameters, clip, tile, out, |sum, shift| {
                let half = (1i32 << shift) / 2;
                (sum.wrapping_sub(half) >> 31) & some(shift)
            }),
            ShiftRounding::HalfEven => shift_lines(parameters, clip, tile, out, |sum, shift| {
                let below_half = (1i32 << shift) / 2 - 1;
                (sum.wrapping_sub(below_half) >> shift) & 1 & some(shift)
            }),
        }
    }
}

#[inline(always)]
fn shift_lines<O: Code>(
    [multiplier, offset, shift]: [&[i32]; 3],
    clip: Clip,
    tile: AccTile<'_>,
    mut out: OutTile<'_, O>,
    extra: impl Fn(i32, i32) -> i32,
) {
    for r in 0..tile.rows {
        let channels = multiplier.iter().zip(offset).zip(shift);
        for ((o, acc), ((m, offset), shift)) in out.line(r, tile.cols).iter_mut().zip(tile.line(r)).zip(channels) {
            let (shift, sum) = (shift & 31, acc.wrapping_mul(*m).wrapping_add(*offset));
            *o = clip.code(sum.wrapping_add(extra(sum, shift)) >> shift);
        }
    }
}
