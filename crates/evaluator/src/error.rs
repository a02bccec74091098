//! Why predictions, metrics or a report cannot be made.

use std::path::PathBuf;

use pipeline_spec::{ArtifactId, ArtifactKind, Digest};

/// A failure of the stage or of the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An artifact cannot be read or written.
    #[error("{0}")]
    Artifact(#[from] artifacts::Error),
    /// A plan, a unit or a record cannot be used.
    #[error("{0}")]
    Contract(#[from] pipeline_spec::Error),
    /// Preprocessing or the image encoder fails.
    #[error("{0}")]
    Clip(#[from] clip_model::Error),
    /// The trained classifier cannot be loaded or run.
    #[error("{0}")]
    Classifier(#[from] flier_model::Error),
    /// The stage was asked for a kind that it does not write.
    #[error("`evaluator` writes `predictions` and `metrics`, the spec asks for `{found}`; run `{stage}` on it", stage = found.stage())]
    NotMine {
        /// The kind asked for.
        found: ArtifactKind,
    },
    /// The images or features hold nothing of a split.
    #[error("input `{input}` has no row of split `{split}`; it has {present}")]
    MissingSplit {
        /// Name of the input.
        input: &'static str,
        /// The split asked for.
        split: String,
        /// The splits it has.
        present: String,
    },
    /// An image to evaluate has no label.
    #[error(
        "image `{sample_id}` of split `{split}` has no label; pack the data set again with labelled images"
    )]
    Unlabelled {
        /// The image.
        sample_id: String,
        /// Its split.
        split: String,
    },
    /// The classifier knows other classes than the images.
    #[error(
        "the run was trained on {expected}; input `{input}` (`{artifact}`) has {found}: evaluate on the data set of the run"
    )]
    Classes {
        /// Name of the input.
        input: &'static str,
        /// The artifact.
        artifact: String,
        /// Number of classes of the run, and the first that differs.
        expected: String,
        /// The same of the input.
        found: String,
    },
    /// The folder of the backbone is not the one that the run started from.
    #[error("`{}`: the run started from a backbone of digest {expected}, the folder has {found}; restore the checkpoint, or make the plan again and train", folder.display())]
    Backbone {
        /// Folder of the backbone.
        folder: PathBuf,
        /// Digest in `run.json`.
        expected: String,
        /// Digest of the folder.
        found: Digest,
    },
    /// The backbone's preprocessing is not that of the trained encoder.
    #[error("`{}`: field `size` of `preprocessor_config.json`: expected {expected}, the image size of the trained encoder, found {found}", folder.display())]
    ImageSize {
        /// Folder of the backbone.
        folder: PathBuf,
        /// Side in pixels that the encoder takes.
        expected: usize,
        /// Side in pixels of the file.
        found: usize,
    },
    /// The latents are not those of the images that are evaluated.
    #[error("input `latents` (`{artifact}`): expected {expected}, found {found}; make the plan again")]
    Latents {
        /// The artifact.
        artifact: Box<ArtifactId>,
        /// Images and splits that are evaluated.
        expected: String,
        /// What the latents are of.
        found: String,
    },
    /// A logit is not finite.
    #[error(
        "image `{sample_id}`: logit of class {class_id} is `{value}`, expected a finite number; the training run `{run}` has diverged: delete its checkpoints and train with a lower learning rate"
    )]
    NotFinite {
        /// The image.
        sample_id: String,
        /// The class.
        class_id: usize,
        /// The logit.
        value: f32,
        /// Name of the run.
        run: String,
    },
    /// The record of an input is of another kind of computation than its name says.
    #[error("input `{input}` of `{unit}`: expected the record of a `{expected}` artifact, found `{found}`")]
    InputRecord {
        /// Name of the input.
        input: &'static str,
        /// The unit.
        unit: String,
        /// The kind expected.
        expected: ArtifactKind,
        /// The kind found.
        found: ArtifactKind,
    },
    /// Two things cannot be compared.
    #[error("`{name}` is a `{found}` artifact; compare `predictions` or `metrics` artifacts, or plan files")]
    NotComparable {
        /// What was given.
        name: String,
        /// Its kind.
        found: ArtifactKind,
    },
    /// A run cannot be evaluated on some classes.
    #[error(
        "the images have class `{class}`, which run `{run}` does not know; evaluate it with `classes = \"texts\"`"
    )]
    UnknownClass {
        /// The class.
        class: String,
        /// Name of the run.
        run: String,
    },
    /// The texts of other classes come from another checkpoint than the run.
    #[error(
        "run `{run}` started from `{expected}`, the texts come from `{found}`; take the texts of the same checkpoint"
    )]
    OtherBackbone {
        /// Name of the run.
        run: String,
        /// Its checkpoint.
        expected: String,
        /// That of the texts.
        found: String,
    },
    /// Two plans of a benchmark are of one data set.
    #[error("two plans are of data set `{dataset}`; give one plan for each data set")]
    SameDataset {
        /// The data set.
        dataset: String,
    },
    /// A file of the report cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An image inside an artifact does not decode.
    #[error("image `{name}` of artifact `{artifact}` does not decode; run `cargo xtask verify`")]
    Image {
        /// The image's file name.
        name: String,
        /// The artifact.
        artifact: String,
        /// What the decoder said.
        #[source]
        source: Box<clip_model::Error>,
    },
    /// A picture cannot be encoded.
    #[error("cannot encode a picture as PNG")]
    Encode(#[source] image::ImageError),
    /// A chart or a picture cannot be drawn.
    #[error("cannot draw a picture: {reason}")]
    Drawing {
        /// Why: what the drawing library said, or what the data lack.
        reason: String,
    },
    /// The page cannot be rendered.
    #[error("cannot render the report page")]
    Page(#[from] minijinja::Error),
}
