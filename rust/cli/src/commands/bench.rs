//! `nputwin bench`: latency, and where the time goes.

use crate::Context;
use crate::args::{ModelArgs, RunOptions};
use crate::output::{Outcome, Table, target_json};
use crate::progress;
use clap::builder::PossibleValuesParser;
use nputwin::exec::{Options, PortInfo, Session, cost};
use nputwin::graph::Dim;
use nputwin::program::Evaluator;
use nputwin::tensor::{DType, Data, Tensor, element_count};
use nputwin::{Error, Result};
use serde_json::json;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Rows of the profile that the text shows.
const SHOWN_STEPS: usize = 20;

/// Most runs whose steps are timed; the profile has the best time of each step.
const PROFILES: u32 = 10;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Target: a name (see `spec list`) or a TOML file
    #[arg(long, short = 't')]
    target: String,
    /// Timed runs
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Runs before the timed ones
    #[arg(long, default_value_t = 3, value_name = "N")]
    warmup: u32,
    /// Size of open dimensions
    #[arg(long, default_value_t = 1, value_name = "N")]
    batch: usize,
    /// How programs are computed: vector code, the tile executor alone, or the reference; all give the same bits
    #[arg(long, default_value = "fast", value_parser = PossibleValuesParser::new(["fast", "tile", "reference"]))]
    evaluator: String,
    /// Give every operator a step of its own, also where it could run in the step before it
    #[arg(long)]
    apart: bool,
    #[command(flatten)]
    options: RunOptions,
}

/// Runs it.
pub fn execute(args: Args, context: Context) -> Result<Outcome> {
    let model = args.model.open()?;
    let evaluator = match args.evaluator.as_str() {
        "tile" => Evaluator::Tile,
        "reference" => Evaluator::Reference,
        _ => Evaluator::Fast,
    };
    let options = Options { evaluator, apart: args.apart, ..args.options.options() };
    let session = Session::new(model.graph, args.options.spec(&args.target)?, options)?;
    let ports = session.inputs();
    if args.batch != 1 && ports.iter().all(|p| p.shape.iter().flatten().all(|d| matches!(d, Dim::Fixed(_)))) {
        return Err(Error::invalid("batch_fixed", "no dimension of the model's inputs is open")
            .help("export the model with a dynamic batch, or leave --batch away"));
    }
    let feeds: Vec<(String, Tensor)> =
        ports.iter().map(|p| Ok((p.name.clone(), synthetic(p, args.batch)?))).collect::<Result<_>>()?;
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let bar = progress::bar(context, (args.warmup + args.runs) as usize, "measuring");
    let prepared = Instant::now();
    session.run(&feeds)?;
    let prepare = prepared.elapsed();
    for _ in 0..args.warmup {
        session.run(&feeds)?;
        bar.inc(1);
    }
    let mut times = Vec::new();
    for _ in 0..args.runs {
        let started = Instant::now();
        session.run(&feeds)?;
        times.push(started.elapsed());
        bar.inc(1);
    }
    bar.finish_and_clear();
    times.sort();
    let median = times[times.len() / 2];
    let shapes: Vec<Vec<usize>> = feeds.iter().map(|(_, t)| t.shape().to_vec()).collect();
    let macs: u64 = cost::of_session(&session, shapes)?.nodes.iter().map(|n| n.macs).sum();
    let mut profile = session.profile(&feeds)?;
    for _ in 1..args.runs.min(PROFILES) {
        for (best, step) in profile.iter_mut().zip(session.profile(&feeds)?) {
            best.time = best.time.min(step.time);
        }
    }
    Ok(describe(&session, &times, median, prepare, macs, &profile, args.batch))
}

fn describe(
    session: &Session,
    times: &[Duration],
    median: Duration,
    prepare: Duration,
    macs: u64,
    profile: &[nputwin::exec::Profile],
    batch: usize,
) -> Outcome {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let rate = macs as f64 / median.as_secs_f64() / 1e9;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} on {} thread(s), batch {batch}: median {:.3} ms, min {:.3} ms, {} runs",
        session.spec().name,
        session.threads(),
        ms(median),
        ms(times[0]),
        times.len()
    );
    let _ = writeln!(text, "first run with preparation {:.1} ms, {rate:.1} GMAC/s", ms(prepare));
    let total: f64 = profile.iter().map(|p| ms(p.time)).sum();
    let mut slowest: Vec<&nputwin::exec::Profile> = profile.iter().collect();
    slowest.sort_by_key(|p| std::cmp::Reverse(p.time));
    let mut table = Table::new(&["step", "ms", "share"]);
    for step in slowest.iter().take(SHOWN_STEPS) {
        let share = 100.0 * ms(step.time) / total.max(f64::MIN_POSITIVE);
        table.row(vec![step.label.clone(), format!("{:.3}", ms(step.time)), format!("{share:.1}%")]);
    }
    text.push_str(&table.render());
    if slowest.len() > SHOWN_STEPS {
        let _ = writeln!(text, "and {} faster steps", slowest.len() - SHOWN_STEPS);
    }
    let json = json!({
        "target": target_json(session.spec()),
        "threads": session.threads(),
        "batch": batch,
        "runs": times.len(),
        "median_ms": ms(median),
        "min_ms": ms(times[0]),
        "first_run_ms": ms(prepare),
        "macs": macs,
        "gmac_per_s": rate,
        "steps": profile.iter().map(|p| json!({ "label": p.label, "ms": ms(p.time) })).collect::<Vec<_>>(),
    });
    Outcome::ok(text, json)
}

/// Values of an input: uniform over the range of its encoding, or over -1 to 1; zeros for indices. Always the same.
fn synthetic(port: &PortInfo, batch: usize) -> Result<Tensor> {
    let dims = port
        .shape
        .as_ref()
        .ok_or_else(|| Error::invalid("input_shape", "the file gives no shape").at_tensor(&port.name))?;
    let shape: Vec<usize> = dims.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { batch }).collect();
    let count = element_count(&shape)?;
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    if let (Some(encoding), false) = (&port.encoding, port.dtype.is_float()) {
        let (lo, hi) = (encoding.qmin() as f64, encoding.qmax() as f64);
        let codes = (0..count).map(|_| (lo + uniform() * (hi - lo)).round() as i32).collect();
        return encoding.codes_to_tensor(&shape, codes);
    }
    let (lo, hi) = port.encoding.as_ref().map_or((-1.0, 1.0), |e| (e.min(), e.max()));
    let mut reals = || (0..count).map(|_| lo + uniform() * (hi - lo)).collect::<Vec<f64>>();
    let data = match port.dtype {
        DType::F32 => Data::F32(reals().into_iter().map(|v| v as f32).collect()),
        DType::F64 => Data::F64(reals().into()),
        DType::F16 => Data::F16(reals().into_iter().map(half::f16::from_f64).collect()),
        DType::BF16 => Data::BF16(reals().into_iter().map(half::bf16::from_f64).collect()),
        other => nputwin::arrays::element_from_le(other, &vec![0; count * other.size()], false)?,
    };
    Tensor::new(shape, data)
}
