//! `nputwin spec list`.

use super::head_json;
use crate::output::{Outcome, Table};
use nputwin::Result;
use nputwin::spec::{Spec, embedded_names};
use serde_json::{Value, json};

pub fn execute() -> Result<Outcome> {
    let specs: Vec<Spec> = embedded_names().map(Spec::load).collect::<Result<_>>()?;
    let mut table = Table::new(&["target", "aliases", "evidence", "rules", "sha256", "title"]);
    for spec in &specs {
        table.row(vec![
            spec.name.clone(),
            spec.aliases.join(" "),
            spec.status().to_string(),
            spec.rules.len().to_string(),
            format!("{:.12}", spec.hash),
            spec.title.clone(),
        ]);
    }
    let json = json!(specs.iter().map(head_json).collect::<Vec<Value>>());
    Ok(Outcome::ok(table.render(), json))
}
