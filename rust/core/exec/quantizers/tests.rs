use super::*;
use crate::exec::testing::Builder;
use crate::spec::Spec;
use crate::tensor::Tensor;

fn spec(placement: &str) -> Spec {
    Spec::parse(&format!("schema_version = 1\nname = \"t\"\n[placement]\n{placement}"), "t.toml")
        .unwrap_or_else(|e| panic!("{e}"))
}

fn decide(graph: &Graph, placement: &str) -> Decisions {
    quantizers(graph, &spec(placement).placement)
}

fn of<'a>(graph: &Graph, decisions: &'a Decisions, name: &str) -> &'a Decision {
    let t = graph.find(name).unwrap();
    decisions.of(t).unwrap_or_else(|| panic!("no decision about {name}"))
}

fn quantized(graph: &Graph, decisions: &Decisions) -> Vec<String> {
    let own = decisions.tensors.iter().filter(|d| d.quantizer.is_some() && d.reason == Reason::Rule);
    own.map(|d| graph.tensors[d.tensor].name.clone()).collect()
}

fn conv_relu(group: i64, channels: &[usize]) -> Graph {
    let mut b = Builder::new();
    b.constant("w", channels).constant("b", &[channels[0]]);
    b.node("Conv", &["x", "w", "b"], "conv").attribute("group", group);
    b.node("Relu", &["conv"], "y").graph(&["x"], &["y"])
}

#[test]
fn the_middle_of_a_supergroup_has_none_unless_something_breaks_it() {
    let groups = "supergroups = [[\"Conv\", \"Relu\"]]\n";
    let breaks = format!("{groups}supergroup_breaks = [\"branching\", \"depthwise\", \"conv3d\"]\n");
    let plain = conv_relu(1, &[4, 3, 3, 3]);
    let decisions = decide(&plain, &breaks);
    assert_eq!(quantized(&plain, &decisions), ["x", "y", "w"]);
    assert_eq!(of(&plain, &decisions, "conv").reason, Reason::Inside("Conv + Relu".into()));
    assert_eq!(of(&plain, &decisions, "b").reason, Reason::Unquantized("Conv bias".into()));
    for (group, shape) in [(4, &[4, 1, 3, 3][..]), (1, &[4, 3, 3, 3, 3])] {
        let graph = conv_relu(group, shape);
        assert!(quantized(&graph, &decide(&graph, &breaks)).contains(&"conv".into()), "{shape:?}");
        assert!(!quantized(&graph, &decide(&graph, groups)).contains(&"conv".into()), "{shape:?}");
    }
    let mut b = Builder::new();
    b.constant("w", &[4, 3, 1, 1]).node("Conv", &["x", "w"], "conv").node("Relu", &["conv"], "relu");
    let branching = b.node("Add", &["conv", "relu"], "y").graph(&["x"], &["y"]);
    assert!(quantized(&branching, &decide(&branching, groups)).contains(&"conv".into()));
    let open = format!("{groups}supergroup_breaks = []\n");
    assert!(!quantized(&branching, &decide(&branching, &open)).contains(&"conv".into()));
}

#[test]
fn longer_supergroups_win() {
    let mut b = Builder::new();
    b.constant("w", &[4, 3, 1, 1]).node("Conv", &["x", "w"], "conv").node("Transpose", &["conv"], "t");
    let graph = b.node("Relu", &["t"], "y").graph(&["x"], &["y"]);
    let rules = "supergroups = [[\"Conv\", \"Transpose\"], [\"Conv\", \"Transpose\", \"Relu\"]]";
    assert_eq!(quantized(&graph, &decide(&graph, rules)), ["x", "y", "w"]);
}

#[test]
fn operators_that_keep_the_grid_share_the_encoding() {
    let mut b = Builder::new();
    let graph = b.node("Reshape", &["x"], "r").node("Sigmoid", &["r"], "y").graph(&["x"], &["y"]);
    let decisions = decide(&graph, "grid_preserving = [\"Reshape\"]");
    let r = of(&graph, &decisions, "r");
    assert_eq!((r.group, &r.reason), (graph.find("x").unwrap(), &Reason::Preserved("x".into())));
    assert!(r.quantizer.is_some());
    assert_eq!(quantized(&graph, &decisions), ["x", "y"]);
    let own = decide(&graph, "grid_preserving = [\"Reshape\"]\nops.Reshape.output_quantized = true");
    assert_eq!(quantized(&graph, &own), ["x", "r", "y"]);
    let unquantized = decide(&graph, "ops.Reshape.output_quantized = false");
    assert_eq!(of(&graph, &unquantized, "r").quantizer, None);
}

#[test]
fn ties_join_groups_and_given_ends_stay_out() {
    let mut b = Builder::new();
    b.node("Relu", &["x"], "r").node("Sigmoid", &["x"], "s").node("Concat", &["x", "r"], "free");
    b.node("Concat", &["r", "s"], "mixed").node("Concat", &["s", "s2"], "given");
    b.node("Sigmoid", &["r"], "s2");
    let graph = b.graph(&["x"], &["free", "mixed", "given"]);
    let rules = "ops.Concat.tied = \"inputs_follow_output\"\nops.Sigmoid.constraint = { min = 0.0, max = 1.0 }";
    let decisions = decide(&graph, rules);
    let group = |name: &str| of(&graph, &decisions, name).group;
    assert_eq!(group("free"), group("x"));
    assert_eq!(group("free"), group("r"));
    assert_eq!(group("given"), group("s"));
    assert_ne!(group("mixed"), group("s"));
    let ends = |name: &str| of(&graph, &decisions, name).quantizer.unwrap().constraint;
    assert_eq!(ends("given"), Some(Constraint { min: Some(0.0), max: Some(1.0) }));
    assert_eq!(ends("mixed"), None);
}

#[test]
fn outputs_that_follow_inputs_share_their_ends() {
    let mut b = Builder::new();
    let graph = b.node("Tanh", &["x"], "t").node("Relu", &["t"], "r").node("Resize", &["r"], "y").graph(&["x"], &["y"]);
    let rules = "ops.Resize.tied = \"output_follows_input\"\nops.Relu.constraint = { min = 0.0 }\n\
                 ops.Tanh.constraint = { min = -1.0, max = 1.0 }";
    let decisions = decide(&graph, rules);
    assert_eq!(of(&graph, &decisions, "y").group, of(&graph, &decisions, "r").group);
    assert_eq!(of(&graph, &decisions, "y").quantizer.unwrap().constraint.unwrap().min, Some(0.0));
    // Ends around zero ask for a symmetric grid.
    assert!(of(&graph, &decisions, "t").quantizer.unwrap().symmetric);
}

#[test]
fn second_operands_take_formats_that_exist() {
    let mut b = Builder::new();
    b.node("Sigmoid", &["x"], "a").node("Tanh", &["x"], "t").node("Transpose", &["t"], "b");
    let graph = b.node("MatMul", &["a", "b"], "y").graph(&["x"], &["y"]);
    let rules = |bits: u32, pairs: &str| {
        format!(
            "grid_preserving = [\"Transpose\"]\ndefaults.activations.bitwidth = {bits}\n\
             ops.MatMul.second_operand = [{pairs}]"
        )
    };
    let wide = "{ first = \"int8\", second = \"int8\" }, { first = \"int16\", second = \"int16\", symmetric = true }";
    let narrow = "{ first = \"int16\", second = \"int8\", symmetric = true }";
    for (bits, pairs, expected) in [(8, wide, (8, false)), (16, wide, (16, true)), (16, narrow, (8, true))] {
        let decisions = decide(&graph, &rules(bits, pairs));
        // The quantizer is the one before the transposition.
        for name in ["t", "b"] {
            let q = of(&graph, &decisions, name).quantizer.unwrap();
            assert_eq!((q.bitwidth, q.symmetric), expected, "{pairs}");
        }
        assert_eq!(of(&graph, &decisions, "a").quantizer.unwrap().bitwidth, bits);
    }
}

#[test]
fn parameters_have_rules_of_their_own() {
    let mut b = Builder::new();
    b.constant("g", &[4]).constant("h", &[4]).constant("w", &[4, 4]);
    b.node("LayerNormalization", &["x", "g", "h"], "n").node("MatMul", &["n", "w"], "m");
    let graph = b.node("Add", &["h2", "m"], "y").constant("h2", &[4]).graph(&["x"], &["y"]);
    // The constant was made after the node that reads it.
    let mut graph = graph;
    let h2 = graph.find("h2").unwrap();
    graph.tensors[h2].constant = Some(Tensor::f32(&[4], vec![1.0; 4]).into());
    let rules = "patterns = [\"matmul_add\"]\ndefaults.parameters.bitwidth = 4\n\
                 ops.LayerNormalization.params.weight = { min_bitwidth = 8, symmetric = false, symmetric_from_bits = 16 }\n\
                 ops.MatMul.per_channel = true";
    let decisions = decide(&graph, rules);
    let g = of(&graph, &decisions, "g").quantizer.unwrap();
    assert_eq!((g.bitwidth, g.symmetric, g.signed, g.axis), (8, false, false, None));
    let w = of(&graph, &decisions, "w").quantizer.unwrap();
    assert_eq!((w.bitwidth, w.symmetric, w.signed, w.axis), (4, true, true, Some(1)));
    assert_eq!(of(&graph, &decisions, "h2").reason, Reason::Unquantized("MatMul bias".into()));
    assert_eq!(of(&graph, &decisions, "m").reason, Reason::Inside("MatMul".into()));
    let follows = decide(
        &graph,
        "defaults.activations = { bitwidth = 16, symmetric = true }\n\
         ops.LayerNormalization.params = { weight = { follows_output = true }, bias = { quantized = true } }",
    );
    let g = of(&graph, &follows, "g").quantizer.unwrap();
    assert_eq!((g.bitwidth, g.symmetric), (16, true));
    assert!(of(&graph, &follows, "h").quantizer.is_some());
}

#[test]
fn weights_in_groups_may_have_one_scale() {
    let mut b = Builder::new();
    b.constant("w", &[4, 2, 3, 3]).node("ConvTranspose", &["x", "w"], "y").attribute("group", 2);
    let graph = b.graph(&["x"], &["y"]);
    let rules = "ops.ConvTranspose = { per_channel = true }";
    assert_eq!(of(&graph, &decide(&graph, rules), "w").quantizer.unwrap().axis, Some(1));
    let rules = "ops.ConvTranspose = { per_channel = true, per_channel_grouped = false }";
    assert_eq!(of(&graph, &decide(&graph, rules), "w").quantizer.unwrap().axis, None);
    let rules = "ops.ConvTranspose = { per_channel = true, axis = 0 }";
    assert_eq!(of(&graph, &decide(&graph, rules), "w").quantizer.unwrap().axis, Some(0));
}

#[test]
fn ends_of_the_graph_have_rules() {
    let graph = conv_relu(1, &[4, 3, 1, 1]);
    let none = decide(&graph, "model_input = { quantized = false }\nmodel_output = { quantized = false }");
    assert_eq!(quantized(&graph, &none), ["conv", "w"]);
    let only = decide(&graph, "defaults.activations.quantized = false\nmodel_output = { quantized = true }");
    assert_eq!(quantized(&graph, &only), ["y", "w"]);
    let refused = decide(&graph, "ops.Conv.input_quantized = false");
    assert_eq!(quantized(&graph, &refused), ["conv", "y", "w"]);
    let wanted = decide(&graph, "defaults.activations.quantized = false\nops.Relu.input_quantized = true");
    assert_eq!(quantized(&graph, &wanted), ["conv", "w"]);
    let mut b = Builder::new();
    let last = b.constant("w", &[4, 3, 1, 1]).node("Conv", &["x", "w"], "y").graph(&["x"], &["y"]);
    let decisions = decide(&last, "ops.Conv.high_precision_output = true");
    assert_eq!(of(&last, &decisions, "y").reason, Reason::HighPrecision);
    let wide = decide(&graph, "ops.Conv = { input_bitwidth = 16, bitwidth = 4 }");
    let bits = |name: &str| of(&graph, &wide, name).quantizer.unwrap().bitwidth;
    assert_eq!((bits("x"), bits("conv"), bits("y")), (16, 4, 8));
}

#[test]
fn a_layer_normalization_in_parts_is_one_operator() {
    let mut b = Builder::new();
    b.tensor("two", Some(Tensor::f32(&[], vec![2.0])));
    b.constant("eps", &[1]).constant("g", &[4]).constant("h", &[4]);
    b.node("ReduceMean", &["x"], "mean").node("Sub", &["x", "mean"], "d").node("Pow", &["d", "two"], "sq");
    b.node("ReduceMean", &["sq"], "var").node("Add", &["var", "eps"], "shifted").node("Sqrt", &["shifted"], "root");
    b.node("Div", &["d", "root"], "norm").node("Mul", &["norm", "g"], "scaled");
    let graph = b.node("Add", &["scaled", "h"], "y").graph(&["x"], &["y"]);
    let rules = "patterns = [\"layer_normalization\"]\nops.LayerNormalization.params.weight = { symmetric = false }";
    let decisions = decide(&graph, rules);
    for name in ["mean", "d", "sq", "var", "shifted", "root", "norm", "scaled"] {
        assert_eq!(of(&graph, &decisions, name).reason, Reason::Inside("LayerNormalization".into()), "{name}");
    }
    assert!(!of(&graph, &decisions, "g").quantizer.unwrap().symmetric);
    assert_eq!(of(&graph, &decisions, "h").quantizer, None);
    assert!(of(&graph, &decide(&graph, ""), "d").quantizer.is_some());
}

#[test]
fn a_root_mean_square_normalization_in_parts_is_one_operator() {
    let mut b = Builder::new();
    b.constant("eps", &[1]).constant("g", &[4]);
    b.node("Mul", &["x", "x"], "sq").node("ReduceMean", &["sq"], "ms").node("Add", &["ms", "eps"], "shifted");
    b.node("Sqrt", &["shifted"], "root").node("Reciprocal", &["root"], "r").node("Mul", &["x", "r"], "norm");
    let graph = b.node("Mul", &["g", "norm"], "y").graph(&["x"], &["y"]);
    let decisions = decide(&graph, "patterns = [\"rms_normalization\"]");
    assert_eq!(quantized(&graph, &decisions), ["x", "y", "g"]);
}

#[test]
fn integers_have_no_decision() {
    let mut b = Builder::new();
    b.node("Shape", &["x"], "s").node("Gather", &["s", "x"], "n").node("Sigmoid", &["x"], "y");
    let mut graph = b.graph(&["x"], &["y"]);
    for name in ["s", "n"] {
        let t = graph.find(name).unwrap();
        graph.tensors[t].dtype = None;
    }
    let decisions = decide(&graph, "");
    assert!(decisions.of(graph.find("s").unwrap()).is_none());
    assert!(decisions.of(graph.find("n").unwrap()).is_none());
}

#[test]
fn a_product_with_a_positive_scalar_has_no_quantizer() {
    let mut b = Builder::new();
    for (name, shape, value) in [("c", &[][..], 0.125), ("d", &[1], 3.0), ("minus", &[], -1.0), ("row", &[4], 2.0)] {
        b.tensor(name, Some(Tensor::f32(shape, vec![value; shape.iter().product()])));
    }
    b.node("Mul", &["c", "x"], "m").node("Div", &["m", "d"], "q").node("Div", &["d", "x"], "inverse");
    b.node("Mul", &["q", "minus"], "n").node("Mul", &["x", "row"], "r");
    let graph = b.graph(&["x"], &["n", "r", "inverse"]);
    let decisions = decide(&graph, "grid_scaling = [\"Mul\", \"Div\"]");
    assert_eq!(of(&graph, &decisions, "m").reason, Reason::Scaled("x".into()));
    assert_eq!(of(&graph, &decisions, "q").reason, Reason::Scaled("m".into()));
    let own = quantized(&graph, &decisions);
    for (name, expected) in [("x", true), ("m", false), ("q", false), ("c", false), ("n", true), ("r", true)] {
        assert_eq!(own.contains(&name.to_string()), expected, "{name}");
    }
    assert!(own.contains(&"inverse".into()) && own.contains(&"minus".into()) && own.contains(&"d".into()));
    assert!(quantized(&graph, &decide(&graph, "")).contains(&"m".into()));
    let given = decide(&graph, "grid_scaling = [\"Mul\"]\nops.Mul.output_quantized = true");
    assert!(quantized(&graph, &given).contains(&"m".into()));
    let wrong = Spec::parse("schema_version = 1\nname = \"t\"\n[placement]\ngrid_scaling = [\"Add\"]", "t.toml");
    assert!(wrong.unwrap_err().to_string().contains("'Add'"));
}

#[test]
fn a_masked_softmax_is_one_operator() {
    let softmax = |below: f32, axis: i64| {
        let mut b = Builder::new();
        b.tensor("below", Some(Tensor::f32(&[], vec![below])));
        b.tensor("axes", Some(Tensor::i64(&[1], vec![axis])));
        b.node("ReduceMin", &["x", "axes"], "least").node("Add", &["least", "below"], "floor");
        b.node("Where", &["mask", "x", "floor"], "chosen").node("Softmax", &["chosen"], "y");
        let mut graph = b.graph(&["x", "mask"], &["y"]);
        for (name, dtype) in [("mask", DType::Bool), ("axes", DType::I64)] {
            let t = graph.find(name).unwrap();
            graph.tensors[t].dtype = Some(dtype);
        }
        let decisions = decide(&graph, "patterns = [\"masked_softmax\"]");
        quantized(&graph, &decisions)
    };
    assert_eq!(softmax(-20.0, -1), ["x", "y"]);
    assert_eq!(softmax(-1e4, 3), ["x", "y"]);
    for other in [softmax(-19.0, -1), softmax(-20.0, 2)] {
        assert!(other.contains(&"chosen".into()) && other.contains(&"floor".into()), "{other:?}");
    }
}
