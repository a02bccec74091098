//! The `prompt-gen` stage: class names in, prompts out.
//!
//! Reads the data manifest, whose digest the spec pins, and writes the `prompts` artifact in one part: classes in label
//! order, within a class the order of the templates or of the file, every prompt once.

mod class_prompts;
mod error;
pub mod prompt_file;
pub mod template;

use std::path::Path;
use std::time::Instant;

use artifacts::{ArtifactWriter, FileContext, Outcome, PromptRow, SchemaInfo, Shard};
use pipeline_spec::data_manifest::DataManifest;
use pipeline_spec::spec::{PromptProvider, PromptsSpec};
use pipeline_spec::{StageSpec, Store, Unit};

pub use error::Error;

/// Writes the prompts that `unit` asks for, unless they are there; `shard` decides whether this process does it.
///
/// # Errors
///
/// Fails if the unit is of another stage, its inputs are not what it pins, or the artifact cannot be written.
pub fn run(unit: &Unit, store: &Store, shard: Shard, manifests: &Path) -> Result<Outcome, Error> {
    let started = Instant::now();
    let StageSpec::Prompts(spec) = &unit.spec else { return Err(Error::NotMine { found: unit.spec.kind() }) };
    let writer = ArtifactWriter::open(store, unit, 1, FileContext::new(env!("CARGO_PKG_VERSION")))?;
    if !writer.missing_parts(shard).is_empty() {
        let (class_names, rows) = prompts(spec, manifests)?;
        tracing::info!(classes = class_names.len(), prompts = rows.len(), "made prompts");
        writer.write_part(0, &rows, &SchemaInfo { class_names, ..SchemaInfo::default() })?;
    }
    Ok(writer.finish("none", started)?)
}

/// The class names and prompts of `spec`.
///
/// # Errors
///
/// Fails if the manifest or the prompt file is not the pinned one or cannot be used.
pub fn prompts(spec: &PromptsSpec, manifests: &Path) -> Result<(Vec<String>, Vec<PromptRow>), Error> {
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
    let class_names = manifest.class_names().ok_or(Error::NoClasses { path })?;
    let rows = match &spec.provider {
        PromptProvider::Templates { templates } => template::expand(&class_names, templates),
        PromptProvider::File { path, digest, .. } => {
            prompt_file::read(Path::new(path), digest, &class_names)?
        }
    };
    Ok((class_names.into_iter().map(str::to_owned).collect(), rows))
}
