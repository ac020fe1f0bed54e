//! Freezing a graph for concrete input shapes: shapes, constants, kernels and the conversions between them.

mod constants;
mod in_place;
mod scaled;

use super::budget::Budget;
use super::float_table::float_table;
use super::layout::{self, LayoutKernel};
use super::narrow::{self, NarrowKernel, narrowed};
use super::placement::{Note, Placed};
use super::step::{Conversion, LAYOUT, NodeReport, Source, Step, free_after_last_read};
use crate::encoding::Encoding;
use crate::error::{Error, Kind, Location, Result};
use crate::graph::{Clamp, Constant, Node, TensorId, qdq};
use crate::num::Narrow;
use crate::ops::integer::{self, Context, IntegerOp, Layout, quantizers};
use crate::ops::{Explained, Fact, Facts, Kernel, RunContext, registry};
use crate::spec::{Action, Body, Evidence, Execution, MissingEncoding, Spec, names};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet};

/// In what form a tensor's value is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// In the graph's own type; after fake quantization under such a target.
    Real,
    /// Codes of its own encoding.
    Codes,
    /// Codes of another tensor's encoding.
    CodesAs(TensorId),
}

/// A graph that is ready to run for one set of input shapes.
pub struct Plan {
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Number of slots.
    pub slots: usize,
    /// Slot and fact of each graph input.
    pub inputs: Vec<(usize, Fact)>,
    /// Source and layout of each graph output.
    pub outputs: Vec<Source>,
    /// For each tensor that a node or input gives: its value in the plan. Where functions run in the step of the kernel before them,
    /// no step writes the values between.
    pub values: BTreeMap<(TensorId, Form, Layout), Source>,
    /// Facts of all tensors that occur.
    pub facts: Vec<Option<Fact>>,
    /// How each node runs.
    pub nodes: Vec<NodeReport>,
    /// Rules that conversions and constants used, with their evidence.
    pub rules: BTreeMap<String, Evidence>,
    /// Placement notes and float fallbacks.
    pub notes: Vec<Note>,
}

/// How a node runs on codes.
struct IntegerForm {
    op: &'static dyn IntegerOp,
    /// What the rule says.
    body: Body,
    /// Bounds of a fused activation, in codes of the output.
    clamp: Option<(i64, i64)>,
}

struct Planner<'a> {
    placed: &'a Placed,
    spec: &'a Spec,
    context: RunContext<'a>,
    facts: Vec<Option<Fact>>,
    values: BTreeMap<(TensorId, Form, Layout), Source>,
    steps: Vec<Step>,
    /// Bytes of each slot; 0 for the graph's inputs, which are the caller's.
    slots: Vec<u64>,
    nodes: Vec<NodeReport>,
    notes: Vec<Note>,
    rules: BTreeMap<String, Evidence>,
    budget: Budget,
    /// Bytes of all folded values.
    folded: u64,
    current: Option<usize>,
    /// Slots whose reals are as the target holds them.
    narrow: BTreeSet<usize>,
}

/// Plans a graph. `shapes` are those of the graph's inputs, in order; `keep` names tensors whose values must survive,
/// `follow` says whether functions may run in the step of the kernel before them, so that values between have no slot.
///
/// # Errors
/// `memory_limit` where the values of a run take more than the budget; all errors of inference and of preparing kernels.
pub fn plan(
    placed: &Placed,
    spec: &Spec,
    shapes: &[Vec<usize>],
    keep: &BTreeSet<TensorId>,
    follow: bool,
    budget: Budget,
    context: RunContext<'_>,
) -> Result<Plan> {
    let graph = &placed.graph;
    let mut planner = Planner {
        placed,
        spec,
        context,
        facts: vec![None; graph.tensors.len()],
        values: BTreeMap::new(),
        steps: Vec::new(),
        slots: Vec::new(),
        nodes: Vec::new(),
        notes: placed.notes.clone(),
        rules: BTreeMap::new(),
        budget,
        folded: 0,
        current: None,
        narrow: BTreeSet::new(),
    };
    planner.add_constants()?;
    let inputs = planner.add_inputs(shapes)?;
    for n in 0..graph.nodes.len() {
        let node = &graph.nodes[n];
        planner.current = Some(n);
        planner.add_node(n).map_err(|e| e.at_node(&node.name, &node.op_type))?;
    }
    planner.current = None;
    let mut outputs = Vec::new();
    for port in &graph.outputs {
        let form = if port.quantized { Form::Codes } else { Form::Real };
        let layout = layout::of_file(&graph.tensors[port.tensor]);
        outputs.push(planner.value(port.tensor, form, layout).map_err(|e| e.at_tensor(&port.name))?);
    }
    planner.finish(inputs, outputs, keep, follow)
}

impl<'a> Planner<'a> {
    fn add_constants(&mut self) -> Result<()> {
        for (t, info) in self.placed.graph.tensors.iter().enumerate() {
            let Some(constant) = &info.constant else { continue };
            if let Some(encoding) = &info.encoding {
                encoding.validate().map_err(|e| e.at_tensor(&info.name))?;
            }
            self.facts[t] = Some(Fact {
                name: info.name.clone(),
                dtype: constant.dtype(),
                shape: constant.shape().to_vec(),
                constant: Some(constant.clone()),
                codes: info.codes.clone(),
                encoding: info.encoding.clone(),
            });
        }
        Ok(())
    }

    fn add_inputs(&mut self, shapes: &[Vec<usize>]) -> Result<Vec<(usize, Fact)>> {
        let graph = &self.placed.graph;
        let mut out = Vec::new();
        for (port, shape) in graph.inputs.iter().zip(shapes) {
            let info = &graph.tensors[port.tensor];
            if let Some(encoding) = &info.encoding {
                encoding.validate().map_err(|e| e.at_tensor(&info.name))?;
            }
            let layout = layout::of_file(info);
            let fact = Fact {
                name: info.name.clone(),
                dtype: info.dtype.unwrap_or(DType::F32),
                shape: layout::graph_shape(info, shape)?,
                constant: None,
                codes: None,
                encoding: info.encoding.clone(),
            };
            self.facts[port.tensor] = Some(fact.clone());
            let slot = self.slot(0);
            let encoding = info.encoding.as_deref();
            if port.quantized {
                self.values.insert((port.tensor, Form::Codes, layout), Source::Slot(slot));
            } else {
                let turn = Box::new(LayoutKernel::new(Layout::RowMajor));
                let turned = layout == Layout::ChannelsLast;
                let real =
                    if turned { self.step(LAYOUT, turn, Source::Slot(slot), (port.tensor, Form::Real)) } else { slot };
                self.raw_real(port.tensor, real, encoding, true)?;
            }
            out.push((slot, fact));
        }
        Ok(out)
    }

    /// Registers a slot that holds unquantized reals of a tensor.
    fn raw_real(&mut self, t: TensorId, slot: usize, encoding: Option<&Encoding>, is_input: bool) -> Result<()> {
        let fact = self.facts[t].clone().expect("facts precede values");
        let float = fact.dtype == DType::F32;
        let mut slot = slot;
        if let Some(narrow) = self.held_in(t) {
            slot = self.step("narrow", Box::new(NarrowKernel(narrow)), Source::Slot(slot), (t, Form::Real));
        }
        let rule = if is_input && self.spec.rule(names::QUANTIZE_INPUT).is_some() {
            names::QUANTIZE_INPUT
        } else {
            names::QUANTIZE
        };
        if float && encoding.is_some() && self.spec.execution != Execution::Float {
            self.used(rule);
        }
        match (encoding, self.spec.execution) {
            (Some(encoding), Execution::FakeQuant) if float => {
                let kernel = quantizers::fake_quant_kernel(self.spec, rule, &fact.name, encoding, &fact.shape)?;
                let to = self.step("fake_quant", kernel, Source::Slot(slot), (t, Form::Real));
                self.values.insert((t, Form::Real, Layout::RowMajor), Source::Slot(to));
            }
            (Some(encoding), Execution::Integer) if float => {
                let kernel = quantizers::quantize_kernel(self.spec, rule, &fact.name, encoding, &fact.shape)?;
                let to = self.step("quantize", kernel, Source::Slot(slot), (t, Form::Codes));
                self.values.insert((t, Form::Codes, Layout::RowMajor), Source::Slot(to));
            }
            _ => {
                self.values.insert((t, Form::Real, Layout::RowMajor), Source::Slot(slot));
            }
        }
        Ok(())
    }

    /// Remembers that a rule besides the operators' was used, with the evidence of its unconditional body.
    fn used(&mut self, rule: &str) {
        let Some(rule) = self.spec.rule(rule) else { return };
        if let Some(body) = rule.bodies.iter().find(|b| b.when.is_none()).or(rule.bodies.last()) {
            self.rules.insert(rule.name.clone(), body.evidence.clone());
        }
    }

    /// The float format of a tensor that the encodings keep in one, where they count.
    fn held_in(&self, t: TensorId) -> Option<Narrow> {
        let format = self.placed.graph.tensors[t].float.filter(|_| self.spec.execution != Execution::Float)?;
        Some(Narrow::ieee(format))
    }

    /// A slot for a value of this size.
    fn slot(&mut self, bytes: u64) -> usize {
        self.slots.push(bytes);
        self.slots.len() - 1
    }

    /// Bytes of a tensor in a form.
    fn bytes(&self, t: TensorId, form: Form) -> u64 {
        let Some(fact) = &self.facts[t] else { return 0 };
        let of = |encoded: &Fact| encoded.encoding.as_ref().map_or(fact.dtype, |e| e.storage_dtype());
        match form {
            Form::Real => fact.bytes(),
            Form::Codes => fact.bytes_as(of(fact)),
            Form::CodesAs(target) => fact.bytes_as(self.facts[target].as_ref().map_or(fact.dtype, of)),
        }
    }

    /// Adds a conversion with one output, which holds the tensor in that form.
    fn step(&mut self, label: &str, kernel: Box<dyn Kernel>, input: Source, (t, form): (TensorId, Form)) -> usize {
        let slot = self.slot(self.bytes(t, form));
        let name = &self.placed.graph.tensors[t].name;
        self.steps.push(Step {
            node: self.current,
            label: format!("{label} {name}"),
            conversion: Some(Conversion { tensor: t, turns: label == LAYOUT }),
            kernel,
            inputs: vec![Some(input)],
            outputs: vec![Some(slot)],
            frees: Vec::new(),
        });
        slot
    }

    /// The value of a tensor in a form and layout, converting where it exists in another.
    fn value(&mut self, t: TensorId, form: Form, layout: Layout) -> Result<Source> {
        if let Some(source) = self.values.get(&(t, form, layout)) {
            return Ok(source.clone());
        }
        let fact = self.facts[t].clone().ok_or_else(|| {
            Error::invalid("tensor_undefined", "nothing computes this tensor")
                .at_tensor(&self.placed.graph.tensors[t].name)
        })?;
        let source = if let Some(constant) = &fact.constant {
            if fact.encoding.is_some() && fact.codes.is_none() && self.spec.execution != Execution::Float {
                self.used(self.spec.constant_rule());
            }
            let held =
                self.held_in(t).map(|n| narrowed(self.context.engine(), constant, n)).transpose()?.map(Constant::from);
            self.constant_value(&fact, held.as_ref().unwrap_or(constant), form, layout)?
        } else if let Some(source) = self.values.get(&(t, form, layout::other(layout))).cloned() {
            let kernel = LayoutKernel::new(layout);
            Source::Slot(self.step(LAYOUT, Box::new(kernel), source, (t, form)))
        } else {
            let codes = |planner: &mut Self| planner.value(t, Form::Codes, layout);
            let encoding = fact
                .encoding
                .as_deref()
                .ok_or_else(|| Error::invalid("tensor_encoding", "the tensor has no encoding").at_tensor(&fact.name))?;
            match form {
                Form::Real => {
                    self.used(names::DEQUANTIZE);
                    let from = codes(self)?;
                    let kernel = quantizers::dequantize_kernel(self.spec, &fact.name, encoding, &fact.shape)?;
                    Source::Slot(self.step("dequantize", kernel, from, (t, form)))
                }
                Form::CodesAs(target) => {
                    let rule = self.requantize_rule(target);
                    self.used(rule);
                    let from = codes(self)?;
                    let to = self.facts[target].clone().and_then(|f| f.encoding).expect("targets have encodings");
                    let count = fact.shape.iter().product();
                    let kernel = quantizers::requantize_kernel(self.spec, rule, &fact.name, encoding, &to, count)?;
                    Source::Slot(self.step("requantize", kernel, from, (t, form)))
                }
                Form::Codes if self.values.contains_key(&(t, Form::Real, Layout::RowMajor)) => {
                    let from = self.value(t, Form::Real, Layout::RowMajor)?;
                    let kernel =
                        quantizers::quantize_kernel(self.spec, names::QUANTIZE, &fact.name, encoding, &fact.shape)?;
                    let slot = self.step("quantize", kernel, from, (t, form));
                    self.values.insert((t, form, Layout::RowMajor), Source::Slot(slot));
                    return self.value(t, form, layout);
                }
                Form::Codes => {
                    return Err(Error::invalid("tensor_codes", "the tensor has no codes").at_tensor(&fact.name));
                }
            }
        };
        self.values.insert((t, form, layout), source.clone());
        Ok(source)
    }

    /// The rule by which codes come into the encoding of a tensor: that of the operator that moves them there where it
    /// has a program, else the one for changes of encoding.
    fn requantize_rule(&self, target: TensorId) -> &'a str {
        let producer = self.placed.graph.nodes.iter().find(|node| node.outputs.contains(&Some(target)));
        match producer.and_then(|node| self.spec.rule(&node.op_type)) {
            Some(rule) if rule.bodies.iter().any(|b| matches!(b.action, Action::Program { .. })) => &rule.name,
            _ => names::REQUANTIZE,
        }
    }

    fn add_node(&mut self, n: usize) -> Result<()> {
        let node = &self.placed.graph.nodes[n];
        let op = registry::find(&node.domain, &node.op_type).ok_or_else(|| {
            let full =
                if node.domain.is_empty() { node.op_type.clone() } else { format!("{}.{}", node.domain, node.op_type) };
            Error::unsupported("op_unknown", format!("operator {full} is not implemented"))
        })?;
        let opset = self.placed.graph.opset(&node.domain);
        let inputs: Vec<Option<Fact>> = node
            .inputs
            .iter()
            .map(|t| match t {
                None => Ok(None),
                Some(t) => self.facts[*t].clone().map(Some).ok_or_else(|| {
                    Error::invalid("tensor_undefined", "nothing computes this tensor")
                        .at_tensor(&self.placed.graph.tensors[*t].name)
                }),
            })
            .collect::<Result<_>>()?;
        let facts = Facts { node, opset, inputs: &inputs, outputs: &[] };
        let inferred = op.infer(&facts)?;
        let outputs: Vec<Option<Fact>> = node
            .outputs
            .iter()
            .enumerate()
            .map(|(i, t)| {
                let Some(t) = *t else { return Ok(None) };
                let (dtype, shape) = inferred
                    .get(i)
                    .cloned()
                    .ok_or_else(|| Error::invalid("node_outputs", format!("the operator has no output {i}")))?;
                crate::tensor::element_count(&shape)?;
                let info = &self.placed.graph.tensors[t];
                let encoding = info.encoding.clone().filter(|_| dtype.is_float());
                if let Some(encoding) = &encoding {
                    encoding.validate().map_err(|e| e.at_tensor(&info.name))?;
                    if dtype != DType::F32 && self.spec.execution != Execution::Float {
                        return Err(Error::unsupported("encoding_dtype", format!("an encoding of a {dtype} tensor"))
                            .at_tensor(&info.name)
                            .help("convert the model to float32"));
                    }
                }
                Ok(Some(Fact { name: info.name.clone(), dtype, shape, constant: None, codes: None, encoding }))
            })
            .collect::<Result<_>>()?;
        for (t, fact) in node.outputs.iter().zip(&outputs) {
            if let (Some(t), Some(fact)) = (t, fact) {
                self.facts[*t] = Some(fact.clone());
            }
        }
        // Before kernels are prepared: they may hold tables of the output's size.
        self.budget.check(outputs.iter().flatten().map(Fact::bytes).fold(0, u64::saturating_add))?;
        let facts = Facts { node, opset, inputs: &inputs, outputs: &outputs };
        if self.placed.clamps[n].is_none() && self.fold(&facts, op)? {
            return Ok(());
        }
        if self.spec.execution == Execution::Integer && self.placed.clamps[n].is_none() && self.add_scaled(&facts)? {
            return Ok(());
        }
        if self.spec.execution == Execution::Integer
            && let Some(form) = self.integer_form(n, &facts)?
        {
            return self.add_integer(n, &facts, &form);
        }
        self.add_float(n, &facts, op)
    }

    fn report(&mut self, node: &Node, mode: &'static str, body: Option<(&str, &Body)>) {
        let rule = body.map(|(rule, _)| match self.spec.rule(rule).and_then(|r| r.choice.as_ref()) {
            Some(choice) => format!("{rule} ({choice})"),
            None => rule.to_string(),
        });
        self.nodes.push(NodeReport {
            name: node.name.clone(),
            op_type: node.op_type.clone(),
            mode,
            rule,
            evidence: body.map(|(_, b)| b.evidence.clone()),
        });
    }

    /// The integer form of a node, or `None` where it runs in float.
    fn integer_form(&mut self, n: usize, facts: &Facts<'_>) -> Result<Option<IntegerForm>> {
        let node = facts.node;
        let quantized = facts.inputs.iter().chain(facts.outputs).flatten().any(|f| f.encoding.is_some());
        let encoded = |facts: &[Option<Fact>]| facts.iter().flatten().all(|f| f.encoding.is_some());
        if !quantized || (qdq::only_quantizes(node) && encoded(facts.inputs) != encoded(facts.outputs)) {
            return Ok(None);
        }
        let Some(rule) = self.spec.rule(&node.op_type).or_else(|| self.spec.rule(names::OTHER)) else {
            return Err(self.spec.require(&node.op_type).expect_err("the rule is missing"));
        };
        let Some(integer) = integer::find(&node.domain, &node.op_type) else {
            return match rule.bodies.iter().all(|b| matches!(b.action, Action::Float)) {
                true => self.float_by_rule(facts, rule.name.clone(), &rule.bodies[0].clone()),
                false => Err(facts.unsupported("no integer form of this operator exists")),
            };
        };
        if let [Body { when: None, action: Action::Float, .. }] = &rule.bodies[..] {
            let (name, body) = (rule.name.clone(), rule.bodies[0].clone());
            return self.float_by_rule(facts, name, &body);
        }
        let lacking = integer
            .data_inputs(facts)
            .into_iter()
            .filter_map(|i| facts.optional(i))
            .chain(facts.outputs.iter().flatten())
            .find(|f| f.dtype.is_float() && f.encoding.is_none());
        if let Some(fact) = lacking {
            if self.spec.placement.missing_encoding() == MissingEncoding::Error {
                return Err(Error::new(Kind::Unspecified, "encoding_missing", "the integer kernel needs an encoding")
                    .at_tensor(&fact.name)
                    .help("calibrate the model so that this tensor has one"));
            }
            self.notes.push(Note {
                place: node.name.clone(),
                text: format!("runs in float: tensor '{}' has no encoding", fact.name),
            });
            return Ok(None);
        }
        let per_channel = if integer.takes_channels(facts) { Vec::new() } else { integer.data_inputs(facts) };
        let activations = per_channel.into_iter().filter_map(|i| facts.optional(i));
        let activations = activations.filter(|f| f.constant.is_none()).chain(facts.outputs.iter().flatten());
        if let Some(fact) = activations.into_iter().find(|f| f.encoding.as_ref().is_some_and(|e| e.scale.len() > 1)) {
            return Err(facts.unsupported(format!("the activation '{}' has a per-channel encoding", fact.name)));
        }
        let clamp = self.code_clamp(n, facts)?;
        let env = integer.environment(facts, clamp)?;
        let body = rule.resolve(&env)?.clone();
        match &body.action {
            Action::Float => self.float_by_rule(facts, rule.name.clone(), &body),
            Action::Unsupported(reason) => Err(Error::new(Kind::UnsupportedByTarget, "op_unsupported", reason.clone())
                .at(Location::Node { name: node.name.clone(), op_type: node.op_type.clone() })),
            _ => Ok(Some(IntegerForm { op: integer, body, clamp })),
        }
    }

    fn float_by_rule(&mut self, facts: &Facts<'_>, rule: String, body: &Body) -> Result<Option<IntegerForm>> {
        self.notes.push(Note { place: facts.node.name.clone(), text: format!("runs in float by rule '{rule}'") });
        self.report(facts.node, "float", Some((&rule, body)));
        Ok(None)
    }

    /// The fused activation's bounds in codes of the output.
    fn code_clamp(&self, n: usize, facts: &Facts<'_>) -> Result<Option<(i64, i64)>> {
        let Some(Clamp { lo, hi }) = self.placed.clamps[n] else { return Ok(facts.node.code_clamp) };
        let y = facts.outputs[0].as_ref().ok_or_else(|| facts.invalid("no output"))?;
        let encoding = y.encoding.as_deref().ok_or_else(|| facts.invalid("no encoding"))?;
        let (qmin, qmax) = (encoding.qmin(), encoding.qmax());
        let [lo, hi] = quantizers::quantize_bounds(self.spec, &y.name, encoding, [lo, hi])?;
        let lo = lo.unwrap_or(qmin).clamp(qmin, qmax);
        Ok(Some((lo, hi.unwrap_or(qmax).clamp(lo, qmax))))
    }

    fn add_integer(&mut self, n: usize, facts: &Facts<'_>, form: &IntegerForm) -> Result<()> {
        let IntegerForm { op, body, clamp } = form;
        let (node, clamp) = (facts.node, *clamp);
        let data = op.data_inputs(facts);
        let moves = integer::moves(&node.op_type, &body.action);
        // One output: inputs come in its encoding. Several: each output is requantized from the input's.
        let follows_output = moves && facts.outputs.len() == 1;
        let form = |i: usize| -> Form {
            let (Some(fact), Some(Some(y))) = (facts.optional(i), facts.outputs.first()) else { return Form::Real };
            match (&fact.encoding, &y.encoding) {
                _ if !data.contains(&i) || fact.encoding.is_none() => Form::Real,
                (Some(from), Some(to)) if follows_output && !from.same_grid(to) => {
                    Form::CodesAs(node.outputs[0].expect("output 0 has a fact"))
                }
                _ => Form::Codes,
            }
        };
        let exists = |t: TensorId, i: usize, layout: Layout| {
            let own = matches!(form(i), Form::CodesAs(_)) && self.values.contains_key(&(t, Form::Codes, layout));
            own || self.values.contains_key(&(t, form(i), layout))
        };
        let layouts: Vec<Layout> = (0..node.inputs.len())
            .map(|i| match node.inputs[i] {
                Some(t) if exists(t, i, Layout::RowMajor) => Layout::RowMajor,
                Some(t) if exists(t, i, Layout::ChannelsLast) => Layout::ChannelsLast,
                _ => Layout::RowMajor,
            })
            .collect();
        let mut known = facts.inputs.to_vec();
        for &i in &data {
            if let Some(fact) = known.get_mut(i).and_then(Option::as_mut)
                && fact.constant.is_some()
                && fact.encoding.is_some()
                && fact.codes.is_none()
            {
                fact.codes = Some(quantizers::quantize_constant(self.spec, fact, &self.context)?);
                self.used(self.spec.constant_rule());
            }
        }
        let summed = matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm");
        if summed && facts.optional(2).is_some_and(|bias| bias.codes.is_none()) {
            self.used(names::BIAS);
        }
        let facts = &Facts { inputs: &known, ..*facts };
        let context = Context { spec: self.spec, body, layouts: &layouts, clamp };
        let prepared = match &body.action {
            Action::Intrinsic(name) => integer::intrinsics::prepare(name, facts, &context)?,
            _ => op.prepare(facts, &context)?,
        };
        let mut inputs = Vec::new();
        for argument in &prepared.arguments {
            let Some(t) = node.inputs[argument.input] else {
                inputs.push(None);
                continue;
            };
            let form = form(argument.input);
            inputs.push(Some(self.value(t, form, argument.layout)?));
        }
        let mut outputs = Vec::new();
        let mut requantized = Vec::new();
        let encoding_of = |i: usize| facts.optional(i).and_then(|f| f.encoding.clone());
        let y_encoding = |i: usize| facts.outputs[i].as_ref().and_then(|f| f.encoding.clone());
        for (i, t) in node.outputs.iter().enumerate() {
            let Some(t) = *t else {
                outputs.push(None);
                continue;
            };
            let quantized = facts.outputs[i].as_ref().is_some_and(|f| f.encoding.is_some());
            let form = if quantized { Form::Codes } else { Form::Real };
            let slot = self.slot(self.bytes(t, form));
            outputs.push(Some(slot));
            self.values.insert((t, form, prepared.layout), Source::Slot(slot));
            if let (true, false, Some(from), Some(to)) = (moves, follows_output, encoding_of(0), y_encoding(i))
                && !from.same_grid(&to)
            {
                let name = &self.placed.graph.tensors[t].name;
                let count = facts.outputs[i].as_ref().map_or(0, |f| f.shape.iter().product());
                let rule = names::REQUANTIZE;
                let kernel = quantizers::requantize_kernel(self.spec, rule, name, &from, &to, count)?;
                requantized.push((t, slot, kernel));
            }
        }
        let rule = self.spec.rule(&node.op_type).map_or(names::OTHER, |r| r.name.as_str());
        self.report(node, body.action.label(), Some((rule, body)));
        self.steps.push(Step {
            node: Some(n),
            label: format!("{} {}", node.op_type, node.name),
            conversion: None,
            kernel: prepared.kernel,
            inputs,
            outputs,
            frees: Vec::new(),
        });
        for (t, slot, kernel) in requantized {
            let to = self.step("requantize", kernel, Source::Slot(slot), (t, Form::Codes));
            self.values.insert((t, Form::Codes, prepared.layout), Source::Slot(to));
        }
        Ok(())
    }

    fn add_float(&mut self, n: usize, facts: &Facts<'_>, op: &dyn crate::ops::Op) -> Result<()> {
        let node = facts.node;
        let table = float_table(self.spec, &self.context, self.placed.clamps[n].as_ref(), facts, op);
        if let (Some(table), Some(x), Some(y)) = (table, node.inputs.first().copied().flatten(), node.outputs[0]) {
            let channels_last = self.values.contains_key(&(x, Form::Codes, Layout::ChannelsLast));
            let layout = if channels_last { Layout::ChannelsLast } else { Layout::RowMajor };
            let source = self.value(x, Form::Codes, layout)?;
            self.used(names::DEQUANTIZE);
            self.used(names::QUANTIZE);
            let number = self.steps.len();
            let slot = self.step(&node.op_type, Box::new(table), source, (y, Form::Codes));
            self.steps[number].conversion = None;
            self.values.insert((y, Form::Codes, layout), Source::Slot(slot));
            if !self.nodes.last().is_some_and(|r| r.name == node.name && r.op_type == node.op_type) {
                self.report(node, "float", None);
            }
            return Ok(());
        }
        let mut inputs = Vec::new();
        // Kernels may pack constants while they are prepared: they must see what the codes stand for.
        let mut known = facts.inputs.to_vec();
        for (t, fact) in node.inputs.iter().zip(&mut known) {
            let source = t.map(|t| self.value(t, Form::Real, Layout::RowMajor)).transpose()?;
            if let (Some(Source::Constant(value)), Some(fact)) = (&source, fact) {
                fact.constant = Some(value.clone().into());
            }
            inputs.push(source);
        }
        let facts = &Facts { inputs: &known, ..*facts };
        let kernel = match &self.spec.float {
            Some(arithmetic) => {
                self.rules.insert("float".into(), arithmetic.evidence.clone().unwrap_or_default());
                narrow::kernel(arithmetic, facts, op, &mut inputs, &self.narrow, self.context.engine())?
            }
            None => op.float(facts)?,
        };
        let slots: Vec<Option<usize>> =
            node.outputs.iter().map(|t| t.map(|t| self.slot(self.bytes(t, Form::Real)))).collect();
        self.steps.push(Step {
            node: Some(n),
            label: format!("{} {}", node.op_type, node.name),
            conversion: None,
            kernel: Box::new(Explained::new(kernel, facts)),
            inputs,
            outputs: slots.clone(),
            frees: Vec::new(),
        });
        if !self.nodes.last().is_some_and(|r| r.name == node.name && r.op_type == node.op_type) {
            self.report(node, "float", None);
        }
        for (i, (t, slot)) in node.outputs.iter().zip(slots).enumerate() {
            let (Some(t), Some(mut slot)) = (*t, slot) else { continue };
            if self.spec.float.is_some() {
                self.narrow.insert(slot);
            }
            if let (0, Some(Clamp { lo, hi })) = (i, self.placed.clamps[n]) {
                slot = self.step("clip", Box::new(layout::ClipKernel { lo, hi }), Source::Slot(slot), (t, Form::Real));
            }
            let encoding = facts.outputs[i].as_ref().and_then(|f| f.encoding.clone());
            self.raw_real(t, slot, encoding.as_deref(), false)?;
        }
        Ok(())
    }

    fn finish(
        mut self,
        inputs: Vec<(usize, Fact)>,
        outputs: Vec<Source>,
        keep: &BTreeSet<TensorId>,
        follow: bool,
    ) -> Result<Plan> {
        if follow {
            self.steps = in_place::follow(self.steps, &outputs);
        }
        let kept = self.values.iter().filter(|((t, _, _), _)| keep.contains(t)).map(|(_, source)| source);
        free_after_last_read(&mut self.steps, self.slots.len(), outputs.iter().chain(kept));
        // What is kept is handed out as a copy, in reals and in codes.
        let copies = self.values.keys().filter(|(t, _, _)| keep.contains(t)).map(|&(t, _, _)| t);
        let copies: BTreeSet<TensorId> =
            copies.filter(|&t| self.facts[t].as_ref().is_some_and(|f| f.constant.is_none())).collect();
        let copied = |&t: &TensorId| self.bytes(t, Form::Real).saturating_add(self.bytes(t, Form::Codes));
        let besides = copies.iter().map(copied).fold(0, u64::saturating_add);
        self.budget.check_steps(&self.steps, &self.slots, besides).map_err(|(s, error)| match self.steps[s].node {
            Some(n) => error.at_node(&self.placed.graph.nodes[n].name, &self.placed.graph.nodes[n].op_type),
            None => error,
        })?;
        Ok(Plan {
            steps: self.steps,
            slots: self.slots.len(),
            inputs,
            outputs,
            values: self.values,
            facts: self.facts,
            nodes: self.nodes,
            rules: self.rules,
            notes: self.notes,
        })
    }
}
