//! Python module `nputwin._native`: conversions only.

use pyo3::prelude::*;

#[pymodule]
mod _native {}
