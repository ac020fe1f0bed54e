//! `Session`: a model under a target.

use crate::array::{to_numpy, to_tensor};
use crate::encoding::PyEncoding;
use crate::error::OrRaise;
use nputwin::encoding::file::EncodingsFile;
use nputwin::exec::{Captured, Options, PortInfo, Report, Session};
use nputwin::graph::encodings::{ApplyOptions, apply};
use nputwin::graph::{Dim, Graph};
use nputwin::kernels::spawn_beside;
use nputwin::spec::{Execution, Spec};
use nputwin::tensor::Tensor;
use nputwin::{Error, model as model_file};
use numpy::PyUntypedArray;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A model and a target, ready to run; `nputwin.Session` wraps it.
#[pyclass(frozen, module = "nputwin._native", name = "Session")]
pub struct PySession {
    /// The core session.
    pub session: Session,
    /// The graph as read, for [`PySession::coded`].
    graph: Graph,
    options: Options,
    /// What applying the encodings had to say.
    notes: Vec<String>,
    /// The same model with codes at its quantized inputs and outputs; made when first asked for.
    coded: OnceLock<Session>,
}

/// Named tensors.
pub type Feeds = Vec<(String, Tensor)>;

/// How often a run looks for signals.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `body` without the interpreter lock. `body` gets a closure to call between steps; it stops the run where a signal
/// handler raised (Ctrl-C), and that exception is the result.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    body: impl FnOnce(&mut dyn FnMut() -> nputwin::Result<()>) -> nputwin::Result<T> + Send,
) -> PyResult<T> {
    let mut raised: Option<PyErr> = None;
    let result = py.detach(|| {
        let mut last = Instant::now();
        body(&mut || {
            if last.elapsed() < SIGNAL_INTERVAL {
                return Ok(());
            }
            last = Instant::now();
            Python::attach(|py| py.check_signals()).map_err(|e| {
                raised = Some(e);
                Error::invalid("interrupted", "a signal handler stopped the run")
            })
        })
    });
    match raised {
        Some(exception) => Err(exception),
        None => result.or_raise(py),
    }
}

/// A model from a path or from the bytes of a file.
pub fn read_model(model: &Bound<'_, PyAny>) -> PyResult<Graph> {
    let py = model.py();
    if let Ok(bytes) = model.cast::<PyBytes>() {
        let bytes = bytes.as_bytes();
        return py.detach(|| model_file::decode(bytes, "model bytes", None)).or_raise(py);
    }
    let path: PathBuf = model.extract()?;
    py.detach(|| model_file::read(&path)).or_raise(py)
}

/// Encodings from a path, or from the text of a file.
pub fn read_encodings(encodings: &Bound<'_, PyAny>) -> PyResult<EncodingsFile> {
    let py = encodings.py();
    match encodings.cast::<PyBytes>() {
        Ok(text) => EncodingsFile::parse(text.as_bytes(), "encodings"),
        Err(_) => EncodingsFile::read(encodings.extract::<PathBuf>()?),
    }
    .or_raise(py)
}

/// A target by name or path, with rules swapped.
pub fn read_spec(py: Python<'_>, target: &str, assume: Option<Vec<(String, String)>>) -> PyResult<Spec> {
    assuming(py, Spec::load(target), assume)
}

/// A target with rules swapped.
fn assuming(py: Python<'_>, spec: nputwin::Result<Spec>, assume: Option<Vec<(String, String)>>) -> PyResult<Spec> {
    let mut spec = spec.or_raise(py)?;
    for (rule, alternative) in assume.unwrap_or_default() {
        spec.assume(&rule, &alternative).or_raise(py)?;
    }
    Ok(spec)
}

/// The tensors of a dictionary of arrays.
pub fn feeds(values: &Bound<'_, PyDict>) -> PyResult<Feeds> {
    values
        .iter()
        .map(|(name, value)| {
            let name: String = name.extract()?;
            let array = value.cast::<PyUntypedArray>()?;
            let tensor = to_tensor(array, &name)?;
            Ok((name, tensor))
        })
        .collect()
}

/// As the core takes them.
pub fn borrowed(feeds: &Feeds) -> Vec<(&str, &Tensor)> {
    feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

impl PySession {
    /// A session that is there already, and the graph that it was made of.
    pub fn of(session: Session, graph: Graph, options: Options) -> Self {
        PySession { session, graph, options, notes: Vec::new(), coded: OnceLock::new() }
    }

    fn port<'py>(py: Python<'py>, port: PortInfo) -> PyResult<Bound<'py, PyDict>> {
        let out = PyDict::new(py);
        out.set_item("name", &port.name)?;
        out.set_item("dtype", port.dtype.name())?;
        let shape = match &port.shape {
            None => None,
            Some(dims) => Some(
                dims.iter()
                    .map(|dim| match dim {
                        Dim::Fixed(n) => Ok(n.into_pyobject(py)?.into_any()),
                        Dim::Symbol(s) if s.is_empty() => Ok(py.None().into_bound(py)),
                        Dim::Symbol(s) => Ok(PyString::new(py, s).into_any()),
                    })
                    .collect::<PyResult<Vec<_>>>()?,
            ),
        };
        out.set_item("shape", shape)?;
        out.set_item("encoding", port.encoding.map(PyEncoding))?;
        Ok(out)
    }

    fn ports<'py>(py: Python<'py>, ports: Vec<PortInfo>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        ports.into_iter().map(|port| Self::port(py, port)).collect()
    }

    /// The session whose ports are codes. Outputs are codes only where the target computes in integers.
    fn coded(&self) -> nputwin::Result<&Session> {
        if let Some(session) = self.coded.get() {
            return Ok(session);
        }
        let spec = self.session.spec().clone();
        let tensors = &self.session.graph().tensors;
        let mut graph = self.graph.clone();
        for port in &mut graph.inputs {
            port.quantized |= tensors[port.tensor].encoding.is_some();
        }
        if spec.execution == Execution::Integer {
            for port in &mut graph.outputs {
                port.quantized |= tensors[port.tensor].encoding.is_some();
            }
        }
        let session = Session::new(graph, spec, self.options)?;
        Ok(self.coded.get_or_init(|| session))
    }

    /// Runs the coded session and quantizes those outputs that the target leaves in reals.
    fn run_coded(
        &self,
        feeds: &Feeds,
        between: &mut dyn FnMut() -> nputwin::Result<()>,
    ) -> nputwin::Result<Vec<(String, Tensor)>> {
        let session = self.coded()?;
        let outputs = session.run_with(&borrowed(feeds), false, between)?.outputs;
        let ports = &session.graph().outputs;
        outputs
            .into_iter()
            .zip(ports)
            .map(|((name, value), port)| match &session.graph().tensors[port.tensor].encoding {
                Some(encoding) if !port.quantized => Ok((name, session.quantize(&port.name, encoding, &value)?)),
                _ => Ok((name, value)),
            })
            .collect()
    }
}

#[pymethods]
impl PySession {
    #[new]
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (model, target, *, encodings=None, threads=0, max_memory=None, strict=false, assume=None, allow_unmatched=false))]
    fn new(
        py: Python<'_>,
        model: &Bound<'_, PyAny>,
        target: &str,
        encodings: Option<&Bound<'_, PyAny>>,
        threads: usize,
        max_memory: Option<u64>,
        strict: bool,
        assume: Option<Vec<(String, String)>>,
        allow_unmatched: bool,
    ) -> PyResult<Self> {
        let (graph, spec) = std::thread::scope(|scope| {
            // The files have nothing to do with each other.
            let spec = spawn_beside(scope, "nputwin-spec", || Spec::load(target));
            let graph = read_model(model);
            match spec {
                Ok(spec) => (graph, spec.join().expect("reading a spec does not panic")),
                Err(_) => (graph, Spec::load(target)),
            }
        });
        let (mut graph, spec) = (graph?, assuming(py, spec, assume)?);
        let notes = match encodings {
            None => Vec::new(),
            Some(encodings) => {
                let options = ApplyOptions { allow_unmatched };
                apply(&mut graph, &read_encodings(encodings)?, options).or_raise(py)?.notes()
            }
        };
        let options = Options { threads, max_memory, strict, ..Options::default() };
        let session = Session::new(graph.clone(), spec, options).or_raise(py)?;
        Ok(PySession { notes, ..PySession::of(session, graph, options) })
    }

    /// Inputs as dictionaries with name, dtype, shape and encoding.
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        Self::ports(py, self.session.inputs())
    }

    /// Outputs as dictionaries with name, dtype, shape and encoding.
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        Self::ports(py, self.session.outputs())
    }

    /// Name and hash of the target.
    #[getter]
    fn target(&self) -> (&str, &str) {
        (&self.session.spec().name, &self.session.spec().hash)
    }

    /// Threads that runs use.
    #[getter]
    fn threads(&self) -> usize {
        self.session.threads()
    }

    /// All outputs, in the graph's order.
    fn run<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyDict>,
    ) -> PyResult<Vec<(String, Bound<'py, PyUntypedArray>)>> {
        let feeds = feeds(values)?;
        let result = interruptible(py, |between| self.session.run_with(&borrowed(&feeds), false, between))?;
        result.outputs.into_iter().map(|(name, tensor)| Ok((name, to_numpy(py, tensor)?))).collect()
    }

    /// As `run`, with codes for every input and output that has an encoding.
    fn run_quantized<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyDict>,
    ) -> PyResult<Vec<(String, Bound<'py, PyUntypedArray>)>> {
        let feeds = feeds(values)?;
        let outputs = interruptible(py, |between| self.run_coded(&feeds, between))?;
        outputs.into_iter().map(|(name, tensor)| Ok((name, to_numpy(py, tensor)?))).collect()
    }

    /// Every tensor of a run, in graph order, as dictionaries with name, aliases, codes, value and encoding.
    fn dump<'py>(&self, py: Python<'py>, values: &Bound<'py, PyDict>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let feeds = feeds(values)?;
        let result = interruptible(py, |between| self.session.run_with(&borrowed(&feeds), true, between))?;
        result.captured.into_iter().map(|captured| dumped(py, captured)).collect()
    }

    /// How one element of a tensor came about, as JSON.
    fn explain(&self, py: Python<'_>, values: &Bound<'_, PyDict>, tensor: &str, index: usize) -> PyResult<String> {
        let feeds = feeds(values)?;
        let explanation = py.detach(|| self.session.explain(&borrowed(&feeds), tensor, index)).or_raise(py)?;
        serde_json::to_string(&explanation).map_err(|e| Error::unsupported("explain_json", e.to_string())).or_raise(py)
    }

    /// How each node runs for inputs of these shapes (the declared ones, with 1 for open dimensions, where None).
    #[pyo3(signature = (shapes=None))]
    fn report<'py>(&self, py: Python<'py>, shapes: Option<Vec<Vec<usize>>>) -> PyResult<Bound<'py, PyDict>> {
        let report = py.detach(|| {
            let shapes = match shapes {
                Some(shapes) => shapes,
                None => self.session.default_shapes()?,
            };
            self.session.report(shapes)
        });
        reported(py, &report.or_raise(py)?, &self.notes)
    }
}

fn dumped<'py>(py: Python<'py>, captured: Captured) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("name", captured.name)?;
    out.set_item("aliases", captured.aliases)?;
    out.set_item("codes", captured.codes.map(|codes| to_numpy(py, codes)).transpose()?)?;
    out.set_item("value", to_numpy(py, captured.value)?)?;
    out.set_item("encoding", captured.encoding.map(PyEncoding))?;
    Ok(out)
}

fn reported<'py>(py: Python<'py>, report: &Report, encoding_notes: &[String]) -> PyResult<Bound<'py, PyDict>> {
    let nodes = PyList::empty(py);
    for node in &report.nodes {
        let item = PyDict::new(py);
        item.set_item("name", &node.name)?;
        item.set_item("op_type", &node.op_type)?;
        item.set_item("mode", node.mode)?;
        item.set_item("rule", &node.rule)?;
        item.set_item("status", node.evidence.as_ref().map(|e| e.status.to_string()))?;
        item.set_item("source", node.evidence.as_ref().map(|e| e.source.as_str()))?;
        nodes.append(item)?;
    }
    let notes: Vec<(&str, &str)> = encoding_notes
        .iter()
        .map(|text| ("encodings", text.as_str()))
        .chain(report.notes.iter().map(|note| (note.place.as_str(), note.text.as_str())))
        .collect();
    let out = PyDict::new(py);
    out.set_item("nodes", nodes)?;
    out.set_item("notes", notes)?;
    out.set_item("status", report.status.to_string())?;
    Ok(out)
}
