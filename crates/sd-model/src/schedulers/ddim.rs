//! Denoising diffusion implicit models (Song et al., 2021, arXiv 2010.02502), after `DDIMScheduler` of diffusers.

use burn::tensor::Tensor;

use super::{Scheduler, Solver, predicted_original};
use crate::config::PredictionType;

/// The steps of one run.
#[derive(Debug, Clone)]
pub(super) struct Ddim {
    /// ᾱ at each step and after it.
    alphas: Vec<(f64, f64)>,
    prediction_type: PredictionType,
    clip: Option<f64>,
    eta: f64,
}

impl Ddim {
    pub(super) fn start(scheduler: &Scheduler, num_inference_steps: usize) -> (Vec<f64>, f64, Solver) {
        let (config, alphas) = (&scheduler.config, &scheduler.alphas_cumprod);
        let timesteps = scheduler.spaced_timesteps(num_inference_steps);
        // As in diffusers a step leads a constant stride down, whatever the spacing.
        let stride = config.num_train_timesteps() / num_inference_steps;
        let last = if config.set_alpha_to_one.unwrap_or(true) { 1.0 } else { alphas[0] };
        let pair = |&t: &f64| {
            let t = t as usize;
            (alphas[t], t.checked_sub(stride).map_or(last, |previous| alphas[previous]))
        };
        let solver = Self {
            alphas: timesteps.iter().map(pair).collect(),
            prediction_type: config.prediction_type(),
            clip: config.clip_sample.unwrap_or(true).then(|| config.clip_sample_range.unwrap_or(1.0)),
            eta: scheduler.eta,
        };
        (timesteps, 1.0, Solver::Ddim(solver))
    }

    pub(super) fn needs_noise(&self) -> bool {
        self.eta != 0.0
    }

    pub(super) fn step(
        &self,
        index: usize,
        model_output: Tensor<4>,
        sample: Tensor<4>,
        noise: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let (alpha, alpha_previous) = self.alphas[index];
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let kind = self.prediction_type;
        let mut original = predicted_original(kind, model_output.clone(), sample.clone(), signal, sigma);
        let epsilon = match kind {
            PredictionType::Epsilon => model_output,
            PredictionType::Sample => (sample - model_output * signal) / sigma,
            PredictionType::VPrediction => model_output * signal + sample * sigma,
        };
        if let Some(range) = self.clip {
            original = original.clamp(-range, range);
        }
        let variance = (1.0 - alpha_previous) / (1.0 - alpha) * (1.0 - alpha / alpha_previous);
        let deviation = self.eta * variance.max(0.0).sqrt();
        let direction = (1.0 - alpha_previous - deviation * deviation).max(0.0).sqrt();
        let previous = original * alpha_previous.sqrt() + epsilon * direction;
        match noise {
            Some(noise) if self.eta != 0.0 => previous + noise * deviation,
            _ => previous,
        }
    }
}
