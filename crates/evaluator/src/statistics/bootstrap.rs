//! The paired bootstrap over images and seeds.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Resamples of a report.
pub const RESAMPLES: usize = 10_000;

/// Seed of the resamples: a report is the same each time it is written.
const SEED: u64 = 0;

/// Two methods on the same images: for each seed and image 1 if only the first is right, -1 if only the second is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// One row per seed, of one value per image.
    pub seeds: Vec<Vec<i8>>,
}

/// Difference in accuracy between two methods, the first minus the second, as fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Mean over images and seeds.
    pub mean: f64,
    /// Lower end of the 95% percentile interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Two-sided p: twice the share of resamples on the other side of zero, with one added to both counts.
    pub p: f64,
}

/// Differences of `pairs`, whose rows are all of `num_images` values, by `resamples` resamples (Efron and Tibshirani 1993).
///
/// Each resample draws the images with replacement, and the seeds of a pair with replacement. All pairs see the same draws.
/// A pair with one seed has no spread over seeds; with three the interval tells little about seeds that were not run.
///
/// # Panics
///
/// Panics if a row has another length.
pub fn paired_bootstrap(pairs: &[Paired], num_images: usize, resamples: usize) -> Vec<Difference> {
    assert!(
        pairs.iter().all(|pair| pair.seeds.iter().all(|row| row.len() == num_images)),
        "every row has a value for each of {num_images} images"
    );
    let mut images = stream(0);
    let mut seeds: BTreeMap<usize, ChaCha8Rng> =
        pairs.iter().map(|pair| (pair.seeds.len(), stream(pair.seeds.len() as u64))).collect();
    let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(resamples); pairs.len()];
    let mut counts = vec![0_i32; num_images];
    for _ in 0..resamples {
        counts.fill(0);
        for _ in 0..num_images {
            counts[below(&mut images, num_images)] += 1;
        }
        let weights: BTreeMap<usize, Vec<i32>> = seeds
            .iter_mut()
            .map(|(&count, rng)| {
                let mut weights = vec![0; count];
                (0..count).for_each(|_| weights[below(rng, count)] += 1);
                (count, weights)
            })
            .collect();
        for (pair, drawn) in pairs.iter().zip(&mut drawn) {
            let weighted = pair.seeds.iter().zip(&weights[&pair.seeds.len()]);
            let sum: i64 = weighted.map(|(row, &weight)| i64::from(weight) * dot(row, &counts)).sum();
            drawn.push(share(sum, pair, num_images));
        }
    }
    let summary = |(pair, drawn): (&Paired, Vec<f64>)| {
        let sum = pair.seeds.iter().flatten().map(|&value| i64::from(value)).sum();
        difference(share(sum, pair, num_images), drawn)
    };
    pairs.iter().zip(drawn).map(summary).collect()
}

fn difference(mean: f64, mut drawn: Vec<f64>) -> Difference {
    drawn.sort_by(f64::total_cmp);
    let at_most = drawn.partition_point(|&d| d <= 0.0);
    let at_least = drawn.len() - drawn.partition_point(|&d| d < 0.0);
    let p = 2.0 * (at_most.min(at_least) + 1) as f64 / (drawn.len() + 1) as f64;
    let at = |share: f64| {
        let place = share * drawn.len().saturating_sub(1) as f64;
        drawn.get(place.round() as usize).copied().unwrap_or(mean)
    };
    Difference { mean, low: at(0.025), high: at(0.975), p: p.min(1.0) }
}

fn share(sum: i64, pair: &Paired, num_images: usize) -> f64 {
    sum as f64 / (num_images * pair.seeds.len()).max(1) as f64
}

fn dot(row: &[i8], counts: &[i32]) -> i64 {
    i64::from(row.iter().zip(counts).map(|(&value, &count)| i32::from(value) * count).sum::<i32>())
}

fn stream(number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    rng.set_stream(number);
    rng
}

/// A number in `0..bound`; the bias is below `bound` / 2^32.
fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u64::from(rng.next_u32()) * bound as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 images that only the first gets right, 20 that only the second does, of 400.
    fn row() -> Vec<i8> {
        (0..400).map(|i| if i < 40 { 1 } else { -i8::from(i < 60) }).collect()
    }

    #[test]
    fn interval_over_images_is_that_of_the_normal_approximation() {
        let pairs = [Paired { seeds: vec![row()] }];
        let found = paired_bootstrap(&pairs, 400, RESAMPLES)[0];
        assert_eq!(found.mean, 0.05);
        // Variance of one value: 60/400 - 0.05^2 = 0.1475; 1.96 sqrt(0.1475 / 400) = 0.0376. The ends of 10,000 resamples
        // scatter by about 0.0005, steps are 1/400.
        assert!((found.low - (0.05 - 0.0376)).abs() < 0.003, "{found:?}");
        assert!((found.high - (0.05 + 0.0376)).abs() < 0.003, "{found:?}");
        // z = 0.05 / 0.0192 = 2.60, p = 0.0093; the discrete steps and the resamples leave some tenths of it.
        assert!((found.p - 0.0093).abs() < 0.004, "{found:?}");
    }

    #[test]
    fn seeds_that_disagree_widen_the_interval() {
        let none = vec![0; 400];
        let agree = Paired { seeds: vec![row(), row(), row()] };
        let disagree = Paired { seeds: vec![row(), none.clone(), none] };
        let found = paired_bootstrap(&[agree, disagree], 400, RESAMPLES);
        let width = |d: &Difference| (d.high - d.low) / d.mean;
        assert!(width(&found[1]) > 1.5 * width(&found[0]), "{found:?}");
        assert!(found[1].p > found[0].p);
    }

    #[test]
    fn equal_methods_have_p_of_one_and_draws_repeat() {
        let pairs =
            [Paired { seeds: vec![vec![0; 7]; 2] }, Paired { seeds: vec![vec![1, 0, -1, 0, 0, 1, 0]] }];
        let found = paired_bootstrap(&pairs, 7, 500);
        assert_eq!(found[0], Difference { mean: 0.0, low: 0.0, high: 0.0, p: 1.0 });
        assert_eq!(found, paired_bootstrap(&pairs, 7, 500));
    }

    #[test]
    fn nothing_to_compare_is_no_panic() {
        assert!(paired_bootstrap(&[], 0, 10).is_empty());
        assert_eq!(paired_bootstrap(&[Paired { seeds: vec![] }], 0, 10)[0].p, 1.0);
    }
}
