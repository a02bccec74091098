//! Noise schedules and the samplers that lead from noise to a clean latent.
//!
//! After the schedulers of diffusers, whose class names and fields they keep. A [`Scheduler`] is the schedule and the
//! choice of a sampler; a [`Denoising`] is one run of it. All coefficients are computed in f64 on the host, where
//! diffusers uses f32 for some; tensors only meet their scalars.

mod ddim;
mod dpm_solver;
mod euler;
mod lcm;
mod pndm;
mod schedule;
mod sigmas;
mod timesteps;

use burn::tensor::{Tensor, TensorData};
use std::path::Path;

use crate::Error;
use crate::config::{PredictionType, SchedulerClass, SchedulerConfig};
use ddim::Ddim;
use dpm_solver::DpmSolver;
use euler::Euler;
use lcm::Lcm;
use pndm::Pndm;

/// A noise schedule with the sampler that walks it.
#[derive(Debug, Clone)]
pub struct Scheduler {
    class: SchedulerClass,
    config: SchedulerConfig,
    alphas_cumprod: Vec<f64>,
    eta: f64,
}

impl Scheduler {
    /// The sampler `class` with the settings of `config`, whichever class wrote them.
    ///
    /// # Errors
    ///
    /// Fails if a field is out of range or the class does not implement its value.
    pub fn new(class: SchedulerClass, config: SchedulerConfig) -> Result<Self, Error> {
        let name = class.name();
        config.check(name)?;
        let prediction = config.prediction_type();
        let refuse = |expected: &str, found: &str| {
            Err(Error::config(name, "prediction_type", expected, format!("`{found}`")))
        };
        if class == SchedulerClass::Pndm && prediction == PredictionType::Sample {
            return refuse("`epsilon` or `v_prediction`", "sample");
        }
        if config.rescale_betas_zero_snr == Some(true) {
            match class {
                SchedulerClass::Pndm => {
                    return Err(Error::config(name, "rescale_betas_zero_snr", "`false`", "`true`"));
                }
                // With no signal left the noise says nothing about the sample: the step would divide by zero.
                SchedulerClass::Ddim | SchedulerClass::Lcm if prediction == PredictionType::Epsilon => {
                    return refuse("`v_prediction` or `sample` with `rescale_betas_zero_snr`", "epsilon");
                }
                _ => {}
            }
        }
        let alphas_cumprod = schedule::alphas_cumprod(class, &config);
        Ok(Self { class, config, alphas_cumprod, eta: 0.0 })
    }

    /// The sampler that a `scheduler_config.json` names; DDIM where that one is not implemented, because whoever samples may
    /// choose another by [`with_class`](Self::with_class), or refuse by [`SchedulerConfig::class`].
    ///
    /// # Errors
    ///
    /// As [`SchedulerConfig::from_file`] and [`new`](Self::new).
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let config = SchedulerConfig::from_file(path)?;
        Self::new(config.class().unwrap_or(SchedulerClass::Ddim), config)
    }

    /// Another sampler on the same settings, as diffusers' `from_config`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_class(&self, class: SchedulerClass) -> Result<Self, Error> {
        Self::new(class, self.config.clone())
    }

    /// With DDIM, replaces a share of the noise by fresh noise in each step: `eta` 0 is DDIM, 1 has the variance of DDPM
    /// (arXiv 2010.02502, equations 12 and 16). Other samplers do not look at it.
    #[must_use]
    pub fn with_eta(self, eta: f64) -> Self {
        Self { eta, ..self }
    }

    /// The sampler.
    pub fn class(&self) -> SchedulerClass {
        self.class
    }

    /// The settings, whichever class wrote them.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Writes the settings as those of this class, so that diffusers reads them too.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let class_name = Some(self.class.name().to_owned());
        SchedulerConfig { class_name, ..self.config.clone() }.save(path)
    }

    /// Cumulative product of 1 - beta, one entry per training timestep: the share of signal variance.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// Begins to denoise in `num_inference_steps` steps.
    ///
    /// # Errors
    ///
    /// Fails if the number is 0 or so large that a timestep would lie outside the schedule or be visited twice.
    pub fn start(&self, num_inference_steps: usize) -> Result<Denoising, Error> {
        if !self.fits(num_inference_steps) {
            return Err(Error::NumInferenceSteps {
                found: num_inference_steps,
                limit: (1..=self.config.num_train_timesteps()).rev().find(|&n| self.fits(n)).unwrap_or(0),
                spacing: self.timestep_spacing().name().to_owned(),
            });
        }
        let (timesteps, init_noise_sigma, solver) = match self.class {
            SchedulerClass::Ddim => Ddim::start(self, num_inference_steps),
            SchedulerClass::Pndm => Pndm::start(self, num_inference_steps),
            SchedulerClass::Euler | SchedulerClass::EulerAncestral => Euler::start(self, num_inference_steps),
            SchedulerClass::DpmSolverMultistep => DpmSolver::start(self, num_inference_steps),
            SchedulerClass::Lcm => Lcm::start(self, num_inference_steps),
        };
        Ok(Denoising { timesteps, init_noise_sigma, solver, step_index: 0 })
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

/// One run of a sampler: the steps it takes, and what it keeps from one to the next.
#[derive(Debug, Clone)]
pub struct Denoising {
    timesteps: Vec<f64>,
    init_noise_sigma: f64,
    solver: Solver,
    step_index: usize,
}

#[derive(Debug, Clone)]
enum Solver {
    Ddim(Ddim),
    Pndm(Pndm),
    Euler(Euler),
    DpmSolver(DpmSolver),
    Lcm(Lcm),
}

impl Denoising {
    /// The timestep of each call of the network, from noisy to clean. PNDM calls it once more than there are steps; those
    /// of Euler need not be whole.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// Standard deviation of the latents that the first step takes: standard normal noise is multiplied by it.
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    /// The latents as the network takes them in the next step: of signal and noise variance ᾱ and 1 - ᾱ. After the last
    /// step they stay as they are.
    pub fn scale_model_input(&self, sample: Tensor<4>) -> Tensor<4> {
        match &self.solver {
            Solver::Euler(euler) if self.step_index < self.timesteps.len() => {
                euler.scale_model_input(sample, self.step_index)
            }
            _ => sample,
        }
    }

    /// Whether the next step takes fresh noise.
    pub fn needs_noise(&self) -> bool {
        match &self.solver {
            Solver::Ddim(ddim) => ddim.needs_noise(),
            Solver::Euler(euler) => euler.needs_noise(self.step_index),
            Solver::Lcm(_) => self.step_index + 1 < self.timesteps.len(),
            Solver::Pndm(_) | Solver::DpmSolver(_) => false,
        }
    }

    /// Takes the next step.
    ///
    /// # Shapes
    ///
    /// - `model_output`: `[B, C, H, W]`, the network's prediction for the scaled sample at the step's timestep
    /// - `sample`: `[B, C, H, W]`, the latents that the step before gave
    /// - `noise`: `[B, C, H, W]`, standard normal; not used unless [`needs_noise`](Self::needs_noise) says so, and without
    ///   it nothing random is added
    /// - output: `[B, C, H, W]`, the latents after the step
    ///
    /// # Panics
    ///
    /// Panics if every step was taken.
    pub fn step(
        &mut self,
        model_output: Tensor<4>,
        sample: Tensor<4>,
        noise: Option<Tensor<4>>,
    ) -> Tensor<4> {
        assert!(self.step_index < self.timesteps.len(), "a run has {} steps", self.timesteps.len());
        let index = self.step_index;
        self.step_index += 1;
        match &mut self.solver {
            Solver::Ddim(ddim) => ddim.step(index, model_output, sample, noise),
            Solver::Pndm(pndm) => pndm.step(index, model_output, sample),
            Solver::Euler(euler) => euler.step(index, model_output, sample, noise),
            Solver::DpmSolver(solver) => solver.step(index, model_output, sample),
            Solver::Lcm(lcm) => lcm.step(index, model_output, sample, noise),
        }
    }
}

/// The clean sample that a prediction implies, of latents with signal √ᾱ and noise √(1-ᾱ).
fn predicted_original(
    prediction_type: PredictionType,
    model_output: Tensor<4>,
    sample: Tensor<4>,
    signal: f64,
    sigma: f64,
) -> Tensor<4> {
    match prediction_type {
        PredictionType::Epsilon => (sample - model_output * sigma) / signal,
        PredictionType::Sample => model_output,
        PredictionType::VPrediction => sample * signal - model_output * sigma,
    }
}
