//! Golden vectors: cases of one operator, computed by somebody else's kernel, run on ours.
//!
//! The format (`nputwin-golden/1`) is a `cases.json` and one `.npz` per operator in a folder. A case becomes a graph of
//! one node whose tensors carry the case's encodings; its codes go in and come out unconverted. A [`Check`] runs the
//! cases of a [`Family`] on any number of [`Runner`]s and compares every bit. Which targets claim to equal which family
//! is in their specs ([`Spec::conformance`]).

mod case;
mod graph;
mod outcome;
mod report;
mod request;
mod runner;

pub use case::{Activation, Case, Family, Operand, find_families};
pub use outcome::{Account, Mismatch, Outcome, compare};
pub use report::{CaseReport, ExceptionReport, Fault, Report, Row};
pub use request::{Request, Summary};
pub use runner::{OneNode, Prepared, Runner, Runtime};

use crate::error::Result;
use crate::exec::check_threads;
use crate::spec::{Claim, Spec, embedded_names};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The shipped targets that claim a family.
pub fn claimants(family: &str) -> Result<Vec<Spec>> {
    let mut out = Vec::new();
    for name in embedded_names() {
        let spec = Spec::load(name)?;
        if spec.claim(family).is_some() {
            out.push(spec);
        }
    }
    Ok(out)
}

/// What outputs are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// The outputs in the vectors.
    Vectors,
    /// What the target computes.
    Target,
}

/// A family, a target and the runners to compare.
pub struct Check<'a> {
    /// Cases.
    pub family: &'a Family,
    /// Target: computes, explains, and its claim says which cases count.
    pub spec: Option<&'a Spec>,
    /// What outputs are compared with.
    pub against: Against,
    /// What runs the cases.
    pub runners: &'a [&'a dyn Runner],
    /// Cases that run at the same time; 0 for as many as the machine has threads.
    pub jobs: usize,
}

impl Check<'_> {
    /// Runs the cases that are `wanted`. `step` is called after each, on this thread, and may stop the run.
    ///
    /// # Errors
    /// `threads` for too many jobs; those of `step`. A case that cannot run is a failure in the report.
    pub fn run(&self, wanted: &dyn Fn(&Case) -> bool, step: &mut dyn FnMut() -> Result<()>) -> Result<Report> {
        let cases: Vec<&Case> = self.family.cases.iter().filter(|c| wanted(c)).collect();
        let jobs = match self.jobs {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => check_threads(n)?,
        };
        let next = AtomicUsize::new(0);
        let (sender, done) = std::sync::mpsc::channel();
        let mut stopped = Ok(());
        let finished: BTreeMap<usize, CaseReport> = std::thread::scope(|scope| {
            for _ in 0..jobs.min(cases.len()) {
                let sender = sender.clone();
                let (next, cases) = (&next, &cases);
                scope.spawn(move || {
                    while let Some((i, case)) = take(next, cases) {
                        if sender.send((i, self.case(case))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut finished = BTreeMap::new();
            for (i, report) in done {
                finished.insert(i, report);
                stopped = step();
                if stopped.is_err() {
                    next.store(cases.len(), Ordering::Relaxed);
                    break;
                }
            }
            finished
        });
        stopped?;
        let cases: Vec<CaseReport> = finished.into_values().collect();
        let mut rows = report::rows(&cases);
        for fault in rows.iter_mut().filter_map(|r| r.fault.as_mut()) {
            fault.account = self.account(&fault.case, &fault.outcome);
        }
        Ok(Report {
            family: self.family.name.clone(),
            target: self.spec.map(|s| s.name.clone()),
            spec_sha256: self.spec.map(|s| s.hash.clone()),
            rows,
            exceptions: self.exceptions(&cases),
            cases,
        })
    }

    /// The target's claim on the family, where outputs are compared with vectors.
    fn claim(&self) -> Option<&Claim> {
        self.spec.filter(|_| self.against == Against::Vectors).and_then(|s| s.claim(&self.family.name))
    }

    fn case(&self, case: &Case) -> CaseReport {
        let exception = self.claim().and_then(|c| c.except.iter().find(|e| e.covers(&case.id)));
        let prepared = prepare(self.family, case, self.spec).and_then(|p| {
            let expected = match self.against {
                Against::Vectors => self.family.expected(case)?,
                Against::Target => Runtime::fast().run(&p)?,
            };
            Ok((p, expected))
        });
        let outcome = |runner: &&dyn Runner| {
            let outcome = match &prepared {
                Ok((prepared, expected)) => match runner.run(prepared) {
                    Ok(found) => compare(&found, expected),
                    Err(error) => Outcome::failed(&error),
                },
                Err(error) => Outcome::failed(error),
            };
            (runner.name().to_string(), outcome)
        };
        CaseReport {
            id: case.id.clone(),
            group: case.group().to_string(),
            op: case.op.clone(),
            exception: exception.map(|e| e.reason.clone()),
            outcomes: self.runners.iter().map(outcome).collect(),
            note: case.note.clone(),
        }
    }

    fn account(&self, id: &str, outcome: &Outcome) -> Option<Account> {
        let Outcome::Different(mismatch) = outcome else { return None };
        self.spec?;
        let prepared = self.family.case(id).and_then(|case| prepare(self.family, case, self.spec)).ok()?;
        Some(
            Account::of(&prepared, mismatch.index)
                .unwrap_or_else(|e| Account { without: Some(e.message().to_string()), ..Account::default() }),
        )
    }

    fn exceptions(&self, cases: &[CaseReport]) -> Vec<ExceptionReport> {
        let except = self.claim().map_or(&[][..], |c| &c.except);
        let report = |e: &crate::spec::Exception| {
            let covered = || cases.iter().filter(|c| e.covers(&c.id));
            let equal = covered().filter(|c| c.is_equal()).count();
            ExceptionReport { id: e.id.clone(), reason: e.reason.clone(), cases: covered().count(), equal }
        };
        except.iter().map(report).collect()
    }
}

/// Reads the inputs of a case.
pub fn prepare<'a>(family: &Family, case: &'a Case, spec: Option<&'a Spec>) -> Result<Prepared<'a>> {
    Ok(Prepared { case, arrays: family.inputs(case)?, spec, built: std::sync::OnceLock::new() })
}

/// The next case and its number.
fn take<'a>(next: &AtomicUsize, cases: &[&'a Case]) -> Option<(usize, &'a Case)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    cases.get(i).map(|case| (i, *case))
}
