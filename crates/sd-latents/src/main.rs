//! The `sd-latents` binary.

mod args;

use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Context as _;
use artifacts::Outcome;
use backend::DeviceSpec;
use clap::{Args, CommandFactory, FromArgMatches};
use pipeline_spec::{Stage, Store};
use sd_latents::{Ending, Error, Settings, gallery, sample, sheet};
use stage_cli::{Context, InputFault, LogFormat, Progress, SpecFault};

use args::{GalleryArgs, GenerateArgs, SampleArgs, ShowArgs};

fn main() -> ExitCode {
    // The stage's own arguments stand without a subcommand; derived code cannot make them optional as a whole.
    let commands = [
        ShowArgs::augment_args(clap::Command::new("show")),
        GalleryArgs::augment_args(clap::Command::new("gallery")),
        SampleArgs::augment_args(clap::Command::new("sample")),
    ];
    let matches = stage_cli::matches(GenerateArgs::command().subcommands(commands));
    match matches.subcommand() {
        Some(("show", matches)) => {
            let args = ShowArgs::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
            let store = Store::new(&args.store);
            stage_cli::finish(sheet::show(&store, &args.artifact, args.show(), &args.out).map_err(Into::into))
        }
        Some(("gallery", matches)) => {
            let args = GalleryArgs::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
            stage_cli::finish(write_gallery(&args))
        }
        Some((_, matches)) => {
            let args = SampleArgs::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
            stage_cli::finish(draw(args))
        }
        None => {
            let args = GenerateArgs::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
            stage_cli::run(Stage::SdLatents, &args.stage, |context| generate(&args, context))
        }
    }
}

fn write_gallery(args: &GalleryArgs) -> anyhow::Result<()> {
    let per_class = usize::try_from(args.per_class)?;
    gallery::gallery(&Store::new(&args.store), &args.artifact, per_class, &args.out)?;
    Ok(writeln!(std::io::stdout(), "{}", args.out.join("index.html").display())?)
}

fn draw(args: SampleArgs) -> anyhow::Result<()> {
    stage_cli::logging::init(LogFormat::Text, 0, &stage_cli::progress::Display::new(false));
    let device = args.device.parse::<DeviceSpec>()?.open()?;
    sample::sample(&args.request(), &device).map_err(fault)
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
        | Error::TooFewSamples { .. }
        | Error::ImageSize { .. }
        | Error::NegativePromptTooLong { .. }
        | Error::Model(sd_model::Error::NumInferenceSteps { .. }) => SpecFault(error.to_string()).into(),
        // What the networks' crates refuse is a file of a checkpoint.
        error @ (Error::Checkpoint { .. }
        | Error::Model(_)
        | Error::Clip(_)
        | Error::PromptTooLong { .. }
        | Error::ImageRow { .. }
        | Error::Noise { .. }) => InputFault::new(error).into(),
        error => error.into(),
    }
}
