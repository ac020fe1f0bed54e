//! Encodings from an `.encodings` file onto the tensors of a graph.

use super::{Graph, TensorId};
use crate::encoding::file::{AxisEvidence, EncodingsFile, Entry, FloatKind, ParamUse};
use crate::error::{Error, Result};
use std::sync::Arc;

/// What [`apply`] puts up with.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApplyOptions {
    /// Whether entries may name tensors that the graph does not have.
    pub allow_unmatched: bool,
}

/// What an encodings file and a graph have in common, and what not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Number of tensors that got an encoding.
    pub applied: usize,
    /// Entries that name no tensor of the graph.
    pub unmatched: Vec<String>,
    /// Float tensors of the graph for which the file has no entry, in the order of the graph.
    pub without_entry: Vec<String>,
    /// Tensors that the file keeps in a float type.
    pub float: Vec<(String, FloatKind)>,
    /// Tensors whose scales the file puts on another axis than the operator implies. The file's axis is applied.
    pub contradicted_axis: Vec<String>,
}

impl Report {
    /// What a user should look at, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let float: Vec<String> = self.float.iter().map(|(name, _)| name.clone()).collect();
        [
            (&self.unmatched, "entries name no tensor of the model"),
            (&self.contradicted_axis, "tensors have their scales on another axis than their operator implies"),
            (&float, "tensors stay in a float format"),
            (&self.without_entry, "tensors have no entry"),
        ]
        .into_iter()
        .filter(|(names, _)| !names.is_empty())
        .map(|(names, what)| format!("{} {what}: {}", names.len(), names.join(", ")))
        .collect()
    }
}

/// Sets the encoding of every tensor that `file` names. Tensors are found by name and by alias; axes that the file leaves
/// out follow from the operator that reads the tensor.
///
/// # Errors
/// `encodings_unmatched` for entries without a tensor (unless allowed); `encodings_axis` where no operator gives the axis;
/// `encodings_shape` and `encoding_shape` where scales do not fit; `encodings_conflict` where two entries, or an entry and
/// the model itself, quantize one tensor differently.
pub fn apply(graph: &mut Graph, file: &EncodingsFile, options: ApplyOptions) -> Result<Report> {
    let mut report = Report::default();
    let mut named = vec![false; graph.tensors.len()];
    let uses = parameter_uses(graph);
    for entry in file.entries() {
        let Some(t) = graph.find(&entry.name) else {
            report.unmatched.push(entry.name.clone());
            continue;
        };
        named[t] = true;
        let mut entry = entry.clone();
        if let Some(usage) = &uses[t] {
            entry.resolve(usage)?;
            if entry.axis_evidence() == AxisEvidence::Contradicted {
                report.contradicted_axis.push(entry.name.clone());
            }
        }
        let encoding = match entry.entry {
            Entry::Int(encoding) => encoding,
            Entry::Float(kind) => {
                let info = &mut graph.tensors[t];
                if info.encoding.is_some() {
                    let message = format!("the entry '{}' keeps in float what the model quantizes", entry.name);
                    return Err(Error::invalid("encodings_conflict", message).at_tensor(&info.name));
                }
                info.float = Some(kind.format());
                report.float.push((entry.name, kind));
                continue;
            }
            Entry::Unplaced(_) => {
                return Err(Error::invalid(
                    "encodings_axis",
                    "no operator that reads the tensor has an axis of channels",
                )
                .at_tensor(&entry.name));
            }
        };
        let info = &mut graph.tensors[t];
        if let Some(constant) = &info.constant {
            encoding.validate_shape(constant.shape()).map_err(|e| e.at_tensor(&entry.name))?;
        }
        match &info.encoding {
            Some(known) if !known.same_grid(&encoding) => {
                let message = format!("the entry '{}' differs from what quantizes the tensor already", entry.name);
                return Err(Error::invalid("encodings_conflict", message)
                    .at_tensor(&info.name)
                    .help("a model that holds its own quantization needs no encodings file"));
            }
            Some(_) => {}
            None => {
                info.encoding = Some(Arc::new(encoding));
                report.applied += 1;
            }
        }
    }
    if let Some(first) = report.unmatched.first().filter(|_| !options.allow_unmatched) {
        let message = format!(
            "{} entries name tensors that the model does not have: {}",
            report.unmatched.len(),
            listed(&report.unmatched)
        );
        return Err(Error::invalid("encodings_unmatched", message).help(nearest(graph, first)));
    }
    let float = |t: TensorId| {
        let info = &graph.tensors[t];
        info.dtype.or(info.constant.as_ref().map(|c| c.dtype())).is_none_or(|d| d.is_float())
    };
    report.without_entry =
        (0..named.len()).filter(|&t| !named[t] && float(t)).map(|t| graph.tensors[t].name.clone()).collect();
    Ok(report)
}

/// For each constant, the axes that the first operator with an opinion gives it.
fn parameter_uses(graph: &Graph) -> Vec<Option<ParamUse>> {
    let mut uses = vec![None; graph.tensors.len()];
    for node in &graph.nodes {
        let transposed = node.int("transB", 0).is_ok_and(|v| v != 0);
        for (slot, t) in node.inputs.iter().enumerate().filter_map(|(i, t)| t.map(|t| (i, t))) {
            if let (None, Some(constant)) = (&uses[t], &graph.tensors[t].constant) {
                uses[t] = ParamUse::of_operator(&node.op_type, slot, constant.shape(), transposed);
            }
        }
    }
    uses
}

fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(5).map(|n| format!("'{n}'")).collect();
    let more = names.len() - shown.len();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// A help line with the tensors whose names resemble `name` most.
fn nearest(graph: &Graph, name: &str) -> String {
    let names = graph.tensors.iter().flat_map(|t| std::iter::once(&t.name).chain(&t.aliases));
    let mut near: Vec<_> = names.map(|n| (distance(n, name), n)).collect();
    near.sort();
    let near: Vec<_> = near.iter().take(3).map(|(_, n)| format!("'{n}'")).collect();
    format!("the nearest names to '{name}' are {}", near.join(", "))
}

/// Number of single-byte edits that turn `a` into `b`; names are cut at 128 bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(128)], &b.as_bytes()[..b.len().min(128)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Encoding;
    use crate::encoding::file::{NamedEntry, Section, Version};
    use crate::graph::TensorInfo;

    fn file(entries: &[(&str, f64)]) -> EncodingsFile {
        let mut file = EncodingsFile::new(Version::V1_0_0);
        for (name, scale) in entries {
            let encoding = Encoding::per_tensor(*scale, 0, 8, false).unwrap();
            file.insert(NamedEntry::new(*name, Section::Activation, Entry::Int(encoding))).unwrap();
        }
        file
    }

    fn graph() -> Graph {
        let mut graph = Graph::default();
        graph.add_tensor(TensorInfo {
            name: "conv_out".into(),
            aliases: vec!["conv_q".into()],
            ..TensorInfo::default()
        });
        graph.add_tensor(TensorInfo { name: "relu_out".into(), ..TensorInfo::default() });
        graph
    }

    #[test]
    fn entries_find_tensors_by_name_and_alias() {
        let mut graph = graph();
        let report = apply(&mut graph, &file(&[("conv_q", 0.5), ("conv_out", 0.5)]), ApplyOptions::default()).unwrap();
        assert_eq!((report.applied, report.without_entry), (1, vec!["relu_out".to_string()]));
        assert_eq!(graph.tensors[0].encoding.as_ref().unwrap().scale, [0.5]);
        let error = apply(&mut graph, &file(&[("conv_out", 0.25)]), ApplyOptions::default()).unwrap_err();
        assert_eq!(error.code(), "encodings_conflict");
    }

    #[test]
    fn entries_without_a_tensor_are_named_with_their_neighbours() {
        let error = apply(&mut graph(), &file(&[("relu_0ut", 0.5)]), ApplyOptions::default()).unwrap_err();
        assert_eq!(error.code(), "encodings_unmatched");
        assert!(error.help_text().unwrap().contains("'relu_0ut' are 'relu_out'"), "{error}");
        let report = apply(&mut graph(), &file(&[("relu_0ut", 0.5)]), ApplyOptions { allow_unmatched: true }).unwrap();
        assert_eq!(report.unmatched, ["relu_0ut"]);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
