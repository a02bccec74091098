//! The `sd-latents` binary.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use artifacts::Outcome;
use backend::DeviceSpec;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use pipeline_spec::{ArtifactId, Stage, Store};
use sd_latents::{Ending, Error, Settings};
use stage_cli::{Context, DeviceArgs, InputFault, Progress, SpecFault, StageArgs};

/// Draws latents and images from prompts with Stable Diffusion.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct GenerateArgs {
    #[command(flatten)]
    stage: StageArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Samples that go through the networks together; does not change them.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
}

/// Draw a contact sheet of latents beside their images.
#[derive(Debug, Args)]
struct ShowArgs {
    /// Folder of the artifacts.
    #[arg(long, value_name = "DIR", env = "FLIER_STORE", default_value = "store")]
    store: PathBuf,
    /// The artifact: its path below the store, `latents-v1/<dataset>/<slug>-<key>`.
    #[arg(long, value_name = "ID")]
    artifact: ArtifactId,
    /// The PNG file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Samples of each class at most.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    per_class: u16,
}

fn main() -> ExitCode {
    // The stage's own arguments stand without a subcommand; derived code cannot make them optional as a whole.
    let show = ShowArgs::augment_args(clap::Command::new("show"));
    let matches = GenerateArgs::command().subcommand(show).get_matches();
    match matches.subcommand() {
        Some((_, matches)) => {
            let args = ShowArgs::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
            let store = Store::new(&args.store);
            let per_class = usize::from(args.per_class);
            stage_cli::finish(
                sd_latents::sheet::show(&store, &args.artifact, per_class, &args.out).map_err(Into::into),
            )
        }
        None => {
            let args = GenerateArgs::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
            stage_cli::run(Stage::SdLatents, &args.stage, |context| generate(&args, context))
        }
    }
}

fn generate(args: &GenerateArgs, context: &Context) -> anyhow::Result<()> {
    let device_name = &args.device.device;
    let device = device_name.parse::<DeviceSpec>()?.open()?;
    let settings = Settings {
        store: &context.store,
        weights: &args.device.weights,
        shard: context.shard,
        batch: usize::from(args.batch),
        device: &device,
        device_name,
    };
    let mut bar: Option<Progress> = None;
    let mut shown = 0;
    let mut progress = |now: sd_latents::Progress| {
        let bar = bar.get_or_insert_with(|| context.progress("samples", now.total as u64));
        bar.inc((now.done - shown) as u64);
        shown = now.done;
        if context.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match sd_latents::run(&context.unit, &settings, &mut progress).map_err(fault)? {
        Ending::Done(Outcome::Finished(_)) => Ok(()),
        Ending::Done(Outcome::PartsMissing(parts)) => {
            tracing::info!(?parts, "these parts are left to other shards");
            Ok(())
        }
        Ending::Stopped => {
            context.check_interrupted()?;
            Err(anyhow::anyhow!("stopped without a signal")).context("generation did not finish")
        }
    }
}

/// Marks what is wrong with the unit file or an input, for the exit code.
fn fault(error: Error) -> anyhow::Error {
    match error {
        Error::TooManyParts { .. }
        | Error::NegativePromptTooLong { .. }
        | Error::Model(sd_model::Error::NumInferenceSteps { .. }) => SpecFault(error.to_string()).into(),
        error @ (Error::Checkpoint { .. } | Error::PromptTooLong { .. }) => InputFault::new(error).into(),
        error => error.into(),
    }
}
