//! `conformance`: tables, reports, and other people's implementations as commands.

use crate::Sandbox;
use nputwin::arrays::NpzWriter;
use nputwin::tensor::{Data, Tensor};
use serde_json::{Value, json};
use std::io::BufWriter;
use std::time::{Duration, Instant};

/// A family `mine` in the folder `vectors`: one encoding change that changes nothing, one whose expected output is off by
/// one at element 5.
fn family() -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("vectors")).unwrap();
    let codes: Vec<i8> = (0..12).map(|i| i * 9 - 50).collect();
    let mut wrong = codes.clone();
    wrong[5] += 1;
    let tensor = |v: &[i8]| Tensor::new(vec![1, 2, 3, 2], Data::I8(v.to_vec().into())).unwrap();
    let mut file = BufWriter::new(std::fs::File::create(sandbox.path("vectors/Requantize.npz")).unwrap());
    let mut npz = NpzWriter::new(&mut file);
    for (name, values) in [("x", &codes), ("right", &codes), ("wrong", &wrong)] {
        npz.add(name, &tensor(values)).unwrap();
    }
    npz.finish().unwrap();
    drop(file);
    let operand = |role: &str, array: &str| json!({ "role": role, "array": array, "dtype": "int8", "shape": [1, 2, 3, 2], "scale": ["0.5"], "zero_point": [3] });
    let case = |id: &str, array: &str| {
        json!({
            "id": id, "file": "Requantize.npz", "op": "Requantize", "note": "made <here> & \"now\"",
            "inputs": [operand("in0", "x")], "outputs": [operand("out", array)],
        })
    };
    let cases = json!({
        "format": "nputwin-golden/1", "family": "mine",
        "cases": [case("mine/Requantize/0", "right"), case("mine/Requantize/1", "wrong")],
    });
    sandbox.write("vectors/cases.json", cases.to_string());
    sandbox
}

/// The message of the only failing case.
fn message(report: &Value) -> String {
    report["reports"][0]["rows"][0]["fault"]["outcome"]["message"].as_str().expect("a message").to_string()
}

#[test]
fn a_difference_has_its_place_on_every_runtime() {
    let sandbox = family();
    let report = sandbox.run("conformance vectors -t tflite_micro --json").json_of(1);
    let runtimes: Vec<&str> = report["runtimes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(["reference", "tile", "scalar", "2_threads", "7_threads"].iter().all(|r| runtimes.contains(r)));
    let row = &report["reports"][0]["rows"][0];
    assert_eq!((&row["op"], &row["equal"], &row["cases"]), (&json!("Requantize"), &json!(1), &json!(2)));
    let outcome = &row["fault"]["outcome"];
    assert_eq!((&outcome["elements"], &outcome["index"], &outcome["largest"]), (&json!(1), &json!(5), &json!(1.0)));
    assert_eq!((&outcome["found"], &outcome["expected"]), (&json!(-5.0), &json!(-4.0)));
    assert_eq!(outcome["coordinates"], json!([0, 0, 2, 1]));
    let wrong = &report["reports"][0]["cases"][1]["outcomes"];
    assert!(wrong.as_array().unwrap().iter().all(|o| o[1]["outcome"] == "different"), "{wrong}");

    let text = sandbox.run("conformance vectors -t tflite_micro");
    assert_eq!(text.code, 1);
    for part in ["all ", "[0, 0, 2, 1]: -5 instead of -4", "rule ", "1 of 2 cases equal", "made <here>"] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    let equal = sandbox.run("conformance vectors -t tflite_micro --only /0 --runtime tile");
    equal.succeeds();
    assert!(equal.stdout.contains("runtimes: tile"), "{}", equal.stdout);
}

#[test]
fn exceptions_are_printed_with_their_reasons_and_out_of_date_ones_are_named() {
    let sandbox = family();
    let spec = r#"
schema_version = 1
name = "mine"
extends = ["tflite_micro.toml"]
[[conformance]]
family = "mine"
except = [{ id = "mine/Requantize/1", reason = "a known tie" }, { id = "mine/Requantize/0", reason = "untrue" }]
"#;
    sandbox.write("mine.toml", spec);
    let all = sandbox.run("conformance vectors -t mine.toml");
    all.succeeds();
    assert!(all.stdout.contains("mine/Requantize/1 (1 cases): a known tie"), "{}", all.stdout);
    assert_eq!(all.stdout.matches("out of date").count(), 1, "{}", all.stdout);
    assert!(all.stdout.contains("0 of 0 cases equal, 2 not claimed"), "{}", all.stdout);

    sandbox.run("conformance vectors -t mine.toml --junit report.xml --runtime scalar").succeeds();
    let xml = String::from_utf8(sandbox.read("report.xml")).unwrap();
    assert!(xml.contains(r#"tests="2" failures="0" errors="0" skipped="2""#), "{xml}");
    assert!(xml.contains(r#"<skipped message="a known tie"/>"#), "{xml}");
}

#[test]
fn junit_has_a_test_per_case_and_runtime() {
    let sandbox = family();
    let run = sandbox.run("conformance vectors -t tflite_micro --junit report.xml --runtime scalar --runtime tile");
    assert_eq!(run.code, 1);
    let xml = String::from_utf8(sandbox.read("report.xml")).unwrap();
    assert_eq!(xml.matches("<testcase ").count(), 4);
    assert_eq!(xml.matches("<failure message=").count(), 2);
    assert!(xml.contains(r#"name="mine under tflite_micro" tests="4" failures="2" errors="0" skipped="0""#), "{xml}");
    assert!(xml.contains("rule ") && xml.contains("-5 instead of -4"), "{xml}");
    let left = std::fs::read_dir(sandbox.path(""))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_family_that_no_target_claims_is_named() {
    let sandbox = family();
    let run = sandbox.run("conformance vectors");
    assert_eq!(run.code, 2, "{}", run.stdout);
    assert!(run.stderr.contains("no shipped target claims mine"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn a_command_is_compared_with_the_vectors() {
    let sandbox = family();
    sandbox.write("copy.sh", "#!/bin/sh\ntest -f \"$1/case.json\" && cp \"$1/in0.npy\" \"$1/out.npy\"\n");
    let script = sandbox.path("copy.sh").display().to_string();
    let run = |options: &[&str]| {
        let mut words = vec!["conformance", "vectors", "--json", "--sut"];
        words.extend(options);
        sandbox.run_words(&words)
    };
    let copies = format!("sh {script}");
    let report = run(&[&copies]).json_of(1);
    assert_eq!(report["runtimes"], json!(["sut"]));
    assert_eq!(report["reports"][0]["rows"][0]["equal"], 1);
    assert_eq!(report["reports"][0]["target"], Value::Null);
    assert_eq!(run(&[&copies, "--only", "/0"]).code, 0);
    // What the target computes is the copy, for both cases.
    let compared = run(&[&copies, "--against-spec", "tflite_micro"]).json();
    assert_eq!(compared["reports"][0]["rows"][0]["equal"], 2);
    // The folder stays where it is asked for.
    assert_eq!(run(&["cp {dir}/in0.npy {dir}/out.npy", "--only", "/0", "--keep", "kept"]).code, 0);
    let case: Value =
        serde_json::from_slice(&sandbox.read("kept/00000_mine_Requantize_0/case.json")).expect("case.json is JSON");
    assert_eq!((&case["format"], &case["op"]), (&json!("nputwin-sut/1"), &json!("Requantize")));
    assert_eq!(case["inputs"][0]["file"], "in0.npy");
    assert_eq!((&case["outputs"][0]["file"], &case["outputs"][0]["shape"]), (&json!("out.npy"), &json!([1, 2, 3, 2])));
}

#[cfg(unix)]
#[test]
fn what_a_command_does_wrong_is_in_the_report() {
    let sandbox = family();
    let run = |options: &[&str]| {
        let mut words = vec!["conformance", "vectors", "--json", "--only", "/0", "--sut"];
        words.extend(options);
        sandbox.run_words(&words).json_of(1)
    };
    let said = message(&run(&["sh -c 'echo out of registers >&2; exit 3'"]));
    assert!(said.contains("exit status: 3") && said.contains("out of registers"), "{said}");
    assert!(message(&run(&["true"])).contains("no out.npy"));
    assert!(message(&run(&["sh -c 'echo junk > {dir}/out.npy'"])).contains("npy"));
    assert!(message(&run(&["no-such-program"])).contains("No such file"));
    let started = Instant::now();
    let said = message(&run(&["sh -c 'sleep 60; true'", "--timeout", "0.3"]));
    assert!(said.contains("did not end within 0.3 s"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(20), "the command was stopped with what it started");
}

#[test]
fn wrong_usage_is_an_error() {
    let sandbox = family();
    for (words, code) in [
        (vec!["conformance", "vectors", "--sut", "'"], "sut_command"),
        (vec!["conformance", "vectors", "--sut", "true", "--timeout", "0"], "sut_timeout"),
        (vec!["conformance", "vectors", "--sut", "true", "--timeout", "nan"], "sut_timeout"),
        (vec!["conformance", "vectors", "--family", "min"], "family_unknown"),
        (vec!["conformance", "vectors", "-t", "tflite_micro", "--only", "x"], "vector_none"),
        (vec!["conformance", "vectors", "--runtime", "tiles"], "runtime_unknown"),
        (vec!["conformance", "nowhere"], "io"),
    ] {
        let run = sandbox.run_words(&[&words[..], &["--json"]].concat());
        assert_eq!(run.code, 2, "{words:?}");
        assert_eq!(run.error()["code"], code, "{words:?}");
    }
}
