//! Golden vectors against the specs that claim to equal them. The vectors stand beside a development checkout; a user's
//! checkout has a selection in `tests/vectors`.

use nputwin::conformance::{Outcome, run_family};
use nputwin::spec::Spec;
use std::path::{Path, PathBuf};

/// Folders that hold families: the selection in this repository, and the full set where it is there.
fn roots() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let full = here.ancestors().skip(1).take(3).map(|p| p.join("shared/vectors")).find(|p| p.is_dir());
    if full.is_none() {
        println!("the full set of vectors is not beside this checkout: only tests/vectors runs");
    }
    [Some(here.join("tests/vectors")), full].into_iter().flatten().collect()
}

/// Cases of a family that a target does not claim, each with the reason.
type Except = &'static [(&'static str, &'static str)];

/// Runs a family under a target on 1, 2 and 7 threads and prints exact counts per file.
fn family_equals(family: &str, target: &str, except: Except) {
    let spec = Spec::load(target).unwrap();
    let mut found = false;
    for (id, reason) in except {
        println!("{family:>20} {id} is left out: {reason}");
    }
    for root in roots() {
        let dir = root.join(family);
        if !dir.is_dir() {
            continue;
        }
        found = true;
        let mut faults = Vec::new();
        for threads in [1, 2, 7] {
            let rows = run_family(&dir, &spec, threads, |case| except.iter().all(|(id, _)| *id != case.id)).unwrap();
            for (file, row) in &rows {
                if threads == 1 {
                    println!("{family:>20} {file:<32} {:>4} of {:>4} cases equal", row.equal, row.cases);
                }
                if let Some((id, outcome)) = &row.first_fault {
                    let what = match outcome {
                        Outcome::Failed(e) => e.to_string(),
                        other => format!("{other:?}"),
                    };
                    faults.push(format!("{id} on {threads} threads: {}/{} equal; {what}", row.equal, row.cases));
                }
            }
        }
        assert!(faults.is_empty(), "{} under {target}:\n{}", dir.display(), faults.join("\n"));
    }
    assert!(found, "no vectors of {family}");
}

#[test]
fn cmsis_nn_equals_its_spec() {
    family_equals("cmsis-nn", "cmsis_nn", &[]);
}

#[test]
fn cmsis_nn_equals_tflite_micro_where_the_two_agree() {
    let except: Except = &[
        ("cmsis-nn/Gemm_int4w/10", "its multiplier was derived in float64, the other runtime's in float32"),
        ("cmsis-nn/Softmax_int16/3", "a row of one element: 32768 wraps here and saturates there"),
    ];
    family_equals("cmsis-nn", "tflite_micro", except);
}

#[test]
fn tflite_reference_equals_tflite_micro() {
    family_equals("tflite-ref", "tflite_micro", &[]);
}

#[test]
fn onnxruntime_equals_onnxruntime_cpu() {
    family_equals("onnxruntime-cpu", "onnxruntime_cpu", &[]);
}

#[test]
fn onnxruntime_without_vnni_equals_onnxruntime_cpu_avx2() {
    family_equals("onnxruntime-cpu-avx2", "onnxruntime_cpu_avx2", &[]);
}

#[test]
fn hexagon_nn_equals_its_spec() {
    family_equals("hexagon-nn-v66", "hexagon_nn_v66", &[]);
}
