//! `compare`, `explain`, `info`, `bench` and `convert`.

use super::{Sandbox, npy, raw};
use serde_json::Value;

#[test]
fn a_target_equals_itself_and_differs_from_float() {
    let sandbox = Sandbox::with_samples(2);
    let line = "compare @residual.qdq.onnx -t onnxruntime_cpu --input-list list.txt --json";
    let same = sandbox.run(&format!("{line} --with onnxruntime_cpu")).json();
    assert_eq!((&same["samples"], &same["first_differing"]), (&2.into(), &Value::Null));
    let other = sandbox.run(&format!("{line} --with htp_v75")).json_of(1);
    let tensors = other["tensors"].as_array().unwrap();
    let names: Vec<&str> = tensors.iter().map(|t| t["name"].as_str().unwrap()).collect();
    let place = |name: &str| names.iter().position(|n| *n == name).unwrap();
    assert!(place("x") < place("sum") && place("sum") < place("pool"), "graph order: {names:?}");
    let first = other["first_differing"].as_str().unwrap();
    assert!(tensors[..place(first)].iter().all(|t| t["differing"] == 0));
    assert!(tensors[place(first)]["off_by_n"].as_u64().unwrap() >= 1);
    sandbox.run(&format!("{line} --with htp_v75 --tolerance 255")).json();
}

#[test]
fn the_first_differing_tensor_is_marked() {
    let sandbox = Sandbox::with_samples(1);
    let done = sandbox.run("compare @residual.qdq.onnx -t onnxruntime_cpu --with htp_v75 -i x0.npy");
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert_eq!(done.stdout.lines().filter(|l| l.starts_with("> ")).count(), 1, "{}", done.stdout);
    assert!(done.stdout.contains("first differing tensor: "), "{}", done.stdout);
}

#[test]
fn the_reference_has_its_own_assumptions() {
    let sandbox = Sandbox::with_samples(1);
    let line = "compare @residual.qdq.onnx -t htp_v75 --with htp_v75 -i x0.npy --json --tolerance 3";
    let done = sandbox.run(&format!("{line} --assume Add=A2 --with-assume Add=A8"));
    let json = done.json();
    assert_eq!(json["target"]["assumptions"]["Add"], "A2");
    assert_eq!(json["reference"]["assumptions"]["Add"], "A8");
}

#[test]
fn captured_tensors_are_found_by_name_in_files_and_folders() {
    let sandbox = Sandbox::with_samples(1);
    let line = "compare @residual.qdq.onnx -t onnxruntime_cpu -i x0.npy --json --captured";
    sandbox.run("run @residual.qdq.onnx -t onnxruntime_cpu -i x0.npy -o out --dump-all").succeeds();
    sandbox.run(&format!("{line} out/tensors.int.npz")).json();
    sandbox.run(&format!("{line} out/tensors.float.npz")).json();
    std::fs::create_dir(sandbox.path("dir")).unwrap();
    sandbox.write("dir/pool.npy", npy(&[4], &[9.0, 9.0, 9.0, 9.0]));
    let wrong = sandbox.run(&format!("{line} dir")).json_of(1);
    assert_eq!(wrong["mismatches"], serde_json::json!(["pool"]));
    assert_eq!(wrong["tensors"][0]["basis"], "scaled");
    sandbox.write("dir/pool.npy", npy(&[5], &[0.0; 5]));
    assert_eq!(sandbox.run(&format!("{line} dir")).error()["code"], "captured_shape");
    std::fs::remove_file(sandbox.path("dir/pool.npy")).unwrap();
    assert_eq!(sandbox.run(&format!("{line} dir")).error()["code"], "captured_none");
}

#[test]
fn channels_last_captures_are_reordered_on_request() {
    let sandbox = Sandbox::with_samples(1);
    sandbox.write("wanted.txt", "%sum\nx0.raw\n");
    sandbox.run("run @residual.qdq.onnx -t onnxruntime_cpu --input-list wanted.txt -o out").succeeds();
    let bytes = sandbox.read("out/Result_0/sum.raw");
    let reals: Vec<f32> = bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
    let last: Vec<f32> = (0..36 * 4).map(|i| reals[i % 4 * 36 + i / 4]).collect();
    std::fs::create_dir(sandbox.path("dir")).unwrap();
    sandbox.write("dir/sum.raw", raw(&last));
    let line = "compare @residual.qdq.onnx -t onnxruntime_cpu -i x0.npy --captured dir --json";
    assert_eq!(sandbox.run(line).code, 1);
    sandbox.run(&format!("{line} --captured-layout nhwc")).json();
    sandbox.write("dir/sum.raw", b"");
    std::fs::remove_file(sandbox.path("dir/sum.raw")).unwrap();
    sandbox.write("dir/sum.npy", npy(&[1, 6, 6, 4], &last));
    let error = sandbox.run(line).error();
    assert!(error["help"].as_str().unwrap().contains("nhwc"), "{error}");
}

#[test]
fn explain_shows_operands_and_result_by_index_and_by_coordinates() {
    let sandbox = Sandbox::with_samples(1);
    let line = "explain @residual.qdq.onnx -t onnxruntime_cpu -i x0.npy --tensor sum --json --index";
    let flat = sandbox.run(&format!("{line} 79")).json();
    let coordinates = sandbox.run(&format!("{line} 0,2,1,1")).json();
    assert_eq!(flat, coordinates);
    assert_eq!(flat[0]["tensor"], "sum");
    assert_eq!(flat[0]["node"][1], "Add");
    let both = sandbox.run("explain @residual.qdq.onnx -t onnxruntime_cpu -t htp_v75 -i x0.npy --tensor y");
    assert_eq!(both.code, 0, "{}", both.stderr);
    assert!(both.stdout.contains("under onnxruntime_cpu") && both.stdout.contains("under htp_v75"));
    assert_eq!(sandbox.run(&format!("{line} 0,9,0,0")).error()["code"], "index_range");
    assert_eq!(sandbox.run(&format!("{line} a")).error()["code"], "index_form");
    assert_eq!(sandbox.run(&format!("{line} 100000")).error()["code"], "explain_index");
}

#[test]
fn explain_traces_every_tensor() {
    let sandbox = Sandbox::with_samples(1);
    let line = "@residual.qdq.onnx -i x0.npy";
    for target in ["float", "fake_quant", "onnxruntime_cpu", "htp_v75"] {
        for tensor in ["sum", "pool", "y"] {
            let line = format!("explain {line} -t {target} --tensor {tensor} --index 0");
            let json = sandbox.run(&format!("{line} --json")).json();
            let trace = &json[0]["trace"];
            assert!(!trace["steps"].as_array().unwrap().is_empty(), "{target} {tensor}: {json}");
            let text = sandbox.run(&line).stdout;
            assert!(text.contains(&format!("result   {}", trace["result"].as_str().unwrap())), "{text}");
        }
    }
}

#[test]
fn info_counts() {
    let sandbox = Sandbox::new();
    let info = sandbox.run("info @residual.onnx --json").json();
    // conv1 4·36·27, conv2 4·36·36, fc 5·4.
    assert_eq!(info["macs"], 4 * 36 * 27 + 4 * 36 * 36 + 20);
    assert_eq!(info["cost"]["parameters"], 108 + 4 + 144 + 4 + 20 + 5);
    assert_eq!(info["ops"]["Conv"], 2);
    assert_eq!(info["inputs"][0]["shape"], serde_json::json!(["N", 3, 6, 6]));
    assert_eq!(info["without_encoding"].as_array().unwrap().len(), 14);
    let batch = sandbox.run("info @residual.onnx --json --batch 3").json();
    assert_eq!(batch["macs"], 3 * info["macs"].as_u64().unwrap());
    assert!(sandbox.run("info @residual.qdq.onnx --nodes --tensors").stdout.contains("uint8 scale"));
}

#[test]
fn bench_measures_what_it_says() {
    let sandbox = Sandbox::new();
    let json =
        sandbox.run("bench @residual.qdq.onnx -t onnxruntime_cpu --runs 3 --warmup 0 --batch 2 -j 1 --json").json();
    assert_eq!((&json["runs"], &json["threads"], &json["batch"]), (&3.into(), &1.into(), &2.into()));
    assert!(json["min_ms"].as_f64().unwrap() <= json["median_ms"].as_f64().unwrap());
    assert!(!json["steps"].as_array().unwrap().is_empty());
    assert_eq!(sandbox.run("bench @residual.onnx -t float --runs 0").code, 2);
}

#[test]
fn encodings_move_between_versions_and_out_of_models() {
    let sandbox = Sandbox::with_samples(1);
    sandbox.run("convert @residual.qdq.onnx -o model.encodings").succeeds();
    sandbox.run("convert model.encodings -o two.encodings --to-version 2.0.0 -m @residual.qdq.onnx").succeeds();
    sandbox.run("convert two.encodings -o back.encodings --to-version 1.0.0 -m @residual.qdq.onnx").succeeds();
    let two: Value = serde_json::from_slice(&sandbox.read("two.encodings")).unwrap();
    assert_eq!(two["encodings"].as_array().unwrap().len(), 13);
    let axes = two["encodings"].as_array().unwrap().iter().filter(|e| e["axis"] == 0).count();
    assert_eq!(axes, 6, "weights and biases: {two}");
    let entries = |name: &str| {
        let file: Value = serde_json::from_slice(&sandbox.read(name)).unwrap();
        (file["activation_encodings"].clone(), file["param_encodings"].clone())
    };
    assert_eq!(entries("model.encodings"), entries("back.encodings"));
    let lossy = "convert model.encodings -o lossy.encodings --to-version 2.0.0";
    assert_eq!(sandbox.run(&format!("{lossy} --json")).error()["code"], "encodings_lossy");
    sandbox.run(&format!("{lossy} --lossy")).succeeds();
}

#[test]
fn a_float_model_with_encodings_becomes_a_qdq_model_of_the_same_bits() {
    let sandbox = Sandbox::with_samples(1);
    sandbox.run("calibrate @residual.onnx -i x0.npy -o r.encodings --per-channel").succeeds();
    sandbox.run("convert @residual.onnx -e r.encodings --to qdq -o again.onnx").succeeds();
    sandbox.run("run @residual.onnx -e r.encodings -t htp_v75 -i x0.npy -o a --format raw").succeeds();
    sandbox.run("run again.onnx -t htp_v75 -i x0.npy -o b --format raw").succeeds();
    assert_eq!(sandbox.read("a/y.raw"), sandbox.read("b/y.raw"));
}
