//! Command line of nputwin.
//!
//! [`run`] takes the arguments and gives the exit code: 0 for success, 1 for a mismatch or a lint finding, 2 for wrong
//! usage, input or I/O, 3 for what the target or nputwin does not support or nobody has specified. With `--json` stdout
//! carries one JSON document and errors are JSON objects on stderr.

pub mod allocator;
mod args;
mod captured;
mod commands;
mod demo;
mod files;
mod inputs;
mod output;
mod progress;

use clap::{Parser, Subcommand};
use output::print;

/// What every command may look at.
#[derive(Debug, Clone, Copy)]
struct Context {
    json: bool,
}

#[derive(Debug, Parser)]
#[command(name = "nputwin", version, about = "A digital twin of an NPU's integer arithmetic", max_term_width = 100)]
struct Cli {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a model under a target and write its outputs
    Run(commands::run::Args),
    /// Derive encodings from sample inputs
    Calibrate(commands::calibrate::Args),
    /// Check a model's encodings against a target's placement rules; exit code 1 where there are findings
    Check(commands::check::Args),
    /// Convert encodings files and quantized models
    Convert(commands::convert::Args),
    /// Compare two targets, or a target with captured tensors, layer by layer
    Compare(commands::compare::Args),
    /// Show how one element of a tensor comes about
    Explain(commands::explain::Args),
    /// Run golden vectors of other implementations against a target
    Conformance(commands::conformance::Args),
    /// Describe a model
    Info(commands::info::Args),
    /// Measure latency
    Bench(commands::bench::Args),
    /// Reproduce the complaint that simulation and device drift apart with depth
    Demo(demo::Args),
    /// List, show, check and document targets
    #[command(subcommand)]
    Spec(commands::spec::Command),
}

/// Runs the command line, program name first, and gives the exit code. Never panics on what users can write.
pub fn run(args: Vec<String>) -> u8 {
    allocator::configure();
    let json = args.iter().any(|a| a == "--json");
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return output::print_usage(&error, json),
    };
    let context = Context { json: cli.json };
    let outcome = match cli.command {
        Command::Run(args) => commands::run::execute(args, context),
        Command::Calibrate(args) => commands::calibrate::execute(args, context),
        Command::Check(args) => commands::check::execute(args),
        Command::Convert(args) => commands::convert::execute(args),
        Command::Compare(args) => commands::compare::execute(args, context),
        Command::Explain(args) => commands::explain::execute(args),
        Command::Conformance(args) => commands::conformance::execute(args, context),
        Command::Info(args) => commands::info::execute(args),
        Command::Bench(args) => commands::bench::execute(args, context),
        Command::Demo(args) => demo::execute(args, context),
        Command::Spec(command) => commands::spec::execute(command),
    };
    match outcome {
        Ok(outcome) => print(&outcome, context.json),
        Err(error) => output::print_error(&error, context.json),
    }
}
