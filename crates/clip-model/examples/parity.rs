//! Compares full-size towers with the references that `tests/scale/parity.py` writes; prints a Markdown table.
//!
//! Usage: `parity FOLDER [BACKBONE...]`, a folder of folders with a checkpoint and `reference.safetensors` each.
//! Embeddings: largest relative error of a row, `|ours - reference| / |reference|` (Euclidean). Gradients of one training step:
//! largest relative error of a layer's gradient norm. With `--precision bf16` or `f16` the towers compute in it, the references stay
//! f32, and no step is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, FloatDType, Gradients, Int, Tensor, TensorData};
use clap::Parser;
use clip_model::{Checkpoint, Clip, normalize};
use safetensors::SafeTensors;

/// Bound on the relative error of embeddings.
const EMBEDDINGS: f64 = 1e-4;
/// Bound on the relative error of a layer's gradient norm.
const GRADIENTS: f64 = 1e-3;

#[derive(Clone, Copy, clap::ValueEnum)]
enum Precision {
    F32,
    Bf16,
    F16,
}

impl Precision {
    fn dtype(self) -> FloatDType {
        match self {
            Precision::F32 => FloatDType::F32,
            Precision::Bf16 => FloatDType::BF16,
            Precision::F16 => FloatDType::F16,
        }
    }

    /// Bound on the relative error of embeddings: some roundings of 2^-9 and 2^-12 in every layer, which partly cancel.
    fn bound(self) -> f64 {
        match self {
            Precision::F32 => EMBEDDINGS,
            Precision::Bf16 => 6e-2,
            Precision::F16 => 6e-3,
        }
    }
}

#[derive(Parser)]
struct Args {
    /// Folder that `parity.py` wrote.
    folder: PathBuf,
    /// The backbones to compare, by open_clip's names; all if none is named.
    backbones: Vec<String>,
    /// Where the towers run.
    #[arg(long, default_value = "cpu")]
    device: backend::DeviceSpec,
    /// What the towers compute in.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
}

#[allow(clippy::print_stdout)] // the table is the output
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = args.device.open()?;
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&args.folder)
        .with_context(|| format!("cannot read `{}`", args.folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    folders.retain(|folder| {
        // `ViT-B-32-open_clip` is a ViT-B-32.
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let backbone = name.rsplit_once('-').map_or(&*name, |(backbone, _)| backbone);
        let is_asked = args.backbones.is_empty() || args.backbones.iter().any(|asked| asked == backbone);
        is_asked && folder.join("reference.safetensors").is_file()
    });
    folders.sort();
    ensure!(!folders.is_empty(), "no references in `{}`; run `parity.py` first", args.folder.display());
    println!("| checkpoint | image | text | logits | loss | gradient norms (layers) | s |");
    println!("|---|---|---|---|---|---|---|");
    let mut has_failed = false;
    for folder in folders {
        let start = Instant::now();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let row = compare(&folder, &device, args.precision)
            .with_context(|| format!("in `{}`", folder.display()))?;
        let Row { image, text, logits, step } = row;
        has_failed |= image.max(text).max(logits) > args.precision.bound();
        let step = step.map(|step| {
            has_failed |= step.loss > EMBEDDINGS || step.gradients > GRADIENTS;
            format!("{:.1e} | {:.1e} ({})", step.loss, step.gradients, step.layers)
        });
        let (step, seconds) = (step.unwrap_or_else(|| "- | -".to_owned()), start.elapsed().as_secs_f64());
        println!("| {name} | {image:.1e} | {text:.1e} | {logits:.1e} | {step} | {seconds:.0} |");
    }
    if has_failed {
        let embeddings = args.precision.bound();
        bail!(
            "above the bounds: {embeddings:e} for embeddings, {EMBEDDINGS:e} for the loss, {GRADIENTS:e} for gradient norms"
        );
    }
    Ok(())
}

/// Relative errors.
struct Row {
    image: f64,
    text: f64,
    logits: f64,
    /// Of a training step in f32.
    step: Option<Step>,
}

struct Step {
    loss: f64,
    gradients: f64,
    layers: usize,
}

fn compare(folder: &Path, device: &Device, precision: Precision) -> anyhow::Result<Row> {
    let bytes = std::fs::read(folder.join("reference.safetensors"))?;
    let reference = SafeTensors::deserialize(&bytes)?;
    let clip = Checkpoint::open(folder, None)?.load_as(device, precision.dtype())?;
    let frozen = clip.clone().valid();
    let text = normalize(frozen.text_features(ids(&reference, device)?));
    let image = normalize(frozen.image_features(pixels(&reference, device)?));
    let logits = frozen.logits_per_image(image.clone(), text.clone());
    let row = |name, ours: Tensor<2>| relative_rows(name, ours, &reference);
    let (image, text, logits) =
        (row("image_embeds", image)?, row("text_embeds", text)?, row("logits", logits)?);
    drop(frozen);
    let is_exact = matches!(precision, Precision::F32);
    let step = is_exact.then(|| compare_step(clip, &reference, device)).transpose()?;
    Ok(Row { image, text, logits, step })
}

fn compare_step(clip: Clip, reference: &SafeTensors<'_>, device: &Device) -> anyhow::Result<Step> {
    let clip = clip.train();
    let autodiff = device.clone().autodiff();
    let loss = contrastive_loss(&clip, reference, &autodiff)?;
    let expected = f64::from(floats(reference, "loss")?[0]);
    let loss_error = (f64::from(loss.clone().into_scalar::<f32>()) - expected).abs() / expected;
    let gradients = loss.backward();
    let mut visitor = LayerNorms { gradients: &gradients, names: Vec::new(), squares: BTreeMap::new() };
    clip.visit(&mut visitor);
    let mut worst: f64 = 0.0;
    for (layer, square) in &visitor.squares {
        let expected = f64::from(floats(reference, &format!("grad_norm.{layer}"))?[0]);
        worst = worst.max((square.sqrt() - expected).abs() / expected);
    }
    let layers = visitor.squares.len();
    let expected = reference.names().iter().filter(|name| name.starts_with("grad_norm.")).count();
    ensure!(layers == expected, "{layers} layers have gradients, the reference has {expected}");
    Ok(Step { loss: loss_error, gradients: worst, layers })
}

fn contrastive_loss(clip: &Clip, reference: &SafeTensors<'_>, device: &Device) -> anyhow::Result<Tensor<1>> {
    let text = clip.text_features(ids(reference, device)?);
    let image = clip.image_features(pixels(reference, device)?);
    let logits = clip.logits_per_image(image, text);
    let diagonal = |logits: Tensor<2>| {
        let [batch, _] = logits.dims();
        let labels = Tensor::<1, Int>::arange(0..batch as i64, &logits.device()).unsqueeze_dim(1);
        log_softmax(logits, 1).gather(1, labels).mean().neg()
    };
    Ok((diagonal(logits.clone()) + diagonal(logits.transpose())) / 2.0)
}

/// Sums squared gradients by layer.
struct LayerNorms<'a> {
    gradients: &'a Gradients,
    names: Vec<(String, bool)>,
    squares: BTreeMap<String, f64>,
}

impl ModuleVisitor for LayerNorms<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.names.push((name.to_owned(), container.starts_with("Enum:")));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.names.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad(self.gradients) else { return };
        let square = f64::from(gradient.powi_scalar(2).sum().into_scalar::<f32>());
        let names: Vec<&str> = self.names.iter().filter(|(_, v)| !v).map(|(name, _)| name.as_str()).collect();
        *self.squares.entry(layer(&names)).or_default() += square;
    }
}

/// The layer of a parameter, as `parity.py` names it.
fn layer(path: &[&str]) -> String {
    let path: Vec<&str> = path.iter().flat_map(|name| name.split('.')).collect();
    if path.contains(&"logit_scale") {
        return "logit_scale".to_owned();
    }
    let is_image = path.iter().any(|name| ["vision", "visual_projection"].contains(name));
    let tower = if is_image { "image" } else { "text" };
    let number = |at: usize| path.get(at + 1).copied().unwrap_or_default();
    if let Some(at) = path.iter().position(|name| *name == "layers") {
        return format!("{tower}.layers.{}", number(at));
    }
    if let Some(at) = path.iter().position(|name| ["layer1", "layer2", "layer3", "layer4"].contains(name)) {
        return format!("{tower}.{}.{}", path[at], number(at));
    }
    let head = ["attnpool", "post_layernorm", "final_layer_norm", "text_projection", "visual_projection"];
    let part = if path.iter().any(|name| head.contains(name)) { "head" } else { "stem" };
    format!("{tower}.{part}")
}

fn floats(reference: &SafeTensors<'_>, name: &str) -> anyhow::Result<Vec<f32>> {
    let tensor = reference.tensor(name).with_context(|| format!("no `{name}` in the reference"))?;
    Ok(tensor.data().as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect())
}

/// `[B, 3, S, S]`
fn pixels(reference: &SafeTensors<'_>, device: &Device) -> anyhow::Result<Tensor<4>> {
    let shape = reference.tensor("pixel_values")?.shape().to_vec();
    Ok(Tensor::from_data(TensorData::new(floats(reference, "pixel_values")?, shape), device))
}

/// `[B, T]`
fn ids(reference: &SafeTensors<'_>, device: &Device) -> anyhow::Result<Tensor<2, Int>> {
    let tensor = reference.tensor("input_ids")?;
    let ids: Vec<i64> = tensor.data().as_chunks::<8>().0.iter().copied().map(i64::from_le_bytes).collect();
    Ok(Tensor::from_data(TensorData::new(ids, tensor.shape().to_vec()), device))
}

/// Largest relative error of a row of `[B, D]`.
fn relative_rows(name: &str, ours: Tensor<2>, reference: &SafeTensors<'_>) -> anyhow::Result<f64> {
    let [_, width] = ours.dims();
    let ours = ours.into_data().try_into_vec::<f32>()?;
    let expected = floats(reference, name)?;
    ensure!(ours.len() == expected.len(), "`{name}` has {} values, expected {}", ours.len(), expected.len());
    let row = |(a, b): (&[f32], &[f32])| {
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let difference = square(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        difference / square(&mut b.iter().map(|b| f64::from(*b)))
    };
    Ok(ours.chunks_exact(width).zip(expected.chunks_exact(width)).map(row).fold(0.0, f64::max))
}
