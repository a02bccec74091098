//! Methods on frozen features: the baselines.
//!
//! Each takes [`Inputs`] and gives [`Fitted`]. Settings are chosen on the few-shot validation images only; where the
//! authors' code chooses on the test set, the method's page says so.

pub mod ape;
pub mod ape_t;
pub mod cholesky;
pub mod clap;
pub mod clip_adapter;
pub mod coop;
pub mod gda;
pub mod grid;
pub mod latent_only;
pub mod lbfgs;
pub mod linear_probe;
pub mod lp_plus_plus;
mod products;
pub mod prolip;
pub mod steps;
pub mod task_res;
pub mod tip_adapter;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use flier_model::{EpochSummary, SelectionRule, TrainedClassifier};

use crate::Error;
use crate::backbone::{accuracy, predicted_classes};
use crate::features::{TrainingFeatures, normalize_rows};

/// What a method is made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Training images per class.
    pub shots: u32,
    /// Augmented views of the training images.
    pub cache: &'a TrainingFeatures,
    /// Training and validation images as they are.
    pub plain: &'a TrainingFeatures,
    /// Normalised text features `[N, P]`.
    pub text_features: Tensor<2>,
    /// Factor on the cosine.
    pub logit_scale: f64,
    /// A plain device.
    pub device: &'a Device,
}

/// What a method has found.
#[derive(Debug)]
pub struct Fitted {
    /// The classifier, for inference.
    pub trained: TrainedClassifier,
    /// How settings and weights were chosen.
    pub rule: SelectionRule,
    /// Accuracy on the validation images.
    pub val_accuracy: Option<f64>,
    /// Chosen settings that the classifier does not hold, by name.
    pub settings: BTreeMap<String, f64>,
    /// Mean loss over the training images; absent for methods without one.
    pub final_loss: Option<f64>,
    /// One entry per epoch.
    pub epochs: Vec<EpochSummary>,
    /// One object per setting tried.
    pub log: Vec<serde_json::Value>,
}

impl Fitted {
    /// A classifier without settings to choose, whose last epoch counts.
    pub fn new(trained: TrainedClassifier, rule: SelectionRule, val_accuracy: Option<f64>) -> Self {
        let (settings, epochs, log) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { trained, rule, val_accuracy, settings, final_loss: None, epochs, log }
    }

    /// The same with the course of its training.
    pub fn with_epochs(self, epochs: Vec<EpochSummary>) -> Self {
        let final_loss = epochs.last().and_then(|epoch| epoch.real_loss);
        Self { epochs, final_loss, ..self }
    }
}

impl Inputs<'_> {
    /// Number of classes N.
    pub fn num_classes(&self) -> usize {
        self.text_features.dims()[0]
    }

    /// Fails if `field` has several values and there is no validation image to choose by.
    pub fn check_choice(&self, field: &'static str, count: usize) -> Result<(), Error> {
        if count > 1 && self.plain.val_labels.is_empty() {
            let remedy = "give one value or draw a list with validation images";
            return Err(Error::NoValidation { field, remedy });
        }
        Ok(())
    }

    /// The rule of a method that trains once for each of `count` settings and may have no more than one.
    pub fn rule_of(&self, field: &'static str, count: usize) -> Result<SelectionRule, Error> {
        self.check_choice(field, count)?;
        Ok(if count > 1 { SelectionRule::ValGrid } else { SelectionRule::Last })
    }

    /// Validation features `[L, P]`, not normalised.
    pub fn val_features(&self) -> Tensor<2> {
        self.plain.tensor(&self.plain.val, self.device)
    }

    /// Accuracy of `trained` on the validation images; `None` without any.
    ///
    /// # Errors
    ///
    /// Fails if the classifier does not read these features.
    pub fn val_accuracy(&self, trained: &TrainedClassifier) -> Result<Option<f64>, Error> {
        if self.plain.val_labels.is_empty() {
            return Ok(None);
        }
        let logits = trained.logits_from_features(self.val_features())?;
        Ok(accuracy(&predicted_classes(logits)?, &self.plain.val_labels))
    }

    /// Normalised mean of each training image's features over the augmented views, `[M, P]`.
    pub fn mean_keys(&self) -> Vec<f32> {
        let (cache, count) = (self.cache, self.cache.train_labels.len());
        let mut keys = vec![0.0f32; count * cache.width];
        for view in cache.train.chunks_exact(count * cache.width) {
            keys.iter_mut().zip(view).for_each(|(key, value)| *key += value / cache.views as f32);
        }
        normalize_rows(&mut keys, cache.width);
        keys
    }

    /// A matrix `[rows, columns]` on the device.
    pub fn matrix(&self, values: Vec<f32>, columns: usize) -> Tensor<2> {
        let rows = values.len() / columns.max(1);
        Tensor::from_data(TensorData::new(values, [rows, columns]), self.device)
    }
}

/// The candidate of the highest accuracy, the first of equals; `None` without a candidate.
pub fn first_best<T>(candidates: Vec<T>, accuracy: impl Fn(&T) -> Option<f64>) -> Option<T> {
    let mut best: Option<T> = None;
    for candidate in candidates {
        if best.as_ref().is_none_or(|best| accuracy(&candidate) > accuracy(best)) {
            best = Some(candidate);
        }
    }
    best
}

/// The error for a grid without a value; the spec's check refuses one before.
pub(crate) fn empty_grid(field: &str) -> Error {
    let problem = "expected at least one value, found `[]`".to_owned();
    pipeline_spec::Error::Field { field: field.to_owned(), problem }.into()
}
