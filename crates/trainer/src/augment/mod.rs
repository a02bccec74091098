//! Views of a training image, on the host: 8-bit samples as Pillow makes them, then pixel values.
//!
//! The operations are held to Pillow, torchvision and timm sample for sample; what is drawn for them comes from our own
//! streams.

pub mod affine;
pub mod crop;
pub mod enhance;
pub mod erasing;
pub mod operations;
pub mod rand_augment;

pub use crop::crop_flip;

use image::RgbImage;
use pipeline_spec::spec::Augment;
use rand_core::Rng;

use self::erasing::RandomErasing;
use self::rand_augment::RandAugment;

/// The view of `image` as a square of `size` x `size` pixels; `None` where training sees the image as testing does.
pub fn view(augment: Augment, image: &RgbImage, size: usize, rng: &mut impl Rng) -> Option<RgbImage> {
    match augment {
        Augment::None => None,
        Augment::CropFlip { scale_min } => Some(crop_flip(image, size, scale_min, rng)),
        Augment::TimmStrong { scale_min, magnitude, magnitude_std, .. } => {
            let view = crop_flip(image, size, scale_min, rng);
            Some(RandAugment { magnitude, magnitude_std }.apply(view, rng))
        }
    }
}

/// Erases a box of normalised pixel values `[3, size, size]` where the augmentation does that.
pub fn erase(augment: Augment, values: &mut [f32], size: usize, rng: &mut impl Rng) {
    if let Augment::TimmStrong { random_erasing, .. } = augment {
        RandomErasing { probability: random_erasing }.apply(values, size, rng);
    }
}
