//! Why latents cannot be made.

use std::path::PathBuf;

use pipeline_spec::{ArtifactId, ArtifactKind, Digest};

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
    /// CLIP cannot be loaded or run.
    #[error("{0}")]
    Clip(#[from] clip_model::Error),
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
         shorten it (`{prompt}`), or set `options.long_prompts = \"truncate\"`"
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
    #[error(
        "the negative prompt has {num_tokens} tokens, the text encoder takes {limit}: shorten it, or set \
         `options.long_prompts = \"truncate\"`"
    )]
    NegativePromptTooLong {
        /// Its tokens, with start and end.
        num_tokens: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// A batch of no samples was asked for.
    #[error("`--batch` is 0: expected at least 1")]
    EmptyBatch,
    /// There are more parts than samples, or than classes where samples are selected by class.
    #[error("field `num_parts`: expected at most {count}, the number of {what}, found `{num_parts}`")]
    TooManyParts {
        /// Parts asked for.
        num_parts: u32,
        /// How many there are.
        count: usize,
        /// Of what.
        what: &'static str,
    },
    /// A class has fewer samples than are to be kept.
    #[error(
        "field `selection.keep_per_class`: expected at most {found}, the samples of class `{class_name}`, \
         found `{expected}`"
    )]
    TooFewSamples {
        /// The class.
        class_name: String,
        /// Samples to be kept.
        expected: u32,
        /// Samples there are.
        found: usize,
    },
    /// The image size does not fit the autoencoder.
    #[error(
        "{what} is {found}: expected a multiple of {multiple}, the scale of the checkpoint's autoencoder"
    )]
    ImageSize {
        /// Field or argument.
        what: &'static str,
        /// Pixels asked for.
        found: u32,
        /// Pixels of one position of a latent.
        multiple: u32,
    },
    /// The images have none of a split that is to be encoded.
    #[error("artifact `{artifact}` has no image of split `{split}`, which field `splits` names")]
    MissingSplit {
        /// The images.
        artifact: Box<ArtifactId>,
        /// The split.
        split: String,
    },
    /// An image cannot be encoded.
    #[error("artifact `{artifact}`: image `{sample_id}` {problem}")]
    ImageRow {
        /// The images.
        artifact: Box<ArtifactId>,
        /// The image.
        sample_id: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of noise cannot be used.
    #[error("`{}`: {problem}", path.display())]
    Noise {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A sample came out unusable.
    #[error(
        "{sample}: its latent {problem}; nothing of the part was written: check the checkpoint, \
         and try a lower `guidance_scale` or f32"
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
    /// The page of a gallery cannot be made.
    #[error("cannot make the page")]
    Page(#[source] minijinja::Error),
    /// A gallery would lie among other files.
    #[error("`{}` is not empty; name a new folder for the gallery", path.display())]
    GalleryFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A sheet has too many pixels.
    #[error(
        "the sheet would have {width} x {height} pixels: lower `--per-class` or `--tile`, or show one `--part`"
    )]
    SheetTooLarge {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// A part is not committed.
    #[error("artifact `{id}` has no committed part {part}; run `sd-latents` on its unit")]
    NoPart {
        /// The artifact.
        id: String,
        /// The part.
        part: u32,
    },
    /// A sheet of nothing was asked for.
    #[error("artifact `{id}` has no rows to show")]
    NothingToShow {
        /// The artifact.
        id: String,
    },
}
