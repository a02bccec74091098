//! Methods on frozen features. A list of values is a grid: the best is chosen on the few-shot validation images.

use serde::{Deserialize, Serialize};

use super::expect;
use crate::Error;

/// Logistic regression by L-BFGS on frozen features; the best `C` is chosen on the few-shot validation images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearProbeSpec {
    /// Values of `C` (inverse regularisation) that are tried.
    pub inverse_regularization: Vec<f64>,
    /// Iterations of L-BFGS at most.
    pub max_iterations: u32,
}

/// Tip-Adapter without training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// Weights of the cache logits that are tried.
    pub alpha: Vec<f64>,
    /// Sharpness values that are tried.
    pub beta: Vec<f64>,
}

/// Tip-Adapter-F; `alpha` and `beta` are chosen on the few-shot validation images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TipAdapterSpec {
    /// Weights of the cache logits that are tried.
    pub alpha: Vec<f64>,
    /// Sharpness values that are tried.
    pub beta: Vec<f64>,
    /// Passes over the shot list.
    pub epochs: u32,
    /// Images in a step.
    pub batch_size: u32,
    /// Learning rate of AdamW (eps 1e-4), cosine to zero.
    pub learning_rate: f64,
}

/// CaFo's cache (arXiv 2303.02151) without its DINO half: Tip-Adapter-F whose cache and training also hold generated images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CafoSpec {
    /// Generated images per class; absent: as many as shots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_per_class: Option<u32>,
    /// See [`TipAdapterSpec::alpha`].
    pub alpha: Vec<f64>,
    /// See [`TipAdapterSpec::beta`].
    pub beta: Vec<f64>,
    /// AdamW (eps 1e-4), cosine to zero.
    pub training: AdapterTraining,
}

/// How an adapter is trained; the optimizer is the method's own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterTraining {
    /// Passes over the shot list.
    pub epochs: u32,
    /// Images in a step.
    pub batch_size: u32,
    /// Learning rate, cosine to zero.
    pub learning_rate: f64,
}

/// CLIP-Adapter (arXiv 2110.04544): a bottleneck beside the image feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipAdapterSpec {
    /// Factor by which the bottleneck is narrower than the feature; 4 in the authors' code.
    pub reduction: u32,
    /// Shares of the adapted feature that are tried; 0.2 in the authors' code.
    pub ratio: Vec<f64>,
    /// SGD with momentum 0.9.
    pub training: AdapterTraining,
}

/// Gaussian discriminant analysis beside the text classifier ("hard to beat", arXiv 2402.04087); closed form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GdaSpec {
    /// Weights of the Gaussian logits that are tried; powers of ten from 1e-4 to 100 in the authors' code.
    pub alpha: Vec<f64>,
}

/// CLAP (arXiv 2312.12730): text-initialised class prototypes held near the text classifier; nothing is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClapSpec {
    /// SGD with momentum 0.9.
    pub training: AdapterTraining,
}

/// ProLIP (arXiv 2410.05270): the visual projection alone, held near its pre-trained weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProLipSpec {
    /// Weight of the squared distance to the pre-trained projection.
    pub penalty: Penalty,
    /// Learning rates of Adam (eps 1e-4, cosine to zero) that are tried.
    pub learning_rate: Vec<f64>,
    /// Full-batch steps, each on one view of every image.
    pub epochs: u32,
}

/// Weight of a distance to pre-trained parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Penalty {
    /// One over the number of shots.
    InverseShots,
    /// One over its square.
    InverseShotsSquared,
    /// Values that are tried.
    Values {
        /// The values.
        values: Vec<f64>,
    },
}

/// Which channels of the feature a cache compares (arXiv 2304.01195): those of the highest
/// `variance_weight * variance - similarity_weight * similarity` over the classes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSpec {
    /// Number of channels.
    pub count: u32,
    /// Weight of the similarity between classes.
    pub similarity_weight: f64,
    /// Weight of the variance over the text features.
    pub variance_weight: f64,
}

/// APE (arXiv 2304.01195) without training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApeSpec {
    /// The refined channels.
    pub channels: ChannelSpec,
    /// Weights of the cache logits that are tried.
    pub alpha: Vec<f64>,
    /// Sharpness values that are tried.
    pub beta: Vec<f64>,
    /// Exponents of a cached image's divergence from the text classifier that are tried.
    pub gamma: Vec<f64>,
}

/// APE-T (arXiv 2304.01195): a residual per class on the refined channels of text and cache, and a weight per cached image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApeTSpec {
    /// The refined channels.
    pub channels: ChannelSpec,
    /// Weight of the cache logits while training.
    pub initial_alpha: f64,
    /// Sharpness while training.
    pub initial_beta: f64,
    /// Weights of the cache logits that are tried.
    pub alpha: Vec<f64>,
    /// Sharpness values that are tried.
    pub beta: Vec<f64>,
    /// AdamW (eps 1e-3, weight decay 0.1), cosine to zero.
    pub training: AdapterTraining,
}

/// LP++ (arXiv 2404.02285): a linear probe blended with the text classifier by a weight per class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LpPlusPlusSpec {
    /// Full-batch steps; the one with the best validation accuracy counts. The step sizes follow from the features.
    pub epochs: u32,
}

/// TaskRes (arXiv 2211.10277): a residual on the text classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskResSpec {
    /// Scales of the residual that are tried; 0.5 in the authors' code (1 for Flowers).
    pub residual_scale: Vec<f64>,
    /// Adam.
    pub training: AdapterTraining,
}

impl AdapterTraining {
    pub(super) fn check(&self) -> Result<(), Error> {
        expect(self.epochs > 0, "method.training.epochs", "at least 1", self.epochs)?;
        expect(self.batch_size > 0, "method.training.batch_size", "at least 1", self.batch_size)?;
        check_rate("training.learning_rate", self.learning_rate)
    }
}

/// Fails unless the learning rate is above zero.
pub(super) fn check_rate(field: &str, rate: f64) -> Result<(), Error> {
    expect(rate > 0.0, &format!("method.{field}"), "a number > 0", rate)
}

/// Fails unless the list holds a value and all are finite and at least `least`.
pub(super) fn check_grid(field: &str, values: &[f64], least: f64) -> Result<(), Error> {
    let field = format!("method.{field}");
    expect(!values.is_empty(), &field, "at least one value", "[]")?;
    let fits = |value: &&f64| !(value.is_finite() && **value >= least);
    match values.iter().find(fits) {
        Some(value) => expect(false, &field, &format!("finite numbers >= {least}"), value),
        None => Ok(()),
    }
}
