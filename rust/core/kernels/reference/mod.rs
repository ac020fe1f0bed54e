//! Naive twins of the kernels: slow, obvious, and the definition of what the fast ones compute.
//!
//! They share no code with them but the geometry. Sums are formed in 64 bits or more and reduced at the end, so one twin
//! serves every accumulator width: [`conv2d`] is that of `conv2d_wide` too, [`lookup`] that of every look-up.

mod conv;
mod epilogue;
mod float;
mod movement;
mod pool;

pub use conv::{conv_transpose2d, conv2d, conv2d_pair_saturating, gemm, matmul};
pub use epilogue::{double_rounding, float_affine, float_scale, float_sum, meet, mul_shift, quantize, shift_right};
pub use float::{conv_transpose2d_f32, conv2d_f32, gemm_f32, max_pool_f32, window_sum_f32};
pub use movement::{lookup, lookup_pairs, transpose};
pub use pool::{float_average, max_pool, window_sum};
