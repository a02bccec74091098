//! The tiny autoencoder (TAESD): a preview of latents and a cheap way from images to latents.
//!
//! After `AutoencoderTiny` of diffusers; the field paths are its tensor names. Its latents are the scaled ones that the UNet
//! sees, so no scaling factor stands between the two.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{PaddingConfig2d, Relu};
use burn::tensor::activation::{relu, tanh};
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};

use crate::config::AutoencoderTinyConfig;

/// The decoder squeezes latents softly into ± this.
const LATENT_BOUND: f64 = 3.0;

/// Three convolutions with a skip connection.
#[derive(Module, Debug)]
pub struct TinyBlock {
    /// As in the reference: the activations hold the odd places.
    conv: (Conv2d, Relu, Conv2d, Relu, Conv2d),
}

/// Nearest-neighbour enlargement.
#[derive(Module, Debug)]
pub struct Enlargement {
    factor: usize,
}

/// One place of the sequence of layers; its index is in the tensor names.
// A network has some dozen of them, and burn's modules are not boxed.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum TinyLayer {
    /// A 3x3 convolution.
    Conv(Conv2d),
    /// A residual block.
    Block(TinyBlock),
    /// An activation.
    Relu(Relu),
    /// An enlargement.
    Enlargement(Enlargement),
}

/// Encoder or decoder.
#[derive(Module, Debug)]
pub struct TinyCoder {
    layers: Vec<TinyLayer>,
}

/// Encodes images as scaled latents and decodes scaled latents as images.
///
/// Made by [`AutoencoderTinyConfig::init`].
#[derive(Module, Debug)]
pub struct AutoencoderTiny {
    encoder: TinyCoder,
    decoder: TinyCoder,
}

fn conv([from, to]: [usize; 2], stride: usize, bias: bool, device: &Device) -> Conv2d {
    Conv2dConfig::new([from, to], [3, 3])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_bias(bias)
        .init(device)
}

impl TinyBlock {
    fn new(width: usize, device: &Device) -> Self {
        let conv = || conv([width, width], 1, true, device);
        Self { conv: (conv(), Relu::new(), conv(), Relu::new(), conv()) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (first, _, second, _, third) = &self.conv;
        let inner = third.forward(relu(second.forward(relu(first.forward(x.clone())))));
        relu(inner + x)
    }
}

impl TinyLayer {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Block(block) => block.forward(x),
            Self::Relu(_) => relu(x),
            Self::Enlargement(Enlargement { factor }) => {
                let [_, _, height, width] = x.dims();
                let options = InterpolateOptions::new(InterpolateMode::Nearest);
                interpolate(x, options.with_output_size([factor * height, factor * width]))
            }
        }
    }
}

impl TinyCoder {
    fn encoder(config: &AutoencoderTinyConfig, device: &Device) -> Self {
        let width = config.width();
        let mut layers = Vec::new();
        for (stage, &num_blocks) in config.num_encoder_blocks.iter().enumerate() {
            layers.push(TinyLayer::Conv(match stage {
                0 => conv([config.in_channels, width], 1, true, device),
                _ => conv([width, width], 2, false, device),
            }));
            layers.extend((0..num_blocks).map(|_| TinyLayer::Block(TinyBlock::new(width, device))));
        }
        layers.push(TinyLayer::Conv(conv([width, config.latent_channels], 1, true, device)));
        Self { layers }
    }

    fn decoder(config: &AutoencoderTinyConfig, device: &Device) -> Self {
        let width = config.width();
        let last = config.num_decoder_blocks.len() - 1;
        let mut layers = vec![
            TinyLayer::Conv(conv([config.latent_channels, width], 1, true, device)),
            TinyLayer::Relu(Relu::new()),
        ];
        for (stage, &num_blocks) in config.num_decoder_blocks.iter().enumerate() {
            layers.extend((0..num_blocks).map(|_| TinyLayer::Block(TinyBlock::new(width, device))));
            if stage < last {
                let factor = config.upsampling_scaling_factor;
                layers.push(TinyLayer::Enlargement(Enlargement { factor }));
                layers.push(TinyLayer::Conv(conv([width, width], 1, false, device)));
            } else {
                layers.push(TinyLayer::Conv(conv([width, config.out_channels], 1, true, device)));
            }
        }
        Self { layers }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }
}

impl AutoencoderTiny {
    /// Builds the network of a validated configuration.
    pub(crate) fn new(config: &AutoencoderTinyConfig, device: &Device) -> Self {
        Self { encoder: TinyCoder::encoder(config, device), decoder: TinyCoder::decoder(config, device) }
    }

    /// Encodes images `[B, in_channels, H, W]` in -1..=1 as scaled latents `[B, latent_channels, H/s, W/s]`, s = 8 for TAESD.
    ///
    /// # Panics
    ///
    /// Panics if the shape does not fit the configuration.
    pub fn encode(&self, pixels: Tensor<4>) -> Tensor<4> {
        self.encoder.forward((pixels + 1.0) / 2.0)
    }

    /// Decodes scaled latents `[B, latent_channels, h, w]` as images `[B, out_channels, s * h, s * w]`, about -1..=1.
    ///
    /// # Panics
    ///
    /// Panics if the shape does not fit the configuration.
    pub fn decode(&self, latents_scaled: Tensor<4>) -> Tensor<4> {
        let bounded = tanh(latents_scaled / LATENT_BOUND) * LATENT_BOUND;
        self.decoder.forward(bounded) * 2.0 - 1.0
    }
}
