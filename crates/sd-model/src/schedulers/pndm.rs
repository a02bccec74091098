//! Pseudo linear multistep steps (Liu et al., 2022, arXiv 2202.09778), after `PNDMScheduler` of diffusers without its
//! Runge-Kutta steps. Their place takes one step of Heun's method: the network is called twice in the first step.

use burn::tensor::Tensor;

use super::{Scheduler, Solver};
use crate::config::PredictionType;

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Pndm {
    /// ᾱ that each call starts from and leads to.
    alphas: Vec<(f64, f64)>,
    prediction_type: PredictionType,
    /// The last predictions, newest last, at most four.
    outputs: Vec<Tensor<4>>,
    /// The sample of the first call, from which the second starts again.
    first_sample: Option<Tensor<4>>,
}

impl Pndm {
    pub(super) fn start(scheduler: &Scheduler, num_inference_steps: usize) -> (Vec<f64>, f64, Solver) {
        let (config, alphas) = (&scheduler.config, &scheduler.alphas_cumprod);
        let mut timesteps = scheduler.spaced_timesteps(num_inference_steps);
        if let [_, second, ..] = timesteps[..] {
            timesteps.insert(1, second);
        }
        let stride = config.num_train_timesteps() / num_inference_steps;
        let last = if config.set_alpha_to_one.unwrap_or(false) { 1.0 } else { alphas[0] };
        let pair = |(index, &t): (usize, &f64)| {
            let t = t as usize;
            match index {
                1 => (alphas[(t + stride).min(alphas.len() - 1)], alphas[t]),
                _ => (alphas[t], t.checked_sub(stride).map_or(last, |previous| alphas[previous])),
            }
        };
        let solver = Self {
            alphas: timesteps.iter().enumerate().map(pair).collect(),
            prediction_type: config.prediction_type(),
            outputs: Vec::new(),
            first_sample: None,
        };
        (timesteps, 1.0, Solver::Pndm(solver))
    }

    pub(super) fn step(&mut self, index: usize, model_output: Tensor<4>, sample: Tensor<4>) -> Tensor<4> {
        let (mut sample, mut model_output) = (sample, model_output);
        if index == 1 {
            model_output = (model_output + self.outputs[0].clone()) / 2.0;
            sample = self.first_sample.take().unwrap_or(sample);
        } else {
            if index == 0 {
                self.first_sample = Some(sample.clone());
            }
            if self.outputs.len() == 4 {
                self.outputs.remove(0);
            }
            self.outputs.push(model_output);
            model_output = combined(&self.outputs);
        }
        self.previous(index, model_output, sample)
    }

    /// The step of the paper's equation 9 for a combined prediction.
    fn previous(&self, index: usize, model_output: Tensor<4>, sample: Tensor<4>) -> Tensor<4> {
        let (alpha, alpha_previous) = self.alphas[index];
        let (beta, beta_previous) = (1.0 - alpha, 1.0 - alpha_previous);
        let epsilon = match self.prediction_type {
            PredictionType::VPrediction => model_output * alpha.sqrt() + sample.clone() * beta.sqrt(),
            PredictionType::Epsilon | PredictionType::Sample => model_output,
        };
        let denominator = alpha * beta_previous.sqrt() + (alpha * beta * alpha_previous).sqrt();
        sample * (alpha_previous / alpha).sqrt() - epsilon * ((alpha_previous - alpha) / denominator)
    }
}

/// Adams and Bashforth's combination of the last one to four predictions, newest last.
fn combined(outputs: &[Tensor<4>]) -> Tensor<4> {
    let weights: &[f64] = match outputs.len() {
        1 => return outputs[0].clone(),
        2 => &[-1.0 / 2.0, 3.0 / 2.0],
        3 => &[5.0 / 12.0, -16.0 / 12.0, 23.0 / 12.0],
        _ => &[-9.0 / 24.0, 37.0 / 24.0, -59.0 / 24.0, 55.0 / 24.0],
    };
    let terms = outputs.iter().zip(weights).map(|(output, &weight)| output.clone() * weight);
    terms.reduce(|sum, term| sum + term).expect("there is at least one prediction")
}
