//! `run` and `calibrate`.

use super::{INPUT, Sandbox, npy, raw, sample};
use serde_json::Value;

#[test]
fn a_run_writes_outputs_and_a_manifest_that_names_everything() {
    let sandbox = Sandbox::with_samples(1);
    let done = sandbox.run("run @residual.qdq.onnx -t onnxruntime_cpu -i x=x0.npy -o out --json");
    let manifest = done.json();
    let file: Value = serde_json::from_slice(&sandbox.read("out/manifest.json")).unwrap();
    assert_eq!(manifest, file);
    let hash = |v: &Value| v.as_str().is_some_and(|s| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(hash(&manifest["model"]["sha256"]) && hash(&manifest["target"]["spec_sha256"]));
    assert!(hash(&manifest["results"][0]["inputs"]["x"]["sha256"]));
    assert_eq!(manifest["tool"]["name"], "nputwin");
    assert_eq!(manifest["encodings"], Value::Null);
    assert_eq!(manifest["report"]["nodes"].as_array().unwrap().len(), 6);
    assert_eq!(manifest["results"][0]["outputs"]["y"]["file"], "y.npy");
    assert_eq!(manifest["results"][0]["outputs"]["y"]["shape"], serde_json::json!([1, 5]));
    assert_eq!(sandbox.read("out/y.npy").len() % 64, 20);
    let names: Vec<_> = std::fs::read_dir(sandbox.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no temporary file stays: {names:?}");
}

#[test]
fn limits_of_memory_threads_and_jobs_are_errors_of_their_own() {
    let sandbox = Sandbox::with_samples(1);
    let run = "run @residual.qdq.onnx -t onnxruntime_cpu -i x=x0.npy -o out";
    let refused = |arguments: &str, code: &str, part: &str| {
        let done = sandbox.run(&format!("{arguments} --json"));
        let error = done.error();
        assert_eq!((done.code, error["code"].as_str()), (2, Some(code)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(&format!("{run} --max-memory 100"), "memory_limit", "100 bytes");
    refused(&format!("{run} -j 100000"), "threads", "100000");
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/cmsis-nn");
    refused(&format!("conformance {vectors} -j 100000"), "threads", "100000");
    let size = sandbox.run(&format!("{run} --max-memory 4GB"));
    assert!(size.code == 2 && size.stderr.contains("'4GB' is no number of bytes"), "{}", size.stderr);
    sandbox.run(&format!("{run} --max-memory 1GiB")).succeeds();
}

#[test]
fn the_text_form_states_the_evidence_of_the_rules() {
    let sandbox = Sandbox::with_samples(1);
    let done = sandbox.run("run @residual.qdq.onnx -t onnxruntime_cpu -i x0.raw -o out");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("weakest evidence among the rules used: "), "{}", done.stdout);
    let float = sandbox.run("run @residual.onnx -t float -i x0.raw -o out");
    assert!(float.stdout.contains("no node used a rule"), "{}", float.stdout);
}

#[test]
fn an_input_list_gives_one_folder_per_inference_and_the_same_bits() {
    let sandbox = Sandbox::with_samples(3);
    sandbox.run("run @residual.qdq.onnx -t onnxruntime_cpu --input-list list.txt -o list").succeeds();
    for i in 0..3 {
        sandbox
            .run(&format!("run @residual.qdq.onnx -t onnxruntime_cpu -i x{i}.npy -o single --format raw --threads 2"))
            .succeeds();
        let listed = sandbox.read(&format!("list/Result_{i}/y.raw"));
        assert_eq!(listed.len(), 20);
        assert_eq!(listed, sandbox.read("single/y.raw"));
    }
    assert_ne!(sandbox.read("list/Result_0/y.raw"), sandbox.read("list/Result_1/y.raw"));
}

#[test]
fn a_killed_list_is_taken_up_without_computing_or_spoiling_what_is_finished() {
    let count = 400;
    let sandbox = Sandbox::with_samples(count);
    let line = "run @residual.qdq.onnx -t onnxruntime_cpu --input-list list.txt --threads 2 -o";
    sandbox.run(&format!("{line} whole")).succeeds();
    let mut child = sandbox.spawn(&format!("{line} killed"));
    while !sandbox.path("killed/Result_20/result.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ends before it is killed");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!sandbox.path("killed/manifest.json").exists());
    let written = |i: usize| {
        let file = std::fs::metadata(sandbox.path(&format!("killed/Result_{i}/y.raw")));
        file.and_then(|f| f.modified()).ok()
    };
    let is_finished = |i: &usize| sandbox.path(&format!("killed/Result_{i}/result.json")).exists();
    let before: Vec<_> = (0..count).filter(is_finished).map(|i| (i, written(i))).collect();
    assert!(before.len() >= 20 && before.len() < count, "{} inferences were finished", before.len());
    sandbox.run(&format!("{line} killed")).succeeds();
    for (i, time) in before {
        assert_eq!(written(i), time, "inference {i} was finished");
    }
    for i in 0..count {
        let file = format!("Result_{i}/y.raw");
        assert_eq!(sandbox.read(&format!("killed/{file}")), sandbox.read(&format!("whole/{file}")), "inference {i}");
    }
    // What was computed under another target is not finished.
    let float = sandbox.read("whole/Result_3/y.raw");
    sandbox.run("run @residual.onnx -t float --input-list list.txt -o whole").succeeds();
    assert_ne!(sandbox.read("whole/Result_3/y.raw"), float);
}

#[test]
fn a_batch_gives_the_bits_of_single_inputs() {
    let sandbox = Sandbox::with_samples(2);
    let batch: Vec<f32> = [sample(0), sample(1)].concat();
    sandbox.write("both.raw", raw(&batch));
    sandbox.run("run @residual.qdq.onnx -t onnxruntime_cpu -i both.raw -o both --format raw").succeeds();
    sandbox.run("run @residual.qdq.onnx -t onnxruntime_cpu --input-list list.txt -o list").succeeds();
    let singles = [sandbox.read("list/Result_0/y.raw"), sandbox.read("list/Result_1/y.raw")].concat();
    assert_eq!(sandbox.read("both/y.raw"), singles);
}

#[test]
fn a_list_can_ask_for_tensors_between_the_layers() {
    let sandbox = Sandbox::with_samples(1);
    sandbox.write("wanted.txt", "%sum pool\nx0.raw\n");
    sandbox.run("run @residual.qdq.onnx -t onnxruntime_cpu --input-list wanted.txt -o out").succeeds();
    assert_eq!(sandbox.read("out/Result_0/sum.raw").len(), 4 * 4 * 36);
    assert_eq!(sandbox.read("out/Result_0/pool.raw").len(), 4 * 4);
}

#[test]
fn native_inputs_and_outputs_are_codes() {
    let sandbox = Sandbox::new();
    let info = sandbox.run("info @residual.qdq.onnx --json").json();
    let zero_point = info["inputs"][0]["encoding"]["zero_point"][0].as_u64().unwrap() as u8;
    sandbox.write("codes.raw", vec![zero_point; INPUT]);
    sandbox.write("zeros.raw", raw(&[0.0; INPUT]));
    let run = |rest: &str| {
        sandbox.run(&format!("run @residual.qdq.onnx -t onnxruntime_cpu --format raw {rest}")).succeeds();
    };
    run("-i codes.raw --native-input --native-output -o codes");
    run("-i zeros.raw --native-output -o reals");
    let codes = sandbox.read("codes/y.raw");
    assert_eq!(codes.len(), 5);
    assert_eq!(codes, sandbox.read("reals/y.raw"));
}

#[test]
fn every_tensor_is_dumped_as_integers_and_floats() {
    let sandbox = Sandbox::with_samples(1);
    let manifest = sandbox.run("run @residual.qdq.onnx -t onnxruntime_cpu -i x0.npy -o out --dump-all --json").json();
    let tensors = &manifest["results"][0]["tensors"];
    let entries = tensors["entries"].as_array().unwrap();
    let called = |e: &Value, name: &str| e["name"] == name || e["aliases"].as_array().unwrap().contains(&name.into());
    let find = |name: &str| entries.iter().find(|e| called(e, name)).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(find("sum")["codes"], "uint8");
    assert_eq!(find("sum")["shape"], serde_json::json!([1, 4, 6, 6]));
    assert!(find("y")["encoding"]["scale"][0].as_f64().unwrap() > 0.0);
    // The dump is a capture like any other: the run that made it equals it.
    let same = sandbox.run("compare @residual.qdq.onnx -t onnxruntime_cpu -i x0.npy --captured out --json").json();
    assert_eq!(same["mismatches"], serde_json::json!([]));
    assert!(same["tensors"].as_array().unwrap().len() >= 6);
    assert!(same["tensors"].as_array().unwrap().iter().all(|t| t["basis"] == "codes" && t["exact"] == 1.0));
}

#[test]
fn calibration_makes_encodings_that_every_target_takes() {
    let sandbox = Sandbox::with_samples(3);
    for version in ["0.6.1", "1.0.0", "2.0.0", "2.1.0"] {
        let line = format!(
            "calibrate @residual.onnx --input-list list.txt -o r.{version} --version {version} --per-channel --json"
        );
        let done = sandbox.run(&line).json();
        assert_eq!((&done["samples"], &done["parameters"]), (&3.into(), &3.into()), "{done}");
        let run = sandbox
            .run(&format!("run @residual.onnx -e r.{version} -t htp_v75 -i x0.raw -o {version} --format raw --json"));
        let manifest = run.json();
        assert_eq!(manifest["encodings"]["version"], version);
        assert_eq!(sandbox.read(&format!("{version}/y.raw")), sandbox.read("0.6.1/y.raw"));
    }
    let percentile =
        "calibrate @residual.onnx --input-list list.txt -o p.encodings --method percentile --percentile 95";
    sandbox.run(percentile).succeeds();
    assert_ne!(sandbox.read("p.encodings"), sandbox.read("r.1.0.0"));
}

#[test]
fn a_rule_can_be_swapped_and_an_assumed_one_refused() {
    let sandbox = Sandbox::with_samples(1);
    sandbox.run("calibrate @residual.onnx -i x0.npy -o r.encodings").succeeds();
    let base = "run @residual.onnx -e r.encodings -t htp_v75 -i x0.npy -o out --json";
    assert_eq!(sandbox.run(&format!("{base} --assume Add=A1")).json()["target"]["assumptions"]["Add"], "A1");
    let strict = sandbox.run(&format!("{base} --strict"));
    assert_eq!(strict.code, 3);
    assert_eq!(strict.error()["code"], "strict_assumed");
}

#[test]
fn a_new_run_replaces_old_outputs() {
    let sandbox = Sandbox::with_samples(2);
    for i in [0, 1] {
        sandbox.run(&format!("run @residual.onnx -t float -i x{i}.npy -o out")).succeeds();
    }
    let second = sandbox.read("out/y.npy");
    sandbox.write("again.npy", npy(&[1, 3, 6, 6], &sample(1)));
    sandbox.run("run @residual.onnx -t float -i again.npy -o other").succeeds();
    assert_eq!(second, sandbox.read("other/y.npy"));
}

#[test]
fn a_model_without_inputs_runs_once() {
    use nputwin::graph::{Dim, Graph, Node, Port, TensorInfo};
    use nputwin::tensor::{DType, Tensor};
    let sandbox = Sandbox::new();
    let mut graph = Graph { name: "g".into(), ..Graph::default() };
    graph.opsets.insert(String::new(), 17);
    let shape = Some(vec![Dim::Fixed(2)]);
    let real = |name: &str| TensorInfo { name: name.into(), dtype: Some(DType::F32), ..TensorInfo::default() };
    let constant = Some(Tensor::f32(&[2], vec![-1.0, 2.0]).into());
    let c = graph.add_tensor(TensorInfo { constant, ..real("c") });
    let y = graph.add_tensor(TensorInfo { shape, ..real("y") });
    graph.nodes.push(Node {
        name: "n".into(),
        op_type: "Relu".into(),
        inputs: vec![Some(c)],
        outputs: vec![Some(y)],
        ..Node::default()
    });
    graph.outputs.push(Port { name: "y".into(), tensor: y, quantized: false });
    nputwin::onnx::write(&graph, sandbox.path("m.onnx")).unwrap();
    sandbox.run("run m.onnx -t float -o out").succeeds();
    assert_eq!(sandbox.read("out/y.npy")[128..], [0f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
}
