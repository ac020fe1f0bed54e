//! Float operators between two codes of a byte, as tables.

use super::layout::ClipKernel;
use crate::graph::Clamp;
use crate::ops::integer::table::ByteTable;
use crate::ops::integer::{self, quantizers};
use crate::ops::{Fact, Facts, Kernel, Op, RunContext};
use crate::spec::{Execution, Spec, names};
use crate::tensor::Tensor;

/// A node that computes in float from one code of a byte to another, as a table made by the same steps; `None` where it is
/// none, or where a step fails for a code that may never come.
pub fn float_table(
    spec: &Spec,
    context: &RunContext<'_>,
    clamp: Option<&Clamp>,
    facts: &Facts<'_>,
    op: &dyn Op,
) -> Option<ByteTable> {
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
    let run = |kernel: &dyn Kernel, first: &Tensor| {
        let constants = facts.inputs.iter().skip(1).map(|f| f.as_ref().and_then(|f| f.constant.as_deref()));
        let arguments: Vec<Option<&Tensor>> = std::iter::once(Some(first)).chain(constants).collect();
        Some(kernel.run(context, &arguments).ok()?.swap_remove(0))
    };
    let mut value = run(&*quantizers::dequantize_kernel(spec, &x.name, from, shape).ok()?, &codes)?;
    value = run(&*kernel, &value)?;
    if let Some(&Clamp { lo, hi }) = clamp {
        value = run(&ClipKernel { lo, hi }, &value)?;
    }
    let quantize = quantizers::quantize_kernel(spec, names::QUANTIZE, &y.name, to, shape).ok()?;
    ByteTable::new(from.qmin(), run(&*quantize, &value)?.data())
}
