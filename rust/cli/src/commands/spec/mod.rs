//! `nputwin spec`: what targets exist and what they say.

mod coverage;
mod datasheet;
mod diff;
mod import;
mod lint;
mod list;
mod placement;
mod show;

use crate::output::{Outcome, evidence_json};
use nputwin::Result;
use nputwin::spec::{Accumulator, Action, Body, Overflow, Rule, Spec, Terms};
use serde_json::{Value, json};

/// Subcommands of `spec`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the targets that ship with nputwin
    List,
    /// Show the rules of a target
    Show(show::Args),
    /// Make a spec of the placement rules in another tool's configuration; exit code 1 where something is left out
    Import(import::Args),
    /// Check spec files; exit code 1 where there are findings
    Lint(lint::Args),
    /// Show the rules that differ between two targets
    Diff(diff::Args),
    /// Print the datasheet of a target in Markdown
    Doc(datasheet::Args),
    /// Print how every integer operator is known, by data type and target
    Coverage(coverage::Args),
}

/// Runs one.
pub fn execute(command: Command) -> Result<Outcome> {
    match command {
        Command::List => list::execute(),
        Command::Show(args) => show::execute(args),
        Command::Import(args) => import::execute(args),
        Command::Lint(args) => lint::execute(args),
        Command::Diff(args) => diff::execute(args),
        Command::Doc(args) => datasheet::execute(args),
        Command::Coverage(args) => coverage::execute(args),
    }
}

/// What a body does, in program text or words; one line per let.
fn action_lines(body: &Body) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(when) = &body.when_text {
        lines.push(format!("when {when}"));
    }
    match &body.action {
        Action::Program { lets, y, .. } => {
            lines.extend(lets.iter().map(|(name, text)| format!("{name} = {}", text.text.trim())));
            let text = y.text.trim();
            match text.contains('\n') {
                false => lines.push(format!("y = {text}")),
                true => {
                    let (last, before) = text.rsplit_once('\n').map_or((text, ""), |(b, l)| (l, b));
                    lines.extend(before.lines().map(|l| l.trim().to_string()));
                    lines.push(format!("y = {}", last.trim()));
                }
            }
        }
        Action::Intrinsic(name) => lines.push(format!("intrinsic {name}")),
        Action::Float => lines.push("dequantize, compute in float, quantize".into()),
        Action::Move => lines.push("move codes".into()),
        Action::Unsupported(reason) => lines.push(format!("unsupported: {reason}")),
    }
    lines
}

/// The accumulator where it differs from the usual one.
fn accumulator_words(accumulator: &Accumulator) -> Option<String> {
    if *accumulator == Accumulator::default() {
        return None;
    }
    let terms = match accumulator.terms {
        Terms::Centred => "codes minus zero points",
        Terms::Raw => "raw codes",
    };
    let overflow = match accumulator.overflow {
        Overflow::Wrap => "wraps",
        Overflow::PairSat16 => "adjacent pairs of products saturate to 16 bits",
    };
    let bias = if accumulator.bias { "with the bias" } else { "without the bias" };
    Some(format!("{}-bit sum of {terms} {bias}; {overflow}", accumulator.width))
}

fn body_json(body: &Body) -> Value {
    json!({
        "when": body.when_text,
        "action": body.action.label(),
        "lines": action_lines(body),
        "accumulator": body.accumulator,
        "evidence": evidence_json(&body.evidence),
    })
}

fn rule_json(rule: &Rule) -> Value {
    let alternatives: serde_json::Map<String, Value> = rule
        .alternatives
        .iter()
        .map(|(name, bodies)| (name.clone(), Value::Array(bodies.iter().map(body_json).collect())))
        .collect();
    json!({
        "name": rule.name,
        "origin": rule.origin,
        "choice": rule.choice,
        "bodies": rule.bodies.iter().map(body_json).collect::<Vec<_>>(),
        "alternatives": alternatives,
    })
}

/// The head of a spec, without its rules.
fn head_json(spec: &Spec) -> Value {
    json!({
        "name": spec.name,
        "aliases": spec.aliases,
        "title": spec.title,
        "origin": spec.origin,
        "execution": spec.execution,
        "status": spec.status().to_string(),
        "sha256": spec.hash,
        "rules": spec.rules.len(),
    })
}
