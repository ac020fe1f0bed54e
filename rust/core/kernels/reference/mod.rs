//! Naive twins of the kernels: slow, obvious, and the definition of what the fast ones compute.
//!
//! They share no code with them but the geometry. Sums are formed in 64 bits or more and reduced at the end.

mod conv;
mod epilogue;

pub use conv::{conv2d, gemm};
pub use epilogue::{double_rounding, float_scale, mul_shift, shift_right};
