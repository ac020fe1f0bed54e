//! The typed program: one node per operation, arguments before users.

use super::column::Column;
use super::syntax::Site;
use super::types::{Datum, Interval, Rate, Type, Value};
use crate::error::Result;
use crate::num::{FloatType, Rounding};
use smallvec::SmallVec;
use std::borrow::Cow;

pub(super) type NodeId = usize;

/// Operands of a node, few of which have more than these.
pub(super) type Args = SmallVec<[NodeId; 3]>;

/// A constant per channel, or the error that computing it gave. An error counts only where its value is used, so
/// that `select` and `&&` guard what they do not choose.
pub(super) type Cell = Result<Datum>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Comparison {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

/// Functions that are computed in f64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Math {
    Exp,
    Exp2,
    Expm1,
    Log,
    Log2,
    Log1p,
    Sqrt,
    Rsqrt,
    Cbrt,
    Sin,
    Cos,
    Tan,
    Atan,
    Tanh,
    Erf,
    Sigmoid,
    Pow,
}

impl Math {
    pub const ALL: [(&'static str, Math); 17] = [
        ("exp", Math::Exp),
        ("exp2", Math::Exp2),
        ("expm1", Math::Expm1),
        ("log", Math::Log),
        ("log2", Math::Log2),
        ("log1p", Math::Log1p),
        ("sqrt", Math::Sqrt),
        ("rsqrt", Math::Rsqrt),
        ("cbrt", Math::Cbrt),
        ("sin", Math::Sin),
        ("cos", Math::Cos),
        ("tan", Math::Tan),
        ("atan", Math::Atan),
        ("tanh", Math::Tanh),
        ("erf", Math::Erf),
        ("sigmoid", Math::Sigmoid),
        ("pow", Math::Pow),
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// A leaf whose value is known at prepare.
    Frozen,
    /// Run-time input by position.
    Input(usize),
    /// Variable of a loop.
    Index(usize),
    Neg,
    Abs,
    Not,
    Add,
    Sub,
    Mul,
    /// Float quotient.
    Div,
    /// Integer quotient.
    DivInt(Rounding),
    /// Power of constants.
    Pow,
    Min,
    Max,
    /// `min(max(v, lo), hi)`.
    Clamp,
    Fma,
    Compare(Comparison),
    And,
    Or,
    Select,
    Shl,
    Shr(Rounding),
    Wrap {
        bits: u32,
        signed: bool,
    },
    Clz(u32),
    FloorLog2,
    At,
    Bucket,
    Sum,
    MaxAbs,
    TableMin,
    TableMax,
    Length,
    ToFloat(FloatType),
    ToInt(Rounding),
    Round(Rounding),
    Significant(Rounding),
    Mantissa,
    Exponent,
    Ldexp,
    Math(Math),
    /// The list of its arguments.
    List,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub op: Op,
    pub args: Args,
    pub ty: Type,
    pub rate: Rate,
    /// What values the node can have, where [`Node::range`] does not look at them.
    pub proven: Interval,
    /// The values of const and channel rate.
    pub frozen: Option<Column>,
    /// The number as written, for real literals.
    pub literal: Option<String>,
    /// Name that a `let` or statement gave to the value.
    pub name: Option<String>,
    pub site: Site,
}

impl Node {
    /// The frozen value of a channel, where it is kept.
    pub fn cell(&self, channel: usize) -> Option<Cow<'_, Cell>> {
        self.frozen.as_ref()?.cell(channel)
    }

    /// An interval that holds all values. Columns of one type are looked at when somebody asks, which few do.
    pub fn range(&self) -> Interval {
        self.frozen.as_ref().filter(|column| column.is_typed()).map_or(self.proven, Column::range)
    }

    /// The value that a frozen node has in all channels.
    pub fn uniform(&self) -> Option<Value> {
        self.frozen.as_ref()?.uniform()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    pub nodes: Vec<Node>,
}

impl Graph {
    /// Drops values per channel that only traces and datasheets show, which compute them again: those that neither the
    /// run-time nodes `order` nor `result` read. Also gives back what memory the nodes do not need.
    pub fn forget(&mut self, order: &[NodeId], result: NodeId) {
        let mut read = vec![false; self.nodes.len()];
        read[result] = true;
        order.iter().flat_map(|&id| &self.nodes[id].args).for_each(|&arg| read[arg] = true);
        for (node, read) in self.nodes.iter_mut().zip(read) {
            let per_channel = node.frozen.as_ref().is_some_and(|column| column.len() > 1);
            if per_channel && !read && !node.args.is_empty() {
                node.frozen = Some(Column::Forgotten);
            }
        }
        self.nodes.shrink_to_fit();
    }

    /// Nodes that `result` needs, in order; frozen nodes only where `with_frozen`.
    pub fn reachable(&self, result: NodeId, with_frozen: bool) -> Vec<NodeId> {
        let counts = |id: NodeId| with_frozen || self.nodes[id].frozen.is_none();
        self.needed(result, |id| !counts(id)).into_iter().filter(|&id| counts(id)).collect()
    }

    /// Nodes that `result` needs, in order; of a leaf none of the operands.
    pub fn needed(&self, result: NodeId, is_leaf: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let mut wanted = vec![false; result + 1];
        wanted[result] = true;
        for id in (0..=result).rev() {
            if wanted[id] && !is_leaf(id) {
                self.nodes[id].args.iter().for_each(|&arg| wanted[arg] = true);
            }
        }
        (0..=result).filter(|&id| wanted[id]).collect()
    }
}
