//! Stable Diffusion 1 and 2 in burn: UNet, autoencoder, schedulers, noise and sampler.
//!
//! The text encoder is `clip-model`'s. Names of types, fields and files are those of diffusers; a diffusers folder
//! loads as it is ([`StableDiffusion::from_folder`]) and what this crate saves loads in diffusers. The single files of the
//! first publications load too ([`SingleFile`]).
//!
//! A latent is *raw* as the autoencoder makes it, or *scaled*: times [`AutoencoderKlConfig::scaling_factor`]. The UNet
//! and the scheduler see scaled latents.

pub mod autoencoder;
pub mod checkpoints;
pub mod config;
mod error;
mod folder;
mod noise;
mod resnet;
mod sampler;
pub mod schedulers;
mod single_file;
pub mod unet;
mod weights;

pub use autoencoder::{AutoencoderKl, AutoencoderTiny, DiagonalGaussian};
pub use config::{
    AttentionHeadDim, AutoencoderKlConfig, AutoencoderTinyConfig, BetaSchedule, DownBlockType, FinalSigmas,
    PredictionType, SchedulerClass, SchedulerConfig, TimestepSpacing, UNet2DConditionConfig, UpBlockType,
};
pub use error::Error;
pub use noise::{noise, step_noise};
pub use resnet::{Downsample2D, ResnetBlock2D, Upsample2D};
pub use sampler::{SampleRequest, StableDiffusion, Step, to_rgb_images};
pub use schedulers::{Denoising, Scheduler};
pub use single_file::SingleFile;
pub use unet::UNet2DCondition;
