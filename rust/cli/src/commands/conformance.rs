//! `nputwin conformance`: golden vectors of other implementations against a target.

use crate::Context;
use crate::output::{Outcome, Table};
use nputwin::Result;
use nputwin::conformance::{Outcome as CaseOutcome, run_family};
use nputwin::spec::Spec;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `conformance`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders with a `cases.json`
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Target by name or path
    #[arg(long)]
    target: String,
    /// Only cases whose id contains this text
    #[arg(long)]
    only: Option<String>,
    /// Threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Runs the families.
pub fn execute(args: Args, _context: Context) -> Result<Outcome> {
    let spec = Spec::load(&args.target)?;
    let mut table = Table::new(&["family", "file", "equal", "cases", "first fault"]);
    let mut rows_json = Vec::new();
    let mut code = 0;
    for dir in &args.dirs {
        let wanted = |id: &str| args.only.as_ref().is_none_or(|text| id.contains(text.as_str()));
        for (file, row) in run_family(dir, &spec, args.threads, |case| wanted(&case.id))? {
            let fault = row.first_fault.as_ref().map_or(String::new(), |(id, outcome)| match outcome {
                CaseOutcome::Failed(e) => format!("{id}: {e}"),
                other => format!("{id}: {other:?}"),
            });
            code |= u8::from(row.equal != row.cases);
            rows_json.push(json!({ "dir": dir, "file": file, "equal": row.equal, "cases": row.cases, "fault": fault }));
            table.row(vec![dir.display().to_string(), file, row.equal.to_string(), row.cases.to_string(), fault]);
        }
    }
    Ok(Outcome { text: table.render(), json: json!({ "rows": rows_json }), code })
}
