//! `unet/config.json` of a diffusers folder.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

use super::{Fields, write_json};
use crate::Error;
use crate::unet::UNet2DCondition;

/// A stage of the contracting half of the UNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// Residual blocks, each followed by a spatial transformer.
    CrossAttnDownBlock2D,
    /// Residual blocks only.
    DownBlock2D,
}

/// A stage of the expanding half of the UNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// Residual blocks only.
    UpBlock2D,
    /// Residual blocks, each followed by a spatial transformer.
    CrossAttnUpBlock2D,
}

/// The number of attention heads, for all stages or for each.
///
/// diffusers calls it `attention_head_dim` for historical reasons; Stable Diffusion 1.5 has 8 heads everywhere,
/// Stable Diffusion 2 has 5, 10, 20 and 20.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttentionHeadDim {
    /// The same number of heads in every stage.
    All(usize),
    /// The number of heads of each down stage; up stages mirror it.
    Each(Vec<usize>),
}

impl AttentionHeadDim {
    /// Number of heads of down stage `block_index`; 0 if the list is too short.
    pub fn num_heads(&self, block_index: usize) -> usize {
        match self {
            Self::All(n) => *n,
            Self::Each(list) => list.get(block_index).copied().unwrap_or(0),
        }
    }
}

/// Shape of a [`UNet2DCondition`], as in diffusers' `UNet2DConditionModel`.
///
/// The defaults are those of diffusers, which are Stable Diffusion 1's except for `cross_attention_dim`.
/// The middle block is always `UNetMidBlock2DCrossAttn`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct UNet2DConditionConfig {
    /// Side length of a latent in latent pixels.
    pub sample_size: usize,
    /// Channels of the noisy latent.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Puts the cosines before the sines in the timestep embedding.
    pub flip_sin_to_cos: bool,
    /// Shift of the denominator of the timestep embedding's frequencies.
    pub freq_shift: f64,
    /// Stages from fine to coarse.
    pub down_block_types: Vec<DownBlockType>,
    /// Stages from coarse to fine.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels of each down stage.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a down stage; an up stage has one more.
    pub layers_per_block: usize,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Epsilon of the group norms of the residual blocks and of the output.
    pub norm_eps: f64,
    /// Width of a text token.
    pub cross_attention_dim: usize,
    /// Transformer blocks in each spatial transformer.
    pub transformer_layers_per_block: usize,
    /// Number of attention heads.
    pub attention_head_dim: AttentionHeadDim,
    /// Projects into and out of a spatial transformer by linear layers instead of 1x1 convolutions.
    pub use_linear_projection: bool,
    /// Computes attention in f32 whatever the precision of the parameters; 2.1 overflows in f16 otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub upcast_attention: bool,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        use {DownBlockType::*, UpBlockType::*};
        Self {
            sample_size: 64,
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                DownBlock2D,
            ],
            up_block_types: vec![UpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 1280,
            transformer_layers_per_block: 1,
            attention_head_dim: AttentionHeadDim::All(8),
            use_linear_projection: false,
            upcast_attention: false,
        }
    }
}

impl TryFrom<Map<String, Value>> for UNet2DConditionConfig {
    type Error = Error;

    fn try_from(map: Map<String, Value>) -> Result<Self, Error> {
        Self::from_fields(&Fields::from_map(Self::NAME, map))
    }
}

impl UNet2DConditionConfig {
    const NAME: &str = "UNet2DConditionConfig";

    /// Reads `unet/config.json`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if a field is malformed, inconsistent with the others, or asks for
    /// something that this crate does not implement. The error names the file and the field.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::from_fields(&Fields::read(path)?)
    }

    /// Writes the configuration so that diffusers reads it too.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let constants = [
            ("_class_name", json!("UNet2DConditionModel")),
            ("act_fn", json!("silu")),
            ("center_input_sample", json!(false)),
            ("downsample_padding", json!(1)),
            ("mid_block_scale_factor", json!(1)),
            ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
            ("only_cross_attention", json!(false)),
        ];
        write_json(self, &constants, path)
    }

    /// A UNet of this shape with random parameters on `device`.
    ///
    /// # Errors
    ///
    /// Fails if the fields do not fit each other.
    pub fn init(&self, device: &Device) -> Result<UNet2DCondition, Error> {
        self.validate(Self::NAME)?;
        Ok(UNet2DCondition::new(self, device))
    }

    fn from_fields(fields: &Fields) -> Result<Self, Error> {
        reject_unsupported(fields)?;
        let default = Self::default();
        let number = "a non-negative integer";
        let config = Self {
            sample_size: fields.or("sample_size", number, default.sample_size)?,
            in_channels: fields.or("in_channels", number, default.in_channels)?,
            out_channels: fields.or("out_channels", number, default.out_channels)?,
            flip_sin_to_cos: fields.or("flip_sin_to_cos", "a boolean", default.flip_sin_to_cos)?,
            freq_shift: fields.or("freq_shift", "a number", default.freq_shift)?,
            down_block_types: fields.or(
                "down_block_types",
                "a list of `CrossAttnDownBlock2D` and `DownBlock2D`",
                default.down_block_types,
            )?,
            up_block_types: fields.or(
                "up_block_types",
                "a list of `CrossAttnUpBlock2D` and `UpBlock2D`",
                default.up_block_types,
            )?,
            block_out_channels: fields.or(
                "block_out_channels",
                "a list of positive integers",
                default.block_out_channels,
            )?,
            layers_per_block: fields.or("layers_per_block", number, default.layers_per_block)?,
            norm_num_groups: fields.or("norm_num_groups", number, default.norm_num_groups)?,
            norm_eps: fields.or("norm_eps", "a number", default.norm_eps)?,
            cross_attention_dim: fields.or("cross_attention_dim", number, default.cross_attention_dim)?,
            transformer_layers_per_block: fields.or(
                "transformer_layers_per_block",
                number,
                default.transformer_layers_per_block,
            )?,
            attention_head_dim: fields.or(
                "attention_head_dim",
                "an integer or a list of integers",
                default.attention_head_dim,
            )?,
            use_linear_projection: fields.or(
                "use_linear_projection",
                "a boolean",
                default.use_linear_projection,
            )?,
            upcast_attention: fields.or("upcast_attention", "a boolean", default.upcast_attention)?,
        };
        config.validate(fields.origin())?;
        Ok(config)
    }

    /// Checks that the fields fit each other, so that building the network cannot fail.
    pub(crate) fn validate(&self, origin: &str) -> Result<(), Error> {
        let positive = [
            ("sample_size", self.sample_size),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups),
            ("cross_attention_dim", self.cross_attention_dim),
            ("transformer_layers_per_block", self.transformer_layers_per_block),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(Error::config(origin, field, "a positive integer", "`0`"));
            }
        }
        let num_blocks = self.block_out_channels.len();
        if num_blocks == 0 {
            return Err(Error::config(origin, "block_out_channels", "at least one stage", "none"));
        }
        for (field, length) in
            [("down_block_types", self.down_block_types.len()), ("up_block_types", self.up_block_types.len())]
        {
            if length != num_blocks {
                let expected = format!("{num_blocks} stages as in `block_out_channels`");
                return Err(Error::config(origin, field, expected, length));
            }
        }
        self.validate_channels(origin)
    }

    fn validate_channels(&self, origin: &str) -> Result<(), Error> {
        let num_blocks = self.block_out_channels.len();
        if let AttentionHeadDim::Each(list) = &self.attention_head_dim
            && list.len() != num_blocks
        {
            let expected = format!("an integer or {num_blocks} integers, one per stage");
            return Err(Error::config(origin, "attention_head_dim", expected, format!("`{list:?}`")));
        }
        for (index, &channels) in self.block_out_channels.iter().enumerate() {
            let found = format!("`{channels}` in stage {index}");
            if channels == 0 || channels % self.norm_num_groups != 0 {
                let expected = format!("multiples of `norm_num_groups` {}", self.norm_num_groups);
                return Err(Error::config(origin, "block_out_channels", expected, found));
            }
            let attends = self.down_block_types[index] == DownBlockType::CrossAttnDownBlock2D
                || self.up_block_types[num_blocks - 1 - index] == UpBlockType::CrossAttnUpBlock2D
                || index + 1 == num_blocks;
            let num_heads = self.attention_head_dim.num_heads(index);
            if attends && (num_heads == 0 || channels % num_heads != 0) {
                let expected =
                    format!("a number of heads that divides the {channels} channels of stage {index}");
                return Err(Error::config(origin, "attention_head_dim", expected, format!("`{num_heads}`")));
            }
        }
        let width = self.block_out_channels[0];
        if !width.is_multiple_of(2) || (width / 2) as f64 <= self.freq_shift {
            let expected = "an even first stage, more than twice `freq_shift`, for the timestep embedding";
            return Err(Error::config(origin, "block_out_channels", expected, format!("`{width}`")));
        }
        Ok(())
    }
}

/// Fails on fields of `UNet2DConditionModel` that would change the computation and are not implemented.
fn reject_unsupported(fields: &Fields) -> Result<(), Error> {
    let list = [
        ("act_fn", vec![json!("silu"), json!("swish")]),
        ("center_input_sample", vec![json!(false)]),
        ("mid_block_type", vec![json!("UNetMidBlock2DCrossAttn")]),
        ("only_cross_attention", vec![json!(false)]),
        ("mid_block_only_cross_attention", vec![json!(false)]),
        ("downsample_padding", vec![json!(1)]),
        ("mid_block_scale_factor", vec![json!(1), json!(1.0)]),
        ("dropout", vec![json!(0), json!(0.0)]),
        ("dual_cross_attention", vec![json!(false)]),
        ("resnet_time_scale_shift", vec![json!("default")]),
        ("resnet_skip_time_act", vec![json!(false)]),
        ("resnet_out_scale_factor", vec![json!(1), json!(1.0)]),
        ("time_embedding_type", vec![json!("positional")]),
        ("conv_in_kernel", vec![json!(3)]),
        ("conv_out_kernel", vec![json!(3)]),
        ("attention_type", vec![json!("default")]),
        ("class_embeddings_concat", vec![json!(false)]),
        ("num_attention_heads", vec![]),
        ("reverse_transformer_layers_per_block", vec![]),
        ("encoder_hid_dim", vec![]),
        ("encoder_hid_dim_type", vec![]),
        ("class_embed_type", vec![]),
        ("addition_embed_type", vec![]),
        ("addition_time_embed_dim", vec![]),
        ("num_class_embeds", vec![]),
        ("time_embedding_dim", vec![]),
        ("time_embedding_act_fn", vec![]),
        ("timestep_post_act", vec![]),
        ("time_cond_proj_dim", vec![]),
        ("cross_attention_norm", vec![]),
    ];
    list.iter().try_for_each(|(field, allowed)| fields.only(field, allowed))
}
