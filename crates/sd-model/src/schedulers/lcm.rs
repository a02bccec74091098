//! Multistep sampling of a latent consistency model (Luo et al., 2023, arXiv 2310.04378), after `LCMScheduler` of
//! diffusers: each step predicts the clean sample and noises it again to the next timestep.

use burn::tensor::Tensor;

use super::{Scheduler, Solver, predicted_original};
use crate::config::PredictionType;

/// Standard deviation of the data in the boundary condition.
const SIGMA_DATA: f64 = 0.5;

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Lcm {
    steps: Vec<Step>,
    prediction_type: PredictionType,
    clip: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    alpha: f64,
    /// ᾱ that the clean sample is noised to; `None` in the last step, which gives it as it is.
    next_alpha: Option<f64>,
    /// Share of the sample in the clean sample, by the boundary condition.
    skip: f64,
    /// Share of the prediction.
    out: f64,
}

impl Lcm {
    pub(super) fn start(scheduler: &Scheduler, num_inference_steps: usize) -> (Vec<f64>, f64, Solver) {
        let (config, alphas) = (&scheduler.config, &scheduler.alphas_cumprod);
        let timesteps = scheduler.spaced_timesteps(num_inference_steps);
        let scaling = config.timestep_scaling.unwrap_or(10.0);
        let step = |(index, &t): (usize, &f64)| {
            let scaled = t * scaling;
            let squares = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
            Step {
                alpha: alphas[t as usize],
                next_alpha: timesteps.get(index + 1).map(|&next| alphas[next as usize]),
                skip: SIGMA_DATA * SIGMA_DATA / squares,
                out: scaled / squares.sqrt(),
            }
        };
        let solver = Self {
            steps: timesteps.iter().enumerate().map(step).collect(),
            prediction_type: config.prediction_type(),
            clip: config.clip_sample.unwrap_or(false).then(|| config.clip_sample_range.unwrap_or(1.0)),
        };
        (timesteps, 1.0, Solver::Lcm(solver))
    }

    pub(super) fn step(
        &self,
        index: usize,
        model_output: Tensor<4>,
        sample: Tensor<4>,
        noise: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let Step { alpha, next_alpha, skip, out } = self.steps[index];
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let kind = self.prediction_type;
        let mut original = predicted_original(kind, model_output, sample.clone(), signal, sigma);
        if let Some(range) = self.clip {
            original = original.clamp(-range, range);
        }
        let denoised = original * out + sample * skip;
        let Some(next_alpha) = next_alpha else { return denoised };
        let next = denoised * next_alpha.sqrt();
        match noise {
            Some(noise) => next + noise * (1.0 - next_alpha).sqrt(),
            None => next,
        }
    }
}
