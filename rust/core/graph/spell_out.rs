//! Writing out in nodes what the graph says in marks: fused activations, and images whose channels come last outside.

use super::{Attribute, Clamp, Graph, Node, Port, TensorId, TensorInfo, qdq};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};

impl Graph {
    /// The same graph in ONNX's operators alone. A fused activation becomes a Relu or Clip behind its node, whose own result
    /// has no encoding; an input or output that the outside sees as `N H W C` gets a Transpose, and the name that it had: the
    /// image between is called `…_channels_first`.
    ///
    /// # Errors
    /// `write_clamp` for activations that are known as bounds on codes only.
    pub fn spelled_out(&self) -> Result<Graph> {
        let mut out = SpellOut {
            names: self.tensors.iter().flat_map(|t| std::iter::once(&t.name).chain(&t.aliases)).cloned().collect(),
            outer: HashMap::new(),
            graph: Graph { nodes: Vec::new(), ..self.clone() },
        };
        for i in 0..self.inputs.len() {
            out.input(i);
        }
        for node in &self.nodes {
            out.node(node)?;
        }
        for i in 0..self.outputs.len() {
            out.output(i);
        }
        out.graph.tensors.iter_mut().for_each(|t| t.channels_last = false);
        Ok(out.graph)
    }

    /// The float graph alone.
    ///
    /// # Errors
    /// `write_clamp` as for [`Graph::spelled_out`].
    pub fn without_encodings(&self) -> Result<Graph> {
        let mut bare = self.clone();
        if let Some(node) = bare.nodes.iter().find(|n| n.code_clamp.is_some()) {
            return Err(clamp_of_codes(node));
        }
        for info in &mut bare.tensors {
            info.encoding = None;
            info.codes = None;
        }
        for port in bare.inputs.iter_mut().chain(&mut bare.outputs) {
            port.quantized = false;
        }
        Ok(bare)
    }
}

fn clamp_of_codes(node: &Node) -> Error {
    Error::unsupported("write_clamp", "the node's activation is known as bounds on codes only")
        .at_node(&node.name, &node.op_type)
        .help("start from the float model")
}

struct SpellOut {
    names: HashSet<String>,
    /// For each image that the outside sees with its channels last, the tensor that has them so.
    outer: HashMap<TensorId, TensorId>,
    graph: Graph,
}

impl SpellOut {
    fn fresh(&mut self, wanted: String) -> String {
        super::fresh_name(&mut self.names, wanted)
    }

    /// The tensor with its channels last that takes over name and place of `t` outside.
    fn outside(&mut self, t: TensorId) -> TensorId {
        let inner = self.graph.tensors[t].name.clone();
        let inner = self.fresh(format!("{inner}_channels_first"));
        let info = &mut self.graph.tensors[t];
        let outer = TensorInfo { shape: info.outer_shape(), constant: None, codes: None, ..info.clone() };
        info.name = inner;
        info.aliases.clear();
        let id = self.graph.add_tensor(outer);
        self.outer.insert(t, id);
        id
    }

    fn turn(&mut self, from: TensorId, to: TensorId, order: [i64; 4]) {
        self.graph.nodes.push(Node {
            name: self.graph.tensors[to].name.clone(),
            op_type: "Transpose".into(),
            inputs: vec![Some(from)],
            outputs: vec![Some(to)],
            attributes: [("perm".to_string(), Attribute::Ints(order.to_vec()))].into(),
            ..Node::default()
        });
    }

    fn input(&mut self, i: usize) {
        let t = self.graph.inputs[i].tensor;
        if self.graph.tensors[t].channels_last {
            let outer = self.outside(t);
            self.turn(outer, t, [0, 3, 1, 2]);
            self.graph.inputs[i].tensor = outer;
        }
    }

    fn output(&mut self, i: usize) {
        let Port { tensor: t, .. } = self.graph.outputs[i];
        if self.graph.tensors[t].channels_last {
            let outer = match self.outer.get(&t) {
                Some(&outer) => outer,
                None => {
                    let outer = self.outside(t);
                    self.turn(t, outer, [0, 2, 3, 1]);
                    outer
                }
            };
            self.graph.outputs[i].tensor = outer;
        }
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        if node.code_clamp.is_some() {
            return Err(clamp_of_codes(node));
        }
        let mut node = node.clone();
        let lacks = |t: &Option<TensorId>| t.is_some_and(|t| self.graph.tensors[t].encoding.is_none());
        if qdq::only_quantizes(&node) && node.outputs.iter().all(lacks) {
            node.domain.clear();
        }
        let (Some(clamp), Some(Some(y))) = (node.clamp.take(), node.outputs.first().copied()) else {
            self.graph.nodes.push(node);
            return Ok(());
        };
        let shape = self.graph.tensors[y].shape.clone();
        let dtype = self.graph.tensors[y].dtype;
        let name = self.graph.tensors[y].name.clone();
        let name = self.fresh(format!("{name}_unclamped"));
        let raw = self.graph.add_tensor(TensorInfo { name, dtype, shape, ..TensorInfo::default() });
        node.outputs[0] = Some(raw);
        let activation = self.activation(&node.name, clamp, raw, y);
        self.graph.nodes.extend([node, activation]);
        Ok(())
    }

    fn activation(&mut self, name: &str, Clamp { lo, hi }: Clamp, from: TensorId, to: TensorId) -> Node {
        let mut inputs = vec![Some(from)];
        let relu = lo == 0.0 && hi == f32::INFINITY;
        if !relu {
            for (what, bound) in [("min", lo), ("max", hi)] {
                inputs.push(bound.is_finite().then(|| {
                    let name = self.fresh(format!("{name}_{what}"));
                    let constant = Some(Tensor::f32(&[], vec![bound]).into());
                    self.graph.add_tensor(TensorInfo {
                        name,
                        dtype: Some(DType::F32),
                        constant,
                        ..TensorInfo::default()
                    })
                }));
            }
        }
        let op_type = if relu { "Relu" } else { "Clip" };
        let name = self.fresh(format!("{name}_{}", op_type.to_lowercase()));
        Node { name, op_type: op_type.into(), inputs, outputs: vec![Some(to)], ..Node::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dim;
    use super::*;

    #[test]
    fn marks_become_nodes() {
        let mut graph = Graph::default();
        let image = |name: &str| TensorInfo {
            name: name.into(),
            shape: Some([1, 3, 4, 5].map(Dim::Fixed).to_vec()),
            channels_last: true,
            aliases: vec![format!("{name}_alias")],
            ..TensorInfo::default()
        };
        let (x, y) = (graph.add_tensor(image("x")), graph.add_tensor(image("y")));
        graph.inputs.push(Port { name: "x".into(), tensor: x, quantized: false });
        graph.outputs.push(Port { name: "y".into(), tensor: y, quantized: false });
        graph.outputs.push(Port { name: "again".into(), tensor: x, quantized: false });
        let clamp = Some(Clamp { lo: 0.0, hi: 6.0 });
        graph.nodes.push(Node {
            name: "n".into(),
            op_type: "Exp".into(),
            inputs: vec![Some(x)],
            outputs: vec![Some(y)],
            clamp,
            ..Node::default()
        });
        let out = graph.spelled_out().unwrap();
        out.validate().unwrap();
        let steps: Vec<_> = out.nodes.iter().map(|n| n.op_type.as_str()).collect();
        assert_eq!(steps, ["Transpose", "Exp", "Clip", "Transpose"]);
        let named = |t: TensorId| (out.tensors[t].name.as_str(), out.tensors[t].shape.clone().unwrap());
        let outside = [1, 4, 5, 3].map(Dim::Fixed).to_vec();
        assert_eq!(named(out.inputs[0].tensor), ("x", outside.clone()));
        assert_eq!(named(out.outputs[0].tensor), ("y", outside.clone()));
        assert_eq!(named(out.outputs[1].tensor), ("x", outside));
        assert!(out.find("x_alias") == Some(out.inputs[0].tensor) && out.tensors.iter().all(|t| !t.channels_last));
        assert!(out.nodes.iter().all(|n| n.clamp.is_none()) && out.find("y_channels_first").is_some());
        graph.nodes[0].code_clamp = Some((0, 1));
        assert_eq!(graph.spelled_out().unwrap_err().code(), "write_clamp");
        assert_eq!(graph.without_encodings().unwrap_err().code(), "write_clamp");
    }
}
