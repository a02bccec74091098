//! Tip-Adapter-F (arXiv 2207.09519): the cache of a shot list with its keys fine-tuned.
//!
//! Keys start as the normalised mean of an image's features over the augmented views. An epoch trains on one view of
//! every image (views take turns), with the `alpha` and `beta` of the authors' configurations; which pair the run ends
//! with is chosen on the validation images afterwards, not on the test set as in the authors' code.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use flier_model::{EpochSummary, TipAdapter, loss};
use pipeline_spec::spec::TipAdapterSpec;
use std::f64::consts::PI;

use crate::backbone::{accuracy, predicted_classes, to_vec};
use crate::features::{TrainingFeatures, normalize_rows};
use crate::optimizer::{AdamW, AdamWConfig, ParameterRule};
use crate::parameters;
use crate::random::{shuffle, stream};
use crate::{Control, Error};

/// Weight of the cache logits while training.
const INITIAL_ALPHA: f64 = 1.17;
/// Sharpness while training.
const INITIAL_BETA: f64 = 1.0;
/// The authors' epsilon; betas are PyTorch's.
const ADAMW: AdamWConfig = AdamWConfig { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-4 };
/// PyTorch's default, which the authors keep.
const WEIGHT_DECAY: f64 = 0.01;

/// What an adapter is made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Settings.
    pub spec: &'a TipAdapterSpec,
    /// Seed of the run.
    pub seed: u64,
    /// Augmented views of the training images.
    pub cache: &'a TrainingFeatures,
    /// Validation features, from the images as they are.
    pub val: &'a TrainingFeatures,
    /// Normalised text features `[N, P]`.
    pub text_features: Tensor<2>,
    /// Factor on the cosine.
    pub logit_scale: f64,
    /// A plain device.
    pub device: &'a Device,
}

/// A trained adapter.
#[derive(Debug)]
pub struct Fitted {
    /// The adapter, for inference.
    pub adapter: TipAdapter,
    /// Chosen weight of the cache logits.
    pub alpha: f64,
    /// Chosen sharpness.
    pub beta: f64,
    /// Accuracy on the validation images.
    pub val_accuracy: Option<f64>,
    /// One entry per epoch.
    pub epochs: Vec<EpochSummary>,
}

/// Trains the keys, then chooses `alpha` and `beta`; `None` if `control` stopped the work.
///
/// # Errors
///
/// Fails if there are several pairs and no validation image to choose by, or the loss stops being finite.
pub fn train(inputs: &Inputs<'_>, control: &mut Control<'_>) -> Result<Option<Fitted>, Error> {
    let spec = inputs.spec;
    if inputs.val.val_labels.is_empty() && spec.alpha.len() * spec.beta.len() > 1 {
        let remedy = "give one value of each or draw a list with validation images";
        return Err(Error::NoValidation { field: "method.alpha", remedy });
    }
    let adapter = parameters::freeze(initial(inputs).train(), |name| name != "keys");
    let Some((adapter, epochs)) = train_keys(inputs, adapter, control)? else { return Ok(None) };
    let adapter = adapter.valid();
    let (alpha, beta, val_accuracy) = choose(inputs, &adapter)?;
    Ok(Some(Fitted { adapter, alpha, beta, val_accuracy, epochs }))
}

/// The cache before training.
fn initial(inputs: &Inputs<'_>) -> TipAdapter {
    let (cache, device) = (inputs.cache, inputs.device);
    let (count, width) = (cache.train_labels.len(), cache.width);
    let mut keys = vec![0.0f32; count * width];
    for view in cache.train.chunks_exact(count * width) {
        keys.iter_mut().zip(view).for_each(|(key, value)| *key += value / cache.views as f32);
    }
    normalize_rows(&mut keys, width);
    let [num_classes, _] = inputs.text_features.dims();
    let keys = Tensor::from_data(TensorData::new(keys, [count, width]), device);
    let values = loss::smoothed_targets(&cache.train_labels, num_classes, 0.0, device);
    TipAdapter::new(keys, values, inputs.text_features.clone())
}

fn train_keys(
    inputs: &Inputs<'_>,
    mut adapter: TipAdapter,
    control: &mut Control<'_>,
) -> Result<Option<(TipAdapter, Vec<EpochSummary>)>, Error> {
    let (spec, cache) = (inputs.spec, inputs.cache);
    let autodiff = inputs.device.clone().autodiff();
    let rule = ParameterRule { learning_rate_scale: 1.0, weight_decay: WEIGHT_DECAY };
    let mut optimizer = AdamW::new(&adapter, ADAMW, |_, _| rule);
    let (count, [num_classes, _]) = (cache.train_labels.len(), inputs.text_features.dims());
    let steps_per_epoch = count.div_ceil(spec.batch_size.max(1) as usize);
    let total = steps_per_epoch * spec.epochs as usize;
    let (mut step, mut epochs) = (0, Vec::new());
    for epoch in 0..spec.epochs {
        let mut order: Vec<usize> = (0..count).collect();
        shuffle(&mut order, &mut stream(inputs.seed, "order", &["cache", &epoch.to_string()]));
        let view = &cache.train[(epoch as usize % cache.views) * count * cache.width..];
        let (mut sum, mut rate) = (0.0, 0.0);
        for batch in order.chunks(spec.batch_size.max(1) as usize) {
            rate = spec.learning_rate * 0.5 * (1.0 + (PI * step as f64 / total as f64).cos());
            let rows = batch.iter().flat_map(|i| &view[i * cache.width..(i + 1) * cache.width]);
            let features: Vec<f32> = rows.copied().collect();
            let features =
                Tensor::from_data(TensorData::new(features, [batch.len(), cache.width]), &autodiff);
            let labels: Vec<usize> = batch.iter().map(|i| cache.train_labels[*i]).collect();
            let targets = loss::smoothed_targets(&labels, num_classes, 0.0, &autodiff);
            let logits = adapter.logits(features, inputs.logit_scale, INITIAL_ALPHA, INITIAL_BETA);
            let loss = loss::cross_entropy(logits, targets);
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
            let gradients = GradientsParams::from_grads(loss.backward(), &adapter);
            adapter = optimizer.step(adapter, gradients, rate);
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
    Ok(Some((adapter, epochs)))
}

/// The pair with the best validation accuracy, the first of equals.
fn choose(inputs: &Inputs<'_>, adapter: &TipAdapter) -> Result<(f64, f64, Option<f64>), Error> {
    let (spec, val) = (inputs.spec, inputs.val);
    let mut best: Option<(f64, f64, Option<f64>)> = None;
    let count = val.val_labels.len();
    let features =
        Tensor::<2>::from_data(TensorData::new(val.val.clone(), [count, val.width]), inputs.device);
    for &alpha in &spec.alpha {
        for &beta in &spec.beta {
            let val_accuracy = if count == 0 {
                None
            } else {
                let logits = adapter.logits(features.clone(), inputs.logit_scale, alpha, beta);
                accuracy(&predicted_classes(logits)?, &val.val_labels)
            };
            if best.is_none_or(|(_, _, accuracy)| val_accuracy > accuracy) {
                best = Some((alpha, beta, val_accuracy));
            }
        }
    }
    best.ok_or_else(|| {
        let problem = "expected at least one value, found `[]`".to_owned();
        pipeline_spec::Error::Field { field: "method.alpha".to_owned(), problem }.into()
    })
}
