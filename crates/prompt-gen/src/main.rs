//! The `prompt-gen` binary.

use std::path::PathBuf;
use std::process::ExitCode;

use artifacts::Outcome;
use clap::Parser;
use pipeline_spec::{Stage, Store};
use prompt_gen::{Error, ServerArgs, Settings, Watch};
use stage_cli::exit_code::{TRY_AGAIN, UNAVAILABLE, USAGE};
use stage_cli::{ExitWith, InputFault, StageArgs};

/// Makes prompts from the class names of a data set.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
    /// Folder of the data manifests.
    #[arg(long, value_name = "DIR", default_value = "data-manifests")]
    manifests: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

fn main() -> ExitCode {
    let args: Args = stage_cli::parse();
    let store = Store::new(&args.stage.store);
    let settings = Settings { store: &store, manifests: &args.manifests, server: &args.server };
    let forecast = |unit: &pipeline_spec::Unit| prompt_gen::forecast(unit, settings).map_err(fault);
    stage_cli::run_with_forecast(Stage::PromptGen, &args.stage, forecast, |context| {
        let watch = Watch {
            check_interrupted: &|| context.check_interrupted(),
            progress: &|total| context.progress("answers", total),
        };
        if let Outcome::PartsMissing(parts) =
            prompt_gen::run(&context.unit, context.shard, settings, watch).map_err(fault)?
        {
            tracing::info!(?parts, "these parts are left to other shards");
        }
        Ok(())
    })
}

/// Marks what is at fault, for the exit code.
fn fault(error: Error) -> anyhow::Error {
    match error {
        Error::Digest { .. }
        | Error::NoClasses { .. }
        | Error::Dataset { .. }
        | Error::PromptFile { .. }
        | Error::MissingClasses { .. }
        | Error::UnknownClasses { .. }
        | Error::Journal { .. } => InputFault::new(error).into(),
        Error::BaseUrl { .. } | Error::ApiKey => ExitWith::new(USAGE, error).into(),
        Error::Unreachable { .. } => ExitWith::new(UNAVAILABLE, error).into(),
        Error::Busy { .. } | Error::Failing { .. } | Error::LongWait { .. } | Error::Limit { .. } => {
            ExitWith::new(TRY_AGAIN, error).into()
        }
        error => error.into(),
    }
}
