//! `nputwin spec schema`: what a spec file may contain, for editors.

use crate::files::write_bytes;
use crate::output::Outcome;
use nputwin::Result;
use nputwin::ops::{integer, registry};
use nputwin::spec::json_schema;
use std::path::PathBuf;

/// Arguments of `spec schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to write; standard output where none is given
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn execute(args: Args) -> Result<Outcome> {
    let mut operators: Vec<&str> = registry::all()
        .filter(|(domain, op_type, _)| integer::find(domain, op_type).is_some())
        .map(|(_, op_type, _)| op_type)
        .collect();
    operators.sort_unstable();
    let schema = json_schema(operators);
    let mut text = format!("{schema:#}\n");
    if let Some(output) = &args.output {
        write_bytes(output, text.as_bytes())?;
        text = format!("{}: put `#:schema {}` on top of a spec\n", output.display(), output.display());
    }
    Ok(Outcome::ok(text, schema))
}
