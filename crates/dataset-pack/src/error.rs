//! Why a data set cannot be packed.

use std::path::PathBuf;

/// A source that cannot be used, or a data set that is not what its manifest says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file that names images cannot be used.
    #[error("list `{}`: {problem}", path.display())]
    SplitFile {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// A source archive is not in the data folder.
    #[error("source archive `{}` is not there; run `cargo xtask fetch {dataset}`", path.display())]
    MissingSource {
        /// Where it should lie.
        path: PathBuf,
        /// The data set.
        dataset: String,
    },
    /// A source archive has other bytes than the manifest pins.
    #[error(
        "`{}` has sha256 {found}, the manifest says {expected}; delete it and run `cargo xtask fetch {dataset}`",
        path.display()
    )]
    WrongDigest {
        /// The archive.
        path: PathBuf,
        /// Digest of the manifest.
        expected: String,
        /// Digest of the file.
        found: String,
        /// The data set.
        dataset: String,
    },
    /// An archive holds something that it must not, or lacks a file.
    #[error("archive `{}`, entry `{entry}`: {problem}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Name of the entry.
        entry: String,
        /// What was expected and found.
        problem: String,
    },
    /// The manifest and the sources contradict each other.
    #[error("manifest of `{dataset}`, `{field}`: {problem}")]
    Manifest {
        /// The data set.
        dataset: String,
        /// Path of the field.
        field: String,
        /// What was expected and found, and what to do.
        problem: String,
    },
    /// A drawing cannot be rendered.
    #[error("drawing `{id}`: {problem}")]
    Drawing {
        /// Sample id.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An image file cannot be used.
    #[error("image `{}`: {problem}; replace or remove the file", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder tree is not laid out as the manifest says.
    #[error("folder `{}`: {problem}", path.display())]
    Layout {
        /// The folder or file.
        path: PathBuf,
        /// What was expected and found, and what to do.
        problem: String,
    },
    /// A split is asked for that the data set does not have.
    #[error("data set `{dataset}` has no split `{split}`; it has {known}")]
    UnknownSplit {
        /// The data set.
        dataset: String,
        /// The split asked for.
        split: String,
        /// Those it has.
        known: String,
    },
    /// A split holds another number of images than the manifest says.
    #[error(
        "split `{split}` of `{dataset}` has {found} images, the manifest expects {expected}; the sources or the split rule changed"
    )]
    Count {
        /// The data set.
        dataset: String,
        /// The split.
        split: String,
        /// Images of the manifest.
        expected: u64,
        /// Images found.
        found: u64,
    },
    /// The same picture stands in two splits.
    #[error(
        "`{first}` and `{second}` are the same picture in two splits; remove one (of emoji, put their hexcodes into one list of `series`)"
    )]
    Leak {
        /// Split and sample id.
        first: String,
        /// Split and sample id.
        second: String,
    },
    /// The manifest is not the one that the specification was made for.
    #[error(
        "`{}` has digest {found}, field `manifest_digest` of the specification says {expected}; make the plan again",
        path.display()
    )]
    ManifestDigest {
        /// The manifest.
        path: PathBuf,
        /// Digest of the specification.
        expected: String,
        /// Digest of the file.
        found: String,
    },
    /// A shot list cannot be drawn.
    #[error("cannot draw shots: {problem}")]
    Shots {
        /// What was expected and found.
        problem: String,
    },
    /// The caller asked to stop; what was committed stays.
    #[error("stopped before the last image")]
    Stopped,
    /// A specification or manifest cannot be used.
    #[error("{0}")]
    Spec(#[from] pipeline_spec::Error),
    /// An artifact cannot be read or written.
    #[error("{0}")]
    Artifact(#[from] artifacts::Error),
}

impl Error {
    /// An I/O error with its path.
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// A failure to write, with its path.
    pub(crate) fn write(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Write { path: path.into(), source }
    }
}
