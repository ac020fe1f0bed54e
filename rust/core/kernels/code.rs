//! The integer types that kernels read and write.

/// An integer code of a quantized tensor.
pub trait Code: Copy + Default + Ord + Send + Sync + std::fmt::Debug + 'static + sealed::Sealed {
    /// Smallest value.
    const MIN: i64;
    /// Largest value.
    const MAX: i64;
    /// The value.
    fn to_i32(self) -> i32;
    /// The value modulo the width of the type.
    fn wrap(value: i64) -> Self;
    /// As [`Code::wrap`], from 32 bits.
    fn wrap32(value: i32) -> Self;
    /// The nearest value of the type.
    fn saturate(value: i64) -> Self {
        Self::wrap(value.clamp(Self::MIN, Self::MAX))
    }
}

/// A code of one byte.
pub trait Code8: Code {
    /// Whether the byte is two's complement.
    const SIGNED: bool;
    /// The bytes of a slice of codes.
    fn bytes(codes: &[Self]) -> &[u8];
    /// The bytes of a slice of codes, for writing.
    fn bytes_mut(codes: &mut [Self]) -> &mut [u8];
    /// The codes of a slice of bytes.
    fn of_bytes(bytes: &[u8]) -> &[Self];
}

mod sealed {
    /// Closes [`super::Code`] to types whose every bit pattern is a value.
    pub trait Sealed {}
}

macro_rules! code {
    ($($ty:ty),+) => {$(
        impl sealed::Sealed for $ty {}
        impl Code for $ty {
            const MIN: i64 = <$ty>::MIN as i64;
            const MAX: i64 = <$ty>::MAX as i64;
            #[inline(always)]
            fn to_i32(self) -> i32 {
                i32::from(self)
            }
            #[inline(always)]
            fn wrap(value: i64) -> Self {
                value as $ty
            }
            #[inline(always)]
            fn wrap32(value: i32) -> Self {
                value as $ty
            }
        }
    )+};
}
code!(u8, i8, u16, i16, i32);

impl Code8 for u8 {
    const SIGNED: bool = false;
    fn bytes(codes: &[u8]) -> &[u8] {
        codes
    }
    fn bytes_mut(codes: &mut [u8]) -> &mut [u8] {
        codes
    }
    fn of_bytes(bytes: &[u8]) -> &[u8] {
        bytes
    }
}

impl Code8 for i8 {
    const SIGNED: bool = true;
    fn bytes(codes: &[i8]) -> &[u8] {
        // SAFETY: i8 and u8 have the same size and alignment, and every bit pattern is valid in both.
        unsafe { std::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) }
    }
    fn bytes_mut(codes: &mut [i8]) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(codes.as_mut_ptr().cast(), codes.len()) }
    }
    fn of_bytes(bytes: &[u8]) -> &[i8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_and_wrapping_at_the_edges() {
        assert_eq!(u8::saturate(-1), 0);
        assert_eq!(u8::saturate(256), 255);
        assert_eq!(i8::saturate(i64::MIN), -128);
        assert_eq!(i16::saturate(40_000), 32_767);
        assert_eq!(u16::wrap(-1), 65_535);
        assert_eq!(i8::bytes(&[-1, 2]), [255, 2]);
        assert_eq!(i8::of_bytes(&[255, 2]), [-1, 2]);
    }
}
