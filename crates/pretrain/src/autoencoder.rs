//! Training of a KL autoencoder.
//!
//! Loss per image: mean absolute error + squared error + absolute error of neighbour differences (edges), each a mean over
//! pixels, + the Kullback-Leibler divergence of the latent per element. There is no perceptual and no adversarial
//! loss: drawings with flat colours do well without.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use std::path::Path;

use sd_model::{AutoencoderKl, AutoencoderKlConfig};

use crate::augment::augment;
use crate::clip::Run;
use crate::ema;
use crate::error::Error;
use crate::images::ImageSet;
use crate::metrics::Metrics;
use crate::optimizer::adamw;
use crate::recipe::{AutoencoderRecipe, Recipe};
use crate::rng::{Purpose, StepRng};
use crate::state::{RunId, StateDir, Training};

/// Images that are encoded at a time outside training.
pub const ENCODE_BATCH: usize = 64;

/// A trained autoencoder.
#[derive(Debug)]
pub struct TrainedAutoencoder {
    /// Shape with the measured `scaling_factor`.
    pub config: AutoencoderKlConfig,
    /// Inference copy of the averaged weights.
    pub vae: AutoencoderKl,
    /// Steps done.
    pub step: usize,
    /// Seconds spent.
    pub elapsed_s: f64,
}

/// Trains, or continues training, by `recipe`, and measures the scaling factor.
///
/// # Errors
///
/// Fails if images and recipe do not fit, the state cannot be read or written, or the loss is not finite.
pub fn train(
    recipe: &AutoencoderRecipe,
    images: &ImageSet,
    run: &Run<'_>,
) -> Result<TrainedAutoencoder, Error> {
    run.device.seed(recipe.seed);
    let model = recipe.model.init(&run.device.clone().autodiff())?;
    let fresh = Training {
        average: Some(model.clone().valid()),
        model,
        optimizer: adamw(&recipe.optimizer),
        step: 0,
        elapsed_s: 0.0,
    };
    let id = RunId {
        recipe: recipe.digest(),
        inputs: vec![images.origin.clone()],
        device: run.device_name.to_owned(),
    };
    let state = StateDir::open(run.state, id)?;
    let mut training = state.resume(fresh)?;
    let num_steps = recipe.optimizer.num_steps;
    let mut metrics =
        Metrics::open(state.dir(), training.step, training.elapsed_s, num_steps, run.log_every)?;
    while training.step < run.last_step(num_steps) {
        training = step(training, recipe, images, run, &mut metrics)?;
        training.elapsed_s = metrics.elapsed_s();
        if training.step % run.save_every == 0 || training.step == run.last_step(num_steps) {
            state.save(&training)?;
        }
    }
    let Training { model, average, step, elapsed_s, .. } = training;
    let vae = average.unwrap_or_else(|| model.valid());
    let mut config = recipe.model.clone();
    config.scaling_factor = measure_scaling_factor(&vae, images, run.device);
    Ok(TrainedAutoencoder { config, vae, step, elapsed_s })
}

fn step(
    training: Training<AutoencoderKl>,
    recipe: &AutoencoderRecipe,
    images: &ImageSet,
    run: &Run<'_>,
    metrics: &mut Metrics,
) -> Result<Training<AutoencoderKl>, Error> {
    let device = run.device.clone().autodiff();
    let Training { model, average, mut optimizer, step, .. } = training;
    let pixels = draw_pixels(recipe, images, step as u64, &device);
    let posterior = model.encode(pixels.clone());
    let shape = posterior.mean.dims();
    let count = shape.iter().product::<usize>();
    let noise = StepRng::new(recipe.seed, Purpose::Noise, step as u64).normal(count);
    let noise = Tensor::<4>::from_data(TensorData::new(noise, shape), &device);
    let decoded = model.decode(posterior.sample(noise));

    let difference = decoded - pixels; // [B, 3, S, S]
    let absolute = difference.clone().abs().mean();
    let squared = difference.clone().square().mean();
    let kl = posterior.kl().sum() / count as f64;
    let loss = absolute.clone()
        + squared * f64::from(recipe.squared_error_weight)
        + edges(difference) * f64::from(recipe.edge_weight)
        + kl.clone() * f64::from(recipe.kl_weight);

    let learning_rate = recipe.optimizer.learning_rate_at(step);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = optimizer.step(learning_rate, model, gradients);
    let average = average.map(|average| ema::update(average, &model, recipe.ema_decay, step));
    let scalar = |tensor: Tensor<1>| tensor.into_scalar::<f32>();
    // The pixels are in -1..=1; the absolute error is told in shares of the whole range.
    let figures =
        [("loss", scalar(loss)), ("absolute_error", scalar(absolute) / 2.0), ("kl_per_element", scalar(kl))];
    metrics.add(step + 1, &figures, learning_rate)?;
    Ok(Training { model, average, optimizer, step: step + 1, elapsed_s: 0.0 })
}

fn draw_pixels(recipe: &AutoencoderRecipe, images: &ImageSet, step: u64, device: &Device) -> Tensor<4> {
    let mut batch = StepRng::new(recipe.seed, Purpose::Batch, step);
    let mut change = StepRng::new(recipe.seed, Purpose::Augment, step);
    let values = (0..recipe.batch_size)
        .flat_map(|_| {
            let image = &images.images[batch.below(images.images.len())];
            augment(&image.pixels, images.side, &recipe.augment, &mut change)
        })
        .collect();
    diffusion_pixels(values, images.side, device)
}

/// Pixels in 0..=1 as the autoencoder wants them: `[B, 3, S, S]` in -1..=1.
pub fn diffusion_pixels(values: Vec<f32>, side: usize, device: &Device) -> Tensor<4> {
    let batch = values.len() / (3 * side * side);
    let pixels = Tensor::<4>::from_data(TensorData::new(values, [batch, 3, side, side]), device);
    pixels * 2.0 - 1.0
}

/// Mean absolute value of horizontal and vertical neighbour differences of an error `[B, C, H, W]`.
fn edges(error: Tensor<4>) -> Tensor<1> {
    let [_, _, height, width] = error.dims();
    let vertical = error.clone().narrow(2, 1, height - 1) - error.clone().narrow(2, 0, height - 1);
    let horizontal = error.clone().narrow(3, 1, width - 1) - error.narrow(3, 0, width - 1);
    vertical.abs().mean() + horizontal.abs().mean()
}

/// 1 over the standard deviation of the latents of all images, unchanged.
fn measure_scaling_factor(vae: &AutoencoderKl, images: &ImageSet, device: &Device) -> f64 {
    let all: Vec<usize> = (0..images.images.len()).collect();
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for indices in all.chunks(ENCODE_BATCH) {
        let pixels = diffusion_pixels(images.plain_batch(indices), images.side, device);
        for value in vae.encode(pixels).mode().into_data().iter::<f32>() {
            let value = f64::from(value);
            sum += value;
            squares += value * value;
            count += 1.0;
        }
    }
    let mean: f64 = sum / count;
    let factor = 1.0 / (squares / count - mean * mean).sqrt();
    (factor * 1e5).round() / 1e5 // five digits, as in the configurations of Stable Diffusion
}

/// File names inside a diffusers folder.
const CONFIG_FILE: &str = "vae/config.json";
const WEIGHTS_FILE: &str = "vae/diffusion_pytorch_model.safetensors";

impl TrainedAutoencoder {
    /// Writes `vae/config.json` and `vae/diffusion_pytorch_model.safetensors` below `dir`.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written or a weight does not fit `dtype`.
    pub fn save(&self, dir: &Path, dtype: clip_model::SaveDtype) -> Result<(), Error> {
        let folder = dir.join("vae");
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        self.config.save(&dir.join(CONFIG_FILE))?;
        Ok(self.vae.save(&dir.join(WEIGHTS_FILE), dtype)?)
    }
}

/// Loads what [`TrainedAutoencoder::save`] wrote.
///
/// # Errors
///
/// Fails if a file is missing or malformed.
pub fn load(dir: &Path, device: &Device) -> Result<(AutoencoderKlConfig, AutoencoderKl), Error> {
    let config = AutoencoderKlConfig::from_file(&dir.join(CONFIG_FILE))?;
    let vae = config.init(device)?.load(&dir.join(WEIGHTS_FILE))?;
    Ok((config, vae))
}
