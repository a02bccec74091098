//! The autoencoder between images and latents.
//!
//! After `AutoencoderKL` of diffusers; the field paths are its present tensor names. Checkpoints older than diffusers
//! 0.18 spell the attention layers differently (`query`, `key`, `value`, `proj_attn`): see [`AutoencoderKl::load`].

mod coder;
mod tiny;

pub use coder::{Decoder, DecoderBlock, Encoder, EncoderBlock, MidAttention, MidBlock};
pub use tiny::{AutoencoderTiny, Enlargement, TinyBlock, TinyCoder, TinyLayer};

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use crate::config::AutoencoderKlConfig;
use crate::resnet::conv1x1;

/// Encodes images as latents and decodes latents as images.
///
/// Made by [`AutoencoderKlConfig::init`]. Latents are raw here: see [`AutoencoderKlConfig::scaling_factor`].
#[derive(Module, Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Conv2d,
    post_quant_conv: Conv2d,
}

impl AutoencoderKl {
    /// Builds the network of a validated configuration.
    pub(crate) fn new(config: &AutoencoderKlConfig, device: &Device) -> Self {
        let latent = config.latent_channels;
        Self {
            encoder: Encoder::new(config, device),
            decoder: Decoder::new(config, device),
            quant_conv: conv1x1(2 * latent, 2 * latent, device),
            post_quant_conv: conv1x1(latent, latent, device),
        }
    }

    /// Encodes images.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[B, in_channels, H, W]` in -1..=1
    /// - output: mean and log variance, each `[B, latent_channels, H/s, W/s]` with s = [`AutoencoderKlConfig::scale`]
    ///
    /// # Panics
    ///
    /// Panics if the shape does not fit the configuration.
    pub fn encode(&self, pixels: Tensor<4>) -> DiagonalGaussian {
        let moments = self.quant_conv.forward(self.encoder.forward(pixels)); // [B, 2 * latent_channels, H/s, W/s]
        let channels = moments.dims()[1] / 2;
        DiagonalGaussian {
            mean: moments.clone().narrow(1, 0, channels),
            logvar: moments.narrow(1, channels, channels).clamp(-30.0, 20.0),
        }
    }

    /// Decodes raw latents `[B, latent_channels, h, w]` as images `[B, out_channels, s * h, s * w]`, about -1..=1.
    ///
    /// # Panics
    ///
    /// Panics if the shape does not fit the configuration.
    pub fn decode(&self, latents_raw: Tensor<4>) -> Tensor<4> {
        self.decoder.forward(self.post_quant_conv.forward(latents_raw))
    }
}

/// A normal distribution over raw latents with independent elements.
#[derive(Debug, Clone)]
pub struct DiagonalGaussian {
    /// Mean, `[B, C, H, W]`.
    pub mean: Tensor<4>,
    /// Logarithm of the variance, clamped to -30..=20, `[B, C, H, W]`.
    pub logvar: Tensor<4>,
}

impl DiagonalGaussian {
    /// A sample: the mean plus standard normal `noise` `[B, C, H, W]` times the standard deviation.
    pub fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + (self.logvar.clone() * 0.5).exp() * noise
    }

    /// The most likely latent, which is the mean.
    pub fn mode(&self) -> Tensor<4> {
        self.mean.clone()
    }

    /// Kullback-Leibler divergence to the standard normal distribution in nats, summed over C, H and W: `[B]`.
    pub fn kl(&self) -> Tensor<1> {
        let variance = self.logvar.clone().exp();
        let terms = self.mean.clone().square() + variance - 1.0 - self.logvar.clone(); // [B, C, H, W]
        terms.flatten::<2>(1, 3).sum_dim(1).squeeze_dim::<1>(1) * 0.5
    }
}
