//! Why a configuration, a checkpoint or a request cannot be used.

use std::path::{Path, PathBuf};

/// What can go wrong while a Stable Diffusion model is configured, loaded, saved or sampled.
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
    /// A configuration file is not a JSON object.
    #[error("`{}` is not a JSON configuration file", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A field of a configuration is missing, malformed, or has a value this crate does not implement.
    #[error("`{origin}`: field `{field}`: expected {expected}, found {found}")]
    Config {
        /// The file, or the name of the type for a configuration built in memory.
        origin: String,
        /// The field.
        field: String,
        /// What is accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A tensor given to the sampler has the wrong shape.
    #[error("`{what}` has the wrong shape: expected {expected}, found {found:?}")]
    Shape {
        /// Which argument.
        what: &'static str,
        /// The accepted shape, in axis letters and numbers.
        expected: String,
        /// The shape given.
        found: Vec<usize>,
    },
    /// The number of denoising steps does not fit the schedule.
    #[error(
        "`num_inference_steps` is `{found}`: expected 1 to {limit} with `timestep_spacing` `{spacing}`; \
         choose another number of steps"
    )]
    NumInferenceSteps {
        /// The number asked for.
        found: usize,
        /// The largest number that keeps every timestep inside the schedule.
        limit: usize,
        /// The spacing of the schedule.
        spacing: String,
    },
    /// A sampler adds noise in its steps and was given none.
    #[error("`{scheduler}` adds noise in its steps: give `step_noise`, or choose a scheduler that does not")]
    StepNoise {
        /// The sampler.
        scheduler: &'static str,
    },
    /// A folder or a file lacks a part of the model.
    #[error("`{}` has no {component}: expected {expected}; fetch the whole checkpoint again", path.display())]
    MissingComponent {
        /// The folder or the file.
        path: PathBuf,
        /// The part, by its name in diffusers.
        component: &'static str,
        /// Where it would be.
        expected: String,
    },
    /// The file name of a single-file checkpoint does not tell what its UNet predicts.
    #[error(
        "`{}` is a Stable Diffusion 2 checkpoint whose name is not a published one, so it may predict noise or velocity; \
         put its `{expected}` beside it", path.display()
    )]
    UnknownPrediction {
        /// The file.
        path: PathBuf,
        /// The file that would tell.
        expected: &'static str,
    },
    /// No published checkpoint of this name.
    #[error("unknown checkpoint `{name}`; known: {}", known.join(", "))]
    UnknownCheckpoint {
        /// The name.
        name: String,
        /// The known names.
        known: Vec<String>,
    },
    /// No prompt was given.
    #[error("no prompt to encode: give at least one, an empty text is allowed")]
    NoPrompt,
    /// The text encoder, its tokenizer or a weight file cannot be used.
    #[error(transparent)]
    Clip(#[from] clip_model::Error),
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    pub(crate) fn config(origin: &str, field: &str, expected: impl ToString, found: impl ToString) -> Self {
        Self::Config {
            origin: origin.to_owned(),
            field: field.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}
