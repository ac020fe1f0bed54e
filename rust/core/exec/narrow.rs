//! Float kernels of targets that hold reals in fewer bits.

use super::step::Source;
use crate::error::Result;
use crate::kernels::Engine;
use crate::num::Narrow;
use crate::ops::closure::input;
use crate::ops::parallel::map;
use crate::ops::{Facts, Kernel, Op, Outputs, RunContext, accumulate};
use crate::spec::FloatArithmetic;
use crate::tensor::{Data, Tensor};
use half::{bf16, f16};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The elements of a tensor of reals up to 32 bits as `narrow` holds them; other tensors as they are.
pub fn narrowed(engine: Engine<'_>, tensor: &Tensor, narrow: Narrow) -> Result<Tensor> {
    let data = match tensor.data() {
        Data::F32(v) => Data::F32(map(engine, v, |x| narrow.round(x)).into()),
        Data::F16(v) => Data::F16(map(engine, v, |x: f16| f16::from_f32_const(narrow.round(x.to_f32_const()))).into()),
        Data::BF16(v) => {
            Data::BF16(map(engine, v, |x: bf16| bf16::from_f32_const(narrow.round(x.to_f32_const()))).into())
        }
        _ => return Ok(tensor.clone()),
    };
    Tensor::new(tensor.shape(), data)
}

/// The kernel of a node whose reals the target holds and sums in its own way. Constants among the arguments are rounded
/// here, once; slots that are not in `held` are rounded in each run.
pub fn kernel(
    arithmetic: &FloatArithmetic,
    facts: &Facts<'_>,
    op: &dyn Op,
    inputs: &mut [Option<Source>],
    held: &BTreeSet<usize>,
    engine: Engine<'_>,
) -> Result<Box<dyn Kernel>> {
    let narrow = arithmetic.tensors();
    let mut known = facts.inputs.to_vec();
    for (source, fact) in inputs.iter_mut().zip(&mut known) {
        if let (Some(Source::Constant(value)), Some(fact)) = (source, fact) {
            *value = Arc::new(narrowed(engine, value, narrow)?);
            fact.constant = Some(value.clone().into());
        }
    }
    let facts = Facts { inputs: &known, ..*facts };
    let kernel = match accumulate::prepare(&facts, arithmetic.sums(), narrow.format)? {
        Some(kernel) => kernel,
        None => op.float(&facts)?,
    };
    let fresh = inputs.iter().map(|s| matches!(s, Some(Source::Slot(s)) if !held.contains(s))).collect();
    Ok(Box::new(Narrowed { kernel, narrow, fresh }))
}

/// Rounds its argument.
pub struct NarrowKernel(pub Narrow);

impl Kernel for NarrowKernel {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        Ok([narrowed(context.engine(), input(inputs, 0)?, self.0)?].into())
    }
}

/// A kernel that reads and writes reals of few bits.
struct Narrowed {
    kernel: Box<dyn Kernel>,
    narrow: Narrow,
    /// Whether each argument must be rounded before it is read.
    fresh: Vec<bool>,
}

impl Kernel for Narrowed {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let mut rounded = Vec::with_capacity(inputs.len());
        for (tensor, &fresh) in inputs.iter().zip(&self.fresh) {
            rounded.push(match tensor {
                Some(tensor) if fresh => Some(narrowed(context.engine(), tensor, self.narrow)?),
                _ => None,
            });
        }
        let arguments: Vec<Option<&Tensor>> =
            inputs.iter().zip(&rounded).map(|(given, rounded)| rounded.as_ref().or(*given)).collect();
        let outputs = self.kernel.run(context, &arguments)?;
        outputs.iter().map(|y| narrowed(context.engine(), y, self.narrow)).collect()
    }
}
