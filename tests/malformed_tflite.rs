//! TFLite files that are wrong: each gives an error of its own, none a panic, a hang or an allocation by declared size.

#[path = "support/tflite.rs"]
mod support;

use nputwin::{Error, Kind, tflite};
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::{FLOAT32, Model, Operator, Options, Tensor, convolution};

fn fault(change: impl FnOnce(&mut Model)) -> Error {
    let mut model = convolution();
    change(&mut model);
    tflite::decode(&model.bytes(), "m.tflite").unwrap_err()
}

#[test]
fn every_fault_has_its_code_and_a_text_of_its_own() {
    type Change = Box<dyn FnOnce(&mut Model)>;
    let cases: Vec<(&str, Change)> = vec![
        ("model_identifier", Box::new(|m| m.identifier = "TFL2")),
        ("model_version", Box::new(|m| m.version = 2)),
        ("model_graph", Box::new(|m| m.subgraphs = 0)),
        ("subgraphs", Box::new(|m| m.subgraphs = 2)),
        ("graph_outputs", Box::new(|m| m.outputs.clear())),
        ("tensor_index", Box::new(|m| m.outputs = vec![9])),
        ("tensor_index", Box::new(|m| m.inputs = vec![-1])),
        ("tensor_index", Box::new(|m| m.operators[0].inputs[1] = 4)),
        ("tensor_index", Box::new(|m| m.operators[0].outputs[0] = -1)),
        ("node_inputs", Box::new(|m| m.operators[0].inputs[1] = -1)),
        ("node_inputs", Box::new(|m| m.operators[0].inputs.truncate(1))),
        ("node_outputs", Box::new(|m| m.operators[0].outputs.clear())),
        (
            "node_outputs",
            Box::new(|m| {
                m.tensors.push(Tensor { name: "z".into(), ..m.tensors[3].clone() });
                m.operators[0].outputs.push(4);
            }),
        ),
        ("node_outputs", Box::new(|m| m.operators[0].outputs[0] = 1)),
        ("opcode_index", Box::new(|m| m.operators[0].code = 7)),
        ("op_unknown", Box::new(|m| m.codes[0] = 4000)),
        ("op_unsupported", Box::new(|m| m.codes[0] = 16)),
        ("op_control_flow", Box::new(|m| m.codes[0] = 119)),
        (
            "op_custom",
            Box::new(|m| {
                m.codes[0] = 32;
                m.custom = Some("TFLite_Detection_PostProcess");
            }),
        ),
        ("variable_tensor", Box::new(|m| m.tensors[0].variable = true)),
        ("sparse_tensor", Box::new(|m| m.tensors[1].sparse = true)),
        ("tensor_type", Box::new(|m| m.tensors[0].dtype = 5)),
        ("shape_negative", Box::new(|m| m.tensors[0].shape[1] = -4)),
        ("tensor_too_large", Box::new(|m| m.tensors[0].shape = vec![i32::MAX; 4])),
        ("shape_signature", Box::new(|m| m.tensors[0].signature = vec![-1, 4])),
        ("buffer_index", Box::new(|m| m.tensors[1].buffer = 3)),
        ("tensor_bytes", Box::new(|m| m.tensors[1].shape[0] = 4)),
        ("tensor_bytes", Box::new(|m| m.buffers[2].truncate(11))),
        ("input_not_constant", Box::new(|m| m.tensors[1].buffer = 0)),
        ("input_constant", Box::new(|m| m.inputs = vec![0, 1])),
        ("encoding_scale", Box::new(|m| m.tensors[0].scale[0] = f32::NAN)),
        ("encoding_scale", Box::new(|m| m.tensors[1].scale[1] = 0.0)),
        ("encoding_scale", Box::new(|m| m.tensors[2].scale[1] = f32::INFINITY)),
        ("encoding_zero_point", Box::new(|m| m.tensors[0].zero_point[0] = 128)),
        ("encoding_length", Box::new(|m| m.tensors[1].scale.truncate(2))),
        ("encoding_length", Box::new(|m| m.tensors[1].axis = 3)),
        ("encoding_axis", Box::new(|m| m.tensors[1].axis = 4)),
        ("quantization_details", Box::new(|m| m.tensors[1].details = 2)),
        ("dynamic_range", Box::new(|m| (m.tensors[0].dtype, m.tensors[0].scale) = (FLOAT32, vec![]))),
        ("node_options", Box::new(|m| m.operators[0].options.number = 0)),
        ("node_options", Box::new(|m| m.operators[0].options = Options { number: 5, ..Options::default() })),
        ("node_options", Box::new(|m| m.operators[0].options.ints[0].1 = 0)),
        ("node_options", Box::new(|m| m.operators[0].options.ints[1].1 = -1)),
        ("node_options", Box::new(|m| m.operators[0].options.bytes[0].1 = 2)),
        ("fused_activation", Box::new(|m| m.operators[0].options.bytes[1].1 = 4)),
        ("node_shape", Box::new(|m| m.tensors[0].shape = vec![1, 4, 5, 3])),
        ("node_shape", Box::new(|m| m.tensors[0].shape = vec![4, 5, 2])),
        ("tensor_shape_conflict", Box::new(|m| m.tensors[3].shape[1] = 5)),
        ("tensor_shape_conflict", Box::new(|m| m.tensors[3].shape = vec![60])),
        ("graph", Box::new(|m| m.inputs.clear())),
        ("tensor_twice", Box::new(|m| m.operators.push(m.operators[0].clone()))),
        ("tensor_twice", Box::new(|m| m.operators[0].outputs[0] = 0)),
        // The reals of the output, which are one tensor with its codes in the graph, written twice.
        (
            "tensor_twice",
            Box::new(|m| {
                m.codes.push(6);
                let real = Tensor { dtype: FLOAT32, scale: vec![], zero_point: vec![], ..m.tensors[3].clone() };
                m.tensors.push(Tensor { name: "real_y".into(), ..real });
                let reals = Operator { code: 1, inputs: vec![3], outputs: vec![4], ..Operator::default() };
                m.operators.extend([reals.clone(), reals]);
                m.outputs = vec![4];
            }),
        ),
    ];
    let mut texts: BTreeMap<String, &str> = BTreeMap::new();
    for (i, (code, change)) in cases.into_iter().enumerate() {
        let error = fault(change);
        assert_eq!(error.code(), code, "case {i}: {error}");
        assert!(matches!(error.kind(), Kind::Invalid | Kind::UnsupportedByNputwin));
        assert_eq!(texts.insert(error.to_string(), code), None, "case {i}: {error}");
    }
}

#[test]
fn errors_name_the_operator_and_the_tensor() {
    let custom = fault(|m| {
        m.codes[0] = 32;
        m.custom = Some("Mine");
    });
    assert!(custom.to_string().contains("'Mine'"), "{custom}");
    let lstm = fault(|m| m.codes[0] = 16).to_string();
    assert!(lstm.contains("LSTM") && lstm.contains("'y'"), "{lstm}");
    let scale = fault(|m| m.tensors[0].scale[0] = -1.0).to_string();
    assert!(scale.contains("'x'"), "{scale}");
}

#[test]
fn a_cycle_is_found() {
    let error = fault(|m| {
        // y → RELU → x → CONV_2D → y, and nothing from outside.
        m.codes.push(19);
        m.operators.push(Operator { code: 1, inputs: vec![3], outputs: vec![0], ..Operator::default() });
        m.tensors.push(Tensor { name: "unused".into(), ..m.tensors[0].clone() });
        m.inputs = vec![4];
    });
    assert_eq!(error.code(), "graph", "{error}");
    assert!(error.message().contains("before it is written"), "{error}");
}

#[test]
fn names_that_are_missing_or_doubled_become_unique() {
    let mut model = convolution();
    model.tensors[0].name.clear();
    model.tensors[2].name = "y".into();
    let graph = tflite::decode(&model.bytes(), "m.tflite").unwrap();
    assert_eq!(graph.inputs[0].name, "tensor_0");
    assert_eq!(graph.outputs[0].name, "y_3");
}

#[test]
fn every_prefix_of_a_file_is_an_error() {
    let bytes = convolution().bytes();
    for length in 0..bytes.len() {
        let error = tflite::decode(&bytes[..length], "m.tflite").unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{length}: {error}");
    }
}

#[test]
fn every_changed_byte_is_read_or_refused() {
    let bytes = convolution().bytes();
    for at in 0..bytes.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = tflite::decode(&changed, "m.tflite");
        }
    }
}

proptest! {
    #[test]
    fn changed_words_are_read_or_refused(at in 0usize..400, words in prop::collection::vec(any::<u32>(), 1..4)) {
        let mut bytes = convolution().bytes();
        let at = at.min(bytes.len() - 16) & !3;
        for (i, word) in words.iter().enumerate() {
            bytes[at + 4 * i..at + 4 * i + 4].copy_from_slice(&word.to_le_bytes());
        }
        let _ = tflite::decode(&bytes, "m.tflite");
    }

    #[test]
    fn noise_behind_the_identifier_is_read_or_refused(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![16, 0, 0, 0];
        bytes.extend(b"TFL3");
        bytes.extend(noise);
        let _ = tflite::decode(&bytes, "m.tflite");
    }
}
