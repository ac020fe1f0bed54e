//! nputwin: a digital twin of an NPU's integer arithmetic.
//!
//! Given an ONNX graph with encodings and a target spec, the crate computes the integers that the target's kernels
//! would compute. `ARCHITECTURE.md` describes the layers; each module imports only what stands left of it:
//! `num → program → tensor → arrays → encoding → {spec, kernels, calibrate} → graph → ops → {onnx, tflite} → model →
//! exec → diff → conformance`.

pub mod arrays;
pub mod calibrate;
pub mod conformance;
pub mod diff;
pub mod encoding;
pub mod error;
pub mod exec;
pub mod graph;
pub mod kernels;
pub mod model;
pub mod num;
pub mod onnx;
pub mod ops;
pub mod program;
pub mod spec;
pub mod tensor;
pub mod tflite;

pub use error::{Error, Kind, Location, Result};
