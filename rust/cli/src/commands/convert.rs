//! `nputwin convert`: between versions of encodings files, between forms of quantized models, and from other formats to ONNX.

use crate::args::apply_encodings;
use crate::files::{create_folder, write_bytes};
use crate::output::Outcome;
use clap::ValueEnum;
use nputwin::encoding::file::{EncodingsFile, Entry, NamedEntry, ParamUse, Section, Version, WriteOptions};
use nputwin::graph::{Graph, TensorInfo};
use nputwin::{Error, Result, model, onnx};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Arguments of `convert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An .encodings file, or an ONNX or TFLite model
    input: PathBuf,
    /// What to write: .onnx for a quantized model, another file for encodings, a folder for a float model and its encodings
    #[arg(long, short = 'o', value_name = "FILE|DIR")]
    output: PathBuf,
    /// Encodings for an input model
    #[arg(long, short = 'e', value_name = "FILE")]
    encodings: Option<PathBuf>,
    /// Model of an encodings file: places the axes that versions 0.6.1 and 1.0.0 leave to it
    #[arg(long, short = 'm', value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Version of the encodings that are written; that of the input, 1.0.0 for ONNX and 2.0.0 for other models, where not given
    #[arg(long, value_name = "VERSION")]
    to_version: Option<String>,
    /// Form of the quantized model that is written; QDQ for one that was not ONNX, where not given
    #[arg(long, value_enum)]
    to: Option<ModelForm>,
    /// Write what the format can hold and say what is lost
    #[arg(long)]
    lossy: bool,
}

/// How a model carries its quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelForm {
    /// Pairs of QuantizeLinear and DequantizeLinear.
    Qdq,
    /// QLinear operators.
    Qlinear,
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

fn is_onnx(path: &Path) -> bool {
    has_extension(path, "onnx")
}

fn is_model(path: &Path) -> bool {
    is_onnx(path) || has_extension(path, "tflite")
}

/// Whether a path names a folder: one that exists, or a name that ends like a folder's.
fn is_folder(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().to_string_lossy().ends_with(std::path::is_separator)
}

/// Runs it.
pub fn execute(args: Args) -> Result<Outcome> {
    if is_folder(&args.output) {
        return model_to_folder(&args);
    }
    match (is_model(&args.input), is_onnx(&args.output)) {
        (true, true) => model_to_model(&args),
        (true, false) => model_to_encodings(&args),
        (false, false) => encodings_to_encodings(&args),
        (false, true) => Err(Error::invalid("convert_form", "an encodings file does not hold a model")
            .help("convert MODEL.onnx --encodings FILE --to qdq -o OUT.onnx")),
    }
}

fn write_encodings(
    args: &Args,
    output: &Path,
    file: &EncodingsFile,
    fallback: Version,
    remarks: &[String],
) -> Result<Outcome> {
    let version = args.to_version.as_deref().map(Version::parse).transpose()?.unwrap_or(fallback);
    let written = file.write(version, &WriteOptions { lossy: args.lossy }).map_err(|e| e.help("or pass --lossy"))?;
    write_bytes(output, written.text.as_bytes())?;
    let mut text = String::new();
    for remark in remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    for note in &written.notes {
        let tensor = note.tensor.as_deref().map_or(String::new(), |t| format!("{t}: "));
        let _ = writeln!(text, "note: {tensor}{}", note.message);
    }
    let count = file.entries().len();
    let _ = writeln!(text, "{count} entries as version {version} in {}", output.display());
    let json = json!({
        "output": output.display().to_string(),
        "version": version.text(),
        "entries": count,
        "notes": written.notes.iter().map(|n| json!({ "tensor": n.tensor, "message": n.message })).collect::<Vec<_>>(),
        "remarks": remarks,
    });
    Ok(Outcome::ok(text, json))
}

fn encodings_to_encodings(args: &Args) -> Result<Outcome> {
    if args.to.is_some() || args.encodings.is_some() {
        return Err(Error::invalid("convert_form", "--to and --encodings are for models"));
    }
    let mut file = EncodingsFile::read(&args.input)?;
    let mut remarks = Vec::new();
    if let Some(path) = &args.model {
        let graph = model::read(path)?;
        let uses = parameter_uses(&graph);
        let unresolved = file.resolve_axes(|name| uses.get(name).cloned())?;
        let constants: BTreeSet<&str> =
            graph.tensors.iter().filter(|t| t.constant.is_some()).map(|t| t.name.as_str()).collect();
        file.resolve_sections(|name| constants.contains(name));
        remarks.extend(unresolved.into_iter().map(|name| format!("{name}: the axis of its scales is not known")));
        let known = |name: &str| graph.find(name).is_some();
        let strangers = file.entries().iter().filter(|e| !known(&e.name));
        remarks.extend(strangers.map(|e| format!("{}: the model has no such tensor", e.name)));
    }
    let fallback = file.version;
    write_encodings(args, &args.output, &file, fallback, &remarks)
}

/// How the operators of a graph use its constants.
fn parameter_uses(graph: &Graph) -> HashMap<String, ParamUse> {
    let mut out = HashMap::new();
    for node in &graph.nodes {
        for (i, t) in node.inputs.iter().enumerate().filter_map(|(i, t)| Some((i, (*t)?))) {
            let info = &graph.tensors[t];
            let Some(constant) = &info.constant else { continue };
            let trans_b = matches!(node.int("transB", 0), Ok(1));
            if let Some(usage) = ParamUse::of_operator(&node.op_type, i, constant.shape(), trans_b) {
                let names = std::iter::once(&info.name).chain(&info.aliases);
                names.for_each(|n| {
                    out.entry(n.clone()).or_insert_with(|| usage.clone());
                });
            }
        }
    }
    out
}

fn open_model(args: &Args) -> Result<(Graph, Vec<String>)> {
    let mut graph = model::read(&args.input)?;
    let notes = match &args.encodings {
        Some(path) => apply_encodings(&mut graph, &EncodingsFile::read(path)?, args.lossy)?,
        None => Vec::new(),
    };
    Ok((graph, notes))
}

fn model_to_encodings(args: &Args) -> Result<Outcome> {
    if args.to.is_some() {
        return Err(Error::invalid("convert_form", "--to says the form of a model, and the output is none")
            .help("end the output's name with .onnx"));
    }
    let (graph, notes) = open_model(args)?;
    write_encodings(args, &args.output, &encodings_of(&graph.spelled_out()?)?, version_of(args), &notes)
}

/// The version of encodings that a model of the input's format has: 1.0.0 knows signed codes around zero only.
fn version_of(args: &Args) -> Version {
    if is_onnx(&args.input) { Version::V1_0_0 } else { Version::V2_0_0 }
}

/// The encodings of a graph's tensors.
fn encodings_of(graph: &Graph) -> Result<EncodingsFile> {
    let uses = parameter_uses(graph);
    let mut file = EncodingsFile::new(Version::V1_0_0);
    file.producer = json!({ "package": "nputwin", "version": env!("CARGO_PKG_VERSION") });
    for info in &graph.tensors {
        let Some(encoding) = &info.encoding else { continue };
        let section = if info.constant.is_some() { Section::Param } else { Section::Activation };
        let mut entry = NamedEntry::new(&info.name, section, Entry::Int((**encoding).clone()));
        if let Some(usage) = uses.get(&info.name) {
            entry.resolve(usage)?;
        }
        file.insert(entry)?;
    }
    if file.entries().is_empty() {
        return Err(Error::invalid("convert_empty", "no tensor of the model is quantized")
            .help("give --encodings, or calibrate the model"));
    }
    Ok(file)
}

/// Writes the float model and its encodings under the model's name.
fn model_to_folder(args: &Args) -> Result<Outcome> {
    if !is_model(&args.input) || args.to.is_some() {
        return Err(Error::invalid("convert_form", "a folder takes a float model and its encodings, from one model"));
    }
    let (graph, mut notes) = open_model(args)?;
    let graph = graph.spelled_out()?;
    let file = encodings_of(&graph)?;
    notes.extend(beyond_reals(&graph));
    create_folder(&args.output)?;
    let stem = args.input.file_stem().unwrap_or(args.input.as_os_str()).to_string_lossy();
    let named = |extension: &str| args.output.join(format!("{stem}.{extension}"));
    let model = named("onnx");
    onnx::write(&graph.without_encodings()?, &model)?;
    let mut outcome = write_encodings(args, &named("encodings"), &file, version_of(args), &notes)?;
    let _ = writeln!(outcome.text, "float model in {}", model.display());
    outcome.json["model"] = json!(model.display().to_string());
    Ok(outcome)
}

/// What to say of biases that lose integers as float32 reals.
fn beyond_reals(graph: &Graph) -> Vec<String> {
    const LARGEST: u64 = 1 << 22;
    let wide = |t: &&TensorInfo| t.encoding.as_ref().is_some_and(|e| e.bitwidth == 32);
    let codes = |t: &TensorInfo| t.codes.as_ref().and_then(|c| c.to_i64().ok()).unwrap_or_default();
    let lost = |t: &&TensorInfo| codes(t).iter().any(|c| c.unsigned_abs() >= LARGEST);
    let lost = graph.tensors.iter().filter(wide).filter(lost);
    lost.map(|t| format!("{}: integers of 23 bits and more are rounded in a float model; --to qdq keeps them", t.name))
        .collect()
}

fn model_to_model(args: &Args) -> Result<Outcome> {
    let form = args.to.or((!is_onnx(&args.input)).then_some(ModelForm::Qdq)).ok_or_else(|| {
        Error::invalid("convert_form", "which form shall the model have?").help("--to qdq or --to qlinear")
    })?;
    let (graph, notes) = open_model(args)?;
    let rounded = match form {
        ModelForm::Qdq => onnx::write(&graph, &args.output)?,
        ModelForm::Qlinear => onnx::write_qlinear(&graph, &args.output)?,
    };
    let mut remarks = notes;
    remarks.extend(rounded.into_iter().map(|name| format!("{name}: its scale was rounded to float32")));
    let mut text: String = remarks.iter().map(|r| format!("note: {r}\n")).collect();
    let _ = writeln!(text, "model in {}", args.output.display());
    let json = json!({
        "output": args.output.display().to_string(),
        "form": if form == ModelForm::Qdq { "qdq" } else { "qlinear" },
        "notes": remarks,
    });
    Ok(Outcome::ok(text, json))
}
