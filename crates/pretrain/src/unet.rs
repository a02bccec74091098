//! Training of a text-conditioned latent UNet.
//!
//! Autoencoder and text encoder are frozen. The latents of `copies` changed copies of every image are made once. A
//! step draws images, captions, timesteps and noise; the loss is the squared error of the prediction with min-SNR weights.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::collections::BTreeMap;
use std::path::Path;

use clip_model::{Clip, ClipConfig, SaveDtype, TextConfig, TextTransformer, Tokenizer};
use sd_model::{
    AutoencoderKl, AutoencoderKlConfig, PredictionType, Scheduler, SchedulerClass, StableDiffusion,
    UNet2DCondition,
};

use crate::augment::augment;
use crate::autoencoder::{ENCODE_BATCH, diffusion_pixels};
use crate::caption::Caption;
use crate::clip::{Run, token_ids};
use crate::ema;
use crate::error::Error;
use crate::images::ImageSet;
use crate::metrics::Metrics;
use crate::optimizer::adamw;
use crate::recipe::{Recipe, UnetRecipe};
use crate::rng::{Purpose, StepRng};
use crate::state::{RunId, StateDir, Training};

/// The frozen parts that the UNet is trained between.
#[derive(Debug)]
pub struct Frozen {
    /// Shape of the text encoder.
    pub text_config: TextConfig,
    /// Text encoder, a CLIP's text tower.
    pub text_encoder: TextTransformer,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Shape of the autoencoder.
    pub vae_config: AutoencoderKlConfig,
    /// Autoencoder.
    pub vae: AutoencoderKl,
    /// Digests of the files they came from.
    pub digests: Vec<String>,
}

impl Frozen {
    /// Loads the text tower of the CLIP in `clip` and the autoencoder below `vae`.
    ///
    /// # Errors
    ///
    /// Fails if a file is missing or malformed.
    pub fn load(clip: &Path, vae: &Path, device: &Device) -> Result<Self, Error> {
        let (vae_config, autoencoder) = crate::autoencoder::load(vae, device)?;
        let digest = |path: std::path::PathBuf| {
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            Ok::<_, Error>(blake3::hash(&bytes).to_hex().to_string())
        };
        Ok(Self {
            text_config: ClipConfig::from_file(&clip.join("config.json"))?.text_config,
            text_encoder: Clip::from_folder(clip, device)?.text_model.valid(),
            tokenizer: Tokenizer::from_folder(clip)?,
            vae_config,
            vae: autoencoder.valid(),
            digests: vec![
                digest(clip.join("model.safetensors"))?,
                digest(vae.join("vae/diffusion_pytorch_model.safetensors"))?,
            ],
        })
    }
}

/// A trained text-to-image model.
#[derive(Debug)]
pub struct TrainedUnet {
    /// All parts, ready to sample.
    pub model: StableDiffusion,
    /// Steps done.
    pub step: usize,
    /// Seconds spent.
    pub elapsed_s: f64,
}

/// What does not change from step to step.
struct Plan<'a> {
    recipe: &'a UnetRecipe,
    images: &'a ImageSet,
    frozen: &'a Frozen,
    scheduler: &'a Scheduler,
    latents: Latents,
    run: &'a Run<'a>,
}

/// Trains, or continues training, by `recipe`.
///
/// # Errors
///
/// Fails if images, frozen parts and recipe do not fit, the state cannot be read or written, or the loss is not finite.
pub fn train(
    recipe: &UnetRecipe,
    images: &ImageSet,
    frozen: Frozen,
    run: &Run<'_>,
) -> Result<TrainedUnet, Error> {
    images.check_batches(&recipe.batch)?;
    let scheduler = Scheduler::new(SchedulerClass::Ddim, recipe.scheduler.clone())?;
    run.device.seed(recipe.seed);
    let model = recipe.model.init(&run.device.clone().autodiff())?;
    let fresh = Training {
        average: Some(model.clone().valid()),
        model,
        optimizer: adamw(&recipe.optimizer),
        step: 0,
        elapsed_s: 0.0,
    };
    let mut inputs = vec![images.origin.clone()];
    inputs.extend(frozen.digests.iter().cloned());
    let id = RunId { recipe: recipe.digest(), inputs, device: run.device_name.to_owned() };
    let state = StateDir::open(run.state, id)?;
    let mut training = state.resume(fresh)?;
    let num_steps = recipe.optimizer.num_steps;
    let plan = Plan {
        recipe,
        images,
        frozen: &frozen,
        scheduler: &scheduler,
        latents: Latents::encode(recipe, images, &frozen, run.device),
        run,
    };
    let mut metrics =
        Metrics::open(state.dir(), training.step, training.elapsed_s, num_steps, run.log_every)?;
    while training.step < run.last_step(num_steps) {
        training = plan.step(training, &mut metrics)?;
        training.elapsed_s = metrics.elapsed_s();
        if training.step % run.save_every == 0 || training.step == run.last_step(num_steps) {
            state.save(&training)?;
        }
    }
    let Training { model, average, step, elapsed_s, .. } = training;
    let model = StableDiffusion {
        unet_config: recipe.model.clone(),
        unet: average.unwrap_or_else(|| model.valid()),
        vae_config: frozen.vae_config,
        vae: frozen.vae,
        text_config: frozen.text_config,
        text_encoder: frozen.text_encoder,
        tokenizer: frozen.tokenizer,
        scheduler,
        device: run.device.clone(),
    };
    Ok(TrainedUnet { model, step, elapsed_s })
}

impl Plan<'_> {
    fn step(
        &self,
        training: Training<UNet2DCondition>,
        metrics: &mut Metrics,
    ) -> Result<Training<UNet2DCondition>, Error> {
        let Training { model, average, mut optimizer, step, .. } = training;
        let (recipe, device) = (self.recipe, self.run.device);
        let mut rng = StepRng::new(recipe.seed, Purpose::Batch, step as u64);
        let indices = self.images.draw_batch(&recipe.batch, &mut rng);
        let copies: Vec<usize> =
            indices.iter().map(|i| i * recipe.copies + rng.below(recipe.copies)).collect();
        let context = self.encode_captions(&indices, &mut rng)?; // [B, T, D]
        let original = self.latents.batch(&copies, device); // [B, C, h, w]

        let mut rng = StepRng::new(recipe.seed, Purpose::Noise, step as u64);
        let total = recipe.scheduler.num_train_timesteps();
        let timesteps: Vec<usize> = indices.iter().map(|_| rng.below(total)).collect();
        let shape = original.dims();
        let noise = rng.normal(shape.iter().product());
        let noise = Tensor::<4>::from_data(TensorData::new(noise, shape), device);
        let noisy = self.scheduler.add_noise(original.clone(), noise.clone(), &timesteps);
        let target = match recipe.scheduler.prediction_type() {
            PredictionType::Epsilon => noise,
            PredictionType::Sample => original,
            PredictionType::VPrediction => self.scheduler.velocity(original, noise, &timesteps),
        };

        let numbers: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        let numbers = Tensor::<1>::from_data(TensorData::new(numbers, [timesteps.len()]), device);
        let predicted = model.forward(noisy.autodiff(), numbers.autodiff(), context.autodiff());
        let squared = (predicted - target.autodiff()).square().mean_dims(&[1, 2, 3]); // [B, 1, 1, 1]
        let weights: Vec<f32> = timesteps.iter().map(|&t| self.loss_weight(t)).collect();
        let weights = Tensor::<4>::from_data(TensorData::new(weights, [timesteps.len(), 1, 1, 1]), device);
        let loss = (squared * weights.autodiff()).mean();

        let learning_rate = recipe.optimizer.learning_rate_at(step);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let model = optimizer.step(learning_rate, model, gradients);
        let average = average.map(|average| ema::update(average, &model, recipe.ema_decay, step));
        metrics.add(step + 1, &[("loss", loss.into_scalar::<f32>())], learning_rate)?;
        Ok(Training { model, average, optimizer, step: step + 1, elapsed_s: 0.0 })
    }

    /// Text tokens of one drawn caption per image, each distinct caption encoded once.
    fn encode_captions(&self, indices: &[usize], rng: &mut StepRng) -> Result<Tensor<3>, Error> {
        let mut places: BTreeMap<String, i64> = BTreeMap::new();
        let mut texts = Vec::new();
        for &index in indices {
            let caption = Caption::draw(&self.images.images[index], &self.recipe.captions, rng).text;
            texts.push(if rng.chance(self.recipe.caption_dropout) { String::new() } else { caption });
        }
        for text in &texts {
            places.insert(text.clone(), 0);
        }
        let distinct: Vec<String> = places.keys().cloned().collect();
        places.values_mut().zip(0..).for_each(|(place, index)| *place = index);
        let context_length = self.frozen.text_config.max_position_embeddings;
        let ids = token_ids(&self.frozen.tokenizer, &distinct, context_length, self.run.device)?;
        let states = self.frozen.text_encoder.forward(ids).last_hidden_state; // [U, T, D]
        let rows: Vec<i64> = texts.iter().map(|text| places[text]).collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [texts.len()]), self.run.device);
        Ok(states.select(0, rows))
    }

    /// Min-SNR weight of a timestep for the prediction type.
    fn loss_weight(&self, timestep: usize) -> f32 {
        let alpha = self.scheduler.alphas_cumprod()[timestep];
        let snr = alpha / (1.0 - alpha);
        let clipped = snr.min(self.recipe.min_snr_gamma);
        let weight = match self.recipe.scheduler.prediction_type() {
            PredictionType::Epsilon => clipped / snr,
            PredictionType::Sample => clipped,
            PredictionType::VPrediction => clipped / (snr + 1.0),
        };
        weight as f32
    }
}

/// Scaled latents of all copies in host memory.
struct Latents {
    values: Vec<f32>,
    shape: [usize; 3],
}

impl Latents {
    fn encode(recipe: &UnetRecipe, images: &ImageSet, frozen: &Frozen, device: &Device) -> Self {
        let numbers: Vec<usize> = (0..images.images.len() * recipe.copies).collect();
        let (mut values, mut shape) = (Vec::new(), [0; 3]);
        for chunk in numbers.chunks(ENCODE_BATCH) {
            let pixels = chunk
                .iter()
                .flat_map(|&number| {
                    let mut rng = StepRng::new(recipe.seed, Purpose::Latents, number as u64);
                    let image = &images.images[number / recipe.copies];
                    augment(&image.pixels, images.side, &recipe.augment, &mut rng)
                })
                .collect();
            let latents = frozen.vae.encode(diffusion_pixels(pixels, images.side, device)).mode();
            let latents = latents * frozen.vae_config.scaling_factor;
            let [_, channels, height, width] = latents.dims();
            shape = [channels, height, width];
            values.extend(latents.into_data().iter::<f32>());
        }
        Self { values, shape }
    }

    fn batch(&self, numbers: &[usize], device: &Device) -> Tensor<4> {
        let [channels, height, width] = self.shape;
        let size = channels * height * width;
        let values: Vec<f32> =
            numbers.iter().flat_map(|n| self.values[n * size..(n + 1) * size].iter().copied()).collect();
        Tensor::from_data(TensorData::new(values, [numbers.len(), channels, height, width]), device)
    }
}

impl TrainedUnet {
    /// Writes the diffusers folder of all parts.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written or a weight does not fit `dtype`.
    pub fn save(&self, dir: &Path, dtype: SaveDtype) -> Result<(), Error> {
        Ok(self.model.save_to_folder(dir, dtype)?)
    }
}
