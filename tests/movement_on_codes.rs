//! Operators that pick and replace elements do so on codes, and give what they give on the reals behind them.

use nputwin::encoding::Encoding;
use nputwin::exec::{Options, Session};
use nputwin::graph::{Attribute, Graph, Node, Port, TensorInfo};
use nputwin::spec::Spec;
use nputwin::tensor::{DType, Data, Tensor};
use std::sync::Arc;

/// Codes of `x` on a grid of 1/4 around 100.
fn reals(codes: &[i64]) -> Vec<f32> {
    codes.iter().map(|c| (c - 100) as f32 / 4.0).collect()
}

/// Shape and codes of a quantized input, or indices.
type Input = (Vec<usize>, Result<Vec<i64>, Data>);

struct Case {
    op_type: &'static str,
    attributes: Vec<(&'static str, Attribute)>,
    inputs: Vec<Input>,
    expected: Vec<i64>,
    outputs: usize,
}

fn run(case: &Case, output_scale: f64) -> nputwin::Result<(Tensor, &'static str)> {
    let mut graph = Graph { opsets: [(String::new(), 18)].into(), ..Graph::default() };
    let encoding = |scale: f64| Some(Arc::new(Encoding::per_tensor(scale, 100, 8, false).unwrap()));
    let mut feeds = Vec::new();
    let mut node = Node { name: "node".into(), op_type: case.op_type.into(), ..Node::default() };
    for (i, (shape, value)) in case.inputs.iter().enumerate() {
        let name = format!("x{i}");
        let t = match value {
            Ok(codes) => {
                feeds.push((name.clone(), Tensor::f32(shape, reals(codes))));
                let dtype = Some(DType::F32);
                let info = TensorInfo { name: name.clone(), dtype, encoding: encoding(0.25), ..TensorInfo::default() };
                graph.add_tensor(info)
            }
            Err(data) => {
                let constant = Some(Tensor::new(shape.clone(), data.clone()).unwrap().into());
                graph.add_tensor(TensorInfo { name: name.clone(), constant, ..TensorInfo::default() })
            }
        };
        if value.is_ok() {
            graph.inputs.push(Port { name, tensor: t, quantized: false });
        }
        node.inputs.push(Some(t));
    }
    for i in 0..case.outputs {
        let encoding = encoding(output_scale).filter(|_| i == 0);
        let t = graph.add_tensor(TensorInfo { name: format!("y{i}"), encoding, ..TensorInfo::default() });
        node.outputs.push(Some(t));
        graph.outputs.push(Port { name: format!("y{i}"), tensor: t, quantized: i == 0 });
    }
    node.attributes = case.attributes.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    graph.nodes = vec![node];
    let session = Session::new(graph, Spec::load("htp_v75")?, Options::default())?;
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let y = session.run(&feeds)?.outputs.remove(0).1;
    let shapes = feeds.iter().map(|(_, t)| t.shape().to_vec()).collect();
    Ok((y, session.report(shapes)?.nodes[0].mode))
}

fn cases() -> Vec<Case> {
    let indices = |shape: &[usize], v: Vec<i64>| (shape.to_vec(), Err(Data::I64(v.into())));
    let codes = |shape: &[usize], v: Vec<i64>| (shape.to_vec(), Ok(v));
    vec![
        Case {
            op_type: "TopK",
            attributes: vec![("largest", Attribute::Int(1))],
            inputs: vec![codes(&[2, 3], vec![7, 250, 90, 91, 91, 3]), indices(&[1], vec![2])],
            expected: vec![250, 90, 91, 91],
            outputs: 2,
        },
        Case {
            op_type: "GatherND",
            attributes: vec![],
            inputs: vec![codes(&[2, 2], vec![1, 2, 3, 4]), indices(&[2, 2], vec![1, 0, 0, -1])],
            expected: vec![3, 2],
            outputs: 1,
        },
        Case {
            op_type: "ScatterND",
            attributes: vec![],
            inputs: vec![codes(&[4], vec![1, 2, 3, 4]), indices(&[2, 1], vec![3, 0]), codes(&[2], vec![200, 201])],
            expected: vec![201, 2, 3, 200],
            outputs: 1,
        },
        Case {
            op_type: "ScatterElements",
            attributes: vec![("reduction", Attribute::String("max".into()))],
            inputs: vec![codes(&[3], vec![10, 20, 30]), indices(&[2], vec![0, 2]), codes(&[2], vec![5, 50])],
            expected: vec![10, 20, 50],
            outputs: 1,
        },
        Case {
            op_type: "Compress",
            attributes: vec![("axis", Attribute::Int(1))],
            inputs: vec![
                codes(&[2, 3], vec![1, 2, 3, 4, 5, 6]),
                (vec![3], Err(Data::Bool(vec![true, false, true].into()))),
            ],
            expected: vec![1, 3, 4, 6],
            outputs: 1,
        },
        Case {
            op_type: "ReverseSequence",
            attributes: vec![("batch_axis", Attribute::Int(0)), ("time_axis", Attribute::Int(1))],
            inputs: vec![codes(&[2, 3], vec![1, 2, 3, 4, 5, 6]), indices(&[2], vec![2, 3])],
            expected: vec![2, 1, 3, 6, 5, 4],
            outputs: 1,
        },
    ]
}

#[test]
fn codes_are_picked_and_replaced() {
    for case in cases() {
        let (y, mode) = run(&case, 0.25).unwrap();
        assert_eq!((y.to_i64().unwrap(), mode), (case.expected.clone(), "move"), "{}", case.op_type);
        // On a grid twice as coarse around the same zero point, halves go to a neighbour.
        let coarse = run(&case, 0.5).unwrap().0.to_i64().unwrap();
        for (fine, coarse) in case.expected.iter().zip(coarse) {
            assert!((2 * (coarse - 100) - (fine - 100)).abs() <= 1, "{}: {fine} became {coarse}", case.op_type);
        }
    }
}

#[test]
fn sums_of_updates_are_no_movement() {
    let mut case = cases().remove(2);
    case.attributes = vec![("reduction", Attribute::String("add".into()))];
    assert_eq!(run(&case, 0.25).unwrap_err().code(), "node_unsupported");
}
