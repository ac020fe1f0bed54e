//! What a case is run on: every path of our own, or somebody else's implementation.

use super::Case;
use crate::error::{Error, Result};
use crate::exec::{Options, Session};
use crate::graph::Graph;
use crate::kernels::Isa;
use crate::program::Evaluator;
use crate::spec::{Spec, nearest_help};
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A case that is ready to run: a graph of one node, and values for its inputs.
pub struct Prepared<'a> {
    /// The case.
    pub case: &'a Case,
    /// Input arrays by name.
    pub arrays: BTreeMap<String, Tensor>,
    /// The target, where the cases run under one.
    pub spec: Option<&'a Spec>,
    pub(super) built: OnceLock<Result<OneNode>>,
}

/// A graph of one node whose tensors carry the case's encodings, and codes (or reals) for its inputs.
pub type OneNode = (Graph, Vec<(String, Tensor)>);

/// Computes the output of cases.
pub trait Runner: Sync {
    /// Name in reports.
    fn name(&self) -> &str;

    /// Whether it cannot run without a target.
    fn needs_target(&self) -> bool {
        true
    }

    /// The output: codes where it is quantized.
    fn run(&self, case: &Prepared<'_>) -> Result<Tensor>;
}

/// A way in which sessions compute.
#[derive(Debug, Clone)]
pub struct Runtime {
    name: String,
    options: Options,
}

/// Numbers of threads besides one that cases run on.
const THREADS: [usize; 2] = [2, 7];

impl Runtime {
    /// The best that this machine has, on one thread.
    pub fn fast() -> Runtime {
        Runtime { name: "fast".into(), options: Options { threads: 1, ..Options::default() } }
    }

    /// Every way on this machine: the reference evaluator, the tile executor, each instruction set, several threads.
    pub fn all() -> Vec<Runtime> {
        let one = Options { threads: 1, ..Options::default() };
        let mut out = vec![
            Runtime { name: "reference".into(), options: Options { evaluator: Evaluator::Reference, ..one } },
            Runtime { name: "tile".into(), options: Options { evaluator: Evaluator::Tile, ..one } },
        ];
        out.extend(
            Isa::available()
                .into_iter()
                .map(|isa| Runtime { name: isa.name().into(), options: Options { isa: Some(isa), ..one } }),
        );
        out.extend(
            THREADS.map(|threads| Runtime { name: format!("{threads}_threads"), options: Options { threads, ..one } }),
        );
        out
    }

    /// The ways of these names; all where there are none.
    ///
    /// # Errors
    /// `runtime_unknown` for a name that this machine does not have.
    pub fn named(names: &[String]) -> Result<Vec<Runtime>> {
        let all = Runtime::all();
        if names.is_empty() {
            return Ok(all);
        }
        let find = |name: &String| {
            let known = all.iter().map(|r| r.name.as_str());
            all.iter().find(|r| r.name == *name).cloned().ok_or_else(|| {
                Error::invalid("runtime_unknown", format!("this machine has no runtime '{name}'"))
                    .help(nearest_help(name, known))
            })
        };
        names.iter().map(find).collect()
    }
}

impl Runner for Runtime {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, case: &Prepared<'_>) -> Result<Tensor> {
        let mut outputs = case.session(self.options)?.run(&case.feeds()?)?.outputs;
        match outputs.pop() {
            Some((_, output)) => Ok(output),
            None => Err(Error::invalid("vector_output", "the graph has no output")),
        }
    }
}

impl Prepared<'_> {
    fn target(&self) -> Result<&Spec> {
        self.spec.ok_or_else(|| Error::invalid("vector_target", "the case has no target to run under"))
    }

    /// The case as a graph, and values for its inputs.
    pub fn one_node(&self) -> Result<&OneNode> {
        let built = self.built.get_or_init(|| super::graph::build(self.case, &self.arrays, self.target()?));
        built.as_ref().map_err(Clone::clone)
    }

    /// A session on the case's graph.
    pub fn session(&self, options: Options) -> Result<Session> {
        Session::new(self.one_node()?.0.clone(), self.target()?.clone(), options)
    }

    /// Values for the session's inputs.
    pub fn feeds(&self) -> Result<Vec<(&str, &Tensor)>> {
        Ok(self.one_node()?.1.iter().map(|(n, t)| (n.as_str(), t)).collect())
    }
}
