//! What happens to a block of accumulators while it is in the first-level cache.
//!
//! A kernel calls [`Epilogue::apply`] once per block, from any thread and in any order. [`FloatScale`], [`FloatAffine`],
//! [`DoubleRounding`] and [`MulShift`] are the forms that have vector code; anything else implements the trait (a tile
//! executor, for example) and runs in the same place.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod fixed;
mod fused;
#[cfg(target_arch = "aarch64")]
mod neon;
mod steps;

pub use fixed::{DoubleRounding, MulShift, ShiftRounding};
pub use fused::{Bytes, Fused};

use super::code::Code;
use super::isa::{Isa, Simd, multiversion};
use std::marker::PhantomData;

/// A block of accumulators.
#[derive(Debug, Clone, Copy)]
pub struct AccTile<'a, A = i32> {
    /// The accumulators; row `r` starts at `r·stride`.
    pub acc: &'a [A],
    /// Elements from one row to the next.
    pub stride: usize,
    /// Rows: output pixels, or rows of the product.
    pub rows: usize,
    /// Columns: consecutive output channels.
    pub cols: usize,
    /// Flat index, in the whole result, of the first row.
    pub row: usize,
    /// Output channel of the first column.
    pub channel: usize,
}

impl<'a, A> AccTile<'a, A> {
    /// The accumulators of row `r`.
    pub fn line(&self, r: usize) -> &'a [A] {
        &self.acc[r * self.stride..][..self.cols]
    }
}

/// Where the results of a block go. Rows and columns are those of the [`AccTile`] that comes with it.
#[derive(Debug)]
pub struct OutTile<'a, O> {
    /// The outputs; row `r` starts at `r·stride`. Elements outside of the block must be left alone.
    pub data: &'a mut [O],
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<O> OutTile<'_, O> {
    /// The outputs of row `r`, which has `cols` columns.
    pub fn line(&mut self, r: usize, cols: usize) -> &mut [O] {
        &mut self.data[r * self.stride..][..cols]
    }
}

/// Turns accumulators into outputs. The bias is in the accumulator already.
pub trait Epilogue<A = i32>: Sync {
    /// Element type of the output.
    type Out: Copy + Default + Send + Sync;
    /// Writes the outputs of one block.
    fn apply(&self, simd: Simd, tile: AccTile<'_, A>, out: OutTile<'_, Self::Out>);
    /// The form that micro-kernels may apply in registers, where there is one; outputs are then bytes.
    fn fused(&self) -> Option<Fused<'_>> {
        None
    }
}

/// Hands the accumulators on as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accumulators;

impl<A: Copy + Default + Send + Sync> Epilogue<A> for Accumulators {
    type Out = A;
    fn apply(&self, _: Simd, tile: AccTile<'_, A>, mut out: OutTile<'_, A>) {
        for r in 0..tile.rows {
            out.line(r, tile.cols).copy_from_slice(tile.line(r));
        }
    }
}

/// Bounds between which an integer must lie so that adding a zero point ends in `qmin..=qmax` without overflow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clip {
    lo: i32,
    hi: i32,
    zero_point: i32,
}

impl Clip {
    /// For outputs of type `O`; `None` where the range is empty or lies outside of `O`.
    fn new<O: Code>(qmin: i32, qmax: i32, zero_point: i32) -> Option<Clip> {
        let inside = i64::from(qmin) >= O::MIN && i64::from(qmax) <= O::MAX && qmin <= qmax;
        let bound = |q: i32| (i64::from(q) - i64::from(zero_point)).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        inside.then(|| Clip { lo: bound(qmin), hi: bound(qmax), zero_point })
    }

    #[inline(always)]
    fn code<O: Code>(self, value: i32) -> O {
        O::wrap32(value.max(self.lo).min(self.hi).wrapping_add(self.zero_point))
    }
}

/// `y = sat(rint(clamp(f32(acc)·scale[c], lo, hi)) + zero_point)`: one f32 conversion and one f32 product, each rounded
/// to nearest even; `rint` is half to even.
#[derive(Debug, Clone)]
pub struct FloatScale<O> {
    scale: Vec<f32>,
    lo: f32,
    hi: f32,
    clip: Clip,
    /// Whether no product leaves 32 bits.
    bounded: bool,
    out: PhantomData<O>,
}

impl<O: Code> FloatScale<O> {
    /// Codes are saturated to `qmin..=qmax`. `None` where the vector form would not be exact: a scale that is not
    /// finite, bounds beyond `±2^24` or out of order, or a code range outside of `O`.
    pub fn new(scale: Vec<f32>, lo: f32, hi: f32, zero_point: i32, qmin: i32, qmax: i32) -> Option<Self> {
        const LIMIT: f32 = 16_777_216.0;
        let exact = scale.iter().all(|s| s.is_finite()) && -LIMIT <= lo && lo <= hi && hi <= LIMIT;
        let clip = Clip::new::<O>(qmin, qmax, zero_point)?;
        exact.then_some(FloatScale { scale, lo, hi, clip, bounded: false, out: PhantomData })
    }

    /// Promises that no accumulator exceeds `reach` in magnitude.
    #[must_use]
    pub fn within(self, reach: u32) -> Self {
        let largest = self.scale.iter().fold(0f32, |m, s| m.max(s.abs()));
        // Half of what 32 bits hold is more than the roundings add.
        FloatScale { bounded: f64::from(largest) * f64::from(reach) < f64::from(1 << 30), ..self }
    }
}

impl<O: Code> Epilogue for FloatScale<O> {
    type Out = O;
    fn apply(&self, simd: Simd, tile: AccTile<'_>, out: OutTile<'_, O>) {
        check(&tile, &out, self.scale.len());
        match simd.vectors() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the `Simd` proves the features, `check` the extents.
            Isa::Avx512Vnni => unsafe { avx512::float_scale(self, tile, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 | Isa::AvxVnni => unsafe { avx2::float_scale(self, tile, out) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe { neon::float_scale(self, tile, out) },
            _ => self.apply_scalar(tile, out, 0),
        }
    }
    fn fused(&self) -> Option<Fused<'_>> {
        self.fused_form()
    }
}

impl<O: Code> FloatScale<O> {
    /// Columns `from..` of the tile, one at a time.
    fn apply_scalar(&self, tile: AccTile<'_>, mut out: OutTile<'_, O>, from: usize) {
        for r in 0..tile.rows {
            let (acc, out) = (tile.line(r), out.line(r, tile.cols));
            for c in from..tile.cols {
                let v = (acc[c] as f32 * self.scale[tile.channel + c]).max(self.lo).min(self.hi);
                out[c] = self.clip.code(v.round_ties_even() as i32);
            }
        }
    }
}

/// `y = sat(rint(f32(acc)·scale[c] + offset[c]) + zero_point)`: conversion, product and sum in f32, each rounded to nearest
/// even; `rint` is half to even.
#[derive(Debug, Clone)]
pub struct FloatAffine<O> {
    scale: Vec<f32>,
    offset: Vec<f32>,
    lo: f32,
    hi: f32,
    clip: Clip,
    out: PhantomData<O>,
}

impl<O: Code> FloatAffine<O> {
    /// Codes are saturated to `qmin..=qmax`. `None` where lengths differ, a parameter is not finite, the bounds without the
    /// zero point are beyond `±2^24`, or the code range lies outside of `O`.
    pub fn new(scale: Vec<f32>, offset: Vec<f32>, zero_point: i32, qmin: i32, qmax: i32) -> Option<Self> {
        let clip = Clip::new::<O>(qmin, qmax, zero_point)?;
        let exact = [clip.lo, clip.hi].iter().all(|v| v.unsigned_abs() <= 1 << 24);
        let finite = scale.len() == offset.len() && scale.iter().chain(&offset).all(|v| v.is_finite());
        // Rounding moves no value past an integer, so the bounds may be applied before it.
        let (lo, hi) = (clip.lo as f32, clip.hi as f32);
        (exact && finite).then_some(FloatAffine { scale, offset, lo, hi, clip, out: PhantomData })
    }
}

impl<O: Code> Epilogue for FloatAffine<O> {
    type Out = O;
    fn apply(&self, simd: Simd, tile: AccTile<'_>, out: OutTile<'_, O>) {
        check(&tile, &out, self.scale.len());
        float_affine(simd, self, tile, out);
    }
}

multiversion! {
    fn float_affine<O: Code>(simd: Simd, p: &FloatAffine<O>, tile: AccTile<'_>, out: OutTile<'_, O>) {
        let channels = tile.channel..tile.channel + tile.cols;
        let (scale, offset, mut out) = (&p.scale[channels.clone()], &p.offset[channels], out);
        for r in 0..tile.rows {
            let parameters = scale.iter().zip(offset);
            for ((o, &acc), (s, offset)) in out.line(r, tile.cols).iter_mut().zip(tile.line(r)).zip(parameters) {
                let v = (acc as f32 * s + offset).max(p.lo).min(p.hi);
                // SAFETY: the value lies between the bounds, which are within ±2^24; `max` leaves no NaN.
                let rounded: i32 = unsafe { v.round_ties_even().to_int_unchecked() };
                *o = p.clip.code(rounded);
            }
        }
    }
}

/// Panics unless the tile, the output and the parameters of `channels` channels reach as far as the tile says.
fn check<O>(tile: &AccTile<'_>, out: &OutTile<'_, O>, channels: usize) {
    let end = |stride: usize| if tile.rows == 0 { 0 } else { (tile.rows - 1) * stride + tile.cols };
    assert!(tile.acc.len() >= end(tile.stride) && out.data.len() >= end(out.stride), "a tile within its slices");
    assert!(tile.channel + tile.cols <= channels, "parameters for every channel");
}

#[cfg(test)]
mod tests;
