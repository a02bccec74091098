//! LP++, "A surprisingly strong linear probe for few-shot CLIP" (Huang et al., CVPR 2024, arXiv 2404.02285): a linear probe
//! plus the text logits times a weight per class, by full-batch gradient descent whose step sizes follow from the features.
//!
//! The blending weights take a step every tenth epoch with the gradient of that epoch; the authors' code lets that gradient
//! pile up over the epochs before, which its paper does not ask for. The probe's bias starts at zero.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, softmax};
use flier_model::{Classifier, EpochSummary, LinearProbe, SelectionRule, TrainedClassifier, Weights, loss};
use pipeline_spec::spec::LpPlusPlusSpec;
use rayon::prelude::*;

use super::{Fitted, Inputs};
use crate::backbone::to_vec;
use crate::features::normalize_rows;
use crate::{Control, Error};

/// Momentum of the probe's gradient descent.
const MOMENTUM: f64 = 0.9;
/// Epochs between two steps of the blending weights.
const BLENDING_PERIOD: u32 = 10;
/// The first blending weights are this times the mean cosine of an image with its class's text.
const INITIAL_BLENDING: f64 = 250.0;

/// Rows that one task of the power iteration goes over; fixed, so that sums do not depend on the number of threads.
const ROWS_PER_TASK: usize = 256;

/// What is trained.
#[derive(Clone)]
struct Probe {
    /// `[P, N]`.
    weight: Tensor<2>,
    /// `[1, N]`.
    bias: Tensor<2>,
    /// `[1, N]`.
    blending: Tensor<2>,
    /// Running gradients of weight and bias.
    velocity: [Tensor<2>; 2],
}

impl Probe {
    /// One step of gradient descent with momentum; `error` `[M, N]` is the loss's gradient at the logits.
    fn descend(&mut self, features: &Tensor<2>, error: &Tensor<2>, learning_rate: f64) {
        let gradients = [features.clone().transpose().matmul(error.clone()), error.clone().sum_dim(0)];
        for ((velocity, gradient), parameter) in
            self.velocity.iter_mut().zip(gradients).zip([&mut self.weight, &mut self.bias])
        {
            *velocity = velocity.clone().mul_scalar(MOMENTUM) + gradient;
            *parameter = parameter.clone() - velocity.clone().mul_scalar(learning_rate);
        }
    }
}

/// Trains on the first view of every training image; the epoch with the best validation accuracy counts (the latest of
/// equals, as in the authors' code), or the last one without validation images. `None` if `control` stopped the work.
///
/// # Errors
///
/// Fails if the loss stops being finite.
pub fn train(
    spec: &LpPlusPlusSpec,
    inputs: &Inputs<'_>,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let (cache, classes) = (inputs.cache, inputs.num_classes());
    let (count, width) = (cache.train_labels.len(), cache.width);
    let mut features = cache.train[..count * width].to_vec();
    normalize_rows(&mut features, width);
    let eigenvalue = largest_eigenvalue(&features, width);
    let features = inputs.matrix(features, width);
    let text = inputs.text_features.clone().transpose(); // [P, N]
    let cosines = features.clone().matmul(text.clone()); // [M, N]
    let one_hot = loss::smoothed_targets(&cache.train_labels, classes, 0.0, inputs.device);
    let (probe_rate, blending_rate) =
        (4.0 * count as f64 / eigenvalue, count as f64 / (4.0 * largest_square_sum(&cosines)?));

    let ones = Tensor::<2>::ones([1, classes], inputs.device);
    let weight = features.clone().transpose().matmul(one_hot.clone());
    let mut probe = Probe {
        velocity: [weight.zeros_like(), ones.zeros_like()],
        weight,
        bias: ones.zeros_like(),
        blending: ones.mul_scalar(initial_blending(&cosines, &cache.train_labels)?),
    };
    let mut best: Option<(Option<f64>, TrainedClassifier)> = None;
    let mut epochs = Vec::new();
    for epoch in 1..=spec.epochs {
        let logits = features.clone().matmul(probe.weight.clone())
            + probe.bias.clone()
            + cosines.clone() * probe.blending.clone();
        let loss = loss_of(logits.clone(), &one_hot)?;
        if !loss.is_finite() {
            let (pass, step, learning_rate) = ("cache", 1, probe_rate);
            return Err(Error::Diverged { loss, epoch, pass, step, learning_rate });
        }
        let error = (softmax(logits, 1) - one_hot.clone()).mul_scalar(1.0 / count as f64); // [M, N]
        probe.descend(&features, &error, probe_rate);
        if epoch.is_multiple_of(BLENDING_PERIOD) {
            let gradient = (error * cosines.clone()).sum_dim(0);
            probe.blending = probe.blending - gradient.mul_scalar(blending_rate);
        }
        let trained = blended(&probe, &text, width);
        let val_accuracy = inputs.val_accuracy(&trained)?;
        if best.as_ref().is_none_or(|(accuracy, _)| val_accuracy >= *accuracy) {
            best = Some((val_accuracy, trained));
        }
        epochs.push(summary(epoch, probe_rate, loss, val_accuracy));
        if control(u64::from(epoch), u64::from(spec.epochs)) == ControlFlow::Break(()) {
            return Ok(None);
        }
    }
    Ok(best.map(|(accuracy, trained)| {
        let rule = if accuracy.is_some() { SelectionRule::ValBest } else { SelectionRule::Last };
        Fitted::new(trained, rule, accuracy).with_epochs(epochs)
    }))
}

fn summary(epoch: u32, learning_rate: f64, loss: f64, val_accuracy: Option<f64>) -> EpochSummary {
    EpochSummary {
        epoch,
        learning_rate,
        real_loss: Some(loss),
        generated_loss: None,
        latent_loss: None,
        val_accuracy,
        ema_val_accuracy: None,
    }
}

/// Probe and blended text classifier as one linear layer.
fn blended(probe: &Probe, text: &Tensor<2>, width: usize) -> TrainedClassifier {
    let weight = probe.weight.clone() + text.clone() * probe.blending.clone();
    let layer = LinearProbe::new(weight, probe.bias.clone().squeeze_dim(0));
    TrainedClassifier::new(Weights::LinearProbe(layer), Classifier::Linear { projection_dim: width })
}

fn loss_of(logits: Tensor<2>, one_hot: &Tensor<2>) -> Result<f64, Error> {
    let count = logits.dims()[0] as f64;
    let sum = to_vec((log_softmax(logits, 1) * one_hot.clone()).sum())?;
    Ok(-f64::from(sum.first().copied().unwrap_or(f32::NAN)) / count)
}

/// The largest sum of squares of a column.
fn largest_square_sum(cosines: &Tensor<2>) -> Result<f64, Error> {
    let sums = to_vec(cosines.clone().powi_scalar(2).sum_dim(0))?;
    Ok(f64::from(sums.into_iter().fold(0.0, f32::max)))
}

/// The mean over classes of the mean cosine of a class's images with its text, times a constant.
fn initial_blending(cosines: &Tensor<2>, labels: &[usize]) -> Result<f64, Error> {
    let [_, classes] = cosines.dims();
    let (mut sums, mut counts) = (vec![0.0f64; classes], vec![0u32; classes]);
    for (row, &label) in to_vec(cosines.clone())?.chunks_exact(classes).zip(labels) {
        sums[label] += f64::from(row[label]);
        counts[label] += 1;
    }
    let means = sums.iter().zip(&counts).map(|(sum, count)| sum / f64::from((*count).max(1)));
    Ok(INITIAL_BLENDING * means.sum::<f64>() / classes as f64)
}

/// The largest eigenvalue of `F^T F` for rows `F` `[M, P]`, by power iteration.
fn largest_eigenvalue(rows: &[f32], width: usize) -> f64 {
    /// Rounds at most; the value is a step size, six digits are plenty.
    const ROUNDS: usize = 1000;
    const TOLERANCE: f64 = 1e-9;
    // The mean direction: features of one encoder share it, so it lies close to the first eigenvector.
    let mut vector = vec![0.0f64; width];
    rows.chunks_exact(width).for_each(|row| add(&mut vector, row, 1.0));
    let mut eigenvalue = 0.0;
    for _ in 0..ROUNDS {
        let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        vector.iter_mut().for_each(|v| *v /= length);
        let product = |row: &[f32]| row.iter().zip(&vector).map(|(a, b)| f64::from(*a) * b).sum::<f64>();
        let next = rows
            .par_chunks(width * ROWS_PER_TASK)
            .map(|rows| {
                let mut sum = vec![0.0; width];
                rows.chunks_exact(width).for_each(|row| add(&mut sum, row, product(row)));
                sum
            })
            .collect::<Vec<_>>();
        let mut sum = vec![0.0; width];
        next.iter().for_each(|part| sum.iter_mut().zip(part).for_each(|(s, p)| *s += p));
        let found = sum.iter().zip(&vector).map(|(a, b)| a * b).sum::<f64>();
        vector = sum;
        if (found - eigenvalue).abs() <= TOLERANCE * found.abs() {
            return found;
        }
        eigenvalue = found;
    }
    eigenvalue
}

fn add(sum: &mut [f64], row: &[f32], factor: f64) {
    sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v) * factor);
}
