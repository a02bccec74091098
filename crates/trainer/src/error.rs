//! Why features or parameters cannot be made.

use std::path::PathBuf;

use pipeline_spec::{ArtifactId, ArtifactKind, Digest};

/// A failure of the stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An input cannot be read or the output cannot be written.
    #[error(transparent)]
    Artifact(#[from] artifacts::Error),
    /// The unit or the checkpoint folder cannot be used.
    #[error(transparent)]
    Contract(#[from] pipeline_spec::Error),
    /// CLIP cannot be loaded or used.
    #[error(transparent)]
    Clip(#[from] clip_model::Error),
    /// The model cannot be made.
    #[error(transparent)]
    Model(#[from] flier_model::Error),
    /// The stage was asked for a kind that it does not write.
    #[error("`trainer` writes `features` and `checkpoints`, the spec asks for `{found}`; run `{stage}` on it", stage = found.stage())]
    NotMine {
        /// The kind asked for.
        found: ArtifactKind,
    },
    /// A checkpoint folder is not the one that the spec pins.
    #[error(
        "`{}`: field `backbone.digest` of the spec expects {expected}, the folder has {found}; \
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
    /// An input does not fit the spec or another input.
    #[error("`{artifact}`: {what}: expected {expected}, found {found}; make the plan again")]
    Mismatch {
        /// The input.
        artifact: Box<ArtifactId>,
        /// Which property.
        what: String,
        /// What the spec or the other input says.
        expected: String,
        /// What the input says.
        found: String,
    },
    /// A training method was given data of a held-out split.
    #[error(
        "`{artifact}` holds split `{split}`, and training may read `train` and `val` only; \
         give it an artifact without held-out splits"
    )]
    HeldOutSplit {
        /// The input.
        artifact: Box<ArtifactId>,
        /// The split.
        split: String,
    },
    /// A shot list names an image that the images or features lack.
    #[error("`{artifact}` lacks sample `{sample_id}`, which the shot list names; make the plan again")]
    MissingSample {
        /// The artifact that lacks it.
        artifact: Box<ArtifactId>,
        /// The image.
        sample_id: String,
    },
    /// The latents hold too few samples of a class.
    #[error(
        "`{artifact}`: class `{class_name}` has {found} generated samples, the run needs {expected}; generate more \
         (prompts or `samples_per_prompt`) or lower `per_class`"
    )]
    TooFewGenerated {
        /// The latents.
        artifact: Box<ArtifactId>,
        /// The class.
        class_name: String,
        /// Samples per class that the run uses.
        expected: usize,
        /// Samples there are.
        found: usize,
    },
    /// An encoded image cannot be decoded.
    #[error("`{artifact}`: image of sample `{sample_id}` cannot be decoded; pack or generate it again")]
    Image {
        /// The artifact.
        artifact: Box<ArtifactId>,
        /// The sample.
        sample_id: String,
        /// What the decoder said.
        #[source]
        source: Box<clip_model::Error>,
    },
    /// Something is to be chosen on validation images and there are none.
    #[error("field `{field}` is to be chosen on validation images, and the shot list has none; {remedy}")]
    NoValidation {
        /// The field.
        field: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A class has nothing that the text classifier could read.
    #[error(
        "no text for class `{class_name}`; expected at least one prompt for each class: make the prompts again"
    )]
    NoText {
        /// The class.
        class_name: String,
    },
    /// A vision transformer has no projection into the space of the texts.
    #[error("checkpoint `{}` has no visual projection, which method `prolip` trains; choose another backbone", folder.display())]
    NoProjection {
        /// The folder.
        folder: PathBuf,
    },
    /// The covariance of the features cannot be inverted.
    #[error("the covariance of the training features is not positive definite; make the features again")]
    Covariance,
    /// The loss is not a number any more.
    #[error(
        "training diverged: loss {loss} in epoch {epoch}, step {step} of the {pass} pass, at learning rate \
         {learning_rate:e}; lower `learning_rate` or lengthen `warmup_epochs`"
    )]
    Diverged {
        /// The loss.
        loss: f64,
        /// Epoch, from 1.
        epoch: u32,
        /// `real` or `generated`.
        pass: &'static str,
        /// Step of the pass, from 1.
        step: usize,
        /// Learning rate of the classifier.
        learning_rate: f64,
    },
    /// A trained parameter is not finite.
    #[error("parameter `{parameter}` is not finite after training; lower `learning_rate`")]
    NotFinite {
        /// Its name.
        parameter: String,
    },
    /// The training state cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Logits or features cannot be read back from the device.
    #[error("cannot read a tensor back from the device: {reason}")]
    Device {
        /// What burn said.
        reason: String,
    },
}
