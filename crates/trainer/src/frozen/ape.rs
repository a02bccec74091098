//! APE, "Not all features matter: adaptive prior refinement" (Zhu et al., ICCV 2023, arXiv 2304.01195), without training: a
//! cache that compares the channels in which classes differ, each cached image weighted by how far it is from its text.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use clip_model::normalize;
use flier_model::adapters::select_channels;
use flier_model::{Classifier, SelectionRule, TipAdapter, TrainedClassifier, Weights};
use pipeline_spec::spec::{ApeSpec, ChannelSpec};

use super::grid::CacheGrid;
use super::{Fitted, Inputs, empty_grid};
use crate::Error;
use crate::backbone::to_vec;

/// Added to both probabilities of a divergence, as in the authors' code.
const EPSILON: f64 = 1e-6;

/// Chooses `alpha`, `beta` and `gamma` on the validation images.
///
/// # Errors
///
/// Fails if there are several settings and no validation image to choose by.
pub fn fit(spec: &ApeSpec, inputs: &Inputs<'_>) -> Result<Fitted, Error> {
    inputs.check_choice("method.alpha", spec.alpha.len() * spec.beta.len() * spec.gamma.len())?;
    let text = to_vec(inputs.text_features.clone())?;
    let all_keys = inputs.mean_keys();
    let samples = class_sums(inputs, &text, Some(&all_keys));
    let channels = refined_channels(&spec.channels, &text, &samples);
    let seen = |features: Tensor<2>| normalize(select_channels(features, &channels));
    let keys = seen(inputs.matrix(all_keys, inputs.cache.width)); // [M, Q]
    let probabilities =
        to_vec(softmax(keys.clone().matmul(seen(inputs.text_features.clone()).transpose()), 1))?;
    let (labels, classes) = (&inputs.cache.train_labels, inputs.num_classes());
    let divergence = probabilities
        .chunks_exact(classes)
        .zip(labels)
        .map(|(row, &label)| ((1.0 + EPSILON) / (f64::from(row[label]) + EPSILON)).log2());
    let divergence: Vec<f64> = divergence.collect();
    let weights_of = |gamma: &f64| divergence.iter().map(|d| (d * gamma).exp() as f32).collect::<Vec<_>>();
    let candidates: Vec<Vec<f32>> = spec.gamma.iter().map(weights_of).collect();

    let adapter = |weights: &[f32]| {
        let mut values = vec![0.0; labels.len() * classes];
        for ((row, label), weight) in values.chunks_exact_mut(classes).zip(labels).zip(weights) {
            row[*label] = *weight;
        }
        TipAdapter::new(keys.clone(), inputs.matrix(values, classes), inputs.text_features.clone())
            .with_channels(keys.clone(), channels.clone())
    };
    let grid = CacheGrid::new(inputs, &adapter(&vec![1.0; labels.len()]), labels)?;
    let chosen =
        grid.choose(&spec.alpha, &spec.beta, &candidates).ok_or_else(|| empty_grid("method.alpha"))?;
    let weights = Weights::TipAdapter(adapter(&candidates[chosen.weights]));
    let classifier = Classifier::Cache {
        projection_dim: inputs.cache.width,
        num_keys: labels.len(),
        logit_scale: inputs.logit_scale,
        alpha: chosen.alpha,
        beta: chosen.beta,
        channels,
    };
    let trained = TrainedClassifier::new(weights, classifier);
    let mut fitted = Fitted::new(trained, SelectionRule::ValGrid, chosen.val_accuracy);
    fitted.settings.insert("gamma".to_owned(), spec.gamma[chosen.weights]);
    Ok(fitted)
}

/// For each class the number of its samples and their sum `[P]`: its text feature, and its cached images where given.
pub(super) fn class_sums(inputs: &Inputs<'_>, text: &[f32], keys: Option<&[f32]>) -> Vec<(f64, Vec<f64>)> {
    let width = inputs.cache.width;
    let mut sums: Vec<(f64, Vec<f64>)> =
        text.chunks_exact(width).map(|row| (1.0, row.iter().map(|v| f64::from(*v)).collect())).collect();
    for (row, &label) in keys.unwrap_or_default().chunks_exact(width).zip(&inputs.cache.train_labels) {
        sums[label].0 += 1.0;
        sums[label].1.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sums
}

/// The channels of the highest criterion, in ascending order; `text` is `[N, P]`.
///
/// The similarity of a channel is the mean product over all pairs of samples of different classes; with T the sum over all
/// samples and S those of the classes, the products sum to `T^2 - sum of S^2`.
pub(super) fn refined_channels(spec: &ChannelSpec, text: &[f32], sums: &[(f64, Vec<f64>)]) -> Vec<usize> {
    let (classes, width) = (sums.len(), text.len() / sums.len());
    let total: f64 = sums.iter().map(|(count, _)| count).sum();
    let pairs = total * total - sums.iter().map(|(count, _)| count * count).sum::<f64>();
    let criterion = |channel: usize| {
        let over_classes = |value: &dyn Fn(usize) -> f64| (0..classes).map(value).sum::<f64>();
        let all = over_classes(&|class| sums[class].1[channel]);
        let within = over_classes(&|class| sums[class].1[channel].powi(2));
        let value = |class: usize| f64::from(text[class * width + channel]);
        let mean = over_classes(&value) / classes as f64;
        let variance = over_classes(&|class| (value(class) - mean).powi(2)) / (classes as f64 - 1.0);
        spec.variance_weight * variance - spec.similarity_weight * (all * all - within) / pairs
    };
    let criteria: Vec<f64> = (0..width).map(criterion).collect();
    let mut channels: Vec<usize> = (0..width).collect();
    channels.sort_by(|a, b| criteria[*b].total_cmp(&criteria[*a]));
    channels.truncate(spec.count as usize);
    channels.sort_unstable();
    channels
}
