//! Reading, merging and checking spec files.

use super::schema::{Claim, Evidence, Lets, RawBody, RawFunction, RawSpec, SCHEMA_VERSION};
use super::{Action, Body, EMBEDDED, Embedded, Rule, Spec, names, nearest_help};
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
        return parse_in(&text, name_or_path, Path::new(name_or_path).parent());
    }
    if let Some(shipped) = embedded(&format!("{name_or_path}.toml")) {
        return spec(raw_from_json(shipped)?, shipped.file, None);
    }
    let mut known = Vec::new();
    for shipped in EMBEDDED.iter().filter(|e| !e.file.contains('/')) {
        let raw = raw_from_json(shipped)?;
        if raw.aliases.iter().any(|a| a == name_or_path) {
            return spec(raw, shipped.file, None);
        }
        known.push(shipped.file.trim_end_matches(".toml"));
        // names of files are names of targets: a test holds them equal
    }
    Err(Error::invalid("target_unknown", format!("no target is called '{name_or_path}'"))
        .help(nearest_help(name_or_path, known.into_iter())))
}

fn embedded(file: &str) -> Option<&'static Embedded> {
    EMBEDDED.iter().find(|e| e.file == file)
}

/// Everything that a file and its parents define, with the file that each thing stands in.
#[derive(Default, Serialize)]
struct Merged {
    name: Option<String>,
    aliases: Vec<String>,
    title: String,
    execution: Option<super::Execution>,
    placement: super::Placement,
    placement_evidence: Vec<(String, Option<super::Evidence>)>,
    conformance: Vec<Claim>,
    parameters: BTreeMap<String, super::Parameter>,
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parameters: &'a BTreeMap<String, super::Parameter>,
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
    parse_in(text, origin, None)
}

/// Reads a spec. The names in `extends`, of parents as well, are paths below the folder, or else embedded files.
pub(super) fn parse_in(text: &str, origin: &str, folder: Option<&Path>) -> Result<Spec> {
    spec(raw_from_toml(text, origin)?, origin, folder)
}

fn spec(raw: RawSpec, origin: &str, folder: Option<&Path>) -> Result<Spec> {
    let mut merged = Merged::default();
    merge(&mut merged, raw, origin, folder, 0)?;
    let name = merged.name.ok_or_else(|| {
        Error::invalid("spec_name", "the spec has no name")
            .at(Location::File(origin.into()))
            .help("add: name = \"my_target\"")
    })?;
    let functions = define_functions(&merged.functions)?;
    let execution = merged.execution.unwrap_or_default();
    let placement = merged.placement;
    placement.validate(origin)?;
    let hashed = Hashed {
        schema_version: SCHEMA_VERSION,
        execution,
        placement: &placement,
        parameters: &merged.parameters,
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
        conformance: merged.conformance,
        parameters: merged.parameters,
        placement_evidence: merged.placement_evidence,
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

/// A shipped file. What is wrong with one is said of its text.
fn raw_from_json(shipped: &Embedded) -> Result<RawSpec> {
    serde_json::from_str(shipped.json).or_else(|_| raw_from_toml(shipped.toml, shipped.file))
}

fn merge(into: &mut Merged, raw: RawSpec, origin: &str, folder: Option<&Path>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid("spec_extends", "specs extend each other in a circle or too deeply")
            .at(Location::File(origin.into())));
    }
    if raw.schema_version != SCHEMA_VERSION {
        return Err(Error::invalid(
            "spec_schema_version",
            format!("schema_version {} is not {SCHEMA_VERSION}", raw.schema_version),
        )
        .at(Location::File(origin.into())));
    }
    for parent in &raw.extends {
        let beside = folder.map(|dir| dir.join(parent)).filter(|p| p.is_file());
        if let Some(path) = beside {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io(path.display(), &e))?;
            let origin = path.display().to_string();
            merge(into, raw_from_toml(&text, &origin)?, &origin, folder, depth + 1)?;
        } else if let Some(shipped) = embedded(parent) {
            merge(into, raw_from_json(shipped)?, shipped.file, None, depth + 1)?;
        } else {
            return Err(Error::invalid("spec_extends", format!("there is no spec '{parent}' to extend"))
                .at(Location::File(origin.into()))
                .help(nearest_help(parent, EMBEDDED.iter().map(|e| e.file))));
        }
    }
    if let Some(limit) = &raw.inherited_evidence {
        into.rules.values_mut().for_each(|(_, body)| limit_evidence(body, limit));
    }
    into.name = raw.name;
    into.aliases = raw.aliases;
    into.title = raw.title;
    check_claims(&raw.conformance, origin)?;
    into.conformance = raw.conformance;
    into.execution = raw.execution.or(into.execution);
    for (name, parameter) in raw.parameters {
        parameter.check(&name, origin)?;
        into.parameters.insert(name, parameter);
    }
    if let Some(mut placement) = raw.placement {
        if placement.replace {
            into.placement_evidence.clear();
        }
        into.placement_evidence.push((origin.to_string(), placement.evidence.take()));
        into.placement.lay(placement);
    }
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
        match into.rules.get_mut(&name) {
            Some((_, inherited)) if body.is_extension() => inherited.extend(body),
            _ => {
                into.rules.insert(name, (origin.to_string(), body));
            }
        }
    }
    Ok(())
}

/// Lowers the evidence of a body, its cases and its alternatives to a limit; the source then names both.
fn limit_evidence(body: &mut RawBody, limit: &Evidence) {
    if let Some(evidence) = body.evidence.as_mut().filter(|e| e.status < limit.status) {
        evidence.status = limit.status;
        evidence.source = format!("{} ({})", limit.source, evidence.source);
        evidence.note = limit.note.clone();
    }
    body.cases.iter_mut().chain(body.alternatives.values_mut()).for_each(|b| limit_evidence(b, limit));
}

/// A claim names a family once, and an exception has a reason.
fn check_claims(claims: &[Claim], origin: &str) -> Result<()> {
    let fault = |text: String| Error::invalid("spec_conformance", text).at(Location::File(origin.into()));
    for (i, claim) in claims.iter().enumerate() {
        if claim.family.trim().is_empty() {
            return Err(fault("a claim without a family".into()).help("write: family = \"name\""));
        }
        if claims[..i].iter().any(|c| c.family == claim.family) {
            return Err(fault(format!("family '{}' is claimed twice", claim.family)));
        }
        for (k, exception) in claim.except.iter().enumerate() {
            if exception.reason.trim().is_empty() || exception.id.trim_matches('*').is_empty() {
                return Err(fault(format!("an exception of '{}' without {}", claim.family, {
                    if exception.reason.trim().is_empty() { "a reason" } else { "an id" }
                })));
            }
            if claim.except[..k].iter().any(|e| e.id == exception.id) {
                return Err(fault(format!("'{}' is excepted twice", exception.id)));
            }
        }
    }
    Ok(())
}

fn rule(name: &str, file: &str, raw: &RawBody, functions: &Functions) -> Result<Rule> {
    let place = format!("{file} [rules.{name}]");
    if raw.alternatives.is_empty() {
        if raw.choice.is_some() {
            return Err(Error::invalid("spec_choice", "a choice without alternatives").at(Location::File(place)));
        }
        let bodies = bodies(raw, &place, functions)?;
        return Ok(Rule {
            name: name.into(),
            origin: file.into(),
            bodies,
            alternatives: BTreeMap::new(),
            choice: None,
        });
    }
    if action(raw, &place, functions)?.is_some() {
        return Err(Error::invalid("spec_rule_double", "a rule with alternatives has cases and no body of its own")
            .at(Location::File(place))
            .help("make the body one of the alternatives"));
    }
    let mut alternatives = BTreeMap::new();
    for (key, alternative) in &raw.alternatives {
        let mut filled = alternative.clone();
        filled.accumulator = filled.accumulator.or(raw.accumulator);
        // The cases of the rule hold for every alternative.
        let mut tried = match raw.cases.is_empty() {
            true => Vec::new(),
            false => bodies(raw, &place, functions)?,
        };
        tried.extend(bodies(&filled, &format!("{place} alternatives.{key}"), functions)?);
        alternatives.insert(key.clone(), tried);
    }
    let known = || raw.alternatives.keys().map(String::as_str);
    let choice = raw.choice.as_ref().ok_or_else(|| {
        Error::invalid("spec_choice", "a rule with alternatives needs a choice").at(Location::File(place.clone()))
    })?;
    let chosen = alternatives.remove(choice).ok_or_else(|| {
        Error::invalid("spec_choice", format!("choice '{choice}' is not among the alternatives"))
            .at(Location::File(place.clone()))
            .help(nearest_help(choice, known()))
    })?;
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
