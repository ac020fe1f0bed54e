//! What commands give back, and how it reaches the terminal.

use nputwin::encoding::{Encoding, Granularity};
use nputwin::exec::{NodeReport, Report};
use nputwin::spec::{Evidence, Spec};
use nputwin::{Error, Location};
use serde_json::{Value, json};
use std::io::Write;

/// The result of a command, in both forms.
#[derive(Debug)]
pub struct Outcome {
    /// For people; ends with a line break, or is empty.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// Exit code.
    pub code: u8,
}

impl Outcome {
    /// Success.
    pub fn ok(text: String, json: Value) -> Outcome {
        Outcome { text, json, code: 0 }
    }
}

/// Prints an outcome to stdout. A reader that goes away is no error; any other failure to write is.
pub fn print(outcome: &Outcome, as_json: bool) -> u8 {
    let text = if as_json { format!("{:#}\n", outcome.json) } else { outcome.text.clone() };
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => print_error(&Error::io("stdout", &e), as_json),
        _ => outcome.code,
    }
}

/// Prints an error to stderr and gives its exit code.
pub fn print_error(error: &Error, as_json: bool) -> u8 {
    let text = if as_json { format!("{:#}\n", error_json(error)) } else { format!("{error}\n") };
    // Nobody is left to tell where stderr is closed.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    error.kind().exit_code()
}

/// Prints what clap has to say: help and version to stdout, mistakes to stderr.
pub fn print_usage(error: &clap::Error, as_json: bool) -> u8 {
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    if as_json && code != 0 {
        let message = error.render().to_string();
        let error = json!({ "kind": "usage", "code": "usage", "message": message.trim_end() });
        let _ = writeln!(std::io::stderr().lock(), "{error:#}");
    } else {
        let _ = error.print();
    }
    code
}

/// An error as JSON.
pub fn error_json(error: &Error) -> Value {
    let location = error.location().map(|location| match location {
        Location::File(path) => json!({ "file": path }),
        Location::Text { origin, text, span } => {
            let before = &text[..span.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            json!({ "file": origin, "line": line, "column": column, "span": [span.start, span.end] })
        }
        Location::Node { name, op_type } => json!({ "node": name, "op_type": op_type }),
        Location::Tensor { name, index } => json!({ "tensor": name, "index": index }),
    });
    json!({
        "kind": error.kind().label(),
        "code": error.code(),
        "message": error.message(),
        "location": location,
        "help": error.help_text(),
    })
}

/// An encoding as JSON.
pub fn encoding_json(encoding: &Encoding) -> Value {
    let (granularity, axis, block_size) = match encoding.granularity {
        Granularity::PerTensor => ("per_tensor", None, None),
        Granularity::PerChannel { axis } => ("per_channel", Some(axis), None),
        Granularity::PerBlock { axis, block_size } => ("per_block", Some(axis), Some(block_size)),
    };
    json!({
        "granularity": granularity,
        "axis": axis,
        "block_size": block_size,
        "bitwidth": encoding.bitwidth,
        "signed": encoding.signed,
        "symmetric": encoding.symmetric,
        "scale": encoding.scale,
        "zero_point": encoding.zero_point,
    })
}

/// An encoding in few words: `uint8 scale 0.0123 zero_point 128`.
pub fn encoding_words(encoding: &Encoding) -> String {
    let sign = if encoding.signed { "int" } else { "uint" };
    let grid = format!("{sign}{}", encoding.bitwidth);
    match encoding.granularity {
        Granularity::PerTensor => {
            format!("{grid} scale {} zero_point {}", encoding.scale[0], encoding.zero_point[0])
        }
        Granularity::PerChannel { axis } => format!("{grid} per channel, {} on axis {axis}", encoding.scale.len()),
        Granularity::PerBlock { axis, block_size } => format!("{grid} in blocks of {block_size} on axis {axis}"),
    }
}

/// A piece of evidence as JSON.
pub fn evidence_json(evidence: &Evidence) -> Value {
    json!({ "status": evidence.status.to_string(), "source": evidence.source, "note": evidence.note })
}

/// The target of a run as JSON.
pub fn target_json(spec: &Spec) -> Value {
    json!({
        "name": spec.name,
        "title": spec.title,
        "origin": spec.origin,
        "spec_sha256": spec.hash,
        "assumptions": spec.assumptions,
    })
}

/// How the nodes run, as JSON.
pub fn report_json(report: &Report) -> Value {
    let node = |n: &NodeReport| {
        json!({
            "name": n.name,
            "op_type": n.op_type,
            "mode": n.mode,
            "rule": n.rule,
            "evidence": n.evidence.as_ref().map(evidence_json),
        })
    };
    json!({
        "nodes": report.nodes.iter().map(node).collect::<Vec<_>>(),
        "notes": report.notes.iter().map(|n| json!({ "place": n.place, "text": n.text })).collect::<Vec<_>>(),
    })
}

/// A table whose columns are as wide as their widest cell. Numbers go right, words go left.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    marked: Vec<usize>,
}

impl Table {
    /// A table with a head.
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|s| s.to_string()).collect()], marked: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Puts an arrow before the latest row.
    pub fn mark(&mut self) {
        self.marked.push(self.rows.len() - 1);
    }

    /// The text, one line per row.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |c: usize| self.rows.iter().filter_map(move |r| r.get(c));
        let widths: Vec<usize> = (0..columns).map(|c| cells(c).map(|s| s.chars().count()).max().unwrap_or(0)).collect();
        let numeric: Vec<bool> = (0..columns)
            .map(|c| {
                cells(c).skip(1).all(|s| s.is_empty() || s == "-" || s.trim_end_matches('%').parse::<f64>().is_ok())
            })
            .collect();
        let mut out = String::new();
        for (i, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            if !self.marked.is_empty() {
                line.push_str(if self.marked.contains(&i) { "> " } else { "  " });
            }
            for (c, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[c] - cell.chars().count());
                match numeric[c] {
                    true => line.push_str(&format!("{pad}{cell}  ")),
                    false => line.push_str(&format!("{cell}{pad}  ")),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_marked_row_has_an_arrow() {
        let mut table = Table::new(&["name", "n"]);
        table.row(vec!["a".into(), "10".into()]);
        table.row(vec!["long".into(), "5".into()]);
        table.mark();
        assert_eq!(table.render(), "  name   n\n  a     10\n> long   5\n");
    }

    #[test]
    fn an_error_in_a_text_has_line_and_column() {
        let error =
            Error::invalid("x", "m").at(Location::Text { origin: "a".into(), text: "1\n23".into(), span: 3..4 });
        assert_eq!(error_json(&error)["location"]["line"], 2);
        assert_eq!(error_json(&error)["location"]["column"], 2);
    }
}
