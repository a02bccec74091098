//! Measures trained models on the test splits and writes their cards.
//!
//! Figures: zero-shot accuracy of each CLIP with Wilson's 95% interval on `test` and `shift`; agreement of the class that
//! the CLIP predicts for generated images with the class of their prompt, beside the same for real test images.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use pipeline_spec::{ArtifactId, Store};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tracing::info;

use clip_model::{Clip, ClipConfig, Tokenizer, normalize};
use sd_model::{StableDiffusion, noise};

use crate::clip::{clip_pixels, image_side, token_ids};
use crate::error::Error;
use crate::images::ImageSet;
use crate::metrics::Line;
use crate::sheet;

mod text;

/// File that a training leaves beside its model, for the card.
const SUMMARY_FILE: &str = "training.json";
/// Images that are classified or generated at a time.
const BATCH: usize = 64;

/// What a training leaves for the card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSummary {
    /// The command.
    pub command: String,
    /// The recipe.
    pub recipe: serde_json::Value,
    /// Name of the images artifact.
    pub images: String,
    /// Images of the split.
    pub num_images: usize,
    /// How many of them have a label.
    pub num_labelled: usize,
    /// Device.
    pub device: String,
    /// Steps done.
    pub steps: usize,
    /// Seconds spent.
    pub elapsed_s: f64,
    /// Number of parameters.
    pub num_params: usize,
    /// Some lines of the training figures.
    pub losses: Vec<Line>,
}

impl TrainingSummary {
    /// Name of the file in `dir`; the autoencoder's lies in `dir/vae`, beside its weights.
    fn path(command: &str, dir: &Path) -> std::path::PathBuf {
        let part = match command {
            "pretrain autoencoder" => "vae",
            "pretrain unet" => "unet",
            _ => "",
        };
        dir.join(part).join(SUMMARY_FILE)
    }

    /// Writes `training.json` below the model's folder.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let path = Self::path(&self.command, dir);
        std::fs::write(&path, format!("{:#}\n", serde_json::json!(self))).map_err(Error::io(&path))
    }

    /// Reads what `command` left in `dir`.
    ///
    /// # Errors
    ///
    /// Fails if the file is missing or malformed.
    pub fn load(command: &str, dir: &Path) -> Result<Self, Error> {
        let path = Self::path(command, dir);
        let text = std::fs::read(&path).map_err(Error::io(&path))?;
        serde_json::from_slice(&text).map_err(|source| Error::Json {
            path,
            expected: "the summary of a training",
            source,
        })
    }
}

/// At most `count` lines, evenly spread, first and last included.
pub fn thin(lines: Vec<Line>, count: usize) -> Vec<Line> {
    let last = lines.len().saturating_sub(1);
    if lines.len() <= count || count < 2 {
        return lines;
    }
    (0..count).map(|index| lines[index * last / (count - 1)].clone()).collect()
}

/// A share with its number of trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Successes.
    pub hits: usize,
    /// Trials.
    pub trials: usize,
}

impl Share {
    /// Successes over trials; 0 without trials.
    pub fn value(self) -> f64 {
        if self.trials == 0 { 0.0 } else { self.hits as f64 / self.trials as f64 }
    }

    /// Wilson's 95% interval (Wilson, 1927).
    pub fn interval(self) -> [f64; 2] {
        const Z: f64 = 1.959_964;
        if self.trials == 0 {
            return [0.0, 1.0];
        }
        let n = self.trials as f64;
        let p = self.value();
        let scale = 1.0 / (1.0 + Z * Z / n);
        let centre = scale * (p + Z * Z / (2.0 * n));
        let half = scale * Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        [(centre - half).max(0.0), (centre + half).min(1.0)]
    }
}

/// A CLIP with the class texts encoded.
#[derive(Debug)]
pub struct ZeroShot {
    clip: Clip,
    side: usize,
    /// `[K, D]`, rows of length 1
    class_features: Tensor<2>,
    device: Device,
}

impl ZeroShot {
    /// Loads the CLIP in `dir` and encodes `template` with every class name.
    ///
    /// # Errors
    ///
    /// Fails if a file is missing or malformed.
    pub fn load(dir: &Path, class_names: &[String], template: &str, device: &Device) -> Result<Self, Error> {
        let config = ClipConfig::from_file(&dir.join("config.json"))?;
        let clip = Clip::from_folder(dir, device)?.valid();
        let tokenizer = Tokenizer::from_folder(dir)?;
        Self::new(clip, &config, &tokenizer, class_names, template, device)
    }

    /// Encodes `template` with every class name by `clip`, an inference copy.
    ///
    /// # Errors
    ///
    /// Fails if a text cannot be tokenized.
    pub fn new(
        clip: Clip,
        config: &ClipConfig,
        tokenizer: &Tokenizer,
        class_names: &[String],
        template: &str,
        device: &Device,
    ) -> Result<Self, Error> {
        let texts: Vec<String> = class_names.iter().map(|name| template.replace("{}", name)).collect();
        let ids = token_ids(tokenizer, &texts, config.text_config.max_position_embeddings, device)?;
        let class_features = normalize(clip.text_features(ids));
        Ok(Self { clip, side: image_side(config), class_features, device: device.clone() })
    }

    /// The class of each image; `pixels` holds `[B, 3, S, S]` in 0..=1.
    pub fn classify(&self, pixels: Vec<f32>) -> Vec<u32> {
        let size = 3 * self.side * self.side;
        let batches = pixels.chunks(BATCH * size).map(|batch| {
            let shape = [batch.len() / size, 3, self.side, self.side];
            let pixels = Tensor::<4>::from_data(TensorData::new(batch.to_vec(), shape), &self.device);
            let features = normalize(self.clip.image_features(clip_pixels(pixels)));
            let scores = features.matmul(self.class_features.clone().transpose()); // [B, K]
            let classes: Tensor<2, Int> = scores.argmax(1);
            classes.into_data().iter::<i64>().map(|class| class as u32).collect::<Vec<_>>()
        });
        batches.flatten().collect()
    }

    /// Zero-shot accuracy on the labelled images of a set.
    pub fn accuracy(&self, images: &ImageSet) -> Share {
        let predicted = self.classify(images.plain_batch(images.labelled()));
        let labels = images.labelled().iter().map(|&index| images.images[index].label);
        let hits = labels.zip(&predicted).filter(|(label, class)| *label == Some(**class)).count();
        Share { hits, trials: predicted.len() }
    }
}

/// What to measure, with which models.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Store of the images.
    pub store: &'a Store,
    /// The images artifact.
    pub images: &'a ArtifactId,
    /// Folder of the CLIP with the vision transformer.
    pub clip_vit: &'a Path,
    /// Folder of the CLIP with the ResNet.
    pub clip_resnet: &'a Path,
    /// Folder of the text-to-image model.
    pub diffusion: &'a Path,
    /// Sentence with `{}` for the class name.
    pub template: &'a str,
    /// Generated images per class.
    pub samples_per_class: usize,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// Weight of classifier-free guidance.
    pub guidance_scale: f64,
    /// Seed of the noise.
    pub seed: u64,
}

/// Zero-shot figures of one CLIP.
#[derive(Debug, Clone, Serialize)]
pub struct ClipFigures {
    /// On the split `test`.
    pub test: Share,
    /// On the split `shift`, if the artifact has it.
    pub shift: Option<Share>,
    /// Agreement of the predicted class of generated images with their prompt's.
    pub generated: Share,
}

/// All figures; written as `evaluation.json` beside each card.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Number of classes.
    pub num_classes: usize,
    /// The CLIP with the vision transformer.
    pub vit: ClipFigures,
    /// The CLIP with the ResNet.
    pub resnet: ClipFigures,
    /// Mean absolute error of the autoencoder on test images, as a share of the whole range.
    pub reconstruction_error: f64,
    /// Seconds that generation took.
    pub generation_s: f64,
}

/// Measures and writes `README.md`, `evaluation.json` and, for the text-to-image model, the sample sheets.
///
/// # Errors
///
/// Fails if a model or the images cannot be read, or a file cannot be written.
pub fn write(request: &Request<'_>, device: &Device) -> Result<(), Error> {
    let model = StableDiffusion::from_folder(request.diffusion, device)?;
    let side = model.vae_config.sample_size;
    let test = ImageSet::read(request.store, request.images, "test", side)?;
    let shift = match ImageSet::read(request.store, request.images, "shift", side) {
        Ok(set) => Some(set),
        Err(Error::EmptySplit { .. }) => None,
        Err(error) => return Err(error),
    };
    let started = std::time::Instant::now();
    let generated = generate(&model, &test.class_names, request)?;
    let generation_s = started.elapsed().as_secs_f64();
    info!("generated {} images in {generation_s:.1} s", generated.len());
    let measure = |dir: &Path| -> Result<ClipFigures, Error> {
        let zero_shot = ZeroShot::load(dir, &test.class_names, request.template, device)?;
        let pixels = generated.iter().flat_map(|(_, image)| planar(image)).collect();
        let predicted = zero_shot.classify(pixels);
        let hits = generated.iter().zip(&predicted).filter(|((label, _), class)| label == *class).count();
        Ok(ClipFigures {
            test: zero_shot.accuracy(&test),
            shift: shift.as_ref().map(|set| zero_shot.accuracy(set)),
            generated: Share { hits, trials: generated.len() },
        })
    };
    let figures = Figures {
        num_classes: test.class_names.len(),
        vit: measure(request.clip_vit)?,
        resnet: measure(request.clip_resnet)?,
        reconstruction_error: reconstructions(&model, &test, request.diffusion, device)?,
        generation_s,
    };
    info!("{}", serde_json::json!(figures));
    let rows = generated.chunks(request.samples_per_class.max(1));
    let rows: Vec<Vec<Vec<u8>>> =
        rows.map(|row| row.iter().map(|(_, image)| image.clone()).collect()).collect();
    sheet::write(&rows, side, &request.diffusion.join("samples.png"))?;
    text::write_all(request, &figures, &test.class_names)
}

/// Generated images with the label of their prompt, by class, `[S, S, 3]` bytes each.
fn generate(
    model: &StableDiffusion,
    class_names: &[String],
    request: &Request<'_>,
) -> Result<Vec<(u32, Vec<u8>)>, Error> {
    let samples: Vec<(u32, u32)> = (0..class_names.len() as u32)
        .flat_map(|class| (0..request.samples_per_class as u32).map(move |sample| (class, sample)))
        .collect();
    let shape = model.latent_shape();
    let mut images = Vec::with_capacity(samples.len());
    for batch in samples.chunks(BATCH) {
        let prompts: Vec<String> = batch
            .iter()
            .map(|&(class, _)| request.template.replace("{}", &class_names[class as usize]))
            .collect();
        let values: Vec<f32> =
            batch.iter().flat_map(|&(class, sample)| noise(request.seed, class, 0, sample, shape)).collect();
        let [channels, height, width] = shape;
        let start = TensorData::new(values, [batch.len(), channels, height, width]);
        let latents = model.sample(
            model.encode_prompts(&prompts)?,
            model.encode_prompts(&vec![String::new(); batch.len()])?,
            Tensor::from_data(start, &model.device),
            request.num_inference_steps,
            request.guidance_scale,
        )?;
        let decoded = sd_model::to_rgb_images(model.decode(latents));
        images.extend(batch.iter().map(|&(class, _)| class).zip(decoded));
    }
    Ok(images)
}

/// `[S, S, 3]` bytes as `[3, S, S]` in 0..=1.
fn planar(bytes: &[u8]) -> Vec<f32> {
    (0..3).flat_map(|channel| bytes.iter().skip(channel).step_by(3).map(|&v| f32::from(v) / 255.0)).collect()
}

/// Writes a sheet of test images above their reconstructions and gives the mean absolute error over all test images.
fn reconstructions(
    model: &StableDiffusion,
    test: &ImageSet,
    dir: &Path,
    device: &Device,
) -> Result<f64, Error> {
    let all: Vec<usize> = (0..test.images.len()).collect();
    let (mut sum, mut count) = (0.0, 0);
    let mut rows = [Vec::new(), Vec::new()];
    let every = (all.len() / 16).max(1);
    for indices in all.chunks(BATCH) {
        let values = test.plain_batch(indices);
        let pixels = crate::autoencoder::diffusion_pixels(values.clone(), test.side, device);
        let decoded = (model.vae.decode(model.vae.encode(pixels).mode()) / 2.0 + 0.5).clamp(0.0, 1.0);
        let original = TensorData::new(values, decoded.dims());
        let original = Tensor::<4>::from_data(original, device);
        let error = (decoded.clone() - original.clone()).abs().mean().into_scalar::<f32>();
        sum += f64::from(error) * indices.len() as f64;
        count += indices.len();
        for (row, images) in rows.iter_mut().zip([original, decoded]) {
            let bytes = sd_model::to_rgb_images(images);
            row.extend(indices.iter().zip(bytes).filter(|(i, _)| *i % every == 0).map(|(_, bytes)| bytes));
        }
    }
    rows.iter_mut().for_each(|row| row.truncate(16));
    sheet::write(&rows, test.side, &dir.join("reconstructions.png"))?;
    Ok(sum / count.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_interval_is_the_textbook_one() {
        // 10 of 100: Wilson's 95% interval is 0.0552 to 0.1744 (four digits)
        let [low, high] = Share { hits: 10, trials: 100 }.interval();
        assert!((low - 0.0552).abs() < 5e-5 && (high - 0.1744).abs() < 5e-5, "{low} {high}");
        assert_eq!(Share { hits: 0, trials: 0 }.interval(), [0.0, 1.0]);
    }

    #[test]
    fn thinning_keeps_both_ends() {
        let line =
            |step| Line { step, loss: 0.0, extra: Default::default(), learning_rate: 0.0, elapsed_s: 0.0 };
        let steps: Vec<usize> = thin((0..50).map(line).collect(), 5).iter().map(|line| line.step).collect();
        assert_eq!(steps, [0, 12, 24, 36, 49]);
        assert_eq!(thin((0..3).map(line).collect(), 5).len(), 3);
    }
}
