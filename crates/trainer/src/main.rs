//! The `trainer` binary.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use pipeline_spec::Stage;
use stage_cli::{Cache, Context, DeviceArgs, InputFault, SpecFault, StageArgs};
use trainer::{Ending, Error, Settings};

/// Encodes images with a frozen CLIP (`features`), or trains FLIER, a control or a baseline (`checkpoints`).
#[derive(Debug, clap::Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Images that go through a frozen encoder together; changes speed and memory, not the result.
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Write the training state after every N steps instead of every few seconds.
    #[arg(long, value_name = "N")]
    save_every_steps: Option<u64>,
    /// Write loss and learning rate of every fine-tuning step to DIR/RUN: JSON lines and a TensorBoard event file.
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args: Args = stage_cli::parse();
    let cache = Cache::new(&args.stage);
    stage_cli::run(Stage::Trainer, &args.stage, |context| run(&args, &cache, context))
}

fn run(args: &Args, cache: &Cache, context: &Context) -> anyhow::Result<()> {
    let device = args.device.device.parse::<backend::DeviceSpec>()?.open()?;
    let settings = Settings {
        store: &context.store,
        weights: &args.device.weights,
        shard: context.shard,
        batch: args.batch,
        device: &device,
        device_name: &args.device.device,
        save_every_steps: args.save_every_steps.filter(|steps| *steps > 0),
        log_dir: args.log_dir.as_deref(),
        cache,
    };
    let mut progress = None;
    let mut last = 0;
    let label = context.output.slug.clone();
    let mut control = |done: u64, total: u64| {
        let progress = progress.get_or_insert_with(|| context.progress(&label, total));
        progress.inc(done.saturating_sub(last));
        last = done;
        if context.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match trainer::run(&context.unit, &settings, &mut control) {
        Ok(Ending::Done(_)) => Ok(()),
        Ok(Ending::Stopped) => Ok(context.check_interrupted()?),
        Err(error) => Err(with_exit_code(error)),
    }
}

/// Hands the error on in the form in which `stage-cli` finds its exit code.
fn with_exit_code(error: Error) -> anyhow::Error {
    match error {
        Error::Artifact(error) => error.into(),
        Error::Contract(error) => error.into(),
        Error::Clip(error) => error.into(),
        Error::Write { path, source } => artifacts::Error::Write { path, free_bytes: None, source }.into(),
        error @ Error::NoValidation { .. } => SpecFault(error.to_string()).into(),
        error @ (Error::Checkpoint { .. }
        | Error::Mismatch { .. }
        | Error::HeldOutSplit { .. }
        | Error::MissingSample { .. }
        | Error::TooFewGenerated { .. }
        | Error::NoText { .. }
        | Error::NoProjection { .. }
        | Error::Covariance
        | Error::Image { .. }) => InputFault::new(error).into(),
        error => error.into(),
    }
}
