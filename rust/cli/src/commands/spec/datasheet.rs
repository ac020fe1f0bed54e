//! `nputwin spec doc`: the datasheet of a target in Markdown.

use super::placement::{evidence_line, placement_lines};
use super::{accumulator_words, action_lines};
use crate::output::Outcome;
use nputwin::Result;
use nputwin::spec::{Body, Execution, Rule, Spec, Status, names};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Arguments of `spec doc`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Target or TOML file
    target: String,
}

pub fn execute(args: Args) -> Result<Outcome> {
    let spec = Spec::load(&args.target)?;
    let text = datasheet(&spec);
    let json = json!({ "target": spec.name, "spec_sha256": spec.hash, "markdown": text });
    Ok(Outcome::ok(text, json))
}

fn datasheet(spec: &Spec) -> String {
    let mut text = format!("# {}\n\n{}\n\n", spec.name, spec.title);
    let execution = match spec.execution {
        Execution::Integer => "integer kernels",
        Execution::Float => "ONNX semantics in float; encodings are ignored",
        Execution::FakeQuant => "float kernels with quantize-dequantize at every encoded tensor",
    };
    let _ = writeln!(text, "Runs as: {execution}.  ");
    let _ = writeln!(text, "Spec: `{}`, SHA-256 `{}`.  ", spec.origin, spec.hash);
    if !spec.aliases.is_empty() {
        let _ = writeln!(text, "Also called: {}.  ", spec.aliases.join(", "));
    }
    evidence_summary(&mut text, spec);
    placement(&mut text, spec);
    text.push_str("\n## Symbols\n\nA real number is `scale · (code - zp)`. ");
    text.push_str("`x`, `w`, `a`, `b` are codes of the operands, `y` is the code of the result, ");
    text.push_str("`acc` is the sum of a multiply-accumulate, pooling or reduction kernel, `n` the elements in it. ");
    text.push_str("`shr(v, n, mode)` divides by `2^n` and rounds; `sat(v, y)` keeps to the codes of `y`. ");
    text.push_str("Constants above `y` are computed once, before the run.\n");
    let (boundary, operators): (Vec<&Rule>, Vec<&Rule>) =
        spec.rules.values().partition(|r| names::ALL.contains(&r.name.as_str()));
    for (title, rules) in [("Between reals and codes", boundary), ("Operators", operators)] {
        if !rules.is_empty() {
            let _ = writeln!(text, "\n## {title}");
            let mut same: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            rules.iter().for_each(|r| same.entry(rule_text(r)).or_default().push(&r.name));
            let mut sections: Vec<(String, Vec<&str>)> = same.into_iter().collect();
            sections.sort_by(|a, b| a.1.cmp(&b.1));
            for (body, names) in sections {
                let _ = write!(text, "\n### {}\n\n{body}", names.join(", "));
            }
        }
    }
    text
}

fn evidence_summary(text: &mut String, spec: &Spec) {
    let mut counts: BTreeMap<Status, usize> = BTreeMap::new();
    spec.rules.values().flat_map(|r| &r.bodies).for_each(|b| *counts.entry(b.evidence.status).or_default() += 1);
    text.push_str("\n## Evidence\n\n| evidence | meaning | rules and cases |\n|---|---|---|\n");
    for (status, count) in counts {
        let meaning = match status {
            Status::Executed => "compared bit for bit with the implementation",
            Status::Source => "read in the implementation's source",
            Status::Documented => "text by the vendor",
            Status::Fitted => "reproduces published or captured numbers",
            Status::Assumed => "nobody outside the vendor knows",
        };
        let _ = writeln!(text, "| {status} | {meaning} | {count} |");
    }
}

fn placement(text: &mut String, spec: &Spec) {
    if spec.execution != Execution::Integer {
        return;
    }
    text.push_str("\n## Placement of quantizers\n\n");
    for line in placement_lines(&spec.placement) {
        let _ = writeln!(text, "- {line}");
    }
    for (file, evidence) in &spec.placement_evidence {
        let _ = writeln!(text, "\n{}", evidence_line(file, evidence.as_ref()));
    }
}

fn rule_text(rule: &Rule) -> String {
    let mut text = String::new();
    if let Some(choice) = &rule.choice {
        let _ = writeln!(text, "Alternative **{choice}**:\n");
    }
    rule.bodies.iter().for_each(|b| body_text(&mut text, b));
    for (name, bodies) in &rule.alternatives {
        let _ = writeln!(text, "Alternative {name}:\n");
        bodies.iter().for_each(|b| body_text(&mut text, b));
    }
    text
}

fn body_text(text: &mut String, body: &Body) {
    let _ = writeln!(text, "```\n{}\n```\n", action_lines(body).join("\n"));
    if let Some(words) = accumulator_words(&body.accumulator) {
        let _ = writeln!(text, "Accumulator: {words}.\n");
    }
    let e = &body.evidence;
    let note = if e.note.is_empty() { String::new() } else { format!(" ({})", e.note) };
    let source = if e.source.is_empty() { "no source" } else { &e.source };
    let _ = writeln!(text, "*{}*: {source}{note}\n", e.status);
}
