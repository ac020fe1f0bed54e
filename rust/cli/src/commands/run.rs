//! `nputwin run`: runs a model and writes its outputs.

use super::stream;
use crate::Context;
use crate::args::{ModelArgs, RunOptions};
use crate::files::{Stems, create_folder, file_stem, write_atomic, write_bytes};
use crate::inputs::{InputArgs, Samples};
use crate::output::{Outcome, Table, encoding_json, report_json, target_json};
use crate::progress;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use nputwin::arrays::{Format, NpzWriter, encode_npy, encode_raw};
use nputwin::exec::{Captured, PortInfo, Report, RunResult, Session, check_threads};
use nputwin::tensor::Tensor;
use nputwin::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Target: a name (see `spec list`) or a TOML file
    #[arg(long, short = 't')]
    target: String,
    #[command(flatten)]
    inputs: InputArgs,
    /// Folder for the outputs; with an input list, each inference has its own Result_N in it
    #[arg(long, short = 'o', default_value = "output", value_name = "DIR")]
    output_dir: PathBuf,
    /// Also write every tensor between the layers, as integers and as floats
    #[arg(long)]
    dump_all: bool,
    /// Outputs with an encoding are written as codes, not as reals
    #[arg(long)]
    native_output: bool,
    /// Format of the outputs; raw for input lists and npy otherwise, where not given
    #[arg(long, value_parser = PossibleValuesParser::new(["npy", "npz", "raw"]).try_map(|v| Format::from_name(&v).ok_or("no format")))]
    format: Option<Format>,
    #[command(flatten)]
    options: RunOptions,
}

/// Runs it.
pub fn execute(args: Args, context: Context) -> Result<Outcome> {
    let model = args.model.open()?;
    let mut graph = model.graph;
    args.inputs.apply_native(&mut graph);
    if args.native_output {
        for port in &mut graph.outputs {
            port.quantized = graph.tensors[port.tensor].encoding.is_some();
        }
    }
    // The inferences of a list run side by side; a single one has all threads for itself.
    let is_list = args.inputs.input_list.is_some();
    let mut options = args.options;
    let workers = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => check_threads(threads)?,
    };
    if is_list {
        options.threads = 1;
    }
    let session = options.session(graph, &args.target)?;
    let ports = session.inputs();
    let samples = args.inputs.samples(&ports)?;
    check_wanted(&samples, &session)?;
    let writer = Writer {
        outputs: session.outputs(),
        format: args.format.unwrap_or(if samples.is_list { Format::Raw } else { Format::Npy }),
        dump_all: args.dump_all,
        wanted: &samples.wanted,
    };
    if samples.len() == 0 {
        return Err(Error::invalid("input_none", "no inference was asked for"));
    }
    let bar = progress::bar(context, samples.len(), "running");
    let compute = |sample: usize, folder: Option<&str>| {
        let feeds = samples.load(sample, &ports)?;
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let result = session.run_with(&feeds, args.dump_all || !samples.wanted.is_empty(), &mut || Ok(()))?;
        let directory = folder.map_or(args.output_dir.clone(), |f| args.output_dir.join(f));
        writer.write(&directory, folder, &result)
    };
    let results = if is_list {
        let identity = json!({
            "tool": env!("CARGO_PKG_VERSION"),
            "target": target_json(session.spec()),
            "model": model.provenance["model"]["sha256"],
            "encodings": model.provenance["encodings"]["sha256"],
            "native": [args.inputs.native_input, args.native_output],
            "format": writer.format.extension(),
            "tensors": [json!(args.dump_all), json!(samples.wanted)],
            "shapes": args.inputs.shape,
        });
        stream::run_all(&samples, &args.output_dir, &identity, workers, &|s, f| compute(s, Some(f)), &|| bar.inc(1))?
    } else {
        let mut entry = compute(0, None)?;
        entry.insert("inputs".into(), samples.provenance(0)?);
        vec![Value::Object(entry)]
    };
    bar.finish_and_clear();
    let first = samples.load(0, &ports)?;
    let first: Vec<(&str, &Tensor)> = first.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let report = session.report(shapes(&ports, &first)?)?;
    let mut manifest = json!({
        "tool": { "name": "nputwin", "version": env!("CARGO_PKG_VERSION") },
        "target": target_json(session.spec()),
    });
    if let (Value::Object(manifest), Value::Object(provenance)) = (&mut manifest, model.provenance) {
        manifest.extend(provenance);
        manifest.insert("encodings_notes".into(), json!(model.notes));
        manifest.insert("evidence_status".into(), json!(status(&report)));
        manifest.insert("report".into(), report_json(&report));
        manifest.insert("results".into(), Value::Array(results));
    }
    let text = format!("{manifest:#}\n");
    write_bytes(&args.output_dir.join("manifest.json"), text.as_bytes())?;
    let text = summary(&session, &report, &args.output_dir, samples.len());
    Ok(Outcome::ok(text, manifest))
}

/// Shapes of the feeds, in the order of the inputs.
pub fn shapes(ports: &[PortInfo], feeds: &[(&str, &Tensor)]) -> Result<Vec<Vec<usize>>> {
    ports
        .iter()
        .map(|port| {
            let feed = feeds.iter().find(|(name, _)| *name == port.name);
            feed.map(|(_, tensor)| tensor.shape().to_vec())
                .ok_or_else(|| Error::invalid("feed_missing", format!("no value for input '{}'", port.name)))
        })
        .collect()
}

fn check_wanted(samples: &Samples, session: &Session) -> Result<()> {
    match samples.wanted.iter().find(|name| session.graph().find(name).is_none()) {
        Some(name) => Err(Error::invalid("tensor_unknown", format!("the input list asks for '{name}'"))
            .at_tensor(name)
            .help("lines with % name tensors of the model")),
        None => Ok(()),
    }
}

struct Writer<'a> {
    outputs: Vec<PortInfo>,
    format: Format,
    dump_all: bool,
    wanted: &'a [String],
}

impl Writer<'_> {
    /// Writes the outputs of one inference and says what lies where.
    fn write(&self, directory: &Path, folder: Option<&str>, result: &RunResult) -> Result<Map<String, Value>> {
        create_folder(directory)?;
        let asked = result.captured.iter().filter(|c| {
            let named = |w: &String| *w == c.name || c.aliases.contains(w);
            self.wanted.iter().any(named) && result.outputs.iter().all(|(n, _)| *n != c.name)
        });
        let tensors: Vec<(&str, &Tensor)> = result
            .outputs
            .iter()
            .map(|(n, t)| (n.as_str(), t))
            .chain(asked.map(|c| (c.name.as_str(), &c.value)))
            .collect();
        let relative = |file: &str| folder.map_or(file.to_string(), |f| format!("{f}/{file}"));
        let mut stems = Stems::default();
        let mut described = Map::new();
        for (name, tensor) in &tensors {
            let file = match self.format {
                Format::Npz => "outputs.npz".to_string(),
                format => format!("{}.{}", stems.take(name), format.extension()),
            };
            let path = directory.join(&file);
            match self.format {
                Format::Npy => write_bytes(&path, &encode_npy(tensor))?,
                Format::Raw => write_bytes(&path, &encode_raw(tensor))?,
                Format::Npz => {}
            }
            let encoding = self.outputs.iter().find(|p| p.name == *name).and_then(|p| p.encoding.as_deref());
            described.insert(
                name.to_string(),
                json!({
                    "file": relative(&file),
                    "dtype": tensor.dtype().name(),
                    "shape": tensor.shape(),
                    "encoding": encoding.map(encoding_json),
                }),
            );
        }
        if self.format == Format::Npz {
            write_npz(&directory.join("outputs.npz"), tensors.into_iter())?;
        }
        let mut entry = Map::new();
        entry.insert("outputs".into(), Value::Object(described));
        if self.dump_all {
            entry.insert("tensors".into(), self.dump(directory, &relative, &result.captured)?);
        }
        Ok(entry)
    }

    /// Writes every captured tensor: reals in one archive, codes in another, under the tensors' own names.
    fn dump(&self, directory: &Path, relative: &dyn Fn(&str) -> String, captured: &[Captured]) -> Result<Value> {
        const REALS: &str = "tensors.float.npz";
        const CODES: &str = "tensors.int.npz";
        let mut keys = Keys::default();
        let keyed: Vec<(String, &Captured)> = captured.iter().map(|c| (keys.take(&c.name), c)).collect();
        write_npz(&directory.join(REALS), keyed.iter().map(|(k, c)| (k.as_str(), &c.value)))?;
        let codes = keyed.iter().filter_map(|(k, c)| Some((k.as_str(), c.codes.as_ref()?)));
        write_npz(&directory.join(CODES), codes)?;
        let entries = keyed.iter().map(|(key, c)| {
            json!({
                "name": c.name,
                "aliases": c.aliases,
                "key": key,
                "dtype": c.value.dtype().name(),
                "shape": c.value.shape(),
                "codes": c.codes.as_ref().map(|t| t.dtype().name()),
                "encoding": c.encoding.as_deref().map(encoding_json),
            })
        });
        Ok(json!({ "float": relative(REALS), "int": relative(CODES), "entries": entries.collect::<Vec<_>>() }))
    }
}

/// Names of arrays in an archive: the tensors' own, unless unpacking the archive could leave its folder.
#[derive(Default)]
struct Keys(Stems);

impl Keys {
    fn take(&mut self, name: &str) -> String {
        let unsafe_path = name.split(['/', '\\']).any(|part| part == "..") || name.contains(['\0', ':']);
        if unsafe_path || name.is_empty() { self.0.take(&format!("_{}", file_stem(name))) } else { name.to_string() }
    }
}

fn write_npz<'a>(path: &Path, tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<()> {
    write_atomic(path, |file| {
        let mut npz = NpzWriter::new(file);
        for (name, tensor) in tensors {
            npz.add(name, tensor)?;
        }
        npz.finish()
    })
}

fn summary(session: &Session, report: &Report, directory: &Path, inferences: usize) -> String {
    let spec = session.spec();
    let mut text = format!("{inferences} inference(s) under {} [spec {:.12}]\n", spec.name, spec.hash);
    text.push_str(&evidence(report));
    let _ = writeln!(text, "outputs and manifest.json in {}", directory.display());
    text
}

/// Which rules were used, and how well they are known.
pub fn evidence(report: &Report) -> String {
    let mut rules: BTreeMap<(String, String, &str), usize> = BTreeMap::new();
    for node in &report.nodes {
        let status = node.evidence.as_ref().map_or("-".into(), |e| e.status.to_string());
        let rule = node.rule.clone().unwrap_or_else(|| format!("({})", node.op_type));
        *rules.entry((rule, status, node.mode)).or_default() += 1;
    }
    let mut table = Table::new(&["rule", "mode", "evidence", "nodes"]);
    for ((rule, status, mode), count) in rules {
        table.row(vec![rule, mode.to_string(), status, count.to_string()]);
    }
    let mut text = table.render();
    for note in &report.notes {
        let _ = writeln!(text, "note: {}: {}", note.place, note.text);
    }
    let _ = match status(report) {
        Some(status) => writeln!(text, "weakest evidence among the rules used: {status}"),
        None => writeln!(text, "no node used a rule of the target: operators have ONNX's own meaning, in float"),
    };
    text
}

/// The weakest evidence among the rules that nodes use; `None` where they use none.
fn status(report: &Report) -> Option<String> {
    let used = report.nodes.iter().any(|n| n.evidence.is_some());
    used.then(|| report.status.to_string())
}
