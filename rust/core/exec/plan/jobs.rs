//! Kernels that are prepared while the planner goes on with the graph: most of the time that a model takes until it is
//! ready goes into packing weights and compiling programs, which no other node waits for.

use crate::error::{Error, Result};
use crate::graph::Node;
use crate::kernels::{Team, spawn_beside};
use crate::ops::integer::{Arrangement, Context, IntegerOp, Layout, Prepared, intrinsics, quantizers};
use crate::ops::{Fact, Facts, Kernel, Outputs, RunContext};
use crate::program::Env;
use crate::spec::{Action, Body, Spec};
use crate::tensor::Tensor;
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, available_parallelism};

/// Jobs that a sleeping thread is woken up for.
const BATCH: usize = 4;

/// Nodes of a graph for each further thread.
const NODES_PER_THREAD: usize = 16;

/// What preparing the kernel of a node takes.
pub(super) struct Job<'a> {
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
    pub context: RunContext<'a>,
}

impl Job<'_> {
    /// Computes codes of constants that have none yet, and the kernel.
    pub fn prepare(mut self) -> Result<Prepared> {
        let Job { op, node, opset, spec, body, clamp, .. } = self;
        let data = op.data_inputs(&Facts { node, opset, inputs: &self.inputs, outputs: &self.outputs });
        for i in data {
            if let Some(Some(fact)) = self.inputs.get_mut(i)
                && lacks_codes(fact)
            {
                fact.codes = Some(quantizers::quantize_constant(spec, fact, &self.context)?);
            }
        }
        let facts = Facts { node, opset, inputs: &self.inputs, outputs: &self.outputs };
        let context = Context { spec, body, layouts: &self.layouts, clamp };
        match &body.action {
            Action::Intrinsic(name) => intrinsics::prepare(name, &facts, &context),
            _ => op.prepare(&facts, &context, self.env),
        }
    }

    /// The kernel, of which the planner expects this arrangement.
    fn kernel(self: Box<Self>, expected: &Arrangement) -> Result<Box<dyn Kernel>> {
        let node = self.node;
        let prepared = self.prepare().map_err(|e| e.at_node(&node.name, &node.op_type))?;
        if prepared.arrangement != *expected {
            let message = format!("{expected:?} was planned, {:?} prepared; please report this", prepared.arrangement);
            return Err(Error::invalid("arrangement", message).at_node(&node.name, &node.op_type));
        }
        Ok(prepared.kernel)
    }
}

/// Whether the codes of a quantized constant are still to be computed from its reals.
pub(super) fn lacks_codes(fact: &Fact) -> bool {
    fact.constant.is_some() && fact.encoding.is_some() && fact.codes.is_none()
}

/// Stands for a kernel that a job prepares.
pub(super) struct Awaited;

impl Kernel for Awaited {
    fn run(&self, _: &RunContext<'_>, _: &[Option<&Tensor>]) -> Result<Outputs> {
        Err(Error::invalid("kernel_awaited", "a kernel was not prepared; please report this"))
    }
}

/// A job, the step that its kernel belongs to, and what the planner expects of it.
type Waiting<'a> = (usize, Arrangement, Box<Job<'a>>);

#[derive(Default)]
struct State<'a> {
    waiting: VecDeque<Waiting<'a>>,
    closed: bool,
    failed: bool,
    /// Kernels by step.
    done: Vec<(usize, Result<Box<dyn Kernel>>)>,
    panic: Option<Box<dyn Any + Send>>,
}

/// Jobs that are handed out in their order.
pub(super) struct Jobs<'a> {
    state: Mutex<State<'a>>,
    bell: Condvar,
    /// A team of one.
    alone: Team,
}

impl<'a> Jobs<'a> {
    /// No jobs.
    pub fn new() -> Self {
        Jobs { state: Mutex::default(), bell: Condvar::new(), alone: Team::new(1) }
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `plan`, which pushes the jobs of a graph of `nodes` nodes, and does the jobs: on threads of its own meanwhile,
    /// and on the caller's afterwards. In all these are as many as a run has, but two at least, and no more than there are
    /// processors or than the graph has work for. Gives what `plan` gives.
    pub fn serve<T>(&self, nodes: usize, threads: usize, plan: impl FnOnce() -> T) -> T {
        let helpers = match nodes / NODES_PER_THREAD {
            0 => 0,
            most => most.min(available_parallelism().map_or(1, usize::from).min(threads.max(2)) - 1),
        };
        std::thread::scope(|scope| {
            // Also where planning panics: the helpers wait for it.
            let closing = Closing(self);
            self.begin(scope, helpers);
            let planned = plan();
            drop(closing);
            self.work(false);
            planned
        })
    }

    fn begin<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, helpers: usize)
    where
        'a: 'scope,
    {
        for _ in 0..helpers {
            if spawn_beside(scope, "nputwin-prepare", || self.work(true)).is_err() {
                break;
            }
        }
    }

    /// Adds the job of a step.
    pub fn push(&self, step: usize, expected: Arrangement, job: Box<Job<'a>>) {
        let mut state = self.state();
        state.waiting.push_back((step, expected, job));
        if state.waiting.len().is_multiple_of(BATCH) {
            drop(state);
            self.bell.notify_one();
        }
    }

    /// Whether a job has ended with an error: those after it need not be added.
    pub fn failed(&self) -> bool {
        self.state().failed
    }

    /// Does jobs until there are none; a helper, until there will be no more. Helpers do them alone: where they may run is
    /// no measure for the threads of a team that they would wake up.
    fn work(&self, helper: bool) {
        let mut state = self.state();
        loop {
            if let Some((step, expected, job)) = state.waiting.pop_front() {
                drop(state);
                let mut job: Box<Job<'_>> = job;
                if helper {
                    job.context.team = &self.alone;
                }
                let kernel = catch_unwind(AssertUnwindSafe(|| job.kernel(&expected)));
                state = self.state();
                match kernel {
                    Ok(kernel) => {
                        state.failed |= kernel.is_err();
                        state.done.push((step, kernel));
                    }
                    Err(panic) => {
                        state.failed = true;
                        state.panic.get_or_insert(panic);
                    }
                }
            } else if helper && !state.closed {
                state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                return;
            }
        }
    }

    /// Kernels by step, of all jobs; the error of the first node that has one. Panics where a job did.
    pub fn finish(&self) -> Result<Vec<(usize, Box<dyn Kernel>)>> {
        let mut state = std::mem::take(&mut *self.state());
        if let Some(panic) = state.panic {
            resume_unwind(panic);
        }
        state.done.sort_by_key(|(step, _)| *step);
        state.done.into_iter().map(|(step, kernel)| Ok((step, kernel?))).collect()
    }
}

/// Says in the end that there will be no more jobs.
struct Closing<'j, 'a>(&'j Jobs<'a>);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Encoding;
    use crate::exec::testing::Builder;
    use crate::exec::{Options, Session};
    use crate::graph::Graph;
    use crate::program::Evaluator;
    use std::sync::Arc;

    const NODES: usize = 40;

    /// `y0 = Conv(x, w)`, `y1 = y0 + y0`, `y2 = Conv(y1, w)` …, all of int8, on 1×4×3×3. The Convs of `open` have weights
    /// that are no constant, which is found out when their kernels are prepared.
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

    struct Panics;

    impl IntegerOp for Panics {
        fn data_inputs(&self, _: &Facts<'_>) -> Vec<usize> {
            Vec::new()
        }

        fn environment(&self, _: &Facts<'_>, _: Option<(i64, i64)>) -> Result<Env> {
            Ok(Env::new())
        }

        fn prepare(&self, _: &Facts<'_>, _: &Context<'_>, _: Env) -> Result<Prepared> {
            panic!("while a kernel is prepared")
        }
    }

    #[test]
    fn panics_of_the_planner_and_of_jobs_reach_the_caller() {
        let (spec, node, team) = (Spec::load("tflite_micro").unwrap(), Node::default(), Team::new(1));
        let message = |work: &dyn Fn()| *catch_unwind(AssertUnwindSafe(work)).unwrap_err().downcast::<&str>().unwrap();
        for threads in [1, 7] {
            let planner = || Jobs::new().serve(200, threads, || panic!("while the graph is planned"));
            assert_eq!(message(&planner), "while the graph is planned");
            let job = || {
                let jobs = Jobs::new();
                jobs.serve(200, threads, || {
                    let body = &spec.rule("Relu").unwrap().bodies[0];
                    let (inputs, outputs, layouts) = (Vec::new(), Vec::new(), Vec::new());
                    let (env, context) = (Env::new(), RunContext::new(&team));
                    let (spec, node) = (&spec, &node);
                    let job = Job {
                        op: &Panics,
                        node,
                        opset: 1,
                        inputs,
                        outputs,
                        spec,
                        body,
                        layouts,
                        clamp: None,
                        env,
                        context,
                    };
                    jobs.push(0, Arrangement::first(Layout::RowMajor), Box::new(job));
                });
                assert!(jobs.failed());
                let _ = jobs.finish();
            };
            assert_eq!(message(&job), "while a kernel is prepared");
        }
    }
}
