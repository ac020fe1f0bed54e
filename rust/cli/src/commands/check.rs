//! `nputwin check`: where a model's encodings break the target's placement rules.

use crate::args::ModelArgs;
use crate::output::{Outcome, Table};
use nputwin::Result;
use nputwin::exec::check::{Finding, check};
use nputwin::exec::quantizers::{Decision, Role, quantizers};
use nputwin::graph::Graph;
use nputwin::spec::Spec;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Target whose placement rules the encodings must keep
    #[arg(long, short = 't', default_value = "htp_v75")]
    target: String,
    /// List every tensor with the quantizer that the target gives it
    #[arg(long)]
    list: bool,
}

/// Runs it.
pub fn execute(args: Args) -> Result<Outcome> {
    let spec = Spec::load(&args.target)?;
    let model = args.model.open()?;
    let findings = check(&model.graph, &spec);
    let decisions = quantizers(&model.graph, &spec.placement);
    let mut text = String::new();
    if args.list {
        text.push_str(&table(&model.graph, &decisions.tensors));
        text.push('\n');
    }
    for Finding { code, place, message, help } in &findings {
        let _ = writeln!(text, "{place} [{code}]: {message}\n  help: {help}");
    }
    model.notes.iter().for_each(|note| {
        let _ = writeln!(text, "note: {note}");
    });
    let quantized = decisions.tensors.iter().filter(|d| d.quantizer.is_some()).count();
    let _ = writeln!(
        text,
        "{} finding(s); {} quantizes {quantized} of {} float tensors",
        findings.len(),
        spec.name,
        decisions.tensors.len()
    );
    let found = |f: &Finding| json!({ "code": f.code, "place": f.place, "message": f.message, "help": f.help });
    let json = json!({
        "target": spec.name,
        "provenance": model.provenance,
        "findings": findings.iter().map(found).collect::<Vec<Value>>(),
        "notes": model.notes,
        "placement": decisions.tensors.iter().map(|d| decision_json(&model.graph, d)).collect::<Vec<Value>>(),
    });
    Ok(Outcome { text, json, code: u8::from(!findings.is_empty()) })
}

fn role_words(role: &Role) -> String {
    match role {
        Role::Input => "input".into(),
        Role::Activation => "activation".into(),
        Role::Constant => "constant".into(),
        Role::Parameter { op_type, name } => format!("{op_type} {name}"),
    }
}

fn decision_json(graph: &Graph, decision: &Decision) -> Value {
    let name = |t: usize| graph.tensors[t].name.as_str();
    json!({
        "tensor": name(decision.tensor),
        "role": role_words(&decision.role),
        "reason": decision.reason.to_string(),
        "group": name(decision.group),
        "quantizer": decision.quantizer.map(|q| json!({
            "bitwidth": q.bitwidth,
            "signed": q.signed,
            "symmetric": q.symmetric,
            "narrow_range": q.narrow_range,
            "unsigned_symmetric": q.unsigned_symmetric,
            "axis": q.axis,
            "min": q.constraint.and_then(|c| c.min),
            "max": q.constraint.and_then(|c| c.max),
        })),
    })
}

fn table(graph: &Graph, decisions: &[Decision]) -> String {
    let mut table = Table::new(&["tensor", "role", "grid", "why"]);
    for decision in decisions {
        let grid = decision.quantizer.map_or("-".into(), |q| {
            let mut words = format!("{}int{}", if q.signed { "" } else { "u" }, q.bitwidth);
            words.push_str(if q.symmetric { " symmetric" } else { "" });
            words.push_str(if q.narrow_range { " narrow" } else { "" });
            if let Some(axis) = q.axis {
                let _ = write!(words, " per channel on axis {axis}");
            }
            if let Some(c) = q.constraint {
                let end = |v: Option<f64>| v.map_or("..".into(), |v| v.to_string());
                let _ = write!(words, " [{}, {}]", end(c.min), end(c.max));
            }
            words
        });
        let mut why = decision.reason.to_string();
        if decision.quantizer.is_some() && decision.group != decision.tensor {
            let _ = write!(why, ", one encoding with '{}'", graph.tensors[decision.group].name);
        }
        table.row(vec![graph.tensors[decision.tensor].name.clone(), role_words(&decision.role), grid, why]);
    }
    table.render()
}
