//! The `dataset-pack` binary.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use artifacts::Outcome;
use clap::Parser;
use dataset_pack::{Error, Job};
use pipeline_spec::Stage;
use stage_cli::{Context, InputFault, SpecFault, StageArgs};

/// Packs the real images of a data set, and draws shot lists from them.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
    /// Folder of the data manifests.
    #[arg(long, value_name = "DIR", default_value = "data-manifests")]
    manifests: PathBuf,
    /// Folder of the fetched source data.
    #[arg(long, value_name = "DIR", env = "FLIER_DATA", default_value = "data")]
    data: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    stage_cli::run(Stage::DatasetPack, &args.stage, |context| pack(&args, context))
}

fn pack(args: &Args, context: &Context) -> anyhow::Result<()> {
    let job = Job {
        unit: &context.unit,
        store: &context.store,
        shard: context.shard,
        manifests: &args.manifests,
        data: &args.data,
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
        | Error::Image { .. }
        | Error::Layout { .. } => InputFault::new(error).into(),
        other => other.into(),
    }
}
