//! The configuration of a file with OpenAI's names, from the shapes of its tensors, as OpenAI's `build_model` does.

use std::collections::BTreeSet;

use crate::Error;
use crate::config::{
    Activation, ClipConfig, ModifiedResNetConfig, TextConfig, VisionConfig, VisionTransformerConfig,
};
use crate::weights::TensorFile;

use super::layouts::OPENAI_NUMBERS;

/// Width of an attention head in every published model, text and vision.
pub(super) const HEAD_WIDTH: usize = 64;
/// Text is pooled at the highest id, which is the end token's.
const POOL_AT_HIGHEST_ID: u32 = 2;
const LAYER_NORM_EPS: f64 = 1e-5;
const START_TOKEN_ID: u32 = 49406;
const LOGIT_SCALE: f64 = 2.6592;

/// Reads the shape of a model off its tensors; heads are 64 wide.
pub(super) fn config(file: &TensorFile, activation: Activation) -> Result<ClipConfig, Error> {
    let [_, projection_dim] = shape(file, "text_projection")?;
    let [vocab_size, hidden_size] = shape(file, "token_embedding.weight")?;
    let [max_position_embeddings, _] = shape(file, "positional_embedding")?;
    let [intermediate_size, _] = shape(file, "transformer.resblocks.0.mlp.c_fc.weight")?;
    let text_config = TextConfig {
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers: num_children(file, "transformer.resblocks."),
        num_attention_heads: hidden_size / HEAD_WIDTH,
        max_position_embeddings,
        hidden_act: activation,
        layer_norm_eps: LAYER_NORM_EPS,
        eos_token_id: POOL_AT_HIGHEST_ID,
        bos_token_id: START_TOKEN_ID,
    };
    let is_resnet = file.tensors.contains_key("visual.layer1.0.conv1.weight");
    let vision_config = if is_resnet {
        VisionConfig::ModifiedResNet(resnet(file)?)
    } else {
        VisionConfig::VisionTransformer(vision_transformer(file, activation)?)
    };
    Ok(ClipConfig { text_config, vision_config, projection_dim, logit_scale_init_value: LOGIT_SCALE })
}

fn vision_transformer(file: &TensorFile, activation: Activation) -> Result<VisionTransformerConfig, Error> {
    let [hidden_size, _, patch_size, _] = shape(file, "visual.conv1.weight")?;
    let [intermediate_size, _] = shape(file, "visual.transformer.resblocks.0.mlp.c_fc.weight")?;
    Ok(VisionTransformerConfig {
        hidden_size,
        intermediate_size,
        num_hidden_layers: num_children(file, "visual.transformer.resblocks."),
        num_attention_heads: hidden_size / HEAD_WIDTH,
        image_size: grid(file, "visual.positional_embedding")?.saturating_mul(patch_size),
        patch_size,
        hidden_act: activation,
        layer_norm_eps: LAYER_NORM_EPS,
    })
}

fn resnet(file: &TensorFile) -> Result<ModifiedResNetConfig, Error> {
    let [width, ..] = shape::<4>(file, "visual.layer1.0.conv1.weight")?;
    let layers = [1, 2, 3, 4].map(|stage| num_children(file, &format!("visual.layer{stage}.")));
    Ok(ModifiedResNetConfig {
        layers,
        width,
        heads: width.saturating_mul(32) / HEAD_WIDTH,
        image_size: grid(file, "visual.attnpool.positional_embedding")?.saturating_mul(32),
    })
}

/// Side of the square grid whose positions a tensor `[1 + grid * grid, D]` embeds.
fn grid(file: &TensorFile, key: &str) -> Result<usize, Error> {
    let [rows, _] = shape(file, key)?;
    let grid = rows.saturating_sub(1).isqrt();
    if rows > 1 && grid * grid == rows - 1 {
        return Ok(grid);
    }
    Err(Error::Tensor {
        path: file.path().to_owned(),
        key: key.to_owned(),
        field: "number of rows",
        expected: "one more than a square".to_owned(),
        found: rows.to_string(),
    })
}

fn shape<const D: usize>(file: &TensorFile, key: &str) -> Result<[usize; D], Error> {
    let path = || file.path().to_owned();
    let Some(tensor) = file.tensors.get(key) else {
        return Err(Error::MissingTensor { path: path(), key: key.to_owned(), count: 1 });
    };
    tensor.shape[..].try_into().map_err(|_| Error::Tensor {
        path: path(),
        key: key.to_owned(),
        field: "shape",
        expected: format!("{D} axes"),
        found: format!("{:?}", tensor.shape),
    })
}

/// Number of different names that follow a prefix.
fn num_children(file: &TensorFile, prefix: &str) -> usize {
    let children = file.tensors.keys().filter_map(|key| key.strip_prefix(prefix)?.split('.').next());
    children.collect::<BTreeSet<_>>().len()
}

/// Compares the numbers that OpenAI's files hold with the configuration read off the shapes.
pub(super) fn check_numbers(file: &TensorFile, config: &ClipConfig) -> Result<(), Error> {
    let text = &config.text_config;
    let expected = [super::image_size(config), text.max_position_embeddings, text.vocab_size];
    for (key, expected) in OPENAI_NUMBERS.into_iter().zip(expected) {
        let Some(found) = file.integer(key)? else { continue };
        if usize::try_from(found) != Ok(expected) {
            return Err(Error::Tensor {
                path: file.path().to_owned(),
                key: key.to_owned(),
                field: "value",
                expected: format!("{expected} by the shapes of the other tensors"),
                found: found.to_string(),
            });
        }
    }
    Ok(())
}
