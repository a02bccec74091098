//! Trains the quick start's small models from nothing: a CLIP, a KL autoencoder and a text-conditioned latent UNet.
//!
//! The networks are those of `clip-model` and `sd-model` at small sizes, the images are the `base` split of an `images`
//! artifact, the results are folders in the layouts of transformers and diffusers. A *recipe* (TOML, one per model)
//! says everything that can change the weights; paths, device and the folder of the training state are arguments.
//!
//! Training is resumable: every random number is a function of (seed, purpose, step), the state is published by one
//! rename, and a resumed run on the same device continues bit for bit.

pub mod augment;
pub mod autoencoder;
pub mod caption;
pub mod card;
pub mod clip;
pub mod ema;
mod error;
pub mod images;
pub mod metrics;
pub mod optimizer;
pub mod recipe;
pub mod rng;
pub mod sheet;
pub mod state;
pub mod unet;

pub use error::Error;
pub use images::{ImageSet, TrainingImage};
pub use recipe::{AutoencoderRecipe, ClipRecipe, UnetRecipe};
