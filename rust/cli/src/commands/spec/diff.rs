//! `nputwin spec diff`.

use super::placement::placement_lines;
use super::{action_lines, rule_json};
use crate::output::{Outcome, target_json};
use nputwin::Result;
use nputwin::spec::{Body, Rule, Spec};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Arguments of `spec diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Target or TOML file
    left: String,
    /// Target or TOML file
    right: String,
}

/// Exit code 1 where the arithmetic differs.
pub fn execute(args: Args) -> Result<Outcome> {
    let (left, right) = (Spec::load(&args.left)?, Spec::load(&args.right)?);
    let names: BTreeSet<&String> = left.rules.keys().chain(right.rules.keys()).collect();
    let mut text = String::new();
    let mut rules = Vec::new();
    for name in names {
        let (l, r) = (left.rule(name), right.rule(name));
        if same(l, r) {
            continue;
        }
        let _ = writeln!(text, "{name}");
        for (sign, rule) in [("-", l), ("+", r)] {
            for line in rule.map(lines).unwrap_or_default() {
                let _ = writeln!(text, "  {sign} {line}");
            }
        }
        rules.push(json!({ "rule": name, "left": l.map(rule_json), "right": r.map(rule_json) }));
    }
    let mut other = Vec::new();
    if left.execution != right.execution {
        let _ = writeln!(text, "execution\n  - {:?}\n  + {:?}", left.execution, right.execution);
        other.push("execution");
    }
    if left.placement != right.placement {
        text.push_str("placement\n");
        let (l, r) = (placement_lines(&left.placement), placement_lines(&right.placement));
        l.iter().filter(|line| !r.contains(line)).for_each(|line| text.push_str(&format!("  - {line}\n")));
        r.iter().filter(|line| !l.contains(line)).for_each(|line| text.push_str(&format!("  + {line}\n")));
        other.push("placement");
    }
    let reals = |spec: &Spec| spec.float.as_ref().map_or("as ONNX says".to_string(), ToString::to_string);
    if reals(&left) != reals(&right) {
        let _ = writeln!(text, "reals\n  - {}\n  + {}", reals(&left), reals(&right));
        other.push("float");
    }
    let differs = !rules.is_empty() || !other.is_empty();
    if !differs {
        text.push_str("no rule differs\n");
    }
    let json = json!({
        "left": target_json(&left),
        "right": target_json(&right),
        "rules": Value::Array(rules),
        "other": other,
    });
    Ok(Outcome { text, json, code: u8::from(differs) })
}

/// Whether two rules compute the same; evidence and titles play no part.
fn same(left: Option<&Rule>, right: Option<&Rule>) -> bool {
    match (left, right) {
        (Some(l), Some(r)) => {
            let key = |bodies: &[Body]| bodies.iter().map(|b| (action_lines(b), b.accumulator)).collect::<Vec<_>>();
            key(&l.bodies) == key(&r.bodies)
        }
        (None, None) => true,
        _ => false,
    }
}

fn lines(rule: &Rule) -> Vec<String> {
    let mut out = Vec::new();
    for body in &rule.bodies {
        out.extend(action_lines(body));
        out.extend(super::accumulator_words(&body.accumulator).map(|w| format!("accumulator: {w}")));
    }
    out
}
