//! What `trainer` writes: frozen features and trained parameters.

mod adapters;
mod features;
mod fine_tune;
mod latent_only;
mod method;
mod towers;

pub use adapters::{
    AdapterTraining, ApeSpec, ApeTSpec, CacheSpec, CafoSpec, ChannelSpec, ClapSpec, ClipAdapterSpec, GdaSpec,
    LinearProbeSpec, LpPlusPlusSpec, Penalty, ProLipSpec, TaskResSpec, TipAdapterSpec,
};
pub use features::{FeatureLayer, FeaturesSpec, ViewAugment};
pub use fine_tune::{
    Augment, Coupling, FineTuneSpec, Freeze, GeneratedUse, HeadInit, LatentControl, OptimizerSpec, Pool,
    Preset, Schedule, Select, Training,
};
pub use latent_only::{LatentOnlySpec, LatentSamples};
pub use method::Method;
pub use towers::{ClipLoraSpec, CoOpSpec, Context, EpochsFrom, TowerTraining, TwoStageSpec};

use serde::{Deserialize, Serialize};

use super::{InputSlot, expect, slot};
use crate::{ArtifactKind, CheckpointRef, DatasetId, Error, Seed, Shots};

/// Bump when the same spec would yield different features.
pub const FEATURES_CODE_VERSION: u32 = 2;
/// Bump when the same spec would yield different parameters.
pub const CHECKPOINTS_CODE_VERSION: u32 = 3;

/// One training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointsSpec {
    /// Data set.
    pub dataset: DatasetId,
    /// Name of the run for people, for example `flier-paper-shots4-seed1`.
    pub run: String,
    /// Name of the method in tables.
    pub method_name: String,
    /// CLIP checkpoint.
    pub backbone: CheckpointRef,
    /// Shots of the list in use; absent for zero-shot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shots: Option<Shots>,
    /// Seed of the run (and of its shot list).
    pub seed: Seed,
    /// Texts of the text classifier; absent where the method reads none (see [`Method::reads_texts`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_texts: Option<ClassTexts>,
    /// What is trained, and how.
    pub method: Method,
}

/// Texts of the text classifier: a class is the normalised mean of the normalised features of its texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ClassTexts {
    /// Each template with `{}` replaced by the class name; a text beyond the context is an error, as in openai/CLIP.
    Templates {
        /// The templates, each with one `{}`.
        templates: Vec<String>,
    },
    /// The prompts of a `prompts` artifact, as in CuPL (arXiv 2209.03320); a class may have any number.
    Prompts {
        /// Whether a prompt beyond the context is cut; otherwise it is an error.
        truncate: bool,
    },
}

impl CheckpointsSpec {
    /// The artifacts that the run reads.
    pub(in crate::spec) fn input_slots(&self) -> Vec<InputSlot> {
        let mut slots = self.method.input_slots();
        if matches!(self.class_texts, Some(ClassTexts::Prompts { .. })) {
            slots.push(slot("prompts", ArtifactKind::Prompts));
        }
        slots
    }

    pub(in crate::spec) fn check(&self) -> Result<(), Error> {
        self.method.check()?;
        let expected = if self.method.reads_texts() { "texts, which the method reads" } else { "none" };
        let found = if self.class_texts.is_some() { "texts" } else { "none" };
        expect(self.method.reads_texts() == self.class_texts.is_some(), "class_texts", expected, found)?;
        match &self.class_texts {
            Some(ClassTexts::Templates { templates }) => {
                expect(!templates.is_empty(), "class_texts.templates", "at least one template", "[]")?;
                templates.iter().try_for_each(|template| {
                    let is_template = template.matches("{}").count() == 1;
                    expect(
                        is_template,
                        "class_texts.templates",
                        "exactly one `{}` in each template",
                        template,
                    )
                })
            }
            Some(ClassTexts::Prompts { .. }) | None => Ok(()),
        }
    }
}
