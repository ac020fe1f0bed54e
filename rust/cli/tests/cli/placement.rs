//! `check` and `spec import`.

use super::Sandbox;
use serde_json::json;

fn config() -> serde_json::Value {
    json!({
        "defaults": {
            "ops": { "is_output_quantized": "True" },
            "params": { "is_quantized": "True", "is_symmetric": "True" },
            "per_channel_quantization": "False",
            "hw_version": "V75",
        },
        "params": { "bias": { "is_quantized": "False" } },
        "op_type": { "Conv": { "per_channel_quantization": "True" }, "Softmax": { "encoding_constraints": { "min": 0.0, "max": 1.0 } } },
        "supergroups": [{ "op_list": ["Conv", "Relu"] }],
        "model_input": { "is_input_quantized": "True" },
        "model_output": {},
    })
}

#[test]
fn what_is_calibrated_for_a_target_passes_its_check_and_fails_that_of_another() {
    let sandbox = Sandbox::with_samples(1);
    let done = sandbox.run("calibrate @residual.onnx -i x0.npy -o r.encodings --json").json();
    assert_eq!(done["findings"], json!([]));
    let good = sandbox.run("check @residual.onnx -e r.encodings -t htp_v75 --json").json();
    assert_eq!(good["findings"], json!([]));
    let quantized = good["placement"].as_array().unwrap().iter().filter(|d| !d["quantizer"].is_null()).count();
    assert!(quantized > 4, "{good}");
    let other = sandbox.run("check @residual.onnx -e r.encodings -t tflite_micro --json").json_of(1);
    let codes: Vec<&str> = other["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"placement_sign"), "{codes:?}");
    let bare = sandbox.run("check @residual.onnx -t htp_v75");
    assert_eq!(bare.code, 1);
    assert!(bare.stdout.contains("[placement_missing]") && bare.stdout.contains("help: calibrate"), "{}", bare.stdout);
    let listed = sandbox.run("check @residual.onnx -e r.encodings --list");
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert!(listed.stdout.contains("per channel on axis 0") && listed.stdout.contains("by rule"), "{}", listed.stdout);
    assert_eq!(sandbox.run("check missing.onnx -t htp_v75").code, 2);
    assert_eq!(sandbox.run("check @residual.onnx -t htp_v57").code, 2);
}

#[test]
fn options_of_calibrate_stand_over_the_target() {
    let sandbox = Sandbox::with_samples(1);
    sandbox.run("calibrate @residual.onnx -i x0.npy -o a.encodings --per-channel=false --act-bits 5").succeeds();
    let shown = sandbox.run("check @residual.onnx -e a.encodings -t htp_v75 --json").json_of(1);
    let codes: Vec<&str> = shown["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert!(codes.iter().all(|c| *c == "placement_format") && !codes.is_empty(), "{shown}");
}

#[test]
fn a_configuration_becomes_a_target() {
    let sandbox = Sandbox::with_samples(1);
    sandbox.write("config.json", config().to_string());
    let json = sandbox.run("spec import config.json --name mine --extends htp_v75 -o mine.toml --json").json();
    assert_eq!((&json["name"], &json["findings"]), (&json!("mine"), &json!([])));
    assert_eq!(sandbox.run("spec lint mine.toml").code, 0);
    let shown = sandbox.run("spec show mine.toml").stdout;
    assert!(shown.contains("Softmax: grid from 0 to 1") && shown.contains("config.json"), "{shown}");
    let diff = sandbox.run("spec diff htp_v75 mine.toml");
    assert_eq!(diff.code, 1);
    assert!(diff.stdout.contains("  - Sigmoid: grid from 0 to 1"), "{}", diff.stdout);
    assert!(!diff.stdout.contains("\nConv\n"), "{}", diff.stdout);
    sandbox.run("calibrate @residual.onnx -i x0.npy -o r.encodings -t mine.toml").succeeds();
    sandbox.run("run @residual.onnx -e r.encodings -t mine.toml -i x0.npy -o out").succeeds();
    let printed = sandbox.run("spec import config.json");
    assert!(printed.stdout.contains("name = \"config\"") && printed.stdout.contains("[placement.ops.Softmax"));
}

#[test]
fn nothing_of_a_configuration_is_dropped_silently() {
    let sandbox = Sandbox::new();
    let mut left_out = config();
    left_out["supergroup_pass_list"] = json!(["FancySoftmax"]);
    sandbox.write("config.json", left_out.to_string());
    let json = sandbox.run("spec import config.json -o a.toml --json").json_of(1);
    assert_eq!(json["findings"][0]["place"], "supergroup_pass_list");
    let mut unknown = config();
    unknown["op_type"]["Conv"]["is_symetric"] = json!("True");
    sandbox.write("config.json", unknown.to_string());
    let failed = sandbox.run("spec import config.json -o b.toml --json");
    assert_eq!(failed.code, 2);
    assert_eq!(failed.error()["code"], "config_key");
    assert_eq!(failed.error()["help"], "did you mean 'is_symmetric'?");
    assert!(!sandbox.path("b.toml").exists());
    assert_eq!(sandbox.run("spec import nothing.json").code, 2);
}
