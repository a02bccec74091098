//! What `evaluator` writes.

use serde::{Deserialize, Serialize};

use super::expect;
use crate::{DatasetId, Error};

/// Bump when the same spec would yield different logits.
pub const PREDICTIONS_CODE_VERSION: u32 = 2;
/// Bump when the same spec would yield different figures.
pub const METRICS_CODE_VERSION: u32 = 2;

/// Logits of every image of the evaluated splits under one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionsSpec {
    /// Data set of the images.
    pub dataset: DatasetId,
    /// Name of the run for people.
    pub run: String,
    /// Held-out splits, for example `test` and `shift`.
    pub splits: Vec<String>,
    /// What is read: images through the run's own encoder, cached features of the frozen one, or latents.
    pub source: PredictionSource,
    /// Which weights of the run.
    pub weights: WeightsUsed,
    /// How the run meets images of other classes than its own. Absent: the classes are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<OtherClasses>,
}

/// How a run is evaluated on images of other classes than those it was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherClasses {
    /// The images have some of the run's classes: only the logits of those are kept, matched by name, as CoOp does for
    /// ImageNet-A and -R.
    Subset,
    /// The run's image features meet the text features of the images' classes, from a zero-shot run on them: for methods
    /// whose classifier is made of texts.
    Texts,
}

/// What predictions are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PredictionSource {
    /// Images, for a run that trained the encoder.
    Images,
    /// Features of the frozen encoder.
    Features,
    /// Latents of the images, which the autoencoder of Stable Diffusion has made, for a run with a latent branch: its
    /// image branch takes no part.
    Latents,
}

/// Which weights of a run are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightsUsed {
    /// Those the optimizer holds.
    Raw,
    /// Their moving average.
    Ema,
}

impl PredictionsSpec {
    pub(super) fn check(&self) -> Result<(), Error> {
        expect(!self.splits.is_empty(), "splits", "at least one split", "[]")
    }
}

/// Figures over the predictions of one run, for each split: accuracy (top-1, top-5, mean over classes) and calibration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSpec {
    /// Data set of the predictions.
    pub dataset: DatasetId,
    /// Name of the run for people.
    pub run: String,
}
