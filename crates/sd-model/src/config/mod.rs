//! Shapes of the networks and of the schedule, in the field names of diffusers' JSON files.
//!
//! A field that does not concern these networks is ignored, as in diffusers. A field that would change the
//! computation in a way this crate does not implement is an error, never ignored.

mod autoencoder;
mod autoencoder_tiny;
mod fields;
mod scheduler;
mod unet;

pub use autoencoder::AutoencoderKlConfig;
pub use autoencoder_tiny::AutoencoderTinyConfig;
pub use scheduler::{
    BetaSchedule, FinalSigmas, PredictionType, SchedulerClass, SchedulerConfig, TimestepSpacing,
};
pub use unet::{AttentionHeadDim, DownBlockType, UNet2DConditionConfig, UpBlockType};

pub(crate) use fields::{Fields, write_json};
