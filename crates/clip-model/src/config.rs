//! Shapes of the models, in the words of Hugging Face's `config.json`.
//!
//! Fields that do not change the architecture here (`dropout`, `initializer_range`, ...) are ignored. Sizes have no
//! default, except in files of transformers 4, which left out what equals its default.

use std::fmt;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::Error;
use crate::model::Clip;

/// The activation between the two layers of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`, in OpenAI's checkpoints.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    /// The exact GELU, in LAION's and Stable Diffusion 2's checkpoints.
    #[serde(rename = "gelu")]
    Gelu,
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activation::QuickGelu => "`quick_gelu`",
            Activation::Gelu => "`gelu`",
        })
    }
}

/// The text tower: `text_config` of a CLIP, or a `CLIPTextModel`'s own `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Width D.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Longest text T in tokens, start and end included.
    pub max_position_embeddings: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Id of the end token; the legacy value 2 selects pooling at the highest id.
    #[serde(default = "default_eos_token_id")]
    pub eos_token_id: u32,
    /// Id of the start token.
    #[serde(default = "default_bos_token_id")]
    pub bos_token_id: u32,
}

/// The vision transformer: `vision_config` of a Hugging Face CLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisionTransformerConfig {
    /// Width D.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
}

/// OpenAI's modified ResNet; its output width is the CLIP's `projection_dim`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModifiedResNetConfig {
    /// Bottlenecks per stage.
    pub layers: [usize; 4],
    /// Channels after the stem; the last stage has `32 * width`.
    pub width: usize,
    /// Heads of the attention pool; divides `32 * width`.
    pub heads: usize,
    /// Side of the square input in pixels, a multiple of 32.
    pub image_size: usize,
}

/// Which vision tower, and its shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "model_type")]
pub enum VisionConfig {
    /// A vision transformer.
    #[serde(rename = "clip_vision_model")]
    VisionTransformer(VisionTransformerConfig),
    /// A modified ResNet.
    #[serde(rename = "clip_modified_resnet")]
    ModifiedResNet(ModifiedResNetConfig),
}

/// A whole CLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipConfig {
    /// The text tower.
    pub text_config: TextConfig,
    /// The vision tower.
    pub vision_config: VisionConfig,
    /// Width of the shared space.
    pub projection_dim: usize,
    /// Logarithm of the temperature's inverse at initialisation.
    #[serde(default = "default_logit_scale")]
    pub logit_scale_init_value: f64,
}

/// Largest width, vocabulary or context of a configuration.
const MAX_SIZE: usize = 1 << 22;
/// Most encoder layers.
const MAX_LAYERS: usize = 1024;
/// Most bottlenecks of a ResNet's stage; RN50x64 has 36.
const MAX_BLOCKS: usize = 256;
/// Largest width of a ResNet's stem; RN50x64 has 128.
const MAX_RESNET_WIDTH: usize = 512;
/// Largest side of an input in pixels.
const MAX_IMAGE_SIZE: usize = 1 << 14;

fn default_eos_token_id() -> u32 {
    49407
}

fn default_bos_token_id() -> u32 {
    49406
}

fn default_logit_scale() -> f64 {
    2.6592
}

impl<'de> Deserialize<'de> for VisionConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let in_vision = |error: serde_json::Error| D::Error::custom(format!("vision_config: {error}"));
        // open_clip's ResNet has `layers` as an array, its ViT as a number; neither writes `model_type`.
        let is_resnet = match value.get("model_type").and_then(|name| name.as_str()) {
            Some("clip_vision_model") => false,
            Some("clip_modified_resnet") => true,
            Some(other) => {
                return Err(D::Error::custom(format!(
                    "vision_config.model_type: unknown tower `{other}`, expected `clip_vision_model` or `clip_modified_resnet`"
                )));
            }
            None => value.get("layers").is_some_and(|layers| layers.is_array()),
        };
        // Every input of this crate is RGB.
        match value.get("num_channels") {
            Some(channels) if channels != 3 => {
                return Err(D::Error::custom(format!(
                    "vision_config.num_channels is {channels}, expected 3"
                )));
            }
            _ => {}
        }
        if is_resnet {
            serde_json::from_value(value).map(VisionConfig::ModifiedResNet).map_err(in_vision)
        } else {
            serde_json::from_value(value).map(VisionConfig::VisionTransformer).map_err(in_vision)
        }
    }
}

impl<'de> Deserialize<'de> for ModifiedResNetConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// open_clip's spelling: heads follow from `head_width`, 64 unless told.
        #[derive(Deserialize)]
        struct OnDisk {
            layers: [usize; 4],
            width: usize,
            heads: Option<usize>,
            head_width: Option<usize>,
            image_size: usize,
        }
        let OnDisk { layers, width, heads, head_width, image_size } = OnDisk::deserialize(deserializer)?;
        let head_width = head_width.unwrap_or(64);
        if head_width == 0 {
            return Err(D::Error::custom("`head_width` is 0, expected a positive number"));
        }
        let heads = heads.unwrap_or(width.saturating_mul(32) / head_width);
        Ok(ModifiedResNetConfig { layers, width, heads, image_size })
    }
}

impl TextConfig {
    /// Reads a `CLIPTextModel`'s `config.json`, such as `text_encoder/config.json` of Stable Diffusion.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, misses a field or describes no possible model.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let what = "configuration of a CLIP text model";
        let mut value: Value = read_json(path, what)?;
        if is_of_transformers_4(&value) {
            fill(&mut value, text_defaults());
        }
        let config: TextConfig = parse_json(path, what, value)?;
        config.validate(path)?;
        Ok(config)
    }

    /// Checks that the fields fit each other; `path` is the file that an error names.
    ///
    /// # Errors
    ///
    /// Fails if they describe no possible model.
    pub fn validate(&self, path: &Path) -> Result<(), Error> {
        self.check(&Checker { path, prefix: "" })
    }

    fn check(&self, checker: &Checker<'_>) -> Result<(), Error> {
        checker.positive("vocab_size", self.vocab_size)?;
        checker.positive("max_position_embeddings", self.max_position_embeddings)?;
        checker.encoder(
            [self.hidden_size, self.intermediate_size],
            self.num_hidden_layers,
            self.num_attention_heads,
            self.layer_norm_eps,
        )
    }
}

impl ClipConfig {
    /// Reads the `config.json` of a `CLIPModel`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, misses a field or describes no possible model.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let what = "configuration of a CLIP model";
        let mut value: Value = read_json(path, what)?;
        if is_of_transformers_4(&value) {
            for (tower, given, defaults) in [
                ("text_config", "text_config_dict", text_defaults()),
                ("vision_config", "vision_config_dict", vision_defaults()),
            ] {
                // What the author of the file gave by hand; transformers 4 lets it win.
                let given = value.get(given).cloned().unwrap_or_default();
                let mut config = if given.is_object() { given } else { serde_json::json!({}) };
                fill(&mut config, value.get(tower).cloned().unwrap_or_default());
                fill(&mut config, defaults);
                value[tower] = config;
            }
            fill(&mut value, serde_json::json!({ "projection_dim": 512 }));
        }
        let config: ClipConfig = parse_json(path, what, value)?;
        config.check(path)?;
        Ok(config)
    }

    /// Writes a `config.json` that transformers reads too (for a vision transformer).
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut value = serde_json::json!(self);
        if let Some(object) = value.as_object_mut() {
            object.insert("architectures".to_owned(), serde_json::json!(["CLIPModel"]));
            object.insert("model_type".to_owned(), "clip".into());
        }
        for (tower, model_type) in [("text_config", Some("clip_text_model")), ("vision_config", None)] {
            if let Some(object) = value[tower].as_object_mut() {
                object.insert("projection_dim".to_owned(), self.projection_dim.into());
                if let Some(model_type) = model_type {
                    object.insert("model_type".to_owned(), model_type.into());
                }
            }
        }
        write_json(path, &value)
    }

    /// A model of this shape with random weights, drawn as transformers and open_clip draw them.
    pub fn init(&self, device: &Device) -> Clip {
        Clip::new(self, device)
    }

    /// Refuses what no model can have, or what would not fit into any memory, before a model of this shape is made.
    pub(crate) fn check(&self, path: &Path) -> Result<(), Error> {
        Checker { path, prefix: "" }.positive("projection_dim", self.projection_dim)?;
        self.text_config.check(&Checker { path, prefix: "text_config." })?;
        let checker = Checker { path, prefix: "vision_config." };
        match &self.vision_config {
            VisionConfig::VisionTransformer(vision) => {
                checker.positive("patch_size", vision.patch_size)?;
                checker.image_size(vision.image_size)?;
                if vision.image_size < vision.patch_size {
                    let expected = format!("at least the patch size {}", vision.patch_size);
                    return Err(checker.refuse("image_size", expected, vision.image_size));
                }
                checker.encoder(
                    [vision.hidden_size, vision.intermediate_size],
                    vision.num_hidden_layers,
                    vision.num_attention_heads,
                    vision.layer_norm_eps,
                )
            }
            VisionConfig::ModifiedResNet(vision) => {
                if vision.layers.contains(&0) {
                    let found = format!("{:?}", vision.layers);
                    return Err(checker.refuse("layers", "at least one block per stage".to_owned(), found));
                }
                if let Some(found) = vision.layers.iter().find(|&&blocks| blocks > MAX_BLOCKS) {
                    let expected = format!("at most {MAX_BLOCKS} blocks per stage");
                    return Err(checker.refuse("layers", expected, found));
                }
                if vision.width == 0 || !vision.width.is_multiple_of(2) || vision.width > MAX_RESNET_WIDTH {
                    let expected = format!("a positive even number up to {MAX_RESNET_WIDTH}");
                    return Err(checker.refuse("width", expected, vision.width));
                }
                if vision.heads == 0 || !(vision.width * 32).is_multiple_of(vision.heads) {
                    let expected = format!("a divisor of 32 * width = {}", vision.width * 32);
                    return Err(checker.refuse("heads", expected, vision.heads));
                }
                checker.image_size(vision.image_size)?;
                if vision.image_size == 0 || !vision.image_size.is_multiple_of(32) {
                    let expected = "a positive multiple of 32".to_owned();
                    return Err(checker.refuse("image_size", expected, vision.image_size));
                }
                Ok(())
            }
        }
    }
}

/// Files of transformers 4 hold only what differs from its defaults; version 5 writes every field.
fn is_of_transformers_4(value: &Value) -> bool {
    let version = value.get("transformers_version").and_then(Value::as_str);
    version.is_some_and(|version| version.starts_with("4."))
}

/// The defaults of `CLIPTextConfig`.
fn text_defaults() -> Value {
    serde_json::json!({
        "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
        "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    })
}

/// The defaults of `CLIPVisionConfig`.
fn vision_defaults() -> Value {
    serde_json::json!({
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    })
}

/// Adds the fields that `value` lacks.
fn fill(value: &mut Value, defaults: Value) {
    if let (Some(object), Value::Object(defaults)) = (value.as_object_mut(), defaults) {
        for (field, default) in defaults {
            object.entry(field).or_insert(default);
        }
    }
}

/// Names the file and the part of the configuration under check.
struct Checker<'a> {
    path: &'a Path,
    prefix: &'static str,
}

impl Checker<'_> {
    fn refuse(&self, field: &str, expected: String, found: impl ToString) -> Error {
        Error::Field {
            path: self.path.to_owned(),
            field: format!("{}{field}", self.prefix),
            expected,
            found: found.to_string(),
        }
    }

    fn positive(&self, field: &str, value: usize) -> Result<(), Error> {
        match value {
            0 => Err(self.refuse(field, "a positive number".to_owned(), value)),
            1..=MAX_SIZE => Ok(()),
            _ => Err(self.refuse(field, format!("at most {MAX_SIZE}"), value)),
        }
    }

    fn image_size(&self, value: usize) -> Result<(), Error> {
        let expected = || format!("at most {MAX_IMAGE_SIZE} pixels");
        if value > MAX_IMAGE_SIZE { Err(self.refuse("image_size", expected(), value)) } else { Ok(()) }
    }

    fn encoder(
        &self,
        [hidden, intermediate]: [usize; 2],
        layers: usize,
        heads: usize,
        eps: f64,
    ) -> Result<(), Error> {
        if layers > MAX_LAYERS {
            return Err(self.refuse("num_hidden_layers", format!("at most {MAX_LAYERS}"), layers));
        }
        self.positive("hidden_size", hidden)?;
        self.positive("intermediate_size", intermediate)?;
        if heads == 0 || !hidden.is_multiple_of(heads) {
            let expected = format!("a divisor of hidden_size = {hidden}");
            return Err(self.refuse("num_attention_heads", expected, heads));
        }
        if !(eps.is_finite() && eps > 0.0) {
            return Err(self.refuse("layer_norm_eps", "a positive number".to_owned(), eps));
        }
        Ok(())
    }
}

/// Reads one JSON file into `T`.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, Error> {
    let text = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), what, source })
}

/// Turns parsed JSON into `T`.
fn parse_json<T: serde::de::DeserializeOwned>(
    path: &Path,
    what: &'static str,
    value: Value,
) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|source| Error::Json { path: path.to_owned(), what, source })
}

/// Writes one JSON file, indented, with a final line break.
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), Error> {
    let text = format!("{value:#}\n");
    fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
}
