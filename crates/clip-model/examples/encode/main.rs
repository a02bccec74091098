//! Embeds images and texts with published weights and writes `image_embeds` `[B, D]`, `text_embeds` `[K, D]` (rows of length
//! one) and `logits` `[B, K]` as safetensors; with `--compare` it also prints how far they are from a reference file.
//!
//! ```text
//! cargo run --release -p clip-model --example encode -- --weights DIR_OR_FILE \
//!     --images A.png B.jpg --text "a photo of a cat" --text "a photo of a dog" --out E.safetensors
//! ```
//!
//! `--weights` may also name a repository of the registry (`--weights openai/clip-vit-base-patch32`), as `--backbone` with
//! `--pretrained` does: its files are looked up in the Hugging Face cache (`HF_HUB_CACHE`, `HF_HOME`) and in `~/.cache/clip`, and
//! fetched (`HF_ENDPOINT`, `HF_TOKEN`) if they are in neither and `HF_HUB_OFFLINE` is not set.
//! `tests/golden/checkpoints.py full` writes weights to try it with.
#![allow(clippy::print_stderr)] // a command line tool

mod fetch;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use backend::DeviceSpec;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use clap::{Parser, ValueEnum};
use clip_model::{
    Activation, Backbone, Checkpoint, Clip, DecodedImage, HubCache, OpenAiCache, Pretrained, Tokenizer,
    jpeg_decoder, normalize,
};
use hub::Hub;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Images or texts that go through a tower together.
const BATCH: usize = 16;

/// Embed images and texts with a published CLIP.
#[derive(Parser)]
struct Args {
    /// Weight file or folder in any layout (OpenAI, open_clip, transformers), or a published repository such as
    /// `openai/clip-vit-base-patch32`.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Without `--weights`: backbone to look for in the caches.
    #[arg(long, default_value = "ViT-B/32")]
    backbone: String,
    /// Without `--weights`: open_clip's name of the weights.
    #[arg(long, default_value = "openai")]
    pretrained: String,
    /// Precision in which the towers compute.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// Activation of a state dict that has no configuration beside it.
    #[arg(long, value_enum)]
    activation: Option<ActivationName>,
    /// Tokenizer's folder or file (`vocab.json`, `tokenizer.json`, `bpe_simple_vocab_16e6.txt.gz`); the weights' folder if not
    /// given.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// PNG or JPEG files.
    #[arg(long, num_args = 1..)]
    images: Vec<PathBuf>,
    /// A text; may be given several times.
    #[arg(long)]
    text: Vec<String>,
    /// Cut texts that are too long instead of refusing them.
    #[arg(long)]
    truncate: bool,
    /// Where to write the embeddings.
    #[arg(long)]
    out: PathBuf,
    /// Reference file with the same tensors to compare with.
    #[arg(long)]
    compare: Option<PathBuf>,
    /// `cpu`, `tch-cpu`, `cuda:0`, ...
    #[arg(long, default_value = "cpu")]
    device: DeviceSpec,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Precision {
    F32,
    Bf16,
    F16,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum ActivationName {
    QuickGelu,
    Gelu,
}

/// Rows of f32 numbers.
struct Matrix {
    shape: [usize; 2],
    values: Vec<f32>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(
        !args.images.is_empty() || !args.text.is_empty(),
        "nothing to embed; pass `--images` or `--text`"
    );
    let device = args.device.open()?;
    let (checkpoint, clip) = load(&args, &device)?;
    let image =
        (!args.images.is_empty()).then(|| embed_images(&args, &checkpoint, &clip, &device)).transpose()?;
    let text =
        (!args.text.is_empty()).then(|| embed_texts(&args, &checkpoint, &clip, &device)).transpose()?;
    let mut out = BTreeMap::new();
    if let (Some(image), Some(text)) = (&image, &text) {
        out.insert("logits", matrix(clip.logits_per_image(image.clone(), text.clone()))?);
    }
    for (name, embeds) in [("image_embeds", image), ("text_embeds", text)] {
        if let Some(embeds) = embeds {
            out.insert(name, matrix(embeds)?);
        }
    }
    write(&args.out, &out).with_context(|| format!("cannot write `{}`", args.out.display()))?;
    eprintln!("wrote {} to `{}`", out.keys().copied().collect::<Vec<_>>().join(", "), args.out.display());
    args.compare.as_deref().map_or(Ok(()), |reference| compare(&out, reference))
}

fn find_or_fetch(model: &Pretrained) -> anyhow::Result<PathBuf> {
    let cache = HubCache::from_env();
    let client = Hub::from_env(cache.root.clone());
    fetch::find_or_fetch(model, &cache, &OpenAiCache::from_env(), &client)
}

fn load(args: &Args, device: &Device) -> anyhow::Result<(Checkpoint, Clip)> {
    let started = Instant::now();
    let path = match &args.weights {
        Some(path) if path.exists() => path.clone(),
        Some(path) => {
            let name = path.to_string_lossy();
            let context = || format!("`--weights {name}` is no file, no folder and no published repository");
            find_or_fetch(Pretrained::by_repository(&name).with_context(context)?)?
        }
        None => find_or_fetch(Pretrained::by_name(&args.backbone, &args.pretrained)?)?,
    };
    let activation = args.activation.map(|name| match name {
        ActivationName::QuickGelu => Activation::QuickGelu,
        ActivationName::Gelu => Activation::Gelu,
    });
    let checkpoint = Checkpoint::open(&path, activation)?;
    let precision = match args.precision {
        Precision::F32 => FloatDType::F32,
        Precision::Bf16 => FloatDType::BF16,
        Precision::F16 => FloatDType::F16,
    };
    let clip = checkpoint.load_as(device, precision)?;
    eprintln!(
        "`{}`: {} layout ({:?} file), {}, {:?}, in {precision:?}, loaded in {:.2} s",
        checkpoint.path().display(),
        checkpoint.layout(),
        checkpoint.format(),
        checkpoint.backbone().map_or("no published architecture", |backbone: &Backbone| backbone.name),
        checkpoint.config().text_config.hidden_act,
        started.elapsed().as_secs_f64(),
    );
    Ok((checkpoint, clip))
}

fn embed_images(
    args: &Args,
    checkpoint: &Checkpoint,
    clip: &Clip,
    device: &Device,
) -> anyhow::Result<Tensor<2>> {
    eprintln!("JPEG files are decoded by {}", jpeg_decoder());
    let mut embeds = Vec::new();
    for paths in args.images.chunks(BATCH) {
        let images = paths.iter().map(|path| DecodedImage::open(path)).collect::<Result<Vec<_>, _>>()?;
        let pixels = checkpoint.preprocess().pixel_values_of(&images, device);
        embeds.push(normalize(clip.image_features(pixels)));
    }
    Ok(Tensor::cat(embeds, 0))
}

fn embed_texts(
    args: &Args,
    checkpoint: &Checkpoint,
    clip: &Clip,
    device: &Device,
) -> anyhow::Result<Tensor<2>> {
    let beside = checkpoint.path().parent().unwrap_or(Path::new("."));
    let tokenizer = Tokenizer::open(args.tokenizer.as_deref().unwrap_or(beside))
        .context("texts need CLIP's tokenizer; name its folder or file with `--tokenizer`")?;
    let length = checkpoint.config().text_config.max_position_embeddings;
    let mut embeds = Vec::new();
    for texts in args.text.chunks(BATCH) {
        let ids = tokenizer.encode_batch(texts, length, args.truncate)?;
        let ids = TensorData::new(ids.concat(), [texts.len(), length]);
        embeds.push(normalize(clip.text_features(Tensor::<2, Int>::from_data(ids, device))));
    }
    Ok(Tensor::cat(embeds, 0))
}

fn matrix(tensor: Tensor<2>) -> anyhow::Result<Matrix> {
    let shape = tensor.dims();
    let values = tensor.try_into_vec_as::<f32>().map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Matrix { shape, values })
}

fn write(path: &Path, out: &BTreeMap<&str, Matrix>) -> anyhow::Result<()> {
    let bytes: BTreeMap<_, Vec<u8>> = out
        .iter()
        .map(|(name, matrix)| (name, matrix.values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = out
        .iter()
        .map(|(name, matrix)| Ok((*name, TensorView::new(Dtype::F32, matrix.shape.to_vec(), &bytes[name])?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(fs::write(path, safetensors::serialize(views, None)?)?)
}

/// Prints, per tensor that both files have, the smallest cosine between rows, the largest distance of rows relative to the
/// reference's length, and the largest difference.
fn compare(out: &BTreeMap<&str, Matrix>, reference: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(reference).with_context(|| format!("cannot read `{}`", reference.display()))?;
    let file = SafeTensors::deserialize(&bytes)?;
    for (name, ours) in out {
        let Ok(theirs) = file.tensor(name) else { continue };
        let expected = (theirs.shape(), theirs.dtype());
        ensure!(expected == (&ours.shape[..], Dtype::F32), "`{name}` of the reference is {expected:?}");
        let theirs: Vec<f32> =
            theirs.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let (mut cosine, mut distance, mut largest) = (f64::INFINITY, 0.0_f64, 0.0_f64);
        let columns = ours.shape[1].max(1);
        for (a, b) in ours.values.chunks_exact(columns).zip(theirs.chunks_exact(columns)) {
            let dot = |a: &[f32], b: &[f32]| {
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            };
            let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            let length = dot(b, b).sqrt();
            cosine = cosine.min(dot(a, b) / (dot(a, a).sqrt() * length));
            distance = distance.max(dot(&difference, &difference).sqrt() / length);
            largest = difference.iter().fold(largest, |largest, value| largest.max(f64::from(value.abs())));
        }
        eprintln!(
            "{name}: cosine >= {cosine:.9}, relative error <= {distance:.2e}, largest difference {largest:.2e}"
        );
    }
    Ok(())
}
