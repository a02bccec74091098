//! RandAugment as timm's `rand-m9-mstd0.5-inc1` (arXiv 1909.13719; timm 1.0.31, `data/auto_augment.py`).

use flier_model::init::normal;
use image::RgbImage;
use rand_core::Rng;

use super::operations::{MAX_LEVEL, Operation};
use crate::random::{below, uniform};

/// Operations that are drawn for an image.
const LAYERS: usize = 2;
/// Probability that a drawn operation is applied.
const PROBABILITY: f64 = 0.5;

/// The policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandAugment {
    /// Mean level.
    pub magnitude: f64,
    /// Standard deviation of the level.
    pub magnitude_std: f64,
}

impl RandAugment {
    /// Draws two operations with replacement and applies each with probability 1/2, at a level drawn for it.
    pub fn apply(self, mut image: RgbImage, rng: &mut impl Rng) -> RgbImage {
        for _ in 0..LAYERS {
            let operation = Operation::ALL[below(rng, Operation::ALL.len())];
            let is_applied = uniform(rng, 0.0, 1.0) <= PROBABILITY;
            let level = (self.magnitude + self.magnitude_std * normal(rng)).clamp(0.0, MAX_LEVEL);
            let is_negative = uniform(rng, 0.0, 1.0) > 0.5;
            if is_applied {
                image = operation.apply(&image, level, is_negative && operation.is_signed());
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn an_image_is_changed_as_often_as_the_probabilities_say() {
        // Rough, so that a sharpness filter changes it, and with enough pixels for its histogram to be equalised.
        let value = |x: u32, y: u32, channel: u32| {
            ((x * 131 + y * 57 + channel * 29) * (x + 3 * y + 7) % 193) as u8 + 20
        };
        let image =
            RgbImage::from_fn(32, 32, |x, y| image::Rgb([0, 1, 2].map(|channel| value(x, y, channel))));
        let policy = RandAugment { magnitude: 9.0, magnitude_std: 0.5 };
        let unchanged =
            |round: &u64| policy.apply(image.clone(), &mut stream(*round, "augment", &[])) == image;
        let count = (0..1000).filter(unchanged).count();
        // Neither operation is applied in a quarter of the draws; five standard deviations are 68. No operation at level 9
        // leaves this image as it is.
        assert!((182..=318).contains(&count), "{count}");
    }
}
