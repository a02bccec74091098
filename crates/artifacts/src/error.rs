//! Why an artifact cannot be written or read.

use std::io;
use std::path::{Path, PathBuf};

use pipeline_spec::{ArtifactId, ArtifactKind};

/// A failure to write, read or verify an artifact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The artifact is not in the store, its record is malformed, or a file differs from its record.
    #[error(transparent)]
    Contract(#[from] pipeline_spec::Error),
    /// A file or folder cannot be written.
    #[error("cannot write `{}` ({})", path.display(), free_space(*free_bytes))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Bytes that were free on its file system, where that is known.
        free_bytes: Option<u64>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that was just written reads back differently: the disk or the file system is at fault.
    #[error("`{}` reads back differently from what was written; check the disk, then run the stage again", path.display())]
    ReadBack {
        /// The file.
        path: PathBuf,
    },
    /// A part differs from the record of its artifact.
    #[error("`{}`: {field} differs: expected `{expected}`, found `{found}`; delete the artifact's folder and run its stage again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What differs: `length`, `blake3`, or a field of the file metadata.
        field: String,
        /// The value of the record.
        expected: String,
        /// The value of the file.
        found: String,
    },
    /// A part has a schema that this build does not read.
    #[error("`{}`: schema version {found} of `{kind}`, this build reads {expected}; use the build that wrote it or run its stage again", path.display())]
    SchemaVersion {
        /// The file.
        path: PathBuf,
        /// The kind.
        kind: ArtifactKind,
        /// Version of this build.
        expected: u32,
        /// Version of the file.
        found: String,
    },
    /// A part has the right digest and is no Parquet file that can be read.
    #[error("`{}` is not a readable Parquet file: {reason}", path.display())]
    Unparsable {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        reason: String,
    },
    /// A column of a part is missing, has another type, or holds a value that it must not hold.
    #[error("`{}`: column `{column}` {problem}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What was expected and found.
        problem: String,
    },
    /// Rows of one kind were asked of an artifact of another kind.
    #[error("artifact `{id}` holds `{found}`, expected `{expected}`")]
    Kind {
        /// The artifact.
        id: Box<ArtifactId>,
        /// The kind asked for.
        expected: ArtifactKind,
        /// The kind it has.
        found: ArtifactKind,
    },
    /// A row must not be written as it is.
    #[error("`{kind}` row {row}: column `{column}` {problem}")]
    Value {
        /// Kind of the artifact.
        kind: ArtifactKind,
        /// Index of the row in its part.
        row: usize,
        /// The column.
        column: &'static str,
        /// What was expected and found.
        problem: String,
    },
    /// The description of a part (class names, tensor shape, metadata) does not fit its kind.
    #[error("`{kind}`: {field} {problem}")]
    Info {
        /// Kind of the artifact.
        kind: ArtifactKind,
        /// `class_names`, `tensor_shape` or a metadata key.
        field: String,
        /// What was expected and found.
        problem: String,
    },
    /// A part index is not one of the artifact's parts.
    #[error("part {index} does not exist: `{id}` has {num_parts} parts, counted from 0")]
    PartIndex {
        /// The artifact.
        id: Box<ArtifactId>,
        /// The index given.
        index: u32,
        /// Parts that the artifact has.
        num_parts: u32,
    },
    /// The parts together are not a complete artifact.
    #[error("artifact `{id}` is not complete: {problem}")]
    Incomplete {
        /// The artifact.
        id: Box<ArtifactId>,
        /// What is missing.
        problem: String,
    },
    /// A file of weights that the artifact does not have.
    #[error("artifact `{id}` has no file `{file}`; it has {present}")]
    NoSuchFile {
        /// The artifact.
        id: Box<ArtifactId>,
        /// The name asked for.
        file: String,
        /// The names it has.
        present: String,
    },
    /// A shard that cannot be understood.
    #[error("`{found}` is not a shard: expected `I/N` with I from 0 to N-1, for example `0/4`")]
    Shard {
        /// The text given.
        found: String,
    },
    /// Rows cannot be encoded.
    #[error("`{kind}` rows cannot be encoded as Parquet: {reason}")]
    Encode {
        /// Kind of the artifact.
        kind: ArtifactKind,
        /// What the encoder found.
        reason: String,
    },
}

impl Error {
    /// A write error on `path`, with the space that is free there.
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        let existing = path.ancestors().find(|p| p.exists());
        let free_bytes = existing
            .and_then(|p| rustix::fs::statvfs(p).ok())
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        Self::Write { path: path.to_owned(), free_bytes, source }
    }

    /// A read error on `path`.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}

/// Free space as text for people.
fn free_space(free_bytes: Option<u64>) -> String {
    match free_bytes {
        Some(bytes) => format!("{:.1} MiB free there", bytes as f64 / (1024.0 * 1024.0)),
        None => "free space there unknown".to_owned(),
    }
}
