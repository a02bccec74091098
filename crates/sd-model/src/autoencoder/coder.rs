//! The two halves of the autoencoder.

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use fused_ops::{Activation, conv, group_norm};

use crate::config::AutoencoderKlConfig;
use crate::resnet::{Downsample2D, Norm, ResnetBlock2D, Upsample2D, conv3x3};
use crate::unet::{linear, to_tokens};

/// Epsilon of every group norm of the autoencoder, fixed in diffusers too.
const NORM_EPS: f64 = 1e-6;

fn norm(config: &AutoencoderKlConfig) -> Norm {
    Norm { groups: config.norm_num_groups, eps: NORM_EPS }
}

/// `DownEncoderBlock2D`: residual blocks, then a reduction except in the last stage.
#[derive(Module, Debug)]
pub struct EncoderBlock {
    resnets: Vec<ResnetBlock2D>,
    downsamplers: Vec<Downsample2D>,
}

/// `UpDecoderBlock2D`: residual blocks, then an enlargement except in the last stage.
#[derive(Module, Debug)]
pub struct DecoderBlock {
    resnets: Vec<ResnetBlock2D>,
    upsamplers: Vec<Upsample2D>,
}

/// `count` residual blocks, the first of which changes the number of channels.
fn resnets(count: usize, [from, to]: [usize; 2], norm: Norm, device: &Device) -> Vec<ResnetBlock2D> {
    let channels_in = |layer| if layer == 0 { from } else { to };
    (0..count).map(|i| ResnetBlock2D::new(channels_in(i), to, None, norm, device)).collect()
}

/// Single-head self-attention among the pixels of a feature map, with a skip connection.
#[derive(Module, Debug)]
pub struct MidAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: [Linear; 1],
}

impl MidAttention {
    fn new(channels: usize, norm: Norm, device: &Device) -> Self {
        let project = || LinearConfig::new(channels, channels).init(device);
        Self {
            group_norm: norm.init(channels, device),
            to_q: project(),
            to_k: project(),
            to_v: project(),
            to_out: [project()],
        }
    }

    /// `[B, H, W, C]` to `[B, H, W, C]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shape = x.dims();
        let tokens = to_tokens(group_norm(&self.group_norm, x.clone(), Activation::Identity)); // [B, H * W, C]
        let [query, key, value] =
            [&self.to_q, &self.to_k, &self.to_v].map(|projection| linear(projection, tokens.clone(), None));
        let mixed = fused_ops::attention(query, key, value, 1, false);
        linear(&self.to_out[0], mixed, Some(to_tokens(x))).reshape(shape)
    }
}

/// `UNetMidBlock2D`: self-attention between two residual blocks.
#[derive(Module, Debug)]
pub struct MidBlock {
    attentions: [MidAttention; 1],
    resnets: [ResnetBlock2D; 2],
}

impl MidBlock {
    fn new(channels: usize, norm: Norm, device: &Device) -> Self {
        let resnet = || ResnetBlock2D::new(channels, channels, None, norm, device);
        Self { attentions: [MidAttention::new(channels, norm, device)], resnets: [resnet(), resnet()] }
    }

    /// `[B, H, W, C]` to `[B, H, W, C]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.attentions[0].forward(self.resnets[0].forward(x, None));
        self.resnets[1].forward(x, None)
    }
}

/// Images to the moments of the latent distribution.
#[derive(Module, Debug)]
pub struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<EncoderBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(crate) fn new(config: &AutoencoderKlConfig, device: &Device) -> Self {
        let (norm, channels) = (norm(config), &config.block_out_channels);
        let last = channels.len() - 1;
        let block = |index: usize| {
            let ends = [channels[index.saturating_sub(1)], channels[index]];
            let reduction = (index < last).then(|| Downsample2D::bottom_right(channels[index], device));
            EncoderBlock {
                resnets: resnets(config.layers_per_block, ends, norm, device),
                downsamplers: reduction.into_iter().collect(),
            }
        };
        Self {
            conv_in: conv3x3(config.in_channels, channels[0], device),
            down_blocks: (0..=last).map(block).collect(),
            mid_block: MidBlock::new(channels[last], norm, device),
            conv_norm_out: norm.init(channels[last], device),
            conv_out: conv3x3(channels[last], 2 * config.latent_channels, device),
        }
    }

    /// `[B, in_channels, H, W]` to `[B, 2 * latent_channels, H/s, W/s]`.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let mut x = conv(&self.conv_in, pixels.permute([0, 2, 3, 1]), None);
        for block in &self.down_blocks {
            x = block.resnets.iter().fold(x, |x, resnet| resnet.forward(x, None));
            x = block.downsamplers.iter().fold(x, |x, downsampler| downsampler.forward(x));
        }
        x = self.mid_block.forward(x);
        let x = group_norm(&self.conv_norm_out, x, Activation::Silu);
        conv(&self.conv_out, x, None).permute([0, 3, 1, 2])
    }
}

/// Latents to images.
#[derive(Module, Debug)]
pub struct Decoder {
    conv_in: Conv2d,
    up_blocks: Vec<DecoderBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(crate) fn new(config: &AutoencoderKlConfig, device: &Device) -> Self {
        let (norm, channels) = (norm(config), &config.block_out_channels);
        let last = channels.len() - 1;
        let block = |index: usize| {
            let ends = [channels[(index + 1).min(last)], channels[index]];
            let enlargement = (index > 0).then(|| Upsample2D::new(channels[index], device));
            DecoderBlock {
                resnets: resnets(config.layers_per_block + 1, ends, norm, device),
                upsamplers: enlargement.into_iter().collect(),
            }
        };
        Self {
            conv_in: conv3x3(config.latent_channels, channels[last], device),
            up_blocks: (0..=last).rev().map(block).collect(),
            mid_block: MidBlock::new(channels[last], norm, device),
            conv_norm_out: norm.init(channels[0], device),
            conv_out: conv3x3(channels[0], config.out_channels, device),
        }
    }

    /// `[B, latent_channels, h, w]` to `[B, out_channels, s * h, s * w]`.
    pub fn forward(&self, latents: Tensor<4>) -> Tensor<4> {
        let mut x = self.mid_block.forward(conv(&self.conv_in, latents.permute([0, 2, 3, 1]), None));
        for block in &self.up_blocks {
            x = block.resnets.iter().fold(x, |x, resnet| resnet.forward(x, None));
            x = block.upsamplers.iter().fold(x, |x, upsampler| upsampler.forward(x, None));
        }
        let x = group_norm(&self.conv_norm_out, x, Activation::Silu);
        conv(&self.conv_out, x, None).permute([0, 3, 1, 2])
    }
}
