//! Arguments that commands share: the model, the target and how to run.

use crate::files::sha256;
use clap::Args;
use nputwin::encoding::file::EncodingsFile;
use nputwin::exec::{Options, Session, parse_bytes};
use nputwin::graph::Graph;
use nputwin::graph::encodings::{ApplyOptions, apply};
use nputwin::spec::Spec;
use nputwin::{Error, Result, model};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The model.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// ONNX model (float, QDQ or with QLinear operators) or TFLite model
    pub model: PathBuf,
    /// Encodings for the model's tensors (.encodings 0.6.1, 1.0.0, 2.0.0 or 2.1.0)
    #[arg(long, short = 'e', value_name = "FILE")]
    pub encodings: Option<PathBuf>,
    /// Accept encodings of tensors that the model does not have
    #[arg(long)]
    pub allow_unmatched: bool,
}

/// How to run.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Choose among a rule's alternatives, such as Add=A1; may be repeated
    #[arg(long, value_name = "RULE=ALTERNATIVE")]
    pub assume: Vec<String>,
    /// Refuse rules that are only assumed
    #[arg(long)]
    pub strict: bool,
    /// Threads of a run; 0 for as many as the machine has
    #[arg(long, short = 'j', default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Memory that the values of a run may take, such as 16GiB; without it, half of what the machine has available
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub max_memory: Option<u64>,
}

/// A number of bytes, for the parser of arguments.
pub fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|e| [e.message(), e.help_text().unwrap_or_default()].join(": "))
}

/// A model that has been read.
#[derive(Debug, Clone)]
pub struct Model {
    /// The graph, encodings applied.
    pub graph: Graph,
    /// Files and hashes.
    pub provenance: Value,
    /// What applying the encodings had to say.
    pub notes: Vec<String>,
}

impl ModelArgs {
    /// Reads the model and its encodings.
    pub fn open(&self) -> Result<Model> {
        let mut graph = model::read(&self.model)?;
        let mut notes = Vec::new();
        let mut encodings = Value::Null;
        if let Some(path) = &self.encodings {
            let file = EncodingsFile::read(path)?;
            notes = apply_encodings(&mut graph, &file, self.allow_unmatched)?;
            encodings = json!({
                "path": path.display().to_string(),
                "sha256": sha256(path)?,
                "version": file.version.text(),
            });
        }
        let provenance = json!({
            "model": { "path": self.model.display().to_string(), "sha256": sha256(&self.model)? },
            "encodings": encodings,
        });
        Ok(Model { graph, provenance, notes })
    }
}

/// A target with chosen alternatives, each `RULE=ALTERNATIVE`.
pub fn assumed(target: &str, assumptions: &[String]) -> Result<Spec> {
    let mut spec = Spec::load(target)?;
    for assumption in assumptions {
        let (rule, alternative) = split_pair(assumption, "assume_form", "--assume Add=A1")?;
        spec.assume(rule, alternative)?;
    }
    Ok(spec)
}

/// Applies encodings and says what did not match.
pub fn apply_encodings(graph: &mut Graph, file: &EncodingsFile, allow_unmatched: bool) -> Result<Vec<String>> {
    Ok(apply(graph, file, ApplyOptions { allow_unmatched })?.notes())
}

impl RunOptions {
    /// The target with its assumptions. One that does not have an assumed rule refuses it.
    pub fn spec(&self, target: &str) -> Result<Spec> {
        assumed(target, &self.assume)
    }

    /// A model under a target.
    pub fn session(&self, graph: Graph, target: &str) -> Result<Session> {
        Session::new(graph, self.spec(target)?, self.options())
    }

    /// As the core takes them.
    pub fn options(&self) -> Options {
        Options { threads: self.threads, strict: self.strict, max_memory: self.max_memory, ..Options::default() }
    }
}

/// The two sides of `KEY=VALUE`.
pub fn split_pair<'a>(pair: &'a str, code: &'static str, example: &str) -> Result<(&'a str, &'a str)> {
    pair.split_once('=').filter(|(k, v)| !k.is_empty() && !v.is_empty()).ok_or_else(|| {
        Error::invalid(code, format!("'{pair}' is not KEY=VALUE")).help(format!("for example: {example}"))
    })
}
