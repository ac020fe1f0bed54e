//! Numbers: rounding, narrowing and exact float steps.
//!
//! Everything here is exact and independent of the platform: integers are widened to `i128`, floats are taken apart
//! into `mantissa · 2^exponent` and put together again with one stated rounding.

pub mod float;
pub mod multiplier;
pub mod narrow;
pub mod rounding;

pub use float::FloatType;
pub use multiplier::Multiplier;
pub use narrow::Narrow;
pub use rounding::{Rounding, div_round, sat, shr_round, wrap};
