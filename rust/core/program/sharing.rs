//! Which nodes have the value of an earlier one.

use super::graph::{NodeId, Op};
use super::types::{Type, Value};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are ids, small enums and names of a program.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Operation, type of the result, the first three operands, and the rest where there is one.
type Key = (Op, Type, (NodeId, NodeId, NodeId), Option<Vec<NodeId>>);

/// The nodes so far by what they compute.
#[derive(Debug)]
pub(super) struct Sharing {
    operations: Map<Key, NodeId>,
    /// Leaves of one number by type and bits.
    numbers: Map<(Type, u128), NodeId>,
    /// For every node the first of the same value, as far as that is known.
    firsts: Vec<NodeId>,
}

impl Sharing {
    /// For about so many nodes.
    pub fn with_capacity(nodes: usize) -> Sharing {
        Sharing {
            operations: Map::with_capacity_and_hasher(nodes / 2, BuildHasherDefault::default()),
            numbers: Map::with_capacity_and_hasher(nodes / 4, BuildHasherDefault::default()),
            firsts: Vec::with_capacity(nodes),
        }
    }

    /// The first node of the same value.
    pub fn first(&self, id: NodeId) -> NodeId {
        self.firsts.get(id).copied().unwrap_or(id)
    }

    /// Notes that `id` has the value of the earlier node `first`.
    pub fn alias(&mut self, id: NodeId, first: NodeId) {
        let known = self.firsts.len();
        self.firsts.extend(known..id + 1);
        self.firsts[id] = self.first(first);
    }

    /// Notes a leaf of one number for all channels.
    pub fn number(&mut self, id: NodeId, ty: Type, value: Value) {
        let bits = match value {
            Value::Int(v) => v as u128,
            Value::Bool(v) => v.into(),
            float => float.as_float().unwrap_or_default().to_bits().into(),
        };
        let first = *self.numbers.entry((ty, bits)).or_insert(id);
        self.alias(id, first);
    }

    /// The node that computes an operation, or else `next`, which will. Operands of constants count by their values.
    pub fn operation(&mut self, op: Op, ty: Type, args: &[NodeId], constant: bool, next: NodeId) -> NodeId {
        let operand = |&id: &NodeId| if constant { self.first(id) } else { id };
        let at = |i: usize| args.get(i).map_or(NodeId::MAX, operand);
        let rest = args.get(3..).filter(|rest| !rest.is_empty()).map(|rest| rest.iter().map(operand).collect());
        *self.operations.entry((op, ty, (at(0), at(1), at(2)), rest)).or_insert(next)
    }
}

/// A hash for keys that nobody chooses to collide: rotate, combine, multiply.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mixer(u64);

impl Mixer {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            self.add(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, v: u8) {
        self.add(v.into());
    }

    fn write_u32(&mut self, v: u32) {
        self.add(v.into());
    }

    fn write_usize(&mut self, v: usize) {
        self.add(v as u64);
    }

    /// The high bits are the good ones; maps look at both ends.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}
