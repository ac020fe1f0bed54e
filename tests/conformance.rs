//! Golden vectors against the shipped specs that claim to equal them, on every runtime. The vectors stand beside a development
//! checkout; a user's checkout has a selection in `tests/vectors`.

use nputwin::conformance::{Against, Case, Check, Family, Report, Runner, Runtime, claimants, find_families};
use nputwin::spec::{Spec, embedded_names};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn selection() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// The full set, where it is there.
fn full_set() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().skip(1).take(3).map(|p| p.join("shared/vectors")).find(|p| p.is_dir())
}

fn families(root: &Path) -> Vec<Family> {
    find_families(root).unwrap().iter().map(|dir| Family::read(dir).unwrap()).collect()
}

/// Runs every family below `root` under every target that claims it, and gives what is wrong.
fn faults(root: &Path, runtimes: &[Runtime], wanted: &dyn Fn(&Case) -> bool) -> String {
    let runners: Vec<&dyn Runner> = runtimes.iter().map(|r| r as &dyn Runner).collect();
    let mut faults = String::new();
    for family in families(root) {
        let specs = claimants(&family.name).unwrap();
        if specs.is_empty() {
            println!("{:>22} is claimed by no target", family.name);
        }
        for spec in specs {
            let check =
                Check { family: &family, spec: Some(&spec), against: Against::Vectors, runners: &runners, jobs: 0 };
            let report = check.run(wanted, &mut || Ok(())).unwrap();
            print(&report);
            describe(&report, &mut faults);
        }
    }
    faults
}

fn print(report: &Report) {
    let target = report.target.as_deref().unwrap();
    for e in &report.exceptions {
        println!("{:>22} {target} leaves out {} ({} cases): {}", report.family, e.id, e.cases, e.reason);
    }
    for row in &report.rows {
        let counts = format!("{} of {} cases equal, {} not claimed", row.equal, row.cases, row.skipped);
        println!("{:>22} {target:<22} {:<28} {counts}", report.family, row.op);
    }
}

fn describe(report: &Report, faults: &mut String) {
    let target = report.target.as_deref().unwrap();
    for row in &report.rows {
        let Some(fault) = &row.fault else { continue };
        let (outcome, equal) = (&fault.outcome, format!("{} of {} equal", row.equal, row.cases));
        writeln!(faults, "{} under {target} on {}: {equal}; {outcome}", fault.case, fault.runtime).unwrap();
        if let Some(account) = &fault.account {
            writeln!(faults, "{account}").unwrap();
        }
    }
    for e in report.exceptions.iter().filter(|e| e.is_stale()) {
        writeln!(faults, "{target} leaves out {} of {}, yet it is equal", e.id, report.family).unwrap();
    }
}

#[test]
fn the_selection_equals_the_targets_that_claim_it_on_every_runtime() {
    let faults = faults(&selection(), &Runtime::all(), &|_| true);
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn the_full_set_equals_the_targets_that_claim_it() {
    let Some(root) = full_set() else {
        println!("the full set of vectors is not beside this checkout: only tests/vectors runs");
        return;
    };
    let faults = faults(&root, &Runtime::all(), &|_| true);
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn a_claimed_family_exists_and_so_do_its_exceptions() {
    let mut known = families(&selection());
    let full = full_set().map(|root| families(&root));
    let is_complete = full.is_some();
    known.extend(full.into_iter().flatten());
    let ids: BTreeSet<&str> = known.iter().flat_map(|f| &f.cases).map(|c| c.id.as_str()).collect();
    let mut claims = 0;
    for name in embedded_names() {
        for claim in Spec::load(name).unwrap().conformance {
            claims += 1;
            assert!(known.iter().any(|f| f.name == claim.family), "{name} claims {}, which is nowhere", claim.family);
            for e in &claim.except {
                let found = ids.iter().any(|id| e.covers(id));
                assert!(found || !is_complete, "{name} leaves out {} of {}, which is nowhere", e.id, claim.family);
            }
        }
    }
    assert!(claims > 3, "the shipped specs claim families");
}
