//! Where an artifact lies. Only this file joins paths of a store.
//!
//! ```text
//! <store>/<kind>-v<schema>/<dataset>/<slug>-<key>/artifact.json
//!                                                /data/part-00000-of-00004.parquet
//!                                                /commit/part-00000-of-00004.json
//! <store>/plans/<plan>/plan.json, unit-00000.json
//!                      /jobs/   jobs of a scheduler that compute it: scripts, records, logs
//! <store>/work/<key>/           training state of a run that is not finished
//! <store>/answers/<dataset>/<model>.jsonl    what language models answered
//! <store>/logs/<key>.log        what the unit's stage said
//! <store>/tmp/                  unfinished files
//! ```

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{ArtifactKind, ArtifactRecord, DatasetId, Error, Key, ids::is_slug, ids::slug_of};

/// Name of one artifact; its text form is its path below the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactId {
    /// What it holds.
    pub kind: ArtifactKind,
    /// Which data set.
    pub dataset: DatasetId,
    /// A name for people; never parsed for its meaning.
    pub slug: String,
    /// What identifies it.
    pub key: Key,
}

impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, dataset, slug, key } = self;
        write!(f, "{kind}-v{}/{dataset}/{slug}-{key}", kind.schema_version())
    }
}

impl FromStr for ArtifactId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidId {
            what: "artifact name",
            found: text.to_owned(),
            expected: "`<kind>-v<schema>/<dataset>/<slug>-<key>` of a schema version that this build knows",
        };
        let [kind, dataset, name] = *text.split('/').collect::<Vec<_>>() else { return Err(invalid()) };
        let kind = ArtifactKind::ALL
            .into_iter()
            .find(|k| kind == format!("{k}-v{}", k.schema_version()))
            .ok_or_else(invalid)?;
        let (slug, key) = name.rsplit_once('-').ok_or_else(invalid)?;
        if !is_slug(slug) {
            return Err(invalid());
        }
        Ok(Self {
            kind,
            dataset: DatasetId::try_from(dataset.to_owned())?,
            slug: slug.to_owned(),
            key: Key::try_from(key.to_owned())?,
        })
    }
}

impl TryFrom<String> for ArtifactId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ArtifactId> for String {
    fn from(id: ArtifactId) -> Self {
        id.to_string()
    }
}

/// A folder that holds artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store at `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of an artifact.
    pub fn artifact_dir(&self, id: &ArtifactId) -> PathBuf {
        self.root.join(id.to_string())
    }

    /// Folder of an artifact's parts.
    pub fn data_dir(&self, id: &ArtifactId) -> PathBuf {
        self.artifact_dir(id).join("data")
    }

    /// Folder of the side records of an artifact's parts.
    pub fn commit_dir(&self, id: &ArtifactId) -> PathBuf {
        self.artifact_dir(id).join("commit")
    }

    /// The record that makes an artifact exist.
    pub fn record_path(&self, id: &ArtifactId) -> PathBuf {
        self.artifact_dir(id).join("artifact.json")
    }

    /// Folder of unfinished files.
    pub fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Folder of the state of an unfinished run.
    pub fn work_dir(&self, id: &ArtifactId) -> PathBuf {
        self.root.join("work").join(id.key.as_str())
    }

    /// What the language model `model` answered about the classes of `dataset`. It is paid for and outlives the artifact.
    pub fn answers_path(&self, dataset: &DatasetId, model: &str) -> PathBuf {
        self.root.join("answers").join(dataset.as_str()).join(slug_of(model)).with_extension("jsonl")
    }

    /// Folder of the logs of units, one file per key.
    pub fn logs_dir(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Log of the unit that yields `id`.
    pub fn log_path(&self, id: &ArtifactId) -> PathBuf {
        self.logs_dir().join(format!("{}.log", id.key))
    }

    /// Folder of the plan with this id.
    pub fn plan_dir(&self, plan_id: &str) -> PathBuf {
        self.plans_dir().join(plan_id)
    }

    /// Folder of the jobs that compute the plan with this id.
    pub fn jobs_dir(&self, plan_id: &str) -> PathBuf {
        self.plan_dir(plan_id).join("jobs")
    }

    /// Folder of all plans.
    pub fn plans_dir(&self) -> PathBuf {
        self.root.join("plans")
    }

    /// Whether the artifact is finished: its record can be read and every part is there with its length.
    ///
    /// Says nothing about changed bytes: see [`crate::PartRecord::verify`]. A part that was lost makes the artifact
    /// unfinished, so its stage writes that part again.
    pub fn contains(&self, id: &ArtifactId) -> bool {
        let Ok(record) = ArtifactRecord::read(&self.record_path(id), id) else { return false };
        let data = self.data_dir(id);
        record.parts.iter().all(|part| {
            std::fs::metadata(data.join(&part.file)).is_ok_and(|m| m.is_file() && m.len() == part.size_bytes)
        })
    }

    /// The record of a finished artifact.
    ///
    /// # Errors
    ///
    /// Fails if the artifact is not in the store or its record cannot be read or names another artifact.
    pub fn record(&self, id: &ArtifactId) -> Result<ArtifactRecord, Error> {
        if !self.record_path(id).is_file() {
            return Err(Error::MissingArtifact { id: id.to_string(), store: self.root.clone() });
        }
        ArtifactRecord::read(&self.record_path(id), id)
    }
}

/// File name of part `index` of `count`, for example `part-00003-of-00016.parquet`.
pub fn part_name(index: u32, count: u32, extension: &str) -> String {
    format!("part-{index:05}-of-{count:05}.{extension}")
}
