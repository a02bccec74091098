//! Shape of the FLIER model. No paths, no training settings.

use clip_model::VisionConfig;
use serde::{Deserialize, Serialize};

use crate::error::{Error, expect};
use crate::latent_encoder::LatentEncoderConfig;
use crate::layers::Layers;

/// Shape of a fine-tuned image classifier with its latent branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlierConfig {
    /// CLIP's vision tower.
    pub vision: VisionConfig,
    /// Width P of CLIP's shared space.
    pub projection_dim: usize,
    /// Number of classes N.
    pub num_classes: usize,
    /// What of the encoder's output the classifier sees.
    pub pool: Pool,
    /// The latent branch; absent in the controls without latents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latent: Option<LatentBranchConfig>,
}

/// Shape of the latent branch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentBranchConfig {
    /// Shape of the latents.
    pub encoder: LatentEncoderConfig,
    /// How it meets the image branch.
    pub coupling: Coupling,
    /// Factor on the latents before the first convolution; absent: none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latent_scale: Option<f64>,
}

/// What of the encoder's output the classifier sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// ViT: mean of the patch tokens after a fresh layer norm (the released code). ResNet: mean of the last feature map
    /// (our choice; how the paper pools a ResNet is not known).
    MeanPatch,
    /// CLIP's own projected and normalised image embedding.
    Projected,
}

/// How image and latent branch meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coupling {
    /// Not at all: each has its classifier (the released code).
    Independent,
    /// One classifier for both; the latent feature is projected where its width differs from the image feature's.
    SharedHead,
    /// Each has its classifier; on generated samples the sum of both logits is trained.
    LogitSum,
    /// One classifier; on generated samples the sum of both features is trained, the latent's projected as under
    /// [`Self::SharedHead`].
    FeatureAdd,
    /// Each has its classifier; on generated samples the image feature is drawn to the projected latent feature.
    AlignLoss,
}

impl Coupling {
    /// Whether latents have a classifier of their own.
    pub(crate) fn has_latent_head(self) -> bool {
        matches!(self, Self::Independent | Self::LogitSum | Self::AlignLoss)
    }

    /// Whether latent features are brought to the width of image features.
    pub(crate) fn meets_features(self) -> bool {
        matches!(self, Self::SharedHead | Self::FeatureAdd | Self::AlignLoss)
    }
}

impl FlierConfig {
    /// Checks that the parts fit each other.
    ///
    /// # Errors
    ///
    /// Fails with the first field that does not fit.
    pub fn check(&self) -> Result<(), Error> {
        expect(self.num_classes >= 2, "num_classes", "at least 2", self.num_classes)?;
        expect(self.projection_dim > 0, "projection_dim", "at least 1", self.projection_dim)?;
        self.latent.iter().try_for_each(|latent| latent.encoder.check())
    }

    /// Width F of the image feature that the classifier sees.
    pub fn feature_width(&self) -> usize {
        match (self.pool, &self.vision) {
            (Pool::Projected, _) => self.projection_dim,
            (Pool::MeanPatch, VisionConfig::VisionTransformer(vision)) => vision.hidden_size,
            (Pool::MeanPatch, VisionConfig::ModifiedResNet(vision)) => vision.width * 32,
        }
    }

    /// The encoder's layers, for layer-wise learning-rate decay.
    pub fn layers(&self) -> Layers {
        match &self.vision {
            VisionConfig::VisionTransformer(vision) => {
                Layers::VisionTransformer { num_blocks: vision.num_hidden_layers }
            }
            VisionConfig::ModifiedResNet(_) => Layers::ModifiedResNet,
        }
    }
}
