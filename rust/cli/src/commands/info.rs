//! `nputwin info`: what a model is made of.

use crate::args::ModelArgs;
use crate::output::{Outcome, Table, encoding_json, encoding_words};
use nputwin::Result;
use nputwin::exec::cost::{self, Cost};
use nputwin::exec::{Options, PortInfo, Session};
use nputwin::graph::{Dim, Graph, TensorId};
use nputwin::spec::{Execution, Spec};
use nputwin::tensor::DType;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Arguments of `info`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Size of open dimensions
    #[arg(long, default_value_t = 1, value_name = "N")]
    batch: usize,
    /// Also list the multiply-accumulates of every node
    #[arg(long)]
    nodes: bool,
    /// Also list the encoding of every tensor
    #[arg(long)]
    tensors: bool,
}

/// Names of tensors with and without encoding.
struct Coverage<'a> {
    with: Vec<&'a str>,
    without: Vec<&'a str>,
}

/// Runs it.
pub fn execute(args: Args) -> Result<Outcome> {
    let model = args.model.open()?;
    let mut ops: BTreeMap<String, usize> = BTreeMap::new();
    for node in &model.graph.nodes {
        let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
        *ops.entry(format!("{domain}{}", node.op_type)).or_default() += 1;
    }
    let float = Spec { execution: Execution::Float, ..Spec::load("float")? };
    let session = Session::new(model.graph, float, Options { threads: 1, ..Options::default() })?;
    let graph = session.graph();
    let shapes: Result<Vec<Vec<usize>>> = Ok(session.inputs().iter().map(|p| concrete(p, args.batch)).collect());
    let cost = shapes.and_then(|shapes| cost::of_session(&session, shapes));
    let coverage = coverage(graph);
    let mut text = String::new();
    let mut json = model.provenance;
    let _ = writeln!(text, "model      {} [sha256 {:.12}]", args.model.model.display(), hash(&json, "model"));
    if args.model.encodings.is_some() {
        let _ = writeln!(text, "encodings  {} [sha256 {:.12}]", path(&json, "encodings"), hash(&json, "encodings"));
    }
    let opsets: Vec<String> = graph
        .opsets
        .iter()
        .map(|(domain, version)| format!("{} {version}", if domain.is_empty() { "ai.onnx" } else { domain }))
        .collect();
    let _ = writeln!(text, "opset      {}", opsets.join(", "));
    for (label, ports) in [("input", session.inputs()), ("output", session.outputs())] {
        for port in &ports {
            let _ = writeln!(text, "{label:<10} {}", port_words(port));
        }
    }
    let histogram: Vec<String> = ops.iter().map(|(op, n)| format!("{op} {n}")).collect();
    let _ = writeln!(text, "nodes      {}: {}", graph.nodes.len(), histogram.join(", "));
    match &cost {
        Ok(cost) => write_cost(&mut text, cost, args.nodes),
        Err(error) => {
            let _ = writeln!(text, "cost       unknown: {error}");
        }
    }
    let _ = writeln!(text, "encodings  {} tensors with, {} without", coverage.with.len(), coverage.without.len());
    if !coverage.with.is_empty() && !coverage.without.is_empty() {
        let _ = writeln!(text, "without    {}", coverage.without.join(", "));
    }
    for note in &model.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let encodings = graph.tensors.iter().filter_map(|t| Some((&t.name, t.encoding.as_deref()?)));
    if args.tensors {
        for (name, encoding) in encodings.clone() {
            let _ = writeln!(text, "  {name}: {}", encoding_words(encoding));
        }
    }
    if let Value::Object(map) = &mut json {
        map.insert("name".into(), json!(graph.name));
        map.insert("opsets".into(), json!(graph.opsets));
        map.insert("inputs".into(), Value::Array(session.inputs().iter().map(port_json).collect()));
        map.insert("outputs".into(), Value::Array(session.outputs().iter().map(port_json).collect()));
        map.insert("ops".into(), json!(ops));
        map.insert("macs".into(), json!(cost.as_ref().ok().map(total_macs)));
        map.insert("cost".into(), json!(cost.as_ref().ok()));
        map.insert("cost_error".into(), json!(cost.as_ref().err().map(crate::output::error_json)));
        let entries: serde_json::Map<String, Value> =
            encodings.map(|(name, encoding)| (name.clone(), encoding_json(encoding))).collect();
        map.insert("tensor_encodings".into(), Value::Object(entries));
        map.insert("without_encoding".into(), json!(coverage.without));
        map.insert("notes".into(), json!(model.notes));
    }
    Ok(Outcome::ok(text, json))
}

fn total_macs(cost: &Cost) -> u64 {
    cost.nodes.iter().map(|n| n.macs).sum()
}

fn write_cost(text: &mut String, cost: &Cost, nodes: bool) {
    let _ = writeln!(text, "parameters {}", cost.parameters);
    let _ = writeln!(text, "MACs       {}", total_macs(cost));
    let _ = writeln!(
        text,
        "memory     weights {} bytes as in the file, {} quantized; activations {} bytes at the peak",
        cost.weight_bytes, cost.quantized_weight_bytes, cost.peak_activation_bytes
    );
    if nodes {
        let mut table = Table::new(&["node", "op", "macs", "output elements"]);
        for node in &cost.nodes {
            table.row(vec![
                node.name.clone(),
                node.op_type.clone(),
                node.macs.to_string(),
                node.output_elements.to_string(),
            ]);
        }
        text.push_str(&table.render());
    }
}

fn concrete(port: &PortInfo, batch: usize) -> Vec<usize> {
    port.shape.iter().flatten().map(|d| if let Dim::Fixed(n) = d { *n } else { batch }).collect()
}

/// Float tensors that nodes read or write.
fn coverage(graph: &Graph) -> Coverage<'_> {
    let mut seen: BTreeSet<TensorId> = BTreeSet::new();
    let inputs = graph.inputs.iter().map(|p| p.tensor);
    let nodes = graph.nodes.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs).flatten().copied());
    let order: Vec<TensorId> = inputs.chain(nodes).filter(|t| seen.insert(*t)).collect();
    let mut out = Coverage { with: Vec::new(), without: Vec::new() };
    for info in order.into_iter().map(|t| &graph.tensors[t]) {
        match &info.encoding {
            Some(_) => out.with.push(&info.name),
            None if info.dtype.is_none_or(DType::is_float) => out.without.push(&info.name),
            None => {}
        }
    }
    out
}

fn shape_words(port: &PortInfo) -> String {
    let Some(dims) = &port.shape else { return "unknown shape".into() };
    let dims: Vec<String> = dims
        .iter()
        .map(|d| match d {
            Dim::Fixed(n) => n.to_string(),
            Dim::Symbol(s) if s.is_empty() => "?".into(),
            Dim::Symbol(s) => s.clone(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

fn port_words(port: &PortInfo) -> String {
    let encoding = port.encoding.as_deref().map_or(String::new(), |e| format!(", {}", encoding_words(e)));
    format!("{} {} {}{encoding}", port.name, port.dtype, shape_words(port))
}

fn port_json(port: &PortInfo) -> Value {
    let dim = |d: &Dim| match d {
        Dim::Fixed(n) => json!(n),
        Dim::Symbol(s) => json!(s),
    };
    json!({
        "name": port.name,
        "dtype": port.dtype.name(),
        "shape": port.shape.as_ref().map(|s| s.iter().map(dim).collect::<Vec<_>>()),
        "encoding": port.encoding.as_deref().map(encoding_json),
    })
}

fn hash<'a>(provenance: &'a Value, key: &str) -> &'a str {
    provenance[key]["sha256"].as_str().unwrap_or_default()
}

fn path<'a>(provenance: &'a Value, key: &str) -> &'a str {
    provenance[key]["path"].as_str().unwrap_or_default()
}
