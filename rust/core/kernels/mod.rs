//! Compute skeletons: pure functions on slices that say which elements meet.
//!
//! Activations are NHWC. Integer kernels are exact: sums of 8-bit products are kept modulo 2^32, wide ones in 64 bits,
//! and every instruction set, thread count and batch split gives the same bits. What the accumulators become is an
//! [`Epilogue`], called on each block while it is in the cache. Every kernel has a naive twin of the same name in
//! [`mod@reference`]; the tests run both over the same cases.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod code;
mod conv;
mod depthwise;
mod epilogue;
mod gemm;
pub mod isa;
mod pack;
pub mod reference;
mod shape;

pub use code::{Code, Code8};
pub use conv::{ConvWeights, conv2d};
pub use epilogue::{AccTile, Accumulators, DoubleRounding, Epilogue, FloatScale, MulShift, OutTile, ShiftRounding};
pub use gemm::gemm;
pub use isa::{Engine, Isa, Simd};
pub use pack::PackedWeights;
pub use shape::{ConvShape, PoolShape};

#[cfg(test)]
mod testing;
