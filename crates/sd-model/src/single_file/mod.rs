//! The single file in which Stable Diffusion was first published: `v1-5-pruned.safetensors`, `v2-1_512-ema-pruned.ckpt`.
//!
//! It holds the tensors of all three networks under the names of the latent diffusion code (`model.diffusion_model.*`,
//! `first_stage_model.*`, `cond_stage_model.*`) and nothing else: no configuration and no tokenizer. What lies beside it
//! in the form of a diffusers folder (`unet/config.json`, `scheduler/scheduler_config.json`, ...) is read, as diffusers
//! does with `config=`; the rest of the configuration follows from the shapes of the tensors and from the file's name. A
//! tokenizer has to lie beside it, in `tokenizer`. Of files with two UNets the one without averaging is read, as in
//! diffusers.

mod infer;
mod names;

use burn::tensor::{Device, FloatDType};
use clip_model::{KeyTable, TensorFile, TextConfig, Tokenizer};
use std::path::Path;

use crate::checkpoints::{Pretrained, scheduler_config};
use crate::folder::{Parts, SCHEDULER_CONFIG, TEXT_CONFIG, TOKENIZER, UNET_CONFIG, VAE_CONFIG};
use crate::sampler::StableDiffusion;
use crate::{AutoencoderKlConfig, Error, PredictionType, Scheduler, SchedulerClass, UNet2DConditionConfig};

/// An open single-file checkpoint: its configurations are known, its tensors are not read yet.
pub struct SingleFile {
    file: TensorFile,
    tower: TextTower,
    parts: Parts,
}

/// Which text encoder a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextTower {
    /// Stable Diffusion 1: transformers' `CLIPTextModel`, with `text_model` in its names or without.
    Clip {
        /// Whether the names have it.
        has_text_model: bool,
    },
    /// Stable Diffusion 2: open_clip's tower, whose last layer is left out.
    OpenClip,
}

impl SingleFile {
    /// Opens a safetensors or torch file (`.ckpt`); reads names and shapes only.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or is damaged, if it lacks a network or holds another one, if a configuration or
    /// the tokenizer beside it cannot be used, or if nothing tells what the UNet predicts.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = TensorFile::open(path)?;
        let tower = TextTower::of(&file)?;
        names::check_rest(&file)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let published = Pretrained::by_file_name(path);
        let beside = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        let scheduler = match beside(SCHEDULER_CONFIG) {
            Some(path) => Scheduler::from_file(&path)?,
            None => {
                Scheduler::new(SchedulerClass::Ddim, scheduler_config(prediction(&file, tower, published)?))?
            }
        };
        // Nothing but the name tells the resolution; of the published models those that predict the velocity have 768.
        let resolution = match (published, scheduler.config().prediction_type()) {
            (Some(published), _) => published.resolution,
            (None, PredictionType::VPrediction) => 768,
            (None, _) => 512,
        };
        let vae = match beside(VAE_CONFIG) {
            Some(path) => AutoencoderKlConfig::from_file(&path)?,
            None => infer::autoencoder(&file, resolution)?,
        };
        let unet = match beside(UNET_CONFIG) {
            Some(path) => UNet2DConditionConfig::from_file(&path)?,
            None => infer::unet(&file, resolution / vae.scale())?,
        };
        let text = match beside(TEXT_CONFIG) {
            Some(path) => TextConfig::from_file(&path)?,
            None => infer::text(&file, tower)?,
        };
        let tokenizer = Tokenizer::from_folder(&folder.join(TOKENIZER))?;
        let tokenizer = match tower {
            TextTower::Clip { .. } => {
                let end = tokenizer.eos_token_id();
                tokenizer.with_pad_token_id(end)
            }
            TextTower::OpenClip => tokenizer.with_pad_token_id(0),
        };
        let parts = Parts { unet, vae, text, scheduler, tokenizer };
        let origin = |name: &str| beside(name).unwrap_or_else(|| path.to_owned());
        parts.unet.validate(&path.display().to_string())?;
        parts.vae.validate(&path.display().to_string())?;
        parts.text.validate(path)?;
        parts.check(&origin(UNET_CONFIG), &origin(TEXT_CONFIG))?;
        Ok(Self { file, tower, parts })
    }

    /// Shape of the UNet.
    pub fn unet_config(&self) -> &UNet2DConditionConfig {
        &self.parts.unet
    }

    /// Shape of the autoencoder.
    pub fn vae_config(&self) -> &AutoencoderKlConfig {
        &self.parts.vae
    }

    /// Shape of the text encoder.
    pub fn text_config(&self) -> &TextConfig {
        &self.parts.text
    }

    /// The noise schedule.
    pub fn scheduler(&self) -> &Scheduler {
        &self.parts.scheduler
    }

    /// How the parameters of text encoder, UNet and autoencoder are spelled in the file.
    pub fn key_tables(&self) -> [KeyTable; 3] {
        let Parts { unet, vae, text, .. } = &self.parts;
        [names::text(self.tower, text), names::unet(unet), names::autoencoder(vae)]
    }

    /// Loads the model; all parameters become f32 on `device`.
    ///
    /// # Errors
    ///
    /// Fails unless parameters and tensors match one to one, and if the file turns out damaged.
    pub fn load(self, device: &Device) -> Result<StableDiffusion, Error> {
        let [text, unet, vae] = self.key_tables();
        let Self { file, parts, .. } = self;
        let text_encoder = file.load(parts.text.init(device), &text, FloatDType::F32)?;
        let unet = file.load(parts.unet.init(device)?, &unet, FloatDType::F32)?;
        let vae = file.load(parts.vae.init(device)?, &vae, FloatDType::F32)?;
        Ok(parts.assemble(unet, vae, text_encoder, device))
    }
}

/// What the UNet predicts: every Stable Diffusion 1 the noise, a Stable Diffusion 2 what its name says.
fn prediction(
    file: &TensorFile,
    tower: TextTower,
    published: Option<&Pretrained>,
) -> Result<PredictionType, Error> {
    match (published, tower) {
        (Some(published), _) => Ok(published.prediction_type),
        (None, TextTower::Clip { .. }) => Ok(PredictionType::Epsilon),
        (None, TextTower::OpenClip) => {
            Err(Error::UnknownPrediction { path: file.path().to_owned(), expected: SCHEDULER_CONFIG })
        }
    }
}
