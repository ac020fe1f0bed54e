//! Element types as the operators see them: reals go through f64, integers through i128.
//!
//! A real operation is evaluated in f64 and rounded once to the tensor's type. For `+ - * /` and square root on
//! float32 this equals the native operation (f64 has more than twice the bits plus two), so the compiler may use it.

use crate::num::narrow::to_f32_odd;
use crate::tensor::{DType, Data, Elements, Plain};
use half::{bf16, f16};

/// A type that tensors hold.
pub trait Element: Plain + PartialOrd {
    /// Its tag.
    const DTYPE: DType;
    /// The elements of `data`, where they are of this type.
    fn view(data: &Data) -> Option<&[Self]>;
    /// Wraps elements.
    fn wrap(elements: impl Into<Elements<Self>>) -> Data;
}

/// A float type.
pub trait Real: Element {
    /// Exact.
    fn to_f64(self) -> f64;
    /// Rounds once, to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
}

/// An integer type.
pub trait Integer: Element {
    /// Exact.
    fn to_i128(self) -> i128;
    /// Keeps the low bits (two's complement).
    fn wrapping_from(value: i128) -> Self;
}

macro_rules! elements {
    ($($t:ty => $variant:ident),* $(,)?) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn view(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(v) => Some(v),
                    _ => None,
                }
            }
            fn wrap(elements: impl Into<Elements<Self>>) -> Data {
                Data::$variant(elements.into())
            }
        }
    )*};
}
elements!(
    f64 => F64, f32 => F32, f16 => F16, bf16 => BF16, i64 => I64, i32 => I32, i16 => I16, i8 => I8,
    u64 => U64, u32 => U32, u16 => U16, u8 => U8, bool => Bool,
);

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Integer for $t {
            fn to_i128(self) -> i128 {
                self.into()
            }
            fn wrapping_from(value: i128) -> Self {
                value as $t
            }
        }
    )*};
}
integers!(i64, i32, i16, i8, u64, u32, u16, u8);

impl Real for f64 {
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(value: f64) -> Self {
        value
    }
}

impl Real for f32 {
    fn to_f64(self) -> f64 {
        self.into()
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Real for f16 {
    fn to_f64(self) -> f64 {
        self.to_f64_const()
    }
    fn from_f64(value: f64) -> Self {
        f16::from_f32_const(to_f32_odd(value))
    }
}

impl Real for bf16 {
    fn to_f64(self) -> f64 {
        self.to_f64_const()
    }
    fn from_f64(value: f64) -> Self {
        bf16::from_f32_const(to_f32_odd(value))
    }
}

/// Calls one of three expressions with `$v` bound to the vector of `$data`: for reals, for integers and for booleans.
macro_rules! by_class {
    ($data:expr, $v:ident => real $real:expr, integer $integer:expr, boolean $boolean:expr $(,)?) => {
        match $data {
            $crate::tensor::Data::F64($v) => $real,
            $crate::tensor::Data::F32($v) => $real,
            $crate::tensor::Data::F16($v) => $real,
            $crate::tensor::Data::BF16($v) => $real,
            $crate::tensor::Data::I64($v) => $integer,
            $crate::tensor::Data::I32($v) => $integer,
            $crate::tensor::Data::I16($v) => $integer,
            $crate::tensor::Data::I8($v) => $integer,
            $crate::tensor::Data::U64($v) => $integer,
            $crate::tensor::Data::U32($v) => $integer,
            $crate::tensor::Data::U16($v) => $integer,
            $crate::tensor::Data::U8($v) => $integer,
            $crate::tensor::Data::Bool($v) => $boolean,
        }
    };
}
pub(crate) use by_class;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_is_rounded_once() {
        // Halfway between 1 and 1 + 2^-10, and a bit that float32 cannot hold: up, not to even.
        let value = 1.0 + f64::powi(2.0, -11) + f64::powi(2.0, -40);
        assert_eq!(<f16 as Real>::from_f64(value), f16::from_bits(0x3c01));
        assert_eq!(<f16 as Real>::from_f64(1.0 + f64::powi(2.0, -11)), f16::from_bits(0x3c00));
        assert_eq!(<f16 as Real>::from_f64(-value), f16::from_bits(0xbc01));
        assert_eq!(<bf16 as Real>::from_f64(1e300), bf16::INFINITY);
        assert!(<bf16 as Real>::from_f64(f64::NAN).is_nan());
    }

    #[test]
    fn integers_wrap() {
        assert_eq!(i8::wrapping_from(200), -56);
        assert_eq!(u64::wrapping_from(-1), u64::MAX);
    }
}
