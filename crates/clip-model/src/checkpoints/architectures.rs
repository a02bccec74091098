//! The architectures that OpenAI published.

use crate::Error;
use crate::config::{
    Activation, ClipConfig, ModifiedResNetConfig, TextConfig, VisionConfig, VisionTransformerConfig,
};

use super::infer::HEAD_WIDTH;

/// A published architecture; its weights are [`super::Pretrained`].
#[derive(Debug, PartialEq)]
pub struct Backbone {
    /// OpenAI's name, such as `ViT-B/32`.
    pub name: &'static str,
    /// Width of the shared space.
    pub projection_dim: usize,
    /// Side of the input in pixels.
    pub image_size: usize,
    /// The vision tower.
    pub vision: Vision,
    /// Width of the text tower, which has 12 layers and a context of 77 tokens out of 49,408.
    pub text_width: usize,
}

/// The vision tower of a published architecture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Vision {
    /// A vision transformer.
    Transformer {
        /// Side of a patch in pixels.
        patch_size: usize,
        /// Width D.
        width: usize,
        /// Number of layers.
        layers: usize,
    },
    /// A modified ResNet.
    ResNet {
        /// Bottlenecks per stage.
        layers: [usize; 4],
        /// Channels after the stem.
        width: usize,
    },
}

const fn vit(patch_size: usize, width: usize, layers: usize) -> Vision {
    Vision::Transformer { patch_size, width, layers }
}

const fn resnet(layers: [usize; 4], width: usize) -> Vision {
    Vision::ResNet { layers, width }
}

const fn backbone(
    name: &'static str,
    projection_dim: usize,
    image_size: usize,
    vision: Vision,
    text_width: usize,
) -> Backbone {
    Backbone { name, projection_dim, image_size, vision, text_width }
}

static BACKBONES: [Backbone; 9] = [
    backbone("RN50", 1024, 224, resnet([3, 4, 6, 3], 64), 512),
    backbone("RN101", 512, 224, resnet([3, 4, 23, 3], 64), 512),
    backbone("RN50x4", 640, 288, resnet([4, 6, 10, 6], 80), 640),
    backbone("RN50x16", 768, 384, resnet([6, 8, 18, 8], 96), 768),
    backbone("RN50x64", 1024, 448, resnet([3, 15, 36, 10], 128), 1024),
    backbone("ViT-B/32", 512, 224, vit(32, 768, 12), 512),
    backbone("ViT-B/16", 512, 224, vit(16, 768, 12), 512),
    backbone("ViT-L/14", 768, 224, vit(14, 1024, 24), 768),
    backbone("ViT-L/14@336px", 768, 336, vit(14, 1024, 24), 768),
];

impl Backbone {
    /// All of them.
    pub fn all() -> &'static [Backbone] {
        &BACKBONES
    }

    /// The backbone of a name: OpenAI's (`ViT-B/32`), open_clip's (`ViT-B-32`, `ViT-B-32-quickgelu`) or in lower case
    /// (`vit-b-32`).
    ///
    /// # Errors
    ///
    /// Fails for another name, with the known ones.
    pub fn by_name(name: &str) -> Result<&'static Backbone, Error> {
        let plain = |name: &str| {
            let name = name.to_lowercase().replace(['/', '@'], "-");
            name.trim_end_matches("-quickgelu").trim_end_matches("px").to_owned()
        };
        let wanted = plain(name);
        Self::all().iter().find(|backbone| plain(backbone.name) == wanted).ok_or_else(|| Error::UnknownName {
            what: "backbone",
            name: name.to_owned(),
            known: Self::all().iter().map(|backbone| backbone.name.to_owned()).collect(),
        })
    }

    /// Name of OpenAI's file, such as `ViT-B-32.pt`.
    pub fn file_name(&self) -> String {
        format!("{}.pt", self.name.replace(['/', '@'], "-"))
    }

    /// The configuration, with an activation: it belongs to the weights.
    pub fn config(&self, activation: Activation) -> ClipConfig {
        let vision_config = match self.vision {
            Vision::Transformer { patch_size, width, layers } => {
                VisionConfig::VisionTransformer(VisionTransformerConfig {
                    hidden_size: width,
                    intermediate_size: 4 * width,
                    num_hidden_layers: layers,
                    num_attention_heads: width / HEAD_WIDTH,
                    image_size: self.image_size,
                    patch_size,
                    hidden_act: activation,
                    layer_norm_eps: 1e-5,
                })
            }
            Vision::ResNet { layers, width } => VisionConfig::ModifiedResNet(ModifiedResNetConfig {
                layers,
                width,
                heads: width * 32 / HEAD_WIDTH,
                image_size: self.image_size,
            }),
        };
        let text_config = TextConfig {
            vocab_size: 49_408,
            hidden_size: self.text_width,
            intermediate_size: 4 * self.text_width,
            num_hidden_layers: 12,
            num_attention_heads: self.text_width / HEAD_WIDTH,
            max_position_embeddings: 77,
            hidden_act: activation,
            layer_norm_eps: 1e-5,
            eos_token_id: 49_407,
            bos_token_id: 49_406,
        };
        let (projection_dim, logit_scale_init_value) = (self.projection_dim, 2.6592);
        ClipConfig { text_config, vision_config, projection_dim, logit_scale_init_value }
    }

    /// Whether a configuration has this shape; the end token's id and the activation aside.
    pub(super) fn has_shape_of(&self, config: &ClipConfig) -> bool {
        let mut own = self.config(config.text_config.hidden_act);
        own.text_config.eos_token_id = config.text_config.eos_token_id;
        own.text_config.bos_token_id = config.text_config.bos_token_id;
        own.logit_scale_init_value = config.logit_scale_init_value;
        own == *config
    }
}
