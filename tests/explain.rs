//! Every element of every tensor has an explanation that ends in what the run computes.

mod support;

use nputwin::exec::{Captured, Options, Session};
use nputwin::graph::{Attribute, Graph, TensorId};
use nputwin::ops::Explanation;
use nputwin::spec::Spec;
use nputwin::tensor::{Data, Tensor};
use support::{Builder, ints, network, network_input, per_tensor};

fn session(graph: &Graph, spec: Spec) -> Session {
    Session::new(graph.clone(), spec, Options { threads: 1, ..Options::default() }).unwrap()
}

/// Element `index` as traces write it.
fn written(captured: &Captured, index: usize) -> String {
    let tensor = captured.codes.as_ref().unwrap_or(&captured.value);
    match tensor.data() {
        Data::F32(v) => format!("{:?}", v[index]),
        Data::Bool(v) => v[index].to_string(),
        _ => tensor.to_i64().unwrap()[index].to_string(),
    }
}

/// Explains elements of all tensors that kernels compute, and gives the explanations of the last one.
fn explain_all(graph: &Graph, spec: Spec, feeds: &[(&str, &Tensor)], step: usize) -> Vec<Explanation> {
    let session = session(graph, spec);
    let target = session.spec().name.clone();
    let captured = session.run_with(feeds, true, &mut || Ok(())).unwrap().captured;
    let mut last = Vec::new();
    for tensor in &captured {
        let t = session.graph().find(&tensor.name).unwrap();
        let is_input = session.graph().inputs.iter().any(|p| p.tensor == t);
        if is_input && tensor.codes.is_none() {
            continue;
        }
        last.clear();
        for index in (0..tensor.value.len()).step_by(step) {
            let explanation = session.explain(feeds, &tensor.name, index);
            let explanation = explanation.unwrap_or_else(|e| panic!("{target}: '{}' [{index}]: {e}", tensor.name));
            let place = format!("{target}: '{}' [{index}]:\n{explanation}", tensor.name);
            assert_eq!(explanation.trace.result, written(tensor, index), "{place}");
            assert!(!explanation.trace.steps.is_empty(), "{place}");
            assert_eq!((explanation.index, &explanation.target), (index, &target));
            last.push(explanation);
        }
    }
    last
}

fn act(scale: f64, zero_point: i64) -> Option<nputwin::encoding::Encoding> {
    Some(per_tensor(scale, zero_point, 8, false))
}

fn reals(seed: u64, shape: &[usize]) -> Tensor {
    let mut numbers = support::Numbers::new(seed);
    Tensor::f32(shape, (0..shape.iter().product()).map(|_| numbers.real() * 3.0).collect())
}

/// A graph of one node on an input of `shape`, whose last tensor is the node's output.
fn one(shape: &[usize], build: impl Fn(&mut Builder, TensorId) -> TensorId) -> (Graph, Tensor) {
    let mut b = Builder::new(3);
    let x = b.input(shape, act(0.03, 120));
    let y = build(&mut b, x);
    b.output(y);
    (b.graph, reals(5, shape))
}

fn explain_one(target: &str, shape: &[usize], build: impl Fn(&mut Builder, TensorId) -> TensorId) -> Vec<Explanation> {
    let (graph, x) = one(shape, build);
    explain_all(&graph, Spec::load(target).unwrap(), &[("x1", &x)], 1)
}

#[test]
fn whole_networks() {
    let (graph, input) = (network(7), network_input(8, 1));
    let name = graph.inputs[0].name.clone();
    for target in ["float", "fake_quant", "onnxruntime_cpu", "htp_v75", "float16"] {
        explain_all(&graph, Spec::load(target).unwrap(), &[(&name, &input)], 331);
    }
}

#[test]
fn movement_names_the_element_that_moved() {
    let same = || act(0.03, 120);
    for target in ["onnxruntime_cpu", "htp_v75"] {
        for explanation in explain_one(target, &[1, 2, 3, 4], |b, x| {
            b.node("Transpose", &[x], &[("perm", ints(&[0, 2, 3, 1]))], same())
        }) {
            let (at, [h, w, c]) = (explanation.index, [4, 2, 2]);
            let expected = format!("input 0, x1[0, {}, {}, {}]", at % c, at / c / h, at / c % h);
            assert_eq!(explanation.operands[0].1, expected, "{w}");
        }
    }
}

#[test]
fn joined_operands_are_told_apart_and_their_requantization_is_part_of_the_trace() {
    for target in ["onnxruntime_cpu", "htp_v75"] {
        let mut b = Builder::new(3);
        let (x, z) = (b.input(&[1, 2, 3], act(0.03, 120)), b.input(&[1, 1, 3], act(0.05, 7)));
        let y = b.node("Concat", &[x, z], &[("axis", Attribute::Int(1))], act(0.04, 100));
        b.output(y);
        let (a, c) = (reals(1, &[1, 2, 3]), reals(2, &[1, 1, 3]));
        let feeds = [("x1", &a), ("x2", &c)];
        for explanation in explain_all(&b.graph, Spec::load(target).unwrap(), &feeds, 1) {
            let source = if explanation.index < 6 { "input 0, x1" } else { "input 1, x2" };
            assert!(explanation.operands[0].1.starts_with(source), "{explanation}");
            assert!(explanation.trace.steps.iter().any(|s| s.kind == "stage"), "{target}: {explanation}");
        }
    }
}

#[test]
fn padding_says_that_it_is_none_of_the_input() {
    for target in ["onnxruntime_cpu", "htp_v75", "fake_quant", "float"] {
        let mut fills = 0;
        for explanation in explain_one(target, &[1, 2, 3], |b, x| {
            let pads = b.constant(Tensor::i64(&[6], vec![0, 0, 1, 0, 0, 2]), None);
            b.node("Pad", &[x, pads], &[], act(0.03, 120))
        }) {
            let is_fill = ![1, 2, 3].contains(&(explanation.index % 6));
            assert_eq!(explanation.operands[0].1.contains("fill value"), is_fill, "{target}: {explanation}");
            fills += usize::from(is_fill);
        }
        assert_eq!(fills, 6, "{target}");
    }
}

#[test]
fn what_is_picked_by_value_names_the_first_of_equal_ones() {
    for target in ["onnxruntime_cpu", "htp_v75", "float"] {
        for (op, attributes) in [
            ("MaxPool", vec![("kernel_shape", ints(&[2, 2])), ("pads", ints(&[1, 0, 0, 1]))]),
            ("GlobalMaxPool", vec![]),
            ("ReduceMax", vec![("axes", ints(&[2]))]),
            ("ReduceMin", vec![("axes", ints(&[3]))]),
        ] {
            for explanation in explain_one(target, &[1, 2, 3, 4], |b, x| b.node(op, &[x], &attributes, act(0.03, 120)))
            {
                let from = explanation.operands.iter().find(|(key, _)| key == "from");
                assert!(from.is_some(), "{target} {op}: {explanation}");
                let window = explanation.trace.steps.iter().find(|s| s.text.contains("in the window")).unwrap();
                let all: Vec<f64> = window.value.split(", ").map(|v| v.parse().unwrap()).collect();
                let result: f64 = window_result(&explanation);
                let extreme = if op == "ReduceMin" { f64::min } else { f64::max };
                assert_eq!(all.into_iter().reduce(extreme), Some(result), "{target} {op}: {explanation}");
            }
        }
    }
}

/// What the moving kernel gave, before conversions behind it.
fn window_result(explanation: &Explanation) -> f64 {
    let stage = explanation.trace.steps.iter().find(|s| s.kind == "stage");
    stage.map_or(&explanation.trace.result, |s| &s.value).parse().unwrap()
}

#[test]
fn every_output_of_a_node_is_explained() {
    for target in ["onnxruntime_cpu", "htp_v75", "float"] {
        let mut b = Builder::new(3);
        let x = b.input(&[1, 4, 3], act(0.03, 120));
        let parts = b.node("Split", &[x], &[("axis", Attribute::Int(1))], act(0.03, 120));
        let second = b.constant(Tensor::f32(&[1], vec![0.0]), None);
        b.graph.tensors[second].constant = None;
        b.graph.tensors[second].encoding = act(0.04, 110).map(std::sync::Arc::new);
        b.graph.nodes[0].outputs.push(Some(second));
        let k = b.constant(Tensor::i64(&[1], vec![2]), None);
        let top = b.node("TopK", &[parts, k], &[], act(0.03, 120));
        let places = b.constant(Tensor::f32(&[1], vec![0.0]), None);
        b.graph.tensors[places].constant = None;
        b.graph.nodes[1].outputs.push(Some(places));
        for t in [second, top, places] {
            b.output(t);
        }
        let input = reals(4, &[1, 4, 3]);
        let session = session(&b.graph, Spec::load(target).unwrap());
        let name = |t: TensorId| b.graph.tensors[t].name.clone();
        let feeds = [("x1", &input)];
        let split = session.explain(&feeds, &name(second), 4).unwrap();
        assert!(split.operands[0].1.ends_with("x1[0, 3, 1]"), "{target}: {split}");
        let value = session.explain(&feeds, &name(top), 3).unwrap();
        let place = session.explain(&feeds, &name(places), 3).unwrap();
        assert_eq!(value.operands, place.operands, "{target}");
        assert!(value.operands[0].1.ends_with(&format!("[0, 1, {}]", place.trace.result)), "{value}\n{place}");
        drop(session);
        explain_all(&b.graph, Spec::load(target).unwrap(), &feeds, 1);
    }
}

#[test]
fn every_float_operator_says_what_it_read() {
    let same = || act(0.03, 120);
    let axis = |a: i64| vec![("axis", Attribute::Int(a))];
    for target in ["float", "fake_quant", "htp_v75", "bfloat16"] {
        for (op, attributes) in [
            ("Sigmoid", vec![]),
            ("Softmax", axis(1)),
            ("LogSoftmax", axis(-1)),
            ("LpNormalization", axis(2)),
            ("AveragePool", vec![("kernel_shape", ints(&[2, 2])), ("pads", ints(&[1, 0, 0, 1]))]),
            ("GlobalAveragePool", vec![]),
            ("ReduceMean", vec![("axes", ints(&[1, 3]))]),
            ("ReduceL2", vec![("axes", ints(&[2]))]),
            ("ReduceSumSquare", vec![("axes", ints(&[0]))]),
            ("LRN", vec![("size", Attribute::Int(3))]),
            ("MeanVarianceNormalization", vec![]),
            ("DepthToSpace", vec![("blocksize", Attribute::Int(1))]),
            ("Identity", vec![]),
            ("Flatten", vec![]),
            ("ArgMax", axis(1)),
            ("Shape", vec![]),
        ] {
            let listed = explain_one(target, &[1, 2, 3, 4], |b, x| b.node(op, &[x], &attributes, same()));
            assert!(!listed.is_empty(), "{target} {op}");
        }
    }
}

#[test]
fn sums_of_products_have_the_products_of_the_element() {
    let same = || act(0.2, 120);
    let build = |op: &'static str| {
        move |b: &mut Builder, x: TensorId| {
            let group = vec![("group", Attribute::Int(2)), ("pads", ints(&[1, 0, 0, 1])), ("strides", ints(&[2, 1]))];
            let (shape, attributes) = match op {
                "Conv" => (vec![4, 1, 2, 3], group),
                "ConvTranspose" => (vec![2, 2, 2, 3], group),
                _ => (vec![4, 3], vec![]),
            };
            let w = b.weights(&shape, &[0.01], 8, 0);
            b.node(op, &[x, w], &attributes, same())
        }
    };
    for target in ["float", "fake_quant", "onnxruntime_cpu", "onnxruntime_cpu_avx2", "htp_v75", "float16"] {
        for op in ["Conv", "ConvTranspose", "MatMul"] {
            let (graph, x) = one(&[1, 2, 3, 4], build(op));
            if Session::new(graph.clone(), Spec::load(target).unwrap(), Options::default())
                .and_then(|s| s.report(vec![vec![1, 2, 3, 4]]))
                .is_err()
            {
                continue;
            }
            for explanation in explain_all(&graph, Spec::load(target).unwrap(), &[("x1", &x)], 1) {
                let products = explanation.operands.iter().find(|(key, _)| key == "products").unwrap();
                let count: usize = products.1.parse().unwrap();
                assert!(count <= if op == "MatMul" { 4 } else { 6 }, "{target} {op}: {explanation}");
                let sum = explanation.trace.steps.iter().find(|s| s.text.starts_with("sum of the products"));
                if let (Some(sum), "float") = (sum, target) {
                    let (sum, result): (f64, f64) =
                        (sum.value.parse().unwrap(), explanation.trace.result.parse().unwrap());
                    assert!((sum - result).abs() < 1e-5, "{op}: {explanation}");
                }
            }
        }
    }
}

#[test]
fn saturation_of_pairs_is_visible() {
    let mut b = Builder::new(3);
    let x = b.input(&[1, 3], act(0.03, 10));
    let w = b.weights(&[3, 2], &[0.01], 8, 0);
    b.graph.tensors[w].codes =
        Some(Tensor::new(vec![3, 2], Data::I8(vec![127, 1, 127, 2, 3, 4].into())).unwrap().into());
    let y = b.node("MatMul", &[x, w], &[], act(0.5, 0));
    b.output(y);
    let input = Tensor::f32(&[1, 3], vec![7.35, 7.35, 7.35]);
    let listed = explain_all(&b.graph, Spec::load("onnxruntime_cpu_avx2").unwrap(), &[("x1", &input)], 1);
    let struck = |e: &Explanation| e.operands.iter().find(|(key, _)| key == "saturated pairs").unwrap().1.clone();
    assert_eq!(struck(&listed[0]), "pair 0: 255·127 + 255·127 = 64770 → 32767");
    assert_eq!(struck(&listed[1]), "none");
}

#[test]
fn intrinsics_without_vectors_of_their_own() {
    let plain = |zero_point: i64| Some(per_tensor(0.03, zero_point, 8, false));
    let sizes = |b: &mut Builder| {
        let empty = b.constant(Tensor::f32(&[0], vec![]), None);
        (empty, b.constant(Tensor::i64(&[4], vec![1, 2, 5, 7]), None))
    };
    let linear = || Attribute::String("linear".into());
    for (target, intrinsic) in
        [("litert_ref", "resize_bilinear_f32"), ("litert_opt_x86", "resize_bilinear_f32_weighted")]
    {
        for explanation in explain_one(target, &[1, 2, 3, 4], |b, x| {
            let (empty, sizes) = sizes(b);
            b.node("Resize", &[x, empty, empty, sizes], &[("mode", linear())], plain(120))
        }) {
            assert_eq!(explanation.operands[0], ("intrinsic".to_string(), intrinsic.to_string()));
        }
    }
    for explanation in explain_one("hexagon_nn_v60", &[1, 2, 3, 4], |b, x| {
        b.node("Softmax", &[x], &[], Some(per_tensor(1.0 / 255.0, 0, 8, false)))
    }) {
        assert_eq!(explanation.operands[0].1, "softmax_power2_q15_table_16");
        assert!(explanation.trace.steps.iter().any(|s| s.text == "sum of the terms"), "{explanation}");
    }
    let mut b = Builder::new(3);
    let x = b.input(&[1, 2, 3, 4], Some(per_tensor(0.03, -8, 8, true)));
    let y = b.node("LpNormalization", &[x], &[("axis", Attribute::Int(1))], Some(per_tensor(1.0 / 128.0, 0, 8, true)));
    b.output(y);
    let input = reals(5, &[1, 2, 3, 4]);
    let listed = explain_all(&b.graph, Spec::load("tflite_micro_single").unwrap(), &[("x1", &input)], 1);
    assert_eq!(listed[0].operands[0].1, "l2_normalize_inverse_sqrt_single_rounding");
}

#[test]
fn channels_last_operands_are_named_in_the_models_order() {
    // The pool leaves channels-last codes, which Concat, Split and Pad keep.
    for target in ["onnxruntime_cpu", "htp_v75"] {
        let same = || act(0.03, 120);
        let mut b = Builder::new(3);
        let x = b.input(&[1, 2, 3, 4], same());
        let pool = b.node("MaxPool", &[x], &[("kernel_shape", ints(&[1, 1]))], same());
        let joined = b.node("Concat", &[pool, pool], &[("axis", Attribute::Int(1))], same());
        let pads = b.constant(Tensor::i64(&[8], vec![0, 0, 1, 0, 0, 0, 0, 1]), None);
        let padded = b.node("Pad", &[joined, pads], &[], same());
        b.output(padded);
        let input = reals(4, &[1, 2, 3, 4]);
        for explanation in explain_all(&b.graph, Spec::load(target).unwrap(), &[("x1", &input)], 1) {
            let (w, h, c) = (explanation.index % 5, explanation.index / 5 % 4, explanation.index / 20);
            let from = &explanation.operands[0].1;
            match h == 0 || w == 4 {
                true => assert!(from.contains("fill value"), "{explanation}"),
                false => assert!(from.ends_with(&format!("[0, {c}, {}, {w}]", h - 1)), "{explanation}"),
            }
        }
        let session = session(&b.graph, Spec::load(target).unwrap());
        let name = &b.graph.tensors[joined].name;
        let explanation = session.explain(&[("x1", &input)], name, 3 * 12 + 7).unwrap();
        assert!(explanation.operands[0].1.starts_with("input 1, "), "{explanation}");
        assert!(explanation.operands[0].1.ends_with("[0, 1, 1, 3]"), "{explanation}");
    }
}
