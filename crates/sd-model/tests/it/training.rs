//! Gradients flow: a few optimizer steps lower the training losses that `pretrain` uses.

use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use sd_model::{AutoencoderKlConfig, Scheduler, SchedulerClass, SchedulerConfig, UNet2DConditionConfig};

use crate::golden::path;

fn normal<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

#[test]
fn unet_learns_to_predict_noise() {
    let device = backend::test_device().autodiff();
    let config = UNet2DConditionConfig::from_file(&path("unet_sd2/config.json")).unwrap();
    let mut unet = config.init(&device).unwrap();
    let scheduler = Scheduler::new(SchedulerClass::Ddim, SchedulerConfig::default()).unwrap();
    let mut optimizer = AdamWConfig::new().init();
    let timesteps = [10, 900];
    let (latents, noise) = (normal([2, 4, 8, 8], &device), normal([2, 4, 8, 8], &device));
    let context = normal([2, 5, 6], &device);
    let mut losses = vec![];
    for _ in 0..12 {
        let noisy = scheduler.add_noise(latents.clone(), noise.clone(), &timesteps);
        let t = Tensor::<1>::from_floats(timesteps.map(|t| t as f32), &device);
        let loss = (unet.forward(noisy, t, context.clone()) - noise.clone()).square().mean();
        losses.push(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &unet);
        // Every parameter takes part: a forgotten layer would have no gradient.
        assert_eq!(gradients.len(), burn::store::ModuleSnapshot::collect(&unet, None, None, true).len());
        unet = optimizer.step(1e-2, unet, gradients);
    }
    assert!(losses[11] < 0.9 * losses[0], "{losses:?}");
}

#[test]
fn autoencoder_learns_to_reconstruct() {
    let device = backend::test_device().autodiff();
    let config = AutoencoderKlConfig::from_file(&path("autoencoder/config.json")).unwrap();
    let mut autoencoder = config.init(&device).unwrap();
    let mut optimizer = AdamWConfig::new().init();
    let pixels = normal::<4>([2, 3, 16, 16], &device).tanh();
    let mut losses = vec![];
    for _ in 0..12 {
        let posterior = autoencoder.encode(pixels.clone());
        let latents = posterior.sample(normal(posterior.mean.dims(), &device));
        let reconstruction = (autoencoder.decode(latents) - pixels.clone()).square().mean();
        let loss = reconstruction + posterior.kl().mean() * 1e-6;
        losses.push(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &autoencoder);
        assert_eq!(
            gradients.len(),
            burn::store::ModuleSnapshot::collect(&autoencoder, None, None, true).len()
        );
        autoencoder = optimizer.step(1e-2, autoencoder, gradients);
    }
    assert!(losses[11] < 0.9 * losses[0], "{losses:?}");
}
