//! What `prompt-gen` writes.

use serde::{Deserialize, Serialize};

use super::expect;
use crate::{DatasetId, Digest, Error};

/// Bump when the same spec would yield different prompts.
pub const CODE_VERSION: u32 = 1;

/// Prompts for every class of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptsSpec {
    /// Data set whose class names are used.
    pub dataset: DatasetId,
    /// Digest of `data-manifests/<dataset>.toml`.
    pub manifest_digest: Digest,
    /// Where the prompts come from.
    pub provider: PromptProvider,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PromptProvider {
    /// Each template with `{}` replaced by the class name.
    Templates {
        /// Templates, each with one `{}`.
        templates: Vec<String>,
    },
    /// A JSON file of CuPL or CaFo: an object from class name to a list of prompts.
    File {
        /// Name for people, for example `cupl`.
        name: String,
        /// Path, relative to the folder where the tool runs.
        path: String,
        /// BLAKE3 of the file.
        digest: Digest,
    },
}

impl PromptsSpec {
    pub(super) fn slug(&self) -> String {
        match &self.provider {
            PromptProvider::Templates { templates } => format!("templates-{}", templates.len()),
            PromptProvider::File { name, .. } => format!("file-{name}"),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let PromptProvider::Templates { templates } = &self.provider else { return Ok(()) };
        expect(!templates.is_empty(), "provider.templates", "at least one template", "[]")?;
        templates.iter().try_for_each(|template| {
            let holes = template.matches("{}").count();
            expect(holes == 1, "provider.templates", "exactly one `{}` in each template", template)
        })
    }
}
