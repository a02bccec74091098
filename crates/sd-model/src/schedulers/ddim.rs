//! Denoising diffusion implicit models (Song et al., 2021, arXiv 2010.02502).
//!
//! After `DDIMScheduler` of diffusers. The schedule is computed in f64 on the host; tensors only meet its scalars.

use burn::tensor::{Tensor, TensorData};
use std::f64::consts::FRAC_PI_2;

use crate::Error;
use crate::config::{BetaSchedule, DdimConfig, PredictionType, TimestepSpacing};

/// Largest beta of the squared cosine schedule, and the bound of its last steps.
const MAX_BETA: f64 = 0.999;

/// A DDIM scheduler.
#[derive(Debug, Clone)]
pub struct DdimScheduler {
    config: DdimConfig,
    alphas_cumprod: Vec<f64>,
    final_alpha_cumprod: f64,
}

impl DdimScheduler {
    /// Computes the schedule of `config`.
    ///
    /// # Errors
    ///
    /// Fails if a field is out of range.
    pub fn new(config: DdimConfig) -> Result<Self, Error> {
        config.validate()?;
        let mut alphas_cumprod = cumulative_product(&betas(&config));
        if config.rescale_betas_zero_snr {
            rescale_zero_terminal_snr(&mut alphas_cumprod);
        }
        let final_alpha_cumprod = if config.set_alpha_to_one { 1.0 } else { alphas_cumprod[0] };
        Ok(Self { config, alphas_cumprod, final_alpha_cumprod })
    }

    /// The settings.
    pub fn config(&self) -> &DdimConfig {
        &self.config
    }

    /// Cumulative product of 1 - beta, one entry per training timestep: the share of signal variance.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// The timesteps of `num_inference_steps` denoising steps, from noisy to clean.
    ///
    /// # Errors
    ///
    /// Fails if the number is 0 or so large that a timestep would lie outside the schedule.
    pub fn timesteps(&self, num_inference_steps: usize) -> Result<Vec<usize>, Error> {
        let total = self.config.num_train_timesteps;
        let spaced = spaced_timesteps(&self.config, num_inference_steps);
        let inside = |timesteps: &[usize]| timesteps.iter().all(|&t| t < total);
        if (1..=total).contains(&num_inference_steps) && inside(&spaced) {
            return Ok(spaced);
        }
        let fits = |n: &usize| inside(&spaced_timesteps(&self.config, *n));
        Err(Error::NumInferenceSteps {
            found: num_inference_steps,
            limit: (1..=total).rev().find(fits).unwrap_or(0),
            spacing: self.config.timestep_spacing.name().to_owned(),
        })
    }

    /// The timestep that a step from `timestep` leads to; `None` is the clean sample.
    ///
    /// As in diffusers it lies a constant stride below, whatever the spacing.
    pub fn previous_timestep(&self, timestep: usize, num_inference_steps: usize) -> Option<usize> {
        timestep.checked_sub(self.config.num_train_timesteps / num_inference_steps.max(1))
    }

    /// One deterministic step (eta 0) from `timestep` to `previous_timestep` (`None`: the clean sample).
    ///
    /// # Shapes
    ///
    /// - `model_output`: `[B, C, H, W]`, the UNet's prediction
    /// - `sample`: `[B, C, H, W]`, the noisy latent at `timestep`
    /// - output: `[B, C, H, W]`, the latent at `previous_timestep`
    ///
    /// # Panics
    ///
    /// Panics if a timestep is not in the schedule.
    pub fn step(
        &self,
        model_output: Tensor<4>,
        timestep: usize,
        previous_timestep: Option<usize>,
        sample: Tensor<4>,
    ) -> Tensor<4> {
        self.stochastic_step(model_output, timestep, previous_timestep, sample, 0.0, None)
    }

    /// One step that replaces a share of the noise by standard normal `noise` `[B, C, H, W]`.
    ///
    /// `eta` 0 is DDIM, 1 has the variance of DDPM (arXiv 2010.02502, equations 12 and 16). Without `noise` nothing
    /// random is added, as in [`step`](Self::step).
    ///
    /// # Panics
    ///
    /// Panics if a timestep is not in the schedule.
    pub fn stochastic_step(
        &self,
        model_output: Tensor<4>,
        timestep: usize,
        previous_timestep: Option<usize>,
        sample: Tensor<4>,
        eta: f64,
        noise: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let alpha = self.alphas_cumprod[timestep];
        let alpha_previous = previous_timestep.map_or(self.final_alpha_cumprod, |t| self.alphas_cumprod[t]);
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (mut original, epsilon) = match self.config.prediction_type {
            PredictionType::Epsilon => ((sample - model_output.clone() * sigma) / signal, model_output),
            PredictionType::Sample => (model_output.clone(), (sample - model_output * signal) / sigma),
            PredictionType::VPrediction => (
                sample.clone() * signal - model_output.clone() * sigma,
                model_output * signal + sample * sigma,
            ),
        };
        if self.config.clip_sample {
            original = original.clamp(-self.config.clip_sample_range, self.config.clip_sample_range);
        }
        let variance = (1.0 - alpha_previous) / (1.0 - alpha) * (1.0 - alpha / alpha_previous);
        let deviation = eta * variance.max(0.0).sqrt();
        let direction = (1.0 - alpha_previous - deviation * deviation).max(0.0).sqrt();
        let previous = original * alpha_previous.sqrt() + epsilon * direction;
        match noise {
            Some(noise) => previous + noise * deviation,
            None => previous,
        }
    }

    /// Mixes clean latents with noise, each to its own timestep: √ᾱ·original + √(1-ᾱ)·noise.
    ///
    /// # Shapes
    ///
    /// - `original`, `noise`: `[B, C, H, W]`
    /// - `timesteps`: B entries
    ///
    /// # Panics
    ///
    /// Panics if a timestep is not in the schedule or their number is not B.
    pub fn add_noise(&self, original: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let [signal, sigma] = self.coefficients(&original, timesteps);
        original * signal + noise * sigma
    }

    /// The training target of v-prediction: √ᾱ·noise - √(1-ᾱ)·original. Shapes and panics as
    /// [`add_noise`](Self::add_noise).
    pub fn velocity(&self, original: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let [signal, sigma] = self.coefficients(&original, timesteps);
        noise * signal - original * sigma
    }

    /// √ᾱ and √(1-ᾱ) of every timestep as `[B, 1, 1, 1]`, of the type and on the device of `like`.
    fn coefficients(&self, like: &Tensor<4>, timesteps: &[usize]) -> [Tensor<4>; 2] {
        let batch = like.dims()[0];
        assert_eq!(timesteps.len(), batch, "one timestep per latent");
        let alphas = || timesteps.iter().map(|&t| self.alphas_cumprod[t]);
        let tensor = |values: Vec<f32>| {
            let data = TensorData::new(values, [batch, 1, 1, 1]);
            Tensor::<4>::from_data(data, (&like.device(), like.dtype()))
        };
        [
            tensor(alphas().map(|a| a.sqrt() as f32).collect()),
            tensor(alphas().map(|a| (1.0 - a).sqrt() as f32).collect()),
        ]
    }
}

fn spaced_timesteps(config: &DdimConfig, num_inference_steps: usize) -> Vec<usize> {
    let (total, steps) = (config.num_train_timesteps as f64, num_inference_steps as f64);
    // The rounding of numpy, which diffusers uses: halves go to the even neighbour.
    let round = |value: f64| value.round_ties_even() as usize;
    match config.timestep_spacing {
        TimestepSpacing::Leading => {
            let stride = config.num_train_timesteps / num_inference_steps.max(1);
            (0..num_inference_steps).rev().map(|i| i * stride + config.steps_offset).collect()
        }
        TimestepSpacing::Trailing => {
            // `numpy.arange(total, 0, -total / steps)` counts by the difference of its first two values.
            let delta = (total - total / steps) - total;
            let rounded = |i: usize| round(total + i as f64 * delta).saturating_sub(1);
            (0..num_inference_steps).map(rounded).collect()
        }
        TimestepSpacing::Linspace if num_inference_steps == 1 => vec![0],
        TimestepSpacing::Linspace => {
            let stride = (total - 1.0) / (steps - 1.0);
            (0..num_inference_steps).rev().map(|i| round(i as f64 * stride)).collect()
        }
    }
}

fn betas(config: &DdimConfig) -> Vec<f64> {
    let count = config.num_train_timesteps;
    let between = |start: f64, end: f64, i: usize| start + (end - start) * i as f64 / (count - 1) as f64;
    let (start, end) = (config.beta_start, config.beta_end);
    let alpha_bar = |i: usize| ((i as f64 / count as f64 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
    let beta = |i: usize| match config.beta_schedule {
        BetaSchedule::Linear => between(start, end, i),
        BetaSchedule::ScaledLinear => between(start.sqrt(), end.sqrt(), i).powi(2),
        BetaSchedule::SquaredcosCapV2 => (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(MAX_BETA),
    };
    (0..count).map(beta).collect()
}

fn cumulative_product(betas: &[f64]) -> Vec<f64> {
    let mut product = 1.0;
    betas
        .iter()
        .map(|beta| {
            product *= 1.0 - beta;
            product
        })
        .collect()
}

/// Shifts and scales √ᾱ so that the last is 0 and the first stays (arXiv 2305.08891, algorithm 1).
fn rescale_zero_terminal_snr(alphas_cumprod: &mut [f64]) {
    let (Some(&first), Some(&last)) = (alphas_cumprod.first(), alphas_cumprod.last()) else { return };
    let (first, last) = (first.sqrt(), last.sqrt());
    for alpha in alphas_cumprod {
        *alpha = ((alpha.sqrt() - last) * first / (first - last)).powi(2);
    }
}
