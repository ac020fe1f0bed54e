//! A model and a target, ready to run on tensors.

use super::admission::admit;
use super::budget::{Budget, check_threads};
use super::layout;
use super::placement::{Note, Placed, place};
use super::plan::{Form, Plan, plan};
use super::step::{NodeReport, Source};
use crate::encoding::Encoding;
use crate::error::{Error, Location, Result};
use crate::graph::{Dim, Graph, TensorId};
use crate::kernels::{Isa, Simd, Team};
use crate::ops::integer::Layout;
use crate::ops::{Places, RunContext};
use crate::program::{Evaluator, Executor, Vectors};
use crate::spec::{Evidence, Spec, Status};
use crate::tensor::{Arena, DType, Tensor};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How a session runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Threads of a run; 0 for as many as the machine has, at most [`super::MAX_THREADS`]. Preparing a model takes at least
    /// two, where the machine has them.
    pub threads: usize,
    /// Bytes that the values of a run may take at one time; None for half of what the machine has available when the session
    /// begins. Constants of the file and what kernels need in between come on top; each of several runs side by side may take
    /// as much.
    pub max_memory: Option<u64>,
    /// Refuse models that use rules whose evidence is `assumed`.
    pub strict: bool,
    /// How programs are computed. Results do not depend on it.
    pub evaluator: Evaluator,
    /// Whether every operator has a step of its own in profiles; else what follows a kernel may run in its step. Results do not
    /// depend on it.
    pub apart: bool,
    /// Instruction set; None for the best that the machine has and `NPUTWIN_ISA` allows.
    pub isa: Option<Isa>,
}

impl Options {
    /// The executor of programs that goes with an instruction set.
    fn executor(&self, simd: Simd) -> Executor {
        let vectors = match simd.vectors() {
            Isa::Scalar | Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => Vectors::Plain,
            Isa::Avx2 | Isa::AvxVnni => Vectors::Bits256,
            Isa::Avx512Vnni | Isa::AmxInt8 => Vectors::Bits512,
        };
        Executor { evaluator: self.evaluator, vectors }
    }
}

/// An input or output as the outside sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct PortInfo {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Declared shape, where the file gives one.
    pub shape: Option<Vec<Dim>>,
    /// Encoding, where the tensor is quantized.
    pub encoding: Option<Arc<Encoding>>,
}

/// A value from inside the graph.
#[derive(Debug, Clone)]
pub struct Captured {
    /// Tensor name.
    pub name: String,
    /// Other names of the tensor in the file.
    pub aliases: Vec<String>,
    /// Integers, where the tensor is held as codes.
    pub codes: Option<Tensor>,
    /// Reals (or the tensor's own type), dequantized from the codes where there are any.
    pub value: Tensor,
    /// The encoding, where there is one.
    pub encoding: Option<Arc<Encoding>>,
}

/// What a run gives.
#[derive(Debug, Clone)]
pub struct RunResult {
    /// Outputs in the graph's order.
    pub outputs: Vec<(String, Tensor)>,
    /// Intermediate tensors in graph order, where asked for.
    pub captured: Vec<Captured>,
}

/// How the nodes of a model run under a target, and what that rests on.
#[derive(Debug, Clone)]
pub struct Report {
    /// Nodes in order.
    pub nodes: Vec<NodeReport>,
    /// What placement changed, and what runs in float.
    pub notes: Vec<Note>,
    /// Weakest evidence among the rules used.
    pub status: Status,
}

/// Time of one step.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Operator or conversion, and name.
    pub label: String,
    /// Wall time.
    pub time: Duration,
}

/// A model and a target.
pub struct Session {
    placed: Placed,
    spec: Spec,
    options: Options,
    budget: Budget,
    simd: Simd,
    team: Team,
    /// Memory of the runs that are not under way.
    arenas: Mutex<Vec<Arc<Arena>>>,
    plans: Mutex<HashMap<PlanKey, Arc<Plan>>>,
}

/// Shapes of the inputs, and what the plan is for.
type PlanKey = (Vec<Vec<usize>>, Purpose);

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Outputs alone.
    Run,
    /// Every tensor, handed out as a copy.
    Capture,
    /// Every tensor, looked at in its slot.
    Explain,
}

/// Bytes of all arenas that a session keeps between runs.
const KEPT_BYTES: usize = 1 << 30;

/// Plans that a session keeps for different input shapes.
const MAX_PLANS: usize = 16;

impl Session {
    /// Applies the target's placement rules to a model.
    ///
    /// # Errors
    /// `threads` for too many of them; those of placement, and `activation_encoding` for what the target does not take.
    pub fn new(graph: Graph, spec: Spec, options: Options) -> Result<Session> {
        let threads = check_threads(options.threads)?;
        let placed = place(graph, &spec)?;
        admit(&placed.graph, &spec)?;
        let simd = Simd::wanted(options.isa)?;
        let spec = spec.with_executor(options.executor(simd));
        let team = Team::new(threads);
        let (arenas, plans) = (Mutex::default(), Mutex::default());
        let budget = Budget::new(options.max_memory);
        Ok(Session { placed, spec, options, budget, simd, team, arenas, plans })
    }

    /// The target.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The graph after placement.
    pub fn graph(&self) -> &Graph {
        &self.placed.graph
    }

    pub(super) fn context(&self) -> RunContext<'_> {
        RunContext { team: &self.team, places: None, simd: self.simd }
    }

    /// Threads that the session uses.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    fn port(&self, port: &crate::graph::Port) -> PortInfo {
        let info = &self.placed.graph.tensors[port.tensor];
        let dtype = match &info.encoding {
            Some(encoding) if port.quantized => encoding.storage_dtype(),
            _ => info.dtype.unwrap_or(DType::F32),
        };
        PortInfo { name: port.name.clone(), dtype, shape: info.outer_shape(), encoding: info.encoding.clone() }
    }

    /// Inputs in order.
    pub fn inputs(&self) -> Vec<PortInfo> {
        self.placed.graph.inputs.iter().map(|p| self.port(p)).collect()
    }

    /// Outputs in order.
    pub fn outputs(&self) -> Vec<PortInfo> {
        self.placed.graph.outputs.iter().map(|p| self.port(p)).collect()
    }

    /// Shapes of the inputs where all dimensions are fixed or stand for a batch (taken as 1).
    pub fn default_shapes(&self) -> Result<Vec<Vec<usize>>> {
        self.inputs()
            .iter()
            .map(|port| {
                let dims = port
                    .shape
                    .as_ref()
                    .ok_or_else(|| Error::invalid("input_shape", "the file gives no shape").at_tensor(&port.name))?;
                Ok(dims.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 1 }).collect())
            })
            .collect()
    }

    pub(super) fn plan_for(&self, shapes: Vec<Vec<usize>>, purpose: Purpose) -> Result<Arc<Plan>> {
        let key = (shapes, purpose);
        if let Some(plan) = self.plans.lock().expect("no panic while locked").get(&key) {
            return Ok(plan.clone());
        }
        let keep: BTreeSet<TensorId> =
            if purpose == Purpose::Capture { (0..self.graph().tensors.len()).collect() } else { BTreeSet::new() };
        let follow = purpose == Purpose::Run && !self.options.apart;
        let plan = Arc::new(plan(&self.placed, &self.spec, &key.0, &keep, follow, self.budget, self.context())?);
        if self.options.strict {
            refuse_assumptions(&plan)?;
        }
        let mut plans = self.plans.lock().expect("no panic while locked");
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert(key, plan.clone());
        Ok(plan)
    }

    /// Prepares the session for inputs of these shapes and says how each node will run.
    pub fn report(&self, shapes: Vec<Vec<usize>>) -> Result<Report> {
        let plan = self.plan_for(shapes, Purpose::Run)?;
        let nodes = plan.nodes.iter().filter_map(|n| n.evidence.as_ref());
        let status = nodes.chain(plan.rules.values()).map(|e| e.status).max();
        Ok(Report { nodes: plan.nodes.clone(), notes: plan.notes.clone(), status: status.unwrap_or(Status::Executed) })
    }

    /// Type and shape of every tensor for inputs of these shapes, by name; tensors that placement removed are missing.
    pub fn shapes(&self, shapes: Vec<Vec<usize>>) -> Result<super::cost::Shapes> {
        let plan = self.plan_for(shapes, Purpose::Run)?;
        Ok(plan.facts.iter().flatten().map(|f| (f.name.clone(), (f.dtype, f.shape.clone()))).collect())
    }

    pub(super) fn bind<'f>(&self, feeds: &[(&str, &'f Tensor)]) -> Result<Vec<&'f Tensor>> {
        let ports = self.inputs();
        for (name, _) in feeds {
            if !ports.iter().any(|p| p.name == *name) {
                let known = ports.iter().map(|p| p.name.as_str());
                return Err(Error::invalid("feed_unknown", format!("the model has no input '{name}'"))
                    .help(crate::spec::nearest_help(name, known)));
            }
        }
        let mut symbols: BTreeMap<String, (usize, String)> = BTreeMap::new();
        let mut out = Vec::new();
        for port in &ports {
            let Some((_, tensor)) = feeds.iter().find(|(name, _)| *name == port.name) else {
                return Err(Error::invalid("feed_missing", format!("no value for input '{}'", port.name)));
            };
            if tensor.dtype() != port.dtype {
                return Err(Error::invalid(
                    "feed_dtype",
                    format!("input '{}' takes {}, not {}", port.name, port.dtype, tensor.dtype()),
                ));
            }
            if let Some(dims) = &port.shape {
                check_shape(&port.name, dims, tensor.shape(), &mut symbols)?;
            }
            if let Some(encoding) = &port.encoding
                && let Some((i, code)) = tensor.first_outside(encoding.qmin(), encoding.qmax())
            {
                let range = encoding.qmin()..=encoding.qmax();
                return Err(Error::invalid("feed_code", format!("code {code} is outside {range:?}"))
                    .at(Location::Tensor { name: port.name.clone(), index: Some(i) }));
            }
            out.push(*tensor);
        }
        Ok(out)
    }

    /// Does `body` with memory for the values of a run: that of an earlier one where it is neither too small nor far too large.
    fn with_arena<T>(&self, plan: &Plan, body: impl FnOnce(&Arc<Arena>) -> Result<T>) -> Result<T> {
        let mut kept = self.arenas.lock().expect("no panic while locked");
        let fits = |arena: &Arc<Arena>| arena.bytes() >= plan.bytes && arena.bytes() / 4 <= plan.bytes;
        let found = kept.iter().position(fits).map(|i| kept.remove(i));
        drop(kept);
        let arena = found.unwrap_or_else(|| Arena::new(plan.bytes));
        let out = body(&arena);
        let mut kept = self.arenas.lock().expect("no panic while locked");
        kept.push(arena);
        // The oldest go.
        while kept.iter().map(|arena| arena.bytes()).sum::<usize>() > KEPT_BYTES {
            kept.remove(0);
        }
        out
    }

    /// Runs the graph on named inputs.
    pub fn run(&self, feeds: &[(&str, &Tensor)]) -> Result<RunResult> {
        self.run_with(feeds, false, &mut || Ok(()))
    }

    /// Runs the graph; `capture` keeps every tensor, and `between` is called before each step and may stop the run.
    pub fn run_with(
        &self,
        feeds: &[(&str, &Tensor)],
        capture: bool,
        between: &mut dyn FnMut() -> Result<()>,
    ) -> Result<RunResult> {
        let inputs = self.bind(feeds)?;
        let purpose = if capture { Purpose::Capture } else { Purpose::Run };
        let plan = self.plan_for(inputs.iter().map(|t| t.shape().to_vec()).collect(), purpose)?;
        self.with_arena(&plan, |arena| {
            let mut slots = self.execute(&plan, &inputs, Some(arena), between, &mut |_, _| ())?;
            let captured = if capture { self.captured(&plan, &slots)? } else { Vec::new() };
            let mut outputs = Vec::with_capacity(plan.outputs.len());
            for (i, (port, source)) in self.graph().outputs.iter().zip(&plan.outputs).enumerate() {
                let again = |s: &Source| matches!((s, source), (Source::Slot(a), Source::Slot(b)) if a == b);
                let value = match source {
                    Source::Slot(slot) if !plan.outputs[i + 1..].iter().any(again) => {
                        slots[*slot].take().map(Cow::into_owned).ok_or_else(slot_empty)?
                    }
                    _ => fetch(&slots, source)?.clone(),
                };
                outputs.push((port.name.clone(), value));
            }
            Ok(RunResult { outputs, captured })
        })
    }

    /// Runs the graph and gives the time of each step.
    pub fn profile(&self, feeds: &[(&str, &Tensor)]) -> Result<Vec<Profile>> {
        let inputs = self.bind(feeds)?;
        let plan = self.plan_for(inputs.iter().map(|t| t.shape().to_vec()).collect(), Purpose::Run)?;
        let mut out = Vec::new();
        let mut timed = |label: &str, time| out.push(Profile { label: label.to_string(), time });
        self.with_arena(&plan, |arena| {
            self.execute(&plan, &inputs, Some(arena), &mut || Ok(()), &mut timed).map(drop)
        })?;
        Ok(out)
    }

    /// Runs the steps. Values lie in `arena`, and go after their last reader; without one, all of them stay.
    pub(super) fn execute<'f>(
        &self,
        plan: &Plan,
        inputs: &[&'f Tensor],
        arena: Option<&Arc<Arena>>,
        between: &mut dyn FnMut() -> Result<()>,
        timed: &mut dyn FnMut(&str, Duration),
    ) -> Result<Vec<Slot<'f>>> {
        let mut slots: Vec<Slot<'f>> = vec![None; plan.slots];
        for ((slot, _), tensor) in plan.inputs.iter().zip(inputs) {
            slots[*slot] = Some(Cow::Borrowed(tensor));
        }
        for step in &plan.steps {
            between()?;
            let started = Instant::now();
            let places = arena.map(|arena| Places { arena, outputs: &step.places });
            let context = RunContext { places, ..self.context() };
            let arguments: SmallVec<[Option<&Tensor>; 8]> =
                step.inputs.iter().map(|s| s.as_ref().map(|s| fetch(&slots, s)).transpose()).collect::<Result<_>>()?;
            let outputs = step.kernel.run(&context, &arguments).map_err(|e| match step.node {
                Some(n) => e.at_node(&self.graph().nodes[n].name, &self.graph().nodes[n].op_type),
                None => e,
            })?;
            drop(arguments);
            for (slot, tensor) in step.outputs.iter().zip(outputs) {
                if let Some(slot) = slot {
                    slots[*slot] = Some(Cow::Owned(tensor));
                }
            }
            if arena.is_some() {
                step.frees.iter().for_each(|&slot| slots[slot] = None);
            }
            timed(&step.label, started.elapsed());
        }
        Ok(slots)
    }

    fn captured(&self, plan: &Plan, slots: &[Slot<'_>]) -> Result<Vec<Captured>> {
        let graph = self.graph();
        let order = graph
            .inputs
            .iter()
            .map(|p| p.tensor)
            .chain(graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()));
        let mut out = Vec::new();
        for t in order {
            let info = &graph.tensors[t];
            let find = |form: Form| {
                [Layout::RowMajor, Layout::ChannelsLast].into_iter().find_map(|layout| {
                    let source = plan.values.get(&(t, form, layout))?;
                    Some((fetch(slots, source).ok()?, layout))
                })
            };
            let in_file = layout::of_file(info);
            let shown = |(tensor, from): (&Tensor, Layout)| match from == in_file {
                true => Ok(tensor.clone()),
                false => layout::convert(tensor, in_file),
            };
            let codes = find(Form::Codes).map(shown).transpose()?;
            let value = match (find(Form::Real), &codes, &info.encoding) {
                (Some(value), _, _) => shown(value)?,
                (None, Some(codes), Some(encoding)) => self.dequantize(&info.name, encoding, codes)?,
                _ => continue,
            };
            out.push(Captured {
                name: info.name.clone(),
                aliases: info.aliases.clone(),
                codes,
                value,
                encoding: info.encoding.clone(),
            });
        }
        Ok(out)
    }

    /// Reals of codes by the target's rule.
    pub fn dequantize(&self, name: &str, encoding: &Encoding, codes: &Tensor) -> Result<Tensor> {
        let kernel = crate::ops::integer::quantizers::dequantize_kernel(&self.spec, name, encoding, codes.shape())?;
        Ok(kernel.run(&self.context(), &[Some(codes)])?.into_first())
    }

    /// Codes of reals by the target's rule `quantize`.
    pub fn quantize(&self, name: &str, encoding: &Encoding, reals: &Tensor) -> Result<Tensor> {
        use crate::spec::names;
        let kernel = crate::ops::integer::quantizers::quantize_kernel(
            &self.spec,
            names::QUANTIZE,
            name,
            encoding,
            reals.shape(),
        )?;
        Ok(kernel.run(&self.context(), &[Some(reals)])?.into_first())
    }
}

fn refuse_assumptions(plan: &Plan) -> Result<()> {
    let assumed = |e: &Evidence| e.status == Status::Assumed;
    let refuse = |rule: &str| {
        Error::new(crate::Kind::Unspecified, "strict_assumed", format!("rule '{rule}' is assumed"))
            .help("run without --strict to accept it")
    };
    if let Some(node) = plan.nodes.iter().find(|n| n.evidence.as_ref().is_some_and(assumed)) {
        return Err(refuse(node.rule.as_deref().unwrap_or("?")).at_node(&node.name, &node.op_type));
    }
    match plan.rules.iter().find(|(_, e)| assumed(e)) {
        Some((rule, _)) => Err(refuse(rule)),
        None => Ok(()),
    }
}

/// A value of a run: computed, or one of the feeds.
pub(super) type Slot<'f> = Option<Cow<'f, Tensor>>;

pub(super) fn fetch<'a>(slots: &'a [Slot<'_>], source: &'a Source) -> Result<&'a Tensor> {
    match source {
        Source::Constant(tensor) => Ok(tensor),
        Source::Slot(slot) => slots[*slot].as_deref().ok_or_else(slot_empty),
    }
}

fn slot_empty() -> Error {
    Error::invalid("slot_empty", "a value was freed before its last reader; please report this")
}

fn check_shape(
    name: &str,
    dims: &[Dim],
    shape: &[usize],
    symbols: &mut BTreeMap<String, (usize, String)>,
) -> Result<()> {
    let wrong = |why: String| Err(Error::invalid("feed_shape", why).at_tensor(name));
    if dims.len() != shape.len() {
        return wrong(format!("rank {} where the model declares {}", shape.len(), dims.len()));
    }
    for (i, (dim, &size)) in dims.iter().zip(shape).enumerate() {
        match dim {
            Dim::Fixed(n) if *n != size => return wrong(format!("axis {i} has {size} elements, the model says {n}")),
            Dim::Symbol(s) if !s.is_empty() => {
                let (first, whose) = symbols.entry(s.clone()).or_insert((size, name.to_string()));
                if *first != size {
                    return wrong(format!("dimension '{s}' is {size} here and {first} in '{whose}'"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::Builder;

    #[test]
    fn values_of_runs_lie_in_one_arena() {
        let mut builder = Builder::new();
        builder.node("Add", &["x", "x"], "a").node("Mul", &["a", "x"], "b").node("Sub", &["b", "a"], "c");
        builder.node("Concat", &["c", "c"], "d").attribute("axis", 0);
        builder.node("Relu", &["d"], "r");
        let mut graph = builder.graph(&["x"], &["r"]);
        for tensor in &mut graph.tensors {
            tensor.encoding = Some(Arc::new(Encoding::per_tensor(0.5, 3, 8, false).unwrap()));
        }
        let session = Session::new(graph, Spec::load("htp_v75").unwrap(), Options::default()).unwrap();
        let x = Tensor::f32(&[70], vec![3.0; 70]);
        let plan = session.plan_for(vec![vec![70]], Purpose::Run).unwrap();
        let (arena, mut lent) = (Arena::new(plan.bytes), Vec::new());
        let mut timed = |label: &str, _| lent.push((label.to_string(), arena.lent()));
        session.execute(&plan, &[&x], Some(&arena), &mut || Ok(()), &mut timed).unwrap();
        let labels = ["quantize x", "Add a", "Mul b", "Sub c", "Concat d", "Relu r", "dequantize r"];
        let bytes = [70, 140, 140, 70, 140, 140, 0];
        assert_eq!(lent, labels.map(str::to_string).into_iter().zip(bytes).collect::<Vec<_>>());
        let run = |count: usize| {
            let x = Tensor::f32(&[count], vec![3.0; count]);
            let result = session.run(&[("x", &x)]).unwrap();
            assert_eq!(result.outputs[0].1.to_f64(), vec![12.0; 2 * count]);
            session.profile(&[("x", &x)]).unwrap();
            let arenas = session.arenas.lock().unwrap();
            arenas.iter().map(|arena| arena.bytes()).collect::<Vec<_>>()
        };
        // Each takes its own again; one that is four times too large is left alone.
        assert_eq!([run(70), run(1000), run(70)], [vec![512], vec![512, 4096], vec![4096, 512]]);
        // A run that fails gives its arena back, too.
        assert!(session.run(&[("x", &Tensor::f32(&[70], vec![f32::NAN; 70]))]).is_err());
        assert_eq!(session.arenas.lock().unwrap().len(), 2);
    }

    #[test]
    fn what_vectors_have_room_for_runs_without_an_arena() {
        let mut builder = Builder::new();
        builder.node("Relu", &["x"], "a").node("Transpose", &["a"], "b").node("Neg", &["b"], "y");
        let graph = builder.graph(&["x"], &["y"]);
        let session = |bytes| {
            let options = Options { max_memory: Some(bytes), ..Options::default() };
            Session::new(graph.clone(), Spec::load("float").unwrap(), options).unwrap()
        };
        let plan = |bytes| session(bytes).plan_for(vec![vec![2, 5]], Purpose::Run);
        // Two values of 40 bytes at a time, or two places of 64 and the output.
        assert!(plan(79).is_err_and(|e| e.code() == "memory_limit"));
        assert_eq!([80, 167, 168].map(|bytes| plan(bytes).unwrap().bytes), [0, 0, 128]);
        let x = Tensor::f32(&[2, 5], (0..10).map(|i| i as f32).collect());
        let results = [80, 168].map(|bytes| session(bytes).run(&[("x", &x)]).unwrap().outputs);
        assert_eq!(results[0], results[1]);
    }
}
