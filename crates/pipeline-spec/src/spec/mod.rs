//! One specification per artifact kind: *what* to compute.
//!
//! Every field is written in the file and hashed into the key; a field that is not known is refused. Nothing here has
//! a default, because the one who runs the experiment knows better.

mod dataset_pack;
mod evaluator;
mod prompt_gen;
mod sd_latents;
mod trainer;

pub use dataset_pack::{
    ClassHalf, FewshotSplitsSpec, ImagesSpec, ShortClass, StoredFormat, StoredSize, ValShots,
};
pub use evaluator::{MetricsSpec, OtherClasses, PredictionSource, PredictionsSpec, WeightsUsed};
pub use prompt_gen::{Endpoint, LanguageModelSpec, PromptProvider, PromptsSpec};
pub use sd_latents::{
    EncodedLatentsSpec, HalfType, LatentsOptions, LatentsSpec, LongPrompts, Scheduler, SelectionSpec,
    TimestepSpacing,
};
pub use trainer::{
    AdapterTraining, ApeSpec, ApeTSpec, Augment, CacheSpec, CafoSpec, ChannelSpec, CheckpointsSpec, ClapSpec,
    ClassTexts, ClipAdapterSpec, ClipLoraSpec, CoOpSpec, Context, Coupling, EpochsFrom, FeatureLayer,
    FeaturesSpec, FineTuneSpec, Freeze, GdaSpec, GeneratedUse, HeadInit, LatentControl, LatentOnlySpec,
    LatentSamples, LinearProbeSpec, LpPlusPlusSpec, Method, OptimizerSpec, Penalty, Pool, Preset, ProLipSpec,
    Schedule, Select, TaskResSpec, TipAdapterSpec, TowerTraining, Training, TwoStageSpec, ViewAugment,
};

use serde::{Deserialize, Serialize};

use crate::{ArtifactKind, DatasetId, Error, Stage};

/// What to compute: one variant per artifact kind, two for latents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "spec", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StageSpec {
    /// `prompt-gen` writes prompts.
    Prompts(PromptsSpec),
    /// `sd-latents` writes latents and images that it draws.
    Latents(LatentsSpec),
    /// `sd-latents` writes latents of real images.
    EncodedLatents(EncodedLatentsSpec),
    /// `dataset-pack` writes real images.
    Images(ImagesSpec),
    /// `dataset-pack` writes a shot list.
    FewshotSplits(FewshotSplitsSpec),
    /// `trainer` writes frozen features.
    Features(FeaturesSpec),
    /// `trainer` writes trained parameters.
    Checkpoints(CheckpointsSpec),
    /// `evaluator` writes logits.
    Predictions(PredictionsSpec),
    /// `evaluator` writes figures.
    Metrics(MetricsSpec),
}

/// An artifact that a stage reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSlot {
    /// Name under `[inputs]`.
    pub name: &'static str,
    /// Kind expected there.
    pub kind: ArtifactKind,
}

const fn slot(name: &'static str, kind: ArtifactKind) -> InputSlot {
    InputSlot { name, kind }
}

impl StageSpec {
    /// Kind of the artifact that it yields.
    pub fn kind(&self) -> ArtifactKind {
        match self {
            Self::Prompts(_) => ArtifactKind::Prompts,
            Self::Latents(_) | Self::EncodedLatents(_) => ArtifactKind::Latents,
            Self::Images(_) => ArtifactKind::Images,
            Self::FewshotSplits(_) => ArtifactKind::FewshotSplits,
            Self::Features(_) => ArtifactKind::Features,
            Self::Checkpoints(_) => ArtifactKind::Checkpoints,
            Self::Predictions(_) => ArtifactKind::Predictions,
            Self::Metrics(_) => ArtifactKind::Metrics,
        }
    }

    /// The stage that computes it.
    pub fn stage(&self) -> Stage {
        self.kind().stage()
    }

    /// The stage's hand-bumped version for this kind.
    pub fn code_version(&self) -> u32 {
        match self {
            Self::Prompts(_) => prompt_gen::CODE_VERSION,
            Self::Latents(_) => sd_latents::CODE_VERSION,
            Self::EncodedLatents(_) => sd_latents::ENCODED_CODE_VERSION,
            Self::Images(_) => dataset_pack::IMAGES_CODE_VERSION,
            Self::FewshotSplits(_) => dataset_pack::FEWSHOT_SPLITS_CODE_VERSION,
            Self::Features(_) => trainer::FEATURES_CODE_VERSION,
            Self::Checkpoints(_) => trainer::CHECKPOINTS_CODE_VERSION,
            Self::Predictions(_) => evaluator::PREDICTIONS_CODE_VERSION,
            Self::Metrics(_) => evaluator::METRICS_CODE_VERSION,
        }
    }

    /// The data set it is about.
    pub fn dataset(&self) -> &DatasetId {
        match self {
            Self::Prompts(s) => &s.dataset,
            Self::Latents(s) => &s.dataset,
            Self::EncodedLatents(s) => &s.dataset,
            Self::Images(s) => &s.dataset,
            Self::FewshotSplits(s) => &s.dataset,
            Self::Features(s) => &s.dataset,
            Self::Checkpoints(s) => &s.dataset,
            Self::Predictions(s) => &s.dataset,
            Self::Metrics(s) => &s.dataset,
        }
    }

    /// A name for people.
    pub fn slug(&self) -> String {
        match self {
            Self::Prompts(s) => s.slug(),
            Self::Latents(s) => s.slug(),
            Self::EncodedLatents(s) => s.run.clone(),
            Self::Images(s) => s.slug(),
            Self::FewshotSplits(s) => s.slug(),
            Self::Features(s) => s.slug(),
            Self::Checkpoints(s) => s.run.clone(),
            Self::Predictions(s) => s.run.clone(),
            Self::Metrics(s) => s.run.clone(),
        }
    }

    /// The artifacts it reads.
    pub fn input_slots(&self) -> Vec<InputSlot> {
        let images = slot("images", ArtifactKind::Images);
        match self {
            Self::Prompts(_) | Self::Images(_) => vec![],
            Self::Latents(_) => vec![slot("prompts", ArtifactKind::Prompts)],
            Self::EncodedLatents(s) => s.input_slots(),
            Self::FewshotSplits(_) => vec![images],
            Self::Features(s) => s.input_slots(),
            Self::Checkpoints(s) => s.input_slots(),
            Self::Predictions(s) => {
                let source = match s.source {
                    PredictionSource::Images => vec![images],
                    PredictionSource::Features => vec![slot("features", ArtifactKind::Features)],
                    PredictionSource::Latents => vec![images, slot("latents", ArtifactKind::Latents)],
                };
                let texts = slot("texts", ArtifactKind::Checkpoints);
                let texts = (s.classes == Some(OtherClasses::Texts)).then_some(texts);
                let run = slot("checkpoints", ArtifactKind::Checkpoints);
                source.into_iter().chain([run]).chain(texts).collect()
            }
            Self::Metrics(_) => {
                vec![
                    slot("predictions", ArtifactKind::Predictions),
                    slot("checkpoints", ArtifactKind::Checkpoints),
                    images,
                ]
            }
        }
    }

    /// Checks the ranges of all values.
    ///
    /// # Errors
    ///
    /// Fails with the first field out of range.
    pub fn check(&self) -> Result<(), Error> {
        let slug = self.slug();
        if !crate::ids::is_slug(&slug) {
            return Err(Error::Field {
                field: "run".to_owned(),
                problem: format!("expected 1 to 100 of a-z, 0-9, `_`, `-`, found `{slug}`"),
            });
        }
        match self {
            Self::Prompts(s) => s.check(),
            Self::Latents(s) => s.check(),
            Self::EncodedLatents(s) => s.check(),
            Self::Images(s) => s.check(),
            Self::FewshotSplits(s) => s.check(),
            Self::Features(s) => s.check(),
            Self::Checkpoints(s) => s.check(),
            Self::Predictions(s) => s.check(),
            Self::Metrics(_) => Ok(()),
        }
    }
}

/// `Ok` if `holds`, otherwise an error that names `field`, what was expected and what was found.
fn expect(holds: bool, field: &str, expected: &str, found: impl std::fmt::Display) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Field { field: field.to_owned(), problem: format!("expected {expected}, found `{found}`") })
}
