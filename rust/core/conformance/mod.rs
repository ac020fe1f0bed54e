//! Golden vectors: cases of one operator, computed by somebody else's kernel, run on ours.
//!
//! The format (`nputwin-golden/1`) is a `cases.json` and one `.npz` per operator in a folder. A case becomes a graph of
//! one node whose tensors carry the case's encodings; its codes go in and come out unconverted.

mod case;
mod graph;

pub use case::{Activation, Case, Family, Operand};

use crate::error::{Error, Result};
use crate::exec::{Options, Session};
use crate::spec::Spec;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// How a case ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Every element equal.
    Equal,
    /// Some differ.
    Different {
        /// Elements that differ.
        elements: usize,
        /// Elements in all.
        total: usize,
        /// Flat index of the first, what we computed, and what the vector says.
        first: (usize, f64, f64),
    },
    /// It could not run.
    Failed(Error),
}

impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// Runs one case under a target.
pub fn run_case(family: &Family, case: &Case, spec: &Spec, threads: usize) -> Outcome {
    match try_case(family, case, spec, threads) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(error),
    }
}

fn try_case(family: &Family, case: &Case, spec: &Spec, threads: usize) -> Result<Outcome> {
    let arrays = family.arrays(case)?;
    let (graph, feeds) = graph::build(case, &arrays, spec)?;
    let session = Session::new(graph, spec.clone(), Options { threads, ..Options::default() })?;
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let result = session.run(&feeds)?;
    let expected = case
        .outputs
        .first()
        .and_then(|o| arrays.get(&o.array))
        .ok_or_else(|| Error::invalid("vector_output", format!("case {} has no output", case.id)))?;
    let ours = &result.outputs[0].1;
    if ours.len() != expected.len() {
        return Err(Error::invalid(
            "vector_shape",
            format!("{}: {:?} computed, {:?} in the vector", case.id, ours.shape(), expected.shape()),
        ));
    }
    let (a, b) = (ours.to_f64(), expected.to_f64());
    let different: Vec<usize> = (0..a.len()).filter(|&i| a[i].to_bits() != b[i].to_bits() && a[i] != b[i]).collect();
    Ok(match different.first() {
        None => Outcome::Equal,
        Some(&i) => Outcome::Different { elements: different.len(), total: a.len(), first: (i, a[i], b[i]) },
    })
}

/// Counts of one file of a family.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Cases run.
    pub cases: usize,
    /// Cases with every element equal.
    pub equal: usize,
    /// What went wrong first, with the case's id.
    pub first_fault: Option<(String, Outcome)>,
}

/// Runs all cases of a folder, by file.
pub fn run_family(
    dir: &Path,
    spec: &Spec,
    threads: usize,
    wanted: impl Fn(&Case) -> bool,
) -> Result<BTreeMap<String, Row>> {
    let family = Family::read(dir)?;
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for case in family.cases.iter().filter(|c| wanted(c)) {
        let row = rows.entry(case.file.clone()).or_default();
        row.cases += 1;
        match run_case(&family, case, spec, threads) {
            Outcome::Equal => row.equal += 1,
            other => {
                row.first_fault.get_or_insert((case.id.clone(), other));
            }
        }
    }
    Ok(rows)
}
