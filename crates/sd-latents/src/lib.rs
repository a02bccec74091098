//! The `sd-latents` stage: Stable Diffusion latents, of samples drawn from prompts or of real images.
//!
//! Reads the `prompts` artifact, or `images` with a shot list, and writes the `latents` artifact. What a sample is depends
//! on the spec and on the sample's own place only: its noise is drawn on the host from (seed, class, prompt, sample), so
//! that shards, restarts and the order of the work do not matter. Batch size and device may change the last digits, no
//! more.

mod encode;
mod error;
pub mod gallery;
mod generate;
mod model;
mod picture;
pub mod sample;
pub mod samples;
mod select;
pub mod sheet;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use artifacts::{ArtifactWriter, LatentRow, SchemaInfo, Shard};
use burn::tensor::Device;
use pipeline_spec::{StageSpec, Store, Unit};

pub use error::Error;

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
/// Fails if the unit is of another stage, the checkpoint is not the pinned one, an input does not fit, a sample comes out
/// unusable, or a part cannot be written.
pub fn run(
    unit: &Unit,
    settings: &Settings<'_>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Ending, Error> {
    let started = Instant::now();
    if settings.batch == 0 {
        return Err(Error::EmptyBatch);
    }
    let parts = match &unit.spec {
        StageSpec::Latents(spec) => generate::parts(unit, spec, settings, progress)?,
        StageSpec::EncodedLatents(spec) => encode::parts(unit, spec, settings, progress)?,
        other => return Err(Error::NotMine { found: other.kind() }),
    };
    let Some(writer) = parts else { return Ok(Ending::Stopped) };
    for conflict in writer.conflicts() {
        tracing::warn!(file = conflict.file, kept = %conflict.kept, "another process made the part with other content");
    }
    Ok(Ending::Done(writer.finish(settings.device_name, started)?))
}

/// The rows of a part with what describes them; `None` if the work was stopped.
type Part = Option<(Vec<LatentRow>, SchemaInfo)>;

/// Is told the number of finished samples of a part and may stop the work.
type Tick<'a> = dyn FnMut(usize) -> ControlFlow<()> + 'a;

/// Writes `missing` parts, each a run of `lengths[part]` samples; false if the work was stopped.
fn write_parts(
    writer: &ArtifactWriter,
    missing: &[u32],
    lengths: &[usize],
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    make: &mut dyn FnMut(u32, &mut Tick<'_>) -> Result<Part, Error>,
) -> Result<bool, Error> {
    let total = missing.iter().map(|&part| lengths[part as usize]).sum();
    let mut before = 0;
    for &part in missing {
        let mut tick = |done| progress(Progress { done: before + done, total });
        let Some((rows, info)) = make(part, &mut tick)? else { return Ok(false) };
        writer.write_part::<LatentRow>(part, &rows, &info)?;
        tracing::info!(part, num_parts = lengths.len(), rows = rows.len(), "committed a part");
        before += lengths[part as usize];
    }
    Ok(true)
}
