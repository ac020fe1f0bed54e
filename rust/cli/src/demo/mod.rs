//! `nputwin demo`: the complaint that simulation and device drift apart with depth, reproduced and explained.

mod chart;
mod float;
mod measure;
mod network;
mod published;
mod random;
mod table;
mod weights;

use crate::Context;
use crate::args::RunOptions;
use crate::files::{create_folder, write_bytes};
use crate::output;
use crate::progress;
use indicatif::ProgressBar;
use measure::{Difference, EMULATION, FirstDifference, INPUT_RULE, Measured, ON_DEVICE, ON_HOST, SIMULATION, Targets};
use network::{Network, Ranges};
use nputwin::tensor::Tensor;
use nputwin::{Error, Result};
use published::Published;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
use weights::Calibration;

const LONG_HELP: &str = "\
Builds the residual network of quic/aimet issue 3978 (conv 3x3, relu6, optional cumulative Add), calibrates it, runs it
in float simulation (fake_quant) and in integer emulation (htp_v75), and prints how far the outputs are apart, beside
the numbers that were published there. Then it quantizes the input on the host instead of the device, and prints what
that changes. A chart and the numbers are written to --output-dir.

Arrays of a --weights file (.npz, float32):
  input            [1, C, H, W]   the input that is measured
  weight.<i>       [C, C, 3, 3]   convolution i, from 0, batch normalization folded
  bias.<i>         [C]            its bias
  range.input      [2]            smallest and largest value during calibration
  range.relu6.<i>  [2]            the same for the activation of layer i
  range.add.<i>    [2]            the same for the sum after layer i; absent without the Add
  calibration      [N, C, H, W]   inputs to calibrate on, instead of range.*
  cumulative_add   [1]            0: no Add; read with calibration only";

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_HELP)]
pub struct Args {
    /// Numbers of layers to report [default: 1,9,19,29; with --weights: all layers of each file]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    depths: Option<Vec<usize>>,
    /// Channels of every tensor
    #[arg(long, default_value_t = 64, value_name = "N")]
    channels: usize,
    /// Height and width
    #[arg(long, default_value_t = 128, value_name = "N")]
    size: usize,
    /// Inputs to calibrate on
    #[arg(long, default_value_t = 10, value_name = "N")]
    calibration_inputs: usize,
    /// Seed of weights and inputs
    #[arg(long, default_value_t = 1517, value_name = "N")]
    seed: u64,
    /// Take weights, input and calibration from files, one network each (see --help for their arrays)
    #[arg(long, value_name = "FILE.npz", num_args = 1..)]
    weights: Vec<PathBuf>,
    /// Use the issue's own random numbers (Python package with torch only)
    #[arg(long)]
    seed_weights: bool,
    /// Run the device in float16 instead of integers, and compare with float32
    #[arg(long, value_enum, default_value_t = Precision::Int8)]
    precision: Precision,
    /// Where the chart and the numbers go
    #[arg(long, short = 'o', default_value = "demo-out", value_name = "DIR")]
    output_dir: PathBuf,
    #[command(flatten)]
    options: RunOptions,
}

/// What the device computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Precision {
    /// 8-bit integers, against float simulation
    Int8,
    /// float16, against float32
    F16,
}

/// One line of the tables.
#[derive(Debug, Clone, Serialize)]
struct Row {
    /// The file of the weights, or `generated`.
    network: String,
    cumulative_add: bool,
    depth: usize,
    /// Scale of the output's grid.
    scale: f64,
    /// The input quantized on the device.
    device: Difference,
    /// The input quantized on the host.
    host: Difference,
    /// What the complaint says of this depth.
    published: Option<Published>,
    /// Whether the row was asked for, or only serves the chart.
    reported: bool,
}

#[derive(Debug, Clone, Serialize)]
struct First {
    network: String,
    cumulative_add: bool,
    device: Option<FirstDifference>,
    host: Option<FirstDifference>,
}

#[derive(Debug, Clone, Serialize)]
struct Target {
    name: String,
    hash: String,
    assumptions: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    tool: String,
    simulation: Target,
    device: Target,
    host: Target,
    rows: Vec<Row>,
    first_differences: Vec<First>,
    published: PublishedTables,
    chart: PathBuf,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct PublishedTables {
    fifteen_rows: &'static [Published],
    with_add: &'static [Published],
    without_add: &'static [Published],
}

/// A network to measure and how to calibrate it.
struct Job {
    name: String,
    network: Network,
    input: Tensor,
    calibration: Source,
    /// Depths in the tables, and all depths to compute.
    reported: Vec<usize>,
    computed: Vec<usize>,
}

enum Source {
    Ranges(Ranges),
    Inputs(Vec<Tensor>),
    Random { seed: u64, count: usize },
}

/// Layers in which the first difference is looked for.
const SEARCH_DEPTH: usize = 2;

/// Runs the demo and writes `demo.json` and `demo.svg`.
pub fn execute(args: Args, context: Context) -> Result<output::Outcome> {
    if args.precision == Precision::F16 {
        return float::execute(&args, &jobs(&args)?, context);
    }
    let outcome = compute(&args, context)?;
    let json = serde_json::to_value(&outcome).map_err(|e| Error::invalid("json", e.to_string()))?;
    write_bytes(&args.output_dir.join("demo.json"), format!("{json:#}\n").as_bytes())?;
    Ok(output::Outcome::ok(report(&outcome), json))
}

fn compute(args: &Args, context: Context) -> Result<Outcome> {
    let started = Instant::now();
    let targets = Targets::load(&args.options)?;
    let jobs = jobs(args)?;
    create_folder(&args.output_dir)?;
    let steps: usize = jobs.iter().map(|j| j.calibration.steps() + 4).sum();
    let bar = progress::bar(context, steps, "");
    let (mut rows, mut firsts) = (Vec::new(), Vec::new());
    for job in &jobs {
        let (first, measured) = run_job(&targets, job, &bar)?;
        firsts.push(first);
        rows.extend(measured.into_iter().map(|m| Row {
            network: job.name.clone(),
            cumulative_add: job.network.cumulative_add,
            depth: m.depth,
            scale: m.scale,
            device: m.device,
            host: m.host,
            published: published::row(job.network.cumulative_add, m.depth),
            reported: job.reported.contains(&m.depth),
        }));
    }
    bar.finish_and_clear();
    let chart = args.output_dir.join("demo.svg");
    write_bytes(&chart, picture(&rows).as_bytes())?;
    let target = |spec: &nputwin::spec::Spec| Target {
        name: spec.name.clone(),
        hash: spec.hash.clone(),
        assumptions: spec.assumptions.clone(),
    };
    Ok(Outcome {
        tool: format!("nputwin {}", env!("CARGO_PKG_VERSION")),
        simulation: target(&targets.simulation),
        device: target(&targets.device),
        host: target(&targets.host),
        rows,
        first_differences: firsts,
        published: PublishedTables {
            fifteen_rows: &published::FIFTEEN_ROWS,
            with_add: &published::WITH_ADD,
            without_add: &published::WITHOUT_ADD,
        },
        chart,
        seconds: started.elapsed().as_secs_f64(),
    })
}

impl Source {
    fn steps(&self) -> usize {
        match self {
            Source::Ranges(_) => 0,
            Source::Inputs(inputs) => inputs.len(),
            Source::Random { count, .. } => *count,
        }
    }
}

fn jobs(args: &Args) -> Result<Vec<Job>> {
    let usage = |what: &str| Err(Error::invalid("demo_arguments", what.to_string()));
    if args.seed_weights {
        let message = "--seed-weights replays torch's random numbers, which this program does not have";
        return Err(Error::invalid("demo_arguments", message).help("run: python -m nputwin.demo --seed-weights"));
    }
    if args.depths.as_ref().is_some_and(|d| d.is_empty() || d.iter().any(|d| !(1..=1000).contains(d))) {
        return usage("--depths takes numbers from 1 to 1000");
    }
    if !args.weights.is_empty() {
        return args.weights.iter().map(|path| file_job(path, args.depths.as_deref())).collect();
    }
    if !(1..=4096).contains(&args.channels) || !(1..=4096).contains(&args.size) {
        return usage("--channels and --size take numbers from 1 to 4096");
    }
    if args.calibration_inputs == 0 {
        return usage("--calibration-inputs takes a number above 0");
    }
    let reported = sorted(args.depths.clone().unwrap_or_else(|| vec![1, 9, 19, 29]));
    let deepest = *reported.last().expect("checked above");
    let computed = sorted(reported.iter().copied().chain((1..=deepest).step_by(2)).collect());
    let shape = [1, args.channels, args.size, args.size];
    nputwin::tensor::element_count(&shape)?;
    let job = |cumulative_add: bool| Job {
        name: "generated".into(),
        network: Network::random(args.seed, deepest, shape, cumulative_add),
        input: Network::random_input(args.seed, 0, shape),
        calibration: Source::Random { seed: args.seed, count: args.calibration_inputs },
        reported: reported.clone(),
        computed: computed.clone(),
    };
    Ok(vec![job(true), job(false)])
}

fn file_job(path: &Path, depths: Option<&[usize]>) -> Result<Job> {
    let given = weights::read(path)?;
    let layers = given.network.layers.len();
    let depths = sorted(depths.map_or_else(|| vec![layers], <[usize]>::to_vec));
    if let Some(d) = depths.iter().find(|&&d| d > layers) {
        let message = format!("{} has {layers} layers, {d} are asked for", path.display());
        return Err(Error::invalid("demo_arguments", message));
    }
    Ok(Job {
        name: path.display().to_string(),
        network: given.network,
        input: given.input,
        calibration: match given.calibration {
            Calibration::Ranges(ranges) => Source::Ranges(ranges),
            Calibration::Inputs(inputs) => Source::Inputs(inputs),
        },
        reported: depths.clone(),
        computed: depths,
    })
}

fn sorted(mut depths: Vec<usize>) -> Vec<usize> {
    depths.sort_unstable();
    depths.dedup();
    depths
}

fn run_job(targets: &Targets, job: &Job, bar: &ProgressBar) -> Result<(First, Vec<Measured>)> {
    let Job { network, input, .. } = job;
    let deepest = *job.computed.last().expect("a job has depths");
    let kind = if network.cumulative_add { "with the Add" } else { "without the Add" };
    bar.set_message(format!("calibrating {kind}"));
    let step = || bar.inc(1);
    let ranges = match &job.calibration {
        Source::Ranges(ranges) => ranges.clone(),
        Source::Inputs(inputs) => targets.calibrate(network, deepest, inputs.iter().cloned(), step)?,
        Source::Random { seed, count } => {
            let inputs = (1..=*count).map(|i| Network::random_input(*seed, i, network.shape));
            targets.calibrate(network, deepest, inputs, step)?
        }
    };
    bar.set_message(format!("running {kind}"));
    let measured = targets.measure(network, &ranges, input, &job.computed, step)?;
    let depth = deepest.min(SEARCH_DEPTH);
    let search = |spec| targets.first_difference(spec, network, &ranges, input, depth);
    let (device, host) = (search(&targets.device)?, search(&targets.host)?);
    bar.inc(1);
    Ok((First { network: job.name.clone(), cumulative_add: network.cumulative_add, device, host }, measured))
}

/// Everything that the demo says.
fn report(outcome: &Outcome) -> String {
    let mut out = String::new();
    let rows =
        |add: bool| -> Vec<&Row> { outcome.rows.iter().filter(|r| r.reported && r.cumulative_add == add).collect() };
    let kinds = [(true, "With the cumulative Add"), (false, "Without the cumulative Add")];
    let _ = writeln!(
        out,
        "Simulation ({SIMULATION}) against emulation ({EMULATION}), beside what quic/aimet issue 3978 published.\n"
    );
    for (add, title) in kinds {
        if !rows(add).is_empty() {
            let _ = writeln!(out, "{title}\n{}", table::comparison(&rows(add)));
        }
    }
    let _ = writeln!(
        out,
        "Normalized columns count in steps of the output's grid. The raw MSE grows with the output's scale, which is what\n\
         the complaint saw; in steps of the grid the difference levels off.\n"
    );
    let _ = writeln!(
        out,
        "Advice: quantize the input on the host. On the device, the quotient x/scale is rounded to float16 before it\n\
         becomes an integer; a host divides in float32. Only the rule {INPUT_RULE} differs below: {ON_DEVICE} or {ON_HOST}.\n"
    );
    for (add, title) in kinds {
        if !rows(add).is_empty() {
            let _ = writeln!(out, "{title}\n{}", table::advice(&rows(add)));
        }
    }
    let _ = writeln!(out, "First tensor that differs from the simulation");
    for first in &outcome.first_differences {
        let kind = if first.cumulative_add { "with the Add" } else { "without the Add" };
        let _ = writeln!(
            out,
            "  {kind}, input quantized on the device: {}",
            table::first_difference(first.device.as_ref())
        );
        let _ =
            writeln!(out, "  {kind}, input quantized on the host:   {}", table::first_difference(first.host.as_ref()));
    }
    let _ = writeln!(
        out,
        "\nTo follow it: compile with quantized inputs (AI Hub: --quantize_io; onnxruntime: offload_graph_io_quantization=1)\n\
         and feed integers made with the input's encoding.\n\nChart: {}\nNumbers: {}\n{:.1} s",
        outcome.chart.display(),
        outcome.chart.with_file_name("demo.json").display(),
        outcome.seconds
    );
    out
}

/// The chart of all rows.
fn picture(rows: &[Row]) -> String {
    const BLUE: &str = "#1d5fa8";
    const ORANGE: &str = "#c65b00";
    let of = |add: bool, value: &dyn Fn(&Row) -> f64| -> Vec<(f64, f64)> {
        rows.iter().filter(|r| r.cumulative_add == add).map(|r| (r.depth as f64, value(r))).collect()
    };
    let deepest = rows.iter().map(|r| r.depth).max().unwrap_or(0);
    let known = |tables: &[&[Published]], value: &dyn Fn(&Published) -> Option<f64>| -> Vec<(f64, f64)> {
        let inside = tables.iter().copied().flatten().filter(|p| p.depth <= deepest);
        inside.filter_map(|p| Some((p.depth as f64, value(p)?))).collect()
    };
    let series = |label: &str, colour, mark, points: Vec<(f64, f64)>| chart::Series {
        label: label.into(),
        colour,
        mark,
        points,
    };
    let mut panels = Vec::new();
    let raw = |p: &Published| Some(p.mse);
    let normalized = |p: &Published| p.mse_normalized;
    for (title, y_label, shown, row_value) in [
        (
            "Raw: the difference seems to explode",
            "MSE",
            &raw as &dyn Fn(&Published) -> Option<f64>,
            (|d: &Difference| d.mse) as fn(&Difference) -> f64,
        ),
        ("In steps of the output's grid", "MSE (normalized)", &normalized, |d| d.mse_normalized),
    ] {
        let mut drawn = Vec::new();
        for (add, colour, kind) in [(true, BLUE, "with the Add"), (false, ORANGE, "without the Add")] {
            let tables: &[&[Published]] =
                if add { &[&published::WITH_ADD, &published::FIFTEEN_ROWS] } else { &[&published::WITHOUT_ADD] };
            let here = of(add, &|r| row_value(&r.device));
            if here.is_empty() {
                continue;
            }
            drawn.push(series(&format!("published, {kind}"), colour, chart::Mark::Published, known(tables, shown)));
            drawn.push(series(&format!("emulated, {kind}"), colour, chart::Mark::Line, here));
            let host = of(add, &|r| row_value(&r.host));
            drawn.push(series(
                &format!("emulated, {kind}, input quantized on the host"),
                colour,
                chart::Mark::Dashed,
                host,
            ));
        }
        panels.push(chart::Panel { title: title.into(), y_label: y_label.into(), series: drawn });
    }
    chart::svg(&format!("Simulation against {EMULATION}: difference of the outputs by depth"), "layers", &panels)
}
