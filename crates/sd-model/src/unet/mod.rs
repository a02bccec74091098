//! The text-conditioned UNet of Stable Diffusion 1 and 2.
//!
//! After `UNet2DConditionModel` of diffusers; the field paths are its tensor names, so a checkpoint loads without a
//! table of names.

mod attention;
mod blocks;
mod time_embedding;

pub use attention::{Attention, BasicTransformerBlock, FeedForward, Geglu, Projection, Transformer2DModel};
pub use blocks::{DownBlock2D, UNetMidBlock2DCrossAttn, UpBlock2D};
pub use time_embedding::TimestepEmbedding;

pub(crate) use attention::{linear, to_tokens};

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};
use fused_ops::{Activation, conv, group_norm};

use crate::config::{DownBlockType, UNet2DConditionConfig, UpBlockType};
use crate::resnet::{Norm, conv3x3};
use attention::TransformerShape;
use blocks::StageShape;
use time_embedding::Timesteps;

/// Predicts the noise (or velocity, or clean latent) in a latent, given the timestep and text tokens.
///
/// Made by [`UNet2DConditionConfig::init`].
#[derive(Module, Debug)]
pub struct UNet2DCondition {
    conv_in: Conv2d,
    #[module(skip)]
    time_proj: Timesteps,
    time_embedding: TimestepEmbedding,
    down_blocks: Vec<DownBlock2D>,
    mid_block: UNetMidBlock2DCrossAttn,
    up_blocks: Vec<UpBlock2D>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet2DCondition {
    /// Builds the network of a validated configuration.
    pub(crate) fn new(config: &UNet2DConditionConfig, device: &Device) -> Self {
        let norm = Norm { groups: config.norm_num_groups, eps: config.norm_eps };
        let first = config.block_out_channels[0];
        Self {
            conv_in: conv3x3(config.in_channels, first, device),
            time_proj: Timesteps {
                num_channels: first,
                flip_sin_to_cos: config.flip_sin_to_cos,
                freq_shift: config.freq_shift,
            },
            time_embedding: TimestepEmbedding::new(first, 4 * first, device),
            down_blocks: down_blocks(config, device),
            mid_block: mid_block(config, device),
            up_blocks: up_blocks(config, device),
            conv_norm_out: norm.init(first, device),
            conv_out: conv3x3(first, config.out_channels, device),
        }
    }

    /// Applies the network.
    ///
    /// # Shapes
    ///
    /// - `sample`: `[B, in_channels, H, W]`, the noisy latent; H and W need not be powers of two
    /// - `timesteps`: `[B]`, training timesteps (0 is nearly clean)
    /// - `encoder_hidden_states`: `[B, T, cross_attention_dim]`, text tokens
    /// - output: `[B, out_channels, H, W]`
    ///
    /// # Panics
    ///
    /// Panics if the shapes do not fit the configuration.
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timesteps: Tensor<1>,
        encoder_hidden_states: Tensor<3>,
    ) -> Tensor<4> {
        let context = &encoder_hidden_states;
        let sinusoids = self.time_proj.forward(timesteps).cast(sample.dtype());
        let temb = self.time_embedding.forward(sinusoids); // [B, 4 * block_out_channels[0]]
        // Channels-last from here on.
        let mut x = conv(&self.conv_in, sample.permute([0, 2, 3, 1]), None);
        let mut residuals = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &temb, context, &mut residuals);
        }
        x = self.mid_block.forward(x, &temb, context);
        for block in &self.up_blocks {
            x = block.forward(x, &temb, context, &mut residuals);
        }
        let x = group_norm(&self.conv_norm_out, x, Activation::Silu);
        conv(&self.conv_out, x, None).permute([0, 3, 1, 2])
    }
}

/// The stage at index `block_index` of the contracting half, before its place in the network is filled in.
fn stage(config: &UNet2DConditionConfig, block_index: usize, attends: bool) -> StageShape {
    StageShape {
        channels_in: config.block_out_channels[block_index],
        channels_out: config.block_out_channels[block_index],
        num_layers: config.layers_per_block,
        temb_channels: 4 * config.block_out_channels[0],
        norm: Norm { groups: config.norm_num_groups, eps: config.norm_eps },
        transformer: attends.then(|| TransformerShape {
            num_layers: config.transformer_layers_per_block,
            num_heads: config.attention_head_dim.num_heads(block_index),
            cross_attention_dim: config.cross_attention_dim,
            use_linear_projection: config.use_linear_projection,
            norm_num_groups: config.norm_num_groups,
            upcast_attention: config.upcast_attention,
        }),
        resample: false,
    }
}

fn down_blocks(config: &UNet2DConditionConfig, device: &Device) -> Vec<DownBlock2D> {
    let num_blocks = config.block_out_channels.len();
    let block = |(index, kind): (usize, &DownBlockType)| {
        let shape = StageShape {
            channels_in: config.block_out_channels[index.saturating_sub(1)],
            resample: index + 1 < num_blocks,
            ..stage(config, index, *kind == DownBlockType::CrossAttnDownBlock2D)
        };
        DownBlock2D::new(shape, device)
    };
    config.down_block_types.iter().enumerate().map(block).collect()
}

fn mid_block(config: &UNet2DConditionConfig, device: &Device) -> UNetMidBlock2DCrossAttn {
    UNetMidBlock2DCrossAttn::new(stage(config, config.block_out_channels.len() - 1, true), device)
}

fn up_blocks(config: &UNet2DConditionConfig, device: &Device) -> Vec<UpBlock2D> {
    let channels = &config.block_out_channels;
    let last = channels.len() - 1;
    let block = |(position, kind): (usize, &UpBlockType)| {
        let index = last - position; // of the down stage at the same resolution
        let shape = StageShape {
            channels_in: channels[(index + 1).min(last)],
            resample: position < last,
            ..stage(config, index, *kind == UpBlockType::CrossAttnUpBlock2D)
        };
        // Every layer takes the residual of a layer of the down stage; the last takes what entered that stage.
        let mut skips = vec![channels[index]; config.layers_per_block];
        skips.push(channels[index.saturating_sub(1)]);
        UpBlock2D::new(shape, &skips, device)
    };
    config.up_block_types.iter().enumerate().map(block).collect()
}
