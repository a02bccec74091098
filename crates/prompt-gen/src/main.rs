//! The `prompt-gen` binary.

use std::path::PathBuf;
use std::process::ExitCode;

use artifacts::Outcome;
use clap::Parser;
use pipeline_spec::Stage;
use prompt_gen::Error;
use stage_cli::{InputFault, StageArgs};

/// Makes prompts from the class names of a data set.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
    /// Folder of the data manifests.
    #[arg(long, value_name = "DIR", default_value = "data-manifests")]
    manifests: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    stage_cli::run(Stage::PromptGen, &args.stage, |context| {
        if let Outcome::PartsMissing(parts) =
            prompt_gen::run(&context.unit, &context.store, context.shard, &args.manifests).map_err(fault)?
        {
            tracing::info!(?parts, "these parts are left to other shards");
        }
        Ok(())
    })
}

/// Marks what is wrong with the manifest or the prompt file, for the exit code.
fn fault(error: Error) -> anyhow::Error {
    match error {
        Error::Digest { .. }
        | Error::NoClasses { .. }
        | Error::Dataset { .. }
        | Error::PromptFile { .. }
        | Error::MissingClasses { .. }
        | Error::UnknownClasses { .. } => InputFault::new(error).into(),
        error => error.into(),
    }
}
