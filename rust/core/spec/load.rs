//! Reading, merging and checking spec files.

use super::schema::{Lets, RawBody, RawFunction, RawSpec, SCHEMA_VERSION};
use super::{Action, Body, EMBEDDED, Rule, Spec, names, nearest_help};
use crate::error::{Error, Location, Result};
use crate::program::{Functions, Program, Text, parse_guard};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Depth to which `extends` may nest.
const MAX_DEPTH: usize = 8;

pub(super) fn load(name_or_path: &str) -> Result<Spec> {
    if name_or_path.ends_with(".toml") || Path::new(name_or_path).is_file() {
        let text = std::fs::read_to_string(name_or_path).map_err(|e| Error::io(name_or_path, &e))?;
        return parse(&text, name_or_path);
    }
    if let Some((file, text)) = embedded(&format!("{name_or_path}.toml")) {
        return parse(text, file);
    }
    let mut known = Vec::new();
    for (file, text) in EMBEDDED.iter().filter(|(file, _)| !file.contains('/')) {
        let raw = raw_from_toml(text, file)?;
        if raw.aliases.iter().any(|a| a == name_or_path) {
            return parse(text, file);
        }
        known.push(file.trim_end_matches(".toml"));
        // names of files are names of targets: a test holds them equal
    }
    Err(Error::invalid("target_unknown", format!("no target is called '{name_or_path}'"))
        .help(nearest_help(name_or_path, known.into_iter())))
}

fn embedded(file: &str) -> Option<(&'static str, &'static str)> {
    EMBEDDED.iter().copied().find(|(name, _)| *name == file)
}

/// Everything that a file and its parents define, with the file that each thing stands in.
#[derive(Default, Serialize)]
struct Merged {
    name: Option<String>,
    aliases: Vec<String>,
    title: String,
    execution: Option<super::Execution>,
    placement: Option<super::Placement>,
    float: Option<super::FloatArithmetic>,
    functions: BTreeMap<String, (String, RawFunction)>,
    rules: BTreeMap<String, (String, RawBody)>,
}

/// The part of a spec that decides bits; names, titles and file places stay out of its hash.
#[derive(Serialize)]
struct Hashed<'a> {
    schema_version: u32,
    execution: super::Execution,
    placement: &'a super::Placement,
    #[serde(skip_serializing_if = "Option::is_none")]
    float: Option<super::FloatArithmetic>,
    functions: BTreeMap<&'a str, &'a RawFunction>,
    rules: BTreeMap<&'a str, RawBody>,
}

/// A body without what says how we know it: evidence changes no bits.
fn bare(body: &RawBody) -> RawBody {
    RawBody {
        evidence: None,
        cases: body.cases.iter().map(bare).collect(),
        alternatives: body.alternatives.iter().map(|(k, v)| (k.clone(), bare(v))).collect(),
        ..body.clone()
    }
}

pub(super) fn parse(text: &str, origin: &str) -> Result<Spec> {
    let mut merged = Merged::default();
    merge(&mut merged, text, origin, 0)?;
    let name = merged.name.ok_or_else(|| {
        Error::invalid("spec_name", "the spec has no name")
            .at(Location::File(origin.into()))
            .help("add: name = \"my_target\"")
    })?;
    let functions = define_functions(&merged.functions)?;
    let execution = merged.execution.unwrap_or_default();
    let placement = merged.placement.unwrap_or_default();
    let hashed = Hashed {
        schema_version: SCHEMA_VERSION,
        execution,
        placement: &placement,
        float: merged.float.clone().map(|f| super::FloatArithmetic { evidence: None, ..f }),
        functions: merged.functions.iter().map(|(k, v)| (k.as_str(), &v.1)).collect(),
        rules: merged.rules.iter().map(|(k, v)| (k.as_str(), bare(&v.1))).collect(),
    };
    let bytes = serde_json::to_vec(&hashed).expect("specs are plain data");
    let hash = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    let mut rules = BTreeMap::new();
    for (rule_name, (file, raw)) in &merged.rules {
        rules.insert(rule_name.clone(), rule(rule_name, file, raw, &functions)?);
    }
    Ok(Spec {
        name,
        aliases: merged.aliases,
        title: merged.title,
        origin: origin.to_string(),
        execution,
        placement,
        float: merged.float,
        rules,
        hash,
        assumptions: BTreeMap::new(),
    })
}

fn define_functions(raw: &BTreeMap<String, (String, RawFunction)>) -> Result<Functions> {
    let mut functions = Functions::new();
    for (name, (file, f)) in raw {
        let origin = |key: &str| format!("{file} [functions.{name}] {key}");
        let body = Text { text: f.y.clone(), origin: origin("y") };
        functions.define(name, &f.args, &texts(&f.lets, |k| origin(&format!("let.{k}"))), body)?;
    }
    Ok(functions)
}

fn texts(lets: &Lets, origin: impl Fn(&str) -> String) -> Vec<(String, Text)> {
    lets.0.iter().map(|(k, v)| (k.clone(), Text { text: v.clone(), origin: origin(k) })).collect()
}

fn raw_from_toml(text: &str, origin: &str) -> Result<RawSpec> {
    toml::from_str(text).map_err(|e| {
        let message = e.message().to_string();
        let mut error = Error::invalid("spec_toml", message.clone());
        error = match e.span() {
            Some(span) => error.at(Location::Text { origin: origin.into(), text: text.into(), span }),
            None => error.at(Location::File(origin.into())),
        };
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        match quoted.split_first() {
            Some((word, known)) if message.contains("unknown") && !known.is_empty() => {
                error.help(nearest_help(word, known.iter().copied()))
            }
            _ => error,
        }
    })
}

fn merge(into: &mut Merged, text: &str, origin: &str, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid("spec_extends", "specs extend each other in a circle or too deeply")
            .at(Location::File(origin.into())));
    }
    let raw = raw_from_toml(text, origin)?;
    if raw.schema_version != SCHEMA_VERSION {
        return Err(Error::invalid(
            "spec_schema_version",
            format!("schema_version {} is not {SCHEMA_VERSION}", raw.schema_version),
        )
        .at(Location::File(origin.into())));
    }
    for parent in &raw.extends {
        let beside = Path::new(origin).parent().map(|dir| dir.join(parent));
        if let Some((file, text)) = embedded(parent) {
            merge(into, text, file, depth + 1)?;
        } else if let Some(path) = beside.filter(|p| p.is_file()) {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io(path.display(), &e))?;
            merge(into, &text, &path.display().to_string(), depth + 1)?;
        } else {
            return Err(Error::invalid("spec_extends", format!("there is no spec '{parent}' to extend"))
                .at(Location::File(origin.into()))
                .help(nearest_help(parent, EMBEDDED.iter().map(|(n, _)| *n))));
        }
    }
    into.name = raw.name;
    into.aliases = raw.aliases;
    into.title = raw.title;
    into.execution = raw.execution.or(into.execution);
    into.placement = raw.placement.or(into.placement.take());
    if let Some(float) = raw.float {
        if float.format == super::Format::F64 {
            return Err(Error::invalid(
                "spec_float",
                "tensors of reals have at most 32 bits: type is f16, bf16 or f32",
            )
            .at(Location::File(origin.into())));
        }
        into.float = Some(float);
    }
    for (name, function) in raw.functions {
        into.functions.insert(name, (origin.to_string(), function));
    }
    for (name, body) in raw.rules {
        if name.starts_with(char::is_lowercase) && !names::ALL.contains(&name.as_str()) {
            return Err(Error::invalid("spec_rule_name", format!("'{name}' is neither an ONNX operator nor a rule"))
                .at(Location::File(origin.into()))
                .help(nearest_help(&name, names::ALL.into_iter())));
        }
        into.rules.insert(name, (origin.to_string(), body));
    }
    Ok(())
}

fn rule(name: &str, file: &str, raw: &RawBody, functions: &Functions) -> Result<Rule> {
    let place = format!("{file} [rules.{name}]");
    let mut alternatives = BTreeMap::new();
    for (key, alternative) in &raw.alternatives {
        let mut filled = alternative.clone();
        filled.accumulator = filled.accumulator.or(raw.accumulator);
        alternatives.insert(key.clone(), bodies(&filled, &format!("{place} alternatives.{key}"), functions)?);
    }
    let chosen = match &raw.choice {
        None if alternatives.is_empty() => bodies(raw, &place, functions)?,
        Some(choice) => match alternatives.remove(choice) {
            Some(chosen) => chosen,
            None => {
                return Err(Error::invalid("spec_choice", format!("choice '{choice}' is not among the alternatives"))
                    .at(Location::File(place))
                    .help(nearest_help(choice, raw.alternatives.keys().map(String::as_str))));
            }
        },
        None => {
            return Err(
                Error::invalid("spec_choice", "a rule with alternatives needs a choice").at(Location::File(place))
            );
        }
    };
    Ok(Rule { name: name.into(), origin: file.into(), bodies: chosen, alternatives, choice: raw.choice.clone() })
}

/// A body and its cases, in the order in which they are tried.
fn bodies(raw: &RawBody, place: &str, functions: &Functions) -> Result<Vec<Body>> {
    let mut out = Vec::new();
    for (i, case) in raw.cases.iter().enumerate() {
        let mut filled = case.clone();
        filled.accumulator = filled.accumulator.or(raw.accumulator);
        filled.evidence = filled.evidence.or_else(|| raw.evidence.clone());
        out.extend(bodies(&filled, &format!("{place} cases[{i}]"), functions)?);
    }
    if let Some(action) = action(raw, place, functions)? {
        let evidence = raw.evidence.clone().ok_or_else(|| {
            Error::invalid("spec_evidence", "the rule has no evidence")
                .at(Location::File(place.into()))
                .help("add: evidence = { status = \"assumed\", source = \"\" }")
        })?;
        let accumulator = raw.accumulator.unwrap_or_default();
        if !matches!(accumulator.width, 32 | 64) {
            return Err(Error::unsupported("spec_accumulator", format!("accumulator width {}", accumulator.width))
                .at(Location::File(place.into()))
                .help("32 and 64 bits are available"));
        }
        let when = raw.when.as_ref().map(|w| Text { text: w.clone(), origin: format!("{place} when") });
        out.push(Body {
            when: when.as_ref().map(|w| parse_guard(w, functions)).transpose()?.map(Arc::new),
            when_text: raw.when.clone(),
            action,
            accumulator,
            evidence,
        });
    } else if raw.cases.is_empty() {
        return Err(Error::invalid("spec_rule_empty", "the rule does nothing")
            .at(Location::File(place.into()))
            .help("give it y, intrinsic, float = true, move = true, unsupported = \"why\", or cases"));
    }
    Ok(out)
}

fn action(raw: &RawBody, place: &str, functions: &Functions) -> Result<Option<Action>> {
    let mut found = Vec::new();
    if let Some(y) = &raw.y {
        let lets = texts(&raw.lets, |k| format!("{place} let.{k}"));
        let y = Text { text: y.clone(), origin: format!("{place} y") };
        let program = Arc::new(Program::parse(&lets, &y, functions)?);
        found.push(Action::Program { program, lets, y });
    } else if !raw.lets.0.is_empty() {
        return Err(Error::invalid("spec_let", "constants without a program").at(Location::File(place.into())));
    }
    if let Some(name) = &raw.intrinsic {
        found.push(Action::Intrinsic(name.clone()));
    }
    if raw.float == Some(true) {
        found.push(Action::Float);
    }
    if raw.moves == Some(true) {
        found.push(Action::Move);
    }
    if let Some(reason) = &raw.unsupported {
        found.push(Action::Unsupported(reason.clone()));
    }
    if found.len() > 1 {
        return Err(Error::invalid("spec_rule_double", "a body has one of y, intrinsic, float, move, unsupported")
            .at(Location::File(place.into())));
    }
    Ok(found.pop())
}
