//! Operators on codes: a skeleton from [`crate::kernels`] and a program from the spec.

pub mod channels_last;
mod elementwise;
pub mod environment;
mod float_pairs;
pub mod intrinsics;
pub mod lanes;
mod mac;
mod max_pool;
pub mod movement;
mod pairs;
pub mod quantizers;
mod row;
pub mod table;
pub mod window;

use super::{Facts, Kernel};
use crate::error::Result;
use crate::program::Env;
use crate::spec::{Action, Body, Spec};
pub use elementwise::code_at;

/// Order of a tensor's elements in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// ONNX's order, last axis fastest.
    RowMajor,
    /// `N H W C` of a tensor whose ONNX order is `N C H W`; `N H W A B` of one whose order is `N A B H W`.
    ChannelsLast,
}

impl Layout {
    /// Where an element of a tensor of `shape`, both in ONNX's order, lies in this layout.
    pub fn index(self, shape: &[usize], index: usize) -> usize {
        if self == Layout::RowMajor {
            return index;
        }
        let (channels, spatial) = extents(shape);
        let (row, s) = (index / spatial, index % spatial);
        let (n, c) = (row / channels, row % channels);
        (n * spatial + s) * channels + c
    }

    /// Which element in ONNX's order lies at `index` in this layout; `shape` is in ONNX's order.
    pub fn element(self, shape: &[usize], index: usize) -> usize {
        if self == Layout::RowMajor {
            return index;
        }
        let (channels, spatial) = extents(shape);
        let (pixel, c) = (index / channels, index % channels);
        (pixel / spatial * channels + c) * spatial + pixel % spatial
    }
}

/// Channels, and elements of each, of an image of a shape in ONNX's order.
fn extents(shape: &[usize]) -> (usize, usize) {
    let axes = channels_last::channel_axes(shape.len());
    (shape[1..=axes].iter().product(), shape[1 + axes..].iter().product())
}

/// What an integer operator may know beyond the facts.
pub struct Context<'a> {
    /// The target.
    pub spec: &'a Spec,
    /// The body of the rule that applies.
    pub body: &'a Body,
    /// Layouts in which the inputs exist so far.
    pub layouts: &'a [Layout],
    /// Bounds in codes of the output from a fused activation.
    pub clamp: Option<(i64, i64)>,
}

/// An input of a prepared kernel: which input of the node, and in which layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// Index among the node's inputs.
    pub input: usize,
    /// Layout that the kernel reads.
    pub layout: Layout,
}

/// What a kernel on codes reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrangement {
    /// In the order in which the kernel takes them.
    pub arguments: Vec<Argument>,
    /// Layout of all outputs.
    pub layout: Layout,
}

impl Arrangement {
    /// The node's first inputs, so many, in the layout of the outputs.
    pub fn alike(inputs: usize, layout: Layout) -> Self {
        Arrangement { arguments: (0..inputs).map(|input| Argument { input, layout }).collect(), layout }
    }

    /// One argument, the node's first input, in the layout of the outputs.
    pub fn first(layout: Layout) -> Self {
        Self::alike(1, layout)
    }
}

/// A kernel on codes.
pub struct Prepared {
    /// Reads codes of the arguments, writes codes of the outputs.
    pub kernel: Box<dyn Kernel>,
    /// Arguments, and layouts.
    pub arrangement: Arrangement,
}

/// An operator that can run on codes.
pub trait IntegerOp: Send + Sync {
    /// Inputs whose codes the kernel needs; the others are constants such as axes.
    fn data_inputs(&self, facts: &Facts<'_>) -> Vec<usize>;

    /// Whether inputs may have one scale per channel.
    fn takes_channels(&self, _facts: &Facts<'_>) -> bool {
        false
    }

    /// What conditions of the rule, and its program, may read besides what only [`IntegerOp::prepare`] knows.
    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env>;

    /// The arrangement of the kernel that [`IntegerOp::prepare`] will give, where it follows from the shapes, encodings and
    /// layouts of the inputs: the kernel may then be prepared while the nodes behind it are planned. Codes of constants may
    /// still be missing.
    fn arrangement(&self, _facts: &Facts<'_>, _layouts: &[Layout]) -> Option<Arrangement> {
        None
    }

    /// Freezes the rule's arithmetic for these encodings and shapes. `env` is what [`IntegerOp::environment`] gave for
    /// them.
    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>, env: Env) -> Result<Prepared>;
}

/// Whether an operator computes each element from the one element of its first input, and from constants.
pub fn is_unary(op_type: &str) -> bool {
    elementwise::arity(op_type).is_some_and(|names| names.len() == 1)
}

/// Whether a node only moves codes, after its operands came into the output's encoding: by its rule's program where it has
/// one.
pub fn moves(op_type: &str, action: &Action) -> bool {
    match action {
        Action::Move => true,
        Action::Program { .. } => movement::is_movement(op_type),
        _ => false,
    }
}

/// The integer form of an operator, where it has one.
pub fn find(domain: &str, op_type: &str) -> Option<&'static dyn IntegerOp> {
    if !matches!(domain, "" | "ai.onnx" | "nputwin") {
        return None;
    }
    Some(match op_type {
        "Conv" => &mac::Conv,
        "ConvTranspose" => &mac::ConvTranspose,
        "Gemm" => &mac::Gemm,
        "MatMul" => &mac::MatMul,
        "AveragePool" | "GlobalAveragePool" | "ReduceMean" | "ReduceSum" => &window::Window,
        "Softmax" | "LogSoftmax" | "LpNormalization" | "LayerNormalization" => &row::Row,
        _ if movement::is_movement(op_type) => &movement::Movement,
        _ if elementwise::arity(op_type).is_some() => &elementwise::Elementwise,
        _ => return None,
    })
}
