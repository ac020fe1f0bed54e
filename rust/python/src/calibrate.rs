//! `calibrate`: encodings from sample inputs.

use crate::encoding::{FORMULAS, word};
use crate::error::OrRaise;
use crate::session::{Feeds, feeds, read_model, read_spec};
use nputwin::Error;
use nputwin::encoding::file::{Version, WriteOptions};
use nputwin::exec::calibrate::{CalibrateOptions, Method, calibrate as core_calibrate};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator};

/// Encodings of a float model for a target's placement rules, as the text of an encodings file; `nputwin.calibrate` wraps
/// it. `percentile` is None for the smallest and largest value.
#[pyfunction]
#[pyo3(signature = (model, samples, target, *, percentile, formula, activation_bits, weight_bits, per_channel, threads, max_memory, version))]
#[allow(clippy::too_many_arguments)]
pub fn calibrate(
    py: Python<'_>,
    model: &Bound<'_, PyAny>,
    samples: &Bound<'_, PyIterator>,
    target: &str,
    percentile: Option<f64>,
    formula: &str,
    activation_bits: Option<u32>,
    weight_bits: Option<u32>,
    per_channel: Option<bool>,
    threads: usize,
    max_memory: Option<u64>,
    version: &str,
) -> PyResult<String> {
    let graph = read_model(model)?;
    let spec = read_spec(py, target, None)?;
    let options = CalibrateOptions {
        method: percentile.map_or(Method::MinMax, Method::Percentile),
        formula: word(py, "formula", formula, &FORMULAS)?,
        activation_bits,
        weight_bits,
        per_channel,
        threads,
        max_memory,
        version: Version::parse(version).or_raise(py)?,
    };
    let samples = samples.clone().unbind();
    let mut raised: Option<PyErr> = None;
    let written = py.detach(|| {
        let pulled = std::iter::from_fn(|| {
            Python::attach(|py| next_sample(py, &samples)).transpose().map(|sample| {
                sample.map_err(|e| {
                    raised = Some(e);
                    Error::invalid("calibrate_sample", "a sample could not be read")
                })
            })
        });
        let file = core_calibrate(&graph, &spec, pulled, &options)?;
        file.write(options.version, &WriteOptions::default())
    });
    match raised {
        Some(exception) => Err(exception),
        None => Ok(written.or_raise(py)?.text),
    }
}

fn next_sample(py: Python<'_>, samples: &Py<PyIterator>) -> PyResult<Option<Feeds>> {
    py.check_signals()?;
    let sample = samples.bind(py).clone().next().transpose()?;
    sample.map(|sample| feeds(sample.cast::<PyDict>()?)).transpose()
}
