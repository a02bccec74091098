//! Fine-tuning of the image encoder: FLIER and its controls.

use serde::{Deserialize, Serialize};

use super::expect;
use crate::Error;

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
    /// Control: generated images alone, no latents; all that training sees comes from the texts.
    GeneratedOnly,
    /// Control: as [`Self::Coupled`], each generated image with the latent of another.
    ShuffledLatents,
    /// Control: as [`Self::Coupled`], with noise in place of the latents.
    NoiseLatents,
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
        /// What stands in place of each image's own latent; absent: nothing, the latent is its own.
        #[serde(skip_serializing_if = "Option::is_none")]
        control: Option<LatentControl>,
        /// Factor on the latents; absent: none, they are scaled as the UNet sees them. One divided by the autoencoder's
        /// `scaling_factor` gives z0 unscaled.
        #[serde(skip_serializing_if = "Option::is_none")]
        latent_scale: Option<f64>,
    },
    /// Images without their latents, and no real images; what is chosen on validation images still sees real ones.
    OnlyImages {
        /// Generated images per class; absent: as many as shots.
        #[serde(skip_serializing_if = "Option::is_none")]
        per_class: Option<u32>,
    },
}

/// What stands in place of a generated image's latent, to show what the latent itself brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatentControl {
    /// The latent of another generated image, whatever its class.
    Shuffled,
    /// Standard normal noise.
    Noise,
}

/// How image and latent branch meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coupling {
    /// Not at all: two heads, two losses, summed.
    Independent,
    /// One classifier for both; the latent feature is projected to the encoder's width where the widths differ.
    SharedHead,
    /// Two classifiers; on generated samples the latent loss is that of the sum of both logits.
    LogitSum,
    /// One classifier; on generated samples the latent loss is that of the sum of both features, the latent's projected.
    FeatureAdd,
    /// Two classifiers; the latent loss also draws the image feature to the projected latent feature (cosine).
    AlignLoss,
}

/// Order of the passes over real and generated samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// A real pass, then a generated pass, in every epoch (the released code).
    Alternate,
    /// All real epochs, then all generated epochs.
    Sequential,
    /// One pass over both in every epoch, in one random order: a step sees real and generated samples.
    Mixed,
}

/// First weights of the classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadInit {
    /// Truncated normal of std 0.02, times 0.001 (the released code).
    NearZero,
    /// The text classifier; needs `pool = "projected"`.
    ZeroShotText,
    /// For each class the normalised mean of the features of its shots, without augmentation, times the checkpoint's logit
    /// scale and divided by the mean length of the features: logits start as scaled cosines to the class means.
    ClassMean,
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
    /// The released code's: the same, then timm's RandAugment in its increasing form (two operations, each with probability
    /// 1/2; `rand-m9-mstd0.5-inc1` is magnitude 9, std 0.5) and random erasing.
    TimmStrong {
        /// Smallest area of the crop, relative to the image; 0.08 in the released code.
        scale_min: f64,
        /// Mean level of an operation, 0 to 10.
        magnitude: f64,
        /// Its standard deviation.
        magnitude_std: f64,
        /// Probability that a box of an image is replaced by noise.
        random_erasing: f64,
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
        let (per_class, latent_factor) = (training.generated_per_class, training.latent_factor);
        let latent_scale = training.latent_scale;
        let with =
            |control| GeneratedUse::ImagesAndLatents { per_class, latent_factor, control, latent_scale };
        let latents = with(None);
        let (generated, coupling, latent_trainable) = match preset {
            Preset::Released => (latents, Coupling::Independent, false),
            Preset::Paper => (latents, Coupling::Independent, true),
            Preset::Coupled => (latents, Coupling::SharedHead, true),
            Preset::RealOnly => (GeneratedUse::None, Coupling::Independent, false),
            Preset::RealGenerated => (GeneratedUse::Images { per_class }, Coupling::Independent, false),
            Preset::GeneratedOnly => (GeneratedUse::OnlyImages { per_class }, Coupling::Independent, false),
            Preset::ShuffledLatents => (with(Some(LatentControl::Shuffled)), Coupling::SharedHead, true),
            Preset::NoiseLatents => (with(Some(LatentControl::Noise)), Coupling::SharedHead, true),
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

    pub(super) fn check(&self) -> Result<(), Error> {
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
        if let GeneratedUse::ImagesAndLatents { latent_factor, latent_scale, .. } = self.generated {
            let scale = latent_scale.unwrap_or(1.0);
            let is_scale = scale.is_finite() && scale > 0.0;
            expect(is_scale, "method.generated.latent_scale", "a number > 0", scale)?;
            expect(
                (0.0..=1.0).contains(&latent_factor),
                "method.generated.latent_factor",
                "in [0, 1]",
                latent_factor,
            )?;
        }
        self.augment.check()?;
        let fits = self.head_init != HeadInit::ZeroShotText || self.pool == Pool::Projected;
        expect(fits, "method.head_init", "`near-zero`, or `pool = \"projected\"`", "zero-shot-text")?;
        let only_generated = matches!(self.generated, GeneratedUse::OnlyImages { .. });
        let fits = self.head_init != HeadInit::ClassMean || !only_generated;
        expect(fits, "method.head_init", "`near-zero` or `zero-shot-text` without real images", "class-mean")
    }
}

impl Augment {
    pub(super) fn check(&self) -> Result<(), Error> {
        match *self {
            Self::None => Ok(()),
            Self::CropFlip { scale_min } => check_scale(scale_min),
            Self::TimmStrong { scale_min, magnitude, magnitude_std, random_erasing } => {
                check_scale(scale_min)?;
                let is_level = (0.0..=10.0).contains(&magnitude);
                expect(is_level, "method.augment.magnitude", "in [0, 10]", magnitude)?;
                let is_std = magnitude_std >= 0.0 && magnitude_std.is_finite();
                expect(is_std, "method.augment.magnitude_std", "a number >= 0", magnitude_std)?;
                let is_probability = (0.0..=1.0).contains(&random_erasing);
                expect(is_probability, "method.augment.random_erasing", "in [0, 1]", random_erasing)
            }
        }
    }
}

fn check_scale(scale_min: f64) -> Result<(), Error> {
    expect(scale_min > 0.0 && scale_min <= 1.0, "method.augment.scale_min", "in (0, 1]", scale_min)
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
    /// Factor on the latents; absent: none. See [`GeneratedUse::ImagesAndLatents`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent_scale: Option<f64>,
    /// Generated images per class; absent: as many as shots.
    pub generated_per_class: Option<u32>,
}
