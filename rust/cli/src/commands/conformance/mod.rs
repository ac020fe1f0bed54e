//! `nputwin conformance`: golden vectors of other implementations on every runtime, or on somebody's own implementation.

mod junit;
mod sut;
mod text;

use crate::output::Outcome;
use crate::{Context, progress};
use nputwin::conformance::{Against, Check, Family, Report, Runner, Runtime, claimants, find_families, select};
use nputwin::spec::Spec;
use nputwin::{Error, Result};
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
    #[arg(long, value_name = "NAME", conflicts_with = "sut")]
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

/// A family and a target that it runs under; none where only vectors are compared.
type Pairing<'a> = (&'a Family, Option<Spec>);

/// Runs the families.
pub fn execute(args: Args, context: Context) -> Result<Outcome> {
    let mut families = Vec::new();
    for dir in &args.dirs {
        for folder in find_families(dir)? {
            families.push(Family::read(&folder)?);
        }
    }
    let families = select(&families, &args.family)?;
    let implementation = args.sut.runner()?;
    let runtimes = Runtime::named(&args.runtime)?;
    let runners: Vec<&dyn Runner> = match &implementation {
        Some(implementation) => vec![implementation],
        None => runtimes.iter().map(|r| r as &dyn Runner).collect(),
    };
    let (pairings, unclaimed) = pairings(&args, &families)?;
    let wanted = |id: &str| args.only.as_ref().is_none_or(|text| id.contains(text.as_str()));
    let total = pairings.iter().flat_map(|(f, _)| &f.cases).filter(|c| wanted(&c.id)).count();
    if total == 0 && !pairings.is_empty() {
        return Err(Error::invalid("vector_none", "no case is left to run").help("--only matches none of the ids"));
    }
    let bar = progress::bar(context, total, "cases");
    let against = if args.sut.against_spec.is_some() { Against::Target } else { Against::Vectors };
    let mut reports = Vec::new();
    for (family, spec) in &pairings {
        let check = Check { family, spec: spec.as_ref(), against, runners: &runners, jobs: args.jobs };
        reports.push(check.run(&|case| wanted(&case.id), &|| {
            bar.inc(1);
            Ok(())
        })?);
    }
    bar.finish_and_clear();
    if let Some(path) = &args.junit {
        crate::files::write_bytes(path, junit::render(&reports).as_bytes())?;
    }
    let equal = reports.iter().all(Report::is_equal);
    let runners: Vec<&str> = runners.iter().map(|r| r.name()).collect();
    Ok(Outcome {
        text: text::render(&reports, &runners, &unclaimed),
        json: json!({ "equal": equal, "runtimes": runners, "reports": reports, "unclaimed": unclaimed }),
        code: u8::from(!equal),
    })
}

/// What runs under what, and the families that no target claims.
fn pairings<'a>(args: &Args, families: &[&'a Family]) -> Result<(Vec<Pairing<'a>>, Vec<String>)> {
    let given = args.sut.against_spec.as_ref().or(args.target.as_ref()).map(|t| Spec::load(t)).transpose()?;
    let (mut pairings, mut unclaimed) = (Vec::new(), Vec::new());
    for &family in families {
        if let Some(spec) = &given {
            pairings.push((family, Some(spec.clone())));
        } else if args.sut.is_given() {
            pairings.push((family, None));
        } else {
            let specs = claimants(&family.name)?;
            if specs.is_empty() {
                unclaimed.push(family.name.clone());
            }
            pairings.extend(specs.into_iter().map(|spec| (family, Some(spec))));
        }
    }
    Ok((pairings, unclaimed))
}
