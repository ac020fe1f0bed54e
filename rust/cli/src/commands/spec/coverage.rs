//! `nputwin spec coverage`: how each operator is known, by data type and target.

use crate::output::{Outcome, Table};
use nputwin::Result;
use nputwin::encoding::Encoding;
use nputwin::num::FloatType;
use nputwin::ops::integer::{self, environment};
use nputwin::ops::registry;
use nputwin::program::{Env, Value as Constant};
use nputwin::spec::{Action, Body, Execution, Rule, Spec, embedded_names, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Arguments of `spec coverage`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Targets or TOML files; all that ship with nputwin where none is given
    targets: Vec<String>,
    /// Operators that exist in float only, too
    #[arg(long)]
    all: bool,
}

/// Data types of activations.
const ACTIVATIONS: [(&str, u32, bool); 4] = [("u8", 8, false), ("s8", 8, true), ("u16", 16, false), ("s16", 16, true)];
/// Data types of weights.
const WEIGHTS: [(&str, u32); 3] = [("s4", 4), ("s8", 8), ("s16", 16)];
/// Operators with weights of their own type.
const WEIGHTED: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];

/// How a target knows an operator on one data type.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    /// `executed`, `source`, `documented`, `fitted`, `assumed`, `float` (or the format of the target's reals), `unsupported`
    /// or `no rule`; several, joined by `/`, where the case depends on attributes.
    word: String,
    source: String,
}

/// Runs it.
pub fn execute(args: Args) -> Result<Outcome> {
    let targets: Vec<String> = match args.targets.is_empty() {
        true => embedded_names().map(String::from).collect(),
        false => args.targets,
    };
    let specs: Vec<Spec> = targets.iter().map(|t| Spec::load(t)).collect::<Result<_>>()?;
    let operators: BTreeSet<&str> = registry::all()
        .filter(|(domain, op_type, _)| domain.is_empty() && (args.all || integer::find(domain, op_type).is_some()))
        .map(|(_, op_type, _)| op_type)
        .collect();
    let mut head = vec!["operator", "types"];
    head.extend(specs.iter().map(|s| s.name.as_str()));
    let mut table = Table::new(&head);
    let mut cells = Vec::new();
    for op_type in operators {
        let rows: Vec<(String, Vec<Cell>)> = types(op_type)
            .into_iter()
            .map(|(name, env)| {
                let env = env?;
                Ok((name, specs.iter().map(|s| cell(s, op_type, &env)).collect()))
            })
            .collect::<Result<_>>()?;
        for (types, row) in &rows {
            for (spec, cell) in specs.iter().zip(row) {
                cells.push(json!({
                    "op": op_type,
                    "types": types,
                    "target": spec.name,
                    "status": cell.word,
                    "source": cell.source,
                }));
            }
        }
        for (types, row) in merged(&rows) {
            let words = row.iter().map(|c| c.word.clone());
            table.row([op_type.to_string(), types].into_iter().chain(words).collect());
        }
    }
    Ok(Outcome::ok(table.render(), Value::Array(cells)))
}

/// The data types of an operator with the constants that they mean. Where it has no integer form, types do not matter.
fn types(op_type: &str) -> Vec<(String, Result<Env>)> {
    let mut out = Vec::new();
    if integer::find("", op_type).is_none() {
        return vec![("real".to_string(), env(8, false, 8, false))];
    }
    for (name, bits, signed) in ACTIVATIONS {
        match WEIGHTED.contains(&op_type) {
            true => out.extend(WEIGHTS.map(|(w, w_bits)| (format!("{name}*{w}"), env(bits, signed, w_bits, true)))),
            false => out.push((name.to_string(), env(bits, signed, bits, signed))),
        }
    }
    out
}

/// Constants of operands `x a c y` of one type and `w b` of another.
fn env(bits: u32, signed: bool, w_bits: u32, w_signed: bool) -> Result<Env> {
    let middle = |bits: u32, signed: bool| if signed { 0 } else { 1i64 << (bits - 1) };
    let activation = Encoding::per_tensor(0.01, middle(bits, signed), bits, signed)?;
    let weight = Encoding::per_tensor(0.01, middle(w_bits, w_signed), w_bits, w_signed)?;
    let mut env = Env::new();
    for name in ["x", "a", "c"] {
        environment::add_encoding(&mut env, name, &activation);
    }
    for name in ["w", "b"] {
        environment::add_encoding(&mut env, name, &weight);
    }
    environment::add_output(&mut env, &activation, None);
    env.constant("n", Constant::Int(4));
    Ok(env)
}

fn cell(spec: &Spec, op_type: &str, env: &Env) -> Cell {
    let fixed = |word: &str, source: &str| Cell { word: word.into(), source: source.into() };
    match spec.execution {
        Execution::Float => return fixed(real(spec), "the target ignores encodings"),
        Execution::FakeQuant => return fixed(real(spec), "float kernels between quantizers"),
        Execution::Integer => {}
    }
    let Some(rule) = spec.rule(op_type).or_else(|| spec.rule(names::OTHER)) else {
        return fixed("no rule", "unspecified: running it is an error");
    };
    if integer::find("", op_type).is_none() && rule.bodies.iter().any(|b| !matches!(b.action, Action::Float)) {
        return fixed("unsupported", "the rule is one for integers, and nputwin has none of this operator");
    }
    let bodies = applicable(rule, env);
    let mut words: Vec<String> = Vec::new();
    for body in &bodies {
        let word = match &body.action {
            Action::Float => real(spec).to_string(),
            Action::Unsupported(_) => "unsupported".to_string(),
            _ => body.evidence.status.to_string(),
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    if words.is_empty() {
        return fixed("no rule", "no case of the rule applies");
    }
    let sources: Vec<&str> = bodies.iter().map(|b| b.evidence.source.as_str()).collect();
    Cell { word: words.join("/"), source: sources.join("; ") }
}

/// What float kernels of a target compute in.
fn real(spec: &Spec) -> &'static str {
    spec.float.as_ref().map_or("float", |f| FloatType::from(f.format).name())
}

/// The body that applies, or all that may where a condition asks for more than types.
fn applicable<'a>(rule: &'a Rule, env: &Env) -> Vec<&'a Body> {
    let mut out = Vec::new();
    for body in &rule.bodies {
        match body.when.as_ref().map(|guard| guard.holds(env)) {
            None | Some(Ok(true)) => {
                out.push(body);
                return out;
            }
            Some(Ok(false)) => {}
            Some(Err(_)) => out.push(body),
        }
    }
    out
}

/// Rows with equal cells as one row.
fn merged(rows: &[(String, Vec<Cell>)]) -> Vec<(String, Vec<Cell>)> {
    let mut out: Vec<(Vec<&str>, Vec<Cell>)> = Vec::new();
    for (types, row) in rows {
        match out.iter_mut().find(|(_, r)| r.iter().map(|c| &c.word).eq(row.iter().map(|c| &c.word))) {
            Some((names, _)) => names.push(types),
            None => out.push((vec![types], row.clone())),
        }
    }
    let all = rows.len();
    let name = |names: Vec<&str>| if names.len() == all { "all".to_string() } else { names.join(" ") };
    out.into_iter().map(|(names, row)| (name(names), row)).collect()
}
