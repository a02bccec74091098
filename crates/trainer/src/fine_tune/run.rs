//! The training loop.

use std::ops::ControlFlow;
use std::path::Path;

use burn::module::Module;
use burn::optim::GradientsAccumulator;
use burn::tensor::{Device, Tensor};
use flier_model::{EpochSummary, FlierModel, loss};
use pipeline_spec::spec::{FineTuneSpec, GeneratedUse, Select};

use super::accumulate::{accumulate, scalar};
use super::batch::{Views, latents};
use super::plan::{Pass, PassKind, batches, passes, rate_of};
use super::state::{self, Progress, SaveClock, State};
use super::{is_frozen, is_latent, optimizer};
use crate::backbone::{accuracy, predicted_classes, to_vec};
use crate::images::GeneratedSample;
use crate::metrics_log::MetricsLog;
use crate::optimizer::AdamW;
use crate::parameters::{NamedTensors, assign, collect, update_average};
use crate::{Control, Error};

/// Images that go through the model together in validation.
pub(super) const VALIDATION_BATCH: usize = 64;

/// What a run trains on and how.
#[derive(Debug)]
pub struct Training<'a> {
    /// Settings.
    pub spec: &'a FineTuneSpec,
    /// Seed of the run.
    pub seed: u64,
    /// Real images.
    pub real: Views<'a>,
    /// Images of the generated samples; empty where none are used.
    pub generated: Views<'a>,
    /// The generated samples, in the order of `generated`.
    pub samples: &'a [GeneratedSample],
    /// Validation images.
    pub val: Views<'a>,
    /// A plain device.
    pub device: &'a Device,
    /// Folder of the training state; `None` keeps none.
    pub work_dir: Option<&'a Path>,
    /// Write the state after every so many steps instead of by time.
    pub save_every_steps: Option<u64>,
    /// Where the figures of every step go.
    pub metrics: Option<&'a MetricsLog>,
}

/// A finished run.
#[derive(Debug)]
pub struct Trained {
    /// The weights that count, for inference.
    pub model: FlierModel,
    /// Their moving average.
    pub average: Option<FlierModel>,
    /// One entry per epoch.
    pub epochs: Vec<EpochSummary>,
    /// Epoch of the weights, from 1.
    pub epoch: u32,
    /// Epoch of the moving average, from 1.
    pub average_epoch: Option<u32>,
    /// Accuracy of the weights on the validation images.
    pub val_accuracy: Option<f64>,
    /// The moving average's.
    pub average_val_accuracy: Option<f64>,
    /// Loss of the last pass.
    pub final_loss: f64,
}

impl Training<'_> {
    /// Trains `model`; `None` if `control` stopped it, with the state kept for the next start.
    ///
    /// # Errors
    ///
    /// Fails if the loss or a parameter stops being finite, or the state cannot be written.
    pub fn run(&self, model: FlierModel, control: &mut Control<'_>) -> Result<Option<Trained>, Error> {
        if self.spec.select == Select::ValBest && self.val.is_empty() {
            let remedy = "set `select = \"last\"` or draw a list with validation images";
            return Err(Error::NoValidation { field: "select", remedy });
        }
        let mut runner = Runner::start(self, model);
        let passes = passes(self.spec.schedule, self.spec.generated, self.spec.optimizer.epochs);
        let steps = |pass: &Pass| self.num_samples(pass.kind).div_ceil(self.batch_size());
        let total: usize = passes.iter().map(steps).sum();
        let mut clock = SaveClock::new(self.save_every_steps);
        while let Some(pass) = passes.get(runner.progress.pass as usize) {
            let batches = batches(*pass, self.num_samples(pass.kind), self.batch_size(), self.seed);
            while let Some(batch) = batches.get(runner.progress.step as usize) {
                runner.step(*pass, batch, batches.len())?;
                let stop = control(runner.progress.total_steps, total as u64) == ControlFlow::Break(());
                clock.after_step(runner.progress.total_steps, stop, self.work_dir, |folder| {
                    runner.save(folder)
                })?;
                if stop {
                    return Ok(None);
                }
            }
            runner.end_pass(*pass, batches.len())?;
        }
        runner.finish().map(Some)
    }

    fn num_samples(&self, kind: PassKind) -> usize {
        match kind {
            PassKind::Real => self.real.len(),
            PassKind::Generated => self.generated.len(),
            PassKind::Mixed => self.real.len() + self.generated.len(),
        }
    }

    /// The real and the generated samples of a batch, each as in a pass of their own.
    fn groups(&self, pass: Pass, batch: &[usize]) -> Vec<(Pass, Vec<usize>)> {
        if pass.kind != PassKind::Mixed {
            return vec![(pass, batch.to_vec())];
        }
        let (real, generated): (Vec<usize>, Vec<usize>) =
            batch.iter().partition(|&&index| index < self.real.len());
        let generated = generated.into_iter().map(|index| index - self.real.len()).collect();
        let groups = [(PassKind::Real, real), (PassKind::Generated, generated)];
        let groups = groups.into_iter().map(|(kind, samples)| (Pass { kind, ..pass }, samples));
        groups.filter(|(_, samples)| !samples.is_empty()).collect()
    }

    fn batch_size(&self) -> usize {
        self.spec.optimizer.batch_size as usize
    }

    fn validate(&self, model: &FlierModel) -> Result<Option<f64>, Error> {
        validate(model, &self.val, self.device)
    }
}

/// Accuracy of a model on images as they are; `None` without any.
pub(crate) fn validate(
    model: &FlierModel,
    images: &Views<'_>,
    device: &Device,
) -> Result<Option<f64>, Error> {
    let indices: Vec<usize> = (0..images.len()).collect();
    let mut predicted = Vec::with_capacity(indices.len());
    for batch in indices.chunks(VALIDATION_BATCH) {
        let pixel_values = images.pixel_values(batch, None, device);
        predicted.extend(predicted_classes(model.image_logits(pixel_values))?);
    }
    Ok(accuracy(&predicted, &images.labels(&indices)))
}

/// A run under way.
struct Runner<'a> {
    training: &'a Training<'a>,
    autodiff: Device,
    model: FlierModel,
    optimizer: AdamW,
    average: NamedTensors,
    best: NamedTensors,
    best_average: NamedTensors,
    progress: Progress,
    epochs: Vec<EpochSummary>,
}

impl<'a> Runner<'a> {
    /// Starts at the beginning, or where the state in the work folder stands.
    fn start(training: &'a Training<'a>, model: FlierModel) -> Self {
        let mut runner = Self {
            training,
            autodiff: training.device.clone().autodiff(),
            optimizer: optimizer(&model, training.spec),
            model,
            average: NamedTensors::new(),
            best: NamedTensors::new(),
            best_average: NamedTensors::new(),
            progress: Progress::default(),
            epochs: Vec::new(),
        };
        if training.spec.ema_decay.is_some() {
            runner.average = runner.image_parameters();
        }
        if let Some(state) = training.work_dir.and_then(|folder| state::load(folder, training.device)) {
            tracing::info!(steps = state.progress.total_steps, "going on from the saved training state");
            runner.model = assign(runner.model, &state.parameters);
            runner.optimizer.restore(state.optimizer);
            runner.average = state.average;
            runner.best = state.best;
            runner.best_average = state.best_average;
            runner.progress = state.progress;
            runner.epochs = state.epochs;
        }
        runner
    }

    fn save(&self, folder: &Path) -> Result<(), Error> {
        let state = State {
            parameters: self.parameters(),
            optimizer: self.optimizer.state().clone(),
            average: self.average.clone(),
            best: self.best.clone(),
            best_average: self.best_average.clone(),
            progress: self.progress,
            epochs: self.epochs.clone(),
        };
        state::save(&state, folder)
    }

    /// Every parameter that is trained.
    fn parameters(&self) -> NamedTensors {
        collect(&self.model, |name, _| !is_frozen(self.training.spec, name))
    }

    /// Those of the image branch, which the moving average follows.
    fn image_parameters(&self) -> NamedTensors {
        collect(&self.model, |name, _| !is_latent(name) && !is_frozen(self.training.spec, name))
    }

    /// One step on the samples at `batch`.
    fn step(&mut self, pass: Pass, batch: &[usize], num_steps: usize) -> Result<(), Error> {
        let spec = self.training.spec;
        let rate = rate_of(&spec.optimizer, pass, num_steps, self.progress.step as usize);
        let micro_batch_size = spec.optimizer.micro_batch_size.map_or(batch.len(), |size| size as usize);
        let mut gradients = GradientsAccumulator::new();
        let mut value = 0.0;
        for (pass, samples) in self.training.groups(pass, batch) {
            // The mean over the batch; one group alone counts 1, and 1 changes no bit.
            let share = samples.len() as f64 / batch.len() as f64;
            let group = accumulate(&self.model, &samples, micro_batch_size, |part| {
                let (loss, latent_loss) = self.loss(pass, part)?;
                Ok((loss.mul_scalar(share), latent_loss))
            })?;
            gradients.accumulate(&self.model, group.gradients);
            value += group.loss;
            self.progress.add(pass.kind, samples.len(), group.loss / share, group.latent_loss);
        }
        if !value.is_finite() {
            return Err(Error::Diverged {
                loss: value,
                epoch: pass.epoch + 1,
                pass: pass.kind.name(),
                step: self.progress.step as usize + 1,
                learning_rate: rate,
            });
        }
        self.model = self.optimizer.step(self.model.clone(), gradients.grads(), rate);
        if let Some(decay) = spec.ema_decay {
            let current = self.image_parameters();
            update_average(&mut self.average, current, decay);
        }
        self.progress.step += 1;
        self.progress.total_steps += 1;
        match self.training.metrics {
            Some(metrics) => metrics.step(self.progress.total_steps, pass.kind.name(), value, rate),
            None => Ok(()),
        }
    }

    /// The mean loss of samples, and the latent branch's loss in it (0 without one).
    fn loss(&self, pass: Pass, batch: &[usize]) -> Result<(Tensor<1>, f64), Error> {
        let views = if pass.kind == PassKind::Real { &self.training.real } else { &self.training.generated };
        let pixel_values = views.pixel_values(batch, Some(pass), &self.autodiff);
        let classes = self.model.config().num_classes;
        let smoothing = self.training.spec.label_smoothing;
        let targets = loss::smoothed_targets(&views.labels(batch), classes, smoothing, &self.autodiff);
        let features = self.model.image_features(pixel_values);
        let image_loss = loss::cross_entropy(self.model.head.forward(features.clone()), targets.clone());
        self.with_latent_loss(pass, batch, (features, image_loss), targets)
    }

    /// The loss with the latent branch's.
    fn with_latent_loss(
        &self,
        pass: Pass,
        batch: &[usize],
        (features, image_loss): (Tensor<2>, Tensor<1>),
        targets: Tensor<2>,
    ) -> Result<(Tensor<1>, f64), Error> {
        let latent = match (pass.kind, self.training.spec.generated) {
            (PassKind::Generated, GeneratedUse::ImagesAndLatents { latent_factor, .. }) => {
                self.model.config().latent.map(|latent| (latent.encoder, latent_factor))
            }
            _ => None,
        };
        let Some((shape, factor)) = latent else { return Ok((image_loss, 0.0)) };
        let shape = [shape.latent_channels, shape.latent_height, shape.latent_width];
        let latents = latents(self.training.samples, batch, shape, &self.autodiff)?;
        let latent_loss = self.model.latent_loss(features, latents, targets)?;
        let value = scalar(latent_loss.clone())?;
        Ok((loss::combine(image_loss, latent_loss, factor), value))
    }

    /// Goes to the next pass; at the end of an epoch takes stock.
    fn end_pass(&mut self, pass: Pass, num_steps: usize) -> Result<(), Error> {
        self.progress.step = 0;
        self.progress.pass += 1;
        if !pass.ends_epoch {
            return Ok(());
        }
        let optimizer = &self.training.spec.optimizer;
        let p = self.progress;
        let mean = |sum: f64, samples: u64| (samples > 0).then(|| sum / samples as f64);
        let has_latents = self.model.config().latent.is_some();
        let mut summary = EpochSummary {
            epoch: pass.epoch + 1,
            learning_rate: rate_of(optimizer, pass, num_steps, num_steps.saturating_sub(1)),
            real_loss: mean(p.real_loss, p.real_samples),
            generated_loss: mean(p.generated_loss, p.generated_samples),
            latent_loss: mean(p.latent_loss, p.generated_samples).filter(|_| has_latents),
            val_accuracy: None,
            ema_val_accuracy: None,
        };
        self.progress = Progress {
            real_loss: 0.0,
            real_samples: 0,
            generated_loss: 0.0,
            latent_loss: 0.0,
            generated_samples: 0,
            ..p
        };
        if self.training.spec.select == Select::ValBest {
            self.keep_best(&mut summary)?;
        }
        let (loss, val) = (summary.generated_loss.or(summary.real_loss), summary.val_accuracy);
        tracing::debug!(epoch = summary.epoch, loss, val_accuracy = val, "epoch");
        if let Some(metrics) = self.training.metrics {
            metrics.epoch(&summary)?;
        }
        self.epochs.push(summary);
        Ok(())
    }

    /// Validates the epoch and keeps its weights if they are better than all before.
    fn keep_best(&mut self, summary: &mut EpochSummary) -> Result<(), Error> {
        let epoch = u64::from(summary.epoch);
        let plain = self.model.valid();
        summary.val_accuracy = self.training.validate(&plain)?;
        let accuracy = summary.val_accuracy.unwrap_or(0.0);
        if self.progress.best_epoch == 0 || accuracy > self.progress.best_accuracy {
            (self.progress.best_epoch, self.progress.best_accuracy) = (epoch, accuracy);
            self.best = self.parameters();
        }
        if self.training.spec.ema_decay.is_some() {
            summary.ema_val_accuracy = self.training.validate(&assign(plain, &self.average))?;
            let accuracy = summary.ema_val_accuracy.unwrap_or(0.0);
            if self.progress.best_average_epoch == 0 || accuracy > self.progress.best_average_accuracy {
                (self.progress.best_average_epoch, self.progress.best_average_accuracy) = (epoch, accuracy);
                self.best_average = self.average.clone();
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Trained, Error> {
        let last_epoch = self.epochs.last().map_or(0, |epoch| epoch.epoch);
        let final_loss = self.epochs.last().and_then(|e| e.generated_loss.or(e.real_loss)).unwrap_or(0.0);
        let has_average = self.training.spec.ema_decay.is_some();
        let plain = self.model.valid();
        let trained = match self.training.spec.select {
            Select::Last => {
                let average = has_average.then(|| assign(plain.clone(), &self.average));
                let average_val = match &average {
                    Some(average) => self.training.validate(average)?,
                    None => None,
                };
                Trained {
                    val_accuracy: self.training.validate(&plain)?,
                    average_val_accuracy: average_val,
                    model: plain,
                    average,
                    epoch: last_epoch,
                    average_epoch: has_average.then_some(last_epoch),
                    epochs: self.epochs,
                    final_loss,
                }
            }
            Select::ValBest => {
                let p = self.progress;
                let average = has_average.then(|| assign(plain.clone(), &self.best_average));
                Trained {
                    model: assign(plain, &self.best),
                    average,
                    epoch: p.best_epoch as u32,
                    average_epoch: has_average.then_some(p.best_average_epoch as u32),
                    val_accuracy: Some(p.best_accuracy),
                    average_val_accuracy: has_average.then_some(p.best_average_accuracy),
                    epochs: self.epochs,
                    final_loss,
                }
            }
        };
        check_finite(&trained.model)?;
        Ok(trained)
    }
}

/// Fails with the first parameter that holds a value which is not finite.
pub(crate) fn check_finite(model: &FlierModel) -> Result<(), Error> {
    for (parameter, tensor) in collect(model, |_, _| true) {
        if !to_vec(tensor)?.iter().all(|v| v.is_finite()) {
            return Err(Error::NotFinite { parameter });
        }
    }
    Ok(())
}
