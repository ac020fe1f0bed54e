//! Golden vectors: every kernel of every claiming target explains every element, and the first wrong one of a report.

use nputwin::arrays::NpzWriter;
use nputwin::conformance::{
    Against, Case, Check, Family, Outcome, Prepared, Runner, Runtime, claimants, find_families, prepare,
};
use nputwin::exec::Options;
use nputwin::spec::Spec;
use nputwin::tensor::Data;
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Elements of a case that are explained.
const ELEMENTS: usize = 24;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn families() -> Vec<Family> {
    find_families(&root()).unwrap().iter().map(|dir| Family::read(dir).unwrap()).collect()
}

/// The smallest claimed case of each file.
fn smallest<'f>(family: &'f Family, spec: &Spec) -> Vec<&'f Case> {
    let excepted = |id: &str| spec.claim(&family.name).is_none_or(|c| c.except.iter().any(|e| e.covers(id)));
    let size = |case: &Case| case.outputs[0].shape.iter().product::<usize>();
    let mut found: BTreeMap<&str, &Case> = BTreeMap::new();
    for case in family.cases.iter().filter(|c| !excepted(&c.id) && size(c) > 0) {
        let best = found.entry(case.group()).or_insert(case);
        if size(case) < size(best) {
            *best = case;
        }
    }
    found.into_values().collect()
}

/// Explains elements of a case; gives the intrinsic where there is one.
fn explain(case: &Prepared<'_>) -> Option<String> {
    let (id, target) = (&case.case.id, &case.spec.unwrap().name);
    let session = case.session(Options { threads: 1, ..Options::default() }).unwrap();
    let feeds = case.feeds().unwrap();
    let outputs = session.run(&feeds).unwrap().outputs;
    let (graph, computed) = (session.graph(), &outputs[0].1);
    let name = &graph.tensors[graph.outputs[0].tensor].name;
    let mut intrinsic = None;
    for index in (0..computed.len()).step_by(computed.len().div_ceil(ELEMENTS)) {
        let explanation = session.explain(&feeds, name, index);
        let explanation = explanation.unwrap_or_else(|e| panic!("{id} under {target} [{index}]: {e}"));
        let place = format!("{id} under {target}:\n{explanation}");
        assert!(!explanation.trace.steps.is_empty(), "{place}");
        let result: f32 = explanation.trace.result.parse().unwrap();
        assert_eq!(result, computed.to_f64()[index] as f32, "{place}");
        intrinsic = explanation.operands.into_iter().find(|(key, _)| key == "intrinsic").map(|(_, name)| name);
    }
    intrinsic
}

#[test]
fn every_kernel_explains_its_elements() {
    let mut intrinsics = BTreeSet::new();
    let mut cases = 0;
    for family in families() {
        for spec in claimants(&family.name).unwrap() {
            for case in smallest(&family, &spec) {
                cases += 1;
                intrinsics.extend(explain(&prepare(&family, case, Some(&spec)).unwrap()));
            }
        }
    }
    println!("{cases} cases, intrinsics {intrinsics:?}");
    assert!(cases > 200, "{cases}");
    assert!(intrinsics.len() >= 12, "{intrinsics:?}");
}

/// Writes a family of these cases whose outputs are wrong in the first element.
fn falsified(family: &Family, cases: &[&Case], to: &Path) -> Family {
    let text = std::fs::read_to_string(root().join(&family.name).join("cases.json")).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kept = |c: &serde_json::Value| cases.iter().any(|k| c["id"] == k.id.as_str());
    document["cases"].as_array_mut().unwrap().retain(kept);
    std::fs::write(to.join("cases.json"), document.to_string()).unwrap();
    for case in cases {
        let mut file = BufWriter::new(std::fs::File::create(to.join(&case.file)).unwrap());
        let mut archive = NpzWriter::new(&mut file);
        for (name, array) in family.inputs(case).unwrap() {
            archive.add(&name, &array).unwrap();
        }
        let mut output = family.expected(case).unwrap();
        match output.data_mut() {
            Data::I8(v) => v[0] ^= 1,
            Data::U8(v) => v[0] ^= 1,
            Data::I16(v) => v[0] ^= 1,
            Data::U16(v) => v[0] ^= 1,
            Data::I32(v) => v[0] ^= 1,
            Data::F32(v) => v[0] += 1.0,
            other => panic!("{}: {}", case.id, other.dtype()),
        }
        archive.add(&case.outputs[0].array, &output).unwrap();
        archive.finish().unwrap();
    }
    Family::read(to).unwrap()
}

#[test]
fn a_wrong_vector_is_answered_with_a_trace() {
    let mut explained = 0;
    for family in families() {
        let Some(spec) = claimants(&family.name).unwrap().into_iter().next() else { continue };
        let folder = tempfile::tempdir().unwrap();
        let wrong = falsified(&family, &smallest(&family, &spec), folder.path());
        let fast = Runtime::fast();
        let runners: [&dyn Runner; 1] = [&fast];
        let check = Check { family: &wrong, spec: Some(&spec), against: Against::Vectors, runners: &runners, jobs: 2 };
        for row in check.run(&|_| true, &mut || Ok(())).unwrap().rows {
            let fault = row.fault.unwrap_or_else(|| panic!("{} has a wrong vector", row.op));
            let Outcome::Different(mismatch) = &fault.outcome else { panic!("{}: {}", fault.case, fault.outcome) };
            assert_eq!((mismatch.index, mismatch.elements), (0, 1), "{}", fault.case);
            let account = fault.account.expect("targets explain");
            let explanation = account.explanation.unwrap_or_else(|| panic!("{}: {:?}", fault.case, account.without));
            assert!(!explanation.trace.steps.is_empty(), "{explanation}");
            assert_eq!(explanation.trace.result.parse::<f32>().unwrap(), mismatch.found as f32, "{}", fault.case);
            explained += 1;
        }
    }
    assert!(explained > 100, "{explained}");
}
