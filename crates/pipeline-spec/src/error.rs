//! Why a specification, a plan or a record cannot be used.

use std::path::PathBuf;

/// An unusable specification, plan, record or file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A TOML or JSON file does not have the form it should have.
    #[error("`{}` is not a valid {what}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What the parser found, with the field.
        reason: String,
    },
    /// An identifier has characters that a path or a key must not have.
    #[error("`{found}` is not a valid {what}: expected {expected}")]
    InvalidId {
        /// Which identifier.
        what: &'static str,
        /// The text given.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A unit lacks an input, or names one its stage does not read.
    #[error("unit `{unit}`: input `{input}` {problem}")]
    Input {
        /// The unit's output.
        unit: String,
        /// The input's name.
        input: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// A value of a specification is out of range.
    #[error("field `{field}`: {problem}")]
    Field {
        /// Path of the field.
        field: String,
        /// What was expected and found.
        problem: String,
    },
    /// A file of an artifact differs from its record.
    #[error("`{}`: {field} differs: the record says {expected}, the file has {found}; delete the artifact's folder and run its stage again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// `length`, `blake3` or `sha256`.
        field: &'static str,
        /// Value of the record.
        expected: String,
        /// Value of the file.
        found: String,
    },
    /// An artifact that is needed is not in the store.
    #[error("artifact `{id}` is not in the store `{}`; run its stage first (`cargo xtask status` names the command)", store.display())]
    MissingArtifact {
        /// The artifact.
        id: String,
        /// Root of the store.
        store: PathBuf,
    },
}

impl Error {
    /// An I/O error with its path.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
