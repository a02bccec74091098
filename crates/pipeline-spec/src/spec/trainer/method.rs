//! What is trained.

use serde::{Deserialize, Serialize};

use super::adapters::check_grid;
use super::{
    ApeSpec, ApeTSpec, CacheSpec, CafoSpec, ClapSpec, ClipAdapterSpec, ClipLoraSpec, CoOpSpec, FeatureLayer,
    FineTuneSpec, GdaSpec, GeneratedUse, HeadInit, InputSlot, LatentOnlySpec, LinearProbeSpec,
    LpPlusPlusSpec, Penalty, ProLipSpec, Select, TaskResSpec, TipAdapterSpec, TwoStageSpec, expect, slot,
};
use crate::{ArtifactKind, Error};

/// What is trained, and how. A pipeline gives the fine-tuned methods (`F`) by a preset, a unit by all their switches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Method<F = FineTuneSpec> {
    /// Nothing: the text classifier.
    ZeroShot,
    /// Logistic regression on frozen features.
    LinearProbe(LinearProbeSpec),
    /// Tip-Adapter without training (arXiv 2207.09519).
    TipAdapter(CacheSpec),
    /// Tip-Adapter with its cache keys fine-tuned (arXiv 2207.09519).
    TipAdapterF(TipAdapterSpec),
    /// CaFo's cache with generated images.
    Cafo(CafoSpec),
    /// A bottleneck beside the image feature.
    ClipAdapter(ClipAdapterSpec),
    /// Gaussian discriminant analysis.
    Gda(GdaSpec),
    /// Constrained linear probe.
    Clap(ClapSpec),
    /// The visual projection.
    #[serde(rename = "prolip")]
    ProLip(ProLipSpec),
    /// A cache on refined channels.
    Ape(ApeSpec),
    /// The same, trained.
    ApeT(ApeTSpec),
    /// Linear probe blended with the text classifier.
    #[serde(rename = "lp-plus-plus")]
    LpPlusPlus(LpPlusPlusSpec),
    /// A residual on the text classifier.
    #[serde(rename = "taskres")]
    TaskRes(TaskResSpec),
    /// A learned prompt.
    #[serde(rename = "coop")]
    CoOp(CoOpSpec),
    /// Low-rank updates of both towers.
    ClipLora(ClipLoraSpec),
    /// Layer norms of both towers, then a classifier.
    #[serde(rename = "2sfs")]
    TwoStage(TwoStageSpec),
    /// FLIER's latent branch alone.
    LatentOnly(LatentOnlySpec),
    /// The image encoder itself: FLIER and its controls.
    FineTune(F),
}

impl<F> Method<F> {
    /// The same method with the fine-tuning settings turned into others.
    ///
    /// # Errors
    ///
    /// Fails if `map` does.
    pub fn try_map_fine_tune<G, E>(self, map: impl FnOnce(F) -> Result<G, E>) -> Result<Method<G>, E> {
        Ok(match self {
            Self::ZeroShot => Method::ZeroShot,
            Self::LinearProbe(s) => Method::LinearProbe(s),
            Self::TipAdapter(s) => Method::TipAdapter(s),
            Self::TipAdapterF(s) => Method::TipAdapterF(s),
            Self::Cafo(s) => Method::Cafo(s),
            Self::ClipAdapter(s) => Method::ClipAdapter(s),
            Self::Gda(s) => Method::Gda(s),
            Self::Clap(s) => Method::Clap(s),
            Self::ProLip(s) => Method::ProLip(s),
            Self::Ape(s) => Method::Ape(s),
            Self::ApeT(s) => Method::ApeT(s),
            Self::LpPlusPlus(s) => Method::LpPlusPlus(s),
            Self::TaskRes(s) => Method::TaskRes(s),
            Self::CoOp(s) => Method::CoOp(s),
            Self::ClipLora(s) => Method::ClipLora(s),
            Self::TwoStage(s) => Method::TwoStage(s),
            Self::LatentOnly(s) => Method::LatentOnly(s),
            Self::FineTune(s) => Method::FineTune(map(s)?),
        })
    }

    /// Where the features that the method reads are taken.
    pub fn feature_layer(&self) -> Option<FeatureLayer> {
        matches!(self, Self::ProLip(_)).then_some(FeatureLayer::PreProjection)
    }

    /// Whether a run of the method can meet classes that it was not trained on: its classifier is made of text features,
    /// and what it has trained is on the side of the image.
    pub fn meets_texts(&self) -> bool {
        matches!(self, Self::ZeroShot | Self::ClipAdapter(_) | Self::ProLip(_))
    }

    /// Whether the image encoder is trained, so that predictions are made from images.
    pub fn trains_encoder(&self) -> bool {
        matches!(self, Self::ClipLora(_) | Self::TwoStage(_) | Self::FineTune(_))
    }
}

impl Method {
    /// The artifacts that training reads.
    pub fn input_slots(&self) -> Vec<InputSlot> {
        let images = slot("images", ArtifactKind::Images);
        let shots = slot("fewshot-splits", ArtifactKind::FewshotSplits);
        let features = slot("features", ArtifactKind::Features);
        let cache = slot("cache-features", ArtifactKind::Features);
        match self {
            Self::ZeroShot => vec![images],
            Self::LinearProbe(_) => vec![shots, features],
            Self::TipAdapter(_)
            | Self::TipAdapterF(_)
            | Self::ClipAdapter(_)
            | Self::Gda(_)
            | Self::Clap(_)
            | Self::ProLip(_)
            | Self::Ape(_)
            | Self::ApeT(_)
            | Self::LpPlusPlus(_)
            | Self::TaskRes(_)
            | Self::CoOp(_) => vec![shots, features, cache],
            Self::ClipLora(_) | Self::TwoStage(_) => vec![images, shots],
            Self::Cafo(_) => {
                vec![shots, features, cache, slot("generated-features", ArtifactKind::Features)]
            }
            Self::LatentOnly(_) => vec![shots, slot("latents", ArtifactKind::Latents)],
            Self::FineTune(s) => match s.generated {
                GeneratedUse::None => vec![images, shots],
                GeneratedUse::Images { .. }
                | GeneratedUse::ImagesAndLatents { .. }
                | GeneratedUse::OnlyImages { .. } => {
                    vec![images, shots, slot("latents", ArtifactKind::Latents)]
                }
            },
        }
    }

    /// Whether the method reads the texts of the text classifier.
    pub fn reads_texts(&self) -> bool {
        match self {
            Self::LinearProbe(_) | Self::CoOp(_) | Self::LatentOnly(_) => false,
            Self::FineTune(s) => s.head_init == HeadInit::ZeroShotText,
            _ => true,
        }
    }

    /// The rule by which settings or weights are chosen, as in a run's description.
    pub fn selection_rule(&self) -> &'static str {
        let grid = |count: usize| if count > 1 { "val-grid" } else { "last" };
        match self {
            Self::ZeroShot => "none",
            Self::LinearProbe(_)
            | Self::TipAdapter(_)
            | Self::TipAdapterF(_)
            | Self::Cafo(_)
            | Self::Gda(_)
            | Self::Ape(_)
            | Self::ApeT(_) => "val-grid",
            Self::ClipAdapter(s) => grid(s.ratio.len()),
            Self::Clap(_) | Self::CoOp(_) | Self::ClipLora(_) | Self::TwoStage(_) | Self::LatentOnly(_) => {
                "last"
            }
            Self::ProLip(s) => match &s.penalty {
                Penalty::Values { values } => grid(values.len() * s.learning_rate.len()),
                Penalty::InverseShots | Penalty::InverseShotsSquared => grid(s.learning_rate.len()),
            },
            Self::LpPlusPlus(_) => "val-best",
            Self::TaskRes(s) => grid(s.residual_scale.len()),
            Self::FineTune(s) => match s.select {
                Select::Last => "last",
                Select::ValBest => "val-best",
            },
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Self::ZeroShot => Ok(()),
            Self::LinearProbe(s) => expect(
                !s.inverse_regularization.is_empty(),
                "method.inverse_regularization",
                "at least one value",
                "[]",
            ),
            Self::TipAdapter(s) => check_cache(&s.alpha, &s.beta),
            Self::TipAdapterF(s) => check_cache(&s.alpha, &s.beta),
            Self::Cafo(s) => {
                let per_class = s.generated_per_class;
                let problem = per_class.map_or(String::new(), |n| n.to_string());
                expect(per_class != Some(0), "method.generated_per_class", "at least 1", problem)?;
                check_cache(&s.alpha, &s.beta)?;
                s.training.check()
            }
            Self::ClipAdapter(s) => {
                expect(s.reduction > 0, "method.reduction", "at least 1", s.reduction)?;
                check_grid("ratio", &s.ratio, 0.0)?;
                s.training.check()
            }
            Self::Gda(s) => check_grid("alpha", &s.alpha, 0.0),
            Self::Clap(s) => s.training.check(),
            Self::ProLip(s) => {
                expect(s.epochs > 0, "method.epochs", "at least 1", s.epochs)?;
                check_grid("learning_rate", &s.learning_rate, f64::MIN_POSITIVE)?;
                match &s.penalty {
                    Penalty::Values { values } => check_grid("penalty.values", values, 0.0),
                    Penalty::InverseShots | Penalty::InverseShotsSquared => Ok(()),
                }
            }
            Self::Ape(s) => {
                expect(s.channels.count > 0, "method.channels.count", "at least 1", s.channels.count)?;
                check_grid("gamma", &s.gamma, 0.0)?;
                check_cache(&s.alpha, &s.beta)
            }
            Self::ApeT(s) => {
                expect(s.channels.count > 0, "method.channels.count", "at least 1", s.channels.count)?;
                check_cache(&s.alpha, &s.beta)?;
                s.training.check()
            }
            Self::LpPlusPlus(s) => expect(s.epochs > 0, "method.epochs", "at least 1", s.epochs),
            Self::TaskRes(s) => {
                check_grid("residual_scale", &s.residual_scale, 0.0)?;
                s.training.check()
            }
            Self::CoOp(s) => s.check(),
            Self::ClipLora(s) => s.check(),
            Self::TwoStage(s) => s.check(),
            Self::LatentOnly(s) => s.check(),
            Self::FineTune(s) => s.check(),
        }
    }
}

fn check_cache(alpha: &[f64], beta: &[f64]) -> Result<(), Error> {
    check_grid("alpha", alpha, 0.0)?;
    check_grid("beta", beta, 0.0)
}
