//! Golden vectors that lie: each is refused, or its case fails, with a text that says what is wrong. Nothing panics.

use nputwin::arrays::NpzWriter;
use nputwin::conformance::{Against, Check, Family, Outcome, Runner, Runtime, find_families};
use nputwin::spec::Spec;
use nputwin::tensor::{Data, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::Path;

/// A convolution of 2 channels by a 1×1 kernel.
fn conv() -> Value {
    let operand = |role: &str, dtype: &str, shape: &[usize], scale: &[&str]| {
        let zero_point = vec![0; scale.len()];
        let axis = (scale.len() > 1).then_some(0);
        json!({
            "role": role, "array": role, "dtype": dtype, "shape": shape,
            "scale": scale, "zero_point": zero_point, "axis": axis,
        })
    };
    json!({
        "id": "mine/Conv/0", "file": "Conv.npz", "op": "Conv",
        "attributes": { "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1 },
        "inputs": [
            operand("in0", "int8", &[1, 2, 2, 2], &["0.5"]),
            operand("w", "int8", &[2, 2, 1, 1], &["0.5", "0.25"]),
            operand("b", "int32", &[2], &["0.25", "0.125"]),
        ],
        "outputs": [operand("out", "int8", &[1, 2, 2, 2], &["0.5"])],
    })
}

fn write(dir: &Path, cases: &[Value]) {
    let document = json!({ "format": "nputwin-golden/1", "family": "mine", "cases": cases });
    std::fs::write(dir.join("cases.json"), document.to_string()).unwrap();
    let mut file = BufWriter::new(std::fs::File::create(dir.join("Conv.npz")).unwrap());
    let mut npz = NpzWriter::new(&mut file);
    let i8s = |shape: &[usize], v: Vec<i8>| Tensor::new(shape.to_vec(), Data::I8(v.into())).unwrap();
    npz.add("in0", &i8s(&[1, 2, 2, 2], (-4..4).collect())).unwrap();
    npz.add("w", &i8s(&[2, 2, 1, 1], vec![1, 2, 3, 4])).unwrap();
    npz.add("b", &Tensor::new(vec![2], Data::I32(vec![0, 8].into())).unwrap()).unwrap();
    // acc = x0 + 2·x1 = (-4, -1, 2, 5), halved with ties up; 3·x0 + 4·x1 + 8 = (-4, 3, 10, 17), halved with ties up to
    // (-2, 2, 5, 9), then halved with ties away from zero.
    npz.add("out", &i8s(&[1, 2, 2, 2], vec![-2, 0, 1, 3, -1, 1, 3, 5])).unwrap();
    npz.finish().unwrap();
}

fn run(dir: &Path) -> nputwin::Result<Outcome> {
    let family = Family::read(dir)?;
    let spec = Spec::load("tflite_micro").unwrap();
    let runtimes = Runtime::named(&["reference".into(), "scalar".into()]).unwrap();
    let runners: Vec<&dyn Runner> = runtimes.iter().map(|r| r as &dyn Runner).collect();
    let check = Check { family: &family, spec: Some(&spec), against: Against::Vectors, runners: &runners, jobs: 1 };
    let report = check.run(&|_| true, &mut || Ok(()))?;
    let outcomes = &report.cases[0].outcomes;
    assert_eq!(outcomes[0].1, outcomes[1].1, "both runtimes say the same");
    assert_eq!(report.is_equal(), outcomes[0].1.is_equal());
    Ok(outcomes[0].1.clone())
}

/// The case with one value replaced, or taken away where the value is null.
fn changed(path: &str, value: Value) -> Value {
    let mut case = conv();
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = case.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        _ if value.is_null() => drop(parent.as_object_mut().unwrap().remove(key)),
        _ => parent[key] = value,
    }
    case
}

#[test]
fn the_unchanged_case_is_equal() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[conv()]);
    assert_eq!(run(dir.path()).unwrap(), Outcome::Equal);
}

#[test]
fn what_only_informs_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut case = conv();
    case["source"] = json!({ "repository": "https://example.com", "commit": "0" });
    case["case"] = json!(0);
    case["domain"] = json!("");
    for (operand, layout) in [("/inputs/0", "NCHW"), ("/inputs/1", "OIHW"), ("/outputs/0", "NCHW")] {
        let operand = case.pointer_mut(operand).unwrap();
        operand["layout"] = json!(layout);
        operand["scale_dtype"] = json!("float32");
        (operand["min"], operand["max"]) = (json!("-64"), json!("63.5"));
    }
    write(dir.path(), &[case]);
    assert_eq!(run(dir.path()).unwrap(), Outcome::Equal);
}

#[test]
fn cases_that_lie_fail_with_texts_of_their_own() {
    let lies = [
        ("/op", json!("Convolve"), "Convolve"),
        ("/op", json!(""), "op_unknown"),
        ("/file", json!("Gemm.npz"), "Gemm.npz"),
        ("/inputs/0/array", json!("in1"), "no array 'in1'"),
        ("/outputs/0/array", json!("y"), "no array 'y'"),
        ("/inputs/0/shape", json!([1, 2, 2, 3]), "the case says int8 of shape [1, 2, 2, 3]"),
        ("/outputs/0/shape", json!([1, 2, 4]), "[1, 2, 4]"),
        ("/inputs/1/shape", json!([2, 1, 1, 1]), "[2, 1, 1, 1]"),
        ("/inputs/0/dtype", json!("uint8"), "the case says uint8"),
        ("/inputs/0/dtype", json!("complex64"), "complex64"),
        ("/inputs/0/scale/0", json!("nan"), "scale NaN"),
        ("/inputs/0/scale/0", json!("-1"), "scale -1"),
        ("/inputs/0/scale/0", json!("0"), "scale 0"),
        ("/inputs/0/scale/0", json!("inf"), "scale inf"),
        ("/inputs/0/scale/0", json!("half"), "'half'"),
        ("/inputs/0/scale", json!([]), "in0"),
        ("/inputs/1/scale", json!(["1", "1", "1"]), "3 scales"),
        ("/inputs/1/axis", json!(7), "axis 7"),
        ("/outputs/0/axis", json!(99), "axis 99"),
        ("/inputs/0/zero_point/0", json!(300), "zero point 300"),
        ("/attributes/group", json!(3), "group"),
        ("/attributes/strides", json!([0, 1]), "stride"),
        ("/attributes/pads", json!([-9, 0, 0, 0]), "pad"),
        ("/attributes/kernel_shape", json!([3, 3]), "kernel_shape"),
        ("/attributes/dilations", json!([{ "a": 1 }]), "dilations"),
        ("/attributes/speed", json!(1), "speed"),
        ("/domain", json!("com.example"), "com.example"),
        ("/inputs/0/accumulator_bits", json!(9), "accumulator_bits = 9"),
        ("/inputs/0/dtype", json!("int64"), "the case says int64"),
        ("/attributes/group", json!(u64::MAX), "18446744073709551615"),
        ("/activation", json!({ "type": "Relu" }), "neither qmin nor qmax"),
        ("/activation", json!({ "type": "Relu", "by": "magic" }), "'magic'"),
        ("/inputs", json!([]), "no input"),
        ("/outputs", json!([]), "0 outputs"),
    ];
    let mut texts = BTreeMap::new();
    for (path, value, part) in lies {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[changed(path, value.clone())]);
        let outcome = run(dir.path()).unwrap_or_else(|e| panic!("{path} = {value} is a matter of the case: {e}"));
        let Outcome::Failed { code, message } = outcome else { panic!("{path} = {value}: {outcome}") };
        assert!(message.contains(part) || code == part, "{path} = {value}: {message}");
        texts.insert(message, path);
    }
    assert!(texts.len() > 20, "the texts differ");
}

#[test]
fn files_that_lie_are_refused() {
    let twice = vec![conv(), conv()];
    let outside = vec![changed("/file", json!("../Conv.npz"))];
    let nested = vec![changed("/file", json!("a/Conv.npz"))];
    let empty = vec![changed("/file", json!(""))];
    let roles = vec![changed("/inputs/1/role", json!("in0"))];
    let missing = vec![changed("/id", Value::Null)];
    let negative = vec![changed("/inputs/0/shape", json!([-1]))];
    let mut three_tenths = changed("/inputs/0/scale_dtype", json!("float32"));
    three_tenths["inputs"][0]["scale"] = json!(["0.3"]);
    for (cases, code, part) in [
        (twice, "vector_case", "twice"),
        (outside, "vector_case", "no file of the folder"),
        (nested, "vector_case", "no file of the folder"),
        (empty, "vector_case", "no file of the folder"),
        (roles, "vector_case", "role 'in0'"),
        (missing, "vector_json", "`id`"),
        (negative, "vector_json", "-1"),
        (vec![changed("/sped", json!(1))], "vector_key", "'sped'"),
        (vec![changed("/domian", json!(""))], "vector_key", "did you mean 'domain'"),
        (vec![changed("/inputs/1/sclae", json!(["1"]))], "vector_key", "operand 'w' has an unknown key 'sclae'"),
        (vec![changed("/activation", json!({ "type": "none", "qmim": 1 }))], "vector_key", "did you mean 'qmin'"),
        (vec![changed("/inputs/0/layout", json!("NHWC"))], "vector_operand", "NCHW is read"),
        (vec![changed("/inputs/1/layout", json!("IOHW"))], "vector_operand", "OIHW is read"),
        (vec![changed("/inputs/2/layout", json!("NCHW"))], "vector_operand", "layout NCHW of shape [2]"),
        (vec![changed("/inputs/0/scale_dtype", json!("float16"))], "vector_operand", "scales of type float16"),
        (vec![three_tenths], "vector_operand", "scale 0.3 is no float32"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &cases);
        let error = run(dir.path()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(part) && error.to_string().contains("cases.json"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    for (text, code) in [
        ("{", "vector_json"),
        ("[]", "vector_json"),
        (r#"{"format": "nputwin-golden/2", "family": "x", "cases": []}"#, "vector_format"),
    ] {
        std::fs::write(dir.path().join("cases.json"), text).unwrap();
        assert_eq!(Family::read(dir.path()).err().unwrap().code(), code);
    }
    let bare = tempfile::tempdir().unwrap();
    assert_eq!(find_families(bare.path()).unwrap_err().code(), "vector_folder");
}

#[test]
fn archives_that_are_cut_short_fail_the_case() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[conv()]);
    let path = dir.path().join("Conv.npz");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let outcome = run(dir.path()).unwrap();
        assert!(matches!(outcome, Outcome::Failed { .. }), "{length} bytes: {outcome}");
    }
    // A bit of an array: the archive's checksum tells.
    let mut broken = whole.clone();
    let at = whole.windows(8).position(|w| w == [252, 253, 254, 255, 0, 1, 2, 3]).unwrap();
    broken[at] ^= 1;
    std::fs::write(&path, &broken).unwrap();
    let outcome = run(dir.path()).unwrap();
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome}");
}
