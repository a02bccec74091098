//! Why a training or an evaluation cannot run.

use std::path::{Path, PathBuf};

/// What can go wrong while models are trained and evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A recipe is not the TOML that is expected.
    #[error("`{}` is not a recipe of `{kind}`", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// The kind of recipe that was asked for.
        kind: &'static str,
        /// What the parser said, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A field of a recipe has an impossible value.
    #[error("recipe field `{field}`: expected {expected}, found `{found}`")]
    Field {
        /// The field.
        field: &'static str,
        /// What is accepted.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A JSON file of a state folder or a model folder cannot be read.
    #[error("`{}` is not {expected}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// An image cannot be used.
    #[error("image `{sample_id}`: expected {expected}, found {found}")]
    Image {
        /// The image.
        sample_id: String,
        /// What is accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The images hold nothing of a split.
    #[error("no image of split `{split}` in `{origin}`; pack the data set with that split")]
    EmptySplit {
        /// The split.
        split: String,
        /// Where the images come from.
        origin: String,
    },
    /// The split that is trained on has no labelled image.
    #[error("no labelled image in split `{split}`; a share of labelled images cannot be drawn")]
    NoLabel {
        /// The split.
        split: String,
    },
    /// A training state belongs to another recipe, data set or device.
    #[error(
        "the state in `{}` was made with {field} `{found}`, this run has `{expected}`; choose another `--state` folder or remove it",
        path.display()
    )]
    OtherRun {
        /// The state folder.
        path: PathBuf,
        /// What differs.
        field: &'static str,
        /// This run's value.
        expected: String,
        /// The state's value.
        found: String,
    },
    /// The loss is not a number any more.
    #[error("the loss is `{loss}` at step {step}; lower `learning_rate` or start again")]
    Diverged {
        /// The step.
        step: usize,
        /// The loss.
        loss: f32,
    },
    /// Saved parameters or optimizer state cannot be used.
    #[error("cannot save or load the training state `{}`: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What burn said.
        reason: String,
    },
    /// An image cannot be encoded as PNG.
    #[error("cannot write the image `{}`", path.display())]
    Png {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        #[source]
        source: image::ImageError,
    },
    /// The CLIP cannot be built, loaded or saved.
    #[error(transparent)]
    Clip(#[from] clip_model::Error),
    /// The autoencoder, UNet or scheduler cannot be built, loaded or saved.
    #[error(transparent)]
    Diffusion(#[from] sd_model::Error),
    /// An artifact cannot be read.
    #[error(transparent)]
    Artifact(#[from] artifacts::Error),
    /// An artifact's name or record is malformed.
    #[error(transparent)]
    Spec(#[from] pipeline_spec::Error),
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn record(path: &Path, reason: impl ToString) -> Self {
        Self::Record { path: path.to_path_buf(), reason: reason.to_string() }
    }

    pub(crate) fn field(field: &'static str, expected: &'static str, found: impl ToString) -> Self {
        Self::Field { field, expected, found: found.to_string() }
    }
}
