//! Identifiers that stand in specifications and paths.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::{Digest, Error};

/// Seed of a random stream.
pub type Seed = u64;
/// Number of labelled real images per class.
pub type Shots = u32;

/// Name of a data set, as in CoOp (`oxford_pets`, `emoji`): lower-case letters, digits, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetId(String);

impl DatasetId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DatasetId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        if is_slug(&text) {
            Ok(Self(text))
        } else {
            Err(Error::InvalidId {
                what: "data set name",
                found: text,
                expected: "1 to 100 of a-z, 0-9, `_`, `-`",
            })
        }
    }
}

impl From<DatasetId> for String {
    fn from(id: DatasetId) -> Self {
        id.0
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` can be a component of an artifact's path: 1 to 100 of a-z, 0-9, `_`, `-`.
pub fn is_slug(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// `text` as a component of a path for people: every other character is `-`, none twice in a row, at most 80.
pub fn slug_of(text: &str) -> String {
    let mut slug = String::new();
    for c in text.to_lowercase().chars() {
        let c = if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '-' };
        if slug.len() < 80 && !(c == '-' && (slug.is_empty() || slug.ends_with('-'))) {
            slug.push(c);
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "unnamed".to_owned() } else { slug.to_owned() }
}

/// Weights that exist before the pipeline runs: a folder under `--weights`, pinned by the digest of its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRef {
    /// Folder name below the weights folder, for example `emoji-clip-vit`.
    pub id: String,
    /// [`crate::checkpoint_digest`] of that folder.
    pub digest: Digest,
}

/// Key of an artifact: 32 hexadecimal digits of a BLAKE3 digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

impl Key {
    /// The key as hexadecimal text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Key {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        if text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(Self(text))
        } else {
            Err(Error::InvalidId { what: "key", found: text, expected: "32 lower-case hexadecimal digits" })
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
