//! The report as JUnit XML: a suite per family and target, a test case per case and runtime.

use nputwin::conformance::{Outcome, Report};
use std::fmt::Write as _;

/// The document.
pub fn render(reports: &[Report]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        suite(report, &mut xml);
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn suite(report: &Report, xml: &mut String) {
    let counted = || report.cases.iter().filter(|c| c.exception.is_none()).flat_map(|c| &c.outcomes);
    let failures = counted().filter(|(_, o)| matches!(o, Outcome::Different(_))).count();
    let errors = counted().filter(|(_, o)| matches!(o, Outcome::Failed { .. })).count();
    let tests: usize = report.cases.iter().map(|c| c.outcomes.len()).sum();
    let skipped = tests - counted().count();
    let target = report.target.as_deref().unwrap_or("vectors");
    let name = escape(&format!("{} under {target}", report.family));
    let _ = writeln!(
        xml,
        r#"  <testsuite name="{name}" tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}">"#
    );
    for case in &report.cases {
        for (runtime, outcome) in &case.outcomes {
            let class = escape(&format!("{}.{target}.{runtime}", report.family));
            let _ = write!(xml, r#"    <testcase classname="{class}" name="{}""#, escape(&case.id));
            let body = match (&case.exception, outcome) {
                (Some(reason), _) => format!(r#"<skipped message="{}"/>"#, escape(reason)),
                (None, Outcome::Equal) => {
                    xml.push_str("/>\n");
                    continue;
                }
                (None, Outcome::Different(_)) => {
                    let fault = report.rows.iter().filter_map(|r| r.fault.as_ref());
                    let account = fault.filter(|f| f.case == case.id && f.runtime == *runtime);
                    let account = account.filter_map(|f| f.account.as_ref()).map(ToString::to_string).next();
                    let (message, trace) = (escape(&outcome.to_string()), escape(&account.unwrap_or_default()));
                    format!(r#"<failure message="{message}">{trace}</failure>"#)
                }
                (None, Outcome::Failed { code, message }) => {
                    format!(r#"<error type="{}" message="{}"/>"#, escape(code), escape(message))
                }
            };
            let _ = writeln!(xml, ">{body}</testcase>");
        }
    }
    xml.push_str("  </testsuite>\n");
}

/// Text as it may stand in XML 1.0; characters that may not become `\u{fffd}`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_leaves_the_document() {
        assert_eq!(escape("a<b & \"c\"\u{0}\n"), "a&lt;b &amp; &quot;c&quot;\u{fffd}&#10;");
    }
}
