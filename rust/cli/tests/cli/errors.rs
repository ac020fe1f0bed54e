//! What is wrong is told apart, with its own code; nothing panics.

use super::{INPUT, Sandbox, npy, npy_of, raw, sample};
use std::process::{Command, Stdio};

/// Runs `run` on an input file of these bytes and gives code and exit code of the error.
fn fed(name: &str, bytes: &[u8]) -> (String, i32) {
    let sandbox = Sandbox::new();
    sandbox.write(name, bytes);
    let done = sandbox.run(&format!("run @residual.onnx -t float -i {name} -o out --json"));
    (done.error()["code"].as_str().unwrap().to_string(), done.code)
}

#[test]
fn each_malformed_tensor_file_has_its_error() {
    let values = sample(0);
    let good = npy(&[1, 3, 6, 6], &values);
    let mut longer = good.clone();
    longer.push(0);
    let mut version = good.clone();
    version[6] = 7;
    let mut header = good.clone();
    header[12] = b'?';
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("x.npy", Vec::new(), "npy_magic"),
        ("x.npy", b"hello".to_vec(), "npy_magic"),
        ("x.npy", good[..7].to_vec(), "npy_header"),
        ("x.npy", version, "npy_header"),
        ("x.npy", header, "npy_header"),
        ("x.npy", good[..good.len() - 1].to_vec(), "npy_size"),
        ("x.npy", longer, "npy_size"),
        ("x.npy", npy_of("|O", &[1], &[0; 8]), "npy_dtype"),
        ("x.npy", npy_of("<f8", &[1, 3, 6, 6], &[0; 8 * INPUT]), "feed_dtype"),
        ("x.npy", npy(&[3, 6, 6], &values), "feed_shape"),
        ("x.npz", b"no archive".to_vec(), "npz_archive"),
        ("x.raw", raw(&values[1..]), "raw_size"),
        ("x.raw", Vec::new(), "raw_size"),
    ];
    for (name, bytes, code) in cases {
        let (found, exit) = fed(name, &bytes);
        assert_eq!((found.as_str(), exit), (code, 2), "{name}");
    }
}

#[test]
fn each_malformed_list_has_its_error() {
    let sandbox = Sandbox::with_samples(1);
    sandbox.write("short.raw", [0u8; 6]);
    for (text, code) in [
        (&b"# only a comment\n"[..], "input_list_empty"),
        (b"nothing.raw\n", "input_list_file"),
        (b"x:=x0.raw x0.raw\n", "input_list_mixed"),
        (b"x0.raw x0.raw\n", "input_list_count"),
        (b"z:=x0.raw\n", "feed_unknown"),
        (b"x:=x0.raw x:=x0.raw\n", "feed_twice"),
        (b"short.raw\n", "raw_size"),
        (b"%nowhere\nx0.raw\n", "tensor_unknown"),
        (b"\xff\xfe\n", "input_list_utf8"),
    ] {
        sandbox.write("bad.txt", text);
        let done = sandbox.run("run @residual.onnx -t float --input-list bad.txt -o out --json");
        assert_eq!((done.error()["code"].as_str().unwrap(), done.code), (code, 2));
    }
}

#[test]
fn other_wrong_arguments_have_their_errors() {
    let sandbox = Sandbox::with_samples(1);
    sandbox.write("bad.encodings", "{");
    sandbox.write("empty.onnx", "");
    sandbox.write("bad.toml", "schema_version = 1\n= 3\n");
    for (line, code, exit) in [
        ("run nothing.onnx -t float -i x0.npy", "io", 2),
        ("run empty.onnx -t float -i x0.npy", "model_empty", 2),
        ("run @residual.onnx -t float", "input_none", 2),
        ("run @residual.onnx -t floot -i x0.npy", "target_unknown", 2),
        ("run @residual.onnx -t bad.toml -i x0.npy", "spec_toml", 2),
        ("run @residual.onnx -t float -i y=x0.npy", "feed_unknown", 2),
        ("run @residual.onnx -t float -i nothing.npy", "io", 2),
        ("run @residual.onnx -t float -i x0.npy -e bad.encodings", "encodings_json", 2),
        ("run @residual.onnx -t float -i x0.npy --shape x=1,a", "shape_form", 2),
        ("run @residual.onnx -t float -i x0.npy --shape x=2,3,6,6", "input_shape", 2),
        ("run @residual.onnx -t htp_v75 -i x0.npy --assume Add", "assume_form", 2),
        ("run @residual.onnx -t htp_v75 -i x0.npy --assume Ad=A1", "assume_rule", 2),
        ("run @residual.onnx -t htp_v75 -i x0.npy --assume Add=B1", "assume_alternative", 2),
        ("explain @residual.onnx -t float -i x0.npy --tensor nowhere", "tensor_unknown", 2),
        ("explain @residual.onnx -t float -i x0.npy --tensor x", "explain_input", 3),
        ("calibrate @residual.onnx -i x0.npy -o r.enc --method percentile --percentile 10", "calibrate_percentile", 2),
        ("calibrate @residual.onnx -i x0.npy -o r.enc --act-bits 40", "encoding_bitwidth", 2),
        ("calibrate @residual.onnx -i x0.npy -o r.enc --version 3", "encodings_version", 2),
        ("convert @residual.onnx -o r.enc", "convert_empty", 2),
        ("convert bad.encodings -o r.onnx", "convert_form", 2),
        ("spec show nowhere", "target_unknown", 2),
        ("spec lint nowhere.toml", "io", 2),
    ] {
        let done = sandbox.run(&format!("{line} --json"));
        let error = done.error();
        assert_eq!((error["code"].as_str().unwrap(), done.code), (code, exit), "{line}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn wrong_usage_is_exit_code_two_in_both_forms() {
    let sandbox = Sandbox::new();
    for line in ["", "rum", "run", "compare @residual.onnx -t float -i x", "run @residual.onnx -t float --threads x"] {
        assert_eq!(sandbox.run(line).code, 2, "{line}");
        let json = sandbox.run(&format!("{line} --json"));
        assert_eq!((json.code, &json.error()["kind"]), (2, &"usage".into()), "{line}");
    }
    assert_eq!(sandbox.run("--help").code, 0);
    assert!(sandbox.run("--version").stdout.starts_with("nputwin "));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nputwin"))
        .args(["spec", "doc", "htp_v75"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}
