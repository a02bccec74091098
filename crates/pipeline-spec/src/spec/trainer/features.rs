//! Frozen features of images.

use serde::{Deserialize, Serialize};

use super::{InputSlot, expect, slot};
use crate::{ArtifactKind, CheckpointRef, DatasetId, Error, Seed};

/// Frozen image features under one backbone, read by every method that does not train the backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesSpec {
    /// Data set.
    pub dataset: DatasetId,
    /// CLIP checkpoint.
    pub backbone: CheckpointRef,
    /// Splits of the images; ignored splits are not encoded. Never a test split for a training method.
    pub splits: Vec<String>,
    /// How each image is seen.
    pub view: ViewAugment,
    /// Where in the encoder they are taken; absent: in the space shared with texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<FeatureLayer>,
    /// Generated images per class (a draw by the view's seed) instead of real images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_per_class: Option<u32>,
}

/// Where in the encoder features are taken, if not behind the projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureLayer {
    /// Before the visual projection: a ViT's normalised class token, a ResNet's pooled tokens before `c_proj`.
    PreProjection,
}

/// How an image is seen before it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ViewAugment {
    /// CLIP's test preprocessing: resize the shorter side, centre crop.
    Center,
    /// Random resized crop and horizontal flip of the images of a shot list, as Tip-Adapter builds its cache.
    CropFlip {
        /// Passes over the shot list.
        views: u32,
        /// Smallest area of the crop, relative to the image.
        scale_min: f64,
        /// Seed of the crops.
        seed: Seed,
    },
}

impl FeaturesSpec {
    pub(in crate::spec) fn slug(&self) -> String {
        let view = match self.view {
            ViewAugment::Center => "center".to_owned(),
            ViewAugment::CropFlip { views, seed, .. } => format!("crop{views}-seed{seed}"),
        };
        let layer = match self.layer {
            None => "",
            Some(FeatureLayer::PreProjection) => "-preproj",
        };
        let generated = self.generated_per_class.map_or(String::new(), |count| format!("-generated{count}"));
        let splits = self.splits.join("-");
        format!("{}-{splits}-{view}{layer}{generated}", self.backbone.id.to_lowercase())
    }

    pub(in crate::spec) fn input_slots(&self) -> Vec<InputSlot> {
        if self.generated_per_class.is_some() {
            return vec![slot("latents", ArtifactKind::Latents)];
        }
        let images = slot("images", ArtifactKind::Images);
        match self.view {
            ViewAugment::Center => vec![images],
            ViewAugment::CropFlip { .. } => vec![images, slot("fewshot-splits", ArtifactKind::FewshotSplits)],
        }
    }

    pub(in crate::spec) fn check(&self) -> Result<(), Error> {
        expect(!self.splits.is_empty(), "splits", "at least one split", "[]")?;
        if let ViewAugment::CropFlip { views, scale_min, .. } = self.view {
            expect(views > 0, "view.views", "at least 1", views)?;
            expect(scale_min > 0.0 && scale_min <= 1.0, "view.scale_min", "in (0, 1]", scale_min)?;
        }
        let generated = self.generated_per_class;
        let count = generated.map_or(String::new(), |count| count.to_string());
        expect(generated != Some(0), "generated_per_class", "at least 1", count)?;
        let views = matches!(self.view, ViewAugment::CropFlip { .. });
        let fits = generated.is_none() || (views && self.splits == ["train"]);
        let found = self.splits.join(", ");
        expect(fits, "splits", "`train` alone and `view.kind = \"crop-flip\"` for generated images", found)
    }
}
