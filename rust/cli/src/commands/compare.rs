//! `nputwin compare`: two targets, or a target and tensors that were captured elsewhere.

use crate::Context;
use crate::args::{ModelArgs, RunOptions, assumed};
use crate::captured::CapturedLayout;
use crate::inputs::InputArgs;
use crate::output::{Outcome, Table, target_json};
use crate::progress;
use nputwin::Result;
use nputwin::diff::{Basis, Comparison, TensorDiff};
use nputwin::exec::{Captured, Session};
use nputwin::tensor::Tensor;
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Target under test
    #[arg(long, short = 't')]
    target: String,
    /// Target that is the reference
    #[arg(long, value_name = "TARGET", required_unless_present = "captured", conflicts_with = "captured")]
    with: Option<String>,
    /// Captured tensors that are the reference: an .npz, or a folder of .npy, .npz and raw files. With an input list, a
    /// folder of Result_N
    #[arg(long, value_name = "DIR|NPZ")]
    captured: Option<PathBuf>,
    /// Order of captured raw files of rank 3 and 4
    #[arg(long, value_enum, default_value = "nchw")]
    captured_layout: CapturedLayout,
    #[command(flatten)]
    inputs: InputArgs,
    /// Largest difference in quanta that is no mismatch
    #[arg(long, default_value_t = 0, value_name = "N")]
    tolerance: u64,
    /// Largest difference of tensors without an encoding that is no mismatch
    #[arg(long, default_value_t = 0.0, value_name = "REAL")]
    float_tolerance: f64,
    /// As --assume, for the reference
    #[arg(long, value_name = "RULE=ALTERNATIVE", requires = "with")]
    with_assume: Vec<String>,
    #[command(flatten)]
    options: RunOptions,
}

/// Runs it.
pub fn execute(args: Args, context: Context) -> Result<Outcome> {
    let model = args.model.open()?;
    let mut graph = model.graph;
    args.inputs.apply_native(&mut graph);
    let reference = match &args.with {
        Some(target) => Some(Session::new(graph.clone(), assumed(target, &args.with_assume)?, args.options.options())?),
        None => None,
    };
    let session = args.options.session(graph, &args.target)?;
    let ports = session.inputs();
    let samples = args.inputs.samples(&ports)?;
    let bar = progress::bar(context, samples.len(), "comparing");
    let mut comparison = Comparison::new();
    for sample in 0..samples.len() {
        let feeds = samples.load(sample, &ports)?;
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let left = session.run_with(&feeds, true, &mut || Ok(()))?.captured;
        let right: Vec<Captured> = match (&reference, &args.captured) {
            (Some(reference), _) => reference.run_with(&feeds, true, &mut || Ok(()))?.captured,
            (None, Some(path)) => {
                let path = if samples.is_list { path.join(format!("Result_{sample}")) } else { path.clone() };
                crate::captured::read(&path, &left, &session, args.captured_layout)?
            }
            (None, None) => Vec::new(),
        };
        comparison.add(&left, &right)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let diffs = comparison.finish();
    let beyond = |d: &TensorDiff| !d.within(args.tolerance, args.float_tolerance);
    let first = diffs.iter().find(|d| d.differing > 0).map(|d| d.name.clone());
    let mismatches: Vec<&str> = diffs.iter().filter(|d| beyond(d)).map(|d| d.name.as_str()).collect();
    let unpaired = comparison.unpaired();
    let reference_json = match (&reference, &args.captured) {
        (Some(session), _) => target_json(session.spec()),
        (None, path) => json!({ "captured": path.as_ref().map(|p| p.display().to_string()) }),
    };
    let json = json!({
        "target": target_json(session.spec()),
        "reference": reference_json,
        "samples": comparison.samples(),
        "tolerance": args.tolerance,
        "tensors": diffs,
        "first_differing": first,
        "mismatches": mismatches,
        "only_target": unpaired.left,
        "only_reference": unpaired.right,
    });
    let mut text = table(&diffs);
    for (names, which) in [(&unpaired.left, "target"), (&unpaired.right, "reference")] {
        if !names.is_empty() {
            let _ = writeln!(text, "only in the {which}: {}", names.join(", "));
        }
    }
    match &first {
        Some(name) => {
            let place = diffs.iter().find(|d| d.name == *name).and_then(|d| d.first);
            let at = place.map_or(String::new(), |f| {
                format!(" (sample {}, element {}: {} against {})", f.sample, f.index, f.left, f.right)
            });
            let _ = writeln!(text, "first differing tensor: {name}{at}");
        }
        None => text.push_str("no differences\n"),
    }
    let _ = writeln!(text, "{} of {} tensors beyond tolerance {}", mismatches.len(), diffs.len(), args.tolerance);
    let code = u8::from(!mismatches.is_empty());
    Ok(Outcome { text, json, code })
}

fn table(diffs: &[TensorDiff]) -> String {
    let head = ["tensor", "in", "elements", "exact", "off_by_n", "l1", "mse_quanta", "mse", "cosine", "sqnr_db"];
    let mut table = Table::new(&head);
    let mut found = false;
    for d in diffs {
        let optional = |v: Option<f64>, digits: usize| v.map_or("-".into(), |v| format!("{v:.digits$}"));
        let basis = match d.basis {
            Basis::Codes => "codes",
            Basis::Scaled => "scales",
            Basis::Reals => "reals",
        };
        table.row(vec![
            d.name.clone(),
            basis.into(),
            d.elements.to_string(),
            format!("{:.4}%", 100.0 * d.exact),
            d.off_by_n.map_or("-".into(), |n| n.to_string()),
            optional(d.l1_quanta, 4),
            optional(d.mse_quanta, 4),
            format!("{:.4e}", d.mse),
            format!("{:.6}", d.cosine),
            optional(d.sqnr_db, 2),
        ]);
        if d.differing > 0 && !found {
            table.mark();
            found = true;
        }
    }
    table.render()
}
