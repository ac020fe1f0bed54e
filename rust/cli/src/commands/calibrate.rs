//! `nputwin calibrate`: encodings from sample inputs.

use crate::Context;
use crate::args::{ModelArgs, bytes};
use crate::files::write_bytes;
use crate::inputs::InputArgs;
use crate::output::{Outcome, encoding_words};
use crate::progress;
use clap::ValueEnum;
use nputwin::encoding::Formula;
use nputwin::encoding::file::{Entry, Section, Version, WriteOptions};
use nputwin::exec::calibrate::{CalibrateOptions, Method, calibrate};
use nputwin::exec::check::check;
use nputwin::exec::{Options, Session};
use nputwin::graph::encodings::{ApplyOptions, apply};
use nputwin::spec::{Execution, Spec};
use nputwin::{Error, Result};
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Arguments of `calibrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// File to write
    #[arg(long, short = 'o', value_name = "FILE")]
    output: PathBuf,
    /// How the range of an activation is found
    #[arg(long, value_enum, default_value = "min-max")]
    method: MethodName,
    /// Share of the values that percentile keeps at each end, in percent, 50 to 100
    #[arg(long, default_value_t = 99.99, value_name = "P")]
    percentile: f64,
    /// How a range becomes scale and zero point
    #[arg(long, value_enum, default_value = "aimet-onnx")]
    formula: FormulaName,
    /// Target whose placement rules say which tensors have an encoding, and which grid
    #[arg(long, short = 't', default_value = "htp_v75")]
    target: String,
    /// Bits of activations, instead of the target's
    #[arg(long, value_name = "N")]
    act_bits: Option<u32>,
    /// Bits of weights, instead of the target's
    #[arg(long, value_name = "N")]
    weight_bits: Option<u32>,
    /// One scale per output channel of every weight, or of none, instead of what the target says
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    per_channel: Option<bool>,
    /// Version of the encodings format
    #[arg(long, default_value = "1.0.0", value_name = "VERSION")]
    version: String,
    /// Threads; 0 for as many as the machine has
    #[arg(long, short = 'j', default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Memory that the values of a run may take, such as 16GiB; without it, half of what the machine has available
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_memory: Option<u64>,
}

/// How the range of an activation is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// Smallest and largest value.
    MinMax,
    /// Without the outermost values.
    Percentile,
}

/// Whose formula makes a grid of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormulaName {
    /// AIMET for ONNX: double precision, half away.
    AimetOnnx,
    /// AIMET for torch: single precision, half even.
    AimetTorch,
    /// AIMET's C++ core of 2024: ranges are at least 0.01 wide.
    AimetCpp2024,
    /// TensorFlow Lite: the end with the smaller error gives the zero point.
    CloserEnd,
    /// nnlib: the range is nudged until zero is a code.
    NudgedRange,
}

impl FormulaName {
    fn formula(self) -> Formula {
        match self {
            FormulaName::AimetOnnx => Formula::AimetOnnx,
            FormulaName::AimetTorch => Formula::AimetTorch,
            FormulaName::AimetCpp2024 => Formula::AimetCpp2024,
            FormulaName::CloserEnd => Formula::CloserEnd,
            FormulaName::NudgedRange => Formula::NudgedRange,
        }
    }
}

/// Runs it.
pub fn execute(args: Args, context: Context) -> Result<Outcome> {
    if args.model.encodings.is_some() {
        return Err(Error::invalid("calibrate_encodings", "the model is calibrated without encodings")
            .help("leave --encodings away"));
    }
    let version = Version::parse(&args.version)?;
    let spec = Spec::load(&args.target)?;
    let model = args.model.open()?;
    let float = Spec { execution: Execution::Float, float: None, ..spec.clone() };
    let mut bare = model.graph.clone();
    bare.inputs.iter_mut().for_each(|p| p.quantized = false);
    let ports = Session::new(bare, float, Options { threads: 1, ..Options::default() })?.inputs();
    let samples = args.inputs.samples(&ports)?;
    let bar = progress::bar(context, samples.len(), "calibrating");
    let options = CalibrateOptions {
        method: match args.method {
            MethodName::MinMax => Method::MinMax,
            MethodName::Percentile => Method::Percentile(args.percentile),
        },
        formula: args.formula.formula(),
        activation_bits: args.act_bits,
        weight_bits: args.weight_bits,
        per_channel: args.per_channel,
        threads: args.threads,
        max_memory: args.max_memory,
        version,
    };
    let feeds = (0..samples.len()).map(|sample| {
        let feeds = samples.load(sample, &ports);
        bar.inc(1);
        feeds
    });
    let mut file = calibrate(&model.graph, &spec, feeds, &options)?;
    bar.finish_and_clear();
    file.producer = json!({ "package": "nputwin", "version": env!("CARGO_PKG_VERSION") });
    let written = file.write(version, &WriteOptions::default())?;
    write_bytes(&args.output, written.text.as_bytes())?;
    let count = |section: Section| file.entries().iter().filter(|e| e.section == section).count();
    let (activations, params) = (count(Section::Activation), count(Section::Param));
    let mut text = String::new();
    for entry in file.entries() {
        if let Entry::Int(encoding) = &entry.entry {
            let _ = writeln!(text, "{}: {}", entry.name, encoding_words(encoding));
        }
    }
    let _ = writeln!(
        text,
        "{activations} activations and {params} parameters from {} inference(s) in {}",
        samples.len(),
        args.output.display()
    );
    let mut graph = model.graph.clone();
    graph.tensors.iter_mut().for_each(|info| (info.encoding, info.codes) = (None, None));
    apply(&mut graph, &file, ApplyOptions::default())?;
    let findings = check(&graph, &spec);
    for finding in &findings {
        let _ = writeln!(text, "note: {} [{}]: {}", finding.place, finding.code, finding.message);
    }
    let json = json!({
        "output": args.output.display().to_string(),
        "version": version.text(),
        "target": spec.name,
        "samples": samples.len(),
        "activations": activations,
        "parameters": params,
        "findings": findings
            .iter()
            .map(|f| json!({ "code": f.code, "place": f.place, "message": f.message, "help": f.help }))
            .collect::<Vec<_>>(),
    });
    Ok(Outcome::ok(text, json))
}
