//! `nputwin spec import`: placement rules from another tool's configuration file.

use crate::files::write_bytes;
use crate::output::Outcome;
use nputwin::spec::import::import;
use nputwin::spec::{EMBEDDED, Spec};
use nputwin::{Error, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Arguments of `spec import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// AIMET quantsim configuration, or a qconfig with templates (JSON)
    config: PathBuf,
    /// Name of the new target; that of the file where none is given
    #[arg(long)]
    name: Option<String>,
    /// Target or TOML file whose rules the new one takes; may be repeated
    #[arg(long, value_name = "TARGET")]
    extends: Vec<String>,
    /// File to write; standard output where none is given
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn execute(args: Args) -> Result<Outcome> {
    let path = args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config).map_err(|e| Error::io(&path, &e))?;
    let imported = import(&text, &path)?;
    let stem = args.config.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let name = args.name.unwrap_or(stem);
    let extends: Vec<String> = args.extends.iter().map(|e| parent(e)).collect::<Result<_>>()?;
    let file = args.config.file_name().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let toml = imported.to_toml(&name, &extends, &file)?;
    // What is written must load.
    let origin = args.output.as_ref().map_or_else(|| format!("{name}.toml"), |o| o.display().to_string());
    let folder = args.output.as_ref().and_then(|o| o.parent()).unwrap_or(Path::new(""));
    let spec = Spec::parse_beside(&toml, &origin, folder)?;
    let mut text = String::new();
    match &args.output {
        Some(output) => {
            write_bytes(output, toml.as_bytes())?;
            let _ = writeln!(text, "{}: target {}, sha256 {}", output.display(), spec.name, spec.hash);
        }
        None => text.push_str(&toml),
    }
    for finding in &imported.findings {
        let comment = if args.output.is_none() { "# " } else { "" };
        let _ = writeln!(text, "{comment}not taken over: {}: {}", finding.place, finding.message);
    }
    let findings: Vec<Value> =
        imported.findings.iter().map(|f| json!({ "place": f.place, "message": f.message })).collect();
    let json = json!({
        "output": args.output.map(|o| o.display().to_string()),
        "name": spec.name,
        "sha256": spec.hash,
        "toml": toml,
        "findings": findings,
    });
    Ok(Outcome { text, json, code: u8::from(!imported.findings.is_empty()) })
}

/// The file of a target: that of an embedded one by its name or alias, else the path itself.
pub(super) fn parent(target: &str) -> Result<String> {
    if target.ends_with(".toml") {
        return Ok(target.into());
    }
    let origin = Spec::load(target)?.origin;
    match EMBEDDED.iter().any(|shipped| shipped.file == origin) {
        true => Ok(origin),
        false => Ok(target.into()),
    }
}
