//! What a plan is made of.

use crate::graph::TensorId;
use crate::ops::Kernel;
use crate::spec::Evidence;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Where a step finds an argument.
#[derive(Debug, Clone)]
pub enum Source {
    /// A value that another step wrote.
    Slot(usize),
    /// A value that never changes.
    Constant(Arc<Tensor>),
}

impl Source {
    /// The slot, where another step wrote the value.
    pub fn slot(&self) -> Option<usize> {
        if let Source::Slot(slot) = self { Some(*slot) } else { None }
    }
}

/// Label of conversions between layouts.
pub const LAYOUT: &str = "layout";

/// What a step does that computes nothing of the graph.
#[derive(Debug, Clone, Copy)]
pub struct Conversion {
    /// The tensor that it brings into another form.
    pub tensor: TensorId,
    /// Whether the form is another layout.
    pub turns: bool,
}

/// One kernel and its arguments.
pub struct Step {
    /// Node that the step belongs to, the first of several; for conversions, the one that asked for it.
    pub node: Option<usize>,
    /// What it does, for profiles.
    pub label: String,
    /// Where it is a conversion: of what.
    pub conversion: Option<Conversion>,
    /// The kernel.
    pub kernel: Box<dyn Kernel>,
    /// Arguments.
    pub inputs: Vec<Option<Source>>,
    /// Slots of the outputs; `None` where nobody needs one.
    pub outputs: Vec<Option<usize>>,
    /// Slots that nothing reads after this step.
    pub frees: Vec<usize>,
    /// Where the outputs begin in the memory of the run; `None` for those that get memory of their own.
    pub places: Vec<Option<usize>>,
}

/// How one node runs; for reports.
#[derive(Debug, Clone)]
pub struct NodeReport {
    /// Node name.
    pub name: String,
    /// ONNX operator.
    pub op_type: String,
    /// `integer`, `float`, `move`, `intrinsic`, `folded`.
    pub mode: &'static str,
    /// Rule that gave the arithmetic, with the alternative chosen.
    pub rule: Option<String>,
    /// Evidence of that rule.
    pub evidence: Option<Evidence>,
}

/// Lets every step free the slots that no later one reads; those of `kept` sources stay.
pub fn free_after_last_read<'s>(steps: &mut [Step], slots: usize, kept: impl Iterator<Item = &'s Source>) {
    let mut last_read = vec![None; slots];
    for (s, step) in steps.iter().enumerate() {
        for slot in step.inputs.iter().flatten().filter_map(Source::slot) {
            last_read[slot] = Some(s);
        }
        for slot in step.outputs.iter().flatten() {
            last_read[*slot] = last_read[*slot].or(Some(s));
        }
    }
    kept.filter_map(Source::slot).for_each(|slot| last_read[slot] = None);
    for (slot, last) in last_read.into_iter().enumerate() {
        if let Some(step) = last {
            steps[step].frees.push(slot);
        }
    }
}
