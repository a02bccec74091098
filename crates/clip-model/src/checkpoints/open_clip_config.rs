//! `open_clip_config.json`: what the tensors of an open_clip checkpoint do not tell, and a check of what they do.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;
use crate::config::{Activation, ClipConfig, VisionConfig, read_json};
use crate::preprocess::{CLIP_MEAN, CLIP_STD, Preprocess};

use super::files::OPEN_CLIP_CONFIG;
use super::infer::HEAD_WIDTH;

/// The file and where it was read.
pub(super) struct OpenClipConfig {
    path: PathBuf,
    on_disk: OnDisk,
}

#[derive(Deserialize)]
struct OnDisk {
    model_cfg: ModelCfg,
    #[serde(default)]
    preprocess_cfg: PreprocessCfg,
}

// A field that is not listed would change the architecture to one that this crate does not have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelCfg {
    embed_dim: usize,
    #[serde(default)]
    quick_gelu: bool,
    // Where the text tower stands, which the tensors tell.
    #[serde(rename = "custom_text")]
    _custom_text: Option<bool>,
    vision_cfg: VisionCfg,
    text_cfg: TextCfg,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VisionCfg {
    image_size: usize,
    layers: Layers,
    width: usize,
    patch_size: Option<usize>,
    head_width: Option<usize>,
    #[serde(rename = "mlp_ratio")]
    _mlp_ratio: Option<f64>,
    #[serde(rename = "patch_dropout")]
    _patch_dropout: Option<f64>,
}

#[derive(Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Layers {
    Transformer(usize),
    ResNet([usize; 4]),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextCfg {
    context_length: usize,
    vocab_size: usize,
    width: usize,
    heads: usize,
    layers: usize,
    #[serde(rename = "mlp_ratio")]
    _mlp_ratio: Option<f64>,
}

#[derive(Deserialize, Default)]
struct PreprocessCfg {
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    interpolation: Option<String>,
    resize_mode: Option<String>,
}

impl OpenClipConfig {
    /// The file in a folder, if there is one.
    pub(super) fn beside(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(OPEN_CLIP_CONFIG);
        if !path.is_file() {
            return Ok(None);
        }
        let on_disk = read_json(&path, "configuration of an open_clip model")?;
        Ok(Some(OpenClipConfig { path, on_disk }))
    }

    pub(super) fn activation(&self) -> Activation {
        if self.on_disk.model_cfg.quick_gelu { Activation::QuickGelu } else { Activation::Gelu }
    }

    /// Sets the number of heads and refuses a file that describes another model than the tensors.
    pub(super) fn apply(&self, config: &mut ClipConfig) -> Result<(), Error> {
        let ModelCfg { embed_dim, vision_cfg: vision, text_cfg: text, .. } = &self.on_disk.model_cfg;
        let head_width = vision.head_width.filter(|&width| width > 0).unwrap_or(HEAD_WIDTH);
        config.text_config.num_attention_heads = text.heads;
        let (image_size, width, layers, patch_size) = match &mut config.vision_config {
            VisionConfig::VisionTransformer(tower) => {
                tower.num_attention_heads = vision.width / head_width;
                let layers = Layers::Transformer(tower.num_hidden_layers);
                (tower.image_size, tower.hidden_size, layers, Some(tower.patch_size))
            }
            VisionConfig::ModifiedResNet(tower) => {
                tower.heads = vision.width.saturating_mul(32) / head_width;
                (tower.image_size, tower.width, Layers::ResNet(tower.layers), vision.patch_size)
            }
        };
        let found = &config.text_config;
        self.compare("model_cfg.vision_cfg.layers", &vision.layers, &layers)?;
        self.compare("model_cfg.vision_cfg.patch_size", &vision.patch_size, &patch_size)?;
        for (field, here, tensors) in [
            ("embed_dim", *embed_dim, config.projection_dim),
            ("vision_cfg.image_size", vision.image_size, image_size),
            ("vision_cfg.width", vision.width, width),
            ("text_cfg.context_length", text.context_length, found.max_position_embeddings),
            ("text_cfg.vocab_size", text.vocab_size, found.vocab_size),
            ("text_cfg.width", text.width, found.hidden_size),
            ("text_cfg.layers", text.layers, found.num_hidden_layers),
        ] {
            self.compare(&format!("model_cfg.{field}"), &here, &tensors)?;
        }
        Ok(())
    }

    pub(super) fn preprocess(&self, image_size: usize) -> Result<Preprocess, Error> {
        let PreprocessCfg { mean, std, interpolation, resize_mode } = &self.on_disk.preprocess_cfg;
        for (field, value, expected) in
            [("interpolation", interpolation, "bicubic"), ("resize_mode", resize_mode, "shortest")]
        {
            if let Some(value) = value {
                self.compare(&format!("preprocess_cfg.{field}"), value, &expected.to_owned())?;
            }
        }
        let (mean, std) = (mean.unwrap_or(CLIP_MEAN), std.unwrap_or(CLIP_STD));
        if !(std.iter().all(|std| std.is_finite() && *std > 0.0) && mean.iter().all(|mean| mean.is_finite()))
        {
            return Err(Error::Field {
                path: self.path.clone(),
                field: "preprocess_cfg.std".to_owned(),
                expected: "positive numbers, and finite ones in `mean`".to_owned(),
                found: format!("{std:?}, {mean:?}"),
            });
        }
        Ok(Preprocess { image_size, mean, std })
    }

    fn compare<T: PartialEq + std::fmt::Debug>(
        &self,
        field: &str,
        here: &T,
        tensors: &T,
    ) -> Result<(), Error> {
        if here == tensors {
            return Ok(());
        }
        Err(Error::Field {
            path: self.path.clone(),
            field: field.to_owned(),
            expected: format!("{tensors:?}, as the weights beside have"),
            found: format!("{here:?}"),
        })
    }
}
