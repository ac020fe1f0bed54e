//! Kernels that are prepared while the planner goes on with the graph: most of the time that a model takes until it is ready goes into
//! packing weights and compiling programs, which no other node waits for.

use crate::error::{Error, Result};
use crate::graph::Node;
use crate::kernels::spawn_beside;
use crate::ops::integer::{Arrangement, Context, IntegerOp, Layout, quantizers};
use crate::ops::{Fact, Facts, Kernel, RunContext};
use crate::program::Env;
use crate::spec::{Body, Spec};
use crate::tensor::Tensor;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, available_parallelism};

/// Jobs that a sleeping thread is woken up for.
const BATCH: usize = 4;

/// Nodes of a graph for each further thread.
const NODES_PER_THREAD: usize = 16;

/// What preparing the kernel of a node takes.
pub(super) struct Job<'a> {
    /// The step that the kernel belongs to.
    pub step: usize,
    pub op: &'static dyn IntegerOp,
    pub node: &'a Node,
    pub opset: i64,
    pub inputs: Vec<Option<Fact>>,
    pub outputs: Vec<Option<Fact>>,
    pub spec: &'a Spec,
    pub body: &'a Body,
    pub layouts: Vec<Layout>,
    pub clamp: Option<(i64, i64)>,
    pub env: Env,
    /// What the planner relies on.
    pub arrangement: Arrangement,
    pub context: RunContext<'a>,
}

impl Job<'_> {
    fn prepare(mut self) -> Result<Box<dyn Kernel>> {
        let at_node = |e: Error| e.at_node(&self.node.name, &self.node.op_type);
        let facts = Facts { node: self.node, opset: self.opset, inputs: &self.inputs, outputs: &self.outputs };
        let data = self.op.data_inputs(&facts);
        quantize_constants(self.spec, &data, &mut self.inputs, &self.context).map_err(at_node)?;
        let facts = Facts { node: self.node, opset: self.opset, inputs: &self.inputs, outputs: &self.outputs };
        let context = Context { spec: self.spec, body: self.body, layouts: &self.layouts, clamp: self.clamp };
        let prepared = self.op.prepare(&facts, &context, self.env).map_err(at_node)?;
        if prepared.arrangement != self.arrangement {
            let message = format!("{:?} was planned, {:?} prepared", self.arrangement, prepared.arrangement);
            return Err(at_node(Error::invalid("arrangement", format!("{message}; please report this"))));
        }
        Ok(prepared.kernel)
    }
}

/// Gives the inputs `data` that are constant and quantized their codes.
pub(super) fn quantize_constants(
    spec: &Spec,
    data: &[usize],
    inputs: &mut [Option<Fact>],
    context: &RunContext<'_>,
) -> Result<()> {
    for &i in data {
        if let Some(Some(fact)) = inputs.get_mut(i)
            && lacks_codes(fact)
        {
            fact.codes = Some(quantizers::quantize_constant(spec, fact, context)?);
        }
    }
    Ok(())
}

/// Whether the codes of a quantized constant are still to be computed from its reals.
pub(super) fn lacks_codes(fact: &Fact) -> bool {
    fact.constant.is_some() && fact.encoding.is_some() && fact.codes.is_none()
}

/// Stands for a kernel that a job prepares.
pub(super) struct Awaited;

impl Kernel for Awaited {
    fn run(&self, _: &RunContext<'_>, _: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        Err(Error::invalid("kernel_awaited", "a kernel was not prepared; please report this"))
    }
}

#[derive(Default)]
struct State<'a> {
    waiting: VecDeque<Box<Job<'a>>>,
    closed: bool,
    /// Kernels by step.
    done: Vec<(usize, Result<Box<dyn Kernel>>)>,
}

/// Jobs that are handed out in their order.
#[derive(Default)]
pub(super) struct Jobs<'a> {
    state: Mutex<State<'a>>,
    bell: Condvar,
}

impl<'a> Jobs<'a> {
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Threads besides the caller's that are worth having for a graph of `nodes` nodes: one where a run has one thread and the machine
    /// two, else as many as a run has. Where the system gives none, the caller does all.
    pub fn serve<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, nodes: usize, threads: usize)
    where
        'a: 'scope,
    {
        let most = available_parallelism().map_or(1, usize::from).min(threads.max(2)) - 1;
        for _ in 0..most.min(nodes / NODES_PER_THREAD) {
            if spawn_beside(scope, "nputwin-prepare", || self.work(true)).is_err() {
                break;
            }
        }
    }

    /// Adds a job.
    pub fn push(&self, job: Box<Job<'a>>) {
        let mut state = self.state();
        state.waiting.push_back(job);
        if state.waiting.len().is_multiple_of(BATCH) {
            drop(state);
            self.bell.notify_one();
        }
    }

    /// Does jobs until there are none; with `wait`, until there will be no more.
    fn work(&self, wait: bool) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                drop(state);
                let step = job.step;
                let kernel = job.prepare();
                state = self.state();
                state.done.push((step, kernel));
            } else if wait && !state.closed {
                state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                return;
            }
        }
    }

    /// Says that there will be no more jobs, and helps with those that there are.
    pub fn close(&self) {
        self.state().closed = true;
        self.bell.notify_all();
        self.work(false);
    }

    /// Kernels by step, of all jobs once all threads have ended; the error of the first node that has one.
    pub fn finish(&self) -> Result<Vec<(usize, Box<dyn Kernel>)>> {
        let mut done = std::mem::take(&mut self.state().done);
        done.sort_by_key(|(step, _)| *step);
        done.into_iter().map(|(step, kernel)| Ok((step, kernel?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::encoding::Encoding;
    use crate::exec::testing::Builder;
    use crate::exec::{Options, Session};
    use crate::graph::Graph;
    use crate::program::Evaluator;
    use crate::spec::Spec;
    use crate::tensor::Tensor;
    use std::sync::Arc;

    const NODES: usize = 40;

    /// `y0 = Conv(x, w)`, `y1 = y0 + y0`, `y2 = Conv(y1, w)` …, all of int8, on 1×4×3×3. The Convs of `open` have weights that are no
    /// constant, which is found out when their kernels are prepared.
    fn chain(open: &[usize]) -> Graph {
        let mut builder = Builder::new();
        let weights = (0..16).map(|i| (i % 7) as f32 * 0.25 - 0.5).collect();
        builder.tensor("w", Some(Tensor::f32(&[4, 4, 1, 1], weights)));
        builder.tensor("open", None);
        for n in 0..NODES {
            let x = if n == 0 { "x".to_string() } else { format!("y{}", n - 1) };
            let weights = if open.contains(&n) { "open" } else { "w" };
            let operands = if n % 2 == 0 { [x.as_str(), weights] } else { [x.as_str(); 2] };
            builder.node(if n % 2 == 0 { "Conv" } else { "Add" }, &operands, &format!("y{n}"));
        }
        let mut graph = builder.graph(&["x", "open"], &[&format!("y{}", NODES - 1)]);
        for (t, tensor) in graph.tensors.iter_mut().enumerate() {
            let grid = Encoding::per_tensor(0.02 * (1 + t % 5) as f64, 3 * (t as i64 % 7 - 3), 8, true).unwrap();
            let weights = Encoding::per_tensor(0.01, 0, 8, true).unwrap();
            tensor.encoding = Some(Arc::new(if tensor.constant.is_some() { weights } else { grid }));
        }
        graph
    }

    fn session(graph: Graph, options: Options) -> Session {
        Session::new(graph, Spec::load("tflite_micro").unwrap(), options).unwrap()
    }

    #[test]
    fn kernels_prepared_side_by_side_are_those_of_their_nodes() {
        let x = Tensor::f32(&[1, 4, 3, 3], (0..36).map(|i| (i * 37 % 41) as f32 * 0.1 - 2.0).collect());
        let open = Tensor::f32(&[4, 4, 1, 1], vec![0.0; 16]);
        let captured = |options: Options| {
            let run = session(chain(&[]), options).run_with(&[("x", &x), ("open", &open)], true, &mut || Ok(()));
            run.unwrap().captured.into_iter().map(|c| (c.name, c.codes.unwrap())).collect::<Vec<_>>()
        };
        let expected = captured(Options { evaluator: Evaluator::Reference, ..Options::default() });
        assert!(expected.len() > NODES);
        for threads in [1, 2, 7] {
            assert_eq!(captured(Options { threads, ..Options::default() }), expected, "{threads} threads");
        }
    }

    #[test]
    fn the_first_node_with_an_error_is_named() {
        let shapes = vec![vec![1, 4, 3, 3], vec![4, 4, 1, 1]];
        for (open, lacking) in [(vec![8, 30], None), (vec![30], None), (vec![30], Some(32)), (vec![30], Some(22))] {
            let mut graph = chain(&open);
            // A node without an integer form fails when it is planned.
            if let Some(n) = lacking {
                graph.nodes[n].op_type = "Det".into();
            }
            for threads in [1, 2, 7] {
                let session = session(graph.clone(), Options { threads, ..Options::default() });
                let error = session.report(shapes.clone()).err().unwrap().to_string();
                let first = open[0].min(lacking.unwrap_or(NODES));
                assert!(error.contains(&format!("'y{first}'")), "{open:?} {lacking:?}, {threads} threads: {error}");
            }
        }
    }
}
