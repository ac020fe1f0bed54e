//! f32 kernels for float graphs and fake-quantized simulation.
//!
//! Every sum has a fixed order: it starts at +0, takes its products in ascending `k` by fused multiply-add (one rounding
//! each) and adds the bias last. Vector code runs over columns, so threads, instruction sets and batch splits all give
//! the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod conv;
mod gemm;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pool;

pub use conv::{FloatConvWeights, FloatTransposeWeights, conv_transpose2d_f32, conv2d_f32};
pub use gemm::{FloatWeights, gemm_f32};
pub use pool::{max_pool_f32, window_sum_f32};
