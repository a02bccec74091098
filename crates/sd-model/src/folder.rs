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
//!
//! Weights may also be torch files (`pytorch_model.bin`, `diffusion_pytorch_model.bin`), shards with an index
//! (`*.safetensors.index.json`) and, where no full precision is there, the variant `fp16` (`*.fp16.safetensors`).

use burn::tensor::Device;
use clip_model::{Cleaning, SaveDtype, TextConfig, TextTransformer, Tokenizer};
use serde_json::{Value, json};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::config::{Fields, write_json};
use crate::sampler::StableDiffusion;
use crate::weights::{
    DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS, load_text_encoder, open_weights, save_text_encoder,
};
use crate::{
    AutoencoderKl, AutoencoderKlConfig, Error, Scheduler, SingleFile, UNet2DCondition, UNet2DConditionConfig,
};

const MODEL_INDEX: &str = "model_index.json";
pub(crate) const SCHEDULER_CONFIG: &str = "scheduler/scheduler_config.json";
pub(crate) const TEXT_CONFIG: &str = "text_encoder/config.json";
const TEXT_WEIGHTS: &str = "text_encoder/model.safetensors";
pub(crate) const UNET_CONFIG: &str = "unet/config.json";
const UNET_WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
pub(crate) const VAE_CONFIG: &str = "vae/config.json";
const VAE_WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";
pub(crate) const TOKENIZER: &str = "tokenizer";
const TOKENIZER_CONFIG: &str = "tokenizer/tokenizer_config.json";

/// What a model is before its weights are read.
pub(crate) struct Parts {
    pub unet: UNet2DConditionConfig,
    pub vae: AutoencoderKlConfig,
    pub text: TextConfig,
    pub scheduler: Scheduler,
    pub tokenizer: Tokenizer,
}

impl Parts {
    /// Reads the configurations of a diffusers folder.
    fn read(dir: &Path) -> Result<Self, Error> {
        Fields::read(&dir.join(MODEL_INDEX))?.only("_class_name", &[json!("StableDiffusionPipeline")])?;
        for component in ["scheduler", "text_encoder", TOKENIZER, "unet", "vae"] {
            if !dir.join(component).is_dir() {
                let expected = format!("the folder `{component}`");
                return Err(Error::MissingComponent { path: dir.to_owned(), component, expected });
            }
        }
        let parts = Self {
            unet: UNet2DConditionConfig::from_file(&dir.join(UNET_CONFIG))?,
            vae: AutoencoderKlConfig::from_file(&dir.join(VAE_CONFIG))?,
            text: TextConfig::from_file(&dir.join(TEXT_CONFIG))?,
            scheduler: Scheduler::from_file(&dir.join(SCHEDULER_CONFIG))?,
            tokenizer: Tokenizer::from_folder(&dir.join(TOKENIZER))?,
        };
        parts.check(&dir.join(UNET_CONFIG), &dir.join(TEXT_CONFIG))?;
        Ok(parts)
    }

    /// Fails if the UNet does not take the latents of the autoencoder and the tokens of the text encoder, or the text
    /// encoder not those of the tokenizer; `unet` and `text` are where their configurations come from.
    pub(crate) fn check(&self, unet: &Path, text: &Path) -> Result<(), Error> {
        let latents = ("the autoencoder's `latent_channels`", self.vae.latent_channels);
        let tokens = ("the text encoder's `hidden_size`", self.text.hidden_size);
        let rows = [
            ("in_channels", self.unet.in_channels, latents),
            ("out_channels", self.unet.out_channels, latents),
            ("cross_attention_dim", self.unet.cross_attention_dim, tokens),
        ];
        for (field, found, (whose, expected)) in rows {
            if found != expected {
                let expected = format!("{whose}, `{expected}`");
                return Err(Error::config(
                    &unet.display().to_string(),
                    field,
                    expected,
                    format!("`{found}`"),
                ));
            }
        }
        let (found, needed) = (self.text.vocab_size, self.tokenizer.vocab_size());
        if needed > found {
            let expected = format!("at least {needed}, the tokens of `{TOKENIZER}`");
            let origin = text.display().to_string();
            return Err(Error::config(&origin, "vocab_size", expected, format!("`{found}`")));
        }
        Ok(())
    }

    /// The model of these parts and of networks that were loaded by their configurations.
    pub(crate) fn assemble(
        self,
        unet: UNet2DCondition,
        vae: AutoencoderKl,
        text_encoder: TextTransformer,
        device: &Device,
    ) -> StableDiffusion {
        StableDiffusion {
            unet_config: self.unet,
            unet,
            vae_config: self.vae,
            vae,
            text_config: self.text,
            text_encoder,
            tokenizer: self.tokenizer.with_cleaning(Cleaning::Transformers),
            scheduler: self.scheduler,
            device: device.clone(),
        }
    }
}

impl StableDiffusion {
    /// Loads a checkpoint of either layout: a diffusers folder, a single file ([`SingleFile`]), or a folder with one.
    ///
    /// # Errors
    ///
    /// As [`from_folder`](Self::from_folder) and [`SingleFile::open`]; also if a folder holds several single files.
    pub fn from_path(path: &Path, device: &Device) -> Result<Self, Error> {
        if path.is_dir() && path.join(MODEL_INDEX).is_file() {
            return Self::from_folder(path, device);
        }
        match single_file_of(path)? {
            Some(file) => SingleFile::open(&file)?.load(device),
            None => Self::from_folder(path, device),
        }
    }

    /// Loads the diffusers folder `dir`; all parameters become f32 on `device`.
    ///
    /// # Errors
    ///
    /// Fails if a file is missing or malformed, if a configuration asks for something that is not implemented, if the
    /// parts do not fit each other, or if parameters and tensors do not match one to one.
    pub fn from_folder(dir: &Path, device: &Device) -> Result<Self, Error> {
        let parts = Parts::read(dir)?;
        let weights = |component: &str, names| open_weights(&dir.join(component), names);
        let text_encoder =
            load_text_encoder(parts.text.init(device), &weights("text_encoder", TRANSFORMERS_WEIGHTS)?)?;
        let unet = parts.unet.init(device)?.load_file(&weights("unet", DIFFUSERS_WEIGHTS)?)?;
        let vae = parts.vae.init(device)?.load_file(&weights("vae", DIFFUSERS_WEIGHTS)?)?;
        Ok(parts.assemble(unet, vae, text_encoder, device))
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

/// The single file at `path`: itself, or the one in a folder.
fn single_file_of(path: &Path) -> Result<Option<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(Some(path.to_owned()));
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<PathBuf> =
        entries.map_err(|e| Error::io(path, e))?.iter().map(DirEntry::path).collect();
    files
        .retain(|file| file.is_file() && file.extension().is_some_and(|e| e == "safetensors" || e == "ckpt"));
    files.sort();
    if files.len() > 1 {
        let names = files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()));
        return Err(
            clip_model::Error::SeveralWeights { path: path.to_owned(), names: names.collect() }.into()
        );
    }
    Ok(files.pop())
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
