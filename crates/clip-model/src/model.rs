//! The whole CLIP: two towers, their projections and the logit scale.

use std::path::Path;

use burn::module::{Initializer, Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, FloatDType, Int, Tensor};

use crate::Error;
use crate::config::{ClipConfig, VisionConfig};
use crate::encoder::linear;
use crate::resnet::ModifiedResNet;
use crate::text::TextTransformer;
use crate::vision_transformer::VisionTransformer;
use crate::weights::{KeyTable, SaveDtype, load_safetensors, save_safetensors};

/// File names of the Hugging Face folder layout.
const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";

/// The vision tower.
#[allow(clippy::large_enum_variant)] // one per model; a box would only add a hop
#[derive(Module, Debug)]
pub enum VisionTower {
    /// A vision transformer.
    VisionTransformer(VisionTransformer),
    /// A modified ResNet.
    ModifiedResNet(ModifiedResNet),
}

/// A CLIP model. Its towers may compute in bf16 or f16 ([`crate::Checkpoint::load_as`]); pixel values and features are f32.
#[derive(Module, Debug)]
pub struct Clip {
    /// The text tower.
    pub text_model: TextTransformer,
    /// The vision tower: keys below `vision_model.` (vision transformer) or `visual.` (ResNet).
    pub vision: VisionTower,
    /// From the vision transformer's width into the shared space; the ResNet's attention pool projects by itself.
    pub visual_projection: Option<Linear>,
    /// From the text tower's width into the shared space.
    pub text_projection: Linear,
    /// Logarithm of the factor on cosine similarities, `[1]`; a scalar in the file.
    pub logit_scale: Param<Tensor<1>>,
}

impl Clip {
    pub(crate) fn new(config: &ClipConfig, device: &Device) -> Self {
        let project =
            |width: usize| linear([width, config.projection_dim], false, (width as f64).powf(-0.5), device);
        let (vision, visual_projection) = match &config.vision_config {
            VisionConfig::VisionTransformer(vision) => {
                (VisionTower::VisionTransformer(vision.init(device)), Some(project(vision.hidden_size)))
            }
            VisionConfig::ModifiedResNet(vision) => {
                (VisionTower::ModifiedResNet(vision.init(config.projection_dim, device)), None)
            }
        };
        let value = config.logit_scale_init_value;
        Clip {
            text_model: config.text_config.init(device),
            vision,
            visual_projection,
            text_projection: project(config.text_config.hidden_size),
            logit_scale: Initializer::Constant { value }.init([1], device),
        }
    }

    /// Loads a folder in the Hugging Face layout: `config.json` and `model.safetensors`.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or the tensors do not match the configuration one to one.
    pub fn from_folder(dir: &Path, device: &Device) -> Result<Self, Error> {
        let clip = ClipConfig::from_file(&dir.join(CONFIG_FILE))?.init(device);
        let table = clip.key_table();
        load_safetensors(clip, &dir.join(WEIGHTS_FILE), &table)
    }

    /// Writes `config.json` and `model.safetensors` into an existing folder.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written or a value does not fit `dtype`.
    pub fn save_to_folder(&self, config: &ClipConfig, dir: &Path, dtype: SaveDtype) -> Result<(), Error> {
        config.save(&dir.join(CONFIG_FILE))?;
        save_safetensors(self, &dir.join(WEIGHTS_FILE), dtype, &self.key_table())
    }

    /// How the module's paths are spelled in its checkpoint.
    pub fn key_table(&self) -> KeyTable {
        let table = KeyTable::new().with_scalar("logit_scale").with_allowed_extra("position_ids");
        match self.vision {
            VisionTower::VisionTransformer(_) => table.with_rule("vision", "vision_model"),
            VisionTower::ModifiedResNet(_) => table
                .with_rule("vision", "visual")
                .with_rule("downsample.conv", "downsample.0")
                .with_rule("downsample.bn", "downsample.1")
                .with_allowed_extra("num_batches_tracked"),
        }
    }

    /// The vision tower.
    pub fn vision(&self) -> &VisionTower {
        &self.vision
    }

    /// Text features in the shared space, not normalised.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[B, T]`
    /// - output: `[B, projection_dim]`
    pub fn text_features(&self, input_ids: Tensor<2, Int>) -> Tensor<2> {
        self.text_projection.forward(self.text_model.forward(input_ids).pooled).cast(FloatDType::F32)
    }

    /// Image features in the shared space, not normalised.
    ///
    /// # Shapes
    ///
    /// - `pixel_values`: `[B, 3, H, W]`
    /// - output: `[B, projection_dim]`
    pub fn image_features(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        let precision: FloatDType = self.logit_scale.val().dtype().into();
        let features = self.vision.forward(pixel_values.cast(precision));
        match &self.visual_projection {
            Some(projection) => projection.forward(features).cast(FloatDType::F32),
            None => features.cast(FloatDType::F32),
        }
    }

    /// Cosine similarity of every image with every text, times `exp(logit_scale)`.
    ///
    /// # Shapes
    ///
    /// - `image_features`: `[B, projection_dim]`
    /// - `text_features`: `[K, projection_dim]`
    /// - output: `[B, K]`
    pub fn logits_per_image(&self, image_features: Tensor<2>, text_features: Tensor<2>) -> Tensor<2> {
        let cosine = normalize(image_features).matmul(normalize(text_features).transpose());
        cosine * self.logit_scale.val().cast(FloatDType::F32).exp().unsqueeze()
    }
}

impl VisionTower {
    /// The tower's own output: the normalised class token `[B, D]`, or the attention pool's output `[B, projection_dim]`.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        match self {
            VisionTower::VisionTransformer(tower) => tower.forward(pixel_values),
            VisionTower::ModifiedResNet(tower) => tower.forward(pixel_values),
        }
    }
}

/// Divides every row by its Euclidean length.
///
/// # Shapes
///
/// - `features`: `[B, D]`, no row of zeros
/// - output: `[B, D]`
pub fn normalize(features: Tensor<2>) -> Tensor<2> {
    let length = features.clone().powi_scalar(2).sum_dim(1).sqrt(); // [B, 1]
    features / length
}
