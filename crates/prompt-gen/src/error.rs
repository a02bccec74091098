//! Why prompts cannot be made.

use std::path::{Path, PathBuf};

use pipeline_spec::{ArtifactKind, Digest};

/// A failure of the stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The artifact cannot be written.
    #[error("{0}")]
    Artifact(#[from] artifacts::Error),
    /// The unit or the data manifest cannot be used.
    #[error("{0}")]
    Contract(#[from] pipeline_spec::Error),
    /// The stage was asked for a kind that it does not write.
    #[error("`prompt-gen` writes `prompts`, the spec asks for `{found}`; run `{stage}` on it", stage = found.stage())]
    NotMine {
        /// The kind asked for.
        found: ArtifactKind,
    },
    /// A file is not the one that the spec pins.
    #[error(
        "`{}`: field `{field}` of the spec expects the BLAKE3 digest {expected}, the file has {found}; \
         restore the file, or make the plan again to use the changed one", path.display()
    )]
    Digest {
        /// The file.
        path: PathBuf,
        /// Field of the spec.
        field: &'static str,
        /// Digest in the spec.
        expected: Digest,
        /// Digest of the file.
        found: Digest,
    },
    /// The manifest does not list its classes.
    #[error("`{}` lists no classes; name them under `[form.folder]` `classes`, prompts need their names", path.display())]
    NoClasses {
        /// The manifest.
        path: PathBuf,
    },
    /// The manifest is that of another data set.
    #[error("`{}`: field `dataset`: expected `{expected}`, found `{found}`", path.display())]
    Dataset {
        /// The manifest.
        path: PathBuf,
        /// Data set of the spec.
        expected: String,
        /// Data set of the manifest.
        found: String,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A prompt file does not have the form of CuPL and CaFo.
    #[error(
        "`{}` is not a prompt file: expected a JSON object from class name to a list of prompts, {reason}", path.display()
    )]
    PromptFile {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A class of the data set has no prompts in the file.
    #[error(
        "`{}`: no entry for {} `{}`: expected one for every class of the data set; add them, \
         or rename the entries to the names of the data manifest",
        path.display(), plural(classes.len()), classes.join("`, `")
    )]
    MissingClasses {
        /// The file.
        path: PathBuf,
        /// The classes.
        classes: Vec<String>,
    },
    /// The file has an entry for a class that the data set does not have.
    #[error(
        "`{}`: entries for unknown {} `{}`: remove them, or rename them to the names of the data manifest",
        path.display(), plural(classes.len()), classes.join("`, `")
    )]
    UnknownClasses {
        /// The file.
        path: PathBuf,
        /// The entries.
        classes: Vec<String>,
    },
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "class" } else { "classes" }
}

impl Error {
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn prompt_file(path: &Path, reason: impl Into<String>) -> Self {
        Self::PromptFile { path: path.to_owned(), reason: reason.into() }
    }
}
