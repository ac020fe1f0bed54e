//! Placement rules from other tools' configuration files.
//!
//! Two formats are read: the quantsim configuration of AIMET ([`quantsim`]), and qconfigs with templates ([`qconfig`]). A key
//! that the format does not have is an error; what a key asks for and a target's rules cannot say is a finding.

mod qconfig;
mod quantsim;
#[cfg(test)]
mod tests;

use super::placement::Placement;
use super::schema::{Evidence, SCHEMA_VERSION, Status};
use super::{EMBEDDED, nearest_help};
use crate::encoding::file::parse_strict;
use crate::error::{Error, Location, Result};
use serde::Serialize;
use serde_json::{Map, Value};

/// Something in the configuration that placement rules do not take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Keys that lead there, joined by dots.
    pub place: String,
    /// One sentence.
    pub message: String,
}

/// What a configuration file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Its rules, to be laid over those of `parents`.
    pub placement: Placement,
    /// Embedded files with the rules that the other tool has in its code.
    pub parents: Vec<String>,
    /// What was left out.
    pub findings: Vec<Finding>,
}

/// Reads a configuration file.
///
/// # Errors
/// `config_json` where it is no JSON, `config_format` where it is none of the known formats, `config_key` for a key that
/// the format does not have, `config_value` for a value of the wrong kind.
pub fn import(text: &str, origin: &str) -> Result<Imported> {
    let value = parse_strict(text.as_bytes()).map_err(|e| {
        Error::invalid("config_json", e.to_string())
            .at(Location::File(origin.into()))
            .help("a configuration file is JSON, with no key twice in one object")
    })?;
    let source = Source { text, origin };
    let Value::Object(map) = &value else {
        return Err(source.error(&[], "config_format", "the file is not an object".into()));
    };
    if map.contains_key("defaults") || map.contains_key("op_type") {
        return quantsim::read(&source, map);
    }
    if map.contains_key("reference_qconfig") || map.contains_key("templates") {
        return qconfig::read(&source, map);
    }
    Err(source
        .error(&[], "config_format", "the file is no known configuration".into())
        .help("an AIMET quantsim configuration has the key 'defaults', a qconfig 'reference_qconfig' or 'templates'"))
}

#[derive(Serialize)]
struct File {
    schema_version: u32,
    name: String,
    title: String,
    extends: Vec<String>,
    placement: Placement,
}

impl Imported {
    /// A spec file with these rules. `extends` come first: what they say of placement, the rules of this file's parents
    /// replace.
    ///
    /// # Errors
    /// `config_toml` where a value cannot be written as TOML.
    pub fn to_toml(&self, name: &str, extends: &[String], source: &str) -> Result<String> {
        let mut placement = self.placement.clone();
        placement.evidence = Some(Evidence { status: Status::Documented, source: source.into(), note: String::new() });
        let file = File {
            schema_version: SCHEMA_VERSION,
            name: name.into(),
            title: format!("Placement of {source}"),
            extends: extends.iter().chain(&self.parents).cloned().collect(),
            placement,
        };
        toml::to_string(&file).map_err(|e| Error::invalid("config_toml", e.to_string()))
    }
}

/// The embedded file below `base/` that bears a name as its alias.
fn embedded_alias(alias: &str) -> Option<&'static str> {
    let has = |text: &str| {
        toml::from_str::<toml::Table>(text).ok().and_then(|t| t.get("aliases").cloned()).is_some_and(|aliases| {
            aliases.as_array().is_some_and(|list| list.iter().any(|a| a.as_str() == Some(alias)))
        })
    };
    EMBEDDED.iter().find(|e| e.file.starts_with("base/") && has(e.toml)).map(|e| e.file)
}

/// The file that is read, for errors.
struct Source<'a> {
    text: &'a str,
    origin: &'a str,
}

impl Source<'_> {
    /// An error at the key that `path` leads to.
    fn error(&self, path: &[&str], code: &'static str, message: String) -> Error {
        let mut span = None;
        let mut from = 0;
        for key in path {
            let quoted = Value::String((*key).into()).to_string();
            let Some(at) = self.text[from..].find(&quoted) else { continue };
            span = Some(from + at..from + at + quoted.len());
            from += at + quoted.len();
        }
        let message = if path.is_empty() { message } else { format!("{}: {message}", path.join(".")) };
        Error::invalid(code, message).at(match span {
            Some(span) => Location::Text { origin: self.origin.into(), text: self.text.into(), span },
            None => Location::File(self.origin.into()),
        })
    }

    /// Refuses keys that are not in `known`.
    fn keys(&self, path: &[&str], map: &Map<String, Value>, known: &[&str]) -> Result<()> {
        match map.keys().find(|k| !known.contains(&k.as_str())) {
            None => Ok(()),
            Some(key) => {
                let path: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
                Err(self
                    .error(&path, "config_key", format!("'{key}' is no key of this format"))
                    .help(nearest_help(key, known.iter().copied())))
            }
        }
    }

    fn wrong(&self, path: &[&str], key: &str, wanted: &str) -> Error {
        let path: Vec<&str> = path.iter().copied().chain([key]).collect();
        self.error(&path, "config_value", format!("expected {wanted}"))
    }

    fn object<'v>(
        &self,
        path: &[&str],
        map: &'v Map<String, Value>,
        key: &str,
    ) -> Result<Option<&'v Map<String, Value>>> {
        match map.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(self.wrong(path, key, "an object")),
        }
    }

    fn array<'v>(&self, path: &[&str], map: &'v Map<String, Value>, key: &str) -> Result<Option<&'v [Value]>> {
        match map.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(self.wrong(path, key, "a list")),
        }
    }

    fn number(&self, path: &[&str], map: &Map<String, Value>, key: &str) -> Result<Option<f64>> {
        match map.get(key) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| self.wrong(path, key, "a number")),
        }
    }

    fn string<'v>(&self, path: &[&str], map: &'v Map<String, Value>, key: &str) -> Result<Option<&'v str>> {
        match map.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.wrong(path, key, "a string")),
        }
    }
}
