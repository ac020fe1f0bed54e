//! Multiply-accumulate operators: a sum of products, a bias, and a program from accumulator to code.

mod arithmetic;
mod conv;
mod conv_transpose;
pub mod epilogue;
mod matrix;
mod reference;
mod weights;

pub use conv::{Conv, wrong_codes};
pub use conv_transpose::ConvTranspose;
pub use matrix::{Gemm, MatMul};
