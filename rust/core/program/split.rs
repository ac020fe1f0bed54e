//! Programs of two operands that meet in one operation.

use super::env::{Input, InputKind};
use super::graph::{Args, Graph, NodeId, Op};
use super::simplify::aliases;
use super::types::{Rate, Type};
use super::{Compiled, Evaluator};

/// How two integers meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// The sum.
    Sum,
    /// The first less the second.
    Difference,
    /// The product.
    Product,
}

/// `after(meeting(parts[0](a), parts[1](b)))`, where `a` and `b` are the two inputs of a program. All three programs have one
/// integer input; what the parts and the meeting give fits 32 bits.
#[derive(Debug, Clone)]
pub struct Split {
    /// The operation in the middle.
    pub meeting: Meeting,
    /// What becomes of each input before it.
    pub parts: [Compiled; 2],
    /// What becomes of its result.
    pub after: Compiled,
}

/// Which of the inputs a value depends on, as a set of bits.
const BOTH: u8 = 0b11;

impl Compiled {
    /// The program taken apart at the one operation in which its two inputs meet. None where they meet in several, or in
    /// another operation, and where the program is not to be computed by vector code.
    pub fn split(&self) -> Option<Split> {
        if self.inputs.len() != 2 || self.channels != 1 || self.evaluator() != Evaluator::Fast {
            return None;
        }
        let alias = aliases(&self.graph);
        let result = alias[self.result];
        let depends = self.dependencies(&alias);
        let args = |id: NodeId| self.graph.nodes[id].args.iter().map(|&arg| alias[arg]);
        // Only nodes that the result needs count.
        let mut wanted = vec![false; self.graph.nodes.len()];
        wanted[result] = true;
        for id in (0..=result).rev().filter(|&id| depends[id] != 0) {
            if wanted[id] {
                args(id).for_each(|arg| wanted[arg] = true);
            }
        }
        let meets =
            |id: &NodeId| wanted[*id] && depends[*id] == BOTH && args(*id).any(|arg| matches!(depends[arg], 1 | 2));
        let mut meetings = (0..=result).filter(meets);
        let (Some(at), None) = (meetings.next(), meetings.next()) else { return None };
        let (left, right) = (args(at).next()?, args(at).nth(1)?);
        let swapped = match (depends[left], depends[right]) {
            (1, 2) => false,
            (2, 1) => true,
            _ => return None,
        };
        let narrow = |id: NodeId| self.graph.nodes[id].ty == Type::Int && self.graph.nodes[id].range().fits_i32();
        if ![at, left, right].into_iter().all(narrow) {
            return None;
        }
        let meeting = match self.graph.nodes[at].op {
            Op::Add => Meeting::Sum,
            Op::Mul => Meeting::Product,
            Op::Sub if !swapped => Meeting::Difference,
            _ => return None,
        };
        let (first, second) = if swapped { (right, left) } else { (left, right) };
        Some(Split { meeting, parts: [self.part(first, 0), self.part(second, 1)], after: self.after(at) })
    }

    /// For each node the inputs that it depends on.
    fn dependencies(&self, alias: &[NodeId]) -> Vec<u8> {
        let mut depends = vec![0u8; self.graph.nodes.len()];
        for (id, node) in self.graph.nodes.iter().enumerate() {
            depends[id] = match node.op {
                _ if node.frozen.is_some() => 0,
                Op::Input(i) => 1 << i,
                _ => node.args.iter().fold(0, |all, &arg| all | depends[alias[arg]]),
            };
        }
        depends
    }

    /// The program up to `result`, which depends on input `input` only.
    fn part(&self, result: NodeId, input: usize) -> Compiled {
        let at = self.graph.nodes.iter().position(|node| node.op == Op::Input(input));
        self.cut(result, at.expect("a part depends on its input"), self.inputs[input].clone())
    }

    /// The program from node `at` on, whose value becomes the input.
    fn after(&self, at: NodeId) -> Compiled {
        let (lo, hi) = self.graph.nodes[at].range().int();
        self.cut(self.result, at, Input { name: "meeting".into(), kind: InputKind::Int(lo, hi), rate: Rate::Elem })
    }

    /// The nodes that `result` needs, where node `at` is the one input.
    fn cut(&self, result: NodeId, at: NodeId, input: Input) -> Compiled {
        let nodes = &self.graph.nodes;
        let is_leaf = |id: NodeId| id == at || nodes[id].frozen.is_some();
        let mut graph = Graph::default();
        let mut place = vec![0; result + 1];
        for id in self.graph.needed(result, is_leaf) {
            place[id] = graph.nodes.len();
            let mut node = nodes[id].clone();
            if is_leaf(id) {
                (node.op, node.args) = (if id == at { Op::Input(0) } else { Op::Frozen }, Args::new());
            }
            node.args.iter_mut().for_each(|arg| *arg = place[*arg]);
            graph.nodes.push(node);
        }
        let result = graph.nodes.len() - 1;
        let order = graph.reachable(result, false);
        Compiled { graph, result, order, inputs: vec![input], source: self.source.clone(), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::super::samples::of_two_codes as compile;
    use super::*;

    #[test]
    fn parts_meeting_and_rest_are_the_program() {
        for (y, meeting) in [
            ("sat(shr(a * 1234 + b * 777 + 4096, 12, half_up), y)", Meeting::Sum),
            (
                "sat(shr(shr((b - 3) * 99991, 4, half_away) + shr((a - 7) * 50001, 5, half_even), 9, floor) + 5, y)",
                Meeting::Sum,
            ),
            ("sat(shr(a * 900 - shr(b * 800, 2, floor), 9, half_even), y)", Meeting::Difference),
            ("sat(shr((a - 17) * (b + 4) * 40000, 20, half_away) + 9, y)", Meeting::Product),
            ("t = a + b\nsat(shr(t * t, 6, half_up) - t, y)", Meeting::Sum),
        ] {
            let whole = compile(y);
            let split = whole.split().unwrap_or_else(|| panic!("{y}"));
            assert_eq!(split.meeting, meeting, "{y}");
            for a in 0..=255 {
                for b in -128..=127 {
                    let of = |p: &Compiled, v: i128| p.eval(0, &[Value::Int(v)]).unwrap().as_int().unwrap();
                    let (u, v) = (of(&split.parts[0], a), of(&split.parts[1], b));
                    let met = match meeting {
                        Meeting::Sum => u + v,
                        Meeting::Difference => u - v,
                        Meeting::Product => u * v,
                    };
                    let expected = whole.eval(0, &[Value::Int(a), Value::Int(b)]).unwrap();
                    assert_eq!(Value::Int(of(&split.after, met)), expected, "{y}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn other_programs_stay_whole() {
        for y in [
            "sat(a + b + a * b, y)",
            "sat(b - a, y)",
            "sat(max(a, b), y)",
            "sat(shr(a * 100000 * (b * 100000), 40, floor), y)",
            "sat(int(f32(a) + f32(b), half_even), y)",
            "sat(a + 3, y)",
        ] {
            assert!(compile(y).split().is_none(), "{y}");
        }
    }
}
