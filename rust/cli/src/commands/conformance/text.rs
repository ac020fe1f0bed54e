//! The table, and below it what is not equal.

use crate::output::Table;
use nputwin::conformance::{Outcome, Report, Row, Summary};
use std::fmt::Write as _;

/// Everything for people.
pub fn render(summary: &Summary) -> String {
    let mut text = String::new();
    let reports = &summary.reports;
    if !reports.is_empty() {
        let mut table = Table::new(&["family", "target", "op", "equal", "cases", "skipped", "runtimes"]);
        for report in reports {
            for row in &report.rows {
                table.row(vec![
                    report.family.clone(),
                    report.target.clone().unwrap_or_else(|| "-".into()),
                    row.op.clone(),
                    row.equal.to_string(),
                    row.cases.to_string(),
                    row.skipped.to_string(),
                    runtimes(row),
                ]);
                if row.equal != row.cases {
                    table.mark();
                }
            }
        }
        let _ = writeln!(text, "runtimes: {}\n", summary.runtimes.join(" "));
        text += &table.render();
    }
    faults(reports, &mut text);
    exceptions(reports, &mut text);
    if !summary.unclaimed.is_empty() {
        let _ = writeln!(text, "\nno shipped target claims: {}", summary.unclaimed.join(", "));
    }
    totals(reports, &mut text);
    text
}

/// One word where all runtimes have the same count, else the counts.
fn runtimes(row: &Row) -> String {
    match row.runtimes.split_first() {
        None => "-".into(),
        Some(((name, _), [])) => name.clone(),
        Some(((_, first), rest)) if rest.iter().all(|(_, n)| n == first) => format!("all {}", row.runtimes.len()),
        Some(_) => row.runtimes.iter().map(|(name, n)| format!("{name}:{n}")).collect::<Vec<_>>().join(" "),
    }
}

fn faults(reports: &[Report], text: &mut String) {
    for report in reports {
        for fault in report.rows.iter().filter_map(|r| r.fault.as_ref()) {
            let _ = writeln!(text, "\n{} on {}:", fault.case, fault.runtime);
            let _ = writeln!(text, "  {}", fault.outcome.to_string().replace('\n', "\n  "));
            if let Some(note) = report.cases.iter().find(|c| c.id == fault.case).and_then(|c| c.note.as_ref()) {
                let _ = writeln!(text, "  the vector's note: {note}");
            }
            if let Some(account) = &fault.account {
                let _ = writeln!(text, "  {}", account.to_string().trim_end().replace('\n', "\n  "));
            }
        }
    }
}

fn exceptions(reports: &[Report], text: &mut String) {
    for report in reports {
        for e in &report.exceptions {
            let target = report.target.as_deref().unwrap_or("-");
            let _ = write!(
                text,
                "\n{} under {target} leaves out {} ({} cases): {}",
                report.family, e.id, e.cases, e.reason
            );
            if e.is_stale() {
                let _ = write!(text, "\n  yet every one of them is equal: the exception is out of date");
            }
        }
    }
    if reports.iter().any(|r| !r.exceptions.is_empty()) {
        text.push('\n');
    }
}

fn totals(reports: &[Report], text: &mut String) {
    let rows = || reports.iter().flat_map(|r| &r.rows);
    let sum = |count: fn(&Row) -> usize| rows().map(count).sum::<usize>();
    let failed = reports.iter().flat_map(|r| &r.cases).filter(|c| c.exception.is_none());
    let failed = failed.filter(|c| c.outcomes.iter().any(|(_, o)| matches!(o, Outcome::Failed { .. }))).count();
    let (equal, cases, skipped) = (sum(|r| r.equal), sum(|r| r.cases), sum(|r| r.skipped));
    let _ = write!(text, "\n{equal} of {cases} cases equal");
    if failed > 0 {
        let _ = write!(text, ", {failed} could not run");
    }
    if skipped > 0 {
        let _ = write!(text, ", {skipped} not claimed");
    }
    text.push('\n');
}
