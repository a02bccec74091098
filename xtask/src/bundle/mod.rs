//! Artifacts on their way from one store to another: a folder, or one `.tar.zst` file.
//!
//! ```text
//! flier-bundle.json                       what is in it
//! store/<kind>-v<schema>/<dataset>/...    the artifacts, as in a store
//! data-manifests/<dataset>.toml           \
//! models/<checkpoint>/...                  } what the keys were made from
//! pipelines/<name>.toml, prompt files     /
//! ```

pub mod export;
pub mod import;

use pipeline_spec::{ArtifactId, CheckpointRef, Digest};
use serde::{Deserialize, Serialize};

/// The file that says what is in a bundle.
const CONTENTS_FILE: &str = "flier-bundle.json";
/// Version of the layout.
const FORMAT: u32 = 1;

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// Version of the layout.
    format: u32,
    /// The artifacts; each stands after what it reads.
    artifacts: Vec<ArtifactId>,
    /// Checkpoint folders below `models/`.
    checkpoints: Vec<CheckpointRef>,
    /// Other files, with the BLAKE3 of each: manifests, the pipeline, prompt files.
    files: Vec<BundledFile>,
    /// The plan of a whole result.
    plan: Option<String>,
}

/// A file that keys were made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundledFile {
    /// Its path in the bundle and, where it belongs, in the workspace.
    path: String,
    /// Its digest.
    blake3: Digest,
}

/// Whether `path` is relative and stays below where it is joined to.
fn is_below(path: &std::path::Path) -> bool {
    let mut components = path.components();
    path.components().next().is_some()
        && components.all(|component| matches!(component, std::path::Component::Normal(_)))
}
