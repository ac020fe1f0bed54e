//! Float operators between two codes of a byte, as tables.

use super::layout::ClipKernel;
use crate::error::{Error, Result};
use crate::graph::{Clamp, Constant};
use crate::ops::closure::input;
use crate::ops::integer::table::ByteTable;
use crate::ops::integer::{self, code_at, quantizers};
use crate::ops::{Explained, Explanation, Fact, Facts, InPlace, Kernel, Op, Outputs, Place, RunContext};
use crate::spec::{Execution, Spec, names};
use crate::tensor::Tensor;

/// A table of codes, and the kernels that made it.
pub struct FloatTable {
    table: Option<ByteTable>,
    /// From code to code, with what each does.
    stages: Vec<(String, Box<dyn Kernel>)>,
    /// Further inputs of the operator.
    constants: Vec<Option<Constant>>,
    /// All codes of the input.
    codes: Tensor,
}

impl FloatTable {
    /// What stage number `stage` reads: the operator, behind the dequantization, its constants too.
    fn arguments<'a>(&'a self, stage: usize, first: &'a Tensor) -> Vec<Option<&'a Tensor>> {
        let constants = if stage == 1 { &self.constants[..] } else { &[] };
        std::iter::once(Some(first)).chain(constants.iter().map(Option::as_deref)).collect()
    }

    /// What each stage gives for all codes.
    fn values(&self, context: &RunContext<'_>) -> Result<Vec<Tensor>> {
        let mut values: Vec<Tensor> = Vec::with_capacity(self.stages.len());
        for (i, (_, kernel)) in self.stages.iter().enumerate() {
            let arguments = self.arguments(i, values.last().unwrap_or(&self.codes));
            let value = kernel.run(context, &arguments)?.into_first();
            values.push(value);
        }
        Ok(values)
    }

    fn table(&self) -> Result<&ByteTable> {
        self.table.as_ref().ok_or_else(|| Error::invalid("table_empty", "the table has not been made"))
    }
}

impl Kernel for FloatTable {
    fn in_place(&self) -> Option<&dyn InPlace> {
        self.table.as_ref().map(|table| table as &dyn InPlace)
    }

    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        self.table()?.run(context, inputs)
    }

    fn explain(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let code = code_at(input(inputs, 0)?, place.index)?;
        let first = code_at(&self.codes, 0)?;
        let entry = Place::first(usize::try_from(code - first).unwrap_or(usize::MAX));
        let values = self.values(context)?;
        let mut read = &self.codes;
        let mut explanation: Option<Explanation> = None;
        let mut label = "";
        for (i, ((text, kernel), value)) in self.stages.iter().zip(&values).enumerate() {
            let next = kernel.explain(context, &self.arguments(i, read), entry)?;
            explanation = Some(match explanation {
                Some(done) => done.then(label, next),
                None => next,
            });
            (label, read) = (text, value);
        }
        Ok(explanation.unwrap_or_default())
    }
}

/// A node that computes in float from one code of a byte to another, as a table made by the same steps; `None` where it is
/// none, or where a step fails for a code that may never come.
pub fn float_table(
    spec: &Spec,
    context: &RunContext<'_>,
    clamp: Option<&Clamp>,
    facts: &Facts<'_>,
    op: &dyn Op,
) -> Option<FloatTable> {
    let node = facts.node;
    let (Some(x), [Some(y)]) = (facts.optional(0), facts.outputs) else { return None };
    let others = facts.inputs.iter().skip(1).flatten().all(|f| f.constant.is_some() && f.encoding.is_none());
    // A target with float formats of its own has kernels of its own for them.
    let plain = spec.execution == Execution::Integer && spec.float.is_none();
    let (from, to) = (x.encoding.as_deref()?, y.encoding.as_deref()?);
    let applies = plain && others && integer::is_unary(&node.op_type) && x.constant.is_none();
    if !applies || from.scale.len() != 1 || to.scale.len() != 1 {
        return None;
    }
    let codes = ByteTable::codes(from.qmin(), from.qmax())?;
    let shape = codes.shape();
    let lift = |fact: &Fact| Fact { shape: shape.to_vec(), ..fact.clone() };
    let mut inputs = facts.inputs.to_vec();
    inputs[0] = Some(lift(x));
    let outputs = [Some(lift(y))];
    let kernel = op.float(&Facts { inputs: &inputs, outputs: &outputs, ..*facts }).ok()?;
    let mut stages: Vec<(String, Box<dyn Kernel>)> = Vec::new();
    let dequantize = quantizers::dequantize_kernel(spec, &x.name, from, shape).ok()?;
    stages.push((format!("dequantize {}", x.name), dequantize));
    let kernel = Box::new(Explained::new(kernel, &Facts { inputs: &inputs, outputs: &outputs, ..*facts }));
    stages.push((format!("{} {}", node.op_type, node.name), kernel));
    if let Some(&Clamp { lo, hi }) = clamp {
        stages.push(("clip".into(), Box::new(ClipKernel { lo, hi })));
    }
    let quantize = quantizers::quantize_kernel(spec, names::QUANTIZE, &y.name, to, shape).ok()?;
    stages.push((format!("quantize {}", y.name), quantize));
    let constants: Vec<Option<Constant>> =
        facts.inputs.iter().skip(1).map(|f| f.as_ref().and_then(|f| f.constant.clone())).collect();
    let mut table = FloatTable { table: None, stages, constants, codes };
    let last = table.values(context).ok()?.pop()?;
    table.table = Some(ByteTable::new(from.qmin(), last.data())?);
    Some(table)
}
