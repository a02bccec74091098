//! The diffusers folder of a Stable Diffusion model.
//!
//! ```text
//! model_index.json
//! scheduler/scheduler_config.json
//! text_encoder/config.json  text_encoder/model.safetensors
//! tokenizer/vocab.json      tokenizer/merges.txt              tokenizer/tokenizer_config.json (or none)
//! unet/config.json          unet/diffusion_pytorch_model.safetensors
//! vae/config.json           vae/diffusion_pytorch_model.safetensors
//! ```

use burn::tensor::Device;
use clip_model::{Cleaning, SaveDtype, TextConfig, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

use crate::config::{Fields, write_json};
use crate::sampler::StableDiffusion;
use crate::weights::{load_text_encoder, save_text_encoder};
use crate::{AutoencoderKlConfig, Error, Scheduler, UNet2DConditionConfig};

const MODEL_INDEX: &str = "model_index.json";
const SCHEDULER_CONFIG: &str = "scheduler/scheduler_config.json";
const TEXT_CONFIG: &str = "text_encoder/config.json";
const TEXT_WEIGHTS: &str = "text_encoder/model.safetensors";
const UNET_CONFIG: &str = "unet/config.json";
const UNET_WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE_CONFIG: &str = "vae/config.json";
const VAE_WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";
const TOKENIZER: &str = "tokenizer";
const TOKENIZER_CONFIG: &str = "tokenizer/tokenizer_config.json";

impl StableDiffusion {
    /// Loads the model in `dir`; all parameters become f32 on `device`.
    ///
    /// # Errors
    ///
    /// Fails if a file is missing or malformed, if a configuration asks for something that is not implemented, if the
    /// parts do not fit each other, or if parameters and tensors do not match one to one.
    pub fn from_folder(dir: &Path, device: &Device) -> Result<Self, Error> {
        Fields::read(&dir.join(MODEL_INDEX))?.only("_class_name", &[json!("StableDiffusionPipeline")])?;
        let unet_config = UNet2DConditionConfig::from_file(&dir.join(UNET_CONFIG))?;
        let vae_config = AutoencoderKlConfig::from_file(&dir.join(VAE_CONFIG))?;
        let text_config = TextConfig::from_file(&dir.join(TEXT_CONFIG))?;
        let scheduler = Scheduler::from_file(&dir.join(SCHEDULER_CONFIG))?;
        check_fit(&dir.join(UNET_CONFIG), &unet_config, &vae_config, &text_config)?;
        let tokenizer = Tokenizer::from_folder(&dir.join(TOKENIZER))?.with_cleaning(Cleaning::Transformers);
        if tokenizer.vocab_size() > text_config.vocab_size {
            let expected = format!("at least {}, the tokens of `{TOKENIZER}`", tokenizer.vocab_size());
            let (origin, found) = (dir.join(TEXT_CONFIG), text_config.vocab_size);
            return Err(Error::config(
                &origin.display().to_string(),
                "vocab_size",
                expected,
                format!("`{found}`"),
            ));
        }
        let text_encoder = load_text_encoder(text_config.init(device), &dir.join(TEXT_WEIGHTS))?;
        let unet = unet_config.init(device)?.load(&dir.join(UNET_WEIGHTS))?;
        let vae = vae_config.init(device)?.load(&dir.join(VAE_WEIGHTS))?;
        Ok(Self {
            unet_config,
            unet,
            vae_config,
            vae,
            text_config,
            text_encoder,
            tokenizer,
            scheduler,
            device: device.clone(),
        })
    }

    /// Writes the model to `dir` so that diffusers loads it too; missing folders are made.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written or a parameter does not fit `dtype`.
    pub fn save_to_folder(&self, dir: &Path, dtype: SaveDtype) -> Result<(), Error> {
        for part in ["scheduler", "text_encoder", TOKENIZER, "unet", "vae"] {
            let folder = dir.join(part);
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        }
        self.scheduler.save(&dir.join(SCHEDULER_CONFIG))?;
        let constants =
            [("architectures", json!(["CLIPTextModel"])), ("model_type", json!("clip_text_model"))];
        write_json(&self.text_config, &constants, &dir.join(TEXT_CONFIG))?;
        save_text_encoder(&self.text_encoder, &dir.join(TEXT_WEIGHTS), dtype)?;
        self.unet_config.save(&dir.join(UNET_CONFIG))?;
        self.unet.save(&dir.join(UNET_WEIGHTS), dtype)?;
        self.vae_config.save(&dir.join(VAE_CONFIG))?;
        self.vae.save(&dir.join(VAE_WEIGHTS), dtype)?;
        self.tokenizer.save_to_folder(&dir.join(TOKENIZER))?;
        self.save_context_length(&dir.join(TOKENIZER_CONFIG))?;
        // Last, so that a folder that has it is whole.
        write_json(&model_index(self.scheduler.class().name()), &[], &dir.join(MODEL_INDEX))
    }

    /// Adds to the tokenizer's settings how long a prompt may be: diffusers pads to it and fails without it.
    fn save_context_length(&self, path: &Path) -> Result<(), Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let settings: Value =
            serde_json::from_str(&text).map_err(|source| Error::Json { path: path.into(), source })?;
        let length = self.text_config.max_position_embeddings;
        write_json(&settings, &[("model_max_length", json!(length))], path)
    }
}

fn model_index(scheduler: &str) -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

/// Fails if the UNet does not take the latents of the autoencoder and the tokens of the text encoder.
fn check_fit(
    origin: &Path,
    unet: &UNet2DConditionConfig,
    vae: &AutoencoderKlConfig,
    text: &TextConfig,
) -> Result<(), Error> {
    let rows = [
        ("in_channels", unet.in_channels, vae.latent_channels, "the autoencoder's `latent_channels`"),
        ("out_channels", unet.out_channels, vae.latent_channels, "the autoencoder's `latent_channels`"),
        (
            "cross_attention_dim",
            unet.cross_attention_dim,
            text.hidden_size,
            "the text encoder's `hidden_size`",
        ),
    ];
    for (field, found, expected, whose) in rows {
        if found != expected {
            let expected = format!("{whose}, `{expected}`");
            return Err(Error::config(&origin.display().to_string(), field, expected, format!("`{found}`")));
        }
    }
    Ok(())
}
