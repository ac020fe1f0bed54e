//! Differences of two runs, tensor by tensor.

use crate::error::OrRaise;
use crate::session::{Feeds, PySession, borrowed, feeds, interruptible};
use nputwin::diff::Comparison;
use nputwin::exec::{Captured, Session};
use nputwin::{Error, Location, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Sums of differences over samples; `nputwin.compare` drives it.
#[pyclass(module = "nputwin._native", name = "Comparison")]
pub struct PyComparison(Comparison);

/// Captured tensors as a run gives them: integers of a tensor that `run` holds as codes are codes of the same encoding.
fn as_captured(session: &Session, run: &[Captured], tensors: Feeds) -> Result<Vec<Captured>> {
    let known = |name: &str| run.iter().find(|c| c.name == name || c.aliases.iter().any(|a| a == name));
    let mut out = Vec::new();
    for (name, tensor) in tensors {
        let Some(ours) = known(&name) else { continue };
        let codes = match (&ours.codes, &ours.encoding) {
            (Some(codes), Some(encoding)) if !tensor.dtype().is_float() => {
                let integers: Vec<i32> = tensor
                    .to_i64()?
                    .into_iter()
                    .map(|c| i32::try_from(c).map_err(|_| out_of_range(&name, c)))
                    .collect::<Result<_>>()?;
                if tensor.shape() != codes.shape() {
                    return Err(shapes(&name, tensor.shape(), codes.shape()));
                }
                Some((encoding.codes_to_tensor(tensor.shape(), integers).map_err(|e| e.at_tensor(&name))?, encoding))
            }
            _ => None,
        };
        out.push(match codes {
            Some((codes, encoding)) => Captured {
                value: session.dequantize(&name, encoding, &codes)?,
                codes: Some(codes),
                encoding: Some(encoding.clone()),
                aliases: Vec::new(),
                name,
            },
            None => {
                if tensor.shape() != ours.value.shape() {
                    return Err(shapes(&name, tensor.shape(), ours.value.shape()));
                }
                Captured { name, aliases: Vec::new(), codes: None, value: tensor, encoding: None }
            }
        });
    }
    Ok(out)
}

fn out_of_range(name: &str, code: i64) -> Error {
    Error::invalid("capture_code", format!("code {code} does not fit 32 bits")).at_tensor(name)
}

fn shapes(name: &str, captured: &[usize], ours: &[usize]) -> Error {
    Error::invalid("capture_shape", format!("the captured tensor has shape {captured:?}, the model's has {ours:?}"))
        .at(Location::Tensor { name: name.into(), index: None })
}

#[pymethods]
impl PyComparison {
    #[new]
    fn new() -> Self {
        PyComparison(Comparison::new())
    }

    /// Runs both sessions on one sample and adds their differences.
    fn add(
        &mut self,
        py: Python<'_>,
        values: &Bound<'_, PyDict>,
        session: &PySession,
        reference: &PySession,
    ) -> PyResult<()> {
        let feeds = feeds(values)?;
        let run =
            |which: &PySession| interruptible(py, |between| which.session.run_with(&borrowed(&feeds), true, between));
        let (left, right) = (run(session)?.captured, run(reference)?.captured);
        self.0.add(&left, &right).or_raise(py)
    }

    /// Runs the session on one sample and adds the differences from captured tensors.
    fn add_captured(
        &mut self,
        py: Python<'_>,
        values: &Bound<'_, PyDict>,
        session: &PySession,
        captured: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let inputs = feeds(values)?;
        let left = interruptible(py, |between| session.session.run_with(&borrowed(&inputs), true, between))?.captured;
        let right = as_captured(&session.session, &left, feeds(captured)?).or_raise(py)?;
        self.0.add(&left, &right).or_raise(py)
    }

    /// The table as JSON: tensors in graph order, and the names that only one side has.
    fn finish(&self, py: Python<'_>) -> PyResult<String> {
        let unpaired = self.0.unpaired();
        let out = serde_json::json!({
            "tensors": self.0.finish(),
            "only_target": unpaired.left,
            "only_reference": unpaired.right,
        });
        serde_json::to_string(&out).map_err(|e| Error::unsupported("compare_json", e.to_string())).or_raise(py)
    }
}
