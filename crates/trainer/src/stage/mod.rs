//! The stage: a unit in, an artifact out.

mod fine_tune;
mod frozen;
mod job;
mod latent_only;
mod towers;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use artifacts::{ArtifactReader, ArtifactWriter, FileContext, Outcome, SchemaInfo, Shard};
use burn::tensor::Device;
use clip_model::jpeg_decoder;
use pipeline_spec::spec::{CheckpointsSpec, FeaturesSpec, Method};
use pipeline_spec::{StageSpec, Store, Unit};
use stage_cli::Cache;

use self::job::Job;
use crate::backbone::Backbone;
use crate::{Control, Error, features};

/// Where and how a unit is computed; nothing here changes what is computed.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// Where artifacts lie.
    pub store: &'a Store,
    /// Folder of checkpoint folders.
    pub weights: &'a Path,
    /// Which parts this process makes; both kinds have one.
    pub shard: Shard,
    /// Images that go through a frozen encoder together.
    pub batch: usize,
    /// A plain device.
    pub device: &'a Device,
    /// Its name, for the record.
    pub device_name: &'a str,
    /// Write the training state after every so many steps; absent: every few seconds.
    pub save_every_steps: Option<u64>,
    /// Folder for the figures of every step of a fine-tuning: JSON lines and TensorBoard event files.
    pub log_dir: Option<&'a Path>,
    /// What was read for units before.
    pub cache: &'a Cache,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The work of this shard is there.
    Done(Outcome),
    /// The work was stopped; a fine-tuning goes on from its last step next time.
    Stopped,
}

/// Computes what `unit` asks for. `control` is called with steps done and to do, and may stop the work.
///
/// # Errors
///
/// Fails if the unit is of another stage, an input does not fit, the checkpoint is not the pinned one, training diverges,
/// or the artifact cannot be written.
pub fn run(unit: &Unit, settings: &Settings<'_>, control: &mut Control<'_>) -> Result<Ending, Error> {
    let started = Instant::now();
    unit.check()?;
    let context = FileContext::new(env!("CARGO_PKG_VERSION")).with("jpeg_decoder", jpeg_decoder());
    let writer = match &unit.spec {
        StageSpec::Features(_) | StageSpec::Checkpoints(_) => {
            ArtifactWriter::open(settings.store, unit, 1, context)?
        }
        other => return Err(Error::NotMine { found: other.kind() }),
    };
    if !writer.missing_parts(settings.shard).is_empty() {
        let written = match &unit.spec {
            StageSpec::Features(spec) => write_features(unit, spec, &writer, settings, control)?,
            StageSpec::Checkpoints(spec) => write_checkpoints(unit, spec, &writer, settings, control)?,
            other => return Err(Error::NotMine { found: other.kind() }),
        };
        if !written {
            return Ok(Ending::Stopped);
        }
    }
    let outcome = writer.finish(settings.device_name, started)?;
    if matches!(outcome, Outcome::Finished(_)) {
        remove_work_dir(&settings.store.work_dir(writer.id()));
    }
    Ok(Ending::Done(outcome))
}

/// The state of a finished run is of no use; one that cannot be removed does no harm.
fn remove_work_dir(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove the training state of a finished run");
    }
}

/// `false` if `control` stopped the work.
fn write_features(
    unit: &Unit,
    spec: &FeaturesSpec,
    writer: &ArtifactWriter,
    settings: &Settings<'_>,
    control: &mut Control<'_>,
) -> Result<bool, Error> {
    let backbone = Backbone::shared(&spec.backbone, settings)?;
    let images = ArtifactReader::open(settings.store, unit.input(features::input_name(spec))?)?;
    let info = SchemaInfo {
        class_names: images.class_names()?.to_vec(),
        tensor_shape: vec![backbone.feature_width(spec.layer)],
        ..SchemaInfo::default()
    };
    let Some(rows) = features::encode(unit, spec, &backbone, settings, control)? else { return Ok(false) };
    writer.write_part(0, &rows, &info)?;
    Ok(true)
}

/// `false` if `control` stopped the work.
fn write_checkpoints(
    unit: &Unit,
    spec: &CheckpointsSpec,
    writer: &ArtifactWriter,
    settings: &Settings<'_>,
    control: &mut Control<'_>,
) -> Result<bool, Error> {
    let work_dir = settings.store.work_dir(writer.id());
    let staging = Staging::new(settings.store, writer)?;
    let (work_dir, staging) = (&*work_dir, &*staging.folder);
    let job = Job { unit, spec, settings, work_dir, staging, opened: RefCell::default() };
    let found = match &spec.method {
        Method::FineTune(method) => job.fine_tune(method, control),
        Method::ClipLora(method) => job.clip_lora(method, control),
        Method::TwoStage(method) => job.two_stage(method, control),
        Method::LatentOnly(method) => job.latent_only(method, control),
        method => job.frozen(method, control),
    }?;
    let Some(found) = found else { return Ok(false) };
    job.publish(found, writer)?;
    Ok(true)
}

/// A folder of this process alone below the store's temporary folder, removed when dropped.
struct Staging {
    folder: PathBuf,
}

impl Staging {
    fn new(store: &Store, writer: &ArtifactWriter) -> Result<Self, Error> {
        let name = format!("{}-{}-{}", writer.id().kind, writer.id().key, std::process::id());
        let folder = store.tmp_dir().join(name);
        std::fs::create_dir_all(&folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
        Ok(Self { folder })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot remove a temporary folder");
        }
    }
}
