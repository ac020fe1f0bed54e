//! Models that are wrong: each gives an error of its own, none a panic or an allocation by declared size.

use nputwin::exec::{Options, Session};
use nputwin::onnx::proto::*;
use nputwin::spec::Spec;
use nputwin::{Error, Kind, onnx};
use prost::Message;
use std::path::Path;

fn text(s: &str) -> Option<String> {
    Some(s.to_string())
}

fn value(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&d| DimensionProto { dim_value: Some(d), dim_param: None }).collect();
    let tensor_type = TensorTypeProto { elem_type: Some(elem_type), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: text(name), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        name: Some(format!("n_{}", outputs.first().unwrap_or(&"none"))),
        op_type: text(op_type),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        ..NodeProto::default()
    }
}

fn floats(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        name: text(name),
        dims: dims.to_vec(),
        data_type: Some(data_type::FLOAT),
        float_data: data.to_vec(),
        ..TensorProto::default()
    }
}

fn codes(name: &str, data_type: i32, dims: &[i64], data: &[i32]) -> TensorProto {
    TensorProto {
        name: text(name),
        dims: dims.to_vec(),
        data_type: Some(data_type),
        int32_data: data.to_vec(),
        ..TensorProto::default()
    }
}

fn attribute(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: text(name), r#type: Some(attribute_type::INT), i: Some(i), ..AttributeProto::default() }
}

fn ints(name: &str, data: &[i64]) -> TensorProto {
    TensorProto {
        name: text(name),
        dims: vec![data.len() as i64],
        data_type: Some(data_type::INT64),
        int64_data: data.to_vec(),
        ..TensorProto::default()
    }
}

/// `y = Relu(x)`.
fn model() -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![
            OperatorSetIdProto { domain: text(""), version: Some(17) },
            OperatorSetIdProto { domain: text("com.microsoft"), version: Some(1) },
        ],
        graph: Some(GraphProto {
            name: text("g"),
            node: vec![node("Relu", &["x"], &["y"])],
            input: vec![value("x", data_type::FLOAT, &[1, 4])],
            output: vec![value("y", data_type::FLOAT, &[1, 4])],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

/// `x → QuantizeLinear → DequantizeLinear → y`.
fn quantized() -> ModelProto {
    let mut model = model();
    let g = model.graph.as_mut().unwrap();
    g.node = vec![node("QuantizeLinear", &["x", "s", "z"], &["q"]), node("DequantizeLinear", &["q", "s", "z"], &["y"])];
    g.initializer = vec![floats("s", &[], &[0.5]), codes("z", data_type::UINT8, &[], &[128])];
    model
}

fn edited(mut model: ModelProto, edit: impl FnOnce(&mut GraphProto)) -> ModelProto {
    edit(model.graph.as_mut().unwrap());
    model
}

fn error_of(model: &ModelProto, base: Option<&Path>) -> Error {
    match onnx::decode(&model.encode_to_vec(), "memory.onnx", base) {
        Err(error) => error,
        Ok(graph) => panic!("accepted: {graph:?}"),
    }
}

#[track_caller]
fn refused(model: ModelProto, kind: Kind, code: &str, says: &str) {
    let error = error_of(&model, None);
    assert_eq!((error.kind(), error.code()), (kind, code), "{error}");
    assert!(error.to_string().contains(says), "'{says}' is not in: {error}");
}

const INVALID: Kind = Kind::Invalid;
const UNSUPPORTED: Kind = Kind::UnsupportedByNputwin;

#[test]
fn the_models_that_the_tests_damage_are_sound() {
    onnx::decode(&model().encode_to_vec(), "m", None).unwrap();
    let graph = onnx::decode(&quantized().encode_to_vec(), "m", None).unwrap();
    assert_eq!((graph.nodes.len(), graph.tensors[0].aliases.as_slice()), (0, ["q".to_string(), "y".into()].as_slice()));
}

#[test]
fn bytes_that_are_no_model() {
    let decode = |bytes: &[u8]| onnx::decode(bytes, "m.onnx", None).unwrap_err();
    assert_eq!(decode(b"").code(), "model_empty");
    assert_eq!(decode(b"\x89PNG\r\n\x1a\n").code(), "model_protobuf");
    assert_eq!(decode(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f]).code(), "model_protobuf");
    assert_eq!(decode(&[0x08, 0x08]).code(), "model_graph");
    // Groups nested a million deep.
    assert_eq!(decode(&vec![0x0b; 1 << 20]).code(), "model_protobuf");
    assert!(decode(b"").to_string().contains("in m.onnx"));
}

#[test]
fn every_truncation_is_an_error_or_a_smaller_model() {
    let bytes = quantized().encode_to_vec();
    let mut errors = 0;
    for end in 0..bytes.len() {
        errors += usize::from(onnx::decode(&bytes[..end], "m", None).is_err());
    }
    assert!(errors >= bytes.len() - 3, "{errors} errors for {} truncations", bytes.len());
}

#[test]
fn every_flipped_byte_is_survived() {
    let bytes = quantized().encode_to_vec();
    for i in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[i] ^= flip;
            let _ = onnx::decode(&damaged, "m", None);
        }
    }
}

#[test]
fn versions_and_domains() {
    let with = |domain: &str, version| {
        let mut m = model();
        m.opset_import = vec![OperatorSetIdProto { domain: text(domain), version: Some(version) }];
        m
    };
    refused(with("", 6), UNSUPPORTED, "opset_version", "opset 6; 7 to 28");
    refused(with("", 29), UNSUPPORTED, "opset_version", "opset 29");
    refused(with("ai.onnx.ml", 3), INVALID, "opset_missing", "no opset version");
    let mut twice = model();
    twice.opset_import.push(OperatorSetIdProto { domain: text("ai.onnx"), version: Some(13) });
    refused(twice, INVALID, "opset_twice", "two versions");
    let foreign = edited(model(), |g| g.node[0].domain = text("org.example"));
    refused(foreign, UNSUPPORTED, "operator_domain", "org.example");
    let mut unimported = edited(model(), |g| g.node[0].domain = text("com.microsoft"));
    unimported.opset_import.pop();
    refused(unimported, INVALID, "opset_domain", "imports no version");
}

#[test]
fn parts_of_onnx_that_are_not_understood() {
    let mut function = model();
    function.functions.push(FunctionProto { name: text("F"), domain: text("d") });
    refused(function, UNSUPPORTED, "local_function", "'F'");
    let mut training = model();
    training.training_info.push(vec![0x0a, 0x00]);
    refused(training, UNSUPPORTED, "training_info", "training");
    let sparse = SparseTensorProto { values: Some(floats("w", &[1], &[1.0])) };
    refused(edited(model(), |g| g.sparse_initializer.push(sparse)), UNSUPPORTED, "sparse_initializer", "'w'");
    let branch = AttributeProto {
        name: text("then_branch"),
        r#type: Some(attribute_type::GRAPH),
        g: Some(vec![]),
        ..AttributeProto::default()
    };
    refused(edited(model(), |g| g.node[0].attribute.push(branch)), UNSUPPORTED, "subgraph", "then_branch");
    let strings = TensorProto { data_type: Some(data_type::STRING), ..floats("w", &[1], &[]) };
    refused(edited(model(), |g| g.initializer.push(strings)), UNSUPPORTED, "tensor_type_unsupported", "string");
    let float8 = TensorProto { data_type: Some(17), ..floats("w", &[1], &[]) };
    refused(edited(model(), |g| g.initializer.push(float8)), UNSUPPORTED, "tensor_type_unsupported", "float8e4m3fn");
    let sequence = |g: &mut GraphProto| g.input[0].r#type = Some(TypeProto { tensor_type: None });
    refused(edited(model(), sequence), UNSUPPORTED, "value_type", "not a dense tensor");
    let segment = TensorProto { segment: Some(vec![]), ..floats("w", &[1], &[1.0]) };
    refused(edited(model(), |g| g.initializer.push(segment)), UNSUPPORTED, "tensor_segment", "segments");
}

#[test]
fn graphs_that_do_not_hang_together() {
    let nodes = |nodes: Vec<NodeProto>| edited(model(), |g| g.node = nodes);
    refused(nodes(vec![node("Relu", &["nowhere"], &["y"])]), INVALID, "producer_missing", "'nowhere'");
    let cycle =
        nodes(vec![node("Add", &["x", "b"], &["a"]), node("Relu", &["a"], &["b"]), node("Relu", &["b"], &["y"])]);
    refused(cycle, INVALID, "graph_cycle", "n_a");
    refused(nodes(vec![node("Relu", &["x"], &["y"]); 2]), INVALID, "tensor_twice", "'y'");
    refused(nodes(vec![node("Relu", &["x"], &["x"])]), INVALID, "tensor_twice", "'x'");
    refused(nodes(vec![]), INVALID, "output_missing", "'y'");
    refused(nodes(vec![node("Relu", &["x"], &[])]), INVALID, "node_outputs", "no output");
    refused(nodes(vec![node("", &["x"], &["y"])]), INVALID, "node_operator", "no operator");
    refused(edited(model(), |g| g.output.clear()), INVALID, "graph_outputs", "no outputs");
    refused(edited(model(), |g| g.output.push(g.output[0].clone())), INVALID, "output_twice", "'y'");
    refused(edited(model(), |g| g.input.push(g.input[0].clone())), INVALID, "tensor_twice", "'x'");
    refused(edited(model(), |g| g.input[0].name = None), INVALID, "tensor_name", "no name");
    refused(edited(model(), |g| g.initializer = vec![floats("w", &[1], &[1.0]); 2]), INVALID, "tensor_twice", "'w'");
}

#[test]
fn attributes_and_constants() {
    let with = |attribute: AttributeProto| edited(model(), |g| g.node[0].attribute.push(attribute));
    refused(with(attribute("", 1)), INVALID, "attribute_name", "no name");
    let twice = edited(model(), |g| g.node[0].attribute = vec![attribute("axis", 1), attribute("axis", 2)]);
    refused(twice, INVALID, "attribute_twice", "'axis'");
    refused(with(AttributeProto { r#type: Some(99), ..attribute("a", 1) }), INVALID, "attribute_type", "type 99");
    refused(with(AttributeProto { r#type: Some(0), i: None, ..attribute("a", 1) }), INVALID, "attribute_empty", "'a'");
    let reference = AttributeProto { ref_attr_name: text("outer"), ..attribute("a", 1) };
    refused(with(reference), INVALID, "attribute_reference", "function");
    let latin = AttributeProto { r#type: Some(attribute_type::STRING), s: Some(vec![0xff]), ..attribute("a", 1) };
    refused(with(latin), INVALID, "attribute_text", "UTF-8");
    let constant = |attribute: Vec<AttributeProto>| {
        edited(model(), |g| g.node.insert(0, NodeProto { attribute, ..node("Constant", &[], &["c"]) }))
    };
    refused(constant(vec![]), INVALID, "constant_value", "0 values");
    refused(constant(vec![attribute("value_float", 1)]), INVALID, "constant_value", "value_float");
}

#[test]
fn tensors_that_lie_about_their_data() {
    let with = |tensor: TensorProto| edited(model(), |g| g.initializer.push(tensor));
    refused(with(floats("w", &[-1], &[])), INVALID, "tensor_dims", "-1");
    refused(with(floats("w", &[1 << 40, 1 << 40], &[1.0])), INVALID, "tensor_too_large", "2^31");
    // Two gigabytes are declared, four bytes are there: nothing may be allocated.
    refused(with(floats("w", &[1 << 29], &[1.0])), INVALID, "tensor_data_length", "536870912");
    let raw = TensorProto { raw_data: Some(vec![0; 3].into()), ..floats("w", &[1], &[]) };
    refused(with(raw), INVALID, "tensor_data_length", "take 4 bytes, the file has 3");
    let both = TensorProto { raw_data: Some(vec![0; 4].into()), ..floats("w", &[1], &[1.0]) };
    refused(with(both), INVALID, "tensor_data_twice", "more than one field");
    refused(with(codes("w", data_type::INT8, &[1], &[200])), INVALID, "tensor_range", "200 is outside int8");
    refused(with(codes("w", data_type::BOOL, &[1], &[3])), INVALID, "tensor_range", "bool");
    refused(with(codes("w", data_type::INT4, &[3], &[1])), INVALID, "tensor_data_length", "int4");
    // Four bits are held in eight, which a cast must not follow.
    let cast = edited(with(codes("w", data_type::INT4, &[2], &[0x21])), |g| {
        g.node = vec![node("CastLike", &["x", "w"], &["y"])];
    });
    let spelt_out = &onnx::decode(&cast.encode_to_vec(), "m", None).unwrap().nodes[0];
    assert_eq!((spelt_out.op_type.as_str(), spelt_out.int("to", 0).unwrap()), ("Cast", 22));
    refused(with(codes("w", 0, &[1], &[1])), INVALID, "tensor_type", "undefined");
    refused(with(codes("w", 77, &[1], &[1])), INVALID, "tensor_type", "77");
    let elsewhere = TensorProto { data_location: Some(5), ..floats("w", &[1], &[1.0]) };
    refused(with(elsewhere), INVALID, "tensor_location", "location 5");
    refused(edited(model(), |g| g.input[0] = value("x", 1, &[-5])), INVALID, "shape_negative", "-5");
    let typed = edited(model(), |g| {
        g.initializer.push(floats("w", &[1], &[1.0]));
        g.input.push(value("w", data_type::INT8, &[1]));
    });
    refused(typed, INVALID, "tensor_type_conflict", "declared int8");
    let shaped = edited(model(), |g| {
        g.initializer.push(floats("w", &[1], &[1.0]));
        g.input.push(value("w", data_type::FLOAT, &[7]));
    });
    refused(shaped, INVALID, "tensor_shape_conflict", "Fixed(7)");
}

#[test]
fn external_data_that_cannot_be_trusted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("w.bin"), [0; 8]).unwrap();
    let with = |pairs: &[(&str, &str)]| {
        let entry = |&(k, v): &(&str, &str)| StringStringEntryProto { key: text(k), value: text(v) };
        let external_data = pairs.iter().map(entry).collect();
        let tensor = TensorProto { data_location: Some(1), external_data, ..floats("w", &[2], &[]) };
        edited(model(), |g| g.initializer.push(tensor))
    };
    refused(with(&[("location", "w.bin")]), INVALID, "external_data_base", "without a folder");
    let code = |pairs: &[(&str, &str)]| {
        let error = error_of(&with(pairs), Some(dir.path()));
        assert!(error.to_string().contains("'w'") || error.kind() == Kind::Io, "{error}");
        error.code()
    };
    assert_eq!(code(&[("location", "../w.bin")]), "external_data_path");
    assert_eq!(code(&[("location", "w.bin"), ("offset", "4")]), "external_data_range");
    assert_eq!(code(&[("location", "w.bin"), ("length", "7")]), "external_data_length");
    assert_eq!(code(&[("location", "w.bin"), ("offset", "many")]), "external_data_number");
    assert_eq!(code(&[("location", "w.bin"), ("compression", "zip")]), "external_data_key");
    assert_eq!(code(&[("location", "gone.bin")]), "io");
    onnx::decode(&with(&[("location", "w.bin"), ("length", "8")]).encode_to_vec(), "m", Some(dir.path())).unwrap();
    assert_eq!(onnx::read(dir.path()).unwrap_err().code(), "model_file");
    assert_eq!(onnx::read(dir.path().join("none.onnx")).unwrap_err().code(), "io");
}

#[test]
fn quantization_that_makes_no_sense() {
    let scale = |values: &[f32], dims: &[i64]| {
        let scale = floats("s", dims, values);
        edited(quantized(), |g| g.initializer[0] = scale)
    };
    for bad in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        refused(scale(&[bad], &[]), INVALID, "encoding_scale", "'s'");
    }
    refused(scale(&[1.0; 4], &[2, 2]), INVALID, "scale_shape", "without a block size");
    refused(scale(&[], &[0]), INVALID, "encoding_length", "0 scales");
    let far = |g: &mut GraphProto| {
        for n in &mut g.node {
            n.attribute = vec![attribute("axis", 5)];
        }
    };
    refused(edited(scale(&[1.0; 4], &[4]), far), INVALID, "quantization_axis", "axis 5");
    let block = |g: &mut GraphProto| g.node[0].attribute = vec![attribute("block_size", -1)];
    refused(edited(quantized(), block), INVALID, "quantization_block", "-1");
    let integers = codes("s", data_type::INT32, &[], &[1]);
    refused(edited(quantized(), |g| g.initializer[0] = integers), INVALID, "scale_type", "int32");
    let dynamic = edited(quantized(), |g| {
        g.initializer.remove(0);
        g.input.push(value("s", data_type::FLOAT, &[]));
    });
    refused(dynamic, UNSUPPORTED, "quantization_dynamic", "'s' is not constant");
    let reread = edited(quantized(), |g| {
        g.initializer.push(floats("s2", &[], &[0.25]));
        g.node[1].input[1] = "s2".into();
    });
    refused(reread, UNSUPPORTED, "quantization_reinterpreted", "another scale");
    let wide = edited(quantized(), |g| g.initializer[1] = codes("z", data_type::BOOL, &[], &[1]));
    refused(wide, UNSUPPORTED, "quantized_type", "bool");
    let lists = edited(quantized(), |g| g.initializer[1] = codes("z", data_type::UINT8, &[3], &[1, 2, 3]));
    refused(lists, INVALID, "encoding_length", "3 zero points");
    let weight = edited(model(), |g| {
        g.initializer = vec![
            codes("w", data_type::INT8, &[2, 2], &[1, 2, 3, 4]),
            floats("s", &[3], &[1.0; 3]),
            codes("z", data_type::UINT8, &[], &[0]),
        ];
        g.node = vec![
            NodeProto { attribute: vec![attribute("axis", 0)], ..node("DequantizeLinear", &["w", "s"], &["f"]) },
            node("Add", &["x", "f"], &["y"]),
        ];
    });
    refused(weight.clone(), INVALID, "encoding_axis", "3 scales do not fit shape [2, 2]");
    let other_type = edited(weight, |g| g.node[0].input.push("z".into()));
    refused(other_type, INVALID, "zero_point_type", "uint8");
    let no_scale = edited(quantized(), |g| g.node[0].input.truncate(1));
    refused(no_scale, INVALID, "node_inputs", "no scale");
    let surplus = edited(quantized(), |g| g.node[0].attribute = vec![attribute("mystery", 1)]);
    refused(surplus, UNSUPPORTED, "attribute_unknown", "mystery");
}

#[test]
fn qlinear_operators_out_of_reach() {
    let q = |op: &str, inputs: &[&str], attributes: Vec<AttributeProto>| {
        edited(quantized(), |g| {
            g.node[1].input[0] = "r".into();
            let added = NodeProto { domain: text("com.microsoft"), attribute: attributes, ..node(op, inputs, &["r"]) };
            g.node.insert(1, added);
        })
    };
    let good = q("QLinearSigmoid", &["q", "s", "z", "s", "z"], vec![]);
    let graph = onnx::decode(&good.encode_to_vec(), "m", None).unwrap();
    assert_eq!((graph.nodes.len(), graph.nodes[0].op_type.as_str()), (1, "Sigmoid"));
    refused(q("QLinearWhere", &["q", "s", "z", "s", "z"], vec![]), UNSUPPORTED, "qlinear_operator", "QLinearWhere");
    refused(q("QLinearSigmoid", &["q", "s", "z"], vec![]), INVALID, "node_inputs", "no input 3");
    let last = vec![attribute("channels_last", 1)];
    refused(q("QLinearGlobalAveragePool", &["q", "s", "z", "s", "z"], last), UNSUPPORTED, "channels_last", "last");
    refused(q("QLinearConcat", &["s", "z"], vec![]), INVALID, "node_inputs", "2 inputs");
    refused(q("QLinearConcat", &["s"], vec![]), INVALID, "node_inputs", "1 inputs");
    let float = edited(q("QLinearSigmoid", &["q", "s", "z", "s", "z"], vec![]), |g| g.node[1].input[0] = "x".into());
    refused(float, UNSUPPORTED, "quantized_operand", "'x'");
}

/// Plans a model of `x`, one float, and constants, whose values may take 64 MiB.
fn plan(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> Result<(), Error> {
    let mut model = edited(model(), |g| {
        g.input = vec![value("x", data_type::FLOAT, &[1, 1, 1, 1])];
        g.output[0].r#type = None;
        g.node = nodes;
        g.initializer = constants;
    });
    model.opset_import[0].version = Some(13);
    let graph = onnx::decode(&model.encode_to_vec(), "m", None)?;
    let options = Options { threads: 1, max_memory: Some(64 << 20), ..Options::default() };
    let session = Session::new(graph, Spec::load("float")?, options)?;
    session.report(session.default_shapes()?).map(drop)
}

#[test]
fn small_models_that_ask_for_much_memory() {
    let scalar = |name: &str, data: i64| TensorProto { dims: vec![], ..ints(name, &[data]) };
    let large = ints("large", &[1, 1, 1 << 15, 1 << 15]);
    let scales = floats("scales", &[4], &[1.0, 1.0, 32768.0, 32768.0]);
    let cases = [
        (vec![node("Expand", &["x", "large"], &["y"])], vec![large.clone()]),
        (vec![node("ConstantOfShape", &["large"], &["y"])], vec![large.clone()]),
        (vec![node("Tile", &["x", "large"], &["y"])], vec![large.clone()]),
        (
            vec![node("Range", &["from", "to", "step"], &["y"])],
            vec![scalar("from", 0), scalar("to", 1 << 30), scalar("step", 1)],
        ),
        (vec![node("Pad", &["x", "pads"], &["y"])], vec![ints("pads", &[0, 0, 0, 0, 0, 0, 1 << 15, 1 << 15])]),
        (vec![node("Resize", &["x", "", "scales"], &["y"])], vec![scales.clone()]),
        (
            vec![node("OneHot", &["indices", "depth", "values"], &["y"])],
            vec![ints("indices", &[1, 2]), scalar("depth", 1 << 29), floats("values", &[2], &[0.0, 1.0])],
        ),
        (
            vec![node("Expand", &["x", "large"], &["data"]), node("ScatterND", &["data", "at", "update"], &["y"])],
            vec![
                large.clone(),
                TensorProto { dims: vec![1, 4], ..ints("at", &[0; 4]) },
                floats("update", &[1], &[1.0]),
            ],
        ),
        // No value is large, many live at one time.
        (
            (0..5)
                .map(|i| node("Expand", &["x", "size"], &[["a", "b", "c", "d", "e"][i]]))
                .chain([node("Sum", &["a", "b", "c", "d", "e"], &["y"])])
                .collect(),
            vec![ints("size", &[1, 1, 2048, 2048])],
        ),
    ];
    for (nodes, constants) in cases {
        let shown = format!("{nodes:?}");
        let error = plan(nodes, constants).expect_err(&shown);
        assert_eq!((error.kind(), error.code()), (INVALID, "memory_limit"), "{shown}: {error}");
        assert!(error.to_string().contains("at node 'n_") && error.to_string().contains("64.0 MiB"), "{error}");
    }
    // Three values of 16 MiB at one time; the constant is one of them, since folding it would leave no room for others.
    let size = ints("size", &[1, 1, 2048, 2048]);
    let sum = vec![
        node("Expand", &["x", "size"], &["a"]),
        node("ConstantOfShape", &["size"], &["b"]),
        node("Add", &["a", "b"], &["y"]),
    ];
    plan(sum, vec![size]).unwrap();
}

#[test]
fn more_threads_than_anybody_wants() {
    let graph = onnx::decode(&model().encode_to_vec(), "m", None).unwrap();
    let options = Options { threads: 1 << 20, ..Options::default() };
    let Err(error) = Session::new(graph, Spec::load("float").unwrap(), options) else { panic!("it started them") };
    assert!(error.code() == "threads" && error.message().contains("1048576"), "{error}");
}
