//! Small TFLite files: what the graph of each one is.

#[path = "support/tflite.rs"]
mod support;

use nputwin::exec::{Options as SessionOptions, Session};
use nputwin::graph::{Clamp, Dim};
use nputwin::spec::Spec;
use nputwin::tensor::{Data, Tensor as Values};
use nputwin::tflite;
use support::{FLOAT32, INT4, INT8, Operator, Options, Tensor, convolution};

#[test]
fn a_convolution_has_onnx_order_and_the_codes_of_the_file() {
    let graph = tflite::decode(&convolution().bytes(), "test").unwrap();
    let [node] = graph.nodes.as_slice() else { panic!("{:?}", graph.nodes) };
    assert_eq!((node.op_type.as_str(), node.clamp), ("Conv", Some(Clamp { lo: 0.0, hi: 6.0 })));
    let named = |name: &str| &graph.tensors[graph.find(name).unwrap()];
    assert_eq!(named("w").codes.as_ref().unwrap().shape(), [3, 2, 1, 1]);
    assert_eq!(named("w").codes.as_ref().unwrap().data(), &Data::I8(vec![1, 2, 3, 4, 5, -1].into()));
    assert_eq!(named("b").codes.as_ref().unwrap().data(), &Data::I32(vec![7, -8, 9].into()));
    assert!(named("x").channels_last && named("y").channels_last && !named("w").channels_last);
    assert_eq!(named("x").shape, Some([1, 2, 4, 5].map(Dim::Fixed).to_vec()));
    assert_eq!(named("x").outer_shape(), Some([1, 4, 5, 2].map(Dim::Fixed).to_vec()));
    assert!(graph.inputs[0].quantized && graph.outputs[0].quantized);
}

#[test]
fn codes_go_in_and_come_out_in_the_order_of_the_file() {
    let graph = tflite::decode(&convolution().bytes(), "test").unwrap();
    let session = Session::new(graph, Spec::load("tflite_micro").unwrap(), SessionOptions::default()).unwrap();
    assert_eq!(session.inputs()[0].shape, Some([1, 4, 5, 2].map(Dim::Fixed).to_vec()));
    let codes: Vec<i8> = (0..40).map(|i| i - 20).collect();
    let x = Values::new(vec![1, 4, 5, 2], Data::I8(codes.clone().into())).unwrap();
    let result = session.run_with(&[("x", &x)], true, &mut || Ok(())).unwrap();
    let y = &result.outputs[0].1;
    assert_eq!(y.shape(), [1, 4, 5, 3]);
    // Scales are powers of two: x·w/y is 1/4, 1/2 and 1, and a 6 is the code 12. The target rounds after each halving: the first
    // time halves go up, then away from zero, which is the same within the clamp.
    let half = |v: i64| (v + 1) >> 1;
    let w = [[1, 2], [3, 4], [5, -1]];
    let expected = codes.chunks(2).flat_map(|p| {
        let sums: Vec<i64> =
            w.iter().zip([7, -8, 9]).map(|(w, b)| i64::from(p[0]) * w[0] + i64::from(p[1]) * w[1] + b).collect();
        [half(half(sums[0])), half(sums[1]), sums[2]].map(|v| v.clamp(0, 12))
    });
    assert_eq!(y.to_i64().unwrap(), expected.collect::<Vec<_>>());
    let captured = result.captured.iter().find(|c| c.name == "y").unwrap();
    assert_eq!(captured.codes.as_ref(), Some(y));
    // Element 4 is channel 1 of the second pixel.
    let explained = session.explain(&[("x", &x)], "y", 4).unwrap();
    let acc = explained.operands.iter().find(|(name, _)| name == "acc").unwrap();
    assert_eq!(acc.1, (i64::from(codes[2]) * 3 + i64::from(codes[3]) * 4 - 8).to_string());
}

#[test]
fn a_bias_without_scale_stands_for_other_reals_in_each_convolution() {
    let mut model = convolution();
    model.tensors[2].scale = vec![];
    model.tensors[2].zero_point = vec![];
    let (mut w, mut y) = (model.tensors[1].clone(), model.tensors[3].clone());
    (w.name, w.scale) = ("w2".into(), vec![0.5, 1.0, 2.0]);
    y.name = "y2".into();
    model.tensors.extend([w, y]);
    model.operators.push(Operator { inputs: vec![0, 4, 2], outputs: vec![5], ..model.operators[0].clone() });
    model.outputs = vec![3, 5];
    let graph = tflite::decode(&model.bytes(), "test").unwrap();
    let names: std::collections::BTreeSet<&str> = graph.tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names.len(), graph.tensors.len(), "{names:?}");
    let biases: Vec<_> = graph.nodes.iter().map(|n| &graph.tensors[n.inputs[2].unwrap()]).collect();
    assert_eq!(biases[0].name, "b");
    for (bias, unit) in biases.iter().zip([0.125, 0.25]) {
        assert_eq!(bias.codes.as_ref().unwrap().data(), &Data::I32(vec![7, -8, 9].into()));
        assert_eq!(bias.encoding.as_ref().unwrap().scale, [unit, 2.0 * unit, 4.0 * unit]);
        let reals = bias.constant.as_ref().unwrap().to_f64();
        assert_eq!(reals, [7.0 * unit, -16.0 * unit, 36.0 * unit]);
    }
}

#[test]
fn four_bits_are_unpacked_low_half_first() {
    let mut model = convolution();
    model.tensors[1].dtype = INT4;
    model.buffers[1] = vec![0x21, 0xe3, 0x8f];
    let graph = tflite::decode(&model.bytes(), "test").unwrap();
    let w = &graph.tensors[graph.find("w").unwrap()];
    assert_eq!(w.codes.as_ref().unwrap().to_i64().unwrap(), [1, 2, 3, -2, -1, -8]);
    assert_eq!(w.encoding.as_ref().unwrap().bitwidth, 4);
}

#[test]
fn open_dimensions_stay_open() {
    let mut model = convolution();
    model.tensors[0].signature = vec![-1, 4, 5, 2];
    model.tensors[3].signature = vec![-1, 4, 5, 3];
    let graph = tflite::decode(&model.bytes(), "test").unwrap();
    let session = Session::new(graph, Spec::load("tflite_micro").unwrap(), SessionOptions::default()).unwrap();
    let x = Values::new(vec![3, 4, 5, 2], Data::I8(vec![1; 120].into())).unwrap();
    assert_eq!(session.run(&[("x", &x)]).unwrap().outputs[0].1.shape(), [3, 4, 5, 3]);
}

/// Puts QUANTIZE before the convolution and DEQUANTIZE behind it.
#[test]
fn quantizers_at_the_ports_are_encodings_of_the_ports() {
    let mut model = convolution();
    let real = |name: &str, shape: &[i32]| Tensor {
        name: name.into(),
        shape: shape.to_vec(),
        dtype: FLOAT32,
        ..Tensor::default()
    };
    model.tensors.extend([real("real_x", &[1, 4, 5, 2]), real("real_y", &[1, 4, 5, 3])]);
    model.codes.extend([114, 6]);
    let single = |code, from, to| Operator { code, inputs: vec![from], outputs: vec![to], options: Options::default() };
    model.operators.insert(0, single(1, 4, 0));
    model.operators.push(single(2, 3, 5));
    (model.inputs, model.outputs) = (vec![4], vec![5]);
    let graph = tflite::decode(&model.bytes(), "test").unwrap();
    assert_eq!(graph.nodes.len(), 1);
    assert_eq!(graph.find("x"), graph.find("real_x"));
    assert_eq!(graph.find("y"), graph.find("real_y"));
    let port = |p: &nputwin::graph::Port| (p.name.clone(), p.quantized);
    assert_eq!(graph.inputs.iter().map(port).collect::<Vec<_>>(), [("real_x".to_string(), false)]);
    assert_eq!(graph.outputs.iter().map(port).collect::<Vec<_>>(), [("real_y".to_string(), false)]);
    assert!(graph.tensors[graph.inputs[0].tensor].encoding.is_some());
}

#[test]
fn an_operator_without_an_order_turns_with_its_neighbours_and_a_reshape_turns_back() {
    let mut model = convolution();
    // y → RELU → r → RESHAPE → z, with the shape in the options' stead as a constant.
    model.buffers.push([1i32, 60].iter().flat_map(|v| v.to_le_bytes()).collect());
    let like = |model: &support::Model, name: &str, shape: &[i32]| Tensor {
        name: name.into(),
        shape: shape.to_vec(),
        ..model.tensors[3].clone()
    };
    let (r, z) = (like(&model, "r", &[1, 4, 5, 3]), like(&model, "z", &[1, 60]));
    let shape = Tensor { name: "shape".into(), shape: vec![2], dtype: support::INT32, buffer: 3, ..Tensor::default() };
    model.tensors.extend([r, z, shape]);
    model.codes.extend([19, 22]);
    model.operators.push(Operator { code: 1, inputs: vec![3], outputs: vec![4], ..Operator::default() });
    model.operators.push(Operator { code: 2, inputs: vec![4, 6], outputs: vec![5], ..Operator::default() });
    model.outputs = vec![5];
    let graph = tflite::decode(&model.bytes(), "test").unwrap();
    let steps: Vec<_> = graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(steps, ["Conv", "Relu", "Transpose", "Reshape"]);
    assert!(graph.tensors[graph.find("r").unwrap()].channels_last);
    // Without the convolution nothing is turned.
    model.operators.remove(0);
    model.inputs = vec![3];
    let graph = tflite::decode(&model.bytes(), "test").unwrap();
    let steps: Vec<_> = graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(steps, ["Relu", "Reshape"]);
    assert_eq!(INT8, model.tensors[4].dtype);
}

#[test]
fn a_constant_image_turns_with_the_results_that_it_meets() {
    let mut model = convolution();
    // r = RELU(c) of a constant c, and z = ADD(y, r).
    model.buffers.push((0..60).collect());
    let like = |model: &support::Model, name: &str, buffer: u32| Tensor {
        name: name.into(),
        buffer,
        ..model.tensors[3].clone()
    };
    let added = [like(&model, "c", 3), like(&model, "r", 0), like(&model, "z", 0)];
    model.tensors.extend(added);
    model.codes.extend([19, 0]);
    model.operators.push(Operator { code: 1, inputs: vec![4], outputs: vec![5], ..Operator::default() });
    model.operators.push(Operator { code: 2, inputs: vec![3, 5], outputs: vec![6], ..Operator::default() });
    model.outputs = vec![6];
    let graph = tflite::decode(&model.bytes(), "test").unwrap();
    let codes = graph.tensors[graph.find("c").unwrap()].codes.clone().unwrap();
    assert_eq!(codes.shape(), [1, 3, 4, 5]);
    // Channel 1 of the first two pixels.
    assert_eq!(codes.to_i64().unwrap()[20..22], [1, 4]);
}

#[test]
fn a_transposed_convolution_pads_as_the_convolution_that_it_transposes() {
    let pads = |padding: i8, out: i32, size: i32| {
        let real = |name: &str, shape: &[i32], buffer: u32| Tensor {
            name: name.into(),
            shape: shape.to_vec(),
            dtype: FLOAT32,
            buffer,
            ..Tensor::default()
        };
        let model = support::Model {
            codes: vec![67],
            buffers: vec![
                vec![],
                [1, out, 1, 1].iter().flat_map(|v: &i32| v.to_le_bytes()).collect(),
                [1f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
            ],
            tensors: vec![
                Tensor { dtype: support::INT32, ..real("shape", &[4], 1) },
                real("w", &[1, 3, 1, 1], 2),
                real("x", &[1, size, 1, 1], 0),
                real("y", &[1, out, 1, 1], 0),
            ],
            operators: vec![Operator {
                code: 0,
                inputs: vec![0, 1, 2],
                outputs: vec![3],
                options: Options { number: 49, bytes: vec![(0, padding)], ints: vec![(1, 1), (2, 1)] },
            }],
            inputs: vec![2],
            outputs: vec![3],
            ..convolution()
        };
        let graph = tflite::decode(&model.bytes(), "test").unwrap();
        graph.nodes[0].ints("pads").unwrap().unwrap().to_vec()
    };
    assert_eq!(pads(0, 4, 4), [1, 0, 1, 0]);
    assert_eq!(pads(1, 6, 4), [0, 0, 0, 0]);
    // VALID has no padding: a result that is too short loses its end.
    assert_eq!(pads(1, 4, 4), [0, 0, 2, 0]);
}
