//! Choice of settings on the validation images, on the host.
//!
//! A grid of `alpha` and `beta` over a cache costs one pass over the affinities for each `beta`: the cached images are
//! summed by class, which is what a product with one-hot values does, and one pass over the classes tells for which `alpha`
//! an image is right. A row of affinities stays in the processor's cache for all of them.

use burn::module::Param;
use burn::tensor::{Int, Tensor, TensorData};
use flier_model::{TipAdapter, ZeroShot};
use rayon::prelude::*;

use super::{Inputs, first_best};
use crate::Error;
use crate::backbone::to_vec;

/// Numbers that are handled together; a multiple of the lanes of any vector register.
const LANES: usize = 16;

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
    /// `[L, S, N]`: in slot s of class c the affinity with the s-th of the class's keys.
    affinity: Vec<f32>,
    /// Place in `[S, N]` of each key; places without a key weigh nothing.
    places: Vec<usize>,
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
    pub fn new(inputs: &Inputs<'a>, adapter: &TipAdapter, key_labels: &[usize]) -> Result<Self, Error> {
        let (labels, num_classes) = (inputs.plain.val_labels.as_slice(), inputs.num_classes());
        let mut counts = vec![0; num_classes];
        let place = |&label: &usize| {
            counts[label] += 1;
            (counts[label] - 1) * num_classes + label
        };
        let places: Vec<usize> = key_labels.iter().map(place).collect();
        if labels.is_empty() {
            let (zero_shot, affinity) = (Vec::new(), Vec::new());
            return Ok(Self { zero_shot, affinity, places, labels, num_classes });
        }
        let slots = counts.iter().copied().max().unwrap_or(0);
        let mut order = vec![0i64; slots * num_classes];
        places.iter().enumerate().for_each(|(key, place)| order[*place] = key as i64);
        let order = TensorData::new(order, [slots * num_classes]);
        let order = Tensor::<1, Int>::from_data(order, inputs.device);
        let mut ordered = adapter.clone();
        ordered.keys = Param::from_tensor(adapter.keys.val().select(0, order));
        let features = inputs.val_features();
        let text = ZeroShot { classifier: adapter.classifier.clone() };
        let zero_shot = to_vec(text.logits(features.clone(), inputs.logit_scale))?;
        let affinity = to_vec(ordered.affinity(features))?;
        Ok(Self { zero_shot, affinity, places, labels, num_classes })
    }

    /// The settings of the highest accuracy, the first of equals in the order `alpha`, `beta`, weights; `key_weights` are
    /// candidates `[M]` for the weights of the keys.
    pub fn choose(&self, alpha: &[f64], beta: &[f64], key_weights: &[Vec<f32>]) -> Option<Chosen> {
        let alphas: Vec<f32> = alpha.iter().map(|alpha| *alpha as f32).collect();
        let candidates = beta.len() * key_weights.len();
        let right = self.right(&alphas, beta, key_weights);
        let at = |index: usize| Chosen {
            alpha: alpha[index / candidates],
            beta: beta[index % candidates / key_weights.len()],
            weights: index % key_weights.len(),
            val_accuracy: (!self.labels.is_empty())
                .then(|| f64::from(right[index]) / self.labels.len() as f64),
        };
        first_best((0..alpha.len() * candidates).map(at).collect(), |chosen| chosen.val_accuracy)
    }

    /// Number of images that are right, `[alpha, beta, weights]`.
    fn right(&self, alpha: &[f32], beta: &[f64], key_weights: &[Vec<f32>]) -> Vec<u32> {
        let (classes, candidates) = (self.num_classes, beta.len() * key_weights.len());
        let none = || vec![0; alpha.len() * candidates];
        if self.labels.is_empty() {
            return none();
        }
        let row_len = self.affinity.len() / self.labels.len();
        let spread = |weights: &Vec<f32>| {
            let mut spread = vec![0.0; row_len];
            weights.iter().zip(&self.places).for_each(|(weight, place)| spread[*place] = *weight);
            spread
        };
        let key_weights: Vec<Vec<f32>> = key_weights.iter().map(spread).collect();
        let arch = pulp::Arch::new();
        let count_row = |mut right: Vec<u32>, ((zero_shot, affinity), label): ((&[f32], &[f32]), &usize)| {
            let (mut activation, mut cache) = (vec![0.0; row_len], vec![0.0; classes]);
            for (b, sharpness) in beta.iter().enumerate() {
                arch.dispatch(|| activate(affinity, *sharpness as f32, &mut activation));
                for (w, weights) in key_weights.iter().enumerate() {
                    let (low, high) = arch.dispatch(|| {
                        sum_slots(&activation, weights, &mut cache);
                        right_range(zero_shot, &cache, *label)
                    });
                    for (a, alpha) in alpha.iter().enumerate() {
                        let is_right = low <= *alpha && *alpha <= high;
                        right[a * candidates + b * key_weights.len() + w] += u32::from(is_right);
                    }
                }
            }
            right
        };
        let rows = self.zero_shot.par_chunks_exact(classes).zip(self.affinity.par_chunks_exact(row_len));
        rows.zip(self.labels).fold(none, count_row).reduce(none, |mut all, part| {
            all.iter_mut().zip(part).for_each(|(all, part)| *all += part);
            all
        })
    }
}

/// `exp(-beta * (1 - affinity))` of a row.
#[inline(always)]
fn activate(affinity: &[f32], beta: f32, activation: &mut [f32]) {
    for (activation, affinity) in activation.iter_mut().zip(affinity) {
        *activation = exp((affinity - 1.0) * beta);
    }
}

/// The cache logits `[N]` of a row of activations `[S, N]`.
#[inline(always)]
fn sum_slots(activation: &[f32], weights: &[f32], cache: &mut [f32]) {
    cache.fill(0.0);
    let slots = activation.chunks_exact(cache.len()).zip(weights.chunks_exact(cache.len()));
    for (activation, weights) in slots {
        for ((cache, activation), weight) in cache.iter_mut().zip(activation).zip(weights) {
            *cache += activation * weight;
        }
    }
}

/// The lowest and the highest weight of `cache` at which the label's `zero_shot + weight * cache` is the highest of all
/// classes; an empty range if there is none. Each class bounds it from one side.
#[inline(always)]
fn right_range(zero_shot: &[f32], cache: &[f32], label: usize) -> (f32, f32) {
    let (own_zero_shot, own_cache) = (zero_shot[label], cache[label]);
    let (mut low, mut high) = ([f32::NEG_INFINITY; LANES], [f32::INFINITY; LANES]);
    // An earlier class that is equal in both wins at every weight.
    let mut is_taken = false;
    let mut bound = |lane: usize, zero_shot: f32, cache: f32| {
        let (gap, slope) = (own_zero_shot - zero_shot, cache - own_cache);
        let limit = gap / slope;
        // Equal in both, as the label itself, the limit is not a number, which `min` leaves out.
        high[lane] = if slope >= 0.0 { high[lane].min(limit) } else { high[lane] };
        low[lane] = if slope < 0.0 { low[lane].max(limit) } else { low[lane] };
    };
    let (zero_shot_lanes, zero_shot_rest) = zero_shot.as_chunks::<LANES>();
    let (cache_lanes, cache_rest) = cache.as_chunks::<LANES>();
    for (zero_shot, cache) in zero_shot_lanes.iter().zip(cache_lanes) {
        for lane in 0..LANES {
            bound(lane, zero_shot[lane], cache[lane]);
        }
    }
    for (lane, (zero_shot, cache)) in zero_shot_rest.iter().zip(cache_rest).enumerate() {
        bound(lane, *zero_shot, *cache);
    }
    for (zero_shot, cache) in zero_shot[..label].iter().zip(&cache[..label]) {
        is_taken |= *zero_shot == own_zero_shot && *cache == own_cache;
    }
    let high = if is_taken { f32::NEG_INFINITY } else { high.into_iter().fold(f32::INFINITY, f32::min) };
    (low.into_iter().fold(f32::NEG_INFINITY, f32::max), high)
}

/// `exp(x)` to some units in the last place, at least the smallest normal number. Cephes' reduction and polynomial; without
/// a branch, so that a loop over it becomes vector code.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.3, 88.3);
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    let biased = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let power = biased - 12_582_912.0;
    let r = x - power * 0.693_359_4 + power * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let y = p * (r * r) + r + 1.0;
    // The integer, shifted into the exponent.
    f32::from_bits(y.to_bits().wrapping_add(biased.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{stream, uniform};

    #[test]
    fn the_exponential_is_that_of_the_library() {
        for step in -870..=880 {
            let x = step as f32 / 10.0 + 0.013;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            // Four units in the last place.
            assert!((found / expected - 1.0).abs() < 5e-7, "{x}: {found} {expected}");
        }
    }

    #[test]
    fn one_pass_counts_what_every_setting_alone_would() {
        // Classes of 0 to 4 keys, so that slots stay empty; 37 classes, so that a vector is not full.
        let (classes, images) = (37, 60);
        let mut rng = stream(1, "grid", &[]);
        let mut draw = |low, high| uniform(&mut rng, low, high) as f32;
        let key_labels: Vec<usize> = (0..classes).flat_map(|class| vec![class; class % 5]).collect();
        let keys = key_labels.len();
        let affinity: Vec<f32> = (0..images * keys).map(|_| draw(0.3, 1.0)).collect();
        let zero_shot: Vec<f32> = (0..images * classes).map(|_| draw(0.0, 3.0)).collect();
        let labels: Vec<usize> = (0..images).map(|image| image * 7 % classes).collect();
        let weights: Vec<Vec<f32>> = (0..2).map(|_| (0..keys).map(|_| draw(0.5, 2.0)).collect()).collect();
        let (alpha, beta) = ([0.0, 0.3, 1.0, 4.0], [0.5, 2.0, 9.0]);

        let slots = 4;
        let mut counts = vec![0; classes];
        let place = |&label: &usize| {
            counts[label] += 1;
            (counts[label] - 1) * classes + label
        };
        let places: Vec<usize> = key_labels.iter().map(place).collect();
        let mut ordered = vec![1.0; images * slots * classes];
        for (row, ordered) in affinity.chunks_exact(keys).zip(ordered.chunks_exact_mut(slots * classes)) {
            row.iter().zip(&places).for_each(|(value, place)| ordered[*place] = *value);
        }
        let grid = CacheGrid {
            zero_shot: zero_shot.clone(),
            affinity: ordered,
            places,
            labels: &labels,
            num_classes: classes,
        };
        let found = grid.right(&alpha.map(|alpha| alpha as f32), &beta, &weights);
        for (a, alpha) in alpha.iter().enumerate() {
            for (b, beta) in beta.iter().enumerate() {
                for (w, weights) in weights.iter().enumerate() {
                    let mut cache = vec![0.0f32; images * classes];
                    for (row, cache) in affinity.chunks_exact(keys).zip(cache.chunks_exact_mut(classes)) {
                        for ((value, weight), label) in row.iter().zip(weights).zip(&key_labels) {
                            cache[*label] += ((value - 1.0) * *beta as f32).exp() * weight;
                        }
                    }
                    let expected = accuracy_of_sum(&zero_shot, &cache, *alpha, &labels).unwrap();
                    let found = f64::from(found[(a * 3 + b) * 2 + w]) / images as f64;
                    assert_eq!(found, expected, "alpha {alpha}, beta {beta}, weights {w}");
                }
            }
        }
    }

    #[test]
    fn the_lowest_of_equal_classes_counts() {
        let (zero_shot, cache) = ([1.0, 2.0, 2.0], [0.5, 0.25, 0.25]);
        let is_right = |label, alpha: f32| {
            let (low, high) = right_range(&zero_shot, &cache, label);
            low <= alpha && alpha <= high
        };
        assert!(is_right(1, 1.0) && !is_right(2, 1.0) && !is_right(0, 1.0));
        // 1 + 0.5 alpha passes 2 + 0.25 alpha at 4.
        assert!(is_right(1, 3.9) && !is_right(1, 4.1) && is_right(0, 4.1));
    }
}
