//! The training loop of the methods on both towers.

use std::ops::ControlFlow;
use std::path::Path;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use clip_model::low_rank::{Dropped, Place};
use clip_model::{Clip, VisionConfig, normalize};
use flier_model::{EpochSummary, FlierConfig, FlierModel, HeadInit, Pool, loss};
use pipeline_spec::spec::TowerTraining;
use rand_core::Rng;
use rayon::prelude::*;

use super::methods::Stage;
use super::{ClassPrompts, Towers};
use crate::fine_tune::accumulate::scalar;
use crate::fine_tune::batch::Views;
use crate::fine_tune::plan::{Pass, PassKind, batches};
use crate::fine_tune::run::{check_finite, validate};
use crate::fine_tune::state::{self, Progress, SaveClock, State};
use crate::metrics_log::MetricsLog;
use crate::optimizer::{AdamW, AdamWConfig, ParameterRule};
use crate::parameters::{NamedTensors, assign, collect, freeze};
use crate::random::stream;
use crate::schedule::cosine;
use crate::{Control, Error};

/// PyTorch's defaults.
const ADAMW: AdamWConfig = AdamWConfig { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8 };
/// Learning rate at the end of a stage.
const MIN_LEARNING_RATE: f64 = 1e-6;

/// What a run trains on and how.
#[derive(Debug)]
pub struct Training<'a> {
    /// Settings.
    pub spec: &'a TowerTraining,
    /// Seed of the run.
    pub seed: u64,
    /// Training images.
    pub images: Views<'a>,
    /// Validation images.
    pub val: Views<'a>,
    /// Texts of the classes.
    pub prompts: ClassPrompts,
    /// The image tower's shape.
    pub vision: &'a VisionConfig,
    /// Width of the space that images and texts share.
    pub projection_dim: usize,
    /// Factor on the cosine.
    pub logit_scale: f64,
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
    /// The image encoder with its classifier, for inference.
    pub model: FlierModel,
    /// One entry per pass over the shot list.
    pub epochs: Vec<EpochSummary>,
    /// Accuracy on the validation images.
    pub val_accuracy: Option<f64>,
}

impl Training<'_> {
    /// Trains `clip` through `stages`; `None` if `control` stopped the work, with the state kept for the next start.
    ///
    /// # Errors
    ///
    /// Fails if the loss or a parameter stops being finite, or the state cannot be written.
    pub fn run(
        &self,
        clip: Clip,
        stages: &[Stage],
        control: &mut Control<'_>,
    ) -> Result<Option<Trained>, Error> {
        let mut runner = Runner::start(self, clip, stages);
        let total = stages.iter().map(|stage| stage.steps).sum();
        let mut clock = SaveClock::new(self.save_every_steps);
        while let Some(stage) = runner.stage() {
            while runner.progress.step < stage.steps {
                runner.step(stage)?;
                let stop = control(runner.progress.total_steps, total) == ControlFlow::Break(());
                clock.after_step(runner.progress.total_steps, stop, self.work_dir, |folder| {
                    runner.save(folder)
                })?;
                if stop {
                    return Ok(None);
                }
            }
            runner.progress.pass += 1;
            runner.progress.step = 0;
            runner.begin();
        }
        self.finish(runner.towers, runner.epochs).map(Some)
    }

    /// Steps of a pass over the images.
    fn steps_per_epoch(&self) -> u64 {
        self.images.len().div_ceil(self.spec.batch_size as usize) as u64
    }

    /// The mean loss of the images at `batch`.
    pub fn loss(&self, towers: &Towers, pass: Pass, batch: &[usize]) -> Tensor<1> {
        let autodiff = self.device.clone().autodiff();
        let (images, text) = match &towers.classifier {
            None => {
                let pixel_values = self.images.pixel_values(batch, Some(pass), &autodiff);
                (towers.clip.image_features(pixel_values), self.prompts.features(&towers.clip, &autodiff))
            }
            Some(classifier) => {
                // The towers stay as they are: no graph through them.
                let pixel_values = self.images.pixel_values(batch, Some(pass), self.device);
                let images = towers.clip.valid().image_features(pixel_values);
                (images.autodiff(), normalize(classifier.val()))
            }
        };
        let logits = normalize(images).matmul(text.transpose()).mul_scalar(self.logit_scale);
        let labels = self.images.labels(batch);
        let targets = loss::smoothed_targets(&labels, self.prompts.num_classes(), 0.0, &autodiff);
        loss::cross_entropy(logits, targets)
    }

    /// The image encoder with the classes' vectors as its classifier.
    fn finish(&self, towers: Towers, epochs: Vec<EpochSummary>) -> Result<Trained, Error> {
        let Towers { mut clip, classifier } = towers.valid();
        set_dropout(&mut clip, |_, _| None);
        let clip = clip.merge_low_rank();
        let classifier = match classifier {
            Some(classifier) => normalize(classifier.val()),
            None => self.prompts.features(&clip, self.device),
        };
        let config = FlierConfig {
            vision: self.vision.clone(),
            projection_dim: self.projection_dim,
            num_classes: self.prompts.num_classes(),
            pool: Pool::Projected,
            latent: None,
        };
        let head = HeadInit::ZeroShotText { classifier, logit_scale: self.logit_scale };
        let mut rng = stream(self.seed, "init", &[]);
        let model = FlierModel::from_clip(clip, &config, &head, self.device, &mut rng)?.valid();
        check_finite(&model)?;
        let val_accuracy = validate(&model, &self.val, self.device)?;
        Ok(Trained { model, epochs, val_accuracy })
    }
}

/// A run under way.
struct Runner<'a> {
    training: &'a Training<'a>,
    stages: &'a [Stage],
    towers: Towers,
    optimizer: AdamW,
    progress: Progress,
    epochs: Vec<EpochSummary>,
}

impl<'a> Runner<'a> {
    /// Starts at the beginning, or where the state in the work folder stands.
    fn start(training: &'a Training<'a>, clip: Clip, stages: &'a [Stage]) -> Self {
        let towers = Towers { clip, classifier: None };
        let optimizer = optimizer(&towers, training.spec);
        let (progress, epochs) = (Progress::default(), Vec::new());
        let mut runner = Self { training, stages, towers, optimizer, progress, epochs };
        match training.work_dir.and_then(|folder| state::load(folder, training.device)) {
            Some(state) => {
                tracing::info!(steps = state.progress.total_steps, "going on from the saved training state");
                (runner.progress, runner.epochs) = (state.progress, state.epochs);
                runner.begin();
                runner.towers = assign(runner.towers, &state.parameters);
                runner.optimizer.restore(state.optimizer);
            }
            None => runner.begin(),
        }
        runner
    }

    fn stage(&self) -> Option<&'a Stage> {
        self.stages.get(self.progress.pass as usize)
    }

    /// Makes what the stage trains.
    fn begin(&mut self) {
        let Some(stage) = self.stage() else { return };
        let (training, mut towers) = (self.training, self.towers.valid());
        if stage.trains_classifier() && towers.classifier.is_none() {
            let text = training.prompts.features(&towers.clip, training.device);
            towers.classifier = Some(Param::from_tensor(text));
        }
        self.towers = freeze(towers.train(), |name| !(stage.trains)(name));
        self.optimizer = optimizer(&self.towers, training.spec);
    }

    fn save(&self, folder: &Path) -> Result<(), Error> {
        let state = State {
            parameters: self.parameters(),
            optimizer: self.optimizer.state().clone(),
            progress: self.progress,
            epochs: self.epochs.clone(),
            ..State::default()
        };
        state::save(&state, folder)
    }

    /// Every parameter that a stage so far has trained.
    fn parameters(&self) -> NamedTensors {
        let so_far = &self.stages[..self.stages.len().min(self.progress.pass as usize + 1)];
        collect(&self.towers, |name, _| so_far.iter().any(|stage| (stage.trains)(name)))
    }

    /// The pass over the images to which the next step belongs, the step's place in it, and whether it is the last.
    fn place(&self, stage: &Stage) -> (Pass, usize, bool) {
        let per_epoch = self.training.steps_per_epoch();
        // A stage begins with a new pass, also where the one before it broke off within one.
        let before = &self.stages[..self.progress.pass as usize];
        let before: u64 = before.iter().map(|stage| stage.steps.div_ceil(per_epoch)).sum();
        let (epoch, step) = (self.progress.step / per_epoch, self.progress.step % per_epoch);
        let ends_epoch = step + 1 == per_epoch || self.progress.step + 1 == stage.steps;
        let epoch = (before + epoch) as u32;
        (Pass { kind: PassKind::Real, epoch, schedule_epoch: epoch, ends_epoch }, step as usize, ends_epoch)
    }

    fn step(&mut self, stage: &Stage) -> Result<(), Error> {
        let (training, spec) = (self.training, self.training.spec);
        let (pass, at, ends_epoch) = self.place(stage);
        let batches = batches(pass, training.images.len(), spec.batch_size as usize, training.seed);
        let Some(batch) = batches.get(at) else { return Ok(()) };
        let progress = self.progress.step as f64 / stage.steps as f64;
        let rate = cosine(spec.learning_rate, MIN_LEARNING_RATE, progress);
        if stage.dropout > 0.0 {
            self.draw_dropout(stage.dropout, batch.len());
        }
        let loss = training.loss(&self.towers, pass, batch);
        let value = scalar(loss.clone())?;
        if !value.is_finite() {
            let (epoch, step) = (pass.epoch + 1, at + 1);
            return Err(Error::Diverged { loss: value, epoch, pass: stage.name, step, learning_rate: rate });
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &self.towers);
        self.towers = self.optimizer.step(self.towers.clone(), gradients, rate);
        let progress = &mut self.progress;
        progress.step += 1;
        progress.total_steps += 1;
        progress.real_loss += value * batch.len() as f64;
        progress.real_samples += batch.len() as u64;
        if let Some(metrics) = training.metrics {
            metrics.step(progress.total_steps, stage.name, value, rate)?;
        }
        if ends_epoch {
            self.end_epoch(pass.epoch + 1, rate)?;
        }
        Ok(())
    }

    fn end_epoch(&mut self, epoch: u32, learning_rate: f64) -> Result<(), Error> {
        let p = &mut self.progress;
        let summary = EpochSummary {
            epoch,
            learning_rate,
            real_loss: Some(p.real_loss / p.real_samples.max(1) as f64),
            generated_loss: None,
            latent_loss: None,
            val_accuracy: None,
            ema_val_accuracy: None,
        };
        (p.real_loss, p.real_samples) = (0.0, 0);
        tracing::debug!(epoch, loss = summary.real_loss, "epoch");
        self.epochs.push(summary);
        match self.training.metrics {
            Some(metrics) => metrics.epoch(&summary),
            None => Ok(()),
        }
    }

    /// Draws which elements the updates do not see in this step, on the host.
    fn draw_dropout(&mut self, probability: f64, batch: usize) {
        let (training, step) = (self.training, self.progress.total_steps.to_string());
        let text_shape = training.prompts.shape();
        let vision_shape = [batch, num_tokens(training.vision)];
        let mut wanted = Vec::new();
        self.towers.clip.for_each_low_rank(|place, update| {
            let [width, _] = update.query.down.dims();
            let [rows, tokens] = match place {
                Place::Text(_) => text_shape,
                Place::Vision(_) => vision_shape,
            };
            wanted.extend((0..3).map(|part| (place, part, [rows, tokens, width])));
        });
        let threshold = (probability * f64::from(u32::MAX)) as u32;
        let draw = |(place, part, shape): (Place, usize, [usize; 3])| {
            let names = [step.as_str(), &format!("{place:?}"), &part.to_string()];
            let mut rng = stream(training.seed, "dropout", &names);
            let hidden = (0..shape.iter().product()).map(|_| rng.next_u32() < threshold);
            TensorData::new(hidden.collect::<Vec<bool>>(), shape)
        };
        let mut masks = wanted.into_par_iter().map(draw).collect::<Vec<_>>().into_iter();
        let autodiff = training.device.clone().autodiff();
        set_dropout(&mut self.towers.clip, |_, _| {
            let mask = Tensor::<3, Bool>::from_data(masks.next()?, &autodiff);
            Some(Dropped { mask, keep: 1.0 - probability })
        });
    }
}

/// Gives every update the elements that `dropped` hides from it: query, key and value are parts 0 to 2.
pub fn set_dropout(clip: &mut Clip, mut dropped: impl FnMut(Place, usize) -> Option<Dropped>) {
    clip.for_each_low_rank(|place, update| {
        for (part, update) in update.all_mut().into_iter().enumerate() {
            update.set_dropped(dropped(place, part));
        }
    });
}

/// Tokens of an image, the class token included.
fn num_tokens(vision: &VisionConfig) -> usize {
    match vision {
        VisionConfig::VisionTransformer(vision) => (vision.image_size / vision.patch_size).pow(2) + 1,
        VisionConfig::ModifiedResNet(_) => 0,
    }
}

/// AdamW with the same settings for every parameter.
fn optimizer(towers: &Towers, spec: &TowerTraining) -> AdamW {
    let rule = ParameterRule { learning_rate_scale: 1.0, weight_decay: spec.weight_decay };
    AdamW::new(towers, ADAMW, |_, _| rule)
}
