//! Freezing a graph for concrete input shapes: shapes, constants, kernels and the conversions between them.

mod codes;
mod constants;
mod in_place;
mod jobs;
mod reals;
mod scaled;
mod values;

use super::budget::Budget;
use super::layout::{self, LayoutKernel};
use super::narrow::NarrowKernel;
use super::placement::{Note, Placed};
use super::places::place;
use super::step::{Conversion, LAYOUT, NodeReport, Source, Step, free_after_last_read};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::graph::{Node, TensorId};
use crate::num::Narrow;
use crate::ops::integer::{Layout, quantizers};
use crate::ops::{Fact, Facts, Kernel, RunContext, registry};
use crate::spec::{Body, Evidence, Execution, Spec, names};
use crate::tensor::DType;
use jobs::Jobs;
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
    /// Bytes of the arena that the steps' places are in.
    pub bytes: usize,
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

struct Planner<'a> {
    jobs: &'a Jobs<'a>,
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
    let jobs = Jobs::new();
    let mut planner = Planner {
        jobs: &jobs,
        placed,
        spec,
        context,
        facts: vec![None; placed.graph.tensors.len()],
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
    let coded = spec.execution == Execution::Integer && placed.graph.tensors.iter().any(|t| t.encoding.is_some());
    let nodes = if coded { placed.graph.nodes.len() } else { 0 };
    let planned = jobs.serve(nodes, context.team.threads(), || planner.add_all(shapes));
    // The nodes of all jobs stand before the one at which planning ended.
    for (step, kernel) in jobs.finish()? {
        planner.steps[step].kernel = kernel;
    }
    let (inputs, outputs) = planned?;
    planner.finish(inputs, outputs, keep, follow)
}

/// Slot and fact of each input, source of each output.
type Ports = (Vec<(usize, Fact)>, Vec<Source>);

impl<'a> Planner<'a> {
    fn add_all(&mut self, shapes: &[Vec<usize>]) -> Result<Ports> {
        let graph = &self.placed.graph;
        self.add_constants()?;
        let inputs = self.add_inputs(shapes)?;
        for (n, node) in graph.nodes.iter().enumerate() {
            self.current = Some(n);
            self.add_node(n).map_err(|e| e.at_node(&node.name, &node.op_type))?;
            if self.jobs.failed() {
                break;
            }
        }
        self.current = None;
        let mut outputs = Vec::new();
        for port in &graph.outputs {
            let form = if port.quantized { Form::Codes } else { Form::Real };
            let layout = layout::of_file(&graph.tensors[port.tensor]);
            outputs.push(self.value(port.tensor, form, layout).map_err(|e| e.at_tensor(&port.name))?);
        }
        Ok((inputs, outputs))
    }

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
            places: Vec::new(),
        });
        slot
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
            return self.add_integer(n, &facts, form);
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
        let mut bytes = place(&mut self.steps, &self.slots, &outputs);
        let leaving: BTreeSet<usize> = outputs.iter().filter_map(Source::slot).collect();
        let others = leaving.iter().map(|&slot| self.slots[slot]).fold(besides, u64::saturating_add);
        if !self.budget.allows((bytes as u64).saturating_add(others)) {
            // An arena lasts for the whole run and has gaps; vectors take what lives at one time.
            bytes = 0;
            self.steps.iter_mut().for_each(|step| step.places.clear());
        }
        Ok(Plan {
            steps: self.steps,
            slots: self.slots.len(),
            bytes,
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
