//! The `evaluator` binary.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use artifacts::Outcome;
use backend::DeviceSpec;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use evaluator::Error;
use evaluator::compare::{self, Side};
use evaluator::predictions::{self, Ending, Settings};
use pipeline_spec::{Plan, Stage, StageSpec, Store};
use stage_cli::{Cache, Context, DeviceArgs, InputFault, Progress, StageArgs};

/// Makes predictions and figures of trained runs, and the report of a plan.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct RunArgs {
    #[command(flatten)]
    stage: StageArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Images that go through the encoder together.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
}

/// Write the report of a plan: what has been measured, and what has not.
#[derive(Debug, Args)]
struct ReportArgs {
    /// The plan, as `cargo xtask plan` writes it.
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Folder of the artifacts.
    #[arg(long, value_name = "DIR", env = "FLIER_STORE", default_value = "store")]
    store: PathBuf,
    /// Folder of the report's files; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Compare two runs or the results of two plans: which figures differ, paired tests, and what differs in the settings.
///
/// The comparison is printed as Markdown.
#[derive(Debug, Args)]
struct CompareArgs {
    /// A plan file, or the path of a `predictions` or `metrics` artifact below the store.
    a: String,
    /// What it is compared with: the same.
    b: String,
    /// Folder of the artifacts.
    #[arg(long, value_name = "DIR", env = "FLIER_STORE", default_value = "store")]
    store: PathBuf,
    /// Folder of the artifacts of `B`, if it is another one.
    #[arg(long, value_name = "DIR")]
    store_b: Option<PathBuf>,
}

/// Write figures and tables over several data sets: the average over shots, and each data set over shots.
#[derive(Debug, Args)]
struct BenchmarkArgs {
    /// A plan, as `cargo xtask plan` writes it; one for each data set.
    #[arg(long = "plan", value_name = "FILE", required = true)]
    plans: Vec<PathBuf>,
    /// Folder of the artifacts.
    #[arg(long, value_name = "DIR", env = "FLIER_STORE", default_value = "store")]
    store: PathBuf,
    /// Folder of the files; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> ExitCode {
    // The stage's own arguments stand without a subcommand too; derived code cannot make them optional as a whole.
    let run_command = RunArgs::augment_args(clap::Command::new("run"))
        .about("Make predictions or metrics; the same as without a subcommand");
    let report_command = ReportArgs::augment_args(clap::Command::new("report"));
    let compare_command = CompareArgs::augment_args(clap::Command::new("compare"));
    let benchmark_command = BenchmarkArgs::augment_args(clap::Command::new("benchmark"));
    let commands = [run_command, report_command, compare_command, benchmark_command];
    let matches = stage_cli::matches(RunArgs::command().subcommands(commands));
    match matches.subcommand() {
        Some(("report", matches)) => {
            let args = ReportArgs::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
            stage_cli::finish(report(&args))
        }
        Some(("compare", matches)) => {
            let args = CompareArgs::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
            stage_cli::finish(print_comparison(&args))
        }
        Some(("benchmark", matches)) => {
            let args = BenchmarkArgs::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
            stage_cli::finish(write_benchmark(&args))
        }
        found => {
            let matches = found.map_or(&matches, |(_, matches)| matches);
            let args = RunArgs::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
            let cache = Cache::new(&args.stage);
            stage_cli::run(Stage::Evaluator, &args.stage, |context| run(&args, &cache, context))
        }
    }
}

fn run(args: &RunArgs, cache: &Cache, context: &Context) -> anyhow::Result<()> {
    let outcome = match &context.unit.spec {
        StageSpec::Predictions(spec) => {
            let device_name = &args.device.device;
            let device = device_name.parse::<DeviceSpec>()?.open()?;
            let settings = Settings {
                store: &context.store,
                weights: &args.device.weights,
                shard: context.shard,
                batch: usize::from(args.batch),
                device: &device,
                device_name,
                cache,
            };
            let mut bar: Option<Progress> = None;
            let mut shown = 0;
            let mut progress = |done: usize, total: usize| {
                let bar = bar.get_or_insert_with(|| context.progress("images", total as u64));
                bar.inc(done.saturating_sub(shown) as u64);
                shown = done.max(shown);
                if context.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            match predictions::run(&context.unit, spec, &settings, &mut progress).map_err(fault)? {
                Ending::Done(outcome) => outcome,
                Ending::Stopped => {
                    context.check_interrupted()?;
                    return Err(anyhow::anyhow!("stopped without a signal"))
                        .context("evaluation did not finish");
                }
            }
        }
        StageSpec::Metrics(_) => {
            evaluator::metrics::run(&context.unit, &context.store, context.shard).map_err(fault)?
        }
        other => return Err(Error::NotMine { found: other.kind() }.into()),
    };
    if let Outcome::PartsMissing(parts) = outcome {
        tracing::info!(?parts, "these parts are left to other shards");
    }
    Ok(())
}

/// Marks what is wrong with an input, for the exit code.
fn fault(error: Error) -> anyhow::Error {
    match error {
        Error::MissingSplit { .. }
        | Error::Unlabelled { .. }
        | Error::Classes { .. }
        | Error::Backbone { .. }
        | Error::ImageSize { .. }
        | Error::NotFinite { .. }
        | Error::UnknownClass { .. }
        | Error::OtherBackbone { .. }
        | Error::InputRecord { .. }
        | Error::Image { .. } => InputFault::new(error).into(),
        error => error.into(),
    }
}

fn report(args: &ReportArgs) -> anyhow::Result<()> {
    let plan = Plan::read(&args.plan)?;
    evaluator::report::write(&plan, &Store::new(&args.store), &args.out)?;
    Ok(())
}

fn print_comparison(args: &CompareArgs) -> anyhow::Result<()> {
    let store = Store::new(&args.store);
    let store_b = args.store_b.as_ref().map_or_else(|| store.clone(), Store::new);
    let (a, b) = (Side::open(&args.a, &store)?, Side::open(&args.b, &store_b)?);
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(compare::report(&a, &b).as_bytes()).context("cannot write to stdout")
}

fn write_benchmark(args: &BenchmarkArgs) -> anyhow::Result<()> {
    let plans = args.plans.iter().map(|path| Ok(Plan::read(path)?)).collect::<anyhow::Result<Vec<_>>>()?;
    evaluator::report::benchmark::write(&plans, &Store::new(&args.store), &args.out)?;
    Ok(())
}
