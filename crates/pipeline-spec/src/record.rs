//! `artifact.json`: the record that makes an artifact exist.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

use crate::{ArtifactId, Digest, Error, Unit, file_blake3, file_digests};

/// Record of a finished artifact; written last, by rename.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRecord {
    /// The artifact.
    pub id: ArtifactId,
    /// What was computed from what.
    pub unit: Unit,
    /// `CODE_VERSION` of the stage.
    pub code_version: u32,
    /// Rows of all parts together.
    pub rows: u64,
    /// The files below `data/`, sorted by name.
    pub parts: Vec<PartRecord>,
    /// Bytes that the inputs had: digest of each input's parts, by input name.
    pub input_digests: BTreeMap<String, Digest>,
    /// Circumstances of the run; no part of the key.
    pub provenance: Provenance,
}

/// Record of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// File name below `data/`.
    pub file: String,
    /// Rows in it; 0 for files that have none (weights).
    pub rows: u64,
    /// Length in bytes.
    pub size_bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: Digest,
    /// SHA-256 of the file, for `sha256sum -c` and hubs; this project itself compares the other one.
    pub sha256: Digest,
}

/// Circumstances that are recorded and not hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of the stage's crate.
    pub version: String,
    /// Seconds since 1970-01-01 UTC when the record was written.
    pub finished_at_unix_s: u64,
    /// Wall time of the process that finished the artifact, in milliseconds.
    pub elapsed_ms: u64,
    /// Host name.
    pub host: String,
    /// Device of the networks, `none` for stages without one.
    pub device: String,
}

impl ArtifactRecord {
    /// Reads the record of `id`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed, or names another artifact than `id`.
    pub fn read(path: &Path, id: &ArtifactId) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let malformed = |reason| Error::Malformed { path: path.into(), what: "artifact record", reason };
        let record: Self = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        if record.id != *id {
            return Err(malformed(format!("field `id`: expected `{id}`, found `{}`", record.id)));
        }
        match record.parts.iter().find(|p| p.file.contains(['/', '\\']) || p.file.starts_with('.')) {
            Some(part) => Err(malformed(format!("field `parts`: `{}` is not a plain file name", part.file))),
            None => Ok(record),
        }
    }

    /// One digest over the digests of all parts: what the artifact's bytes are.
    pub fn content_digest(&self) -> Digest {
        let lines: String = self.parts.iter().map(|p| format!("{}\0{}\n", p.file, p.blake3)).collect();
        Digest::blake3(lines.as_bytes())
    }
}

impl PartRecord {
    /// Measures the file `file` in `folder`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn measure(folder: &Path, file: &str, rows: u64) -> Result<Self, Error> {
        let (size_bytes, blake3, sha256) = file_digests(&folder.join(file))?;
        Ok(Self { file: file.to_owned(), rows, size_bytes, blake3, sha256 })
    }

    /// Checks length and BLAKE3 of the part's file in `folder`.
    ///
    /// # Errors
    ///
    /// Fails if the file is missing or differs.
    pub fn verify(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(&self.file);
        let corrupt = |field, expected: String, found: String| {
            Err(Error::Corrupt { path: path.clone(), field, expected, found })
        };
        let size = std::fs::metadata(&path).map_err(|e| Error::io(&path, e))?.len();
        if size != self.size_bytes {
            return corrupt("length", self.size_bytes.to_string(), size.to_string());
        }
        let (_, blake3) = file_blake3(&path)?;
        if blake3 != self.blake3 {
            return corrupt("blake3", self.blake3.to_string(), blake3.to_string());
        }
        Ok(())
    }
}
