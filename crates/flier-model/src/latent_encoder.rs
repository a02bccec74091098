//! The small convolutional network over Stable Diffusion latents.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, expect};
use crate::init;

/// Channels between the two convolutions.
const HIDDEN_CHANNELS: usize = 10;
/// Channels after the second convolution.
const OUT_CHANNELS: usize = 3;

/// Shape of the latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentEncoderConfig {
    /// Channels of a latent (4 in Stable Diffusion).
    pub latent_channels: usize,
    /// Height of a latent, in latent pixels.
    pub latent_height: usize,
    /// Width of a latent, in latent pixels.
    pub latent_width: usize,
}

/// Two 1x1 convolutions, each followed by 2x2 max pooling and ReLU.
///
/// As in the authors' released code: 4 to 10 to 3 channels, 83 parameters; a 64x64 latent gives 768 features, the
/// width of ViT-B.
#[derive(Module, Debug)]
pub struct LatentEncoder {
    /// 1x1, `latent_channels` to 10.
    pub conv1: Conv2d,
    /// 1x1, 10 to 3.
    pub conv2: Conv2d,
}

impl LatentEncoderConfig {
    /// Checks the sizes.
    ///
    /// # Errors
    ///
    /// Fails if there are no channels or a side cannot be halved twice.
    pub fn check(&self) -> Result<(), Error> {
        expect(self.latent_channels > 0, "latent.latent_channels", "at least 1", self.latent_channels)?;
        for (field, side) in
            [("latent.latent_height", self.latent_height), ("latent.latent_width", self.latent_width)]
        {
            expect(side > 0 && side.is_multiple_of(4), field, "a positive multiple of 4", side)?;
        }
        Ok(())
    }

    /// Fails unless `latents` `[B, C, H, W]` have this shape.
    ///
    /// # Errors
    ///
    /// Names both shapes.
    pub fn check_latents(&self, latents: &Tensor<4>) -> Result<(), Error> {
        let [_, channels, height, width] = latents.dims();
        if [channels, height, width] == [self.latent_channels, self.latent_height, self.latent_width] {
            return Ok(());
        }
        let (expected_channels, side) = (self.latent_channels, [self.latent_height, self.latent_width]);
        Err(Error::Shape {
            what: "latents [B, C, H, W]",
            expected: format!("[B, {expected_channels}, {}, {}]", side[0], side[1]),
            found: format!("[B, {channels}, {height}, {width}]"),
        })
    }

    /// Width of the flattened feature: `3 * (H / 4) * (W / 4)`.
    pub fn feature_width(&self) -> usize {
        OUT_CHANNELS * (self.latent_height / 4) * (self.latent_width / 4)
    }

    /// The network with weights that are not drawn yet (burn initialises them on first use).
    pub fn init(&self, device: &Device) -> LatentEncoder {
        LatentEncoder {
            conv1: Conv2dConfig::new([self.latent_channels, HIDDEN_CHANNELS], [1, 1]).init(device),
            conv2: Conv2dConfig::new([HIDDEN_CHANNELS, OUT_CHANNELS], [1, 1]).init(device),
        }
    }

    /// The network with PyTorch's default weights drawn from `rng`.
    pub fn init_from(&self, device: &Device, rng: &mut impl Rng) -> LatentEncoder {
        let LatentEncoder { conv1, conv2 } = self.init(device);
        let conv1 = init::default_conv(conv1, device, rng);
        LatentEncoder { conv1, conv2: init::default_conv(conv2, device, rng) }
    }
}

/// The latent encoder with a classifier of its own and no image branch.
#[derive(Module, Debug)]
pub struct LatentClassifier {
    /// The latent encoder.
    pub latent_encoder: LatentEncoder,
    /// `[F, N]` with bias.
    pub latent_head: Linear,
}

impl LatentClassifier {
    /// To load weights into.
    ///
    /// # Errors
    ///
    /// Fails if latents of this shape cannot be encoded.
    pub fn empty(config: &LatentEncoderConfig, num_classes: usize, device: &Device) -> Result<Self, Error> {
        config.check()?;
        let latent_head = LinearConfig::new(config.feature_width(), num_classes).init(device);
        Ok(Self { latent_encoder: config.init(device), latent_head })
    }

    /// With the first weights of FLIER's latent branch, drawn from `rng`.
    ///
    /// # Errors
    ///
    /// Fails if latents of this shape cannot be encoded.
    pub fn initial(
        config: &LatentEncoderConfig,
        num_classes: usize,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Result<Self, Error> {
        config.check()?;
        let latent_encoder = config.init_from(device, rng);
        let latent_head = init::near_zero_latent_head(config.feature_width(), num_classes, device, rng);
        Ok(Self { latent_encoder, latent_head })
    }

    /// Logits `[B, N]` of scaled latents `[B, C, H, W]`.
    pub fn logits(&self, latents: Tensor<4>) -> Tensor<2> {
        self.latent_head.forward(self.latent_encoder.forward(latents))
    }
}

impl LatentEncoder {
    /// Features `[B, 3 * (H/4) * (W/4)]` of scaled latents `[B, C, H, W]`.
    pub fn forward(&self, latents: Tensor<4>) -> Tensor<2> {
        let x = relu(pool(self.conv1.forward(latents))); // [B, 10, H/2, W/2]
        let x = relu(pool(self.conv2.forward(x))); // [B, 3, H/4, W/4]
        x.flatten(1, 3)
    }
}

/// 2x2 max pooling with stride 2.
fn pool(x: Tensor<4>) -> Tensor<4> {
    max_pool2d(x, MaxPoolOptions::new([2, 2]))
}
