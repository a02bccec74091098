//! Euler's method on the probability flow, and its ancestral variant, after `EulerDiscreteScheduler` and
//! `EulerAncestralDiscreteScheduler` of diffusers.
//!
//! Samples are not scaled by the signal here: they are clean latents plus sigma times noise (arXiv 2206.00364).

use burn::tensor::Tensor;

use super::sigmas::Sigmas;
use super::{Scheduler, Solver, predicted_original};
use crate::config::{PredictionType, SchedulerClass, TimestepSpacing};

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Euler {
    /// The noise level at each step, and the one that the last step leads to.
    sigmas: Vec<f64>,
    prediction_type: PredictionType,
    is_ancestral: bool,
}

impl Euler {
    pub(super) fn start(scheduler: &Scheduler, num_inference_steps: usize) -> (Vec<f64>, f64, Solver) {
        let Sigmas { timesteps, sigmas } = scheduler.sigmas(num_inference_steps);
        let largest = sigmas.iter().copied().fold(0.0, f64::max);
        let init_noise_sigma = match scheduler.timestep_spacing() {
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
            TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
        };
        let solver = Self {
            sigmas,
            prediction_type: scheduler.config.prediction_type(),
            is_ancestral: scheduler.class == SchedulerClass::EulerAncestral,
        };
        (timesteps, init_noise_sigma, Solver::Euler(solver))
    }

    pub(super) fn needs_noise(&self, index: usize) -> bool {
        self.is_ancestral && self.sigmas.get(index + 1).is_some_and(|&sigma| sigma > 0.0)
    }

    pub(super) fn scale_model_input(&self, sample: Tensor<4>, index: usize) -> Tensor<4> {
        let sigma = self.sigmas[index];
        sample / (sigma * sigma + 1.0).sqrt()
    }

    pub(super) fn step(
        &self,
        index: usize,
        model_output: Tensor<4>,
        sample: Tensor<4>,
        noise: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let (sigma, next) = (self.sigmas[index], self.sigmas[index + 1]);
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        let scaled = sample.clone() * signal;
        let original = predicted_original(self.prediction_type, model_output, scaled, signal, sigma * signal);
        let up = match self.is_ancestral {
            true => (next * next * (sigma * sigma - next * next) / (sigma * sigma)).max(0.0).sqrt(),
            false => 0.0,
        };
        let down = (next * next - up * up).max(0.0).sqrt();
        let derivative = (sample.clone() - original) / sigma;
        let previous = sample + derivative * (down - sigma);
        match noise {
            Some(noise) if up > 0.0 => previous + noise * up,
            _ => previous,
        }
    }
}
