//! Core errors become the exceptions of `nputwin.errors`.

use nputwin::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

static FROM_CORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The Python exception of a core error.
pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).unwrap_or_else(|import_failure| import_failure)
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let from_core = FROM_CORE.import(py, "nputwin.errors", "from_core")?;
    let location = error.location().map(ToString::to_string);
    let arguments =
        (error.kind().label(), error.code(), error.message(), location, error.help_text(), error.to_string());
    Ok(PyErr::from_value(from_core.call1(arguments)?))
}

/// `?` for core results inside functions that Python calls.
pub trait OrRaise<T> {
    /// The value, or the Python exception of the error.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for nputwin::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raised(py, &error))
    }
}
