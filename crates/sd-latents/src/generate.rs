//! One part: from prompts and noise to checked rows.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::ControlFlow;

use artifacts::{LatentRow, round_to_f16};
use burn::tensor::{Tensor, TensorData};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ImageEncoder, ImageFormat};
use pipeline_spec::spec::LatentsSpec;
use sd_model::{StableDiffusion, noise, to_rgb_images};

use crate::Error;
use crate::samples::Sample;

/// A model with what its samples have in common.
pub struct Generator<'a> {
    spec: &'a LatentsSpec,
    model: &'a StableDiffusion,
    /// Samples that go through the networks together.
    batch: usize,
    /// Text tokens `[1, T, D]` of the negative prompt.
    negative: Tensor<3>,
    /// Text tokens `[1, T, D]` of the prompts of the current part.
    embeds: BTreeMap<String, Tensor<3>>,
}

impl<'a> Generator<'a> {
    /// A generator for the samples of `spec`.
    ///
    /// # Errors
    ///
    /// Fails if the batch is empty or the negative prompt does not fit the text encoder.
    pub fn new(spec: &'a LatentsSpec, model: &'a StableDiffusion, batch: usize) -> Result<Self, Error> {
        if batch == 0 {
            return Err(Error::EmptyBatch);
        }
        if let Some((num_tokens, limit)) = too_long(model, &spec.negative_prompt)? {
            return Err(Error::NegativePromptTooLong { num_tokens, limit });
        }
        let negative = model.encode_prompts(std::slice::from_ref(&spec.negative_prompt))?;
        Ok(Self { spec, model, batch, negative, embeds: BTreeMap::new() })
    }

    /// The rows of a part. `progress` is told the number of finished samples after each batch and may stop the work,
    /// which gives `None`.
    ///
    /// # Errors
    ///
    /// Fails if a prompt is too long or a sample comes out unusable.
    pub fn part(
        &mut self,
        samples: &[Sample<'_>],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<LatentRow>>, Error> {
        self.encode_prompts(samples)?;
        let mut rows = Vec::with_capacity(samples.len());
        for batch in samples.chunks(self.batch) {
            if progress(rows.len()).is_break() {
                return Ok(None);
            }
            rows.extend(self.batch(batch)?);
        }
        Ok(if progress(rows.len()).is_break() { None } else { Some(rows) })
    }

    /// Encodes each distinct prompt of `samples` once; forgets those of earlier parts.
    fn encode_prompts(&mut self, samples: &[Sample<'_>]) -> Result<(), Error> {
        let mut kept = std::mem::take(&mut self.embeds);
        for sample in samples {
            let prompt = &sample.prompt.prompt;
            if self.embeds.contains_key(prompt) {
                continue;
            }
            // One at a time: the text encoder takes a small share of the time, and so the batch size cannot matter.
            let embed = match kept.remove(prompt) {
                Some(embed) => embed,
                None => self.model.encode_prompts(std::slice::from_ref(prompt))?,
            };
            self.embeds.insert(prompt.clone(), embed);
        }
        Ok(())
    }

    fn batch(&self, samples: &[Sample<'_>]) -> Result<Vec<LatentRow>, Error> {
        let shape = self.model.latent_shape();
        let numel: usize = shape.iter().product();
        let mut values = Vec::with_capacity(samples.len() * numel);
        for Sample { prompt, sample_index } in samples {
            values.extend(noise(self.spec.seed, prompt.class_id, prompt.prompt_index, *sample_index, shape));
        }
        let [channels, height, width] = shape;
        let data = TensorData::new(values, [samples.len(), channels, height, width]);
        let start = Tensor::<4>::from_data(data, &self.model.device);
        let embeds = samples.iter().map(|s| self.embeds[&s.prompt.prompt].clone()).collect();
        let latents = self.model.sample(
            Tensor::cat(embeds, 0),
            self.negative.clone().repeat_dim(0, samples.len()),
            start,
            self.spec.num_inference_steps as usize,
            self.spec.guidance_scale,
        )?;
        let mut latents: Vec<f32> = latents.into_data().iter::<f32>().collect();
        round_to_f16(&mut latents);
        for (sample, latent) in samples.iter().zip(latents.chunks_exact(numel)) {
            check_latent(sample, latent)?;
        }
        // The image is that of the latent as it is stored.
        let data = TensorData::new(latents.clone(), [samples.len(), channels, height, width]);
        let images = self.model.decode(Tensor::from_data(data, &self.model.device));
        let [_, _, image_height, image_width] = images.dims();
        let images = to_rgb_images(images);
        let rows = samples.iter().zip(latents.chunks_exact(numel)).zip(&images);
        rows.map(|((sample, latent), rgb)| self.row(sample, latent, rgb, [image_height, image_width]))
            .collect()
    }

    fn row(
        &self,
        sample: &Sample<'_>,
        latent: &[f32],
        rgb: &[u8],
        size: [usize; 2],
    ) -> Result<LatentRow, Error> {
        let image_png =
            encode_png(rgb, size).map_err(|source| Error::Image { sample: sample.name(), source })?;
        let (mean, std) = moments(latent);
        Ok(LatentRow {
            class_id: sample.prompt.class_id,
            class_name: sample.prompt.class_name.clone(),
            prompt_index: sample.prompt.prompt_index,
            sample_index: sample.sample_index,
            prompt: sample.prompt.prompt.clone(),
            noise_seed: self.spec.seed,
            latent: latent.to_vec(),
            mean,
            std,
            image_png,
            image_path: sample.image_path(),
            clip_score: None,
        })
    }
}

/// Fails with the first prompt that the text encoder would cut.
///
/// # Errors
///
/// See above; also if the text encoder has no room for any text.
pub fn check_prompts(model: &StableDiffusion, prompts: &[artifacts::PromptRow]) -> Result<(), Error> {
    for row in prompts {
        if let Some((num_tokens, limit)) = too_long(model, &row.prompt)? {
            return Err(Error::PromptTooLong {
                class_name: row.class_name.clone(),
                prompt_index: row.prompt_index,
                prompt: row.prompt.clone(),
                num_tokens,
                limit,
            });
        }
    }
    Ok(())
}

/// Tokens of `prompt` and the limit, if it is over it.
fn too_long(model: &StableDiffusion, prompt: &str) -> Result<Option<(usize, usize)>, Error> {
    match model.tokenizer.encode_batch(&[prompt], model.text_config.max_position_embeddings, false) {
        Ok(_) => Ok(None),
        Err(clip_model::Error::TextTooLong { num_tokens, limit, .. }) => Ok(Some((num_tokens, limit))),
        Err(other) => Err(sd_model::Error::from(other).into()),
    }
}

/// Fails unless every value is finite and they are not all the same.
fn check_latent(sample: &Sample<'_>, latent: &[f32]) -> Result<(), Error> {
    let bad = |problem: String| Err(Error::BadSample { sample: sample.name(), problem });
    if let Some(value) = latent.iter().find(|v| !v.is_finite()) {
        return bad(format!("holds `{value}`, expected finite numbers of f16 range"));
    }
    match latent {
        [first, rest @ ..] if rest.iter().any(|v| v != first) => Ok(()),
        [first, ..] => bad(format!("is {first} everywhere")),
        [] => bad("has no values".to_owned()),
    }
}

/// Mean and standard deviation (of the population), summed in f64.
fn moments(values: &[f32]) -> (f32, f32) {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    (mean as f32, variance.sqrt() as f32)
}

/// The image as PNG with fixed settings, read back to be sure that it decodes.
fn encode_png(rgb: &[u8], [height, width]: [usize; 2]) -> Result<Vec<u8>, image::ImageError> {
    let too_large = |_| {
        let kind = image::error::ParameterErrorKind::DimensionMismatch;
        image::ImageError::Parameter(image::error::ParameterError::from_kind(kind))
    };
    let (width, height) =
        (u32::try_from(width).map_err(too_large)?, u32::try_from(height).map_err(too_large)?);
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(Cursor::new(&mut bytes), CompressionType::Default, FilterType::Adaptive)
        .write_image(rgb, width, height, image::ExtendedColorType::Rgb8)?;
    image::load_from_memory_with_format(&bytes, ImageFormat::Png)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_population() {
        let (mean, std) = moments(&[1.0, 2.0, 3.0, 4.0]);
        // std = sqrt(1.25), rounded to f32.
        assert_eq!((mean, std), (2.5, 1.118_034));
    }
}
