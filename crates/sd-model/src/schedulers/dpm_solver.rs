//! DPM-Solver++ 2M (Lu et al., 2022, arXiv 2211.01095, algorithm 2), after `DPMSolverMultistepScheduler` of diffusers with
//! `algorithm_type` `dpmsolver++` and `solver_type` `midpoint`.

use burn::tensor::Tensor;

use super::sigmas::Sigmas;
use super::{Scheduler, Solver, predicted_original};
use crate::config::{FinalSigmas, PredictionType};

/// With fewer steps the last one is of first order, for stability.
const FEW_STEPS: usize = 15;

/// One run.
#[derive(Debug, Clone)]
pub(super) struct DpmSolver {
    /// The noise level at each step, and the one that the last step leads to.
    levels: Vec<Level>,
    prediction_type: PredictionType,
    second_order: bool,
    /// Whether the last step is of first order.
    lower_order_final: bool,
    /// The clean sample that the step before predicted.
    before: Option<Tensor<4>>,
}

/// Signal √ᾱ, noise √(1-ᾱ) and half the logarithm of their squared ratio.
#[derive(Debug, Clone, Copy)]
struct Level {
    signal: f64,
    sigma: f64,
    lambda: f64,
}

impl Level {
    fn of(sigma: f64) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { signal, sigma: sigma * signal, lambda: -sigma.ln() }
    }
}

impl DpmSolver {
    pub(super) fn start(scheduler: &Scheduler, num_inference_steps: usize) -> (Vec<f64>, f64, Solver) {
        let Sigmas { timesteps, sigmas } = scheduler.sigmas(num_inference_steps);
        let config = &scheduler.config;
        let is_short = config.lower_order_final.unwrap_or(true) && num_inference_steps < FEW_STEPS;
        let solver = Self {
            levels: sigmas.into_iter().map(Level::of).collect(),
            prediction_type: config.prediction_type(),
            second_order: config.solver_order != Some(1),
            lower_order_final: is_short
                || config.euler_at_final == Some(true)
                || config.final_sigmas_type != Some(FinalSigmas::SigmaMin),
            before: None,
        };
        (timesteps, 1.0, Solver::DpmSolver(solver))
    }

    pub(super) fn step(&mut self, index: usize, model_output: Tensor<4>, sample: Tensor<4>) -> Tensor<4> {
        let (now, next) = (self.levels[index], self.levels[index + 1]);
        let kind = self.prediction_type;
        let original = predicted_original(kind, model_output, sample.clone(), now.signal, now.sigma);
        let before = self.before.replace(original.clone());
        let is_last = index + 2 == self.levels.len();
        let estimate = match before {
            Some(before) if self.second_order && !(is_last && self.lower_order_final) => {
                let ratio = (now.lambda - self.levels[index - 1].lambda) / (next.lambda - now.lambda);
                original.clone() + (original - before) / (2.0 * ratio)
            }
            _ => original,
        };
        // The last step to no noise has an infinite lambda: exp(-h) is 0 there.
        let decay = (now.lambda - next.lambda).exp();
        sample * (next.sigma / now.sigma) + estimate * (next.signal * (1.0 - decay))
    }
}
