//! Choice of settings on the validation images, on the host.
//!
//! A grid of `alpha` and `beta` over a cache costs one pass over the affinities for each `beta`: the cached images are
//! summed by class, which is what a product with one-hot values does, and `alpha` only scales the sum.

use flier_model::{TipAdapter, ZeroShot};
use rayon::prelude::*;

use super::{Inputs, first_best};
use crate::Error;
use crate::backbone::to_vec;

/// Share of rows whose highest `base + weight * extra` stands at the label; the lowest class of equals counts.
/// `base` and `extra` are `[L, N]`. `None` without rows.
pub fn accuracy_of_sum(base: &[f32], extra: &[f32], weight: f64, labels: &[usize]) -> Option<f64> {
    if labels.is_empty() {
        return None;
    }
    let (classes, weight) = (base.len() / labels.len(), weight as f32);
    let rows = base.par_chunks_exact(classes).zip(extra.par_chunks_exact(classes)).zip(labels);
    let is_right = |((base, extra), label): ((&[f32], &[f32]), &usize)| {
        let (mut best, mut highest) = (0, f32::NEG_INFINITY);
        for (class, (base, extra)) in base.iter().zip(extra).enumerate() {
            let logit = base + extra * weight;
            if logit > highest {
                (best, highest) = (class, logit);
            }
        }
        best == *label
    };
    Some(rows.filter(|row| is_right(*row)).count() as f64 / labels.len() as f64)
}

/// Validation images against a cache.
#[derive(Debug)]
pub struct CacheGrid<'a> {
    /// Zero-shot logits `[L, N]`.
    zero_shot: Vec<f32>,
    /// `[L, M]`.
    affinity: Vec<f32>,
    key_labels: &'a [usize],
    labels: &'a [usize],
    num_classes: usize,
}

/// The chosen settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    /// Weight of the cache logits.
    pub alpha: f64,
    /// Sharpness.
    pub beta: f64,
    /// Which of the candidate key weights.
    pub weights: usize,
    /// Accuracy on the validation images.
    pub val_accuracy: Option<f64>,
}

impl<'a> CacheGrid<'a> {
    /// The validation images of `inputs` against the keys of `adapter`, whose classes are `key_labels`.
    ///
    /// # Errors
    ///
    /// Fails if a tensor cannot be read back.
    pub fn new(inputs: &Inputs<'a>, adapter: &TipAdapter, key_labels: &'a [usize]) -> Result<Self, Error> {
        let (labels, num_classes) = (inputs.plain.val_labels.as_slice(), inputs.num_classes());
        if labels.is_empty() {
            let (zero_shot, affinity) = (Vec::new(), Vec::new());
            return Ok(Self { zero_shot, affinity, key_labels, labels, num_classes });
        }
        let features = inputs.val_features();
        let text = ZeroShot { classifier: adapter.classifier.clone() };
        let zero_shot = to_vec(text.logits(features.clone(), inputs.logit_scale))?;
        let affinity = to_vec(adapter.affinity(features))?;
        Ok(Self { zero_shot, affinity, key_labels, labels, num_classes })
    }

    /// The settings of the highest accuracy, the first of equals in the order `alpha`, `beta`, weights; `key_weights` are
    /// candidates `[M]` for the weights of the keys.
    pub fn choose(&self, alpha: &[f64], beta: &[f64], key_weights: &[Vec<f32>]) -> Option<Chosen> {
        let mut table = vec![None; alpha.len() * beta.len() * key_weights.len()];
        for (b, &sharpness) in beta.iter().enumerate() {
            for (w, cache) in self.cache_logits(sharpness as f32, key_weights).iter().enumerate() {
                for (a, &weight) in alpha.iter().enumerate() {
                    table[(a * beta.len() + b) * key_weights.len() + w] =
                        accuracy_of_sum(&self.zero_shot, cache, weight, self.labels);
                }
            }
        }
        let at = |index: usize| Chosen {
            alpha: alpha[index / key_weights.len() / beta.len()],
            beta: beta[index / key_weights.len() % beta.len()],
            weights: index % key_weights.len(),
            val_accuracy: table[index],
        };
        first_best((0..table.len()).map(at).collect(), |chosen| chosen.val_accuracy)
    }

    /// `exp(-beta * (1 - affinity)) V` `[L, N]` for each candidate.
    fn cache_logits(&self, beta: f32, key_weights: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let (classes, keys) = (self.num_classes, self.key_labels.len());
        let sum_row = |affinity: &[f32]| {
            let activation: Vec<f32> = affinity.iter().map(|value| ((value - 1.0) * beta).exp()).collect();
            let mut sums = vec![0.0f32; key_weights.len() * classes];
            for (sums, weights) in sums.chunks_exact_mut(classes).zip(key_weights) {
                for ((value, weight), label) in activation.iter().zip(weights).zip(self.key_labels) {
                    sums[*label] += value * weight;
                }
            }
            sums
        };
        let rows: Vec<Vec<f32>> = self.affinity.par_chunks_exact(keys).map(sum_row).collect();
        let candidate = |index: usize| {
            rows.iter().flat_map(|row| &row[index * classes..(index + 1) * classes]).copied().collect()
        };
        (0..key_weights.len()).map(candidate).collect()
    }
}
