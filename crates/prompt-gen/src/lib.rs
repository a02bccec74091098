//! The `prompt-gen` stage: class names in, prompts out.
//!
//! Reads the data manifest, whose digest the spec pins, and writes the `prompts` artifact in one part: classes in label
//! order, within a class the order of the templates, of the file or of the commands, every prompt once.

mod class_prompts;
mod error;
mod language_model;
pub mod prompt_file;
pub mod template;

use std::path::Path;
use std::time::Instant;

use artifacts::{ArtifactWriter, FileContext, Outcome, PromptRow, SchemaInfo, Shard};
use pipeline_spec::data_manifest::DataManifest;
use pipeline_spec::spec::{PromptProvider, PromptsSpec};
use pipeline_spec::{StageSpec, Store, Unit};
use serde_json::Value;
use stage_cli::{Interrupted, Progress};

pub use error::Error;
pub use language_model::{ApiKey, Price, ServerArgs};

/// Where and how prompts are made; nothing here changes which are asked for.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The store.
    pub store: &'a Store,
    /// Folder of the data manifests.
    pub manifests: &'a Path,
    /// The server of a language model.
    pub server: &'a ServerArgs,
}

/// What the caller wants to know and to say while prompts are made.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// `Err` if the work should stop.
    pub check_interrupted: &'a dyn Fn() -> Result<(), Interrupted>,
    /// Shows progress over so many answers.
    pub progress: &'a dyn Fn(u64) -> Progress,
}

/// Writes the prompts that `unit` asks for, unless they are there; `shard` decides whether this process does it.
///
/// # Errors
///
/// Fails if the unit is of another stage, its inputs are not what it pins, a language model does not answer, or the
/// artifact cannot be written.
pub fn run(unit: &Unit, shard: Shard, settings: Settings<'_>, watch: Watch<'_>) -> Result<Outcome, Error> {
    let started = Instant::now();
    let spec = spec_of(unit)?;
    let writer = ArtifactWriter::open(settings.store, unit, 1, FileContext::new(env!("CARGO_PKG_VERSION")))?;
    if !writer.missing_parts(shard).is_empty() {
        let (class_names, rows) = prompts(spec, settings, watch)?;
        tracing::info!(classes = class_names.len(), prompts = rows.len(), "made prompts");
        writer.write_part(0, &rows, &SchemaInfo { class_names, ..SchemaInfo::default() })?;
    }
    Ok(writer.finish("none", started)?)
}

/// The class names and prompts of `spec`.
///
/// # Errors
///
/// Fails if the manifest or the prompt file is not the pinned one or cannot be used, or a language model does not answer.
pub fn prompts(
    spec: &PromptsSpec,
    settings: Settings<'_>,
    watch: Watch<'_>,
) -> Result<(Vec<String>, Vec<PromptRow>), Error> {
    let class_names = class_names(spec, settings.manifests)?;
    let rows = match &spec.provider {
        PromptProvider::Templates { templates } => template::expand(&class_names, templates),
        PromptProvider::File { path, digest, .. } => {
            prompt_file::read(Path::new(path), digest, &class_names)?
        }
        PromptProvider::Openai(model) => {
            let journal = settings.store.answers_path(&spec.dataset, &model.model);
            language_model::prompts(model, &class_names, &journal, settings.server, &watch)?
        }
    };
    Ok((class_names, rows))
}

/// What `unit` would ask a language model, as JSON; `None` if it asks none.
///
/// # Errors
///
/// Fails if the manifest or the answers that are there cannot be read.
pub fn forecast(unit: &Unit, settings: Settings<'_>) -> Result<Option<Value>, Error> {
    let spec = spec_of(unit)?;
    let PromptProvider::Openai(model) = &spec.provider else { return Ok(None) };
    let class_names = class_names(spec, settings.manifests)?;
    let journal = settings.store.answers_path(&spec.dataset, &model.model);
    language_model::forecast(model, &class_names, &journal, settings.server).map(Some)
}

fn spec_of(unit: &Unit) -> Result<&PromptsSpec, Error> {
    match &unit.spec {
        StageSpec::Prompts(spec) => Ok(spec),
        other => Err(Error::NotMine { found: other.kind() }),
    }
}

/// The class names of the pinned manifest, by label.
fn class_names(spec: &PromptsSpec, manifests: &Path) -> Result<Vec<String>, Error> {
    let path = manifests.join(format!("{}.toml", spec.dataset));
    let (manifest, found) = DataManifest::read(&path)?;
    if found != spec.manifest_digest {
        let expected = spec.manifest_digest.clone();
        return Err(Error::Digest { path, field: "manifest_digest", expected, found });
    }
    if manifest.dataset != spec.dataset {
        let (expected, found) = (spec.dataset.to_string(), manifest.dataset.to_string());
        return Err(Error::Dataset { path, expected, found });
    }
    let names = manifest.class_names().ok_or(Error::NoClasses { path })?;
    Ok(names.into_iter().map(str::to_owned).collect())
}
