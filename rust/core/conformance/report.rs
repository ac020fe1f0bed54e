//! What a family gave: cases, rows of the table, exceptions.

use super::outcome::{Account, Outcome};
use serde::Serialize;

/// One case on all runtimes.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// Id of the case.
    pub id: String,
    /// Row that it counts in.
    pub group: String,
    /// Operator.
    pub op: String,
    /// Why the target does not claim it: it counts as skipped.
    pub exception: Option<String>,
    /// Outcome per runtime.
    pub outcomes: Vec<(String, Outcome)>,
    /// What the vector says of itself.
    pub note: Option<String>,
}

impl CaseReport {
    /// Whether every runtime gave every bit.
    pub fn is_equal(&self) -> bool {
        self.outcomes.iter().all(|(_, o)| o.is_equal())
    }
}

/// The first fault of a row.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// Id of the case.
    pub case: String,
    /// Runtime.
    pub runtime: String,
    /// What happened.
    pub outcome: Outcome,
    /// How the target arrives at the element.
    pub account: Option<Account>,
}

/// The cases of one operator and its types.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Operator and types.
    pub op: String,
    /// Cases that count.
    pub cases: usize,
    /// Those of them that are equal on every runtime.
    pub equal: usize,
    /// Cases that the target does not claim.
    pub skipped: usize,
    /// Equal cases per runtime.
    pub runtimes: Vec<(String, usize)>,
    /// What went wrong first.
    pub fault: Option<Fault>,
}

/// An exception of a claim and the cases that it covers.
#[derive(Debug, Clone, Serialize)]
pub struct ExceptionReport {
    /// Id, or its beginning and a `*`.
    pub id: String,
    /// Why.
    pub reason: String,
    /// Cases that it covers here.
    pub cases: usize,
    /// Those of them that are equal nevertheless.
    pub equal: usize,
}

impl ExceptionReport {
    /// Whether the exception has cases and all of them are equal: it says something untrue.
    pub fn is_stale(&self) -> bool {
        self.cases > 0 && self.cases == self.equal
    }
}

/// A family under a target.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Family.
    pub family: String,
    /// Target; none where somebody else's implementation was compared with the vectors.
    pub target: Option<String>,
    /// Hash of the target's rules.
    pub spec_sha256: Option<String>,
    /// Rows, by name.
    pub rows: Vec<Row>,
    /// Cases in the family's order.
    pub cases: Vec<CaseReport>,
    /// Exceptions of the target's claim.
    pub exceptions: Vec<ExceptionReport>,
}

impl Report {
    /// Whether every case that counts is equal on every runtime.
    pub fn is_equal(&self) -> bool {
        self.rows.iter().all(|r| r.equal == r.cases)
    }
}

/// The rows of cases. Faults have no account yet.
pub(super) fn rows(cases: &[CaseReport]) -> Vec<Row> {
    let mut rows: std::collections::BTreeMap<&str, Row> = std::collections::BTreeMap::new();
    for case in cases {
        let row = rows.entry(&case.group).or_insert_with(|| Row {
            op: case.group.clone(),
            cases: 0,
            equal: 0,
            skipped: 0,
            runtimes: case.outcomes.iter().map(|(name, _)| (name.clone(), 0)).collect(),
            fault: None,
        });
        if case.exception.is_some() {
            row.skipped += 1;
            continue;
        }
        row.cases += 1;
        row.equal += usize::from(case.is_equal());
        for ((_, equal), (_, outcome)) in row.runtimes.iter_mut().zip(&case.outcomes) {
            *equal += usize::from(outcome.is_equal());
        }
        if row.fault.is_none()
            && let Some((runtime, outcome)) = case.outcomes.iter().find(|(_, o)| !o.is_equal())
        {
            let (runtime, outcome) = (runtime.clone(), outcome.clone());
            row.fault = Some(Fault { case: case.id.clone(), runtime, outcome, account: None });
        }
    }
    rows.into_values().collect()
}
