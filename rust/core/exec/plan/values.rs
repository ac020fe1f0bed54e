//! The value of a tensor in the form and layout that a kernel reads.

use super::{Form, Planner};
use crate::error::{Error, Result};
use crate::exec::layout::{self, LayoutKernel};
use crate::exec::narrow::narrowed;
use crate::exec::step::{LAYOUT, Source};
use crate::graph::{Constant, TensorId};
use crate::ops::integer::{Layout, quantizers};
use crate::spec::{Action, Execution, names};

impl<'a> Planner<'a> {
    /// The value of a tensor in a form and layout, converting where it exists in another.
    pub(super) fn value(&mut self, t: TensorId, form: Form, layout: Layout) -> Result<Source> {
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
    pub(super) fn requantize_rule(&self, target: TensorId) -> &'a str {
        let producer = self.placed.graph.nodes.iter().find(|node| node.outputs.contains(&Some(target)));
        match producer.and_then(|node| self.spec.rule(&node.op_type)) {
            Some(rule) if rule.bodies.iter().any(|b| matches!(b.action, Action::Program { .. })) => &rule.name,
            _ => names::REQUANTIZE,
        }
    }
}
