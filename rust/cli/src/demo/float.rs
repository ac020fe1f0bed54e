//! `nputwin demo --precision f16`: the same networks without encodings, in float16 against float32, by depth.
//!
//! The complaint says that float16 drifts apart, too. Here nothing is calibrated: what differs is the rounding of each
//! tensor.

use super::measure::EMULATION_F16;
use super::network::INPUT;
use super::{Args, Job};
use crate::Context;
use crate::files::{create_folder, write_bytes};
use crate::output::{self, Table};
use crate::progress;
use nputwin::exec::Session;
use nputwin::spec::Spec;
use nputwin::{Error, Result};
use serde::Serialize;
use std::fmt::Write as _;

/// The device at one depth.
#[derive(Debug, Clone, Serialize)]
struct Row {
    network: String,
    cumulative_add: bool,
    depth: usize,
    /// Mean of the squared differences.
    mse: f64,
    /// Mean of the absolute differences.
    l1: f64,
    /// Largest difference.
    largest: f64,
    /// Root of the mean square of the float32 output.
    rms: f64,
    /// Root of the mean squared difference over `rms`.
    relative: f64,
}

impl Row {
    fn of(job: &Job, depth: usize, exact: &[f32], device: &[f32]) -> Row {
        let (mut squares, mut sum, mut largest, mut power) = (0.0, 0.0, 0.0f64, 0.0);
        for (&e, &d) in exact.iter().zip(device) {
            let difference = f64::from(e) - f64::from(d);
            squares += difference * difference;
            sum += difference.abs();
            largest = largest.max(difference.abs());
            power += f64::from(e) * f64::from(e);
        }
        let count = exact.len().max(1) as f64;
        let (mse, rms) = (squares / count, (power / count).sqrt());
        Row {
            network: job.name.clone(),
            cumulative_add: job.network.cumulative_add,
            depth,
            mse,
            l1: sum / count,
            largest,
            rms,
            relative: if rms > 0.0 { mse.sqrt() / rms } else { 0.0 },
        }
    }
}

/// Runs all jobs and writes `demo.json`.
pub fn execute(args: &Args, jobs: &[Job], context: Context) -> Result<output::Outcome> {
    let device = args.options.spec(EMULATION_F16)?;
    let exact = Spec::load("float")?;
    create_folder(&args.output_dir)?;
    let bar = progress::bar(context, 2 * jobs.len(), "");
    let mut rows = Vec::new();
    for job in jobs {
        let deepest = job.reported.iter().copied().max().unwrap_or(1);
        let outputs: Vec<String> = job.reported.iter().map(|&d| job.network.output_name(d)).collect();
        let graph = job.network.graph(deepest, None, &outputs)?;
        let run = |spec: &Spec| {
            let result = Session::new(graph.clone(), spec.clone(), args.options.options())?.run(&[(INPUT, &job.input)]);
            bar.inc(1);
            result
        };
        let (exact, device) = (run(&exact)?, run(&device)?);
        for (i, &depth) in job.reported.iter().enumerate() {
            rows.push(Row::of(job, depth, exact.outputs[i].1.as_f32()?, device.outputs[i].1.as_f32()?));
        }
    }
    bar.finish_and_clear();
    let json = serde_json::json!({
        "tool": format!("nputwin {}", env!("CARGO_PKG_VERSION")),
        "reference": "float",
        "device": { "name": device.name, "hash": device.hash },
        "rows": rows,
    });
    let path = args.output_dir.join("demo.json");
    write_bytes(&path, format!("{json:#}\n").as_bytes())?;
    let mut text = format!("float32 (float) against float16 ({}), weights and inputs not quantized.\n\n", device.name);
    for (add, title) in [(true, "With the cumulative Add"), (false, "Without the cumulative Add")] {
        if rows.iter().any(|r| r.cumulative_add == add) {
            let _ = writeln!(text, "{title}\n{}", table(&rows, add));
        }
    }
    let _ = writeln!(
        text,
        "MSE and L1 grow with the output. The relative column divides by the output's root mean square: it says how many\n\
         of the 11 significant bits of float16 are left.\n\nNumbers: {}",
        path.display()
    );
    let json = serde_json::to_value(&json).map_err(|e| Error::invalid("json", e.to_string()))?;
    Ok(output::Outcome::ok(text, json))
}

fn table(rows: &[Row], add: bool) -> String {
    let mut table = Table::new(&["layers", "MSE", "L1", "largest", "output RMS", "relative"]);
    for row in rows.iter().filter(|r| r.cumulative_add == add) {
        let float = |v: f64| format!("{v:.3e}");
        table.row(vec![
            row.depth.to_string(),
            float(row.mse),
            float(row.l1),
            float(row.largest),
            float(row.rms),
            float(row.relative),
        ]);
    }
    table.render()
}
