//! How one element came about: the kernel that computes it, with the conversions before and behind it.

use super::layout;
use super::plan::{Form, Plan};
use super::session::{Purpose, Session, Slot, fetch};
use super::step::{Source, Step};
use crate::error::{Error, Result};
use crate::graph::TensorId;
use crate::ops::explanation::shown;
use crate::ops::integer::Layout;
use crate::ops::{Explanation, Place};
use crate::program::Trace;
use crate::tensor::Tensor;

/// A step and the slot of it that counts, in a layout.
#[derive(Debug, Clone, Copy)]
struct Stage {
    step: usize,
    slot: usize,
    layout: Layout,
}

impl Session {
    /// How one element of a tensor came about. `index` is flat, in the order of the file's shape.
    ///
    /// The trace ends in the element as [`Session::run_with`] captures it: its code, where the tensor has codes.
    pub fn explain(&self, feeds: &[(&str, &Tensor)], tensor: &str, index: usize) -> Result<Explanation> {
        let graph = self.graph();
        let t = graph.find(tensor).ok_or_else(|| {
            let known = graph.tensors.iter().map(|t| t.name.as_str());
            Error::invalid("tensor_unknown", format!("the model has no tensor '{tensor}'"))
                .help(crate::spec::nearest_help(tensor, known))
        })?;
        let inputs = self.bind(feeds)?;
        let plan = self.plan_for(inputs.iter().map(|t| t.shape().to_vec()).collect(), Purpose::Explain)?;
        let stages = stages(&plan, t);
        let nothing = || Error::unsupported("explain_input", "no kernel computes this tensor").at_tensor(tensor);
        let fact = plan.facts[t].as_ref().ok_or_else(nothing)?;
        if index >= fact.shape.iter().product() {
            return Err(
                Error::invalid("explain_index", format!("element {index} of shape {:?}", fact.shape)).at_tensor(tensor)
            );
        }
        let element = layout::graph_index(&graph.tensors[t], &fact.shape, index);
        let by = |n: usize| (graph.nodes[n].name.clone(), graph.nodes[n].op_type.clone());
        let Some(first) = stages.first() else {
            let node = graph.nodes.iter().position(|n| n.outputs.contains(&Some(t)));
            let (Some(node), Some(constant)) = (node, &fact.constant) else { return Err(nothing()) };
            let mut trace = Trace::default();
            let value = shown(constant, element)?;
            trace.add("constant", "known before the run", &value);
            let (target, tensor) = (self.spec().name.clone(), tensor.to_string());
            let (node, trace) = (Some(by(node)), trace.end(value));
            return Ok(Explanation { target, tensor, index, node, trace, ..Explanation::default() });
        };
        let slots = self.execute(&plan, &inputs, None, &mut || Ok(()), &mut |_, _| ())?;
        let mut explanation: Option<Explanation> = None;
        let mut label = "";
        for stage in &stages {
            let step = &plan.steps[stage.step];
            let output = step.outputs.iter().position(|s| *s == Some(stage.slot)).unwrap_or(0);
            let place = Place { output, index: stage.layout.index(&fact.shape, element) };
            let next = self.stage(step, &slots, place)?;
            explanation = Some(match explanation {
                Some(done) => done.then(label, next),
                None => self.moved(&plan, step, &slots, next)?,
            });
            label = &step.label;
        }
        let mut explanation = explanation.unwrap_or_default();
        explanation.tensor = tensor.to_string();
        explanation.index = index;
        explanation.node = plan.steps[first.step].node.map(by);
        explanation.target = self.spec().name.clone();
        Ok(explanation)
    }

    fn stage(&self, step: &Step, slots: &[Slot<'_>], place: Place) -> Result<Explanation> {
        let arguments: Vec<Option<&Tensor>> =
            step.inputs.iter().map(|s| s.as_ref().map(|s| fetch(slots, s)).transpose()).collect::<Result<_>>()?;
        let graph = self.graph();
        step.kernel.explain(&self.context(), &arguments, place).map_err(|e| match step.node {
            Some(n) => e.at_node(&graph.nodes[n].name, &graph.nodes[n].op_type),
            None => e,
        })
    }

    /// Puts the conversion that a moved element went through before it was moved in front of its explanation.
    fn moved(&self, plan: &Plan, step: &Step, slots: &[Slot<'_>], moved: Explanation) -> Result<Explanation> {
        let Some((argument, mut at)) = moved.source else { return Ok(moved) };
        let mut source = step.inputs.get(argument).and_then(Option::as_ref);
        while let Some(Source::Slot(slot)) = source {
            let Some(writer) = writer(plan, *slot).map(|w| &plan.steps[w]) else { break };
            let Some(conversion) = writer.conversion else { break };
            if !conversion.turns {
                let before = self.stage(writer, slots, Place::first(at))?;
                return Ok(Explanation { trace: before.trace.then(&writer.label, moved.trace), ..moved });
            }
            let Some(fact) = plan.facts[conversion.tensor].as_ref() else { break };
            let is_it = |key: &(TensorId, Form, Layout), value: &Source| {
                key.0 == conversion.tensor && matches!(value, Source::Slot(s) if s == slot)
            };
            let Some(now) = plan.values.iter().find(|(key, value)| is_it(key, value)).map(|(key, _)| key.2) else {
                break;
            };
            let then = layout::other(now);
            at = then.index(&fact.shape, now.element(&fact.shape, at));
            source = writer.inputs.first().and_then(Option::as_ref);
        }
        Ok(moved)
    }
}

fn writer(plan: &Plan, slot: usize) -> Option<usize> {
    plan.steps.iter().position(|s| s.outputs.contains(&Some(slot)))
}

/// The steps that lead to a tensor as it is seen from outside: its kernel and the conversions behind it, without those
/// between layouts.
fn stages(plan: &Plan, t: TensorId) -> Vec<Stage> {
    let written = |form: Form| {
        let layouts = [Layout::RowMajor, Layout::ChannelsLast].into_iter();
        let stage = layouts.filter_map(|layout| match plan.values.get(&(t, form, layout))? {
            Source::Slot(slot) => Some(Stage { step: writer(plan, *slot)?, slot: *slot, layout }),
            Source::Constant(_) => None,
        });
        // The other layout is a copy of the one that was written first.
        stage.min_by_key(|s| s.step)
    };
    let mut next = written(Form::Codes).or_else(|| written(Form::Real));
    let mut out = Vec::new();
    while let Some(stage) = next {
        let step = &plan.steps[stage.step];
        let turns = step.conversion.is_some_and(|c| c.turns);
        if !turns {
            out.insert(0, stage);
        }
        next = match (step.conversion, step.inputs.first()) {
            (Some(conversion), Some(Some(Source::Slot(slot)))) if conversion.tensor == t => {
                let layout = if turns { layout::other(stage.layout) } else { stage.layout };
                writer(plan, *slot).map(|step| Stage { step, slot: *slot, layout })
            }
            _ => None,
        };
    }
    out
}
