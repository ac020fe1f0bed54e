//! `nputwin spec lint`.

use crate::output::{Outcome, error_json};
use nputwin::spec::{Action, Body, Rule, Spec, Status, names};
use nputwin::{Kind, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Arguments of `spec lint`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// TOML files or target names
    #[arg(required = true)]
    files: Vec<String>,
}

/// One thing to put right.
struct Finding {
    code: &'static str,
    place: String,
    message: String,
}

pub fn execute(args: Args) -> Result<Outcome> {
    let mut text = String::new();
    let mut reports = Vec::new();
    let mut total = 0;
    for file in &args.files {
        let findings = match Spec::load(file) {
            Err(error) if error.kind() == Kind::Io => return Err(error),
            Err(error) => {
                let _ = writeln!(text, "{error}");
                total += 1;
                reports.push(json!({ "file": file, "error": error_json(&error), "findings": [] }));
                continue;
            }
            Ok(spec) => check(&spec),
        };
        for finding in &findings {
            let _ = writeln!(text, "{file}: {} [{}]: {}", finding.place, finding.code, finding.message);
        }
        total += findings.len();
        let findings: Vec<Value> =
            findings.iter().map(|f| json!({ "code": f.code, "place": f.place, "message": f.message })).collect();
        reports.push(json!({ "file": file, "error": null, "findings": findings }));
    }
    let _ = writeln!(text, "{} file(s), {total} finding(s)", args.files.len());
    Ok(Outcome { text, json: Value::Array(reports), code: u8::from(total > 0) })
}

fn check(spec: &Spec) -> Vec<Finding> {
    let mut out = Vec::new();
    check_placement(spec, &mut out);
    for rule in spec.rules.values() {
        check_bodies(&rule.name, rule, &rule.bodies, &mut out);
        for (name, bodies) in &rule.alternatives {
            check_bodies(&format!("{} alternative {name}", rule.name), rule, bodies, &mut out);
        }
    }
    if spec.execution == nputwin::spec::Execution::Integer {
        for name in [names::QUANTIZE, names::DEQUANTIZE] {
            if spec.rule(name).is_none() {
                out.push(Finding {
                    code: "lint_rule_missing",
                    place: name.into(),
                    message: "every integer target needs this rule".into(),
                });
            }
        }
    }
    out
}

fn check_placement(spec: &Spec, out: &mut Vec<Finding>) {
    let mut finding = |code, place: String, message: String| out.push(Finding { code, place, message });
    for (file, evidence) in &spec.placement_evidence {
        if evidence.as_ref().is_none_or(|e| e.source.trim().is_empty()) {
            let message = "placement rules without evidence: say in `[placement.evidence]` how they are known";
            finding("lint_placement_evidence", format!("{file} [placement]"), message.into());
        }
    }
    let placement = &spec.placement;
    for chain in placement.supergroups() {
        if placement.supergroups().iter().filter(|other| *other == chain).count() > 1 {
            finding(
                "lint_placement_twice",
                "placement.supergroups".into(),
                format!("{} stands twice", chain.join(" + ")),
            );
        }
    }
    for (op_type, op) in &placement.ops {
        if op.constraint.is_some() && op.output_quantized == Some(false) {
            let message = "ends of a grid for an output without quantizer".to_string();
            finding("lint_placement_constraint", format!("placement.ops.{op_type}"), message);
        }
        if op.per_channel.is_some() && op.params.get("weight").is_some_and(|w| w.quantized == Some(false)) {
            let message = "scales per channel of a weight without quantizer".to_string();
            finding("lint_placement_channel", format!("placement.ops.{op_type}"), message);
        }
    }
}

fn check_bodies(place: &str, rule: &Rule, bodies: &[Body], out: &mut Vec<Finding>) {
    let mut finding = |code, message: String| out.push(Finding { code, place: place.to_string(), message });
    for (i, body) in bodies.iter().enumerate() {
        if body.evidence.source.trim().is_empty() {
            let status = body.evidence.status;
            let message = match status {
                Status::Assumed => "an assumption without a reason: say in `source` what it rests on".to_string(),
                _ => format!("evidence '{status}' without a source"),
            };
            finding("lint_evidence_source", message);
        }
        if body.when_text.is_none() && i + 1 < bodies.len() {
            finding("lint_unreachable", format!("case {} has no condition; the ones behind it never apply", i + 1));
        }
    }
    let always = bodies.last().is_some_and(|b| b.when_text.is_none());
    if !always && matches!(rule.name.as_str(), names::QUANTIZE | names::DEQUANTIZE | names::OTHER) {
        finding("lint_partial", "the rule does not cover every case".into());
    }
    let float_only = bodies.iter().all(|b| matches!(b.action, Action::Float));
    if float_only && matches!(rule.name.as_str(), "Conv" | "Gemm" | "MatMul") {
        finding("lint_float", "a multiply-accumulate operator in float is no emulation".into());
    }
}
