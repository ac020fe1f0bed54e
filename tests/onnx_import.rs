//! Real models and small ones: what quantization in a file becomes in the graph.

use nputwin::encoding::Granularity;
use nputwin::graph::Graph;
use nputwin::onnx;
use std::path::{Path, PathBuf};

/// The folder of shared test models, where this machine has one.
fn shared() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = root.ancestors().take(4).map(|dir| dir.join("shared")).find(|dir| dir.join("models").is_dir());
    if found.is_none() {
        eprintln!("skipped: no folder 'shared' with models near {}", root.display());
    }
    found
}

fn models(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(models(&path));
        } else if path.extension().is_some_and(|e| e == "onnx") {
            out.push(path);
        }
    }
    out.sort();
    out
}

fn count(graph: &Graph, op_type: &str) -> usize {
    graph.nodes.iter().filter(|n| n.op_type == op_type).count()
}

#[test]
fn quantized_networks_become_float_operators_with_encodings() {
    let Some(shared) = shared() else { return };
    for (file, nodes, quantized) in
        [("resnet18.q.onnx", 32, 33), ("resnet50.q.onnx", 73, 74), ("mobilenet_v2.q.onnx", 65, 66)]
    {
        let graph = onnx::read(shared.join("models").join(file)).unwrap();
        assert_eq!(graph.nodes.len(), nodes, "{file}");
        assert_eq!(count(&graph, "QuantizeLinear") + count(&graph, "DequantizeLinear"), 0, "{file}");
        let activations = graph.tensors.iter().filter(|t| t.constant.is_none() && t.encoding.is_some()).count();
        assert_eq!(activations, quantized, "{file}: one encoding per QuantizeLinear");
        for node in graph.nodes.iter().filter(|n| matches!(n.op_type.as_str(), "Conv" | "Gemm")) {
            let weight = &graph.tensors[node.inputs[1].unwrap()];
            let bias = &graph.tensors[node.inputs[2].unwrap()];
            let channels = weight.constant.as_ref().unwrap().shape()[0];
            let encoding = weight.encoding.as_ref().unwrap();
            assert_eq!(encoding.granularity, Granularity::PerChannel { axis: 0 }, "{file} {}", node.name);
            assert_eq!((encoding.scale.len(), encoding.bitwidth, encoding.signed), (channels, 8, true));
            assert!(weight.codes.is_some() && bias.codes.is_some(), "{file} {}", node.name);
            assert_eq!(bias.encoding.as_ref().unwrap().bitwidth, 32);
        }
        let output = &graph.outputs[0];
        assert_eq!((output.name.as_str(), output.quantized), ("y", false));
        assert!(graph.tensors[output.tensor].encoding.is_some(), "{file}: the output is a dequantized tensor");
        assert!(graph.find("y").is_some());
    }
}

#[test]
fn every_export_imports_without_quantizers_and_copies_of_constants() {
    let Some(shared) = shared() else { return };
    let files = models(&shared.join("aimet-exports"));
    assert!(files.len() >= 20, "{} exports", files.len());
    for file in files {
        let graph = onnx::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for op_type in ["QuantizeLinear", "DequantizeLinear", "Identity", "Constant"] {
            assert_eq!(count(&graph, op_type), 0, "{}: {op_type}", file.display());
        }
        let quantized = graph.tensors.iter().filter(|t| t.encoding.is_some()).count();
        let qdq = file.ends_with("model_qdq.onnx");
        assert_eq!(quantized > 10, qdq, "{}: {quantized} encodings", file.display());
    }
}

#[test]
fn exports_keep_names_bits_and_both_names_of_shared_constants() {
    let Some(shared) = shared() else { return };
    let graph = onnx::read(shared.join("aimet-exports/zoo_w4a16/model_qdq.onnx")).unwrap();
    let weight = &graph.tensors[graph.find("c1.weight").unwrap()];
    assert_eq!(weight.aliases, ["c1.weight_q", "c1.weight_qdq"]);
    let encoding = weight.encoding.as_ref().unwrap();
    assert_eq!((encoding.bitwidth, encoding.signed, encoding.scale.len()), (4, true, 16));
    assert!(weight.codes.is_none(), "the file has reals, the target's rule makes the integers");
    let input = &graph.tensors[graph.inputs[0].tensor];
    assert_eq!((input.name.as_str(), input.encoding.as_ref().unwrap().bitwidth), ("x", 16));
    assert_eq!(input.aliases, ["x_q", "x_qdq"]);
    let block = onnx::read(shared.join("aimet-exports/block_w8a8/model_2.1.0.onnx")).unwrap();
    for name in ["n1.weight", "n1.weight_dup_1"] {
        assert!(block.tensors[block.find(name).unwrap()].constant.is_some(), "{name}");
    }
}
