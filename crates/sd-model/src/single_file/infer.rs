//! Configurations from the shapes of the tensors of a single file.
//!
//! Shapes do not tell the number of attention heads: Stable Diffusion 1 has 8 everywhere, Stable Diffusion 2, which is
//! the one with linear projections, has heads of 64 channels. The rest is the same in all published models.

use clip_model::{Activation, TensorFile, TextConfig};
use std::collections::BTreeSet;

use super::TextTower;
use super::names::{AUTOENCODER, UNET};
use crate::{
    AttentionHeadDim, AutoencoderKlConfig, DownBlockType, Error, UNet2DConditionConfig, UpBlockType,
};

/// Width of an attention head in both text towers and in Stable Diffusion 2's UNet.
const HEAD_WIDTH: usize = 64;

/// The tensors below a prefix.
struct Names<'a> {
    file: &'a TensorFile,
    prefix: String,
}

impl Names<'_> {
    fn contains(&self, name: &str) -> bool {
        self.file.shape(&format!("{}.{name}", self.prefix)).is_some()
    }

    fn shape<const D: usize>(&self, name: &str) -> Result<[usize; D], Error> {
        let (path, key) = (|| self.file.path().to_owned(), format!("{}.{name}", self.prefix));
        let Some(shape) = self.file.shape(&key) else {
            return Err(clip_model::Error::MissingTensor { path: path(), key, count: 1 }.into());
        };
        shape.try_into().map_err(|_| {
            let (field, expected) = ("shape", format!("{D} axes"));
            clip_model::Error::Tensor { path: path(), key, field, expected, found: format!("{shape:?}") }
                .into()
        })
    }

    /// Number of different segments that follow `name`.
    fn num_children(&self, name: &str) -> usize {
        let prefix = format!("{}.{name}.", self.prefix);
        let keys = self.file.shapes().filter_map(|(key, _)| key.strip_prefix(&prefix)?.split('.').next());
        keys.collect::<BTreeSet<_>>().len()
    }
}

/// One stage of the contracting half.
struct Stage {
    channels: usize,
    num_layers: usize,
    attends: bool,
}

/// The UNet's configuration; `sample_size` is the side of a latent.
pub(super) fn unet(file: &TensorFile, sample_size: usize) -> Result<UNet2DConditionConfig, Error> {
    let names = Names { file, prefix: UNET.to_owned() };
    let [first, in_channels, ..] = names.shape::<4>("input_blocks.0.0.weight")?;
    let [out_channels, ..] = names.shape::<4>("out.2.weight")?;
    let mut stages = vec![Stage { channels: first, num_layers: 0, attends: false }];
    for number in 1..names.num_children("input_blocks") {
        let stage = stages.last_mut().expect("invariant: never empty");
        if names.contains(&format!("input_blocks.{number}.0.op.weight")) {
            stages.push(Stage { channels: first, num_layers: 0, attends: false });
            continue;
        }
        [stage.channels, ..] = names.shape::<4>(&format!("input_blocks.{number}.0.out_layers.3.weight"))?;
        stage.num_layers += 1;
        stage.attends = names.contains(&format!("input_blocks.{number}.1.norm.weight"));
    }
    // The middle block has a spatial transformer in every model.
    let middle = "middle_block.1";
    let [_, cross_attention_dim] =
        names.shape::<2>(&format!("{middle}.transformer_blocks.0.attn2.to_k.weight"))?;
    let use_linear_projection = names.shape::<2>(&format!("{middle}.proj_in.weight")).is_ok();
    let attention_head_dim = if use_linear_projection {
        AttentionHeadDim::Each(stages.iter().map(|stage| stage.channels / HEAD_WIDTH).collect())
    } else {
        AttentionHeadDim::All(8)
    };
    let down_block_types = stages.iter().map(|stage| match stage.attends {
        true => DownBlockType::CrossAttnDownBlock2D,
        false => DownBlockType::DownBlock2D,
    });
    let up_block_types = stages.iter().rev().map(|stage| match stage.attends {
        true => UpBlockType::CrossAttnUpBlock2D,
        false => UpBlockType::UpBlock2D,
    });
    Ok(UNet2DConditionConfig {
        sample_size,
        in_channels,
        out_channels,
        down_block_types: down_block_types.collect(),
        up_block_types: up_block_types.collect(),
        block_out_channels: stages.iter().map(|stage| stage.channels).collect(),
        // Were they not all equal, loading would miss tensors or leave some.
        layers_per_block: stages[0].num_layers,
        cross_attention_dim,
        transformer_layers_per_block: names.num_children(&format!("{middle}.transformer_blocks")),
        attention_head_dim,
        use_linear_projection,
        ..UNet2DConditionConfig::default()
    })
}

/// The autoencoder's configuration; `sample_size` is the side of an image.
pub(super) fn autoencoder(file: &TensorFile, sample_size: usize) -> Result<AutoencoderKlConfig, Error> {
    let names = Names { file, prefix: AUTOENCODER.to_owned() };
    let [_, in_channels, ..] = names.shape::<4>("encoder.conv_in.weight")?;
    let [out_channels, ..] = names.shape::<4>("decoder.conv_out.weight")?;
    let [latent_channels, ..] = names.shape::<4>("post_quant_conv.weight")?;
    let channels = |stage: usize| {
        let [channels, ..] = names.shape::<4>(&format!("encoder.down.{stage}.block.0.conv1.weight"))?;
        Ok(channels)
    };
    Ok(AutoencoderKlConfig {
        in_channels,
        out_channels,
        latent_channels,
        block_out_channels: (0..names.num_children("encoder.down"))
            .map(channels)
            .collect::<Result<_, Error>>()?,
        layers_per_block: names.num_children("encoder.down.0.block"),
        sample_size,
        ..AutoencoderKlConfig::default()
    })
}

/// The text encoder's configuration.
pub(super) fn text(file: &TensorFile, tower: TextTower) -> Result<TextConfig, Error> {
    let names = Names { file, prefix: tower.prefix() };
    let [tokens, positions, layers, fc1] = match tower {
        TextTower::Clip { .. } => [
            "embeddings.token_embedding.weight",
            "embeddings.position_embedding.weight",
            "encoder.layers",
            "mlp.fc1.weight",
        ],
        TextTower::OpenClip => {
            ["token_embedding.weight", "positional_embedding", "transformer.resblocks", "mlp.c_fc.weight"]
        }
    };
    let [vocab_size, hidden_size] = names.shape::<2>(tokens)?;
    let [max_position_embeddings, _] = names.shape::<2>(positions)?;
    let [intermediate_size, _] = names.shape::<2>(&format!("{layers}.0.{fc1}"))?;
    let num_layers = names.num_children(layers);
    let (num_hidden_layers, hidden_act) = match tower {
        TextTower::Clip { .. } => (num_layers, Activation::QuickGelu),
        // The last layer but one is what Stable Diffusion 2 was trained with.
        TextTower::OpenClip => (num_layers - 1, Activation::Gelu),
    };
    Ok(TextConfig {
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads: hidden_size / HEAD_WIDTH,
        max_position_embeddings,
        hidden_act,
        layer_norm_eps: 1e-5,
        // As in the published configurations: the text is pooled at the highest id, which nothing here reads.
        eos_token_id: 2,
        bos_token_id: 0,
    })
}
