//! Why latents cannot be made.

use std::path::PathBuf;

use pipeline_spec::{ArtifactKind, Digest};

/// A failure of the stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The prompts cannot be read or the latents cannot be written.
    #[error("{0}")]
    Artifact(#[from] artifacts::Error),
    /// The unit or the checkpoint folder cannot be used.
    #[error("{0}")]
    Contract(#[from] pipeline_spec::Error),
    /// Stable Diffusion cannot be loaded or run.
    #[error("{0}")]
    Model(#[from] sd_model::Error),
    /// The stage was asked for a kind that it does not write.
    #[error("`sd-latents` writes `latents`, the spec asks for `{found}`; run `{stage}` on it", stage = found.stage())]
    NotMine {
        /// The kind asked for.
        found: ArtifactKind,
    },
    /// A checkpoint folder is not the one that the spec pins.
    #[error(
        "`{}`: field `checkpoint.digest` of the spec expects {expected}, the folder has {found}; \
         restore the checkpoint, or make the plan again to use the changed one", path.display()
    )]
    Checkpoint {
        /// The folder.
        path: PathBuf,
        /// Digest in the spec.
        expected: Digest,
        /// Digest of the folder.
        found: Digest,
    },
    /// A prompt does not fit the text encoder.
    #[error(
        "class `{class_name}`, prompt {prompt_index} has {num_tokens} tokens, the text encoder takes {limit}: \
         shorten it (`{prompt}`)"
    )]
    PromptTooLong {
        /// The class.
        class_name: String,
        /// Position of the prompt in the class.
        prompt_index: u32,
        /// The prompt.
        prompt: String,
        /// Its tokens, with start and end.
        num_tokens: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// The negative prompt does not fit the text encoder.
    #[error("field `negative_prompt` has {num_tokens} tokens, the text encoder takes {limit}: shorten it")]
    NegativePromptTooLong {
        /// Its tokens, with start and end.
        num_tokens: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// A batch of no samples was asked for.
    #[error("`--batch` is 0: expected at least 1")]
    EmptyBatch,
    /// There are more parts than samples.
    #[error("field `num_parts`: expected at most {num_rows}, the number of samples, found `{num_parts}`")]
    TooManyParts {
        /// Parts asked for.
        num_parts: u32,
        /// Samples there are.
        num_rows: usize,
    },
    /// A sample came out unusable.
    #[error(
        "{sample}: its latent {problem}; nothing of the part was written: check the checkpoint, \
         and try a lower `guidance_scale`"
    )]
    BadSample {
        /// Class, prompt and sample.
        sample: String,
        /// What is wrong.
        problem: String,
    },
    /// An image cannot be encoded, or does not decode again.
    #[error("{sample}: its image cannot be encoded as PNG and read back")]
    Image {
        /// Class, prompt and sample.
        sample: String,
        /// What the codec said.
        #[source]
        source: image::ImageError,
    },
    /// An image of the artifact does not decode.
    #[error("image `{name}` of the artifact does not decode; run `cargo xtask verify`")]
    Decode {
        /// The image's file name.
        name: String,
        /// What the decoder said.
        #[source]
        source: image::ImageError,
    },
    /// The sheet cannot be written.
    #[error("cannot write `{}`", path.display())]
    Sheet {
        /// The file.
        path: PathBuf,
        /// What the encoder or the system said.
        #[source]
        source: image::ImageError,
    },
    /// A sheet of nothing was asked for.
    #[error("artifact `{id}` has no rows to show")]
    NothingToShow {
        /// The artifact.
        id: String,
    },
}
