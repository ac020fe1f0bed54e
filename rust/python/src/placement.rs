//! `placement` and `check`: what a target's placement rules say of a model.

use crate::error::OrRaise;
use crate::session::{read_encodings, read_model, read_spec};
use nputwin::exec::check::check as core_check;
use nputwin::exec::quantizers::{Decision, Role, quantizers};
use nputwin::graph::Graph;
use nputwin::graph::encodings::{ApplyOptions, apply};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What the rules say of every float tensor; `nputwin.placement` wraps it.
#[pyfunction]
pub fn placement<'py>(model: &Bound<'py, PyAny>, target: &str) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let py = model.py();
    let graph = read_model(model)?;
    let spec = read_spec(py, target, None)?;
    let decisions = py.detach(|| quantizers(&graph, &spec.placement));
    decisions.tensors.iter().map(|d| to_dict(py, &graph, d)).collect()
}

fn to_dict<'py>(py: Python<'py>, graph: &Graph, decision: &Decision) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("tensor", &graph.tensors[decision.tensor].name)?;
    let (role, op_type, parameter) = match &decision.role {
        Role::Input => ("input", None, None),
        Role::Activation => ("activation", None, None),
        Role::Constant => ("constant", None, None),
        Role::Parameter { op_type, name } => ("parameter", Some(op_type), Some(name)),
    };
    out.set_item("role", role)?;
    out.set_item("op_type", op_type)?;
    out.set_item("parameter", parameter)?;
    out.set_item("quantized", decision.quantizer.is_some())?;
    out.set_item("reason", decision.reason.to_string())?;
    out.set_item("group", &graph.tensors[decision.group].name)?;
    let q = decision.quantizer;
    out.set_item("bitwidth", q.map(|q| q.bitwidth))?;
    out.set_item("signed", q.map(|q| q.signed))?;
    out.set_item("symmetric", q.map(|q| q.symmetric))?;
    out.set_item("narrow_range", q.map(|q| q.narrow_range))?;
    out.set_item("unsigned_symmetric", q.map(|q| q.unsigned_symmetric))?;
    out.set_item("axis", q.and_then(|q| q.axis))?;
    out.set_item("min", q.and_then(|q| q.constraint).and_then(|c| c.min))?;
    out.set_item("max", q.and_then(|q| q.constraint).and_then(|c| c.max))?;
    Ok(out)
}

/// Where the encodings of a model break the rules; `nputwin.check` wraps it.
#[pyfunction]
#[pyo3(signature = (model, target, encodings, allow_unmatched))]
pub fn check<'py>(
    model: &Bound<'py, PyAny>,
    target: &str,
    encodings: Option<&Bound<'py, PyAny>>,
    allow_unmatched: bool,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let py = model.py();
    let mut graph = read_model(model)?;
    let spec = read_spec(py, target, None)?;
    if let Some(encodings) = encodings {
        let file = read_encodings(encodings)?;
        apply(&mut graph, &file, ApplyOptions { allow_unmatched }).or_raise(py)?;
    }
    let findings = py.detach(|| core_check(&graph, &spec));
    findings
        .iter()
        .map(|finding| {
            let out = PyDict::new(py);
            out.set_item("code", finding.code)?;
            out.set_item("place", &finding.place)?;
            out.set_item("message", &finding.message)?;
            out.set_item("help", &finding.help)?;
            Ok(out)
        })
        .collect()
}
