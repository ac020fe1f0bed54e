//! Nodes that run on codes.

use super::jobs::{Awaited, Job, lacks_codes};
use super::{Form, Planner};
use crate::error::{Error, Kind, Location, Result};
use crate::exec::placement::Note;
use crate::exec::step::{Source, Step};
use crate::graph::{Clamp, TensorId, qdq};
use crate::ops::integer::{self, IntegerOp, Layout, Prepared, quantizers};
use crate::ops::{Fact, Facts, Kernel};
use crate::program::Env;
use crate::spec::{Action, Body, MissingEncoding, names};

/// How a node runs on codes.
pub(super) struct IntegerForm<'a> {
    op: &'static dyn IntegerOp,
    /// What the rule says.
    body: &'a Body,
    /// Bounds of a fused activation, in codes of the output.
    clamp: Option<(i64, i64)>,
    env: Env,
}

impl<'a> Planner<'a> {
    /// The integer form of a node, or `None` where it runs in float.
    pub(super) fn integer_form(&mut self, n: usize, facts: &Facts<'_>) -> Result<Option<IntegerForm<'a>>> {
        let (node, spec) = (facts.node, self.spec);
        let quantized = facts.inputs.iter().chain(facts.outputs).flatten().any(|f| f.encoding.is_some());
        let encoded = |facts: &[Option<Fact>]| facts.iter().flatten().all(|f| f.encoding.is_some());
        if !quantized || (qdq::only_quantizes(node) && encoded(facts.inputs) != encoded(facts.outputs)) {
            return Ok(None);
        }
        let Some(rule) = spec.rule(&node.op_type).or_else(|| spec.rule(names::OTHER)) else {
            return Err(self.spec.require(&node.op_type).expect_err("the rule is missing"));
        };
        let Some(integer) = integer::find(&node.domain, &node.op_type) else {
            return match rule.bodies.iter().all(|b| matches!(b.action, Action::Float)) {
                true => self.float_by_rule(facts, &rule.name, &rule.bodies[0]),
                false => Err(facts.unsupported("no integer form of this operator exists")),
            };
        };
        if let [body @ Body { when: None, action: Action::Float, .. }] = &rule.bodies[..] {
            return self.float_by_rule(facts, &rule.name, body);
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
        let body = rule.resolve(&env)?;
        match &body.action {
            Action::Float => self.float_by_rule(facts, &rule.name, body),
            Action::Unsupported(reason) => Err(Error::new(Kind::UnsupportedByTarget, "op_unsupported", reason.clone())
                .at(Location::Node { name: node.name.clone(), op_type: node.op_type.clone() })),
            _ => Ok(Some(IntegerForm { op: integer, body, clamp, env })),
        }
    }

    fn float_by_rule(&mut self, facts: &Facts<'_>, rule: &str, body: &Body) -> Result<Option<IntegerForm<'a>>> {
        self.notes.push(Note { place: facts.node.name.clone(), text: format!("runs in float by rule '{rule}'") });
        self.report(facts.node, "float", Some((rule, body)));
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

    /// Adds the step of a node on codes, and the conversions around it.
    pub(super) fn add_integer(&mut self, n: usize, facts: &Facts<'_>, form: IntegerForm<'a>) -> Result<()> {
        let IntegerForm { op, body, clamp, env } = form;
        let node = &self.placed.graph.nodes[n];
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
        if data.iter().filter_map(|&i| facts.optional(i)).any(lacks_codes) {
            self.used(self.spec.constant_rule());
        }
        let summed = matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm");
        if summed && facts.optional(2).is_some_and(|bias| bias.codes.is_none()) {
            self.used(names::BIAS);
        }
        let intrinsic = matches!(body.action, Action::Intrinsic(_));
        let expected = if intrinsic { None } else { op.arrangement(facts, &layouts) };
        let job = Box::new(Job {
            op,
            node,
            opset: facts.opset,
            inputs: facts.inputs.to_vec(),
            outputs: facts.outputs.to_vec(),
            spec: self.spec,
            body,
            layouts,
            clamp,
            env,
            context: self.context,
        });
        let (kernel, job, arrangement): (Box<dyn Kernel>, _, _) = match expected {
            Some(arrangement) => (Box::new(Awaited), Some(job), arrangement),
            None => {
                let Prepared { kernel, arrangement } = job.prepare()?;
                (kernel, None, arrangement)
            }
        };
        let layout = arrangement.layout;
        let mut inputs = Vec::new();
        for argument in &arrangement.arguments {
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
            let moved = encoding_of(0).zip(y_encoding(i)).filter(|(from, to)| !from.same_grid(to));
            let moved = moved.filter(|_| moves && !follows_output);
            // What moves has the type that it comes in.
            let bytes = match (&facts.outputs[i], &moved) {
                (Some(fact), Some((from, _))) => fact.bytes_as(from.storage_dtype()),
                _ => self.bytes(t, form),
            };
            let slot = self.slot(bytes);
            outputs.push(Some(slot));
            self.values.insert((t, form, layout), Source::Slot(slot));
            if let Some((from, to)) = moved {
                let name = &self.placed.graph.tensors[t].name;
                let count = facts.outputs[i].as_ref().map_or(0, |f| f.shape.iter().product());
                let rule = names::REQUANTIZE;
                let kernel = quantizers::requantize_kernel(self.spec, rule, name, &from, &to, count)?;
                requantized.push((t, slot, kernel));
            }
        }
        let rule = self.spec.rule(&node.op_type).map_or(names::OTHER, |r| r.name.as_str());
        self.report(node, body.action.label(), Some((rule, body)));
        if let Some(job) = job {
            self.jobs.push(self.steps.len(), arrangement, job);
        }
        self.steps.push(Step {
            node: Some(n),
            label: format!("{} {}", node.op_type, node.name),
            conversion: None,
            kernel,
            inputs,
            outputs,
            frees: Vec::new(),
            places: Vec::new(),
        });
        for (t, slot, kernel) in requantized {
            let to = self.step("requantize", kernel, Source::Slot(slot), (t, Form::Codes));
            self.values.insert((t, Form::Codes, layout), Source::Slot(to));
        }
        Ok(())
    }
}
