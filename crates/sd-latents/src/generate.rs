//! Latents drawn from prompts: from prompts and noise to checked rows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use artifacts::{
    ArtifactReader, ArtifactWriter, FileContext, LatentRow, PromptRow, SchemaInfo, round_to_f16,
};
use burn::tensor::{Tensor, TensorData};
use pipeline_spec::Unit;
use pipeline_spec::spec::{LatentsOptions, LatentsSpec, LongPrompts};
use sd_model::{SampleRequest, StableDiffusion, Step, noise, step_noise, to_rgb_images};
use serde_json::json;

use crate::picture::encode_png;
use crate::samples::{self, Sample};
use crate::select::Selector;
use crate::{Error, Part, Progress, Settings, Tick, model, write_parts};

/// Makes the missing parts of the shard; `None` if the work was stopped.
pub fn parts(
    unit: &Unit,
    spec: &LatentsSpec,
    settings: &Settings<'_>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<ArtifactWriter>, Error> {
    let reader = ArtifactReader::open(settings.store, unit.input("prompts")?)?;
    let prompts = reader.rows::<PromptRow>()?;
    let samples = samples::samples(&prompts, spec.samples_per_prompt);
    let rows = match spec.selection {
        None => samples::parts_of_rows(samples.len(), spec.num_parts)?,
        Some(_) => samples::parts_of_classes(&samples, spec.num_parts)?,
    };
    let writer = ArtifactWriter::open(settings.store, unit, spec.num_parts, file_context(spec))?;
    let missing = writer.missing_parts(settings.shard);
    if missing.is_empty() {
        return Ok(Some(writer));
    }
    let folder = model::folder(&spec.checkpoint, settings)?;
    let options = spec.options.clone().unwrap_or_default();
    let model = StableDiffusion::from_path(&folder, settings.device)?;
    let model = model::set_up(model, model::class_of(spec.scheduler), &options)?;
    let mut generator = Generator::new(spec, &options, &model, settings.batch)?;
    let cut = generator.cut_prompts(&prompts)?;
    let mut selector = spec.selection.as_ref().map(|s| Selector::open(s, settings)).transpose()?;
    let class_names = reader.class_names()?.to_vec();
    let lengths: Vec<usize> = rows.iter().map(ExactSizeIterator::len).collect();
    let mut make = |part: u32, tick: &mut Tick<'_>| -> Result<Part, Error> {
        let samples = &samples[rows[part as usize].clone()];
        let Some(mut rows) = generator.part(samples, tick)? else { return Ok(None) };
        if let Some(selector) = &mut selector {
            rows = selector.select(rows)?;
        }
        let info = SchemaInfo {
            class_names: class_names.clone(),
            tensor_shape: generator.tensor_shape().to_vec(),
            metadata: generator.metadata(samples, &cut),
        };
        Ok(Some((rows, info)))
    };
    let is_done = write_parts(&writer, &missing, &lengths, progress, &mut make)?;
    Ok(is_done.then_some(writer))
}

/// What the files say about their making beside the spec.
fn file_context(spec: &LatentsSpec) -> FileContext {
    FileContext::new(env!("CARGO_PKG_VERSION"))
        .with("checkpoint", &spec.checkpoint.id)
        .with("checkpoint_digest", spec.checkpoint.digest.as_str())
        .with("scheduler", spec.scheduler.name())
}

/// A model with what its samples have in common.
struct Generator<'a> {
    spec: &'a LatentsSpec,
    options: &'a LatentsOptions,
    model: &'a StableDiffusion,
    /// Samples that go through the networks together.
    batch: usize,
    /// Text tokens `[1, T, D]` of the negative prompt.
    negative: Tensor<3>,
    /// Tokens of the negative prompt, if it was cut.
    negative_cut: Option<usize>,
    /// Text tokens `[1, T, D]` of the prompts of the current part.
    embeds: BTreeMap<String, Tensor<3>>,
}

/// Class and position of the prompts that were cut, with the tokens that they have.
type CutPrompts = BTreeMap<(u32, u32), usize>;

impl<'a> Generator<'a> {
    /// Fails if the negative prompt does not fit the text encoder and may not be cut.
    fn new(
        spec: &'a LatentsSpec,
        options: &'a LatentsOptions,
        model: &'a StableDiffusion,
        batch: usize,
    ) -> Result<Self, Error> {
        let negative_cut = too_long(model, &spec.negative_prompt)?;
        if let (Some((num_tokens, limit)), None) = (negative_cut, options.long_prompts) {
            return Err(Error::NegativePromptTooLong { num_tokens, limit });
        }
        let negative = model.encode_prompts(std::slice::from_ref(&spec.negative_prompt))?;
        let negative_cut = negative_cut.map(|(num_tokens, _)| num_tokens);
        Ok(Self { spec, options, model, batch, negative, negative_cut, embeds: BTreeMap::new() })
    }

    /// The prompts that the text encoder cuts; fails with the first of them where none may be.
    fn cut_prompts(&self, prompts: &[PromptRow]) -> Result<CutPrompts, Error> {
        let mut cut = CutPrompts::new();
        for row in prompts {
            let Some((num_tokens, limit)) = too_long(self.model, &row.prompt)? else { continue };
            match self.options.long_prompts {
                Some(LongPrompts::Truncate) => cut.insert((row.class_id, row.prompt_index), num_tokens),
                None => {
                    return Err(Error::PromptTooLong {
                        class_name: row.class_name.clone(),
                        prompt_index: row.prompt_index,
                        prompt: row.prompt.clone(),
                        num_tokens,
                        limit,
                    });
                }
            };
        }
        Ok(cut)
    }

    /// Shape of the latents that are kept.
    fn tensor_shape(&self) -> [usize; 3] {
        let [channels, height, width] = self.model.latent_shape();
        [self.options.latent_steps.as_ref().map_or(1, Vec::len) * channels, height, width]
    }

    /// What a part says of its rows alone: which prompts were cut.
    fn metadata(&self, samples: &[Sample<'_>], cut: &CutPrompts) -> BTreeMap<String, String> {
        let mut metadata = BTreeMap::new();
        if let Some(num_tokens) = self.negative_cut {
            metadata.insert(
                "truncated_negative_prompt".to_owned(),
                json!({ "num_tokens": num_tokens }).to_string(),
            );
        }
        let mut keys: Vec<_> = samples.iter().map(|s| (s.prompt.class_id, s.prompt.prompt_index)).collect();
        keys.dedup();
        let of_part = keys.iter().filter_map(|key| cut.get_key_value(key));
        let of_part: Vec<_> = of_part
            .map(|((class, prompt), num_tokens)| {
                json!({ "class_id": class, "prompt_index": prompt, "num_tokens": num_tokens })
            })
            .collect();
        if !of_part.is_empty() {
            metadata.insert("truncated_prompts".to_owned(), json!(of_part).to_string());
        }
        metadata
    }

    /// The rows of a part. `progress` is told the number of finished samples after each batch and may stop the work,
    /// which gives `None`.
    fn part(
        &mut self,
        samples: &[Sample<'_>],
        progress: &mut Tick<'_>,
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
        let seed = self.spec.seed;
        let stack = |noise: &dyn Fn(&Sample<'_>) -> Vec<f32>| {
            let values: Vec<f32> = samples.iter().flat_map(noise).collect();
            let data = TensorData::new(values, [samples.len(), shape[0], shape[1], shape[2]]);
            Tensor::<4>::from_data(data, &self.model.device)
        };
        let start = stack(&|s| noise(seed, s.prompt.class_id, s.prompt.prompt_index, s.sample_index, shape));
        let step_noise = |step: usize| {
            stack(&|s| {
                step_noise(seed, s.prompt.class_id, s.prompt.prompt_index, s.sample_index, step, shape)
            })
        };
        let embeds = samples.iter().map(|s| self.embeds[&s.prompt.prompt].clone()).collect();
        let request = SampleRequest {
            prompt_embeds: Tensor::cat(embeds, 0),
            negative_embeds: self.negative.clone().repeat_dim(0, samples.len()),
            noise: start,
            num_inference_steps: self.spec.num_inference_steps as usize,
            guidance_scale: self.spec.guidance_scale,
            guidance_rescale: self.options.guidance_rescale.unwrap_or(0.0),
            step_noise: Some(&step_noise),
        };
        let mut kept = Vec::new();
        let mut keep = |step: &Step| {
            let wanted =
                self.options.latent_steps.as_ref().is_some_and(|k| k.contains(&(step.index as u32 + 1)));
            if wanted {
                kept.push(step.latents.clone());
            }
        };
        let latents = self.model.draw(request, &mut keep)?;
        let kept = (!kept.is_empty()).then(|| Tensor::cat(kept, 1)); // [B, S * C, h, w]
        let finals = checked(samples, latents)?;
        let kept = kept.map(|kept| checked(samples, kept)).transpose()?;
        let stored = kept.as_ref().unwrap_or(&finals);
        samples
            .iter()
            .zip(stored)
            .zip(&finals)
            .map(|((sample, latent), last)| self.row(sample, latent, last))
            .collect()
    }

    /// The row of one sample, whose image is that of the final latent, rounded as one that is stored.
    fn row(&self, sample: &Sample<'_>, latent: &[f32], last: &[f32]) -> Result<LatentRow, Error> {
        let [channels, height, width] = self.model.latent_shape();
        // One at a time: the autoencoder at full size takes more memory than the UNet, and gains nothing from a batch.
        let data = TensorData::new(last.to_vec(), [1, channels, height, width]);
        let image = self.model.decode(Tensor::from_data(data, &self.model.device));
        let [_, _, image_height, image_width] = image.dims();
        let rgb = to_rgb_images(image).concat();
        let image_png = encode_png(&rgb, [image_height, image_width])
            .map_err(|source| Error::Image { sample: sample.name(), source })?;
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

/// Tokens of `prompt` and the limit, if it is over it.
pub fn too_long(model: &StableDiffusion, prompt: &str) -> Result<Option<(usize, usize)>, Error> {
    match model.tokenizer.encode_batch(&[prompt], model.text_config.max_position_embeddings, false) {
        Ok(_) => Ok(None),
        Err(clip_model::Error::TextTooLong { num_tokens, limit, .. }) => Ok(Some((num_tokens, limit))),
        Err(other) => Err(sd_model::Error::from(other).into()),
    }
}

/// The latents `[B, C, H, W]` on the host, rounded to f16, one vector for each sample.
fn checked(samples: &[Sample<'_>], latents: Tensor<4>) -> Result<Vec<Vec<f32>>, Error> {
    let numel: usize = latents.dims()[1..].iter().product();
    let mut values: Vec<f32> = latents.into_data().iter::<f32>().collect();
    round_to_f16(&mut values);
    let rows = values.chunks_exact(numel).zip(samples);
    rows.map(|(latent, sample)| check_latent(sample.name(), latent).map(|()| latent.to_vec())).collect()
}

/// Fails unless every value is finite and they are not all the same.
pub fn check_latent(sample: String, latent: &[f32]) -> Result<(), Error> {
    let bad = |problem: String| Err(Error::BadSample { sample, problem });
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
pub fn moments(values: &[f32]) -> (f32, f32) {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    (mean as f32, variance.sqrt() as f32)
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
