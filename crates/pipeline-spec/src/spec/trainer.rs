//! What `trainer` writes: frozen features and trained parameters.

use serde::{Deserialize, Serialize};

use super::{InputSlot, expect, slot};
use crate::{ArtifactKind, CheckpointRef, DatasetId, Error, Seed, Shots};

/// Bump when the same spec would yield different features.
pub const FEATURES_CODE_VERSION: u32 = 1;
/// Bump when the same spec would yield different parameters.
pub const CHECKPOINTS_CODE_VERSION: u32 = 1;

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
    pub(super) fn slug(&self) -> String {
        let view = match self.view {
            ViewAugment::Center => "center".to_owned(),
            ViewAugment::CropFlip { views, seed, .. } => format!("crop{views}-seed{seed}"),
        };
        format!("{}-{}-{view}", self.backbone.id.to_lowercase(), self.splits.join("-"))
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        expect(!self.splits.is_empty(), "splits", "at least one split", "[]")?;
        if let ViewAugment::CropFlip { views, scale_min, .. } = self.view {
            expect(views > 0, "view.views", "at least 1", views)?;
            expect(scale_min > 0.0 && scale_min <= 1.0, "view.scale_min", "in (0, 1]", scale_min)?;
        }
        Ok(())
    }
}

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
    pub(super) fn input_slots(&self) -> Vec<InputSlot> {
        let mut slots = self.method.input_slots();
        if matches!(self.class_texts, Some(ClassTexts::Prompts { .. })) {
            slots.push(slot("prompts", ArtifactKind::Prompts));
        }
        slots
    }

    pub(super) fn check(&self) -> Result<(), Error> {
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

/// What is trained, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Method {
    /// Nothing: the text classifier.
    ZeroShot,
    /// Logistic regression on frozen features.
    LinearProbe(LinearProbeSpec),
    /// Tip-Adapter with its cache keys fine-tuned (arXiv 2207.09519).
    TipAdapterF(TipAdapterSpec),
    /// The image encoder itself: FLIER and its controls.
    FineTune(FineTuneSpec),
}

impl Method {
    /// The artifacts that training reads.
    pub fn input_slots(&self) -> Vec<InputSlot> {
        let images = slot("images", ArtifactKind::Images);
        let shots = slot("fewshot-splits", ArtifactKind::FewshotSplits);
        let features = slot("features", ArtifactKind::Features);
        match self {
            Self::ZeroShot => vec![images],
            Self::LinearProbe(_) => vec![shots, features],
            Self::TipAdapterF(_) => vec![shots, features, slot("cache-features", ArtifactKind::Features)],
            Self::FineTune(s) => match s.generated {
                GeneratedUse::None => vec![images, shots],
                GeneratedUse::Images { .. } | GeneratedUse::ImagesAndLatents { .. } => {
                    vec![images, shots, slot("latents", ArtifactKind::Latents)]
                }
            },
        }
    }

    /// Whether the method reads the texts of the text classifier.
    pub fn reads_texts(&self) -> bool {
        match self {
            Self::ZeroShot | Self::TipAdapterF(_) => true,
            Self::LinearProbe(_) => false,
            Self::FineTune(s) => s.head_init == HeadInit::ZeroShotText,
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self {
            Self::ZeroShot => Ok(()),
            Self::LinearProbe(s) => expect(
                !s.inverse_regularization.is_empty(),
                "method.inverse_regularization",
                "at least one value",
                "[]",
            ),
            Self::TipAdapterF(s) => {
                expect(!s.alpha.is_empty(), "method.alpha", "at least one value", "[]")?;
                expect(!s.beta.is_empty(), "method.beta", "at least one value", "[]")
            }
            Self::FineTune(s) => s.check(),
        }
    }
}

/// Logistic regression by L-BFGS on frozen features; the best `C` is chosen on the few-shot validation images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearProbeSpec {
    /// Values of `C` (inverse regularisation) that are tried.
    pub inverse_regularization: Vec<f64>,
    /// Iterations of L-BFGS at most.
    pub max_iterations: u32,
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

/// Fine-tuning of the image encoder: FLIER (arXiv 2410.07648) with every switch, and its controls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuneSpec {
    /// What of the generated samples is used.
    pub generated: GeneratedUse,
    /// How image and latent branch meet.
    pub coupling: Coupling,
    /// Whether an optimizer holds the latent encoder and its head; `false` as in the released code.
    pub latent_trainable: bool,
    /// Order of the passes over real and generated samples.
    pub schedule: Schedule,
    /// First weights of the classifier.
    pub head_init: HeadInit,
    /// What of the encoder's output the classifier sees.
    pub pool: Pool,
    /// What stays as pre-trained.
    pub freeze: Freeze,
    /// Which weights of the trajectory count.
    pub select: Select,
    /// Augmentation of training images.
    pub augment: Augment,
    /// Optimizer and its schedule.
    pub optimizer: OptimizerSpec,
    /// Smoothing of the cross entropy.
    pub label_smoothing: f64,
    /// Decay of the moving average of the image branch's weights; absent turns it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
}

/// The three named settings of the switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// As the authors' released snapshot: the latent branch is in no optimizer and shares nothing.
    Released,
    /// The latent branch is trained; it still shares nothing with the image branch.
    Paper,
    /// Both branches share one classifier, so that latents can reach the image branch.
    Coupled,
    /// Control: real images only (FT-CLIP, arXiv 2212.06138).
    RealOnly,
    /// Control: real and generated images, no latents.
    RealGenerated,
}

/// What of the generated samples is used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum GeneratedUse {
    /// Nothing: real images only.
    None,
    /// Images without their latents.
    Images {
        /// Generated images per class; absent: as many as shots (the released code).
        #[serde(skip_serializing_if = "Option::is_none")]
        per_class: Option<u32>,
    },
    /// Images and latents.
    ImagesAndLatents {
        /// Generated images per class; absent: as many as shots (the released code).
        #[serde(skip_serializing_if = "Option::is_none")]
        per_class: Option<u32>,
        /// Weight of the latent loss, between 0 and 1.
        latent_factor: f64,
    },
}

/// How image and latent branch meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coupling {
    /// Not at all: two heads, two losses, summed.
    Independent,
    /// One classifier for both; the latent feature is projected to the encoder's width where the widths differ.
    SharedHead,
}

/// Order of the passes over real and generated samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// A real pass, then a generated pass, in every epoch (the released code).
    Alternate,
    /// All real epochs, then all generated epochs.
    Sequential,
}

/// First weights of the classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadInit {
    /// Truncated normal of std 0.02, times 0.001 (the released code).
    NearZero,
    /// The text classifier; needs `pool = "projected"`.
    ZeroShotText,
}

/// What of the encoder's output the classifier sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// Mean of the patch tokens after a fresh layer norm (the released code; ViT), or of the feature map (ResNet).
    MeanPatch,
    /// CLIP's own projected and normalised image embedding.
    Projected,
}

/// What stays as pre-trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    /// The patch convolution (ViT) or the stem's first convolution (ResNet), as the released code.
    PatchConv,
    /// Nothing.
    None,
    /// The whole encoder.
    AllButHead,
}

/// Which weights of the trajectory count. The test set is not among the choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// The last.
    Last,
    /// The epoch with the best accuracy on the few-shot validation images.
    ValBest,
}

/// Augmentation of training images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Augment {
    /// CLIP's test preprocessing.
    None,
    /// Random resized crop (aspect 3/4 to 4/3, bicubic) and horizontal flip.
    CropFlip {
        /// Smallest area of the crop, relative to the image: 0.08 in CoOp, 0.5 in Tip-Adapter.
        scale_min: f64,
    },
}

/// AdamW (betas 0.9 and 0.999, eps 1e-8), linear warm-up from zero, cosine to `min_learning_rate`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSpec {
    /// Passes over the shot list.
    pub epochs: u32,
    /// Epochs of linear warm-up.
    pub warmup_epochs: u32,
    /// Images in a step; the last, smaller batch of a pass is used, never dropped.
    pub batch_size: u32,
    /// Images that go through the model together; the step sums their gradients, so that memory holds one such part at a time.
    /// Absent: all of the step. Sums in another order round otherwise, so it is part of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch_size: Option<u32>,
    /// Learning rate of the classifier, and of the latent branch where it is trained.
    pub learning_rate: f64,
    /// Learning rate at the end of the schedule.
    pub min_learning_rate: f64,
    /// Decoupled weight decay; zero for biases, norms and embeddings.
    pub weight_decay: f64,
    /// Factor on the learning rate per layer below the classifier; 1 gives every layer the same.
    pub layer_decay: f64,
}

impl FineTuneSpec {
    /// The switches of `preset`, with the given training settings.
    pub fn preset(preset: Preset, training: &Training) -> Self {
        let latents = GeneratedUse::ImagesAndLatents {
            per_class: training.generated_per_class,
            latent_factor: training.latent_factor,
        };
        let (generated, coupling, latent_trainable) = match preset {
            Preset::Released => (latents, Coupling::Independent, false),
            Preset::Paper => (latents, Coupling::Independent, true),
            Preset::Coupled => (latents, Coupling::SharedHead, true),
            Preset::RealOnly => (GeneratedUse::None, Coupling::Independent, false),
            Preset::RealGenerated => {
                let per_class = training.generated_per_class;
                (GeneratedUse::Images { per_class }, Coupling::Independent, false)
            }
        };
        Self {
            generated,
            coupling,
            latent_trainable,
            schedule: training.schedule,
            head_init: training.head_init,
            pool: training.pool,
            freeze: training.freeze,
            select: training.select,
            augment: training.augment,
            optimizer: training.optimizer,
            label_smoothing: training.label_smoothing,
            ema_decay: training.ema_decay,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let o = &self.optimizer;
        expect(o.epochs > 0, "method.optimizer.epochs", "at least 1", o.epochs)?;
        expect(o.batch_size > 0, "method.optimizer.batch_size", "at least 1", o.batch_size)?;
        if let Some(micro) = o.micro_batch_size {
            let (field, expected) = ("method.optimizer.micro_batch_size", "between 1 and `batch_size`");
            expect((1..=o.batch_size).contains(&micro), field, expected, micro)?;
        }
        expect(o.learning_rate > 0.0, "method.optimizer.learning_rate", "a number > 0", o.learning_rate)?;
        expect(
            o.layer_decay > 0.0 && o.layer_decay <= 1.0,
            "method.optimizer.layer_decay",
            "in (0, 1]",
            o.layer_decay,
        )?;
        let smoothing = self.label_smoothing;
        expect((0.0..1.0).contains(&smoothing), "method.label_smoothing", "in [0, 1)", smoothing)?;
        if let Some(decay) = self.ema_decay {
            expect((0.0..1.0).contains(&decay), "method.ema_decay", "in [0, 1)", decay)?;
        }
        if let GeneratedUse::ImagesAndLatents { latent_factor, .. } = self.generated {
            expect(
                (0.0..=1.0).contains(&latent_factor),
                "method.generated.latent_factor",
                "in [0, 1]",
                latent_factor,
            )?;
        }
        if let Augment::CropFlip { scale_min } = self.augment {
            expect(scale_min > 0.0 && scale_min <= 1.0, "method.augment.scale_min", "in (0, 1]", scale_min)?;
        }
        let fits = self.head_init != HeadInit::ZeroShotText || self.pool == Pool::Projected;
        expect(fits, "method.head_init", "`near-zero`, or `pool = \"projected\"`", "zero-shot-text")
    }
}

/// Training settings that the methods of a pipeline share; a [`Preset`] adds the switches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// See [`FineTuneSpec::schedule`].
    pub schedule: Schedule,
    /// See [`FineTuneSpec::head_init`].
    pub head_init: HeadInit,
    /// See [`FineTuneSpec::pool`].
    pub pool: Pool,
    /// See [`FineTuneSpec::freeze`].
    pub freeze: Freeze,
    /// See [`FineTuneSpec::select`].
    pub select: Select,
    /// See [`FineTuneSpec::augment`].
    pub augment: Augment,
    /// See [`FineTuneSpec::optimizer`].
    pub optimizer: OptimizerSpec,
    /// See [`FineTuneSpec::label_smoothing`].
    pub label_smoothing: f64,
    /// See [`FineTuneSpec::ema_decay`].
    pub ema_decay: Option<f64>,
    /// Weight of the latent loss.
    pub latent_factor: f64,
    /// Generated images per class; absent: as many as shots.
    pub generated_per_class: Option<u32>,
}
