//! `nputwin spec show`.

use super::placement::{evidence_line, placement_lines};
use super::{accumulator_words, action_lines, head_json, rule_json};
use crate::output::Outcome;
use nputwin::Result;
use nputwin::spec::{Body, Spec};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Arguments of `spec show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Target or TOML file
    target: String,
    /// Only this rule
    #[arg(long)]
    rule: Option<String>,
}

pub fn execute(args: Args) -> Result<Outcome> {
    let spec = Spec::load(&args.target)?;
    let rules: Vec<_> = match &args.rule {
        Some(name) => vec![spec.require(name)?],
        None => spec.rules.values().collect(),
    };
    let mut text = format!("{}: {}\n", spec.name, spec.title);
    let _ = writeln!(text, "origin {}, sha256 {}, weakest evidence {}", spec.origin, spec.hash, spec.status());
    if args.rule.is_none() {
        if let Some(float) = &spec.float {
            let _ = writeln!(text, "\nreals\n    {float}\n    {}", evidence_line("float", float.evidence.as_ref()));
        }
        text.push_str("\nplacement\n");
        for line in placement_lines(&spec.placement) {
            let _ = writeln!(text, "    {line}");
        }
        for (file, evidence) in &spec.placement_evidence {
            let _ = writeln!(text, "    {}", evidence_line(file, evidence.as_ref()));
        }
    }
    for rule in &rules {
        let choice = rule.choice.as_ref().map_or(String::new(), |c| format!(" (alternative {c})"));
        let _ = writeln!(text, "\n{}{choice}", rule.name);
        rule.bodies.iter().for_each(|body| write_body(&mut text, body));
        for (name, bodies) in &rule.alternatives {
            let _ = writeln!(text, "  alternative {name}");
            bodies.iter().for_each(|body| write_body(&mut text, body));
        }
    }
    let mut json = head_json(&spec);
    if let Value::Object(map) = &mut json {
        map.insert("placement".into(), json!(spec.placement));
        let of = |(file, evidence): &(String, Option<_>)| json!({ "file": file, "evidence": evidence });
        map.insert("placement_evidence".into(), spec.placement_evidence.iter().map(of).collect());
        map.insert("float".into(), json!(spec.float));
        map.insert("rules".into(), Value::Array(rules.into_iter().map(rule_json).collect()));
    }
    Ok(Outcome::ok(text, json))
}

fn write_body(text: &mut String, body: &Body) {
    for line in action_lines(body) {
        let _ = writeln!(text, "    {line}");
    }
    if let Some(words) = accumulator_words(&body.accumulator) {
        let _ = writeln!(text, "    accumulator: {words}");
    }
    let note = if body.evidence.note.is_empty() { String::new() } else { format!(" ({})", body.evidence.note) };
    let _ = writeln!(text, "    [{}] {}{note}", body.evidence.status, body.evidence.source);
}
