//! `scheduler/scheduler_config.json` of a diffusers folder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

use super::{Fields, write_json};
use crate::Error;

/// How the noise variance grows over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Linear from `beta_start` to `beta_end` (Ho et al., 2020, arXiv 2006.11239).
    Linear,
    /// Linear in the square root of beta (Rombach et al., 2022, arXiv 2112.10752).
    ScaledLinear,
    /// Squared cosine in the cumulative product (Nichol and Dhariwal, 2021, arXiv 2102.09672); ignores
    /// `beta_start` and `beta_end`.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

/// What the UNet predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity of Salimans and Ho, 2022 (arXiv 2202.00512), section 2.4.
    VPrediction,
    /// The clean latent.
    Sample,
}

/// How inference timesteps are spread over the training timesteps (Lin et al., 2023, arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestepSpacing {
    /// Multiples of an integer stride, counted from 0 and shifted by `steps_offset`.
    Leading,
    /// Counted down from the last timestep.
    Trailing,
    /// Both ends included.
    Linspace,
}

impl TimestepSpacing {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::Trailing => "trailing",
            Self::Linspace => "linspace",
        }
    }
}

/// Settings of a [`DdimScheduler`](crate::DdimScheduler), as in diffusers' `DDIMScheduler`, with its defaults.
///
/// The scheduler files of Stable Diffusion name other schedulers (`PNDMScheduler`) with the same fields; as in
/// diffusers' `DDIMScheduler.from_config`, the class name is not looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct DdimConfig {
    /// Number of timesteps of the noise schedule.
    pub num_train_timesteps: usize,
    /// First noise variance.
    pub beta_start: f64,
    /// Last noise variance.
    pub beta_end: f64,
    /// How the noise variance grows.
    pub beta_schedule: BetaSchedule,
    /// What the UNet predicts.
    pub prediction_type: PredictionType,
    /// Clips the predicted clean sample to `±clip_sample_range`; wrong for latents, meant for pixels.
    pub clip_sample: bool,
    /// Bound of `clip_sample`.
    pub clip_sample_range: f64,
    /// The step after the last timestep is noise-free (true) or has the noise of timestep 0 (false).
    pub set_alpha_to_one: bool,
    /// Added to the timesteps of leading spacing.
    pub steps_offset: usize,
    /// How inference timesteps are spread.
    pub timestep_spacing: TimestepSpacing,
    /// Rescales the schedule so that the last timestep is pure noise (arXiv 2305.08891, algorithm 1).
    pub rescale_betas_zero_snr: bool,
}

impl Default for DdimConfig {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            prediction_type: PredictionType::Epsilon,
            clip_sample: true,
            clip_sample_range: 1.0,
            set_alpha_to_one: true,
            steps_offset: 0,
            timestep_spacing: TimestepSpacing::Leading,
            rescale_betas_zero_snr: false,
        }
    }
}

impl TryFrom<Map<String, Value>> for DdimConfig {
    type Error = Error;

    fn try_from(map: Map<String, Value>) -> Result<Self, Error> {
        Self::from_fields(&Fields::from_map(Self::NAME, map))
    }
}

impl DdimConfig {
    const NAME: &str = "DdimConfig";

    /// Reads `scheduler/scheduler_config.json`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if a field is malformed, out of range, or asks for something that this
    /// crate does not implement. The error names the file and the field.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::from_fields(&Fields::read(path)?)
    }

    /// Writes the configuration so that diffusers reads it too.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        write_json(self, &[("_class_name", json!("DDIMScheduler")), ("thresholding", json!(false))], path)
    }

    fn from_fields(fields: &Fields) -> Result<Self, Error> {
        fields.only("thresholding", &[json!(false)])?;
        fields.only("trained_betas", &[])?;
        let default = Self::default();
        let config = Self {
            num_train_timesteps: fields.or(
                "num_train_timesteps",
                "a positive integer",
                default.num_train_timesteps,
            )?,
            beta_start: fields.or("beta_start", "a number", default.beta_start)?,
            beta_end: fields.or("beta_end", "a number", default.beta_end)?,
            beta_schedule: fields.or(
                "beta_schedule",
                "`linear`, `scaled_linear` or `squaredcos_cap_v2`",
                default.beta_schedule,
            )?,
            prediction_type: fields.or(
                "prediction_type",
                "`epsilon`, `v_prediction` or `sample`",
                default.prediction_type,
            )?,
            clip_sample: fields.or("clip_sample", "a boolean", default.clip_sample)?,
            clip_sample_range: fields.or("clip_sample_range", "a number", default.clip_sample_range)?,
            set_alpha_to_one: fields.or("set_alpha_to_one", "a boolean", default.set_alpha_to_one)?,
            steps_offset: fields.or("steps_offset", "a non-negative integer", default.steps_offset)?,
            timestep_spacing: fields.or(
                "timestep_spacing",
                "`leading`, `trailing` or `linspace`",
                default.timestep_spacing,
            )?,
            rescale_betas_zero_snr: fields.or(
                "rescale_betas_zero_snr",
                "a boolean",
                default.rescale_betas_zero_snr,
            )?,
        };
        config.validate_as(fields.origin())?;
        Ok(config)
    }

    /// Checks the ranges of the fields.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.validate_as(Self::NAME)
    }

    fn validate_as(&self, origin: &str) -> Result<(), Error> {
        if self.num_train_timesteps < 2 {
            let found = format!("`{}`", self.num_train_timesteps);
            return Err(Error::config(origin, "num_train_timesteps", "at least 2", found));
        }
        for (field, beta) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(Error::config(origin, field, "a number between 0 and 1", format!("`{beta}`")));
            }
        }
        if self.clip_sample && self.clip_sample_range.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            let found = format!("`{}`", self.clip_sample_range);
            return Err(Error::config(origin, "clip_sample_range", "a positive number", found));
        }
        if self.rescale_betas_zero_snr && self.prediction_type == PredictionType::Epsilon {
            // With no signal left the noise says nothing about the sample: the step would divide by zero.
            let expected = "`v_prediction` or `sample` with `rescale_betas_zero_snr`";
            return Err(Error::config(origin, "prediction_type", expected, "`epsilon`"));
        }
        Ok(())
    }
}
