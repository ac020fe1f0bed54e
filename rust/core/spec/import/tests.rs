use super::*;
use crate::spec::Spec;
use serde_json::json;

/// A configuration as AIMET ships them: what all targets share, and what differs.
fn config(version: Option<&str>, groups: &[&[&str]], passes: &[&str], ops: Value) -> Value {
    let list: Vec<Value> = groups.iter().map(|ops| json!({ "op_list": ops })).collect();
    let mut config = json!({
        "defaults": {
            "ops": { "is_output_quantized": "True" },
            "params": { "is_quantized": "True", "is_symmetric": "True" },
            "per_channel_quantization": "False",
            "strict_symmetric": "False",
            "unsigned_symmetric": "False",
        },
        "params": { "bias": { "is_quantized": "False" } },
        "op_type": ops,
        "supergroup_pass_list": passes,
        "supergroups": list,
        "model_input": { "is_input_quantized": "True" },
        "model_output": {},
    });
    if let Some(version) = version {
        config["defaults"]["hw_version"] = json!(version);
    }
    config
}

fn merged(parts: &[Value]) -> Value {
    let mut out = Map::new();
    for part in parts {
        out.extend(part.as_object().unwrap().clone());
    }
    Value::Object(out)
}

fn per_channel(ops: &[&str], value: &str) -> Value {
    ops.iter().map(|op| (op.to_string(), json!({ "per_channel_quantization": value }))).collect::<Map<_, _>>().into()
}

fn unquantized(ops: &[&str]) -> Value {
    ops.iter().map(|op| (op.to_string(), json!({ "is_output_quantized": "False" }))).collect::<Map<_, _>>().into()
}

fn asymmetric(ops: &[&str]) -> Value {
    let weight = json!({ "params": { "weight": { "is_symmetric": "False" } } });
    ops.iter().map(|op| (op.to_string(), weight.clone())).collect::<Map<_, _>>().into()
}

fn between(ops: &[&str], min: f64) -> Value {
    let ends = json!({ "encoding_constraints": { "min": min, "max": 1.0 } });
    ops.iter().map(|op| (op.to_string(), ends.clone())).collect::<Map<_, _>>().into()
}

fn statistics() -> Value {
    let none = json!({ "is_quantized": "False" });
    json!({ "BatchNormalization": { "params": { "running_mean": none, "running_var": none } } })
}

fn htp_common() -> Value {
    merged(&[
        unquantized(&["Cast", "ChannelShuffle", "Gather", "NonMaxSuppression"]),
        statistics(),
        asymmetric(&["LayerNormalization"]),
        between(&["Sin", "Cos", "Tanh"], -1.0),
        json!({ "Relu": { "encoding_constraints": { "min": 0.0 } } }),
    ])
}

fn htp_v73() -> (Vec<Vec<&'static str>>, Value) {
    let mut groups = vec![vec!["Add", "Relu"]];
    groups.extend(["HardSwish", "PRelu", "LeakyRelu", "Relu"].map(|a| vec!["Conv", "BatchNormalization", a]));
    groups.extend(["Relu", "PRelu", "LeakyRelu"].map(|a| vec!["Conv", "Transpose", a]));
    groups.extend(["Clip", "PRelu", "LeakyRelu", "Relu"].map(|a| vec!["Conv", a]));
    groups.extend([vec!["ConvTranspose", "Relu"], vec!["Gemm", "Relu"]]);
    let ops = merged(&[
        htp_common(),
        per_channel(&["Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu"], "True"),
        asymmetric(&["RMSNormalization", "InstanceNormalization"]),
        json!({ "GroupNormalization": { "params": { "bias": { "is_quantized": "True" } } } }),
        between(&["Sigmoid", "Softmax"], 0.0),
    ]);
    (groups, ops)
}

const PASSES: [&str; 3] = ["LayerNormalization", "RMSNormalization", "MatmulAdd"];
const BEFORE_V73: [&[&str]; 3] = [&["ConvTranspose", "Relu"], &["Add", "Relu"], &["Gemm", "Relu"]];

/// The chains of eNPU configurations; `alone` has its convolutions without batch normalization and PRelu.
fn enpu_groups(normalized: bool, alone: bool) -> Vec<Vec<&'static str>> {
    let all = ["Relu", "Clip", "Sigmoid", "Tanh", "PRelu", "LeakyRelu", "HardSwish", "Gelu"];
    let behind_norm = ["Relu", "Clip", "Sigmoid", "Tanh", "HardSwish", "Gelu"];
    let mut groups = Vec::new();
    for op in ["Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool", "MaxPool", "Add", "Sub", "Mul"] {
        let full = matches!(op, "AveragePool" | "MaxPool") || (!alone && matches!(op, "Conv" | "ConvTranspose"));
        groups.extend(all.iter().filter(|a| full || **a != "PRelu").map(|a| vec![op, *a]));
        if full {
            groups.push(vec![op, "BatchNormalization"]);
            groups.extend(behind_norm.iter().map(|a| vec![op, "BatchNormalization", *a]));
        }
    }
    if normalized {
        groups.extend(behind_norm.iter().map(|a| vec!["BatchNormalization", *a]));
    }
    groups
}

fn enpu(groups: &[Vec<&'static str>], channel: &str, norms: bool) -> Value {
    let none = json!({ "is_quantized": "False" });
    let mut ops = vec![
        json!({ "BatchNormalization": { "params": {
            "weight": none, "bias": none, "running_mean": none, "running_var": none } } }),
        per_channel(&["Conv", "ConvTranspose", "Gemm", "MatMul"], channel),
        between(&["Sigmoid", "Softmax"], 0.0),
        between(&["Sin", "Cos", "Tanh"], -1.0),
    ];
    if norms {
        ops.push(asymmetric(&["LayerNormalization", "RMSNormalization"]));
    }
    let groups: Vec<&[&str]> = groups.iter().map(Vec::as_slice).collect();
    let mut config = config(None, &groups, &PASSES, merged(&ops));
    config["defaults"]["ops"]["is_symmetric"] = json!("True");
    config["model_output"] = json!({ "is_output_quantized": "True" });
    config
}

/// The placement of a configuration, by way of the file that is written for it.
fn imported(config: &Value) -> Placement {
    let imported = import(&config.to_string(), "config.json").unwrap();
    assert_eq!(imported.findings, []);
    let toml = imported.to_toml("mine", &[], "config.json").unwrap();
    Spec::parse(&toml, "mine.toml").unwrap_or_else(|e| panic!("{e}\n{toml}")).placement
}

fn shipped(name: &str) -> Placement {
    let file = format!("base/{name}.toml");
    let embedded = EMBEDDED.iter().find(|e| e.file == file).unwrap_or_else(|| panic!("{file}"));
    Spec::parse(embedded.toml, &file).unwrap().placement
}

#[test]
fn configurations_of_hardware_generations_are_the_shipped_placements() {
    let v66 = merged(&[htp_common(), unquantized(&["Flatten"])]);
    assert_eq!(imported(&config(Some("V66"), &BEFORE_V73, &[], v66)), shipped("placement_htp_v66"));
    let norms = asymmetric(&["RMSNormalization", "InstanceNormalization"]);
    let v68 = merged(&[htp_common(), norms.clone(), per_channel(&["Conv", "ConvTranspose", "PRelu"], "True")]);
    let v68_rules = imported(&config(Some("V68"), &BEFORE_V73, &PASSES, v68.clone()));
    assert_eq!(v68_rules, shipped("placement_htp_v68"));
    let v69 = merged(&[v68, per_channel(&["Gemm", "MatMul"], "True")]);
    let v69_rules = imported(&config(Some("V69"), &BEFORE_V73, &PASSES, v69));
    assert_eq!(v69_rules, shipped("placement_htp_v69"));
    assert_ne!(v68_rules, v69_rules);
    let (groups, ops) = htp_v73();
    let groups: Vec<&[&str]> = groups.iter().map(Vec::as_slice).collect();
    for version in ["V73", "V75", "V79", "V81", "V85"] {
        let rules = imported(&config(Some(version), &groups, &PASSES, ops.clone()));
        assert_eq!(rules, shipped("placement_htp"), "{version}");
    }
}

#[test]
fn configurations_without_hardware_are_the_shipped_placements() {
    let chains: [&[&str]; 5] =
        [&["Conv", "Relu"], &["ConvTranspose", "Relu"], &["Conv", "Clip"], &["Add", "Relu"], &["Gemm", "Relu"]];
    let ops = merged(&[statistics(), unquantized(&["Cast"])]);
    let mut default = config(None, &chains, &["MatmulAdd"], ops.clone());
    default["defaults"].as_object_mut().unwrap().remove("unsigned_symmetric");
    assert_eq!(imported(&default), shipped("placement_quantsim_default"));
    let chains: [&[&str]; 5] =
        [&["Conv", "Relu"], &["Conv", "Clip"], &["ConvTranspose", "Relu"], &["Add", "Relu"], &["Gemm", "Relu"]];
    let ops = merged(&[ops, per_channel(&["Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu"], "True")]);
    let mut default = config(None, &chains, &["MatmulAdd"], ops);
    default["defaults"].as_object_mut().unwrap().remove("unsigned_symmetric");
    assert_eq!(imported(&default), shipped("placement_quantsim_per_channel"));
    let dsp = json!({
        "defaults": { "ops": { "is_output_quantized": "True" }, "params": { "is_quantized": "True" } },
        "params": { "bias": { "is_quantized": "False" } },
        "op_type": { "Mean": { "is_output_quantized": "False" } },
        "supergroups": [
            { "op_list": ["Conv", "Relu"] }, { "op_list": ["Conv", "Clip"] },
            { "op_list": ["Conv", "BatchNormalization", "Relu"] }, { "op_list": ["Add", "Relu"] },
            { "op_list": ["Gemm", "Relu"] },
        ],
        "model_input": { "is_input_quantized": "True" },
        "model_output": {},
    });
    assert_eq!(imported(&dsp), shipped("placement_quantsim_dsp"));
}

#[test]
fn configurations_of_small_cores_are_the_shipped_placements() {
    let v6 = enpu_groups(false, false);
    let v7 = enpu_groups(true, false);
    let v7_per_channel = enpu_groups(true, true);
    assert_eq!([v6.len(), v7.len(), v7_per_channel.len()], [95, 101, 85]);
    assert_eq!(imported(&enpu(&v6, "False", false)), shipped("placement_enpu_v6"));
    assert_eq!(imported(&enpu(&v7, "False", true)), shipped("placement_enpu_v7"));
    assert_eq!(imported(&enpu(&v7_per_channel, "True", true)), shipped("placement_enpu_v7_per_channel"));
}

#[test]
fn an_imported_file_replaces_the_placement_of_the_target_that_it_extends() {
    let chains: [&[&str]; 1] = [&["Conv", "Relu"]];
    let config = config(Some("V75"), &chains, &[], unquantized(&["Cast"]));
    let imported = import(&config.to_string(), "config.json").unwrap();
    let toml = imported.to_toml("mine", &["htp_v75.toml".into()], "config.json").unwrap();
    let spec = Spec::parse(&toml, "mine.toml").unwrap();
    assert!(spec.rule("Conv").is_some());
    assert_eq!(spec.placement.supergroups(), [["Conv", "Relu"]]);
    assert_eq!(spec.placement.ops.get("Softmax"), None);
    assert!(spec.placement.preserves_grid("Reshape"));
    assert_eq!(spec.placement_evidence.last().unwrap().1.as_ref().unwrap().source, "config.json");
}

#[test]
fn every_section_is_read() {
    let mut config = config(None, &[], &["FancySoftmax"], json!({}));
    let kernel =
        json!({ "activation": { "bitwidth": 16, "dtype": "int" }, "param": { "bitwidth": 8, "dtype": "int" } });
    config["defaults"]["supported_kernels"] = json!([kernel]);
    config["defaults"]["strict_symmetric"] = json!("True");
    config["defaults"]["hw_version"] = json!("V99");
    config["params"]["weight"] = json!({ "is_symmetric": "False" });
    config["op_type"]["Add"] = json!({
        "is_input_quantized": "True", "is_output_quantized": "False", "is_symmetric": "True",
        "supported_kernels": [{ "activation": { "bitwidth": 16, "dtype": "float" } }],
    });
    let imported = import(&config.to_string(), "config.json").unwrap();
    let placement = &imported.placement;
    assert_eq!(placement.supported.as_ref().unwrap()[0].activation.to_string(), "int16");
    assert_eq!(placement.defaults.strict_symmetric, Some(true));
    assert_eq!(placement.params["weight"].symmetric, Some(false));
    let add = &placement.ops["Add"];
    assert_eq!((add.input_quantized, add.output_quantized, add.symmetric), (Some(true), Some(false), Some(true)));
    assert_eq!(add.supported.as_ref().unwrap()[0].activation.to_string(), "float16");
    let places: Vec<&str> = imported.findings.iter().map(|f| f.place.as_str()).collect();
    assert_eq!(places, ["defaults.hw_version", "supergroup_pass_list"]);
    assert_eq!(imported.parents, ["base/quantsim.toml"]);
}

#[test]
fn faults_have_a_code_and_a_place() {
    let good = || config(None, &[&["Conv", "Relu"]], &[], json!({ "Conv": { "is_symmetric": "True" } }));
    type Edit = fn(&mut Value);
    let faults: [(&str, &str, Edit); 9] = [
        ("config_key", "did you mean 'is_symmetric'", |c| c["op_type"]["Conv"]["is_symetric"] = json!("True")),
        ("config_key", "defaults.hardware", |c| c["defaults"]["hardware"] = json!("x")),
        ("config_key", "top", |c| c["top"] = json!(1)),
        ("config_value", "op_type.Conv.is_symmetric", |c| c["op_type"]["Conv"]["is_symmetric"] = json!(true)),
        ("config_value", "supergroups.op_list", |c| c["supergroups"][0]["op_list"] = json!(["Conv"])),
        ("config_value", "encoding_constraints", |c| {
            c["op_type"]["Conv"]["encoding_constraints"] = json!({ "max": 1.0 });
        }),
        ("config_value", "supported_kernels", |c| c["defaults"]["supported_kernels"] = json!([])),
        ("config_value", "'params' is missing", |c| drop(c.as_object_mut().unwrap().remove("params"))),
        ("config_format", "no known configuration", |c| *c = json!({ "a": 1 })),
    ];
    for (code, words, edit) in faults {
        let mut config = good();
        edit(&mut config);
        let error = import(&serde_json::to_string_pretty(&config).unwrap(), "config.json").unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let twice = import(r#"{"defaults": {}, "defaults": {}}"#, "c.json").unwrap_err();
    assert_eq!(twice.code(), "config_json");
    let mut config = good();
    config["op_type"]["Conv"]["is_symetric"] = json!("True");
    let shown = import(&serde_json::to_string_pretty(&config).unwrap(), "config.json").unwrap_err().to_string();
    assert!(shown.contains("config.json:") && shown.contains("^^^^^^^^^^^^^"), "{shown}");
}

#[test]
fn templates_become_rules_of_operators() {
    let config = json!({
        "reference_qconfig": { "in_dtype": "qint8", "weight_dtype": "qint8", "out_dtype": "qint8" },
        "templates": [
            { "ModuleNameTemplate": { "": "torch.float16", "head.conv": "qint16" } },
            { "ConvDtypeTemplate": { "input_dtype": "qint16", "weight_dtype": "qint8" } },
            { "MatmulDtypeTemplate": { "input_dtypes": ["qint16", "qint8"] } },
            { "SensitivityTemplate": { "topk_or_ratio": 0.2 } },
        ],
    });
    let imported = import(&config.to_string(), "qconfig.json").unwrap();
    let placement = &imported.placement;
    assert_eq!(placement.defaults.activations.quantized, Some(false));
    assert_eq!(placement.model_input.quantized, Some(true));
    assert_eq!(placement.ops["Gemm"].input_bitwidth, Some(16));
    assert_eq!(placement.ops["Conv"].params["weight"].bitwidth, Some(8));
    let pair = placement.ops["MatMul"].second_operand.as_ref().unwrap()[0];
    assert_eq!((pair.first.bits, pair.second.bits, pair.symmetric), (16, 8, true));
    let places: Vec<&str> = imported.findings.iter().map(|f| f.place.as_str()).collect();
    assert_eq!(places, ["templates[0].ModuleNameTemplate.head.conv", "templates[3].SensitivityTemplate"]);
    let toml = imported.to_toml("mine", &["horizon_nash_m.toml".into()], "qconfig.json").unwrap();
    let spec = Spec::parse(&toml, "mine.toml").unwrap();
    assert_eq!(spec.placement.ops["Conv"].per_channel, Some(true));
    assert_eq!(spec.placement.ops["Conv"].input_quantized, Some(true));
    for (template, code) in [
        (json!({ "ConvDtypeTemplate": { "inputs": "qint8" } }), "config_key"),
        (json!({ "ConvDtypeTemplate": { "input_dtype": "int99" } }), "config_value"),
        (json!({ "OtherTemplate": {} }), "config_key"),
    ] {
        let config = json!({ "templates": [template] });
        assert_eq!(import(&config.to_string(), "q.json").unwrap_err().code(), code);
    }
}
