//! `run.json`: what a training run was and how its weights are read back.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

use crate::config::FlierConfig;
use crate::error::{Error, expect};
use crate::latent_encoder::LatentEncoderConfig;

/// File name of the description beside the weights.
pub const RUN_FILE: &str = "run.json";
/// File name of the weights that the optimizer holds (or of the chosen epoch).
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// File name of their moving average.
pub const EMA_FILE: &str = "ema.safetensors";
/// File name of the training log, one JSON object a line.
pub const LOG_FILE: &str = "metrics.jsonl";

/// Description of a finished run. It holds no time, host or device, so that equal runs give equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDescription {
    /// Name of the run for people.
    pub run: String,
    /// Name of the method in tables.
    pub method: String,
    /// Data set.
    pub dataset: String,
    /// The CLIP checkpoint that the run started from.
    pub backbone: Backbone,
    /// Names of the classes, by class id.
    pub class_names: Vec<String>,
    /// Training images per class; absent for zero-shot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shots: Option<u32>,
    /// Seed of the run.
    pub seed: u64,
    /// Digest of the content of the shot list; absent for zero-shot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shot_list_digest: Option<String>,
    /// What the weights are and how they give logits.
    pub classifier: Classifier,
    /// How weights and settings were chosen.
    pub selection: Selection,
    /// Whether the moving average is kept beside the weights.
    pub has_ema: bool,
    /// Loss of the last pass over the training samples; absent for methods without a loss.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub final_loss: Option<f64>,
    /// One entry per epoch.
    pub epochs: Vec<EpochSummary>,
}

/// The CLIP checkpoint that a run started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backbone {
    /// Folder name below the weights folder.
    pub id: String,
    /// Digest of that folder.
    pub digest: String,
}

/// What the weights are and how they give logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Classifier {
    /// [`crate::ZeroShot`].
    ZeroShot {
        /// Width P of the features.
        projection_dim: usize,
        /// Factor on the cosine.
        logit_scale: f64,
    },
    /// [`crate::LinearProbe`].
    LinearProbe {
        /// Width P of the features.
        projection_dim: usize,
        /// Chosen inverse regularisation.
        inverse_regularization: f64,
    },
    /// [`crate::TipAdapter`].
    TipAdapterF {
        /// Width P of the features.
        projection_dim: usize,
        /// Number M of cached images.
        num_keys: usize,
        /// Factor on the cosine.
        logit_scale: f64,
        /// Chosen weight of the cache logits.
        alpha: f64,
        /// Chosen sharpness.
        beta: f64,
    },
    /// [`crate::ZeroShot`] with vectors that a method has trained: CLAP, TaskRes.
    Cosine {
        /// Width P of the features.
        projection_dim: usize,
        /// Factor on the cosine.
        logit_scale: f64,
    },
    /// [`crate::LinearProbe`] of another method than logistic regression: GDA, LP++.
    Linear {
        /// Width P of the features.
        projection_dim: usize,
    },
    /// [`crate::TipAdapter`] of another method than Tip-Adapter-F: Tip-Adapter, CaFo, APE, APE-T.
    Cache {
        /// Width P of the features.
        projection_dim: usize,
        /// Number M of cached images.
        num_keys: usize,
        /// Factor on the cosine.
        logit_scale: f64,
        /// Chosen weight of the cache logits.
        alpha: f64,
        /// Chosen sharpness.
        beta: f64,
        /// Channels of the feature that the keys hold; absent: all.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        channels: Vec<usize>,
    },
    /// [`crate::ClipAdapter`].
    ClipAdapter {
        /// Width P of the features.
        projection_dim: usize,
        /// Width H of the bottleneck.
        hidden_dim: usize,
        /// Factor on the cosine.
        logit_scale: f64,
        /// Share of the adapted feature.
        ratio: f64,
    },
    /// [`crate::ProLip`].
    #[serde(rename = "prolip")]
    ProLip {
        /// Width D of the features, which are taken before the projection.
        feature_dim: usize,
        /// Width P of the space shared with texts.
        projection_dim: usize,
        /// Whether the projection has a bias.
        has_bias: bool,
        /// Factor on the cosine.
        logit_scale: f64,
    },
    /// [`crate::LatentClassifier`].
    LatentOnly {
        /// Shape of the latents.
        encoder: LatentEncoderConfig,
    },
    /// [`crate::FlierModel`].
    FineTune {
        /// Its shape.
        config: FlierConfig,
    },
}

/// How weights and settings were chosen. A test image is never among those used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// `none`, `last`, `val-best` (epoch), `val-grid` (settings).
    pub rule: SelectionRule,
    /// Number of few-shot validation images.
    pub num_val_images: usize,
    /// Accuracy on them of the weights that are kept, between 0 and 1; absent without validation images.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val_accuracy: Option<f64>,
    /// Accuracy on them of the moving average.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ema_val_accuracy: Option<f64>,
    /// Epoch of the weights, from 1; absent for methods without epochs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<u32>,
    /// Epoch of the moving average, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ema_epoch: Option<u32>,
    /// Values chosen from the grids of the spec, by name, where the classifier does not hold them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub settings: BTreeMap<String, f64>,
}

impl Selection {
    /// A choice among `num_val_images` validation images, on which the kept weights have this accuracy.
    pub fn new(rule: SelectionRule, num_val_images: usize, val_accuracy: Option<f64>) -> Self {
        Self {
            rule,
            num_val_images,
            val_accuracy,
            ema_val_accuracy: None,
            epoch: None,
            ema_epoch: None,
            settings: BTreeMap::new(),
        }
    }
}

/// Which rule chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectionRule {
    /// Nothing was chosen.
    None,
    /// The last epoch.
    Last,
    /// The epoch with the best accuracy on the few-shot validation images; the earliest of equals.
    ValBest,
    /// The settings with the best accuracy on the few-shot validation images; the first of equals.
    ValGrid,
}

/// Figures of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochSummary {
    /// From 1.
    pub epoch: u32,
    /// Learning rate of the classifier at its last step.
    pub learning_rate: f64,
    /// Mean loss over the real images.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub real_loss: Option<f64>,
    /// Mean loss over the generated samples.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generated_loss: Option<f64>,
    /// The latent branch's share of it, before weighting.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latent_loss: Option<f64>,
    /// Accuracy on the few-shot validation images, between 0 and 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val_accuracy: Option<f64>,
    /// The moving average's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ema_val_accuracy: Option<f64>,
}

impl RunDescription {
    /// Reads a `run.json`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed, or its parts do not fit each other.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let run: Self = serde_json::from_slice(&text).map_err(|e| Error::Malformed {
            path: path.into(),
            what: "description of a training run",
            reason: e.to_string(),
        })?;
        run.check()?;
        Ok(run)
    }

    /// Writes a `run.json`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written or a figure is not finite.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let malformed = |e: serde_json::Error| Error::Malformed {
            path: path.into(),
            what: "description of a training run",
            reason: e.to_string(),
        };
        let mut text = serde_json::to_vec_pretty(self).map_err(malformed)?;
        text.push(b'\n');
        std::fs::write(path, text).map_err(|source| Error::Io { path: path.into(), source })
    }

    /// Checks that the parts fit each other.
    ///
    /// # Errors
    ///
    /// Fails with the first field that does not fit.
    pub fn check(&self) -> Result<(), Error> {
        let classes = self.class_names.len();
        expect(classes >= 2, "class_names", "at least 2 classes", classes)?;
        if let Classifier::Cache { channels, projection_dim, .. } = &self.classifier
            && let Some(channel) = channels.iter().find(|channel| *channel >= projection_dim)
        {
            let expected = format!("channels below `projection_dim`, {projection_dim}");
            expect(false, "classifier.channels", expected, channel)?;
        }
        if let Classifier::FineTune { config } = &self.classifier {
            config.check()?;
            expect(
                config.num_classes == classes,
                "classifier.config.num_classes",
                format!("{classes}, the number of class names"),
                config.num_classes,
            )?;
        }
        Ok(())
    }
}
