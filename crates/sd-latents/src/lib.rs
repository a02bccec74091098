//! The `sd-latents` stage: prompts in, Stable Diffusion latents and images out.
//!
//! Reads the `prompts` artifact and writes the `latents` artifact. What a sample is depends on the spec and on the
//! sample's own place only: its noise is drawn on the host from (seed, class, prompt, sample), so that shards, restarts
//! and the order of the work do not matter. Batch size and device may change the last digits, no more.

mod error;
pub mod generate;
pub mod samples;
pub mod sheet;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use artifacts::{ArtifactReader, ArtifactWriter, FileContext, LatentRow, PromptRow, SchemaInfo, Shard};
use burn::tensor::Device;
use pipeline_spec::spec::{LatentsSpec, Scheduler};
use pipeline_spec::{CheckpointRef, StageSpec, Store, Unit, checkpoint_digest};
use sd_model::StableDiffusion;

pub use error::Error;
use generate::Generator;

/// Where and how the samples are made; nothing here changes what they are.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The store.
    pub store: &'a Store,
    /// Folder of checkpoint folders.
    pub weights: &'a Path,
    /// Which parts this process makes.
    pub shard: Shard,
    /// Samples that go through the networks together.
    pub batch: usize,
    /// Where the networks run.
    pub device: &'a Device,
    /// Its name, for the record.
    pub device_name: &'a str,
}

/// Samples of this process, finished and in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Samples that are finished, those of earlier parts among them.
    pub done: usize,
    /// Samples that this process makes.
    pub total: usize,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Every part of the shard is there.
    Done(artifacts::Outcome),
    /// The work was stopped; finished parts are kept.
    Stopped,
}

/// Makes the missing parts of the shard. `progress` is called before and after each batch and may stop the work.
///
/// # Errors
///
/// Fails if the unit is of another stage, the checkpoint is not the pinned one, a prompt is too long, a sample comes out
/// unusable, or a part cannot be written.
pub fn run(
    unit: &Unit,
    settings: &Settings<'_>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Ending, Error> {
    let started = Instant::now();
    let StageSpec::Latents(spec) = &unit.spec else { return Err(Error::NotMine { found: unit.spec.kind() }) };
    let reader = ArtifactReader::open(settings.store, unit.input("prompts")?)?;
    let prompts = reader.rows::<PromptRow>()?;
    let samples = samples::samples(&prompts, spec.samples_per_prompt);
    let rows_of = |part| samples::part_rows(samples.len(), spec.num_parts, part);
    rows_of(0)?;
    let writer = ArtifactWriter::open(settings.store, unit, spec.num_parts, file_context(spec))?;
    let missing = writer.missing_parts(settings.shard);
    if !missing.is_empty() {
        let model = load(&spec.checkpoint, settings)?;
        generate::check_prompts(&model, &prompts)?;
        let info = SchemaInfo {
            class_names: reader.class_names()?.to_vec(),
            tensor_shape: model.latent_shape().to_vec(),
            ..SchemaInfo::default()
        };
        let mut generator = Generator::new(spec, &model, settings.batch)?;
        let mut total = 0;
        for &part in &missing {
            total += rows_of(part)?.len();
        }
        let mut before = 0;
        for part in missing {
            let part_samples = &samples[rows_of(part)?];
            let mut tick = |done| progress(Progress { done: before + done, total });
            let Some(rows) = generator.part(part_samples, &mut tick)? else { return Ok(Ending::Stopped) };
            writer.write_part::<LatentRow>(part, &rows, &info)?;
            tracing::info!(part, num_parts = spec.num_parts, rows = rows.len(), "committed a part");
            before += rows.len();
        }
    }
    for conflict in writer.conflicts() {
        tracing::warn!(file = conflict.file, kept = %conflict.kept, "another process made the part with other content");
    }
    Ok(Ending::Done(writer.finish(settings.device_name, started)?))
}

/// What the files say about their making beside the spec.
fn file_context(spec: &LatentsSpec) -> FileContext {
    let scheduler = match spec.scheduler {
        Scheduler::Ddim => "ddim",
    };
    FileContext::new(env!("CARGO_PKG_VERSION"))
        .with("checkpoint", &spec.checkpoint.id)
        .with("checkpoint_digest", spec.checkpoint.digest.as_str())
        .with("scheduler", scheduler)
}

/// Loads the checkpoint after its digest is checked.
fn load(checkpoint: &CheckpointRef, settings: &Settings<'_>) -> Result<StableDiffusion, Error> {
    let path = settings.weights.join(&checkpoint.id);
    let found = checkpoint_digest(&path)?;
    if found != checkpoint.digest {
        return Err(Error::Checkpoint { path, expected: checkpoint.digest.clone(), found });
    }
    Ok(StableDiffusion::from_folder(&path, settings.device)?)
}
