//! Order and invariants of a graph.

use super::{Graph, TensorId};
use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

impl Graph {
    /// Puts the nodes into topological order. Among nodes that are ready, the one that stood first goes first.
    pub fn sort(&mut self) -> Result<()> {
        let producers = self.producers();
        let mut readers = vec![Vec::new(); self.nodes.len()];
        let mut missing = vec![0usize; self.nodes.len()];
        for (n, node) in self.nodes.iter().enumerate() {
            for producer in node.inputs.iter().flatten().filter_map(|&t| producers[t]) {
                readers[producer].push(n);
                missing[n] += 1;
            }
        }
        let mut ready: BinaryHeap<_> = (0..self.nodes.len()).filter(|&n| missing[n] == 0).map(Reverse).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(Reverse(n)) = ready.pop() {
            order.push(n);
            for &reader in &readers[n] {
                missing[reader] -= 1;
                if missing[reader] == 0 {
                    ready.push(Reverse(reader));
                }
            }
        }
        if let Some(n) = (0..self.nodes.len()).find(|&n| missing[n] > 0) {
            let node = &self.nodes[n];
            return Err(Error::invalid("graph_cycle", "the graph has a cycle: this node waits for its own output")
                .at_node(&node.name, &node.op_type));
        }
        let mut nodes: Vec<_> = std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        self.nodes = order.into_iter().filter_map(|n| nodes[n].take()).collect();
        Ok(())
    }

    /// Removes tensors that no node and no port names, and renumbers the rest in their order.
    pub fn remove_unused_tensors(&mut self) {
        let mut used = vec![false; self.tensors.len()];
        let ports = self.inputs.iter().chain(&self.outputs).map(|p| p.tensor);
        let operands = self.nodes.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs).flatten().copied());
        for t in ports.chain(operands) {
            used[t] = true;
        }
        let mut next = 0;
        let renumbered: Vec<TensorId> = used
            .iter()
            .map(|&u| {
                next += usize::from(u);
                next.saturating_sub(1)
            })
            .collect();
        let mut keep = used.iter();
        self.tensors.retain(|_| keep.next().copied().unwrap_or(false));
        for port in self.inputs.iter_mut().chain(&mut self.outputs) {
            port.tensor = renumbered[port.tensor];
        }
        for t in self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().chain(&mut n.outputs).flatten()) {
            *t = renumbered[*t];
        }
    }

    /// Checks what every graph must fulfil: ids in range, one writer per tensor, topological order, no reader without a
    /// writer, unique names of tensors and ports, encodings that fit their tensors, codes as many as reals.
    pub fn validate(&self) -> Result<()> {
        let broken = |message: String| Error::invalid("graph", message);
        let in_range = |t: TensorId| {
            if t < self.tensors.len() { Ok(t) } else { Err(broken(format!("tensor {t} does not exist"))) }
        };
        let mut names = BTreeSet::new();
        for info in &self.tensors {
            for name in std::iter::once(&info.name).chain(&info.aliases) {
                if name.is_empty() || !names.insert(name) {
                    return Err(broken(format!("the tensor name '{name}' is empty or not unique")));
                }
            }
        }
        let mut written = vec![false; self.tensors.len()];
        for (t, info) in self.tensors.iter().enumerate() {
            written[t] = info.constant.is_some();
            if let (Some(codes), constant) = (&info.codes, &info.constant)
                && constant.as_ref().is_none_or(|c| c.shape() != codes.shape())
            {
                return Err(broken("integers without reals of the same shape".into()).at_tensor(&info.name));
            }
            if info.codes.is_some() && info.encoding.is_none() {
                return Err(broken("integers without an encoding".into()).at_tensor(&info.name));
            }
            if let Some(encoding) = &info.encoding {
                encoding.validate().map_err(|e| e.at_tensor(&info.name))?;
                if let Some(constant) = &info.constant {
                    super::parameters::check_shape(encoding, constant.shape()).map_err(|e| e.at_tensor(&info.name))?;
                }
            }
        }
        let mut ports = BTreeSet::new();
        for port in &self.inputs {
            written[in_range(port.tensor)?] = true;
            if !ports.insert(&port.name) {
                return Err(broken(format!("two inputs are called '{}'", port.name)));
            }
        }
        for node in &self.nodes {
            let here = |e: Error| e.at_node(&node.name, &node.op_type);
            for &t in node.inputs.iter().flatten() {
                if !written[in_range(t).map_err(here)?] {
                    let name = &self.tensors[t].name;
                    return Err(here(broken(format!("'{name}' is read before it is written"))));
                }
            }
            for &t in node.outputs.iter().flatten() {
                if std::mem::replace(&mut written[in_range(t).map_err(here)?], true) {
                    return Err(here(broken(format!("'{}' is written twice", self.tensors[t].name))));
                }
            }
        }
        let mut ports = BTreeSet::new();
        for port in &self.outputs {
            if !written[in_range(port.tensor)?] {
                return Err(broken(format!("nothing computes output '{}'", port.name)));
            }
            if !ports.insert(&port.name) {
                return Err(broken(format!("two outputs are called '{}'", port.name)));
            }
        }
        if let Some(port) =
            self.inputs.iter().chain(&self.outputs).find(|p| p.quantized && self.tensors[p.tensor].encoding.is_none())
        {
            return Err(broken(format!("port '{}' is quantized, its tensor has no encoding", port.name)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Node, Port, TensorInfo};
    use super::*;

    fn chain(pairs: &[(usize, usize)]) -> Graph {
        let mut graph = Graph::default();
        for i in 0..5 {
            graph.add_tensor(TensorInfo { name: format!("t{i}"), ..TensorInfo::default() });
        }
        for &(from, to) in pairs {
            graph.nodes.push(Node {
                name: format!("{from}{to}"),
                inputs: vec![Some(from)],
                outputs: vec![Some(to)],
                ..Node::default()
            });
        }
        graph.inputs.push(Port { name: "t0".into(), tensor: 0, quantized: false });
        graph
    }

    #[test]
    fn sorting_is_stable_and_finds_cycles() {
        let mut graph = chain(&[(1, 2), (0, 1), (0, 4), (2, 3)]);
        graph.sort().unwrap();
        let names: Vec<_> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["01", "12", "04", "23"]);
        graph.validate().unwrap();
        let error = chain(&[(0, 1), (2, 3), (3, 2)]).sort().unwrap_err();
        assert_eq!((error.code(), error.to_string().contains("'23'")), ("graph_cycle", true));
    }

    #[test]
    fn broken_graphs_are_found() {
        assert!(chain(&[(1, 2)]).validate().unwrap_err().message().contains("before it is written"));
        assert!(chain(&[(0, 1), (0, 1)]).validate().unwrap_err().message().contains("written twice"));
        let mut graph = chain(&[(0, 1)]);
        graph.tensors[1].aliases.push("t0".into());
        assert!(graph.validate().unwrap_err().message().contains("not unique"));
        let mut graph = chain(&[(0, 1)]);
        graph.inputs[0].quantized = true;
        assert!(graph.validate().unwrap_err().message().contains("no encoding"));
        let mut graph = chain(&[(0, 1)]);
        graph.outputs.push(Port { name: "y".into(), tensor: 9, quantized: false });
        assert!(graph.validate().unwrap_err().message().contains("does not exist"));
    }

    #[test]
    fn unused_tensors_go() {
        let mut graph = chain(&[(0, 3)]);
        graph.remove_unused_tensors();
        let names: Vec<_> = graph.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!((names, graph.nodes[0].outputs[0]), (vec!["t0", "t3"], Some(1)));
    }
}
