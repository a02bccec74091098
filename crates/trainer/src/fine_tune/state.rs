//! The training state of an unfinished run: written whole or not at all, checked by digest when it is read.
//!
//! One file: a safetensors file followed by its BLAKE3 digest (32 bytes). Tensors: `parameters/`, `moment_1/`,
//! `moment_2/`, `average/`, `best/`, `best_average/` by parameter name in f32; `steps`, `progress` and `epochs` in f64,
//! because decimal text would not give every f64 back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use flier_model::EpochSummary;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::plan::PassKind;
use crate::Error;
use crate::backbone::to_vec;
use crate::optimizer::AdamWState;
use crate::parameters::NamedTensors;

/// File name below the run's work folder.
const FILE: &str = "state.bin";
/// Length of a BLAKE3 digest.
const DIGEST: usize = 32;
/// Numbers of an epoch in the file.
const EPOCH_FIELDS: usize = 7;

/// A training state is written at most this often, and at most a twentieth of the time is spent on it.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// When a training state is to be written.
#[derive(Debug)]
pub struct SaveClock {
    every_steps: Option<u64>,
    saved: Instant,
    cost: Duration,
}

impl SaveClock {
    /// After every so many steps, or by time.
    pub fn new(every_steps: Option<u64>) -> Self {
        Self { every_steps, saved: Instant::now(), cost: Duration::ZERO }
    }

    /// After a step: writes the state by `save`, if there is a folder for it and it is time or the run stops here.
    ///
    /// # Errors
    ///
    /// Fails if `save` does.
    pub fn after_step(
        &mut self,
        steps: u64,
        stops: bool,
        folder: Option<&Path>,
        save: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match folder.filter(|_| stops || self.is_due(steps)) {
            Some(folder) => self.save(|| save(folder)),
            None => Ok(()),
        }
    }

    /// Whether the state is to be written after `steps` steps of the run.
    fn is_due(&self, steps: u64) -> bool {
        match self.every_steps {
            Some(every) => steps.is_multiple_of(every),
            None => self.saved.elapsed() > SAVE_EVERY.max(self.cost * 20),
        }
    }

    /// Writes the state and takes the time that it needs.
    fn save(&mut self, save: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let started = Instant::now();
        save()?;
        (self.cost, self.saved) = (started.elapsed(), Instant::now());
        Ok(())
    }
}

/// Where a run stands and what it has found.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Trained parameters.
    pub parameters: NamedTensors,
    /// The optimizer's moments.
    pub optimizer: AdamWState,
    /// The moving average; empty without one.
    pub average: NamedTensors,
    /// Parameters of the best epoch; empty unless `select = "val-best"`.
    pub best: NamedTensors,
    /// Moving average of its best epoch.
    pub best_average: NamedTensors,
    /// Counters.
    pub progress: Progress,
    /// Finished epochs.
    pub epochs: Vec<EpochSummary>,
}

/// Position and running sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Pass that is under way.
    pub pass: u64,
    /// Its next step.
    pub step: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// Loss of the epoch's real pass so far, times samples.
    pub real_loss: f64,
    /// Samples of it.
    pub real_samples: u64,
    /// Loss of the epoch's generated pass so far, times samples.
    pub generated_loss: f64,
    /// The latent branch's share before weighting, times samples.
    pub latent_loss: f64,
    /// Samples of it.
    pub generated_samples: u64,
    /// Best epoch so far (from 1; 0 for none) and its validation accuracy.
    pub best_epoch: u64,
    /// See `best_epoch`.
    pub best_accuracy: f64,
    /// The same for the moving average.
    pub best_average_epoch: u64,
    /// See `best_average_epoch`.
    pub best_average_accuracy: f64,
}

impl Progress {
    /// Adds samples to those of the epoch, with the means of their losses.
    pub fn add(&mut self, kind: PassKind, num_samples: usize, loss: f64, latent_loss: f64) {
        let loss = loss * num_samples as f64;
        if kind == PassKind::Real {
            self.real_loss += loss;
            self.real_samples += num_samples as u64;
        } else {
            self.generated_loss += loss;
            self.latent_loss += latent_loss * num_samples as f64;
            self.generated_samples += num_samples as u64;
        }
    }

    fn to_values(self) -> Vec<f64> {
        vec![
            self.pass as f64,
            self.step as f64,
            self.total_steps as f64,
            self.real_loss,
            self.real_samples as f64,
            self.generated_loss,
            self.latent_loss,
            self.generated_samples as f64,
            self.best_epoch as f64,
            self.best_accuracy,
            self.best_average_epoch as f64,
            self.best_average_accuracy,
        ]
    }

    fn from_values(values: &[f64]) -> Option<Self> {
        let &[pass, step, total_steps, real_loss, real_samples, generated_loss, latent_loss, ref rest @ ..] =
            values
        else {
            return None;
        };
        let &[generated_samples, best_epoch, best_accuracy, best_average_epoch, best_average_accuracy] = rest
        else {
            return None;
        };
        Some(Self {
            pass: pass as u64,
            step: step as u64,
            total_steps: total_steps as u64,
            real_loss,
            real_samples: real_samples as u64,
            generated_loss,
            latent_loss,
            generated_samples: generated_samples as u64,
            best_epoch: best_epoch as u64,
            best_accuracy,
            best_average_epoch: best_average_epoch as u64,
            best_average_accuracy,
        })
    }
}

/// Writes `state` into `folder`, which is made if it is missing.
///
/// # Errors
///
/// Fails if a tensor cannot be read back or the file cannot be written.
pub fn save(state: &State, folder: &Path) -> Result<(), Error> {
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (group, named) in groups(state) {
        for (name, tensor) in named {
            let values = to_vec(tensor.clone())?;
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.insert(format!("{group}/{name}"), (Dtype::F32, vec![values.len()], bytes));
        }
    }
    let mut numbers = |name: &str, values: Vec<f64>| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.insert(name.to_owned(), (Dtype::F64, vec![values.len()], bytes));
    };
    numbers("progress", state.progress.to_values());
    numbers("epochs", state.epochs.iter().flat_map(epoch_values).collect());
    let steps = &state.optimizer.steps;
    numbers(
        "steps",
        state.optimizer.moment_1.keys().map(|name| steps.get(name).map_or(0.0, |s| *s as f64)).collect(),
    );
    let path = folder.join(FILE);
    let write_error = |source| Error::Write { path: path.clone(), source };
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect();
    let serialized = views.and_then(|views| safetensors::serialize(views, None));
    let mut bytes = serialized.map_err(|e| write_error(std::io::Error::other(e)))?;
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    publish(folder, &path, &bytes).map_err(write_error)
}

fn publish(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let temporary: PathBuf = folder.join(format!(".{FILE}.{}.tmp", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Reads the state in `folder`; `None` if there is none. A damaged or partial state is discarded with a warning: the
/// run then starts anew and gives the same result.
pub fn load(folder: &Path, device: &Device) -> Option<State> {
    let path = folder.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the training state cannot be read; the run starts anew");
            return None;
        }
    };
    let state = parse(&bytes, device);
    if state.is_none() {
        tracing::warn!(path = %path.display(), "the training state is damaged and discarded; the run starts anew");
    }
    state
}

fn parse(bytes: &[u8], device: &Device) -> Option<State> {
    let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    if blake3::hash(content).as_bytes() != digest {
        return None;
    }
    let file = SafeTensors::deserialize(content).ok()?;
    let mut state = State::default();
    for (name, view) in file.tensors() {
        let Some((group, name)) = name.split_once('/') else { continue };
        let target = match group {
            "parameters" => &mut state.parameters,
            "moment_1" => &mut state.optimizer.moment_1,
            "moment_2" => &mut state.optimizer.moment_2,
            "average" => &mut state.average,
            "best" => &mut state.best,
            "best_average" => &mut state.best_average,
            _ => return None,
        };
        let values: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let count = values.len();
        target.insert(name.to_owned(), Tensor::from_data(TensorData::new(values, [count]), device));
    }
    let numbers = |name: &str| -> Option<Vec<f64>> {
        let view = file.tensor(name).ok()?;
        Some(view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
    };
    state.progress = Progress::from_values(&numbers("progress")?)?;
    state.epochs = numbers("epochs")?.chunks_exact(EPOCH_FIELDS).filter_map(epoch_from_values).collect();
    let steps = numbers("steps")?;
    let names = state.optimizer.moment_1.keys().cloned();
    state.optimizer.steps = names.zip(steps.into_iter().map(|s| s as u64)).collect();
    Some(state)
}

fn groups(state: &State) -> [(&'static str, &NamedTensors); 6] {
    [
        ("parameters", &state.parameters),
        ("moment_1", &state.optimizer.moment_1),
        ("moment_2", &state.optimizer.moment_2),
        ("average", &state.average),
        ("best", &state.best),
        ("best_average", &state.best_average),
    ]
}

/// An absent figure is not a number in the file.
fn epoch_values(epoch: &EpochSummary) -> [f64; EPOCH_FIELDS] {
    let optional = |value: Option<f64>| value.unwrap_or(f64::NAN);
    [
        f64::from(epoch.epoch),
        epoch.learning_rate,
        optional(epoch.real_loss),
        optional(epoch.generated_loss),
        optional(epoch.latent_loss),
        optional(epoch.val_accuracy),
        optional(epoch.ema_val_accuracy),
    ]
}

fn epoch_from_values(values: &[f64]) -> Option<EpochSummary> {
    let &[epoch, learning_rate, real, generated, latent, val, ema] = values else { return None };
    let optional = |value: f64| (!value.is_nan()).then_some(value);
    Some(EpochSummary {
        epoch: epoch as u32,
        learning_rate,
        real_loss: optional(real),
        generated_loss: optional(generated),
        latent_loss: optional(latent),
        val_accuracy: optional(val),
        ema_val_accuracy: optional(ema),
    })
}
