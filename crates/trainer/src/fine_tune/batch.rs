//! Pixel values and latents of a batch, made on the host.

use std::borrow::Cow;

use burn::tensor::{Device, Tensor, TensorData};
use clip_model::Preprocess;
use image::RgbImage;
use pipeline_spec::spec::Augment;
use rayon::prelude::*;

use super::plan::Pass;
use crate::images::{GeneratedSample, LabeledImage};
use crate::random::stream;
use crate::{Error, augment};

/// Turns images into pixel values; what a view shows depends on (seed, pass, epoch, position of the sample) only.
#[derive(Debug)]
pub struct Views<'a> {
    preprocess: &'a Preprocess,
    augment: Augment,
    seed: u64,
    sources: Vec<(&'a LabeledImage, Option<RgbImage>)>,
}

impl<'a> Views<'a> {
    /// Views of `images`. Without augmentation the square images are made once.
    pub fn new(images: &[&'a LabeledImage], preprocess: &'a Preprocess, augment: Augment, seed: u64) -> Self {
        let square = |image: &&'a LabeledImage| {
            let square = matches!(augment, Augment::None).then(|| preprocess.square(&image.image));
            (*image, square)
        };
        Self { preprocess, augment, seed, sources: images.par_iter().map(square).collect() }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Labels of the images at `indices`.
    pub fn labels(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().map(|&index| self.sources[index].0.label).collect()
    }

    /// Pixel values `[B, 3, S, S]` of the images at `indices` in `pass` (`None`: as for validation, without augmentation).
    pub fn pixel_values(&self, indices: &[usize], pass: Option<Pass>, device: &Device) -> Tensor<4> {
        let size = self.preprocess.image_size;
        let mut values = vec![0.0; indices.len() * 3 * size * size];
        values.par_chunks_mut(3 * size * size).zip(indices).for_each(|(values, &index)| {
            let (source, square) = &self.sources[index];
            let Some(pass) = pass.filter(|_| square.is_none()) else {
                let fresh = || self.preprocess.square(&source.image);
                let square = square.as_ref().map_or_else(|| Cow::Owned(fresh()), Cow::Borrowed);
                return self.preprocess.write_pixel_values(&square, values);
            };
            let (epoch, index) = (pass.epoch.to_string(), index.to_string());
            let place = [pass.kind.name(), epoch.as_str(), source.sample_id.as_str(), index.as_str()];
            let mut rng = stream(self.seed, "augment", &place);
            let view = augment::view(self.augment, &source.image, size, &mut rng);
            let view = view.unwrap_or_else(|| self.preprocess.square(&source.image));
            self.preprocess.write_pixel_values(&view, values);
            augment::erase(self.augment, values, size, &mut rng);
        });
        Tensor::from_data(TensorData::new(values, [indices.len(), 3, size, size]), device)
    }
}

/// Latents `[B, C, H, W]` of the samples at `indices`.
///
/// # Errors
///
/// Fails if a latent has another size than `shape`.
pub fn latents(
    samples: &[GeneratedSample],
    indices: &[usize],
    shape: [usize; 3],
    device: &Device,
) -> Result<Tensor<4>, Error> {
    let [channels, height, width] = shape;
    let mut values = Vec::with_capacity(indices.len() * channels * height * width);
    for &index in indices {
        let latent = &samples[index].latent;
        if latent.len() != channels * height * width {
            return Err(flier_model::Error::Shape {
                what: "latent [C, H, W]",
                expected: format!("{shape:?}"),
                found: format!("{} values", latent.len()),
            }
            .into());
        }
        values.extend_from_slice(latent);
    }
    Ok(Tensor::from_data(TensorData::new(values, [indices.len(), channels, height, width]), device))
}
