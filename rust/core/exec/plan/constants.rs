//! Values that are known before the run: constants in the forms that kernels read, and nodes that only read constants.

use super::{Form, Planner};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::exec::layout;
use crate::exec::step::Source;
use crate::graph::Constant;
use crate::ops::integer::{Layout, quantizers};
use crate::ops::{Fact, Facts, Op};
use crate::spec::Execution;
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

impl Planner<'_> {
    /// A constant in a form and layout.
    pub(super) fn constant_value(
        &self,
        fact: &Fact,
        constant: &Constant,
        form: Form,
        layout: Layout,
    ) -> Result<Source> {
        let value = match form {
            Form::Real => match (&fact.encoding, self.spec.execution) {
                (Some(encoding), Execution::Integer | Execution::FakeQuant) if constant.dtype() == DType::F32 => {
                    // What a float kernel reads of a quantized constant is what its codes stand for.
                    let is_bias = encoding.bitwidth == 32;
                    if is_bias { constant.shared().clone() } else { self.dequantized_constant(fact, encoding)? }
                }
                _ => constant.shared().clone(),
            },
            Form::Codes => quantizers::quantize_constant(self.spec, fact, &self.context)?.shared().clone(),
            Form::CodesAs(target) => {
                let codes = quantizers::quantize_constant(self.spec, fact, &self.context)?;
                let to = self.facts[target].clone().and_then(|f| f.encoding).expect("targets have encodings");
                let from = fact.encoding.as_deref().expect("codes have encodings");
                let rule = self.requantize_rule(target);
                let kernel = quantizers::requantize_kernel(self.spec, rule, &fact.name, from, &to, codes.len())?;
                Arc::new(kernel.run(&self.context, &[Some(&codes)])?.into_first())
            }
        };
        Ok(Source::Constant(match layout {
            Layout::RowMajor => value,
            Layout::ChannelsLast => Arc::new(layout::convert(&value, Layout::ChannelsLast)?),
        }))
    }

    fn dequantized_constant(&self, fact: &Fact, encoding: &Encoding) -> Result<Arc<Tensor>> {
        let codes = quantizers::quantize_constant(self.spec, fact, &self.context)?;
        let kernel = quantizers::dequantize_kernel(self.spec, &fact.name, encoding, &fact.shape)?;
        Ok(Arc::new(kernel.run(&self.context, &[Some(&codes)])?.into_first()))
    }

    /// Computes a node whose inputs are all constant and unquantized: shapes and index arithmetic. What would take more memory
    /// than folding may is left to the run.
    pub(super) fn fold(&mut self, facts: &Facts<'_>, op: &dyn Op) -> Result<bool> {
        let all = facts.inputs.iter().flatten().all(|f| f.constant.is_some() && f.encoding.is_none());
        if !(all || op.depends_on_shapes_alone()) || facts.outputs.iter().flatten().any(|f| f.encoding.is_some()) {
            return Ok(false);
        }
        let bytes = facts.outputs.iter().flatten().map(Fact::bytes).fold(self.folded, u64::saturating_add);
        if bytes > self.budget.folded() {
            return Ok(false);
        }
        self.folded = bytes;
        let kernel = op.float(facts)?;
        let inputs: Vec<Option<&Tensor>> =
            facts.inputs.iter().map(|f| f.as_ref().and_then(|f| f.constant.as_deref())).collect();
        let values = kernel.run(&self.context, &inputs)?;
        for (t, value) in facts.node.outputs.iter().zip(values) {
            if let Some(fact) = t.and_then(|t| self.facts[t].as_mut()) {
                if (fact.dtype, fact.shape.as_slice()) != (value.dtype(), value.shape()) {
                    let (inferred, computed) = ((fact.dtype, &fact.shape), (value.dtype(), value.shape()));
                    let message = format!("{computed:?} was computed, {inferred:?} inferred; please report this");
                    return Err(Error::invalid("inferred", message));
                }
                fact.constant = Some(value.into());
            }
        }
        self.report(facts.node, "folded", None);
        Ok(true)
    }
}
