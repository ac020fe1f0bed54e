//! `conformance`: golden vectors on our runtimes, through Python, and on implementations that are Python functions.

use crate::array::{to_numpy, to_tensor};
use crate::error::OrRaise;
use crate::session::{PySession, interruptible};
use nputwin::conformance::{Against, Prepared, Request, Runner, Runtime};
use nputwin::exec::Options;
use nputwin::spec::Spec;
use nputwin::tensor::Tensor;
use nputwin::{Error, Result};
use numpy::PyUntypedArray;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

/// Name of the runtime that goes through numpy arrays and `nputwin.Session`.
const PYTHON: &str = "python";

/// Calls `(session, feeds)` with a session of the case and arrays for its inputs.
struct ThroughPython {
    callback: Py<PyAny>,
}

/// Calls `(case, arrays)` with `case.json` and an array per role.
struct Implementation {
    callback: Py<PyAny>,
}

fn arrays<'py, 'a>(
    py: Python<'py>,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    for (name, tensor) in tensors {
        out.set_item(name, to_numpy(py, tensor.clone())?)?;
    }
    Ok(out)
}

/// What a callback returns; an exception becomes an error that the report shows.
fn returned(call: impl FnOnce(Python<'_>) -> PyResult<Tensor>) -> Result<Tensor> {
    Python::attach(|py| call(py).map_err(|e| Error::invalid("python_exception", e.to_string())))
}

fn tensor(value: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    to_tensor(value.cast::<PyUntypedArray>()?, "out")
}

impl Runner for ThroughPython {
    fn name(&self) -> &str {
        PYTHON
    }

    fn run(&self, case: &Prepared<'_>) -> Result<Tensor> {
        let options = Options { threads: 1, ..Options::default() };
        let (session, feeds) = (case.session(options)?, case.feeds()?);
        let graph = case.one_node()?.0.clone();
        returned(|py| {
            let session = Bound::new(py, PySession::of(session, graph, options))?;
            tensor(&self.callback.bind(py).call1((session, arrays(py, feeds.into_iter())?))?)
        })
    }
}

impl Runner for Implementation {
    fn name(&self) -> &str {
        "implementation"
    }

    fn needs_target(&self) -> bool {
        false
    }

    fn run(&self, case: &Prepared<'_>) -> Result<Tensor> {
        let document = serde_json::to_string(case.case).map_err(|e| Error::invalid("vector_json", e.to_string()))?;
        let by_role = case.case.inputs.iter().filter_map(|o| Some((o.role.as_str(), case.arrays.get(&o.array)?)));
        returned(|py| tensor(&self.callback.bind(py).call1((document, arrays(py, by_role)?))?))
    }
}

/// The summary of a run as JSON; `nputwin.conformance` wraps it.
#[pyfunction]
#[pyo3(signature = (folders, *, target, families, only, runtimes, against_target, jobs, through_python, implementation))]
#[allow(clippy::too_many_arguments)]
pub fn conformance(
    py: Python<'_>,
    folders: Vec<PathBuf>,
    target: Option<&str>,
    families: Vec<String>,
    only: Option<&str>,
    runtimes: Vec<String>,
    against_target: bool,
    jobs: usize,
    through_python: Py<PyAny>,
    implementation: Option<Py<PyAny>>,
) -> PyResult<String> {
    let through_python = ThroughPython { callback: through_python };
    let implementation = implementation.map(|callback| Implementation { callback });
    let native: Vec<String> = runtimes.iter().filter(|name| *name != PYTHON).cloned().collect();
    let is_python = runtimes.is_empty() || native.len() < runtimes.len();
    let native = match native.is_empty() && !runtimes.is_empty() {
        true => Vec::new(),
        false => Runtime::named(&native).or_raise(py)?,
    };
    let mut runners: Vec<&dyn Runner> = Vec::new();
    match &implementation {
        Some(implementation) => runners.push(implementation),
        None => {
            runners.extend(native.iter().map(|r| r as &dyn Runner));
            if is_python {
                runners.push(&through_python);
            }
        }
    }
    let request = Request {
        folders: &folders,
        families: &families,
        only,
        target: target.map(Spec::load).transpose().or_raise(py)?,
        against: if against_target { Against::Target } else { Against::Vectors },
        runners: &runners,
        jobs,
    };
    let summary = interruptible(py, |between| request.run(&mut |_| (), between))?;
    serde_json::to_string(&summary).map_err(|e| Error::invalid("conformance_json", e.to_string())).or_raise(py)
}
