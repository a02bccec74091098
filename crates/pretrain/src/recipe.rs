//! Recipes: everything that can change the trained weights, as TOML without defaults.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

use clip_model::ClipConfig;
use sd_model::{AutoencoderKlConfig, SchedulerConfig, UNet2DConditionConfig};

use crate::augment::AugmentRecipe;
use crate::caption::{CaptionRecipe, share};
use crate::error::Error;

/// Which images a batch holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRecipe {
    /// Images per step B.
    pub size: usize,
    /// Share of the batch drawn from the labelled images alone; the rest is drawn from all.
    pub labelled_share: f32,
    /// Share of the labelled draws that first draw a class, so that small classes are not forgotten.
    pub balanced_share: f32,
}

/// Steps, learning rate and AdamW's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// Optimizer steps.
    pub num_steps: usize,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// Highest learning rate; after the warm-up it follows half a cosine down to `final_share` of it.
    pub learning_rate: f64,
    /// Last learning rate as a share of the highest.
    pub final_share: f64,
    /// AdamW's decay; norms, biases and scalars have none.
    pub weight_decay: f32,
    /// AdamW's first moment decay.
    pub beta_1: f32,
    /// AdamW's second moment decay.
    pub beta_2: f32,
    /// AdamW's epsilon.
    pub epsilon: f32,
    /// Largest gradient norm of one parameter tensor.
    pub max_grad_norm: f32,
}

/// Recipe of a CLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipRecipe {
    /// Name of the model, for its card.
    pub name: String,
    /// Split to train on.
    pub split: String,
    /// Seed of weights, batches and changes.
    pub seed: u64,
    /// Size of the byte-pair vocabulary learnt from the captions, the 512 byte tokens and two special tokens included.
    pub vocab_size: usize,
    /// Shape of the model; `vocab_size` and the special tokens follow from the tokenizer.
    pub model: ClipConfig,
    /// Largest factor on cosine similarities.
    pub max_logit_scale: f32,
    /// Batches.
    pub batch: BatchRecipe,
    /// Captions.
    pub captions: CaptionRecipe,
    /// Changes of the images.
    pub augment: AugmentRecipe,
    /// Optimizer.
    pub optimizer: OptimizerRecipe,
}

/// Recipe of an autoencoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderRecipe {
    /// Name of the model, for its card.
    pub name: String,
    /// Split to train on.
    pub split: String,
    /// Seed of weights, batches, changes and noise.
    pub seed: u64,
    /// Shape of the model; `scaling_factor` is measured after training and must be 1 here.
    pub model: AutoencoderKlConfig,
    /// Images per step B.
    pub batch_size: usize,
    /// Weight of the mean squared error beside the mean absolute error.
    pub squared_error_weight: f32,
    /// Weight of the mean absolute error of horizontal and vertical differences, which sharpens edges.
    pub edge_weight: f32,
    /// Weight of the Kullback-Leibler divergence per latent element.
    pub kl_weight: f32,
    /// Decay of the exponential moving average of the weights, which are what is kept.
    pub ema_decay: f32,
    /// Changes of the images.
    pub augment: AugmentRecipe,
    /// Optimizer.
    pub optimizer: OptimizerRecipe,
}

/// Recipe of a latent UNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetRecipe {
    /// Name of the model, for its card.
    pub name: String,
    /// Split to train on.
    pub split: String,
    /// Seed of weights, batches, changes and noise.
    pub seed: u64,
    /// Shape of the model.
    pub model: UNet2DConditionConfig,
    /// Noise schedule and prediction type.
    pub scheduler: SchedulerConfig,
    /// Share of captions replaced by the empty text, for classifier-free guidance.
    pub caption_dropout: f32,
    /// Clips the signal-to-noise ratio in the loss weights (Hang et al., 2023, arXiv 2303.09556).
    pub min_snr_gamma: f64,
    /// Changed copies of every image whose latents are made before training.
    pub copies: usize,
    /// Decay of the exponential moving average of the weights, which are what is kept.
    pub ema_decay: f32,
    /// Batches.
    pub batch: BatchRecipe,
    /// Captions.
    pub captions: CaptionRecipe,
    /// Changes of the images.
    pub augment: AugmentRecipe,
    /// Optimizer.
    pub optimizer: OptimizerRecipe,
}

/// A kind of recipe.
pub trait Recipe: Serialize + DeserializeOwned {
    /// The command that runs it.
    const KIND: &'static str;

    /// Checks what the type does not say.
    ///
    /// # Errors
    ///
    /// Fails on a value outside its range.
    fn check(&self) -> Result<(), Error>;

    /// Reads a recipe.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, has an unknown or missing field, or a value outside its range.
    fn from_file(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let recipe: Self = toml::from_str(&text).map_err(|source| Error::Recipe {
            path: path.to_path_buf(),
            kind: Self::KIND,
            source: Box::new(source),
        })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// BLAKE3 of the recipe's values, whatever the file's comments and spaces.
    fn digest(&self) -> String {
        let value = serde_json::json!(self);
        blake3::hash(value.to_string().as_bytes()).to_hex().to_string()
    }
}

impl Recipe for ClipRecipe {
    const KIND: &'static str = "pretrain clip";

    fn check(&self) -> Result<(), Error> {
        if self.vocab_size < 514 {
            return Err(Error::field(
                "vocab_size",
                "at least 514: bytes and special tokens",
                self.vocab_size,
            ));
        }
        if self.max_logit_scale < 1.0 {
            return Err(Error::field("max_logit_scale", "at least 1", self.max_logit_scale));
        }
        self.batch.check()?;
        self.captions.check()?;
        self.augment.check()?;
        self.optimizer.check()
    }
}

impl Recipe for AutoencoderRecipe {
    const KIND: &'static str = "pretrain autoencoder";

    fn check(&self) -> Result<(), Error> {
        if self.batch_size == 0 {
            return Err(Error::field("batch_size", "a positive number", 0));
        }
        #[allow(clippy::float_cmp)] // written as `1.0` in the file
        if self.model.scaling_factor != 1.0 {
            let expected = "1: it is measured after training";
            return Err(Error::field("model.scaling_factor", expected, self.model.scaling_factor));
        }
        share("ema_decay", self.ema_decay)?;
        self.augment.check()?;
        self.optimizer.check()
    }
}

impl Recipe for UnetRecipe {
    const KIND: &'static str = "pretrain unet";

    fn check(&self) -> Result<(), Error> {
        if self.copies == 0 {
            return Err(Error::field("copies", "a positive number", 0));
        }
        share("caption_dropout", self.caption_dropout)?;
        share("ema_decay", self.ema_decay)?;
        self.batch.check()?;
        self.captions.check()?;
        self.augment.check()?;
        self.optimizer.check()
    }
}

impl BatchRecipe {
    fn check(&self) -> Result<(), Error> {
        if self.size == 0 {
            return Err(Error::field("batch.size", "a positive number", 0));
        }
        share("batch.labelled_share", self.labelled_share)?;
        share("batch.balanced_share", self.balanced_share)
    }
}

impl AugmentRecipe {
    fn check(&self) -> Result<(), Error> {
        let [low, high] = self.zoom;
        if !(low > 0.0 && low <= high && high.is_finite()) {
            let found = format!("{:?}", self.zoom);
            return Err(Error::field("augment.zoom", "a positive number and one not below it", found));
        }
        share("augment.tint_probability", self.tint_probability)?;
        share("augment.tint_min", self.tint_min)?;
        share("augment.color_jitter", self.color_jitter)?;
        share("augment.shift", self.shift)?;
        share("augment.erase_probability", self.erase_probability)
    }
}

impl OptimizerRecipe {
    fn check(&self) -> Result<(), Error> {
        if self.num_steps == 0 {
            return Err(Error::field("optimizer.num_steps", "a positive number", 0));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(Error::field("optimizer.learning_rate", "a positive number", self.learning_rate));
        }
        if self.max_grad_norm.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            return Err(Error::field("optimizer.max_grad_norm", "a positive number", self.max_grad_norm));
        }
        Ok(())
    }

    /// Learning rate of a step, counted from 0.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = (self.num_steps - self.warmup_steps.min(self.num_steps)).max(1) as f64;
        let progress = ((step - self.warmup_steps) as f64 / span).min(1.0);
        let share = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.learning_rate * (self.final_share + (1.0 - self.final_share) * share)
    }
}
