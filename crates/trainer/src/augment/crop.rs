//! Views of an image: random resized crop and horizontal flip on 8-bit samples, on the host.

use clip_model::resize_bicubic;
use image::{RgbImage, imageops};
use rand_core::Rng;

use crate::random::{below, uniform};

/// Widest and narrowest aspect (width over height) of a crop.
const ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Draws before the central crop is taken, as in torchvision.
const ATTEMPTS: usize = 10;

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// Leftmost column.
    pub left: u32,
    /// Uppermost row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Random resized crop to `size` x `size` pixels (area `scale_min` to 1, aspect 3/4 to 4/3, bicubic) and horizontal flip
/// with probability 1/2; semantics of torchvision's `RandomResizedCrop` and `RandomHorizontalFlip`.
pub fn crop_flip(image: &RgbImage, size: usize, scale_min: f64, rng: &mut impl Rng) -> RgbImage {
    let mut view = resized_crop(image, draw_crop(image.dimensions(), scale_min, rng), size);
    if uniform(rng, 0.0, 1.0) < 0.5 {
        imageops::flip_horizontal_in_place(&mut view);
    }
    view
}

/// A part of the image, resized to `size` x `size` pixels (bicubic).
pub fn resized_crop(image: &RgbImage, crop: Crop, size: usize) -> RgbImage {
    let cropped = imageops::crop_imm(image, crop.left, crop.top, crop.width, crop.height).to_image();
    resize_bicubic(&cropped, size as u32, size as u32)
}

fn draw_crop((width, height): (u32, u32), scale_min: f64, rng: &mut impl Rng) -> Crop {
    let area = f64::from(width) * f64::from(height);
    for _ in 0..ATTEMPTS {
        let target = area * uniform(rng, scale_min, 1.0);
        let aspect = uniform(rng, ASPECT.0.ln(), ASPECT.1.ln()).exp();
        let w = (target * aspect).sqrt().round() as u32;
        let h = (target / aspect).sqrt().round() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = below(rng, (height - h + 1) as usize) as u32;
            let left = below(rng, (width - w + 1) as usize) as u32;
            return Crop { left, top, width: w, height: h };
        }
    }
    central_crop(width, height)
}

/// The largest central crop within the allowed aspects.
fn central_crop(width: u32, height: u32) -> Crop {
    let aspect = f64::from(width) / f64::from(height);
    let (w, h) = if aspect < ASPECT.0 {
        (width, (f64::from(width) / ASPECT.0).round() as u32)
    } else if aspect > ASPECT.1 {
        ((f64::from(height) * ASPECT.1).round() as u32, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    Crop { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn crops_lie_within_the_image_and_the_allowed_area() {
        for round in 0..500 {
            let (width, height) = (40 + round as u32 % 50, 64);
            let crop = draw_crop((width, height), 0.5, &mut stream(round, "crop", &[]));
            assert!(crop.left + crop.width <= width && crop.top + crop.height <= height);
            let area = f64::from(crop.width * crop.height) / f64::from(width * height);
            // Sides are rounded to pixels, so the area may miss the bound by about one row.
            assert!(area > 0.47, "{crop:?} of {width} x {height}");
        }
    }

    #[test]
    fn an_extreme_aspect_falls_back_to_the_central_crop() {
        let crop = draw_crop((1000, 10), 1.0, &mut stream(1, "crop", &[]));
        assert_eq!(crop, Crop { left: 493, top: 0, width: 13, height: 10 });
    }

    #[test]
    fn half_of_the_views_are_flipped() {
        let mut image = RgbImage::new(16, 16);
        for y in 0..16 {
            image.put_pixel(0, y, image::Rgb([255, 0, 0]));
        }
        let flipped = (0..1000)
            .filter(|round| {
                let view = crop_flip(&image, 16, 1.0, &mut stream(*round, "flip", &[]));
                view.get_pixel(15, 8)[0] > view.get_pixel(0, 8)[0]
            })
            .count();
        // Binomial with p = 1/2: five standard deviations are 79.
        assert!((421..=579).contains(&flipped), "{flipped}");
    }
}
