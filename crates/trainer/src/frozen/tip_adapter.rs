//! Tip-Adapter and Tip-Adapter-F (arXiv 2207.09519), and CaFo's cache with generated images (arXiv 2303.02151).
//!
//! Keys start as the normalised mean of an image's features over the augmented views. An epoch trains on one view of
//! every image (views take turns), with the `alpha` and `beta` of the authors' configurations; which pair the run ends
//! with is chosen on the validation images afterwards, not on the test set as in the authors' code.

use burn::module::Module;
use burn::tensor::Tensor;
use flier_model::{Classifier, EpochSummary, SelectionRule, TipAdapter, TrainedClassifier, Weights, loss};
use pipeline_spec::spec::{AdapterTraining, CacheSpec, CafoSpec, TipAdapterSpec};

use super::grid::{CacheGrid, Chosen};
use super::steps::{Optimizer, Rate, Steps};
use super::{Fitted, Inputs, empty_grid};
use crate::parameters;
use crate::{Control, Error};

/// Weight of the cache logits while training.
const INITIAL_ALPHA: f64 = 1.17;
/// Sharpness while training.
const INITIAL_BETA: f64 = 1.0;
/// The authors' epsilon; the weight decay is PyTorch's default, which they keep.
const ADAMW: Optimizer = Optimizer::AdamW { epsilon: 1e-4, weight_decay: 0.01 };

/// Tip-Adapter without training.
///
/// # Errors
///
/// Fails if there are several pairs and no validation image to choose by.
pub fn fit(spec: &CacheSpec, inputs: &Inputs<'_>) -> Result<Fitted, Error> {
    inputs.check_choice("method.alpha", spec.alpha.len() * spec.beta.len())?;
    let adapter = initial(inputs);
    let chosen = choose(inputs, &adapter, &spec.alpha, &spec.beta)?;
    Ok(cache_classifier(inputs, adapter, chosen, Vec::new()))
}

/// Tip-Adapter-F: trains the keys, then chooses `alpha` and `beta`; `None` if `control` stopped the work.
///
/// # Errors
///
/// Fails if there are several pairs and no validation image to choose by, or the loss stops being finite.
pub fn train(
    spec: &TipAdapterSpec,
    inputs: &Inputs<'_>,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let &TipAdapterSpec { epochs, batch_size, learning_rate, .. } = spec;
    let training = AdapterTraining { epochs, batch_size, learning_rate };
    let Some((adapter, epochs)) = train_keys(inputs, training, &spec.alpha, &spec.beta, control)? else {
        return Ok(None);
    };
    let chosen = choose(inputs, &adapter, &spec.alpha, &spec.beta)?;
    let classifier = Classifier::TipAdapterF {
        projection_dim: inputs.cache.width,
        num_keys: inputs.cache.train_labels.len(),
        logit_scale: inputs.logit_scale,
        alpha: chosen.alpha,
        beta: chosen.beta,
    };
    let trained = TrainedClassifier::new(Weights::TipAdapter(adapter), classifier);
    Ok(Some(Fitted::new(trained, SelectionRule::ValGrid, chosen.val_accuracy).with_epochs(epochs)))
}

/// Tip-Adapter-F on a cache of real and generated images; `inputs.cache` holds both.
///
/// The authors' code goes over the real images, then over the generated ones in every epoch; here a pass mixes them.
///
/// # Errors
///
/// Fails as [`train`] does.
pub fn train_cafo(
    spec: &CafoSpec,
    inputs: &Inputs<'_>,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let Some((adapter, epochs)) = train_keys(inputs, spec.training, &spec.alpha, &spec.beta, control)? else {
        return Ok(None);
    };
    let chosen = choose(inputs, &adapter, &spec.alpha, &spec.beta)?;
    Ok(Some(cache_classifier(inputs, adapter, chosen, epochs)))
}

/// The cache with the chosen `alpha` and `beta` as what a run leaves.
pub(super) fn cache_classifier(
    inputs: &Inputs<'_>,
    adapter: TipAdapter,
    chosen: Chosen,
    epochs: Vec<EpochSummary>,
) -> Fitted {
    let classifier = Classifier::Cache {
        projection_dim: inputs.cache.width,
        num_keys: inputs.cache.train_labels.len(),
        logit_scale: inputs.logit_scale,
        alpha: chosen.alpha,
        beta: chosen.beta,
        channels: Vec::new(),
    };
    let trained = TrainedClassifier::new(Weights::TipAdapter(adapter), classifier);
    Fitted::new(trained, SelectionRule::ValGrid, chosen.val_accuracy).with_epochs(epochs)
}

/// The cache before training.
pub fn initial(inputs: &Inputs<'_>) -> TipAdapter {
    let keys = inputs.matrix(inputs.mean_keys(), inputs.cache.width);
    let labels = &inputs.cache.train_labels;
    let values = loss::smoothed_targets(labels, inputs.num_classes(), 0.0, inputs.device);
    TipAdapter::new(keys, values, inputs.text_features.clone())
}

fn train_keys(
    inputs: &Inputs<'_>,
    training: AdapterTraining,
    alpha: &[f64],
    beta: &[f64],
    control: &mut Control<'_>,
) -> Result<Option<(TipAdapter, Vec<EpochSummary>)>, Error> {
    inputs.check_choice("method.alpha", alpha.len() * beta.len())?;
    let adapter = parameters::freeze(initial(inputs).train(), |name| name != "keys");
    let steps = Steps { training, rate: Rate::PerStep, optimizer: ADAMW };
    let scale = inputs.logit_scale;
    let cross_entropy = |adapter: &TipAdapter, features: Tensor<2>, targets: Tensor<2>| {
        loss::cross_entropy(adapter.logits(features, scale, INITIAL_ALPHA, INITIAL_BETA), targets)
    };
    let trained = steps.train(inputs, adapter, cross_entropy, control)?;
    Ok(trained.map(|(adapter, epochs)| (adapter.valid(), epochs)))
}

fn choose(inputs: &Inputs<'_>, adapter: &TipAdapter, alpha: &[f64], beta: &[f64]) -> Result<Chosen, Error> {
    let grid = CacheGrid::new(inputs, adapter, &inputs.cache.train_labels)?;
    let ones = vec![1.0; inputs.cache.train_labels.len()];
    grid.choose(alpha, beta, &[ones]).ok_or_else(|| empty_grid("method.alpha"))
}
