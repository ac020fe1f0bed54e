//! What quantizers of small models become in the graph, rule by rule.

use nputwin::encoding::Granularity;
use nputwin::graph::Graph;
use nputwin::onnx;
use nputwin::onnx::proto::*;
use nputwin::tensor::Data;
use prost::Message;

fn text(s: &str) -> Option<String> {
    Some(s.to_string())
}

fn value(name: &str, elem_type: i32) -> ValueInfoProto {
    let tensor_type = TensorTypeProto { elem_type: Some(elem_type), shape: None };
    ValueInfoProto { name: text(name), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn constant(name: &str, data_type: i32, dims: &[i64], data: &[i32]) -> TensorProto {
    let int32_data = data.to_vec();
    TensorProto {
        name: text(name),
        dims: dims.to_vec(),
        data_type: Some(data_type),
        int32_data,
        ..TensorProto::default()
    }
}

fn scale(name: &str, data: &[f32]) -> TensorProto {
    TensorProto {
        name: text(name),
        dims: if data.len() == 1 { vec![] } else { vec![data.len() as i64] },
        data_type: Some(data_type::FLOAT),
        float_data: data.to_vec(),
        ..TensorProto::default()
    }
}

/// One node per line: `output = Operator(input, …)`; operators that start with a dot are of `com.microsoft`.
fn read(inputs: &[ValueInfoProto], outputs: &[ValueInfoProto], nodes: &str, initializer: &[TensorProto]) -> Graph {
    let parse = |line: &str| {
        let (output, call) = line.split_once('=').unwrap();
        let (operator, arguments) = call.trim().trim_end_matches(')').split_once('(').unwrap();
        NodeProto {
            op_type: text(operator.trim_start_matches('.')),
            domain: operator.starts_with('.').then(|| "com.microsoft".to_string()),
            input: arguments.split(',').map(|a| a.trim().to_string()).collect(),
            output: vec![output.trim().to_string()],
            ..NodeProto::default()
        }
    };
    let mut initializer = initializer.to_vec();
    initializer.extend([scale("s", &[0.5]), scale("s2", &[0.25]), constant("z", data_type::UINT8, &[], &[3])]);
    let graph = GraphProto {
        node: nodes.lines().map(str::trim).filter(|l| !l.is_empty()).map(parse).collect(),
        input: inputs.to_vec(),
        output: outputs.to_vec(),
        initializer,
        ..GraphProto::default()
    };
    let import = |domain, version| OperatorSetIdProto { domain: text(domain), version: Some(version) };
    let opset_import = vec![import("", 17), import("com.microsoft", 1)];
    let model = ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..ModelProto::default() };
    let graph = onnx::decode(&model.encode_to_vec(), "memory", None).unwrap();
    let written = onnx::qdq_model(&graph).unwrap().model;
    let again = onnx::decode(&written.encode_to_vec(), "written", None).unwrap();
    assert_eq!(shape_of(&again), shape_of(&graph), "writing and reading keep the nodes and what is quantized");
    graph
}

/// Operators with the scales of what they read and write.
fn shape_of(graph: &Graph) -> Vec<String> {
    let scale = |t: &Option<usize>| t.and_then(|t| graph.tensors[t].encoding.as_ref()).map(|e| e.scale.clone());
    let line = |n: &nputwin::graph::Node| {
        let scales: Vec<_> = n.inputs.iter().chain(&n.outputs).map(scale).collect();
        format!("{} {scales:?}", n.op_type)
    };
    let ports = graph.inputs.iter().chain(&graph.outputs).map(|p| format!("{} {}", p.name, p.quantized));
    graph.nodes.iter().map(line).chain(ports).collect()
}

fn x() -> ValueInfoProto {
    value("x", data_type::FLOAT)
}

fn y() -> ValueInfoProto {
    value("y", data_type::FLOAT)
}

#[test]
fn repeated_quantizers_of_one_grid_are_one() {
    let nodes = "a = QuantizeLinear(x, s, z)
        b = DequantizeLinear(a, s, z)
        c = QuantizeLinear(b, s, z)
        d = DequantizeLinear(c, s, z)
        y = Relu(d)";
    let graph = read(&[x()], &[y()], nodes, &[]);
    assert_eq!(graph.nodes.len(), 1);
    assert_eq!(graph.tensors[graph.inputs[0].tensor].aliases, ["a", "b", "c", "d"]);
}

#[test]
fn an_unquantized_reader_keeps_the_raw_tensor() {
    let nodes = "q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        y = Add(x, d)";
    let graph = read(&[x()], &[y()], nodes, &[]);
    assert_eq!((graph.nodes[0].op_type.as_str(), graph.nodes[0].domain.as_str()), ("Identity", "nputwin"));
    assert!(graph.tensors[graph.find("x").unwrap()].encoding.is_none());
    let form = &graph.tensors[graph.find("q").unwrap()];
    assert_eq!((form.name.as_str(), form.encoding.as_ref().unwrap().zero_point[0]), ("d", 3));
}

#[test]
fn two_grids_of_one_tensor_are_two_tensors() {
    let nodes = "q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        q2 = QuantizeLinear(x, s2, z)
        d2 = DequantizeLinear(q2, s2, z)
        q3 = QuantizeLinear(x, s2, z)
        d3 = DequantizeLinear(q3, s2, z)
        e = Add(d, d2)
        y = Add(e, d3)";
    let graph = read(&[x()], &[y()], nodes, &[]);
    let operators: Vec<_> = graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(operators, ["Identity", "Identity", "Add", "Add"]);
    assert_eq!(graph.find("d2"), graph.find("d3"));
}

#[test]
fn ports_of_codes_are_quantized_ports() {
    let nodes = "d = DequantizeLinear(x, s, z)
        r = Relu(d)
        y = QuantizeLinear(r, s2, z)";
    let graph = read(&[value("x", data_type::UINT8)], &[value("y", data_type::UINT8)], nodes, &[]);
    assert_eq!(graph.nodes.len(), 1);
    let (input, output) = (&graph.inputs[0], &graph.outputs[0]);
    assert!(input.quantized && output.quantized);
    assert_eq!(graph.tensors[input.tensor].encoding.as_ref().unwrap().scale, [0.5]);
    assert_eq!((graph.tensors[output.tensor].name.as_str(), output.name.as_str()), ("r", "y"));
}

#[test]
fn codes_that_an_integer_operator_reads_keep_their_quantizer() {
    let nodes = "q = QuantizeLinear(x, s, z)
        i = MatMulInteger(q, w)
        y = Cast(i)";
    let w = constant("w", data_type::UINT8, &[1, 1], &[7]);
    let graph = read(&[x()], &[y()], nodes, &[w]);
    let operators: Vec<_> = graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(operators, ["QuantizeLinear", "MatMulInteger", "Cast"]);
    assert!(graph.tensors.iter().all(|t| t.encoding.is_none()));
}

#[test]
fn qlinear_convolutions_give_their_bias_the_product_of_scales() {
    let nodes = "q = QuantizeLinear(x, s, z)
        c = QLinearConv(q, s, z, w, ws, wz, s2, z, b)
        m = MaxPool(c)
        a = .QLinearAdd(m, s2, z, m, s2, z, s, z)
        y = DequantizeLinear(a, s, z)";
    let constants = [
        constant("w", data_type::INT8, &[2, 1, 1, 1], &[5, -6]),
        constant("wz", data_type::INT8, &[2], &[0, 0]),
        scale("ws", &[0.1, 0.3]),
        constant("b", data_type::INT32, &[2], &[1000, -7]),
    ];
    let graph = read(&[x()], &[y()], nodes, &constants);
    let operators: Vec<_> = graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(operators, ["Conv", "MaxPool", "Add"]);
    let bias = &graph.tensors[graph.find("b").unwrap()];
    let encoding = bias.encoding.as_ref().unwrap();
    assert_eq!(encoding.scale, [0.5 * f64::from(0.1f32), 0.5 * f64::from(0.3f32)]);
    assert_eq!((encoding.bitwidth, &encoding.granularity), (32, &Granularity::PerChannel { axis: 0 }));
    assert_eq!(bias.codes.as_ref().unwrap().data(), &Data::I32(vec![1000, -7].into()));
    let pooled = &graph.tensors[graph.nodes[1].outputs[0].unwrap()];
    assert_eq!((pooled.name.as_str(), pooled.encoding.as_ref().unwrap().scale[0]), ("m", 0.25));
}

/// The graph that a reader sees of the QOperator form.
fn through_qlinear(graph: &Graph) -> (Vec<String>, Graph) {
    let model = onnx::qlinear_model(graph).unwrap().model;
    let operators = model.graph.as_ref().unwrap().node.iter().map(|n| n.op_type.clone().unwrap()).collect();
    (operators, onnx::decode(&model.encode_to_vec(), "written", None).unwrap())
}

#[test]
fn qlinear_operators_come_back_as_they_went() {
    let nodes = "q = QuantizeLinear(x, s, z)
        c = QLinearConv(q, s, z, w, ws, wz, s2, z, b)
        m = MaxPool(c)
        a = .QLinearAdd(m, s2, z, c, s2, z, s, z)
        u = .QLinearMul(a, s, z, m, s2, z, s, z)
        g = .QLinearSigmoid(u, s, z, s2, z)
        l = .QLinearLeakyRelu(g, s2, z, s, z)
        v = .QLinearGlobalAveragePool(l, s, z, s2, z)
        p = .QLinearSoftmax(v, s2, z, s, z)
        k = .QLinearConcat(s, z, p, s, z, v, s2, z)
        t = Transpose(k)
        mm = QLinearMatMul(t, s, z, w2, s, wz0, s2, z)
        h = .QGemm(mm, s2, z, w2, s, wz0, b1, s, z)
        y = DequantizeLinear(h, s, z)";
    let constants = [
        constant("w", data_type::INT8, &[2, 1, 1, 1], &[5, -6]),
        constant("wz", data_type::INT8, &[2], &[0, 0]),
        scale("ws", &[0.1, 0.3]),
        constant("b", data_type::INT32, &[2], &[1000, -7]),
        constant("w2", data_type::INT8, &[2, 2], &[1, 2, 3, -128]),
        constant("wz0", data_type::INT8, &[], &[0]),
        constant("b1", data_type::INT32, &[2], &[4, -5]),
    ];
    let graph = read(&[x()], &[y()], nodes, &constants);
    let (operators, again) = through_qlinear(&graph);
    let file: Vec<&str> =
        nodes.lines().map(|l| l.split(['=', '(']).nth(1).unwrap().trim().trim_start_matches('.')).collect();
    assert_eq!(operators, file);
    assert_eq!(shape_of(&again), shape_of(&graph));
    let codes = |g: &Graph| g.tensors.iter().filter_map(|t| t.codes.clone()).collect::<Vec<_>>();
    assert_eq!(codes(&graph).len(), 4);
    for c in codes(&graph) {
        assert!(codes(&again).contains(&c), "integers of constants stay");
    }
}

#[test]
fn float_operators_stand_between_quantizers_and_saturation_absorbs_a_relu() {
    let nodes = "q = QuantizeLinear(x, s, z0)
        d = DequantizeLinear(q, s, z0)
        wd = DequantizeLinear(w, ws, wz)
        c = Conv(d, wd, b)
        r = Relu(c)
        rq = QuantizeLinear(r, s2, z0)
        rd = DequantizeLinear(rq, s2, z0)
        e = Exp(rd)
        eq = QuantizeLinear(e, s, z)
        ed = DequantizeLinear(eq, s, z)
        f = Conv(ed, wd)
        i = Relu(f)
        iq = QuantizeLinear(i, s2, z)
        y = DequantizeLinear(iq, s2, z)";
    let constants = [
        constant("w", data_type::INT8, &[1, 1, 1, 1], &[5]),
        constant("wz", data_type::INT8, &[], &[0]),
        constant("z0", data_type::UINT8, &[], &[0]),
        scale("ws", &[0.125]),
        // In units of 0.5 · 0.125: 2.5 and 3.5 are ties.
        TensorProto { dims: vec![1], ..scale("b", &[2.5 * 0.0625]) },
    ];
    let graph = read(&[x()], &[y()], nodes, &constants);
    let (operators, again) = through_qlinear(&graph);
    let kept = ["QuantizeLinear", "QLinearConv", "DequantizeLinear", "Exp", "QuantizeLinear"];
    let float = ["DequantizeLinear", "DequantizeLinear", "Conv", "Relu", "QuantizeLinear", "DequantizeLinear"];
    assert_eq!(operators, [kept.as_slice(), &float].concat());
    let operators: Vec<_> = again.nodes.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(operators, ["Conv", "Exp", "Conv", "Relu"]);
    let bias = &again.tensors[again.nodes[0].inputs[2].unwrap()];
    assert_eq!(bias.codes.as_ref().unwrap().data(), &Data::I32(vec![2].into()));
}

#[test]
fn padding_becomes_a_code() {
    let nodes = "q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        p = Pad(d, pads)
        r = Pad(p, pads, v)
        y = QuantizeLinear(r, s, z)";
    let pads = TensorProto {
        name: text("pads"),
        dims: vec![2],
        data_type: Some(data_type::INT64),
        int64_data: vec![1, 0],
        ..TensorProto::default()
    };
    let mut graph = read(&[x()], &[value("y", data_type::UINT8)], nodes, &[pads, scale("v", &[4.2])]);
    let padded = graph.nodes[0].outputs[0].unwrap();
    graph.tensors[padded].encoding = graph.tensors[graph.inputs[0].tensor].encoding.clone();
    let (operators, again) = through_qlinear(&graph);
    assert_eq!(operators, ["QuantizeLinear", "Pad", "Pad"]);
    let value = |n: usize| again.tensors[again.nodes[n].inputs[2].unwrap()].constant.clone().unwrap().to_f64()[0];
    assert_eq!((value(0), value(1)), (0.0, 4.0));
}

#[test]
fn sixteen_bits_have_no_qlinear_form() {
    let nodes = "q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        a = Add(d, d)
        y = QuantizeLinear(a, s, z)";
    let mut graph = read(&[x()], &[value("y", data_type::UINT8)], nodes, &[]);
    let input = graph.inputs[0].tensor;
    let wide = nputwin::encoding::Encoding::per_tensor(0.5, 3, 16, false).unwrap();
    graph.tensors[input].encoding = Some(std::sync::Arc::new(wide));
    let error = onnx::qlinear_model(&graph).unwrap_err().to_string();
    assert!(error.contains("QLinearAdd cannot have codes of 16 bits for 'x'") && error.contains("(Add)"), "{error}");
}
