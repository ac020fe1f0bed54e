//! Python module `nputwin._native`: conversions only. What it computes, the core crate computes.

mod array;
mod calibrate;
mod compare;
mod conformance;
mod encoding;
mod error;
mod placement;
mod session;
mod spec;

use pyo3::prelude::*;

/// Runs the command line with these arguments, the first of which names the program, and gives its exit code.
#[pyfunction]
fn run_cli(py: Python<'_>, arguments: Vec<String>) -> u8 {
    py.detach(|| nputwin_cli::run(arguments))
}

/// Compiled half of the package `nputwin`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::calibrate::calibrate;
    #[pymodule_export]
    use super::compare::PyComparison;
    #[pymodule_export]
    use super::conformance::conformance;
    #[pymodule_export]
    use super::encoding::{PyEncoding, dequantize, fake_quantize, quantize};
    #[pymodule_export]
    use super::placement::{check, placement};
    #[pymodule_export]
    use super::run_cli;
    #[pymodule_export]
    use super::session::PySession;
    #[pymodule_export]
    use super::spec::targets;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        nputwin_cli::allocator::configure();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
