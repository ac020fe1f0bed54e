//! A float kernel under a fake-quantizing target reads what the codes of its weights stand for.

use nputwin::encoding::Encoding;
use nputwin::exec::{Options, Session};
use nputwin::graph::{Attribute, Graph, Node, Port, TensorInfo};
use nputwin::spec::Spec;
use nputwin::tensor::{DType, Tensor};
use std::sync::Arc;

/// `x · w` with `x` `[1, 1, …]` and the constant `w` of one element 0.7, on a grid of whole numbers.
fn output(op_type: &str, rank: usize) -> f32 {
    let shape = vec![1; rank];
    let mut graph = Graph { opsets: [(String::new(), 13)].into(), ..Graph::default() };
    let mut tensor = |name: &str, constant: Option<f32>| {
        graph.add_tensor(TensorInfo {
            name: name.into(),
            dtype: Some(DType::F32),
            constant: constant.map(|v| Tensor::f32(&shape, vec![v]).into()),
            encoding: constant.map(|_| Arc::new(Encoding::per_tensor(1.0, 0, 8, true).unwrap())),
            ..TensorInfo::default()
        })
    };
    let (x, w, y) = (tensor("x", None), tensor("w", Some(0.7)), tensor("y", None));
    let port = |name: &str, tensor| Port { name: name.into(), tensor, quantized: false };
    let mut node = Node {
        name: "n".into(),
        op_type: op_type.into(),
        inputs: vec![Some(x), Some(w)],
        outputs: vec![Some(y)],
        ..Node::default()
    };
    if op_type == "Conv" {
        node.attributes.insert("kernel_shape".into(), Attribute::Ints(vec![1; rank - 2]));
    }
    graph.nodes.push(node);
    graph.inputs.push(port("x", x));
    graph.outputs.push(port("y", y));
    let session = Session::new(graph, Spec::load("fake_quant").unwrap(), Options::default()).unwrap();
    let input = Tensor::f32(&shape, vec![3.0]);
    session.run(&[("x", &input)]).unwrap().outputs[0].1.as_f32().unwrap()[0]
}

#[test]
fn weights_are_quantized_before_kernels_pack_them() {
    for (op_type, rank) in
        [("Conv", 4), ("Conv", 5), ("ConvTranspose", 4), ("Gemm", 2), ("MatMul", 2), ("MatMul", 3), ("Mul", 1)]
    {
        assert_eq!(output(op_type, rank), 3.0, "{op_type} of rank {rank}");
    }
}
