//! `spec …`.

use super::Sandbox;
use serde_json::Value;

const GOOD: &str = r#"
schema_version = 1
name = "mine"
[rules.quantize]
y = "sat(int(x / f32(y.scale), half_even) + y.zp, y)"
evidence = { status = "source", source = "somewhere" }
[rules.dequantize]
y = "f32(x - x.zp) * f32(x.scale)"
evidence = { status = "source", source = "somewhere" }
"#;

#[test]
fn every_shipped_target_is_listed_shown_linted_and_documented() {
    let sandbox = Sandbox::new();
    let list = sandbox.run("spec list --json").json();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    for name in ["float", "fake_quant", "onnxruntime_cpu", "tflite_micro", "htp_v75"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for spec in list.as_array().unwrap() {
        let name = spec["name"].as_str().unwrap();
        let shown = sandbox.run(&format!("spec show {name} --json")).json();
        assert_eq!(shown["rules"].as_array().unwrap().len() as u64, spec["rules"].as_u64().unwrap());
        let lint = sandbox.run(&format!("spec lint {name}"));
        assert_eq!(lint.code, 0, "{}", lint.stdout);
        let sheet = sandbox.run(&format!("spec doc {name}"));
        assert_eq!(sheet.code, 0, "{}", sheet.stderr);
        assert!(sheet.stdout.starts_with(&format!("# {name}\n")));
        for rule in shown["rules"].as_array().unwrap() {
            assert!(sheet.stdout.contains(rule["name"].as_str().unwrap()), "{rule}");
        }
    }
}

#[test]
fn a_good_file_passes_and_each_fault_is_found() {
    let sandbox = Sandbox::new();
    sandbox.write("good.toml", GOOD);
    assert_eq!(sandbox.run("spec lint good.toml").code, 0);
    let add = "[rules.Add]\nevidence = { status = \"source\", source = \"s\" }\n";
    let faults = [
        ("spec_toml", format!("{GOOD}{add}yy = \"a\"\n")),
        ("spec_evidence", format!("{GOOD}[rules.Add]\ny = \"a\"\n")),
        ("spec_schema_version", GOOD.replace("schema_version = 1", "schema_version = 99")),
        ("spec_rule_empty", format!("{GOOD}{add}")),
        ("spec_rule_name", format!("{GOOD}{}y = \"a\"\n", add.replace("Add", "quantise"))),
        ("spec_extends", GOOD.replace("name =", "extends = [\"nothing.toml\"]\nname =")),
        ("spec_rule_double", format!("{GOOD}{add}y = \"a\"\nmove = true\n")),
        ("spec_name", GOOD.replace("name = \"mine\"", "")),
    ];
    for (code, text) in faults {
        sandbox.write("bad.toml", text);
        let json = sandbox.run("spec lint bad.toml --json").json_of(1);
        assert_eq!(json[0]["error"]["code"], code, "{json}");
    }
    let findings = [
        ("lint_evidence_source", GOOD.replacen("source = \"somewhere\"", "source = \"\"", 1)),
        ("lint_rule_missing", GOOD.split("[rules.dequantize]").next().unwrap().to_string()),
        ("lint_float", format!("{GOOD}{}float = true\n", add.replace("Add", "Conv"))),
    ];
    for (code, text) in findings {
        sandbox.write("bad.toml", text);
        let json = sandbox.run("spec lint bad.toml --json").json_of(1);
        assert_eq!((&json[0]["error"], &json[0]["findings"][0]["code"]), (&Value::Null, &code.into()), "{json}");
    }
}

#[test]
fn an_error_in_a_spec_shows_the_line_with_a_caret() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.toml", "schema_version = 1\nname = \"x\"\ntitel = \"y\"\n");
    let done = sandbox.run("spec lint bad.toml");
    assert_eq!(done.code, 1);
    assert!(done.stdout.contains("bad.toml:3:1") && done.stdout.contains("^^^^^"), "{}", done.stdout);
    assert!(done.stdout.contains("did you mean 'title'?"), "{}", done.stdout);
}

#[test]
fn only_rules_that_compute_differently_are_a_difference() {
    let sandbox = Sandbox::new();
    sandbox.write("a.toml", GOOD);
    sandbox.write("b.toml", GOOD.replace("somewhere", "elsewhere").replace("mine", "yours"));
    sandbox.write("c.toml", GOOD.replace("half_even", "half_away"));
    assert_eq!(sandbox.run("spec diff a.toml b.toml").code, 0);
    let json = sandbox.run("spec diff a.toml c.toml --json").json_of(1);
    assert_eq!(json["rules"].as_array().unwrap().len(), 1);
    assert_eq!(json["rules"][0]["rule"], "quantize");
}

#[test]
fn no_cell_of_the_coverage_is_empty() {
    let sandbox = Sandbox::new();
    let cells = sandbox.run("spec coverage --json").json();
    let cells = cells.as_array().unwrap();
    assert!(cells.len() > 500);
    let known =
        ["executed", "source", "documented", "fitted", "assumed", "float", "f16", "bf16", "unsupported", "no rule"];
    let all = sandbox.run("spec coverage --all --json float16 htp_v75").json();
    let rows = |v: &serde_json::Value, op: &str| v.as_array().unwrap().iter().filter(|c| c["op"] == op).count();
    assert_eq!((rows(&all, "LSTM"), rows(&all, "TopK")), (2, 8));
    for cell in cells.iter().chain(all.as_array().unwrap()) {
        let status = cell["status"].as_str().unwrap();
        assert!(status.split('/').all(|s| known.contains(&s)), "{cell}");
    }
    let find = |op: &str, types: &str, target: &str| {
        let found = cells.iter().find(|c| c["op"] == op && c["types"] == types && c["target"] == target);
        found.unwrap_or_else(|| panic!("no cell {op} {types} {target}"))["status"].as_str().unwrap()
    };
    assert_eq!(find("Conv", "u8*s8", "onnxruntime_cpu"), "executed");
    assert_eq!(find("Add", "u8", "htp_v75"), "assumed");
    assert_eq!(find("Add", "u8", "float"), "float");
    assert_eq!(find("Add", "u8", "float16"), "f16");
    assert_eq!(find("TopK", "u8", "htp_v75"), "documented");
}
