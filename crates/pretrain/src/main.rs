//! The `pretrain` binary: trains the quick start's models and writes their cards.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{Parser, Subcommand};
use clip_model::SaveDtype;
use pretrain::recipe::Recipe;
use pretrain::{AutoencoderRecipe, ClipRecipe, ImageSet, UnetRecipe, autoencoder, card, clip, images, unet};
use stage_cli::LogFormat;

/// Trains the quick start's small models from nothing and writes their cards.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Form of the log on stderr.
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// More log: `-v` for debug, `-vv` for trace.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trains a CLIP contrastively on images and their captions.
    Clip {
        #[command(flatten)]
        run: RunArgs,
    },
    /// Trains a KL autoencoder; writes `vae/` below the output folder.
    Autoencoder {
        #[command(flatten)]
        run: RunArgs,
    },
    /// Trains a text-conditioned latent UNet; writes the whole diffusers folder.
    Unet {
        #[command(flatten)]
        run: RunArgs,
        /// Folder of the CLIP whose text tower becomes the text encoder.
        #[arg(long, value_name = "DIR")]
        clip: PathBuf,
        /// Folder with the autoencoder in `vae/`.
        #[arg(long, value_name = "DIR")]
        vae: PathBuf,
    },
    /// Measures trained models on the test splits and writes their `README.md` and sample sheets.
    Card {
        #[command(flatten)]
        card: CardArgs,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Recipe: everything that can change the weights.
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Folder of an `images` artifact in a store.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Folder of the trained model; made if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder of the unfinished training; a run with the same recipe, images and device continues from it.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where the networks run: `cpu`, `cuda:<index>`, `tch-cpu` or `tch-cuda:<index>`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Steps between two saved states.
    #[arg(long, value_name = "STEPS", default_value_t = 100)]
    save_every: usize,
    /// Steps between two lines of figures.
    #[arg(long, value_name = "STEPS", default_value_t = 10)]
    log_every: usize,
    /// Stop after this many steps and write the model as it is then.
    #[arg(long, value_name = "STEPS")]
    stop_at: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct CardArgs {
    /// Folder of an `images` artifact with the splits `test` and, for the domain shift, `shift`.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Folder of the CLIP with the vision transformer.
    #[arg(long, value_name = "DIR")]
    clip_vit: PathBuf,
    /// Folder of the CLIP with the ResNet.
    #[arg(long, value_name = "DIR")]
    clip_resnet: PathBuf,
    /// Folder of the text-to-image model.
    #[arg(long, value_name = "DIR")]
    diffusion: PathBuf,
    /// Sentence with `{}` for the class name, of zero-shot classification and of prompts.
    #[arg(long, value_name = "TEXT", default_value = "an emoji of a {}")]
    template: String,
    /// Generated images per class.
    #[arg(long, value_name = "N", default_value_t = 8)]
    samples_per_class: usize,
    /// Denoising steps.
    #[arg(long, value_name = "N", default_value_t = 20)]
    num_inference_steps: usize,
    /// Weight of classifier-free guidance.
    #[arg(long, value_name = "X", default_value_t = 4.0)]
    guidance_scale: f64,
    /// Seed of the noise.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where the networks run.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
}

fn main() -> ExitCode {
    let args: Args = stage_cli::parse();
    let display = stage_cli::progress::Display::new(args.log_format == LogFormat::Text);
    stage_cli::logging::init(args.log_format, args.verbose, &display);
    stage_cli::finish(match &args.command {
        Command::Clip { run } => train_clip(run),
        Command::Autoencoder { run } => train_autoencoder(run),
        Command::Unet { run, clip, vae } => train_unet(run, clip, vae),
        Command::Card { card } => write_cards(card),
    })
}

fn open_device(name: &str) -> anyhow::Result<burn::tensor::Device> {
    Ok(name.parse::<backend::DeviceSpec>()?.open()?)
}

fn read_images(dir: &Path, split: &str, side: usize) -> anyhow::Result<ImageSet> {
    let (store, id) = images::locate(dir)?;
    ImageSet::read(&store, &id, split, side)
        .with_context(|| format!("cannot use the images in `{}`", dir.display()))
}

impl RunArgs {
    fn run<'a>(&'a self, device: &'a burn::tensor::Device) -> clip::Run<'a> {
        clip::Run {
            device,
            device_name: &self.device,
            state: &self.state,
            save_every: self.save_every.max(1),
            log_every: self.log_every,
            stop_at: self.stop_at,
        }
    }

    /// Writes what the card needs to know of this training.
    fn write_summary<R: Recipe>(
        &self,
        recipe: &R,
        images: &ImageSet,
        result: (usize, f64, usize),
    ) -> anyhow::Result<()> {
        let (step, elapsed_s, num_params) = result;
        let lines = pretrain::metrics::read(&self.state.join("metrics.jsonl"))?;
        let summary = card::TrainingSummary {
            command: R::KIND.to_owned(),
            recipe: serde_json::json!(recipe),
            images: images.origin.clone(),
            num_images: images.images.len(),
            num_labelled: images.labelled().len(),
            device: self.device.clone(),
            steps: step,
            elapsed_s,
            num_params,
            losses: card::thin(lines, 12),
        };
        Ok(summary.save(&self.out)?)
    }
}

fn train_clip(args: &RunArgs) -> anyhow::Result<()> {
    let recipe = ClipRecipe::from_file(&args.recipe)?;
    let device = open_device(&args.device)?;
    let images = read_images(&args.images, &recipe.split, clip::image_side(&recipe.model))?;
    let trained = clip::train(&recipe, &images, &args.run(&device))?;
    trained.save(&args.out, SaveDtype::F16)?;
    let num_params = burn::module::Module::num_params(&trained.clip);
    args.write_summary(&recipe, &images, (trained.step, trained.elapsed_s, num_params))
}

fn train_autoencoder(args: &RunArgs) -> anyhow::Result<()> {
    let recipe = AutoencoderRecipe::from_file(&args.recipe)?;
    let device = open_device(&args.device)?;
    let images = read_images(&args.images, &recipe.split, recipe.model.sample_size)?;
    let trained = autoencoder::train(&recipe, &images, &args.run(&device))?;
    trained.save(&args.out, SaveDtype::F16)?;
    let num_params = burn::module::Module::num_params(&trained.vae);
    args.write_summary(&recipe, &images, (trained.step, trained.elapsed_s, num_params))
}

fn train_unet(args: &RunArgs, clip: &Path, vae: &Path) -> anyhow::Result<()> {
    let recipe = UnetRecipe::from_file(&args.recipe)?;
    let device = open_device(&args.device)?;
    let frozen = unet::Frozen::load(clip, vae, &device)?;
    let expected = recipe.model.sample_size * frozen.vae_config.scale();
    if expected != frozen.vae_config.sample_size {
        return Err(anyhow!(
            "recipe field `model.sample_size`: expected `{}` latent pixels for the autoencoder's images of {} pixels, found `{}`",
            frozen.vae_config.sample_size / frozen.vae_config.scale(),
            frozen.vae_config.sample_size,
            recipe.model.sample_size
        ));
    }
    let images = read_images(&args.images, &recipe.split, frozen.vae_config.sample_size)?;
    let trained = unet::train(&recipe, &images, frozen, &args.run(&device))?;
    trained.save(&args.out, SaveDtype::F16)?;
    let num_params = burn::module::Module::num_params(&trained.model.unet);
    args.write_summary(&recipe, &images, (trained.step, trained.elapsed_s, num_params))
}

fn write_cards(args: &CardArgs) -> anyhow::Result<()> {
    let device = open_device(&args.device)?;
    let (store, id) = images::locate(&args.images)?;
    let request = card::Request {
        store: &store,
        images: &id,
        clip_vit: &args.clip_vit,
        clip_resnet: &args.clip_resnet,
        diffusion: &args.diffusion,
        template: &args.template,
        samples_per_class: args.samples_per_class,
        num_inference_steps: args.num_inference_steps,
        guidance_scale: args.guidance_scale,
        seed: args.seed,
    };
    Ok(card::write(&request, &device)?)
}
