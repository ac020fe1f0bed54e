//! What a plan is made of.

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

/// One kernel and its arguments.
pub struct Step {
    /// Node that the step belongs to; for conversions, the one that asked for it.
    pub node: Option<usize>,
    /// What it does, for profiles.
    pub label: String,
    /// The kernel.
    pub kernel: Box<dyn Kernel>,
    /// Arguments.
    pub inputs: Vec<Option<Source>>,
    /// Slots of the outputs; `None` where nobody needs one.
    pub outputs: Vec<Option<usize>>,
    /// Slots that nothing reads after this step.
    pub frees: Vec<usize>,
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
