//! Compute skeletons: pure functions on slices that say which elements meet.
//!
//! Activations are NHWC. Integer kernels are exact: sums of 8-bit products are kept modulo 2^32, wide ones in 64 bits,
//! and every instruction set, thread count and batch split gives the same bits. What the accumulators become is an
//! [`Epilogue`], called on each block while it is in the cache. Every kernel has a naive twin of the same name in
//! [`mod@reference`]; the tests run both over the same cases.

mod average;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod byte_form;
pub mod code;
mod conv;
mod depthwise;
mod epilogue;
pub mod float;
mod float_pairs;
mod gather;
mod gemm;
pub mod isa;
mod layout;
mod lookup;
mod matmul;
mod meet;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod pair_saturating;
mod pairs;
mod pool;
mod processors;
mod quantize;
pub mod reference;
mod scratch;
mod shape;
mod team;
mod transpose_conv;
mod wide;
mod window;

pub use average::{FloatAverage, float_average};
pub use code::{Code, Code8};
pub use conv::{ConvWeights, conv2d, conv2d_then};
pub use epilogue::{
    AccTile, Accumulators, Bytes, DoubleRounding, Epilogue, FloatAffine, FloatScale, Fused, MulShift, OutTile,
    ShiftRounding,
};
pub use float_pairs::PairResults;
pub use gemm::{Then, gemm};
pub use isa::{Engine, Isa, Simd};
pub use layout::{to_channels_first, to_channels_last, transpose};
pub use lookup::{lookup8, lookup8_to, lookup16};
pub use matmul::matmul;
pub use meet::{Codes, MEET_CHANNELS, Part, meet};
pub use pack::PackedWeights;
pub use pair_saturating::{conv2d_pair_saturating, gemm_pair_saturating, pair, saturated};
pub use pairs::{FloatSum, float_sum, lookup_pairs};
pub use pool::{max_pool, window_counts, window_sum, window_sum_from};
pub use processors::spawn_beside;
pub use quantize::{FloatQuantize, Nearest, any_nan, quantize};
pub use shape::{ConvShape, PoolShape, TransposeShape};
pub use team::Team;
pub use transpose_conv::{TransposeWeights, conv_transpose2d, conv_transpose2d_wide};
pub use wide::{Accumulator, WideWeights, conv2d_wide, gemm_wide};

#[cfg(test)]
mod testing;
