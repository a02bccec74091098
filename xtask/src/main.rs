//! Repository automation: `cargo xtask COMMAND`.
//!
//! Knows the contract (`pipeline-spec`) and starts the stages as processes, by the command lines that a cluster uses.
//! Every command is one file; this one only chooses.

mod bench;
mod binaries;
mod bundle;
mod cluster;
mod dist;
mod exit;
mod fetch;
mod gc;
mod inspect;
mod interrupts;
mod libtorch;
mod memory;
mod options;
mod parity;
mod plan;
mod plan_files;
mod pool;
mod pretrain;
mod progress;
mod report;
mod reproduce;
mod run;
mod sbom;
mod sources;
mod stage_command;
mod status;
mod steps;
mod stored;
mod submit;
mod terminal;
mod test;
mod tidy;
mod unit_log;
mod unit_state;
mod verify;
mod why;
mod worker;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs pipelines and keeps the repository in order.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Reproduce(reproduce::Reproduce),
    Plan(plan::ShowPlan),
    Run(run::Run),
    Submit(submit::Submit),
    Status(status::Status),
    Why(why::Why),
    Verify(verify::Verify),
    Report(report::Report),
    Fetch(sources::Fetch),
    Gc(gc::Gc),
    Inspect(inspect::Inspect),
    Export(bundle::export::Export),
    Import(bundle::import::Import),
    Pretrain(pretrain::Pretrain),
    Libtorch(libtorch::Libtorch),
    Dist(dist::Dist),
    Parity(parity::Parity),
    Bench(bench::Bench),
    Test(test::Test),
    Tidy(tidy::Tidy),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Reproduce(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Submit(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Why(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Fetch(command) => command.run(),
        Command::Gc(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Pretrain(command) => command.run(),
        Command::Libtorch(command) => command.run(),
        Command::Dist(command) => command.run(),
        Command::Parity(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Test(command) => command.run(),
        Command::Tidy(command) => command.run(),
    };
    outcome.unwrap_or_else(|error| {
        terminal::note(format_args!("error: {error:#}"));
        ExitCode::from(exit::code_of(&error))
    })
}
