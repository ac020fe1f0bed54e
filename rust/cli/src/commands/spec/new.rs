//! `nputwin spec new`: a spec to begin with.

use super::import::parent;
use crate::files::write_bytes;
use crate::output::Outcome;
use nputwin::spec::{Action, Body, EMBEDDED, Rule, Spec, embedded_names};
use nputwin::{Error, Location, Result};
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The rules of a target of which nothing is known.
const FROM_NOTHING: &str = include_str!("new.toml");

/// Rules that an example of an override is made of, where the parent has one as a program.
const EXAMPLES: [&str; 6] = ["Add", "Conv", "Mul", "Gemm", "Requantize", "quantize"];

/// Arguments of `spec new`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the new target
    name: String,
    /// Target or TOML file whose rules the new one takes
    #[arg(long, value_name = "TARGET")]
    extends: Option<String>,
    /// File to write; NAME.toml where none is given
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// One line that says what the target is
    #[arg(long)]
    title: Option<String>,
    /// Replace the file where it is there
    #[arg(long)]
    force: bool,
}

pub fn execute(args: Args) -> Result<Outcome> {
    check_name(&args.name)?;
    let output = args.output.unwrap_or_else(|| PathBuf::from(format!("{}.toml", args.name)));
    let place = output.display().to_string();
    if output.symlink_metadata().is_ok() && !args.force {
        return Err(Error::invalid("spec_new_exists", "the file is there already")
            .at(Location::File(place))
            .help("name another with -o, or replace it with --force"));
    }
    let base =
        args.extends.as_deref().map(|target| Ok::<_, Error>((parent(target)?, Spec::load(target)?))).transpose()?;
    let folder = output.parent().unwrap_or(Path::new(""));
    if let Some((file, _)) = &base
        && !EMBEDDED.iter().any(|shipped| shipped.file == file)
        && !folder.join(file).is_file()
    {
        return Err(Error::invalid("spec_new_parent", format!("'{file}' is not beside {place}"))
            .at(Location::File(place))
            .help("`extends` is read from the folder of the file that it stands in: put both into one"));
    }
    let title = match (args.title, &base) {
        (Some(title), _) => title,
        (None, Some((_, base))) => format!("{}, with rules of its own", base.name),
        (None, None) => format!("{} (say here what it is)", args.name),
    };
    let mut toml = head(&args.name, &title)?;
    match &base {
        Some((file, base)) => child(&mut toml, file, base),
        None => toml.push_str(FROM_NOTHING),
    }
    // What is written must load.
    let spec = Spec::parse_beside(&toml, &place, folder)?;
    write_bytes(&output, toml.as_bytes())?;
    let text = format!("{place}: target {}; `nputwin spec lint {place}` checks it\n", spec.name);
    Ok(Outcome::ok(text, json!({ "output": place, "name": spec.name, "sha256": spec.hash, "rules": spec.rules.len() })))
}

/// A name is that of a file and of no shipped target.
fn check_name(name: &str) -> Result<()> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(is_word) || name.len() > 100 {
        return Err(Error::invalid("spec_new_name", format!("'{name}' is no name of a target"))
            .help("letters, digits, '_', '-' and '.', with a letter or digit in front"));
    }
    if name.to_ascii_lowercase().ends_with(".toml") {
        return Err(Error::invalid("spec_new_name", "a target's name is that of its file without '.toml'")
            .help("the file is named with -o"));
    }
    for shipped in embedded_names() {
        let spec = Spec::load(shipped)?;
        if spec.aliases.iter().chain([&spec.name]).any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(Error::invalid("spec_new_name", format!("'{name}' is a target that ships with nputwin"))
                .help(format!("to build on it: nputwin spec new my_{name} --extends {name}")));
        }
    }
    Ok(())
}

fn head(name: &str, title: &str) -> Result<String> {
    if title.chars().any(char::is_control) {
        return Err(Error::invalid("spec_new_title", "a title is one line of text"));
    }
    // JSON's escapes are TOML's where nothing is a control character.
    let (name, title) = (json!(name), json!(title));
    Ok(format!(
        "# The format by example: specs/README.md; a target from nothing: specs/TUTORIAL.md. For completion in an editor:\n\
         # `nputwin spec schema -o spec.schema.json`, and a first line `#:schema spec.schema.json`.\n\
         schema_version = 1\nname = {name}\ntitle = {title}\n"
    ))
}

/// A child of a target: nothing changes until a rule is written; what there is to change stands in comments.
fn child(toml: &mut String, file: &str, base: &Spec) {
    let _ = writeln!(toml, "extends = [{}]", json!(file));
    let why = format!("carried over from {}", base.name);
    let _ = writeln!(
        toml,
        "# What is only inherited is known no better than this. Without the line, the parent's evidence holds."
    );
    let _ = writeln!(toml, "inherited_evidence = {{ status = \"assumed\", source = {} }}", json!(why));
    if let Some((rule, body)) = example(base) {
        toml.push_str(
            "\n# A rule of the same name replaces the parent's. This is the parent's; uncomment it and change it:\n",
        );
        comment(toml, &body_toml(rule, body));
        toml.push_str("# A rule with `cases` and nothing else is tried before the parent's:\n");
        let reason = "unsupported = \"say why\"";
        let evidence = "evidence = { status = \"assumed\", source = \"say what it rests on\" }";
        let name = &rule.name;
        comment(toml, &format!("[[rules.{name}.cases]]\nwhen = \"y.bits == 16\"\n{reason}\n{evidence}\n"));
    }
    let choices: Vec<&Rule> = base.rules.values().filter(|r| r.choice.is_some()).collect();
    if !choices.is_empty() {
        toml.push_str("\n# Hypotheses of the parent: `--assume RULE=NAME` picks one for a run.\n");
        for rule in choices {
            let others: Vec<&str> = rule.alternatives.keys().map(String::as_str).collect();
            let chosen = rule.choice.as_deref().unwrap_or_default();
            let _ = writeln!(toml, "#   {}: {chosen}; or {}", rule.name, others.join(", "));
        }
    }
    if !base.parameters.is_empty() {
        toml.push_str("\n# Parameters of the parent: a node states one as its attribute `nputwin.NAME`.\n");
        for (name, parameter) in &base.parameters {
            let _ = writeln!(
                toml,
                "#   {name}: {}; {} where nothing is stated",
                parameter.one_of.join(", "),
                parameter.default
            );
        }
    }
    let _ = writeln!(
        toml,
        "\n# Rules of the parent, with the status of their evidence (`nputwin spec show {}`):",
        base.name
    );
    for rule in base.rules.values() {
        let mut words: Vec<String> =
            rule.bodies.iter().map(|b| format!("{} [{}]", b.action.label(), b.evidence.status)).collect();
        words.dedup();
        let _ = writeln!(toml, "#   {}: {}", rule.name, words.join(", "));
    }
}

/// A rule of the parent that computes by a program of its own.
fn example(base: &Spec) -> Option<(&Rule, &Body)> {
    EXAMPLES.iter().filter_map(|name| base.rule(name)).find_map(|rule| {
        let last = rule.bodies.last().filter(|b| b.when.is_none() && matches!(b.action, Action::Program { .. }))?;
        Some((rule, last))
    })
}

/// A rule of one body as TOML.
fn body_toml(rule: &Rule, body: &Body) -> String {
    let mut toml = format!("[rules.{}]\n", rule.name);
    if let Action::Program { lets, y, .. } = &body.action {
        for (name, text) in lets {
            let _ = writeln!(toml, "let.{name} = {}", text_toml(&text.text));
        }
        let _ = writeln!(toml, "y = {}", text_toml(&y.text));
    }
    let accumulator = &body.accumulator;
    if *accumulator != nputwin::spec::Accumulator::default() {
        let entries: Vec<String> = match json!(accumulator) {
            serde_json::Value::Object(map) => map.into_iter().map(|(k, v)| format!("{k} = {v}")).collect(),
            _ => Vec::new(),
        };
        let _ = writeln!(toml, "accumulator = {{ {} }}", entries.join(", "));
    }
    toml.push_str("evidence = { status = \"assumed\", source = \"say what it rests on\" }\n");
    toml
}

/// A program as a TOML string, over several lines where it has them.
fn text_toml(text: &str) -> String {
    match text.trim_end().contains('\n') && !text.contains(['\\', '"']) {
        true => format!("\"\"\"\n{}\n\"\"\"", text.trim()),
        false => json!(text.trim()).to_string(),
    }
}

fn comment(toml: &mut String, block: &str) {
    for line in block.lines() {
        let _ = writeln!(toml, "# {line}");
    }
}
