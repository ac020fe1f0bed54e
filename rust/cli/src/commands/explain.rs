//! `nputwin explain`: the trace of one element.

use crate::args::{ModelArgs, RunOptions};
use crate::inputs::InputArgs;
use crate::output::Outcome;
use nputwin::exec::Session;
use nputwin::tensor::{Tensor, strides};
use nputwin::{Error, Result};
use serde_json::json;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Target; may be given twice, to see both
    #[arg(long, short = 't', required = true)]
    target: Vec<String>,
    /// Tensor
    #[arg(long)]
    tensor: String,
    /// Element: a flat index or coordinates, in the order of the model's file
    #[arg(long, value_name = "I|N,C,H,W", default_value = "0")]
    index: String,
    /// Which inference of an input list
    #[arg(long, default_value_t = 0, value_name = "N")]
    sample: usize,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    options: RunOptions,
}

/// Runs it.
pub fn execute(args: Args) -> Result<Outcome> {
    let model = args.model.open()?;
    let mut graph = model.graph;
    args.inputs.apply_native(&mut graph);
    let mut explanations = Vec::new();
    for target in &args.target {
        let session = args.options.session(graph.clone(), target)?;
        let ports = session.inputs();
        let samples = args.inputs.samples(&ports)?;
        if args.sample >= samples.len() {
            return Err(Error::invalid("sample", format!("inference {} of {}", args.sample, samples.len())));
        }
        let feeds = samples.load(args.sample, &ports)?;
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let index = flat_index(&args.index, &session, &feeds, &args.tensor)?;
        explanations.push(session.explain(&feeds, &args.tensor, index)?);
    }
    let text = explanations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    Ok(Outcome::ok(text, json!(explanations)))
}

/// The flat index of an element. Coordinates need the tensor's shape, hence a run.
fn flat_index(text: &str, session: &Session, feeds: &[(&str, &Tensor)], name: &str) -> Result<usize> {
    let numbers: Vec<usize> = text
        .split(',')
        .map(|p| {
            p.trim().parse().map_err(|_| {
                Error::invalid("index_form", format!("'{text}' is no index")).help("for example 17, or 0,3,5,7")
            })
        })
        .collect::<Result<_>>()?;
    if let [flat] = numbers[..] {
        return Ok(flat);
    }
    let captured = session.run_with(feeds, true, &mut || Ok(()))?.captured;
    let found = captured.iter().find(|c| c.name == name || c.aliases.iter().any(|a| a == name));
    let found = found.ok_or_else(|| Error::invalid("tensor_unknown", "the run has no such tensor").at_tensor(name))?;
    let shape = found.value.shape();
    if shape.len() != numbers.len() || numbers.iter().zip(shape).any(|(i, d)| i >= d) {
        return Err(
            Error::invalid("index_range", format!("{numbers:?} is no element of shape {shape:?}")).at_tensor(name)
        );
    }
    Ok(numbers.iter().zip(strides(shape)).map(|(i, s)| i * s).sum())
}
