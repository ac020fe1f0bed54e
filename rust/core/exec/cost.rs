//! What a model costs: multiply-accumulates, parameters and memory.

use super::session::Session;
use crate::error::Result;
use crate::graph::{Graph, Node, TensorId};
use crate::tensor::DType;
use serde::Serialize;
use std::collections::HashMap;

/// Type and shape of a tensor, by name.
pub type Shapes = HashMap<String, (DType, Vec<usize>)>;

/// The cost of one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeCost {
    /// Node name.
    pub name: String,
    /// ONNX operator.
    pub op_type: String,
    /// Multiply-accumulates; 0 for operators that are neither convolutions nor matrix products.
    pub macs: u64,
    /// Elements of the first output.
    pub output_elements: u64,
}

/// The cost of a model for one set of input shapes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Nodes in order.
    pub nodes: Vec<NodeCost>,
    /// Elements of all constants with a float type.
    pub parameters: u64,
    /// Bytes of these constants in the graph's types.
    pub weight_bytes: u64,
    /// Bytes of these constants where quantized ones take the bits of their encoding.
    pub quantized_weight_bytes: u64,
    /// Largest sum of the bytes of values that live at one time, quantized ones as codes.
    pub peak_activation_bytes: u64,
}

/// The cost of a session's graph (after placement) for inputs of these shapes.
///
/// # Errors
/// Those of planning the graph.
pub fn of_session(session: &Session, shapes: Vec<Vec<usize>>) -> Result<Cost> {
    let shapes = session.shapes(shapes)?;
    Ok(of_graph(session.graph(), &shapes))
}

/// The cost of a graph whose tensors have these shapes.
pub fn of_graph(graph: &Graph, shapes: &Shapes) -> Cost {
    let shape = |t: Option<TensorId>| t.and_then(|t| shapes.get(&graph.tensors[t].name)).map(|(_, s)| s.as_slice());
    let nodes = graph
        .nodes
        .iter()
        .map(|node| {
            let output = shape(node.outputs.first().copied().flatten()).unwrap_or_default();
            let operands: Vec<Option<&[usize]>> = node.inputs.iter().map(|t| shape(*t)).collect();
            NodeCost {
                name: node.name.clone(),
                op_type: node.op_type.clone(),
                macs: macs(node, &operands, output).unwrap_or(0),
                output_elements: product(output),
            }
        })
        .collect();
    let constants = graph.tensors.iter().filter_map(|t| Some((t, t.constant.as_ref()?)));
    let constants: Vec<_> = constants.filter(|(_, c)| c.dtype().is_float()).collect();
    let quantized = constants.iter().map(|(info, c)| match &info.encoding {
        Some(encoding) => (c.len() as u64 * u64::from(encoding.bitwidth)).div_ceil(8),
        None => (c.len() * c.dtype().size()) as u64,
    });
    Cost {
        nodes,
        parameters: constants.iter().map(|(_, c)| c.len() as u64).sum(),
        weight_bytes: constants.iter().map(|(_, c)| (c.len() * c.dtype().size()) as u64).sum(),
        quantized_weight_bytes: quantized.sum(),
        peak_activation_bytes: peak(graph, shapes),
    }
}

fn product(shape: &[usize]) -> u64 {
    shape.iter().map(|&d| d as u64).product()
}

/// Multiply-accumulates of a node, from the shapes of its inputs and output.
fn macs(node: &Node, inputs: &[Option<&[usize]>], output: &[usize]) -> Option<u64> {
    let operand = |i: usize| inputs.get(i).copied().flatten();
    match node.op_type.as_str() {
        // Weights are [outputs, inputs per group, kernel…].
        "Conv" => Some(product(output) * product(operand(1)?.get(1..)?)),
        // Weights are [inputs, outputs per group, kernel…].
        "ConvTranspose" => Some(product(operand(0)?) * product(operand(1)?.get(1..)?)),
        "Gemm" => {
            let transposed = node.int("transA", 0).ok()? != 0;
            let depth = operand(0)?.get(usize::from(!transposed))?;
            Some(product(output) * *depth as u64)
        }
        "MatMul" => Some(product(output) * *operand(0)?.last()? as u64),
        _ => None,
    }
}

/// Largest sum of the bytes of values between their producer and their last reader.
fn peak(graph: &Graph, shapes: &Shapes) -> u64 {
    let bytes = |t: TensorId| {
        let info = &graph.tensors[t];
        if info.constant.is_some() {
            return 0;
        }
        let Some((dtype, shape)) = shapes.get(&info.name) else { return 0 };
        let size = info.encoding.as_ref().map_or(dtype.size(), |e| e.storage_dtype().size());
        product(shape) * size as u64
    };
    let mut last_reader = vec![0; graph.tensors.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().chain(&node.outputs).flatten().for_each(|&t| last_reader[t] = n);
    }
    graph.outputs.iter().for_each(|p| last_reader[p.tensor] = usize::MAX);
    let mut live: u64 = graph.inputs.iter().map(|p| bytes(p.tensor)).sum();
    let mut peak = live;
    for (n, node) in graph.nodes.iter().enumerate() {
        live += node.outputs.iter().flatten().map(|&t| bytes(t)).sum::<u64>();
        peak = peak.max(live);
        let mut ended: Vec<TensorId> =
            node.inputs.iter().chain(&node.outputs).flatten().copied().filter(|&t| last_reader[t] == n).collect();
        ended.sort_unstable();
        ended.dedup();
        live -= ended.into_iter().map(bytes).sum::<u64>();
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Port, TensorInfo};
    use crate::tensor::Tensor;

    #[test]
    fn a_convolution_and_a_product_are_counted() {
        let node = |op_type: &str| Node { op_type: op_type.into(), ..Node::default() };
        let (x, w): (&[usize], &[usize]) = (&[1, 4, 8, 8], &[6, 2, 3, 3]);
        assert_eq!(macs(&node("Conv"), &[Some(x), Some(w)], &[1, 6, 8, 8]), Some(6 * 64 * 18));
        assert_eq!(macs(&node("ConvTranspose"), &[Some(x), Some(&[4, 6, 2, 2])], &[1, 6, 16, 16]), Some(256 * 24));
        assert_eq!(macs(&node("Gemm"), &[Some(&[3, 5]), Some(&[5, 7])], &[3, 7]), Some(105));
        assert_eq!(macs(&node("MatMul"), &[Some(&[2, 3, 5]), Some(&[5, 7])], &[2, 3, 7]), Some(210));
        assert_eq!(macs(&node("Relu"), &[Some(x)], x), None);
    }

    #[test]
    fn memory_is_what_lives_at_one_time() {
        let mut graph = Graph::default();
        let ids: Vec<TensorId> = ["x", "a", "b", "y"]
            .map(|name| graph.add_tensor(TensorInfo { name: name.into(), ..TensorInfo::default() }))
            .to_vec();
        let w = graph.add_tensor(TensorInfo {
            name: "w".into(),
            constant: Some(Tensor::f32(&[3], vec![0.0; 3]).into()),
            ..TensorInfo::default()
        });
        for (from, to) in [(0, 1), (1, 2), (2, 3)] {
            graph.nodes.push(Node {
                inputs: vec![Some(ids[from]), Some(w)],
                outputs: vec![Some(ids[to])],
                ..Node::default()
            });
        }
        graph.inputs = vec![Port { name: "x".into(), tensor: ids[0], quantized: false }];
        graph.outputs = vec![Port { name: "y".into(), tensor: ids[3], quantized: false }];
        let shapes = [("x", 10), ("a", 100), ("b", 20), ("y", 1)];
        let shapes = shapes.iter().map(|(n, c)| (n.to_string(), (DType::F32, vec![*c]))).collect();
        let cost = of_graph(&graph, &shapes);
        assert_eq!(cost.peak_activation_bytes, 4 * 120);
        assert_eq!((cost.parameters, cost.weight_bytes), (3, 12));
    }
}
