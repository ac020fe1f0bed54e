//! From accumulators in registers to bytes.

use super::super::epilogue::Bytes;
use std::arch::x86_64::*;

/// Rounding of a conversion, whatever the mode of the thread is.
pub(super) const NEAREST_EVEN: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// Rounding towards minus infinity.
const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;

/// An epilogue on vectors of sixteen accumulators.
pub(in super::super) trait Requantize: Copy {
    /// Its parameters for sixteen channels.
    type Parameters: Copy;

    /// The parameters of the channels from `channel` on, of the lanes that `lanes` selects.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL and DQ; the selected channels exist.
    unsafe fn load(&self, channel: usize, lanes: __mmask16) -> Self::Parameters;

    /// The parameters of the channels `channel + index[i]` of the lanes that `lanes` selects.
    ///
    /// # Safety
    /// As [`Requantize::load`].
    unsafe fn gather(&self, channel: usize, index: __m512i, lanes: __mmask16) -> Self::Parameters;

    /// The value of each lane before [`Bytes`].
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL and DQ.
    unsafe fn value(acc: __m512i, parameters: Self::Parameters) -> __m512i;
}

/// Calls `$body` with `$q` bound to the [`Requantize`] of a [`crate::kernels::Fused`].
macro_rules! with_requantize {
    ($fused:expr, $q:ident => $body:expr) => {{
        use $crate::kernels::Fused;
        use $crate::kernels::avx512::requantize as forms;
        macro_rules! with {
            ($form:expr) => {{
                let $q = $form;
                $body
            }};
        }
        match $fused {
            Fused::FloatScale { scale, bounded: true, .. } => with!(forms::FloatScale::<true> { scale }),
            Fused::FloatScale { scale, .. } => with!(forms::FloatScale::<false> { scale }),
            Fused::DoubleRounding { multiplier, right, plain: true, .. } => {
                with!(forms::PlainRounding { multiplier, right })
            }
            Fused::DoubleRounding { left, multiplier, right, .. } => {
                with!(forms::DoubleRounding { left, multiplier, right })
            }
            Fused::MulShift { multiplier, offset, shift, fits_32: true, .. } => {
                with!(forms::MulShift32 { multiplier, offset, shift })
            }
            Fused::MulShift { multiplier, offset, shift, .. } => with!(forms::MulShift { multiplier, offset, shift }),
            Fused::Steps { high, low, offset, split: true, .. } => {
                with!(forms::Steps::<true> { high, low, offset: *offset })
            }
            Fused::Steps { high, low, offset, .. } => with!(forms::Steps::<false> { high, low, offset: *offset }),
            Fused::NarrowShift { multiplier, offset, shift, .. } => {
                with!(forms::NarrowShift { multiplier, offset, shift })
            }
        }
    }};
}
pub(super) use with_requantize;

/// See [`crate::kernels::Fused::FloatScale`].
#[derive(Clone, Copy)]
pub(in super::super) struct FloatScale<'a, const BOUNDED: bool> {
    pub scale: &'a [f32],
}

impl<const BOUNDED: bool> Requantize for FloatScale<'_, BOUNDED> {
    type Parameters = __m512;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(&self, channel: usize, lanes: __mmask16) -> __m512 {
        // SAFETY: by the contract; lanes that are not selected are not read.
        unsafe { _mm512_maskz_loadu_ps(lanes, self.scale.as_ptr().wrapping_add(channel)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn gather(&self, channel: usize, index: __m512i, lanes: __mmask16) -> __m512 {
        // SAFETY: by the contract; lanes that are not selected are not read.
        unsafe {
            let from = self.scale.as_ptr().wrapping_add(channel);
            _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), lanes, index, from.cast())
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn value(acc: __m512i, scale: __m512) -> __m512i {
        let product = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
        if BOUNDED {
            return _mm512_cvt_roundps_epi32::<NEAREST_EVEN>(product);
        }
        // What is too large converts to the least integer, so the product is bounded above; what is too small may.
        _mm512_cvt_roundps_epi32::<NEAREST_EVEN>(_mm512_min_ps(product, _mm512_set1_ps(65_536.0)))
    }
}

/// See [`crate::kernels::Fused::Steps`].
#[derive(Clone, Copy)]
pub(in super::super) struct Steps<'a, const SPLIT: bool> {
    pub high: &'a [f32],
    pub low: &'a [f32],
    pub offset: [&'a [f32]; 2],
}

impl<const SPLIT: bool> Steps<'_, SPLIT> {
    fn vectors(&self) -> [&[f32]; 4] {
        let [above, below] = self.offset;
        [self.high, self.low, above, if SPLIT { below } else { above }]
    }
}

impl<const SPLIT: bool> Requantize for Steps<'_, SPLIT> {
    /// Both factors and both offsets.
    type Parameters = [__m512; 4];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(&self, channel: usize, lanes: __mmask16) -> [__m512; 4] {
        // SAFETY: by the contract; lanes that are not selected are not read.
        unsafe { self.vectors().map(|v| _mm512_maskz_loadu_ps(lanes, v.as_ptr().wrapping_add(channel))) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn gather(&self, channel: usize, index: __m512i, lanes: __mmask16) -> [__m512; 4] {
        // SAFETY: by the contract; lanes that are not selected are not read.
        unsafe {
            self.vectors().map(|v| {
                let from = v.as_ptr().wrapping_add(channel);
                _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), lanes, index, from.cast())
            })
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn value(acc: __m512i, [high, low, above, below]: [__m512; 4]) -> __m512i {
        let x = _mm512_cvt_roundepi32_ps::<NEAREST_EVEN>(acc);
        let offset = match SPLIT {
            true => _mm512_mask_blend_ps(_mm512_movepi32_mask(acc), above, below),
            false => above,
        };
        let inner = _mm512_fmadd_round_ps::<NEAREST_EVEN>(x, low, offset);
        _mm512_cvt_roundps_epi32::<DOWN>(_mm512_fmadd_round_ps::<DOWN>(x, high, inner))
    }
}

/// Parameters of 32 bits, of the channels from `channel` on.
///
/// # Safety
/// As [`Requantize::load`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn load_32<const N: usize>(of: [&[i32]; N], channel: usize, lanes: __mmask16) -> [__m512i; N] {
    // SAFETY: by the contract; lanes that are not selected are not read.
    unsafe { of.map(|v| _mm512_maskz_loadu_epi32(lanes, v.as_ptr().wrapping_add(channel))) }
}

/// Parameters of 32 bits, of the channels `channel + index[i]`.
///
/// # Safety
/// As [`Requantize::gather`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn gather_32<const N: usize>(of: [&[i32]; N], channel: usize, index: __m512i, lanes: __mmask16) -> [__m512i; N] {
    // SAFETY: by the contract; lanes that are not selected are not read.
    unsafe {
        of.map(|v| {
            let from = v.as_ptr().wrapping_add(channel);
            _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), lanes, index, from.cast())
        })
    }
}

/// See [`crate::kernels::Fused::DoubleRounding`].
#[derive(Clone, Copy)]
pub(in super::super) struct DoubleRounding<'a> {
    pub left: &'a [i32],
    pub multiplier: &'a [i32],
    pub right: &'a [i32],
}

impl Requantize for DoubleRounding<'_> {
    /// Left shift, multiplier, right shift.
    type Parameters = [__m512i; 3];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(&self, channel: usize, lanes: __mmask16) -> [__m512i; 3] {
        // SAFETY: by the contract.
        unsafe { load_32([self.left, self.multiplier, self.right], channel, lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn gather(&self, channel: usize, index: __m512i, lanes: __mmask16) -> [__m512i; 3] {
        // SAFETY: by the contract.
        unsafe { gather_32([self.left, self.multiplier, self.right], channel, index, lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn value(acc: __m512i, [left, multiplier, right]: [__m512i; 3]) -> __m512i {
        let one = _mm512_set1_epi32(1);
        let t = doubling_high_product(_mm512_sllv_epi32(acc, left), multiplier);
        // Half away from zero: up where the remainder exceeds half, or reaches it and t is not negative.
        let mask = _mm512_sub_epi32(_mm512_sllv_epi32(one, right), one);
        let threshold = _mm512_sub_epi32(_mm512_srli_epi32::<1>(mask), _mm512_srai_epi32::<31>(t));
        let up = _mm512_cmpgt_epi32_mask(_mm512_and_si512(t, mask), threshold);
        let q = _mm512_srav_epi32(t, right);
        _mm512_mask_add_epi32(q, up, q, one)
    }
}

/// `(a·m + 2^30) >> 31`, within 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn doubling_high_product(a: __m512i, m: __m512i) -> __m512i {
    let nudge = _mm512_set1_epi64(1 << 30);
    let even = _mm512_add_epi64(_mm512_mul_epi32(a, m), nudge);
    let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(a), _mm512_srli_epi64::<32>(m));
    let odd = _mm512_add_epi64(odd, nudge);
    _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64::<31>(even), _mm512_slli_epi64::<1>(odd))
}

/// See [`crate::kernels::Fused::DoubleRounding`] where it is plain.
#[derive(Clone, Copy)]
pub(in super::super) struct PlainRounding<'a> {
    pub multiplier: &'a [i32],
    pub right: &'a [i32],
}

impl Requantize for PlainRounding<'_> {
    /// Multiplier, right shift.
    type Parameters = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(&self, channel: usize, lanes: __mmask16) -> [__m512i; 2] {
        // SAFETY: by the contract.
        unsafe { load_32([self.multiplier, self.right], channel, lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn gather(&self, channel: usize, index: __m512i, lanes: __mmask16) -> [__m512i; 2] {
        // SAFETY: by the contract.
        unsafe { gather_32([self.multiplier, self.right], channel, index, lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn value(acc: __m512i, [multiplier, right]: [__m512i; 2]) -> __m512i {
        let t = doubling_high_product(acc, multiplier);
        // Half away from zero: half of the last place is added, less one to what is negative and shifted.
        let half = _mm512_srli_epi32::<1>(_mm512_sllv_epi32(_mm512_set1_epi32(1), right));
        let shifted = _mm512_test_epi32_mask(right, right);
        let sum = _mm512_add_epi32(t, half);
        let nudged = _mm512_mask_add_epi32(sum, shifted, sum, _mm512_srai_epi32::<31>(t));
        _mm512_srav_epi32(nudged, right)
    }
}

/// See [`crate::kernels::Fused::MulShift`] where the shifted value fits 32 bits.
#[derive(Clone, Copy)]
pub(in super::super) struct MulShift32<'a> {
    pub multiplier: &'a [i32],
    pub offset: &'a [i64],
    pub shift: &'a [i64],
}

/// Eight 64-bit lanes of the even channels and eight of the odd ones, from those of sixteen channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn apart(low: __m512i, high: __m512i) -> [__m512i; 2] {
    let even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    let odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    [_mm512_permutex2var_epi64(low, even, high), _mm512_permutex2var_epi64(low, odd, high)]
}

impl Requantize for MulShift32<'_> {
    /// Multipliers of the even lanes and of the odd ones, offsets and shifts likewise.
    type Parameters = [[__m512i; 2]; 3];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(&self, channel: usize, lanes: __mmask16) -> [[__m512i; 2]; 3] {
        let MulShift32 { multiplier, offset, shift } = *self;
        // SAFETY: by the contract.
        let [m, o0, o1, s0, s1] = unsafe { MulShift { multiplier, offset, shift }.load(channel, lanes) };
        [[m, _mm512_srli_epi64::<32>(m)], apart(o0, o1), apart(s0, s1)]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn gather(&self, channel: usize, index: __m512i, lanes: __mmask16) -> [[__m512i; 2]; 3] {
        let MulShift32 { multiplier, offset, shift } = *self;
        // SAFETY: by the contract.
        let [m, o0, o1, s0, s1] = unsafe { MulShift { multiplier, offset, shift }.gather(channel, index, lanes) };
        [[m, _mm512_srli_epi64::<32>(m)], apart(o0, o1), apart(s0, s1)]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn value(acc: __m512i, [multiplier, offset, shift]: [[__m512i; 2]; 3]) -> __m512i {
        let half = |acc: __m512i, i: usize| {
            _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(acc, multiplier[i]), offset[i]), shift[i])
        };
        let (even, odd) = (half(acc, 0), half(_mm512_srli_epi64::<32>(acc), 1));
        // The low halves of the odd lanes go to the high halves of the even ones.
        _mm512_mask_shuffle_epi32::<0b10_00_00_00>(even, 0xAAAA, odd)
    }
}

/// See [`crate::kernels::Fused::MulShift`].
#[derive(Clone, Copy)]
pub(in super::super) struct MulShift<'a> {
    pub multiplier: &'a [i32],
    pub offset: &'a [i64],
    pub shift: &'a [i64],
}

impl Requantize for MulShift<'_> {
    /// Multiplier; offset and shift of the lower and of the upper eight lanes.
    type Parameters = [__m512i; 5];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(&self, channel: usize, lanes: __mmask16) -> [__m512i; 5] {
        // SAFETY: by the contract; lanes that are not selected are not read.
        unsafe {
            let wide = |v: &[i64], h: usize| {
                let lanes = (lanes >> (8 * h)) as __mmask8;
                _mm512_maskz_loadu_epi64(lanes, v.as_ptr().wrapping_add(channel + 8 * h))
            };
            [
                _mm512_maskz_loadu_epi32(lanes, self.multiplier.as_ptr().wrapping_add(channel)),
                wide(self.offset, 0),
                wide(self.offset, 1),
                wide(self.shift, 0),
                wide(self.shift, 1),
            ]
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn gather(&self, channel: usize, index: __m512i, lanes: __mmask16) -> [__m512i; 5] {
        // SAFETY: by the contract; lanes that are not selected are not read.
        unsafe {
            let zero = _mm512_setzero_si512();
            let from = self.multiplier.as_ptr().wrapping_add(channel);
            let halves = [_mm512_castsi512_si256(index), _mm512_extracti64x4_epi64::<1>(index)];
            let wide = |v: &[i64], h: usize| {
                let lanes = (lanes >> (8 * h)) as __mmask8;
                _mm512_mask_i32gather_epi64::<8>(zero, lanes, halves[h], v.as_ptr().wrapping_add(channel).cast())
            };
            [
                _mm512_mask_i32gather_epi32::<4>(zero, lanes, index, from.cast()),
                wide(self.offset, 0),
                wide(self.offset, 1),
                wide(self.shift, 0),
                wide(self.shift, 1),
            ]
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn value(acc: __m512i, [multiplier, offset0, offset1, shift0, shift1]: [__m512i; 5]) -> __m512i {
        let half = |acc: __m256i, m: __m256i, offset: __m512i, shift: __m512i| {
            let product = _mm512_mul_epi32(_mm512_cvtepi32_epi64(acc), _mm512_cvtepi32_epi64(m));
            _mm512_cvtsepi64_epi32(_mm512_srav_epi64(_mm512_add_epi64(product, offset), shift))
        };
        let low = half(_mm512_castsi512_si256(acc), _mm512_castsi512_si256(multiplier), offset0, shift0);
        let (acc, multiplier) = (_mm512_extracti64x4_epi64::<1>(acc), _mm512_extracti64x4_epi64::<1>(multiplier));
        let high = half(acc, multiplier, offset1, shift1);
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    }
}

/// See [`crate::kernels::Fused::NarrowShift`].
#[derive(Clone, Copy)]
pub(in super::super) struct NarrowShift<'a> {
    pub multiplier: &'a [i32],
    pub offset: &'a [i32],
    pub shift: &'a [i32],
}

impl Requantize for NarrowShift<'_> {
    /// Multiplier, offset, shift.
    type Parameters = [__m512i; 3];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(&self, channel: usize, lanes: __mmask16) -> [__m512i; 3] {
        // SAFETY: by the contract.
        unsafe { load_32([self.multiplier, self.offset, self.shift], channel, lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn gather(&self, channel: usize, index: __m512i, lanes: __mmask16) -> [__m512i; 3] {
        // SAFETY: by the contract.
        unsafe { gather_32([self.multiplier, self.offset, self.shift], channel, index, lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn value(acc: __m512i, [multiplier, offset, shift]: [__m512i; 3]) -> __m512i {
        _mm512_srav_epi32(_mm512_add_epi32(_mm512_mullo_epi32(acc, multiplier), offset), shift)
    }
}

/// Dword `4·i + j` at the place of dword `4·j + i`: what [`to_bytes`] gives becomes the four vectors one after the other, and back.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exchange_quarters(codes: __m512i) -> __m512i {
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_permutexvar_epi32(order, codes)
}

/// Four vectors of values as bytes: byte `16·i + 4·j + b` of the result is of lane `4·i + b` of `values[j]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn to_bytes(values: [__m512i; 4], bytes: Bytes) -> __m512i {
    let mut low = _mm512_packs_epi32(values[0], values[1]);
    let mut high = _mm512_packs_epi32(values[2], values[3]);
    // The same for all blocks of a kernel, so that what is not needed costs no more than a test.
    if bytes.zero_point != 0 {
        let zero_point = _mm512_set1_epi16(bytes.zero_point);
        (low, high) = (_mm512_adds_epi16(low, zero_point), _mm512_adds_epi16(high, zero_point));
    }
    let mut codes = _mm512_packus_epi16(low, high);
    if (bytes.least, bytes.most) != (0, u8::MAX) {
        codes = _mm512_max_epu8(codes, _mm512_set1_epi8(bytes.least as i8));
        codes = _mm512_min_epu8(codes, _mm512_set1_epi8(bytes.most as i8));
    }
    if bytes.flip != 0 {
        codes = _mm512_xor_si512(codes, _mm512_set1_epi8(bytes.flip as i8));
    }
    codes
}
