//! `nputwin conformance`: golden vectors of other implementations on every runtime, or on somebody's own implementation.

mod batch;
mod junit;
mod sut;
mod text;

use crate::output::Outcome;
use crate::{Context, files, progress};
use nputwin::Result;
use nputwin::conformance::{Against, Request, Runner, Runtime};
use nputwin::spec::Spec;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `conformance`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders with a `cases.json`, or with such folders in them
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Only this family; may be repeated
    #[arg(long, value_name = "NAME")]
    family: Vec<String>,
    /// Target by name or path; without it, every shipped target that claims a family
    #[arg(long, short = 't')]
    target: Option<String>,
    /// Only cases whose id contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only this runtime (reference, tile, scalar, avx2, …, 2_threads, 7_threads); may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "implementation")]
    runtime: Vec<String>,
    /// Cases that run at the same time; 0 for as many as the machine has threads
    #[arg(long, short = 'j', default_value_t = 0, value_name = "N")]
    jobs: usize,
    /// Also write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    sut: sut::SutArgs,
}

/// Runs the families.
pub fn execute(args: Args, context: Context) -> Result<Outcome> {
    let implementation = args.sut.runner()?;
    let runtimes = Runtime::named(&args.runtime)?;
    let runners: Vec<&dyn Runner> = match &implementation {
        Some(implementation) => vec![&**implementation],
        None => runtimes.iter().map(|r| r as &dyn Runner).collect(),
    };
    let target = args.sut.against_spec.as_ref().or(args.target.as_ref());
    let request = Request {
        folders: &args.dirs,
        families: &args.family,
        only: args.only.as_deref(),
        target: target.map(|t| Spec::load(t)).transpose()?,
        against: if args.sut.against_spec.is_some() { Against::Target } else { Against::Vectors },
        runners: &runners,
        jobs: args.jobs,
    };
    let bar = progress::bar(context, 2, "cases");
    let summary = request.run(&mut |total| bar.set_length(total as u64), &mut || {
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();
    if let Some(path) = &args.junit {
        files::write_bytes(path, junit::render(&summary.reports).as_bytes())?;
    }
    Ok(Outcome { text: text::render(&summary), json: json!(summary), code: u8::from(!summary.equal) })
}
