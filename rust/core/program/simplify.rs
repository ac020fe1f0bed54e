//! Operations that change nothing: shifts by zero, saturation of what is in range, and the like.

use super::graph::{Graph, NodeId, Op};
use super::types::{Type, Value};

/// For every node, the earlier node that has the same value, or the node itself. Frozen nodes stand for themselves.
pub(super) fn aliases(graph: &Graph) -> Vec<NodeId> {
    let mut alias: Vec<NodeId> = (0..graph.nodes.len()).collect();
    for (id, node) in graph.nodes.iter().enumerate() {
        if node.frozen.is_some() || node.args.is_empty() || node.ty != Type::Int {
            continue;
        }
        let range = |i: usize| graph.nodes[node.args[i]].range().int();
        let always = |i: usize, wanted: i128| graph.nodes[node.args[i]].uniform() == Some(Value::Int(wanted));
        let same = match node.op {
            Op::Shl | Op::Shr(_) | Op::Sub if always(1, 0) => Some(0),
            Op::DivInt(_) | Op::Mul if always(1, 1) => Some(0),
            Op::Mul if always(0, 1) => Some(1),
            Op::Add if always(1, 0) => Some(0),
            Op::Add if always(0, 0) => Some(1),
            Op::Clamp if range(1).1 <= range(0).0 && range(0).1 <= range(2).0 => Some(0),
            Op::Wrap { bits, signed } => {
                let (lo, hi) = super::interval::type_range(bits, signed);
                (range(0).0 >= lo && range(0).1 <= hi).then_some(0)
            }
            Op::Min if range(0).1 <= range(1).0 => Some(0),
            Op::Min if range(1).1 <= range(0).0 => Some(1),
            Op::Max if range(0).0 >= range(1).1 => Some(0),
            Op::Max if range(1).0 >= range(0).1 => Some(1),
            Op::Abs if range(0).0 >= 0 => Some(0),
            _ => None,
        };
        if let Some(argument) = same {
            alias[id] = alias[node.args[argument]];
        }
    }
    alias
}
