//! The `dataset-pack` binary: the stage, and the tools around it.

mod tools;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use artifacts::Outcome;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use dataset_pack::{Error, Job, photo};
use pipeline_spec::Stage;
use stage_cli::{Context, InputFault, SpecFault, StageArgs};

/// Packs the real images of a data set, and draws shot lists from them.
///
/// Without a command it runs the stage and needs --spec.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    tool: Option<tools::Tool>,
    #[command(flatten)]
    stage: Option<StageArgs>,
    /// Folder of the data manifests.
    #[arg(long, value_name = "DIR", default_value = "data-manifests")]
    manifests: PathBuf,
    /// Folder of the source data: what `cargo xtask fetch` fills, and `$DATA` of the benchmarks.
    #[arg(long, value_name = "DIR", env = "FLIER_DATA", default_value = "data")]
    data: PathBuf,
    /// Most pixels of a photograph; larger ones are refused as decompression bombs.
    #[arg(long, value_name = "N", default_value_t = photo::MAX_PIXELS)]
    max_pixels: u64,
}

fn main() -> ExitCode {
    stage_cli::use_small_pages();
    let mut cli: Cli = stage_cli::parse();
    match (cli.tool.take(), cli.stage.take()) {
        (Some(tool), _) => tools::run(tool),
        (None, Some(args)) => stage_cli::run(Stage::DatasetPack, &args, |context| pack(&cli, context)),
        (None, None) => {
            let problem = "expected `--spec <FILE>`, or one of the commands `shots`, `doctor` and `init`";
            Cli::command().error(ErrorKind::MissingRequiredArgument, problem).exit()
        }
    }
}

fn pack(args: &Cli, context: &Context) -> anyhow::Result<()> {
    let job = Job {
        unit: &context.unit,
        store: &context.store,
        shard: context.shard,
        manifests: &args.manifests,
        data: &args.data,
        max_pixels: args.max_pixels,
    };
    let bar = OnceLock::new();
    let on_progress = |_, total| {
        bar.get_or_init(|| context.progress("images", total)).inc(1);
        if context.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match dataset_pack::run(&job, on_progress) {
        Ok(Outcome::Finished(_)) => Ok(()),
        Ok(Outcome::PartsMissing(parts)) => {
            tracing::info!(?parts, "these parts are left to other shards");
            Ok(())
        }
        Err(error) => {
            context.check_interrupted()?;
            Err(with_exit_code(error))
        }
    }
}

/// Gives an error the type that `stage_cli` knows the exit code of: 78 for what the unit or the manifest
/// says, 65 for source files.
fn with_exit_code(error: Error) -> anyhow::Error {
    match error {
        Error::Manifest { .. }
        | Error::ManifestDigest { .. }
        | Error::UnknownSplit { .. }
        | Error::Count { .. }
        | Error::Leak { .. } => SpecFault(error.to_string()).into(),
        Error::MissingSource { .. }
        | Error::WrongDigest { .. }
        | Error::Archive { .. }
        | Error::SplitFile { .. }
        | Error::Image { .. }
        | Error::Layout { .. } => InputFault::new(error).into(),
        other => other.into(),
    }
}
