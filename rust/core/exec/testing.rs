//! Small graphs for tests.

use crate::graph::{Attribute, Constant, Graph, Node, Port, TensorId, TensorInfo};
use crate::tensor::{DType, Tensor};
use std::collections::BTreeMap;

/// A graph that grows by names.
pub struct Builder(pub Graph);

impl Builder {
    pub fn new() -> Builder {
        Builder(Graph { opsets: BTreeMap::from([(String::new(), 17)]), ..Graph::default() })
    }

    pub fn tensor(&mut self, name: &str, constant: Option<Tensor>) -> TensorId {
        let found = self.0.find(name);
        found.unwrap_or_else(|| {
            self.0.add_tensor(TensorInfo {
                name: name.into(),
                dtype: Some(DType::F32),
                constant: constant.map(Constant::from),
                ..TensorInfo::default()
            })
        })
    }

    /// A constant of ones.
    pub fn constant(&mut self, name: &str, shape: &[usize]) -> &mut Builder {
        let ones = vec![1.0; shape.iter().product()];
        self.tensor(name, Some(Tensor::f32(shape, ones)));
        self
    }

    /// An operator whose only output names it.
    pub fn node(&mut self, op_type: &str, inputs: &[&str], output: &str) -> &mut Builder {
        let inputs = inputs.iter().map(|n| Some(self.tensor(n, None))).collect();
        let outputs = vec![Some(self.tensor(output, None))];
        self.0.nodes.push(Node {
            name: output.into(),
            op_type: op_type.into(),
            inputs,
            outputs,
            attributes: BTreeMap::new(),
            ..Node::default()
        });
        self
    }

    /// An attribute of the latest node.
    pub fn attribute(&mut self, name: &str, value: i64) -> &mut Builder {
        let node = self.0.nodes.last_mut().expect("there is a node");
        node.attributes.insert(name.into(), Attribute::Int(value));
        self
    }

    fn port(&mut self, name: &str) -> Port {
        Port { name: name.into(), tensor: self.tensor(name, None), quantized: false }
    }

    /// The graph with these ends.
    pub fn graph(&mut self, inputs: &[&str], outputs: &[&str]) -> Graph {
        self.0.inputs = inputs.iter().map(|n| self.port(n)).collect();
        self.0.outputs = outputs.iter().map(|n| self.port(n)).collect();
        self.0.clone()
    }
}
