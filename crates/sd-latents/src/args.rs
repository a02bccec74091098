//! Arguments of the binary.

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};
use pipeline_spec::ArtifactId;
use pipeline_spec::spec::{HalfType, LatentsOptions, LongPrompts, Scheduler, TimestepSpacing};
use sd_latents::sample::Request;
use sd_latents::sheet::Show;
use stage_cli::{DeviceArgs, StageArgs};

/// Draws latents and images from prompts with Stable Diffusion.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub stage: StageArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Samples that go through the UNet together; does not change them beyond the last digits.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
}

/// Draw a contact sheet of latents beside their images.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Folder of the artifacts.
    #[arg(long, value_name = "DIR", env = "FLIER_STORE", default_value = "store")]
    pub store: PathBuf,
    /// The artifact: its path below the store, `latents-v1/<dataset>/<slug>-<key>`.
    #[arg(long, value_name = "ID")]
    pub artifact: ArtifactId,
    /// One part of it, which may be of an artifact that is not finished.
    #[arg(long, value_name = "N")]
    part: Option<u32>,
    /// The PNG file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Samples of each class at most.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    per_class: u16,
    /// Longest side of a tile in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    tile: u16,
}

/// Write a page with images, latents and prompts that opens from disk, to filter by class.
#[derive(Debug, Args)]
pub struct GalleryArgs {
    /// Folder of the artifacts.
    #[arg(long, value_name = "DIR", env = "FLIER_STORE", default_value = "store")]
    pub store: PathBuf,
    /// The artifact: its path below the store, `latents-v1/<dataset>/<slug>-<key>`.
    #[arg(long, value_name = "ID")]
    pub artifact: ArtifactId,
    /// A new folder for the page and its pictures.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Samples of each class at most.
    #[arg(long, value_name = "N", default_value_t = u32::MAX, hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub per_class: u32,
}

impl ShowArgs {
    /// What is shown.
    pub fn show(&self) -> Show {
        Show { part: self.part, per_class: usize::from(self.per_class), tile: u32::from(self.tile) }
    }
}

/// Draw one sample of a checkpoint: its latent and its image.
#[derive(Debug, Args)]
pub struct SampleArgs {
    /// Stable Diffusion: a folder in diffusers' layout.
    #[arg(long, value_name = "DIR")]
    weights: PathBuf,
    /// Where the networks run: `cpu`, and with other builds `cuda:0`, `tch-cpu`, `tch-cuda:0`.
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub device: String,
    /// The prompt.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// The negative prompt.
    #[arg(long, value_name = "TEXT", default_value = "")]
    negative: String,
    /// Seed of the noise.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Denoising steps.
    #[arg(long, value_name = "N", default_value_t = 50)]
    num_inference_steps: u16,
    /// Weight of classifier-free guidance; 1 turns it off.
    #[arg(long, value_name = "X", default_value_t = 7.5)]
    guidance_scale: f64,
    /// Sampler [default: the checkpoint's own].
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(Scheduler::ALL.map(Scheduler::name)))]
    scheduler: Option<String>,
    /// Height of the image in pixels [default: the checkpoint's own].
    #[arg(long, value_name = "PIXELS")]
    height: Option<u32>,
    /// Width of the image in pixels [default: the checkpoint's own].
    #[arg(long, value_name = "PIXELS")]
    width: Option<u32>,
    /// safetensors file with the starting noise: its tensor `noise`, or its only one, f32 `[1, C, H, W]`.
    #[arg(long, value_name = "FILE")]
    noise: Option<PathBuf>,
    /// safetensors file to write: `latents` (scaled) and `image` (0 to 1).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// PNG file to write.
    #[arg(long, value_name = "FILE")]
    png: PathBuf,
    /// How the timesteps are spread [default: as the checkpoint says].
    #[arg(long, value_name = "NAME")]
    timestep_spacing: Option<Spacing>,
    /// Spread the noise levels as Karras et al.; with `euler` and `dpm-solver-multistep`.
    #[arg(long)]
    karras: bool,
    /// Share of fresh noise in each step of `ddim`.
    #[arg(long, value_name = "X")]
    eta: Option<f64>,
    /// Share of the guided prediction that is scaled back to the deviation of the prompted one.
    #[arg(long, value_name = "X")]
    guidance_rescale: Option<f64>,
    /// Number type of UNet and text encoder.
    #[arg(long, value_name = "NAME", default_value = "f32")]
    dtype: NumberType,
    /// Cut a prompt beyond the text encoder's context instead of refusing it.
    #[arg(long)]
    truncate: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Spacing {
    Leading,
    Trailing,
    Linspace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum NumberType {
    F32,
    Bf16,
    F16,
}

impl SampleArgs {
    /// What is drawn.
    pub fn request(self) -> Request {
        let options = LatentsOptions {
            timestep_spacing: self.timestep_spacing.map(|spacing| match spacing {
                Spacing::Leading => TimestepSpacing::Leading,
                Spacing::Trailing => TimestepSpacing::Trailing,
                Spacing::Linspace => TimestepSpacing::Linspace,
            }),
            use_karras_sigmas: self.karras.then_some(true),
            eta: self.eta,
            guidance_rescale: self.guidance_rescale,
            dtype: match self.dtype {
                NumberType::F32 => None,
                NumberType::Bf16 => Some(HalfType::Bf16),
                NumberType::F16 => Some(HalfType::F16),
            },
            long_prompts: self.truncate.then_some(LongPrompts::Truncate),
            latent_steps: None,
        };
        let named = |name: String| Scheduler::ALL.into_iter().find(|s| s.name() == name);
        Request {
            weights: self.weights,
            prompt: self.prompt,
            negative: self.negative,
            seed: self.seed,
            num_inference_steps: usize::from(self.num_inference_steps),
            guidance_scale: self.guidance_scale,
            scheduler: self.scheduler.and_then(named),
            options,
            height: self.height,
            width: self.width,
            noise: self.noise,
            out: self.out,
            png: self.png,
        }
    }
}
