//! Random changes of training images: flip, rotation, zoom, shift, colour.
//!
//! The outside of an image is white, the background of the drawings. A *tint* multiplies the channels, which
//! gives the white background a colour too.

use serde::{Deserialize, Serialize};

use crate::rng::StepRng;

/// How strongly images are changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentRecipe {
    /// Mirrors half of the images left to right.
    pub flip: bool,
    /// Largest rotation to either side in degrees.
    pub rotation_degrees: f32,
    /// Smallest and largest zoom; below 1 the drawing gets smaller.
    pub zoom: [f32; 2],
    /// Largest shift to either side, as a share of the side length.
    pub shift: f32,
    /// Share of images that get a tint.
    pub tint_probability: f32,
    /// Smallest factor of a channel in a tint; the largest is 1.
    pub tint_min: f32,
    /// Contrast and saturation are multiplied by 1 ± this.
    pub color_jitter: f32,
    /// Share of images that lose a random rectangle (set to white), of a fifth to a half of the side length.
    pub erase_probability: f32,
}

/// Draws one changed copy of an image.
///
/// # Shapes
///
/// - `pixels`: `[3, S, S]`, 0 to 255
/// - output: `[3, S, S]` in 0..=1
pub fn augment(pixels: &[u8], side: usize, recipe: &AugmentRecipe, rng: &mut StepRng) -> Vec<f32> {
    let mut changed = warp(pixels, side, &Affine::draw(side, recipe, rng));
    color(&mut changed, recipe, rng);
    if rng.chance(recipe.erase_probability) {
        erase(&mut changed, side, rng);
    }
    changed
}

/// The pixels as they are, `[3, S, S]` in 0..=1.
pub fn plain(pixels: &[u8]) -> Vec<f32> {
    pixels.iter().map(|&value| f32::from(value) / 255.0).collect()
}

/// Maps a target pixel to its place in the source: centre + matrix · (target - centre) + shift.
struct Affine {
    matrix: [f32; 4],
    shift: [f32; 2],
}

impl Affine {
    fn draw(side: usize, recipe: &AugmentRecipe, rng: &mut StepRng) -> Self {
        let angle = rng.between(-recipe.rotation_degrees, recipe.rotation_degrees).to_radians();
        let scale = 1.0 / rng.between(recipe.zoom[0], recipe.zoom[1]);
        let mirror = if recipe.flip && rng.chance(0.5) { -1.0 } else { 1.0 };
        let reach = recipe.shift * side as f32;
        let (sin, cos) = angle.sin_cos();
        Self {
            matrix: [mirror * scale * cos, -mirror * scale * sin, scale * sin, scale * cos],
            shift: [rng.between(-reach, reach), rng.between(-reach, reach)],
        }
    }
}

/// Samples the source with bilinear weights; white outside.
fn warp(pixels: &[u8], side: usize, affine: &Affine) -> Vec<f32> {
    let area = side * side;
    let centre = (side as f32 - 1.0) / 2.0;
    let [a, b, c, d] = affine.matrix;
    let mut out = vec![1.0; 3 * area];
    for y in 0..side {
        for x in 0..side {
            let (dx, dy) = (x as f32 - centre, y as f32 - centre);
            let sx = centre + a * dx + b * dy + affine.shift[0];
            let sy = centre + c * dx + d * dy + affine.shift[1];
            let (left, top) = (sx.floor(), sy.floor());
            let (fx, fy) = (sx - left, sy - top);
            let corners = [
                (0.0, 0.0, (1.0 - fx) * (1.0 - fy)),
                (1.0, 0.0, fx * (1.0 - fy)),
                (0.0, 1.0, (1.0 - fx) * fy),
                (1.0, 1.0, fx * fy),
            ];
            let mut missing = [0.0_f32; 3]; // how much darker than white
            for (ox, oy, weight) in corners {
                let (px, py) = (left + ox, top + oy);
                if px < 0.0 || py < 0.0 || px >= side as f32 || py >= side as f32 {
                    continue;
                }
                let index = py as usize * side + px as usize;
                for (channel, sum) in missing.iter_mut().enumerate() {
                    *sum += weight * f32::from(255 - pixels[channel * area + index]);
                }
            }
            for (channel, sum) in missing.into_iter().enumerate() {
                out[channel * area + y * side + x] = 1.0 - sum / 255.0;
            }
        }
    }
    out
}

fn color(image: &mut [f32], recipe: &AugmentRecipe, rng: &mut StepRng) {
    let tinted = rng.chance(recipe.tint_probability);
    let tint = [(); 3].map(|()| rng.between(recipe.tint_min, 1.0));
    let [contrast, saturation] =
        [(); 2].map(|()| rng.between(1.0 - recipe.color_jitter, 1.0 + recipe.color_jitter));
    let area = image.len() / 3;
    for channel in 0..3 {
        let plane = &mut image[channel * area..(channel + 1) * area];
        let gain = if tinted { tint[channel] } else { 1.0 };
        let mean = gain * plane.iter().sum::<f32>() / area as f32;
        plane.iter_mut().for_each(|value| *value = (*value * gain - mean) * contrast + mean);
    }
    for index in 0..area {
        let gray = (image[index] + image[area + index] + image[2 * area + index]) / 3.0;
        for channel in 0..3 {
            let value = &mut image[channel * area + index];
            *value = ((*value - gray) * saturation + gray).clamp(0.0, 1.0);
        }
    }
}

fn erase(image: &mut [f32], side: usize, rng: &mut StepRng) {
    let mut span = || {
        let length = side / 5 + rng.below(side / 2 - side / 5 + 1);
        let start = rng.below(side - length + 1);
        start..start + length
    };
    let (rows, columns) = (span(), span());
    for channel in 0..3 {
        for row in rows.clone() {
            let line = (channel * side + row) * side;
            image[line + columns.start..line + columns.end].fill(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn still() -> AugmentRecipe {
        AugmentRecipe {
            flip: false,
            rotation_degrees: 0.0,
            zoom: [1.0, 1.0],
            shift: 0.0,
            tint_probability: 0.0,
            tint_min: 1.0,
            color_jitter: 0.0,
            erase_probability: 0.0,
        }
    }

    fn picture() -> Vec<u8> {
        (0..3 * 16 * 16).map(|i| (i * 7 % 256) as u8).collect()
    }

    #[test]
    fn strength_0_leaves_the_image() {
        let mut rng = StepRng::new(0, Purpose::Augment, 0);
        let changed = augment(&picture(), 16, &still(), &mut rng);
        // f32 rounding of sums of at most four terms
        assert!(changed.iter().zip(plain(&picture())).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn a_white_image_stays_white_under_every_geometric_change() {
        let recipe = AugmentRecipe {
            flip: true,
            rotation_degrees: 30.0,
            zoom: [0.5, 1.5],
            shift: 0.3,
            erase_probability: 1.0,
            ..still()
        };
        let mut rng = StepRng::new(1, Purpose::Augment, 0);
        let changed = augment(&[255; 3 * 16 * 16], 16, &recipe, &mut rng);
        assert!(changed.iter().all(|&value| value == 1.0));
    }

    #[test]
    fn values_stay_in_range() {
        let recipe = AugmentRecipe {
            tint_probability: 1.0,
            tint_min: 0.3,
            color_jitter: 0.9,
            zoom: [0.7, 1.3],
            ..still()
        };
        for step in 0..20 {
            let mut rng = StepRng::new(2, Purpose::Augment, step);
            let changed = augment(&picture(), 16, &recipe, &mut rng);
            assert!(changed.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }
}
