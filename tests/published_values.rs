//! Values that others published from hardware, against the rules that claim to explain them.
//!
//! `tests/vectors/published/values.json` holds for each value its operands, the published codes and the public file that
//! they stand in. Values marked `unexplained` are asserted to differ: a rule that begins to explain one must say so here.

use nputwin::encoding::Encoding;
use nputwin::exec::{Options, Session};
use nputwin::graph::{Attribute, Graph, Node, Port, TensorId, TensorInfo, qdq};
use nputwin::spec::Spec;
use nputwin::tensor::{DType, Data, Tensor};
use serde_json::Value;
use std::sync::Arc;

/// The target of a value that names none.
const TARGET: &str = "htp_v75";

/// Published values that no rule can be held against, and why.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("lrn3_u8_v79", "inputs come from a random generator that the publisher does not print"),
    ("lrn5_u8_v79", "inputs come from a random generator that the publisher does not print"),
    ("inverse_u8_arm64", "inputs come from a random generator that the publisher does not print"),
    (
        "matmul_a16a16_dyn_large",
        "each flipped code of the converted operand moves the result by more than the difference",
    ),
    ("fp16_0 to fp16_5, cast_u8_f32", "float16 graphs: the target's rules are those of quantized graphs"),
    ("conv_a16w4_2024", "a bug of that release: results look four times too large"),
    ("conv_u8_dynw", "operands are not published"),
    ("layernorm_a16w8_2024", "a bug of that release"),
    ("gridsample_border, gridsample_reflect", "operands are not published"),
    ("cast_add_bool", "a bug of that release"),
];

fn encoding(v: &Value) -> Option<Arc<Encoding>> {
    let e = v.as_object()?;
    let encoding = Encoding::per_tensor(
        e["scale"].as_f64().unwrap(),
        e["zero_point"].as_i64().unwrap(),
        e["bits"].as_u64().unwrap() as u32,
        e["signed"].as_bool().unwrap(),
    );
    Some(Arc::new(encoding.unwrap()))
}

fn shape(v: &Value) -> Vec<usize> {
    v["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect()
}

fn codes(values: &Value, encoding: &Encoding) -> Data {
    let v = values.as_array().unwrap().iter().map(|v| v.as_i64().unwrap());
    match (encoding.bitwidth, encoding.signed) {
        (..=8, true) => Data::I8(v.map(|c| i8::try_from(c).unwrap()).collect()),
        (..=8, false) => Data::U8(v.map(|c| u8::try_from(c).unwrap()).collect()),
        (32, true) => Data::I32(v.map(|c| i32::try_from(c).unwrap()).collect()),
        (_, true) => Data::I16(v.map(|c| i16::try_from(c).unwrap()).collect()),
        (_, false) => Data::U16(v.map(|c| u16::try_from(c).unwrap()).collect()),
    }
}

fn computed(case: &Value) -> nputwin::Result<Vec<i64>> {
    computed_by(case, TARGET)
}

#[test]
fn padding_without_a_value_is_the_zero_point() {
    let case = serde_json::json!({
        "id": "pad", "op": "Pad", "attributes": {},
        "inputs": [
            { "shape": [2], "codes": [3, 250], "encoding": { "scale": 0.5, "zero_point": 7, "bits": 8, "signed": false } },
            { "shape": [2], "indices": [1, 1], "constant": true }
        ],
        "output": { "shape": [4], "encoding": { "scale": 0.5, "zero_point": 7, "bits": 8, "signed": false } }
    });
    assert_eq!(computed(&case).unwrap(), [7, 3, 250, 7]);
}

/// A product with re-encoded weights: those of the file reach from -100 to 20 around their zero point.
fn product(op: &str, x: &[usize], w: &[usize], bias: Option<Value>) -> Vec<i64> {
    let mut inputs = vec![
        serde_json::json!({ "shape": x, "codes": [40000, 30000, 20000, 10000, 5000, 60000],
            "encoding": { "scale": 0.001, "zero_point": 32768, "bits": 16, "signed": false } }),
        serde_json::json!({ "shape": w, "codes": [0, 20, 120, 100, 90, 77], "constant": true,
            "encoding": { "scale": 0.01, "zero_point": 100, "bits": 8, "signed": false } }),
    ];
    inputs.extend(bias);
    let shape: Vec<usize> = x[..x.len() - 1].iter().chain(&w[w.len() - 1..]).copied().collect();
    let y = serde_json::json!({ "scale": 0.0005, "zero_point": 30000, "bits": 16, "signed": false });
    let y = serde_json::json!({ "shape": shape, "encoding": y });
    let case = serde_json::json!({ "id": "product", "op": op, "attributes": {}, "inputs": inputs, "output": y });
    computed(&case).unwrap()
}

#[test]
fn reencoded_weights_serve_batches_and_integers_of_a_bias() {
    let plain = product("MatMul", &[2, 3], &[3, 2], None);
    assert_eq!(product("MatMul", &[1, 2, 3], &[1, 3, 2], None), plain);
    assert_ne!(plain, [0, 65535, 0, 65535], "the values tell something");
    let codes = serde_json::json!({ "shape": [2], "codes": [123456, -98765], "constant": true,
        "encoding": { "scale": 0.00001, "zero_point": 0, "bits": 32, "signed": true } });
    let reals = serde_json::json!({ "shape": [2], "reals": [1.23456, -0.98765], "constant": true });
    let with_codes = product("Gemm", &[2, 3], &[3, 2], Some(codes));
    assert_eq!(with_codes, product("Gemm", &[2, 3], &[3, 2], Some(reals)));
    let moved: Vec<i64> = with_codes.iter().zip(&plain).map(|(a, b)| a - b).collect();
    assert!(moved.iter().zip([2469, -1975, 2469, -1975]).all(|(a, b)| (a - b).abs() <= 2), "{moved:?} of {plain:?}");
}

/// Adds an operand: a constant, an input of reals, or an input of codes with its value for the run.
fn operand(graph: &mut Graph, feeds: &mut Vec<(String, Tensor)>, i: usize, v: &Value) -> TensorId {
    let (name, shape, encoding) = (format!("operand_{i}"), shape(v), encoding(&v["encoding"]));
    let list = |key: &str| v[key].as_array().cloned();
    let mut info = TensorInfo { name: name.clone(), dtype: Some(DType::F32), ..TensorInfo::default() };
    info.encoding = encoding.clone();
    let value = if let Some(indices) = list("indices") {
        info.dtype = Some(DType::I64);
        Tensor::i64(&shape, indices.iter().map(|v| v.as_i64().unwrap()).collect())
    } else if let Some(reals) = list("reals") {
        Tensor::f32(&shape, reals.iter().map(|v| v.as_f64().unwrap() as f32).collect())
    } else {
        Tensor::new(shape, codes(&v["codes"], encoding.as_ref().unwrap())).unwrap()
    };
    if v["constant"].as_bool() == Some(true) {
        if value.dtype() == DType::F32 || value.dtype() == DType::I64 {
            info.constant = Some(value.into());
        } else {
            let e = encoding.unwrap();
            let real = |c: i64| ((c - e.zero_point[0]) as f64 * e.scale[0]) as f32;
            let reals = value.to_i64().unwrap().into_iter().map(real).collect();
            info.constant = Some(Tensor::f32(value.shape(), reals).into());
            info.codes = Some(value.into());
        }
        return graph.add_tensor(info);
    }
    let tensor = graph.add_tensor(info);
    graph.inputs.push(Port { name: name.clone(), tensor, quantized: value.dtype() != DType::F32 });
    feeds.push((name.clone(), value));
    let Some(to) = self::encoding(&v["converted"]) else { return tensor };
    let info = TensorInfo { name: format!("{name}_converted"), dtype: Some(DType::F32), ..TensorInfo::default() };
    let converted = graph.add_tensor(TensorInfo { encoding: Some(to), ..info });
    graph.nodes.push(Node {
        name: format!("{name}_converted"),
        op_type: qdq::QUANTIZE.into(),
        domain: qdq::DOMAIN.into(),
        inputs: vec![Some(tensor)],
        outputs: vec![Some(converted)],
        ..Node::default()
    });
    converted
}

fn attribute(v: &Value) -> Attribute {
    v.as_i64().map_or_else(|| Attribute::String(v.as_str().unwrap().into()), Attribute::Int)
}

/// The codes that a target gives for the elements that were published.
fn computed_by(case: &Value, target: &str) -> nputwin::Result<Vec<i64>> {
    let mut graph = Graph { name: case["id"].as_str().unwrap().into(), ..Graph::default() };
    graph.opsets.insert(String::new(), 20);
    let mut feeds = Vec::new();
    let operands = case["inputs"].as_array().unwrap().iter().enumerate();
    let present = |v: &Value| v["absent"].as_bool() != Some(true);
    let inputs = operands.map(|(i, v)| present(v).then(|| operand(&mut graph, &mut feeds, i, v))).collect();
    let y = graph.add_tensor(TensorInfo {
        name: "y".into(),
        dtype: Some(DType::F32),
        encoding: encoding(&case["output"]["encoding"]),
        ..TensorInfo::default()
    });
    graph.outputs.push(Port { name: "y".into(), tensor: y, quantized: true });
    let attributes = case["attributes"].as_object().into_iter().flatten();
    graph.nodes.push(Node {
        name: graph.name.clone(),
        op_type: case["op"].as_str().unwrap().into(),
        inputs,
        outputs: vec![Some(y)],
        attributes: attributes.map(|(k, v)| (k.clone(), attribute(v))).collect(),
        ..Node::default()
    });
    let options = Options { threads: 1, ..Options::default() };
    let session = Session::new(graph, Spec::load(target)?, options)?;
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let out = session.run(&feeds)?.outputs.remove(0).1;
    assert_eq!(out.shape(), shape(&case["output"]));
    let all = out.to_i64()?;
    Ok(match case["element"].as_u64() {
        Some(element) => vec![all[element as usize]],
        None => all,
    })
}

#[test]
fn rules_reproduce_the_values_that_they_cite() {
    let text = include_str!("vectors/published/values.json");
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    let mut faults = Vec::new();
    let (mut explained, mut open) = (0, 0);
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let published: Vec<i64> = case["codes"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
        let known = case["unexplained"].as_str();
        let targets = case["targets"].as_array().cloned().unwrap_or_else(|| vec![TARGET.into()]);
        for target in targets.iter().map(|t| t.as_str().unwrap()) {
            let computed = computed_by(case, target).unwrap_or_else(|e| panic!("{id} under {target}: {e}"));
            let said = known.unwrap_or("explained");
            println!("{id:>24} {target}: published {published:?}, computed {computed:?}, {said}");
            match (known, computed == published) {
                (None, true) => explained += 1,
                (Some(_), false) => open += 1,
                (None, false) => faults.push(format!("{id}, {target}: published {published:?}, computed {computed:?}")),
                (Some(_), true) => faults.push(format!("{id} is explained by {target}: take 'unexplained' from it")),
            }
        }
        assert!(!case["source"].as_str().unwrap().is_empty());
    }
    println!("{explained} explained, {open} not, {} not compared", NOT_COMPARED.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
