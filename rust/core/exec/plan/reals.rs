//! Nodes that run on reals.

use super::{Form, Planner};
use crate::error::Result;
use crate::exec::float_table::float_table;
use crate::exec::layout::ClipKernel;
use crate::exec::narrow;
use crate::exec::step::{Source, Step};
use crate::graph::Clamp;
use crate::ops::integer::Layout;
use crate::ops::{Explained, Facts, Op};
use crate::spec::names;

impl Planner<'_> {
    /// Adds the float kernel of a node, or a table where it reads and writes codes of one byte.
    pub(super) fn add_float(&mut self, n: usize, facts: &Facts<'_>, op: &dyn Op) -> Result<()> {
        let node = facts.node;
        // A rule that says so has been reported.
        if !self.nodes.last().is_some_and(|r| r.name == node.name && r.op_type == node.op_type) {
            self.report(node, "float", None);
        }
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
            places: Vec::new(),
        });
        for (i, (t, slot)) in node.outputs.iter().zip(slots).enumerate() {
            let (Some(t), Some(mut slot)) = (*t, slot) else { continue };
            if self.spec.float.is_some() {
                self.narrow.insert(slot);
            }
            if let (0, Some(Clamp { lo, hi })) = (i, self.placed.clamps[n]) {
                slot = self.step("clip", Box::new(ClipKernel { lo, hi }), Source::Slot(slot), (t, Form::Real));
            }
            let encoding = facts.outputs[i].as_ref().and_then(|f| f.encoding.clone());
            self.raw_real(t, slot, encoding.as_deref(), false)?;
        }
        Ok(())
    }
}
