//! Encodings files: real exports and generated entries, converted between all versions.

use nputwin::encoding::file::{
    AxisEvidence, EncodingsFile, Entry, FloatKind, NamedEntry, ParamUse, Section, Version, WriteOptions,
};
use nputwin::encoding::{Encoding, Granularity, QuantizeRule, quantize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const STRICT: WriteOptions = WriteOptions { lossy: false };
const LOSSY: WriteOptions = WriteOptions { lossy: true };

/// The folder of real exports, if this machine has it.
fn exports() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = root.ancestors().skip(1).take(3).map(|p| p.join("shared/aimet-exports")).find(|p| p.is_dir());
    if found.is_none() {
        println!("skipped: there is no folder shared/aimet-exports beside the checkout");
    }
    found
}

/// Encodings files of the exports: (export, file).
fn real_files() -> Vec<(String, EncodingsFile)> {
    let Some(root) = exports() else { return Vec::new() };
    let mut files = Vec::new();
    for folder in std::fs::read_dir(root).unwrap() {
        let folder = folder.unwrap().path();
        for path in std::fs::read_dir(&folder).unwrap() {
            let path = path.unwrap().path();
            if path.extension().is_some_and(|e| e == "encodings") {
                let file = EncodingsFile::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                files.push((folder.file_name().unwrap().to_string_lossy().into_owned(), file));
            }
        }
    }
    files.sort_by(|a, b| (&a.0, a.1.version).cmp(&(&b.0, b.1.version)));
    files
}

/// Reals whose quotients by the scale include ties, their neighbours and values beyond the grid.
fn ramp(scale: f64, encoding: &Encoding) -> Vec<f32> {
    let scale = scale as f32;
    let (lo, hi) = (encoding.qmin().max(-300), encoding.qmax().min(300));
    let mut reals = Vec::new();
    for step in (lo - hi - 2)..=(hi - lo + 2) {
        let tie = (step as f32 + 0.5) * scale;
        reals.extend([tie, tie.next_up(), tie.next_down(), step as f32 * scale]);
    }
    reals.extend([f32::INFINITY, f32::NEG_INFINITY]);
    reals
}

/// Codes of the ramp under every scale of an entry, in the order of the scales.
fn codes(entry: &NamedEntry) -> Vec<Vec<i32>> {
    let grid = |scale: f64, zero_point: i64, bitwidth: u32, signed: bool| {
        let encoding = Encoding::per_tensor(scale, zero_point, bitwidth, signed).unwrap();
        let reals = ramp(scale, &encoding);
        quantize(&reals, &[reals.len()], &encoding, QuantizeRule::default()).unwrap()
    };
    match &entry.entry {
        Entry::Int(e) => e.scale.iter().zip(&e.zero_point).map(|(s, z)| grid(*s, *z, e.bitwidth, e.signed)).collect(),
        Entry::Unplaced(u) => {
            u.scale().iter().zip(u.zero_point()).map(|(s, z)| grid(*s, *z, u.bitwidth(), u.signed())).collect()
        }
        Entry::Float(_) => Vec::new(),
    }
}

fn all_codes(file: &EncodingsFile) -> BTreeMap<String, Vec<Vec<i32>>> {
    file.entries().iter().map(|e| (e.name.clone(), codes(e))).collect()
}

/// The axes that the 2.0.0 file of the same export states, as a graph would imply them; axis 0 where there is no such
/// file.
fn usages(files: &[(String, EncodingsFile)], export: &str, file: &EncodingsFile) -> BTreeMap<String, ParamUse> {
    let stated = files.iter().find(|(name, f)| name == export && f.version == Version::V2_0_0);
    let mut usages = BTreeMap::new();
    for entry in file.entries() {
        let count = match &entry.entry {
            Entry::Unplaced(u) => u.scale().len(),
            Entry::Int(e) if matches!(e.granularity, Granularity::PerChannel { .. }) => e.scale.len(),
            _ => continue,
        };
        let axis = stated.and_then(|(_, f)| f.get(&entry.name)).and_then(|e| match e.encoding()?.granularity {
            Granularity::PerChannel { axis } => Some(axis),
            _ => None,
        });
        let axis = axis.unwrap_or(0);
        let mut shape = vec![7; 2];
        shape[axis] = count;
        usages.insert(entry.name.clone(), ParamUse { shape, axis, block_axis: Some(1 - axis) });
    }
    usages
}

fn reread(file: &EncodingsFile, version: Version, options: &WriteOptions) -> EncodingsFile {
    let written = file.write(version, options).unwrap_or_else(|e| panic!("{} to {version}: {e}", file.version));
    EncodingsFile::parse(written.text.as_bytes(), "written").unwrap_or_else(|e| panic!("{version}: {e}"))
}

#[test]
fn real_files_load_and_survive_every_conversion() {
    let files = real_files();
    let mut tensors = 0;
    for (export, file) in &files {
        let usages = usages(&files, export, file);
        let lookup = |name: &str| usages.get(name).cloned();
        let mut source = file.clone();
        assert_eq!(source.resolve_axes(lookup).unwrap(), Vec::<String>::new());
        let expected = all_codes(&source);
        tensors += expected.len();
        for version in Version::ALL {
            let mut there = reread(&source, version, &STRICT);
            assert_eq!(there.resolve_axes(lookup).unwrap(), Vec::<String>::new());
            assert_eq!(all_codes(&there), expected, "{export} {} to {version}", file.version);
            for last in Version::ALL {
                let mut back = reread(&there, last, &STRICT);
                back.resolve_axes(lookup).unwrap();
                for entry in back.entries() {
                    let (a, b) = (entry.encoding().unwrap(), source.get(&entry.name).unwrap().encoding().unwrap());
                    assert!(a.same_grid(b), "{export} {} {version} {last}: {a:?} {b:?}", entry.name);
                }
                assert_eq!(back.entries().len(), source.entries().len());
            }
        }
    }
    println!("{} files, {tensors} tensors", files.len());
}

#[test]
fn versions_of_one_export_agree() {
    let files = real_files();
    for (export, a) in &files {
        for (_, b) in files.iter().filter(|(other, b)| other == export && b.version > a.version) {
            let (codes_a, codes_b) = (all_codes(a), all_codes(b));
            let common: Vec<_> = codes_a.keys().filter(|k| codes_b.contains_key(*k)).collect();
            assert!(common.len() * 10 >= codes_a.len().min(codes_b.len()) * 8);
            for name in common {
                assert_eq!(codes_a[name], codes_b[name], "{export} {name} in {} and {}", a.version, b.version);
            }
        }
    }
}

#[test]
fn a_real_file_written_in_its_own_version_is_the_same_json() {
    let Some(root) = exports() else { return };
    for (path, version) in [
        ("residual_d3/model_0.6.1.encodings", Version::V0_6_1),
        ("block_w8a8/model_0.6.1.encodings", Version::V0_6_1),
        ("block_w8a8/model_1.0.0.encodings", Version::V1_0_0),
        ("block_w8a16/model_1.0.0.encodings", Version::V1_0_0),
        ("zoo_w4a16/model_2.0.0.encodings", Version::V2_0_0),
        ("block_w8a8/model_2.1.0.encodings", Version::V2_1_0),
    ] {
        let text = std::fs::read_to_string(root.join(path)).unwrap();
        let file = EncodingsFile::parse(text.as_bytes(), path).unwrap();
        let written = file.write(version, &STRICT).unwrap();
        let (a, b): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(&text).unwrap(), serde_json::from_str(&written.text).unwrap());
        assert!(a == b, "{path}");
        assert!(written.notes.is_empty(), "{:?}", written.notes);
    }
}

fn parse(text: &str) -> nputwin::Result<EncodingsFile> {
    EncodingsFile::parse(text.as_bytes(), "test")
}

fn v1(params: &str) -> String {
    format!(r#"{{"version":"1.0.0","activation_encodings":[],"param_encodings":[{params}]}}"#)
}

fn v2(version: &str, list: &str) -> String {
    format!(r#"{{"version":"{version}","encodings":[{list}]}}"#)
}

const LPBQ_1: &str = r#"{"name":"w","enc_type":"LPBQ","dtype":"INT","bw":8,"compressed_bw":4,"block_size":4,"is_sym":true,
 "scale":[0.0026388,0.0026213],"offset":[-128,-128],"per_block_int_scale":[15,16,12,1]}"#;

fn gemm(shape: [usize; 2], trans_b: bool) -> ParamUse {
    ParamUse::of_operator("Gemm", 1, &shape, trans_b).unwrap()
}

#[test]
fn lpbq_travels_between_all_versions_that_hold_it() {
    for (usage, granularity) in [
        (gemm([2, 8], true), Granularity::PerBlock { axis: 1, block_size: 4 }),
        (gemm([8, 2], false), Granularity::PerBlock { axis: 0, block_size: 4 }),
        (
            ParamUse::of_operator("Conv", 1, &[2, 8, 3, 3], false).unwrap(),
            Granularity::PerBlock { axis: 1, block_size: 4 },
        ),
    ] {
        let lookup = |_: &str| Some(usage.clone());
        let mut file = parse(&v1(LPBQ_1)).unwrap();
        assert_eq!(file.encoding("w").unwrap_err().code(), "encodings_axis");
        file.resolve_axes(lookup).unwrap();
        let original = file.encoding("w").unwrap().unwrap().clone();
        assert_eq!(original.granularity, granularity);
        original.validate_shape(&usage.shape).unwrap();
        assert_eq!(original.lpbq.as_ref().unwrap().decompressed_bitwidth, 8);
        let holding = [Version::V1_0_0, Version::V2_0_0, Version::V2_1_0];
        for first in holding {
            for second in holding {
                let mut there = reread(&file, first, &STRICT);
                there.resolve_axes(lookup).unwrap();
                let mut back = reread(&there, second, &STRICT);
                back.resolve_axes(lookup).unwrap();
                assert_eq!(back.encoding("w").unwrap().unwrap(), &original, "{first} {second} {granularity:?}");
            }
        }
        let error = file.write(Version::V0_6_1, &STRICT).unwrap_err();
        assert_eq!(error.code(), "encodings_lossy");
        assert!(error.to_string().contains("'w'"), "{error}");
        let mut old = reread(&file, Version::V0_6_1, &LOSSY);
        old.resolve_axes(lookup).unwrap();
        let list = old.encoding("w").unwrap().unwrap();
        assert_eq!((&list.scale, &list.granularity), (&original.scale, &original.granularity));
    }
}

#[test]
fn block_scales_that_stretch_are_rewritten_without_a_graph() {
    let file = parse(&v2(
        "2.1.0",
        r#"{"name":"w","output_dtype":"int4","axis":1,"block_size":4,
            "y_scale":{"x":[[[[15]],[[16]]],[[[12]],[[1]]]],"x_scale":[0.0026388,0.0026213],"axis":0}}"#,
    ))
    .unwrap();
    assert_eq!(file.encoding("w").unwrap_err().code(), "encodings_axis");
    for version in [Version::V1_0_0, Version::V2_0_0, Version::V2_1_0] {
        let mut back = reread(&file, version, &STRICT);
        back.resolve_axes(|_| ParamUse::of_operator("Conv", 1, &[2, 8, 1, 2], false)).unwrap();
        let e = back.encoding("w").unwrap().unwrap();
        assert_eq!(e.lpbq.as_ref().unwrap().per_block_int_scale, [15, 15, 16, 16, 12, 12, 1, 1], "{version}");
    }
}

#[test]
fn the_published_lpbq_entries_of_all_versions_are_one() {
    let a = parse(&v2(
        "2.0.0",
        r#"{"name":"w","output_dtype":"int4","axis":1,"block_size":4,"per_block_int_scale":[[15,16],[12,1]],
            "per_channel_float_scale":[[0.0026388],[0.0026213]]}"#,
    ))
    .unwrap();
    let b = parse(&v2(
        "2.1.0",
        r#"{"name":"w","output_dtype":"int4","axis":1,"block_size":4,
            "y_scale":{"x":[[15,16],[12,1]],"x_scale":[0.0026388,0.0026213],"axis":0}}"#,
    ))
    .unwrap();
    let mut c = parse(&v1(LPBQ_1)).unwrap();
    c.resolve_axes(|_| Some(gemm([2, 8], true))).unwrap();
    assert_eq!(a.encoding("w").unwrap(), b.encoding("w").unwrap());
    assert_eq!(a.encoding("w").unwrap(), c.encoding("w").unwrap());
}

#[test]
fn blocks_travel_with_zero_points() {
    let text = v2(
        "2.0.0",
        r#"{"name":"w","output_dtype":"uint8","axis":0,"block_size":2,"y_scale":[[0.1,0.2,0.3],[0.4,0.5,0.6]],
            "y_zero_point":[[1,2,3],[4,5,6]]}"#,
    );
    let usage = ParamUse::of_operator("MatMul", 1, &[4, 3], false).unwrap();
    let mut file = parse(&text).unwrap();
    assert_eq!(file.write(Version::V1_0_0, &STRICT).unwrap_err().code(), "encodings_lossy");
    file.resolve_axes(|_| Some(usage.clone())).unwrap();
    assert_eq!(file.get("w").unwrap().axis_evidence(), AxisEvidence::Implied);
    let mut old = reread(&file, Version::V1_0_0, &STRICT);
    let Entry::Unplaced(unplaced) = &old.get("w").unwrap().entry else { panic!("placed without a graph") };
    assert_eq!(unplaced.scale(), [0.1, 0.4, 0.2, 0.5, 0.3, 0.6]);
    old.resolve_axes(|_| Some(usage.clone())).unwrap();
    assert!(old.encoding("w").unwrap().unwrap().same_grid(file.encoding("w").unwrap().unwrap()));
    let again = reread(&old, Version::V2_1_0, &STRICT);
    assert!(again.encoding("w").unwrap().unwrap().same_grid(file.encoding("w").unwrap().unwrap()));
}

#[test]
fn floats_are_held_by_the_older_versions_only() {
    let mut file = EncodingsFile::new(Version::V1_0_0);
    file.insert(NamedEntry::new("h", Section::Activation, Entry::Float(FloatKind::F16))).unwrap();
    for version in [Version::V0_6_1, Version::V1_0_0] {
        assert_eq!(reread(&file, version, &STRICT).get("h").unwrap().entry, Entry::Float(FloatKind::F16));
    }
    for version in [Version::V2_0_0, Version::V2_1_0] {
        let error = file.write(version, &STRICT).unwrap_err();
        assert!(error.code() == "encodings_lossy" && error.to_string().contains("'h'"), "{error}");
        let written = file.write(version, &LOSSY).unwrap();
        assert_eq!(written.notes[0].tensor.as_deref(), Some("h"));
    }
    let read = parse(&v2("2.0.0", r#"{"name":"b","output_dtype":"bfloat16"}"#)).unwrap();
    assert_eq!(read.get("b").unwrap().entry, Entry::Float(FloatKind::BF16));
    assert!(read.write(Version::V1_0_0, &STRICT).unwrap_err().to_string().contains("'b'"));
}

#[test]
fn an_axis_is_never_dropped_silently() {
    let text = v2("2.0.0", r#"{"name":"w","output_dtype":"int8","y_scale":[0.1,0.2],"axis":1}"#);
    let mut file = parse(&text).unwrap();
    for version in [Version::V0_6_1, Version::V1_0_0] {
        assert_eq!(file.write(version, &STRICT).unwrap_err().code(), "encodings_lossy");
        assert_eq!(file.write(version, &LOSSY).unwrap().notes.iter().filter(|n| n.tensor.is_some()).count(), 1);
    }
    file.resolve_axes(|_| Some(gemm([2, 2], false))).unwrap();
    file.write(Version::V1_0_0, &STRICT).unwrap();
    file.resolve_axes(|_| Some(gemm([2, 2], true))).unwrap();
    assert_eq!(file.get("w").unwrap().axis_evidence(), AxisEvidence::Contradicted);
    assert_eq!(file.write(Version::V1_0_0, &STRICT).unwrap_err().code(), "encodings_lossy");

    let unplaced = parse(&v1(
        r#"{"name":"w","enc_type":"PER_CHANNEL","dtype":"INT","bw":8,"is_sym":true,"scale":[1,2],"offset":[-128.0,-128.0]}"#,
    ))
    .unwrap();
    assert_eq!(unplaced.encoding("w").unwrap_err().code(), "encodings_axis");
    assert_eq!(unplaced.write(Version::V2_0_0, &STRICT).unwrap_err().code(), "encodings_lossy");
    assert_eq!(unplaced.without_entry(["w", "v"]), ["v"]);
}

#[test]
fn signedness_survives_whatever_the_producer() {
    for producer in ["aimet-torch", "aimet-onnx", "something"] {
        for (signed, zero_point) in [(true, 0), (true, 5), (true, -128), (false, 128), (false, 0), (false, 255)] {
            for section in [Section::Activation, Section::Param] {
                let mut file = EncodingsFile::new(Version::V2_0_0);
                file.producer = serde_json::json!({"package": producer, "version": "2.42.0"});
                let encoding = Encoding::per_tensor(0.5, zero_point, 8, signed).unwrap();
                file.insert(NamedEntry::new("t", section, Entry::Int(encoding.clone()))).unwrap();
                for version in Version::ALL {
                    let back = reread(&file, version, &STRICT);
                    assert!(back.encoding("t").unwrap().unwrap().same_grid(&encoding), "{producer} {version}");
                }
            }
        }
    }
}

#[test]
fn every_malformed_file_has_its_own_error() {
    let tensor = |fields: &str| v1(&format!(r#"{{"name":"t",{fields}}}"#));
    let good = r#""enc_type":"PER_TENSOR","dtype":"INT","bw":8,"is_sym":false,"scale":[0.1],"offset":[-3]"#;
    parse(&tensor(good)).unwrap();
    let with = |from: &str, to: &str| tensor(&good.replace(from, to));
    let two = |name: &str| v2("2.0.0", &format!(r#"{{"name":"t",{name}}}"#));
    let old =
        |item: &str| format!(r#"{{"version":"0.6.1","activation_encodings":{{}},"param_encodings":{{"t":{item}}}}}"#);
    let int8 = r#""bitwidth":8,"dtype":"int","is_symmetric":"False","offset":0"#;
    let cases = [
        ("".to_string(), "encodings_json"),
        ("[]".into(), "encodings_json"),
        ("{\"version\":\"1.0.0\"} x".into(), "encodings_json"),
        ("{\"version\":\"3.0.0\"}".into(), "encodings_version"),
        ("{}".into(), "encodings_version"),
        ("{\"version\":1}".into(), "encodings_version"),
        ("{\"version\":\"1.0.0\"}".into(), "encodings_field"),
        (with("0.1", "NaN"), "encodings_json"),
        (with("0.1", "1e999"), "encodings_json"),
        (with("0.1", "0"), "encodings_scale"),
        (with("0.1", "-0.1"), "encodings_scale"),
        (with("0.1", "\"a\""), "encodings_field"),
        (with("-3", "-3.25"), "encodings_zero_point"),
        (with("-3", "-256"), "encoding_zero_point"),
        (with("-3", "1"), "encoding_zero_point"),
        (with("-3", "-9223372036854775808"), "encoding_zero_point"),
        (with("[-3]", "[-3,-3]"), "encodings_length"),
        (with("[0.1],\"offset\":[-3]", "[0.1,0.1],\"offset\":[-3,-3]"), "encodings_length"),
        (with("[0.1]", "0.1"), "encodings_field"),
        (with("PER_TENSOR", "PER_ROW"), "encodings_enc_type"),
        (with("PER_TENSOR", "VECTOR"), "encodings_unsupported"),
        (with("PER_TENSOR", "PER_BLOCK"), "encodings_field"),
        (with("INT", "COMPLEX"), "encodings_dtype"),
        (with("\"bw\":8", "\"bw\":33"), "encodings_bitwidth"),
        (with("\"bw\":8", "\"bw\":1"), "encodings_bitwidth"),
        (with("\"bw\":8", "\"bw\":8.5"), "encodings_bitwidth"),
        (with("false", "\"maybe\""), "encodings_field"),
        (with("\"bw\":8", "\"bw\":8,\"bw\":8"), "encodings_json"),
        (with("\"bw\":8", "\"bw\":8,\"colour\":1"), "encodings_field"),
        (with("\"bw\":8", "\"bw\":8,\"zero_point_shift\":[0.5]"), "encodings_unsupported"),
        (v1(r#"{"name":"","bw":8}"#), "encodings_name"),
        (v1("7"), "encodings_name"),
        (v1(&format!("{{\"name\":\"t\",{good}}},{{\"name\":\"t\",{good}}}")), "encodings_duplicate"),
        (v1(&LPBQ_1.replace("15,16,12,1]", "15,16,12]")), "encodings_length"),
        (v1(&LPBQ_1.replace("15,16", "0,16")), "encodings_scale"),
        (v1(&LPBQ_1.replace("15,16", "17,16")), "encodings_scale"),
        (v1(&LPBQ_1.replace("\"block_size\":4", "\"block_size\":0")), "encodings_block"),
        (v1(&LPBQ_1.replace("\"compressed_bw\":4", "\"compressed_bw\":8")), "encodings_bitwidth"),
        (v1(&LPBQ_1.replace("-128,-128", "-128,-127")), "encodings_zero_point"),
        (two(r#""output_dtype":"int64","y_scale":1"#), "encodings_dtype"),
        (two(r#""output_dtype":"float8e4m3fn","y_scale":1"#), "encodings_unsupported"),
        (two(r#""output_dtype":"int4","y_scale":1,"input_dtype":"float8""#), "encodings_unsupported"),
        (two(r#""output_dtype":"int8""#), "encodings_field"),
        (two(r#""output_dtype":"int8","y_scale":[1,2]"#), "encodings_axis"),
        (two(r#""output_dtype":"int8","y_scale":[1,2],"axis":-1"#), "encodings_axis"),
        (two(r#""output_dtype":"int8","y_scale":1,"axis":0"#), "encodings_length"),
        (two(r#""output_dtype":"int8","y_scale":[[1,2],[3]],"axis":0,"block_size":2"#), "encodings_length"),
        (two(r#""output_dtype":"int8","y_scale":[],"axis":0"#), "encodings_length"),
        (two(r#""output_dtype":"int8","y_scale":[[1,2]],"axis":0"#), "encodings_block"),
        (two(r#""output_dtype":"int2","y_scale":1,"y_zero_point":-0.5"#), "encodings_zero_point"),
        (two(r#""output_dtype":"uint8","y_scale":[1,2],"axis":0,"y_zero_point":[1]"#), "encodings_length"),
        (two(r#""output_dtype":"uint8","y_scale":1,"y_zero_point":256"#), "encoding_zero_point"),
        (old("{}"), "encodings_field"),
        (old("[]"), "encodings_field"),
        (old(&format!("[{{{int8}}}]")), "encodings_field"),
        (old(&format!("[{{{int8},\"scale\":1,\"min\":2,\"max\":1}}]")), "encodings_range"),
        (old(&format!("[{{{int8},\"scale\":1}},{{\"bitwidth\":4,\"dtype\":\"int\"}}]")), "encodings_field"),
        (old(r#"[{"bitwidth":8,"dtype":"float"}]"#), "encodings_unsupported"),
    ];
    for (text, code) in cases {
        let error = parse(&text).expect_err(&text);
        assert_eq!(error.code(), code, "{text}\n{error}");
        assert!(error.location().is_some(), "{text}\n{error}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(parse(&deep).unwrap_err().code(), "encodings_json");
}

#[test]
fn damaged_files_and_odd_shapes_never_panic() {
    let texts = [
        v1(LPBQ_1),
        v2(
            "2.0.0",
            r#"{"name":"w","output_dtype":"uint8","axis":0,"block_size":2,"y_scale":[[0.1],[0.4]],"y_zero_point":[[1],[4]]}"#,
        ),
        v2(
            "2.1.0",
            r#"{"name":"w","output_dtype":"int4","axis":1,"block_size":4,"y_scale":{"x":[[15,16],[12,1]],"x_scale":[1,2],"axis":0}}"#,
        ),
        v2(
            "2.0.0",
            r#"{"name":"w","output_dtype":"int4","axis":1,"block_size":4,"per_block_int_scale":[[15,16]],"per_channel_float_scale":[[1]]}"#,
        ),
    ];
    let shapes: [&[usize]; 7] = [&[], &[0], &[2, 8], &[8, 2], &[0, 8], &[2, 8, 3, 3], &[1 << 40, 1 << 40]];
    let mut parsed = 0;
    for text in &texts {
        for at in 0..text.len() {
            for byte in *b"01923-[]{},\"x" {
                let mut damaged = text.clone().into_bytes();
                damaged[at] = byte;
                let Ok(file) = EncodingsFile::parse(&damaged, "damaged") else { continue };
                parsed += 1;
                for op in ["Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu"] {
                    for shape in shapes {
                        let mut file = file.clone();
                        let resolved = file.resolve_axes(|_| ParamUse::of_operator(op, 1, shape, false));
                        if resolved.is_ok() || at % 16 == 0 {
                            for version in Version::ALL {
                                let _ = file.write(version, &LOSSY);
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(parsed > 100);
}
