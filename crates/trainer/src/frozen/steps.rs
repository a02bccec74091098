//! Training of an adapter by gradient descent on frozen features.

use std::f64::consts::PI;
use std::ops::ControlFlow;

use burn::module::Module;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use flier_model::{EpochSummary, loss};
use pipeline_spec::Seed;
use pipeline_spec::spec::AdapterTraining;

use super::Inputs;
use crate::backbone::to_vec;
use crate::features::TrainingFeatures;
use crate::optimizer::{AdamW, AdamWConfig, ParameterRule};
use crate::random::{shuffle, stream};
use crate::{Control, Error};

/// Learning rate of the first epoch in [`Rate::PerEpoch`].
const WARMUP_RATE: f64 = 1e-5;
/// Momentum of SGD in Dassl's trainers.
const MOMENTUM: f64 = 0.9;

/// How the learning rate falls to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// A cosine over the steps, as in Tip-Adapter's code.
    PerStep,
    /// One epoch at 1e-5, then a cosine over the epochs, as in Dassl (CoOp, TaskRes, CLAP).
    PerEpoch,
}

/// Which optimizer takes the steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// AdamW with PyTorch's betas; with a weight decay of 0 it is Adam.
    AdamW {
        /// Added to the root of the second moment.
        epsilon: f64,
        /// Decoupled weight decay.
        weight_decay: f64,
    },
    /// SGD with momentum 0.9.
    Sgd {
        /// Added to the gradient times the parameter.
        weight_decay: f64,
    },
}

/// How an adapter is trained.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// Epochs, batch size, learning rate.
    pub training: AdapterTraining,
    /// How the learning rate falls.
    pub rate: Rate,
    /// Which optimizer takes the steps.
    pub optimizer: Optimizer,
}

/// What the steps go over.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    /// Training rows, view after view.
    pub features: &'a TrainingFeatures,
    /// Number of classes N.
    pub num_classes: usize,
    /// Seed of the run.
    pub seed: Seed,
    /// A plain device.
    pub device: &'a Device,
}

impl<'a> From<&Inputs<'a>> for Samples<'a> {
    fn from(inputs: &Inputs<'a>) -> Self {
        let (features, num_classes) = (inputs.cache, inputs.num_classes());
        Self { features, num_classes, seed: inputs.seed, device: inputs.device }
    }
}

impl Steps {
    fn learning_rate(&self, epoch: u32, step: usize, total: usize) -> f64 {
        let AdapterTraining { epochs, learning_rate, .. } = self.training;
        let progress = match (self.rate, epoch) {
            (Rate::PerStep, _) => step as f64 / total as f64,
            (Rate::PerEpoch, 0) => return WARMUP_RATE,
            (Rate::PerEpoch, _) => f64::from(epoch - 1) / f64::from(epochs),
        };
        learning_rate * 0.5 * (1.0 + (PI * progress).cos())
    }

    /// Trains what of `module` requires gradients; an epoch goes over one view of every training image, views take turns.
    ///
    /// `logits_loss` gives the loss of features `[B, P]` (not normalised) with one-hot targets `[B, N]`. `None` if
    /// `control` stopped the work.
    ///
    /// # Errors
    ///
    /// Fails if the loss stops being finite.
    pub fn train<'a, M: Module>(
        &self,
        samples: impl Into<Samples<'a>>,
        module: M,
        logits_loss: impl Fn(&M, Tensor<2>, Tensor<2>) -> Tensor<1>,
        control: &mut Control<'_>,
    ) -> Result<Option<(M, Vec<EpochSummary>)>, Error> {
        let mut step: Box<dyn FnMut(M, GradientsParams, f64) -> M> = match self.optimizer {
            Optimizer::AdamW { epsilon, weight_decay } => {
                let config = AdamWConfig { beta_1: 0.9, beta_2: 0.999, epsilon };
                let rule = ParameterRule { learning_rate_scale: 1.0, weight_decay };
                let mut optimizer = AdamW::new(&module, config, |_, _| rule);
                Box::new(move |module, gradients, rate| optimizer.step(module, gradients, rate))
            }
            Optimizer::Sgd { weight_decay } => {
                let momentum = MomentumConfig { momentum: MOMENTUM, dampening: 0.0, nesterov: false };
                let decay =
                    (weight_decay > 0.0).then_some(WeightDecayConfig { penalty: weight_decay as f32 });
                let config = SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(decay);
                let mut optimizer = config.init();
                Box::new(move |module, gradients, rate| optimizer.step(rate, module, gradients))
            }
        };
        self.run(samples.into(), module, logits_loss, &mut step, control)
    }

    fn run<M: Module>(
        &self,
        samples: Samples<'_>,
        mut module: M,
        logits_loss: impl Fn(&M, Tensor<2>, Tensor<2>) -> Tensor<1>,
        take_step: &mut dyn FnMut(M, GradientsParams, f64) -> M,
        control: &mut Control<'_>,
    ) -> Result<Option<(M, Vec<EpochSummary>)>, Error> {
        let (data, autodiff) = (samples.features, samples.device.clone().autodiff());
        let (count, batch_size) = (data.train_labels.len(), self.training.batch_size.max(1) as usize);
        let steps_per_epoch = count.div_ceil(batch_size);
        let total = steps_per_epoch * self.training.epochs as usize;
        let (mut step, mut epochs) = (0, Vec::new());
        for epoch in 0..self.training.epochs {
            let mut order: Vec<usize> = (0..count).collect();
            shuffle(&mut order, &mut stream(samples.seed, "order", &["cache", &epoch.to_string()]));
            let view = &data.train[(epoch as usize % data.views) * count * data.width..];
            let (mut sum, mut rate) = (0.0, 0.0);
            for batch in order.chunks(batch_size) {
                rate = self.learning_rate(epoch, step, total);
                let rows = batch.iter().flat_map(|i| &view[i * data.width..(i + 1) * data.width]);
                let features: Vec<f32> = rows.copied().collect();
                let features = data.tensor(&features, &autodiff);
                let labels: Vec<usize> = batch.iter().map(|i| data.train_labels[*i]).collect();
                let targets = loss::smoothed_targets(&labels, samples.num_classes, 0.0, &autodiff);
                let loss = logits_loss(&module, features, targets);
                let value = to_vec(loss.clone())?.first().copied().map_or(f64::NAN, f64::from);
                if !value.is_finite() {
                    return Err(Error::Diverged {
                        loss: value,
                        epoch: epoch + 1,
                        pass: "cache",
                        step: step % steps_per_epoch + 1,
                        learning_rate: rate,
                    });
                }
                let gradients = GradientsParams::from_grads(loss.backward(), &module);
                module = take_step(module, gradients, rate);
                sum += value * batch.len() as f64;
                step += 1;
                if control(step as u64, total as u64) == ControlFlow::Break(()) {
                    return Ok(None);
                }
            }
            epochs.push(EpochSummary {
                epoch: epoch + 1,
                learning_rate: rate,
                real_loss: Some(sum / count as f64),
                generated_loss: None,
                latent_loss: None,
                val_accuracy: None,
                ema_val_accuracy: None,
            });
        }
        Ok(Some((module, epochs)))
    }
}
