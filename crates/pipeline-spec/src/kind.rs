//! Artifact kinds and the stages that write them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an artifact holds. The directory of a kind carries its schema version, so that an old file is never misread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactKind {
    /// Prompts of each class.
    Prompts,
    /// Generated latents and images.
    Latents,
    /// Real images of a data set.
    Images,
    /// The image ids of one shot list.
    FewshotSplits,
    /// Frozen features of images under one backbone.
    Features,
    /// Trained parameters of one run.
    Checkpoints,
    /// Logits of every evaluated image under one run.
    Predictions,
    /// Figures of one run.
    Metrics,
}

impl ArtifactKind {
    /// Every kind, in the order of the pipeline.
    pub const ALL: [Self; 8] = [
        Self::Prompts,
        Self::Latents,
        Self::Images,
        Self::FewshotSplits,
        Self::Features,
        Self::Checkpoints,
        Self::Predictions,
        Self::Metrics,
    ];

    /// Name on disk, a plural noun.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::Latents => "latents",
            Self::Images => "images",
            Self::FewshotSplits => "fewshot-splits",
            Self::Features => "features",
            Self::Checkpoints => "checkpoints",
            Self::Predictions => "predictions",
            Self::Metrics => "metrics",
        }
    }

    /// Version of the kind's schema; part of the key and of the directory name.
    pub fn schema_version(self) -> u32 {
        match self {
            Self::Prompts
            | Self::Latents
            | Self::Images
            | Self::FewshotSplits
            | Self::Features
            | Self::Checkpoints
            | Self::Predictions
            | Self::Metrics => 1,
        }
    }

    /// The stage that writes this kind.
    pub fn stage(self) -> Stage {
        match self {
            Self::Prompts => Stage::PromptGen,
            Self::Latents => Stage::SdLatents,
            Self::Images | Self::FewshotSplits => Stage::DatasetPack,
            Self::Features | Self::Checkpoints => Stage::Trainer,
            Self::Predictions | Self::Metrics => Stage::Evaluator,
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One of the five stages; its name is the name of its crate and binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Class names to prompts.
    PromptGen,
    /// Prompts to latents and images.
    SdLatents,
    /// Source data to images and shot lists.
    DatasetPack,
    /// Shot lists to trained parameters.
    Trainer,
    /// Trained parameters to predictions and metrics.
    Evaluator,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 5] =
        [Self::PromptGen, Self::SdLatents, Self::DatasetPack, Self::Trainer, Self::Evaluator];

    /// Name of the stage's crate and binary.
    pub fn name(self) -> &'static str {
        match self {
            Self::PromptGen => "prompt-gen",
            Self::SdLatents => "sd-latents",
            Self::DatasetPack => "dataset-pack",
            Self::Trainer => "trainer",
            Self::Evaluator => "evaluator",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
