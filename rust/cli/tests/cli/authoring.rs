//! `spec new` and `spec schema`.

use super::Sandbox;
use serde_json::Value;

/// The lines of the comment that shows a rule, without their comment signs.
fn uncommented(text: &str) -> String {
    let mut shows = false;
    let mut out = String::new();
    for line in text.lines() {
        let bare = line.strip_prefix("# ");
        shows = match bare {
            Some(l) if l.starts_with("[rules.") => true,
            Some(l) if l.starts_with("A rule with `cases`") => false,
            None => false,
            _ => shows,
        };
        out.push_str(if shows { bare.unwrap_or(line) } else { line });
        out.push('\n');
    }
    out
}

#[test]
fn a_spec_from_nothing_passes_and_runs() {
    let sandbox = Sandbox::with_samples(1);
    let json = sandbox.run("spec new my_npu --json").json();
    assert_eq!((&json["name"], &json["output"]), (&"my_npu".into(), &"my_npu.toml".into()));
    assert_eq!(sandbox.run("spec lint my_npu.toml").code, 0);
    let shown = sandbox.run("spec show my_npu.toml --json").json();
    assert_eq!((&shown["status"], &shown["sha256"]), (&"assumed".into(), &json["sha256"]));
    sandbox.run("run @residual.qdq.onnx -t my_npu.toml -i x=x0.npy -o out").succeeds();
    assert_eq!(sandbox.run("run @residual.qdq.onnx -t my_npu.toml -i x=x0.npy -o strict --strict").code, 3);
}

#[test]
fn a_child_computes_as_its_parent_until_a_rule_is_written() {
    let sandbox = Sandbox::new();
    let listed = [
        ("htp_v75", "# Hypotheses of the parent"),
        ("tosa", "DOUBLE where nothing is stated"),
        ("cmsis_nn", "#   Softmax: intrinsic [executed]"),
        ("float", "# Rules of the parent"),
    ];
    for (parent, line) in listed {
        sandbox.run(&format!("spec new child_of_{parent} --extends {parent} -o c.toml --force")).succeeds();
        assert_eq!(sandbox.run("spec lint c.toml").code, 0);
        assert_eq!(sandbox.run(&format!("spec diff c.toml {parent}")).code, 0, "{parent}");
        let text = String::from_utf8(sandbox.read("c.toml")).unwrap();
        assert!(text.contains(line), "{text}");
    }
    let shown = sandbox.run("spec show c.toml --json").json();
    assert_eq!(shown["name"], "child_of_float");
}

#[test]
fn the_rule_shown_in_a_child_is_the_parents() {
    let sandbox = Sandbox::new();
    for parent in ["cmsis_nn", "tosa", "kpu_k210", "nvdla"] {
        sandbox.run(&format!("spec new child --extends {parent} --force")).succeeds();
        let text = String::from_utf8(sandbox.read("child.toml")).unwrap();
        let live = uncommented(&text);
        assert_ne!(live, text, "{parent}");
        sandbox.write("live.toml", &live);
        let lint = sandbox.run("spec lint live.toml");
        assert_eq!(lint.code, 0, "{parent}: {}\n{live}", lint.stdout);
        let rule = live.split("\n[rules.").nth(1).unwrap().split(']').next().unwrap();
        let shown = |target: &str| sandbox.run(&format!("spec show {target} --rule {rule} --json")).json();
        let (child, base) = (shown("live.toml"), shown(parent));
        let last = |v: &Value| v["rules"][0]["bodies"].as_array().unwrap().last().unwrap()["lines"].clone();
        assert!(last(&child)[0].is_string(), "{child}");
        assert_eq!(last(&child), last(&base));
    }
}

#[test]
fn nothing_is_overwritten_and_bad_names_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("mine.toml", "precious");
    for (line, code) in [
        ("spec new mine --json", "spec_new_exists"),
        ("spec new a -o mine.toml --json", "spec_new_exists"),
        ("spec new htp_v75 --json", "spec_new_name"),
        ("spec new HTP_V75 --json", "spec_new_name"),
        ("spec new ../a --json", "spec_new_name"),
        ("spec new .a --json", "spec_new_name"),
        ("spec new a/b --json", "spec_new_name"),
        ("spec new a.toml --json", "spec_new_name"),
        ("spec new a --extends nothing --json", "target_unknown"),
        ("spec new a --extends nothing.toml --json", "io"),
    ] {
        let done = sandbox.run(line);
        assert_eq!(done.code, 2, "{line}");
        if code != "io" {
            assert_eq!(done.error()["code"], code, "{line}");
        }
    }
    sandbox.run("spec new base").succeeds();
    std::fs::create_dir(sandbox.path("sub")).unwrap();
    let apart = sandbox.run("spec new child --extends base.toml -o sub/child.toml --json");
    assert_eq!(apart.error()["code"], "spec_new_parent");
    sandbox.run("spec new child --extends base.toml").succeeds();
    assert_eq!(sandbox.run("spec lint child.toml").code, 0);
    let titled = sandbox.run_words(&["spec", "new", "a", "--title", "two\nlines", "--json"]);
    assert_eq!(titled.error()["code"], "spec_new_title");
    assert_eq!(sandbox.read("mine.toml"), b"precious");
    assert!(!sandbox.path("a.toml").exists());
    sandbox.run_words(&["spec", "new", "mine", "--force", "--title", "A \"quoted\" \\ title"]).succeeds();
    let shown = sandbox.run("spec show mine.toml --json").json();
    assert_eq!(shown["title"], "A \"quoted\" \\ title");
}

#[test]
fn the_schema_knows_operators_and_keys() {
    let sandbox = Sandbox::new();
    let schema = sandbox.run("spec schema").json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    for rule in ["Conv", "Add", "quantize", "Requantize", "LookUp"] {
        assert!(schema["properties"]["rules"]["properties"][rule].is_object(), "{rule}");
    }
    sandbox.run("spec schema -o s.json").succeeds();
    assert_eq!(serde_json::from_slice::<Value>(&sandbox.read("s.json")).unwrap(), schema);
}
