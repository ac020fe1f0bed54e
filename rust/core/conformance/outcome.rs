//! Comparing bits, and explaining the first that differ.

use super::runner::Prepared;
use crate::error::{Error, Result};
use crate::exec::{Options, Session};
use crate::ops::Explanation;
use crate::spec::Evidence;
use crate::tensor::{Data, Tensor};
use serde::Serialize;

/// How a case ended on one runtime.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Every element equal.
    Equal,
    /// Some differ.
    Different(Mismatch),
    /// It could not run, or gave something of another type or shape.
    Failed {
        /// Stable slug of the error.
        code: String,
        /// The error with place and help.
        message: String,
    },
}

/// Elements that differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mismatch {
    /// How many.
    pub elements: usize,
    /// Of how many.
    pub total: usize,
    /// The largest distance between two of them.
    pub largest: f64,
    /// The first: flat index in row-major order.
    pub index: usize,
    /// The first: index per axis.
    pub coordinates: Vec<usize>,
    /// The first: what the runtime computed.
    pub found: f64,
    /// The first: what was expected.
    pub expected: f64,
}

impl Outcome {
    /// An error as an outcome.
    pub fn failed(error: &Error) -> Outcome {
        Outcome::Failed { code: error.code().to_string(), message: error.to_string() }
    }

    /// Whether every element was equal.
    pub fn is_equal(&self) -> bool {
        *self == Outcome::Equal
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Equal => f.write_str("equal"),
            Outcome::Failed { message, .. } => f.write_str(message),
            Outcome::Different(m) => write!(
                f,
                "{} of {} elements differ, by up to {}; the first at {:?}: {} instead of {}",
                m.elements, m.total, m.largest, m.coordinates, m.found, m.expected
            ),
        }
    }
}

/// Compares type, shape and every bit; one NaN is as good as another.
pub fn compare(found: &Tensor, expected: &Tensor) -> Outcome {
    if found.shape() != expected.shape() || found.dtype() != expected.dtype() {
        let (f, e) = (found.dtype(), expected.dtype());
        let text = format!("{f} of shape {:?} instead of {e} of shape {:?}", found.shape(), expected.shape());
        return Outcome::failed(&Error::invalid("output_form", text));
    }
    let (a, b) = (found.to_f64(), expected.to_f64());
    let same = |i: usize| match (found.data(), expected.data()) {
        // Float64 holds 53 bits of them.
        (Data::I64(a), Data::I64(b)) => a[i] == b[i],
        (Data::U64(a), Data::U64(b)) => a[i] == b[i],
        _ => a[i].to_bits() == b[i].to_bits() || (a[i].is_nan() && b[i].is_nan()),
    };
    let different: Vec<usize> = (0..a.len()).filter(|&i| !same(i)).collect();
    let Some(&index) = different.first() else { return Outcome::Equal };
    let mut rest = index;
    let mut coordinates: Vec<usize> = found
        .shape()
        .iter()
        .rev()
        .map(|&d| {
            let at = rest % d;
            rest /= d;
            at
        })
        .collect();
    coordinates.reverse();
    Outcome::Different(Mismatch {
        elements: different.len(),
        total: a.len(),
        largest: different.iter().map(|&i| (a[i] - b[i]).abs()).fold(0.0, f64::max),
        index,
        coordinates,
        found: a[index],
        expected: b[index],
    })
}

/// How the target arrives at an element.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Account {
    /// The trace, where the kernel has one.
    pub explanation: Option<Explanation>,
    /// Why there is no trace.
    pub without: Option<String>,
    /// Inputs at the element, where they have the output's shape.
    pub operands: Vec<(String, f64)>,
    /// The rules that the case used and what they rest on.
    pub rules: Vec<(String, Evidence)>,
}

impl Account {
    /// Asks a session how element `index` of the output comes about.
    pub fn of(case: &Prepared<'_>, index: usize) -> Result<Account> {
        let session = case.session(Options { threads: 1, ..Options::default() })?;
        let feeds = case.feeds()?;
        let mut account = Account { rules: rules(&session, case)?, ..Account::default() };
        let graph = session.graph();
        let output = graph.outputs.first().map_or("out", |port| graph.tensors[port.tensor].name.as_str());
        match session.explain(&feeds, output, index) {
            Ok(explanation) => account.explanation = Some(explanation),
            Err(error) => account.without = Some(error.message().to_string()),
        }
        if account.explanation.as_ref().is_none_or(|e| e.operands.is_empty()) {
            let shape = &case.case.output()?.shape;
            let at = |o: &super::Operand| {
                let values = case.arrays.get(&o.array).filter(|t| t.shape() == shape.as_slice())?.to_f64();
                Some((o.role.clone(), *values.get(index)?))
            };
            account.operands = case.case.inputs.iter().filter_map(at).collect();
        }
        Ok(account)
    }
}

fn rules(session: &Session, case: &Prepared<'_>) -> Result<Vec<(String, Evidence)>> {
    let report = session.report(case.feeds()?.iter().map(|(_, t)| t.shape().to_vec()).collect())?;
    Ok(report
        .nodes
        .into_iter()
        .filter_map(|n| {
            let evidence = n.evidence?;
            Some((format!("{} ({})", n.rule.unwrap_or_default(), n.mode), evidence))
        })
        .collect())
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(explanation) = &self.explanation {
            write!(f, "{explanation}")?;
        }
        if let Some(reason) = &self.without {
            writeln!(f, "no trace: {reason}")?;
        }
        for (name, value) in &self.operands {
            writeln!(f, "  {name} = {value}")?;
        }
        for (rule, evidence) in &self.rules {
            writeln!(f, "  rule {rule}: {}, {}", evidence.status, evidence.source)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_integers_are_compared_beyond_what_float64_holds() {
        let one = |v: i64| Tensor::i64(&[1], vec![v]);
        assert_eq!(compare(&one(1 << 53), &one(1 << 53)), Outcome::Equal);
        assert!(!compare(&one((1 << 53) + 1), &one(1 << 53)).is_equal());
        let one = |v: u64| Tensor::new(vec![1], Data::U64(vec![v].into())).unwrap();
        assert!(!compare(&one(u64::MAX), &one(u64::MAX - 1)).is_equal());
    }
}
