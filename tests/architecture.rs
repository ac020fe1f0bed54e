//! The layer order of the core, and that no target's name decides anything in it.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers from left to right: each may import what stands left of it.
const LAYERS: &[&str] = &[
    "num",
    "program",
    "tensor",
    "arrays",
    "encoding",
    "spec",
    "kernels",
    "calibrate",
    "graph",
    "ops",
    "onnx",
    "tflite",
    "model",
    "exec",
    "diff",
    "conformance",
];
/// Layers that do not know each other.
const SIDE_BY_SIDE: &[&[&str]] = &[&["spec", "kernels", "calibrate"], &["onnx", "tflite"]];

fn may_import(layer: &str, other: &str) -> bool {
    let place = |name: &str| LAYERS.iter().position(|l| *l == name);
    let strangers = SIDE_BY_SIDE.iter().any(|group| group.contains(&layer) && group.contains(&other));
    layer == other || (place(other) < place(layer) && !strangers)
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn core_files() -> Vec<PathBuf> {
    let mut out = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("rust/core"), &mut out);
    assert!(out.len() > 50, "the core's files are found");
    out
}

fn layer_of(path: &Path) -> String {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust/core");
    let first = path.strip_prefix(core).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_string()
}

/// The code of a file before its tests, without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap().to_string();
    text.lines().map(|l| l.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_layer_imports_only_what_stands_left_of_it() {
    let mut wrong = Vec::new();
    for path in core_files() {
        let layer = layer_of(&path);
        if path.file_name().is_some_and(|n| n == "tests.rs" || n == "testing.rs") {
            continue;
        }
        if !LAYERS.contains(&layer.as_str()) {
            continue;
        }
        for (i, rest) in code(&path).match_indices("crate::").map(|(i, m)| (i, i + m.len())) {
            let text = code(&path);
            let name: String = text[rest..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if LAYERS.contains(&name.as_str()) && !may_import(&layer, &name) {
                wrong.push(format!("{}: {layer} imports {name} (byte {i})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_names_no_target() {
    let targets = [
        "htp",
        "hexagon",
        "horizon",
        "tflite",
        "litert",
        "onnxruntime",
        "cmsis",
        "xnnpack",
        "ethos",
        "snpe",
        "sophgo",
        "nvdla",
    ];
    let mut wrong = Vec::new();
    for path in core_files() {
        if path.file_name().is_some_and(|n| n == "tests.rs") {
            continue;
        }
        for (number, line) in code(&path).lines().enumerate() {
            // The name of a file format is also that of a runtime: the module and the ending of files are no target.
            let lower = line.to_lowercase();
            let lower = ["mod tflite;", "tflite::", "{onnx, tflite}", "= \"tflite\";"]
                .iter()
                .fold(lower, |l, f| l.replace(f, ""));
            if let Some(target) = targets.iter().find(|t| lower.contains(*t)) {
                wrong.push(format!("{}:{}: {target}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_readable() {
    let long: Vec<_> = core_files()
        .into_iter()
        .map(|p| (fs::read_to_string(&p).unwrap().lines().count(), p))
        .filter(|(lines, _)| *lines > 700)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}
