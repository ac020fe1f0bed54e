//! The layer order of the core, and that no target's name decides anything in it.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with those that it may import, besides `error` and itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("num", &[]),
    ("program", &["num"]),
    ("tensor", &["num", "program"]),
    ("encoding", &["num", "program", "tensor"]),
    ("spec", &["num", "program", "tensor", "encoding"]),
    ("kernels", &["num", "program", "tensor", "encoding"]),
    ("calibrate", &["num", "program", "tensor", "encoding"]),
    ("graph", &["num", "program", "tensor", "encoding", "spec", "kernels", "calibrate"]),
    ("ops", &["num", "program", "tensor", "encoding", "spec", "kernels", "calibrate", "graph"]),
    ("onnx", &["num", "program", "tensor", "encoding", "spec", "kernels", "calibrate", "graph", "ops"]),
    ("exec", &["num", "program", "tensor", "encoding", "spec", "kernels", "calibrate", "graph", "ops", "onnx"]),
    ("diff", &["num", "program", "tensor", "encoding", "spec", "kernels", "calibrate", "graph", "ops", "onnx", "exec"]),
];

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
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else { continue };
        for (i, rest) in code(&path).match_indices("crate::").map(|(i, m)| (i, i + m.len())) {
            let text = code(&path);
            let name: String = text[rest..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let known = LAYERS.iter().any(|(other, _)| *other == name);
            if known && name != layer && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{}: {layer} imports {name} (byte {i})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_names_no_target() {
    let targets = ["htp", "hexagon", "horizon", "tflite", "litert", "onnxruntime", "cmsis", "xnnpack", "ethos", "snpe"];
    let mut wrong = Vec::new();
    for path in core_files() {
        if path.ends_with("spec/embedded.rs") || path.file_name().is_some_and(|n| n == "tests.rs") {
            continue;
        }
        for (number, line) in code(&path).lines().enumerate() {
            let lower = line.to_lowercase();
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
        .filter(|(lines, _)| *lines > 900)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}
