//! `nputwin demo` on a small network.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn demo(folder: &Path, arguments: &[&str]) -> Output {
    let small = ["demo", "--size", "8", "--channels", "8", "--depths", "1,3", "--calibration-inputs", "2"];
    Command::new(env!("CARGO_BIN_EXE_nputwin"))
        .args(small)
        .args(arguments)
        .arg("--output-dir")
        .arg(folder)
        .output()
        .expect("the binary runs")
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn tables_show_both_networks_the_advice_and_the_published_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let text = succeeded(&demo(folder.path(), &[]));
    for words in
        ["With the cumulative Add", "Without the cumulative Add", "published", "Advice", "5.639e-5", "demo.svg"]
    {
        assert!(text.contains(words), "no '{words}' in:\n{text}");
    }
}

#[test]
fn float16_drifts_from_float32_by_depth() {
    let folder = tempfile::tempdir().unwrap();
    let text = succeeded(&demo(folder.path(), &["--precision", "f16"]));
    for words in ["float16 (htp_float16)", "With the cumulative Add", "relative"] {
        assert!(text.contains(words), "no '{words}' in:\n{text}");
    }
    let json: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("demo.json")).unwrap()).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let relative = row["relative"].as_f64().unwrap();
        // Each tensor is rounded to 11 significant bits: not exact, and not far off.
        assert!((1e-5..2e-3).contains(&relative), "{row}");
    }
}

#[test]
fn json_holds_every_row_and_equals_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = succeeded(&demo(folder.path(), &["--json"]));
    let json: Value = serde_json::from_str(&text).unwrap();
    let file: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("demo.json")).unwrap()).unwrap();
    assert_eq!(json, file);
    let rows = json["rows"].as_array().unwrap();
    let seen: Vec<(bool, u64)> =
        rows.iter().map(|r| (r["cumulative_add"].as_bool().unwrap(), r["depth"].as_u64().unwrap())).collect();
    assert_eq!(seen, [(true, 1), (true, 3), (false, 1), (false, 3)]);
    for row in rows {
        for target in ["device", "host"] {
            let number = |key: &str| row[target][key].as_f64().unwrap();
            let scale = row["scale"].as_f64().unwrap();
            let normalized = number("mse") / (scale * scale);
            assert!((normalized - number("mse_normalized")).abs() <= 1e-9 * normalized);
            assert!(number("l1_normalized") <= number("off_by_n").max(1.0));
        }
    }
    assert_eq!(json["published"]["fifteen_rows"].as_array().unwrap().len(), 15);
    assert_eq!(json["device"]["assumptions"]["quantize_input"], "device_fp16");
    assert_eq!(json["host"]["assumptions"]["quantize_input"], "host_exact");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads: &str| {
        let folder = tempfile::tempdir().unwrap();
        let text = succeeded(&demo(folder.path(), &["--json", "--threads", threads]));
        let json: Value = serde_json::from_str(&text).unwrap();
        let chart = std::fs::read(folder.path().join("demo.svg")).unwrap();
        (json["rows"].clone(), json["first_differences"].clone(), chart)
    };
    let one = run("1");
    assert_eq!(one, run("2"));
    assert_eq!(one, run("7"));
}

/// Fails where elements are not nested, attributes not closed or `&` stands alone.
fn check_nesting(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("every tag ends");
        let entities = ["&amp;", "&lt;", "&gt;", "&quot;"];
        assert!(!entities.iter().fold(text.to_string(), |t, e| t.replace(e, "")).contains('&'), "{text}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_chart_is_well_formed() {
    let folder = tempfile::tempdir().unwrap();
    succeeded(&demo(folder.path(), &[]));
    let svg = std::fs::read_to_string(folder.path().join("demo.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("emulated, with the Add") && svg.contains("published, without the Add"));
    assert!(!svg.contains("NaN") && !svg.contains("inf\""));
    check_nesting(&svg);
}

#[test]
fn wrong_arguments_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.npz");
    for (arguments, words) in [
        (vec!["--depths", "0"], "--depths"),
        (vec!["--size", "0"], "--size"),
        (vec!["--calibration-inputs", "0"], "--calibration-inputs"),
        (vec!["--assume", "quantize_input=host_exact"], "quantize_input"),
        (vec!["--seed-weights"], "python -m nputwin.demo"),
        (vec!["--weights", missing.to_str().unwrap()], "missing.npz"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nputwin"));
        let output = command.arg("demo").args(&arguments).arg("--output-dir").arg(folder.path()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(words), "{arguments:?}: {message}");
    }
}
