//! Targets.

use crate::error::OrRaise;
use nputwin::spec::{Spec, embedded_names};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The shipped targets.
///
/// Returns:
///     One dictionary per target: name, aliases, title, status (its weakest evidence) and hash.
#[pyfunction]
pub fn targets(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    embedded_names()
        .map(|name| {
            let spec = Spec::load(name).or_raise(py)?;
            let out = PyDict::new(py);
            out.set_item("name", &spec.name)?;
            out.set_item("aliases", &spec.aliases)?;
            out.set_item("title", &spec.title)?;
            out.set_item("status", spec.status().to_string())?;
            out.set_item("hash", &spec.hash)?;
            Ok(out)
        })
        .collect()
}
