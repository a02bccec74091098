//! Random erasing (arXiv 1708.04896) as timm's `pixel` mode: one box of normalised pixel values becomes Gaussian noise.

use flier_model::init::normal;
use rand_core::Rng;

use crate::random::{below, uniform};

/// Smallest and largest area of the box, relative to the image.
const AREA: (f64, f64) = (0.02, 1.0 / 3.0);
/// Smallest and largest aspect (height over width).
const ASPECT: (f64, f64) = (0.3, 1.0 / 0.3);
/// Draws before the image is left as it is.
const ATTEMPTS: usize = 10;

/// The operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomErasing {
    /// Probability that an image is touched.
    pub probability: f64,
}

impl RandomErasing {
    /// Erases a box of `values` `[3, size, size]`, or nothing.
    pub fn apply(self, values: &mut [f32], size: usize, rng: &mut impl Rng) {
        if uniform(rng, 0.0, 1.0) > self.probability {
            return;
        }
        for _ in 0..ATTEMPTS {
            let area = uniform(rng, AREA.0, AREA.1);
            let aspect = uniform(rng, ASPECT.0.ln(), ASPECT.1.ln()).exp();
            let (height, width) = box_size(area, aspect, size);
            if width < size && height < size {
                let (top, left) = (below(rng, size - height + 1), below(rng, size - width + 1));
                for channel in values.chunks_exact_mut(size * size) {
                    for row in channel.chunks_exact_mut(size).skip(top).take(height) {
                        row[left..left + width].iter_mut().for_each(|v| *v = normal(rng) as f32);
                    }
                }
                return;
            }
        }
    }
}

/// Height and width of a box of this share of the area of a square of `size` pixels.
pub fn box_size(area: f64, aspect: f64, size: usize) -> (usize, usize) {
    let target = area * (size * size) as f64;
    let side = |value: f64| value.sqrt().round_ties_even() as usize;
    (side(target * aspect), side(target / aspect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn boxes_lie_within_the_allowed_area_and_a_quarter_of_the_images_has_one() {
        let (mut touched, size) = (0, 32);
        for round in 0..1000 {
            let mut values = vec![9.0f32; 3 * size * size];
            let mut rng = stream(round, "erase", &[]);
            RandomErasing { probability: 0.25 }.apply(&mut values, size, &mut rng);
            let erased = values.iter().filter(|value| **value != 9.0).count();
            if erased > 0 {
                touched += 1;
                let share = erased as f64 / values.len() as f64;
                // Sides are rounded to pixels.
                assert!((0.01..0.36).contains(&share), "{share}");
            }
        }
        // Five standard deviations are 68.
        assert!((182..=318).contains(&touched), "{touched}");
    }
}
