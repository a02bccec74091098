//! Compares full-size towers with the references that `tests/scale/parity.py` writes; prints a Markdown table.
//!
//! Usage: `parity FOLDER [BACKBONE...]`, a folder of folders with a checkpoint and `reference.safetensors` each.
//! Embeddings: largest relative error of a row, `|ours - reference| / |reference|` (Euclidean). Gradients of one training step:
//! largest relative error of a layer's gradient norm.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use clap::Parser;
use clip_model::{Checkpoint, Clip, normalize};
use safetensors::SafeTensors;

/// Bound on the relative error of embeddings.
const EMBEDDINGS: f64 = 1e-4;
/// Bound on the relative error of a layer's gradient norm.
const GRADIENTS: f64 = 1e-3;

#[derive(Parser)]
struct Args {
    /// Folder that `parity.py` wrote.
    folder: PathBuf,
    /// The backbones to compare, by open_clip's names; all if none is named.
    backbones: Vec<String>,
    /// Where the towers run.
    #[arg(long, default_value = "cpu")]
    device: backend::DeviceSpec,
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
        let row = compare(&folder, &device).with_context(|| format!("in `{}`", folder.display()))?;
        has_failed |= row.embeddings() > EMBEDDINGS || row.gradients > GRADIENTS;
        let Row { image, text, logits, loss, gradients, layers } = row;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "| {name} | {image:.1e} | {text:.1e} | {logits:.1e} | {loss:.1e} | {gradients:.1e} ({layers}) | {seconds:.0} |"
        );
    }
    if has_failed {
        bail!("above the bounds: {EMBEDDINGS:e} for embeddings, {GRADIENTS:e} for gradient norms");
    }
    Ok(())
}

/// Relative errors.
struct Row {
    image: f64,
    text: f64,
    logits: f64,
    loss: f64,
    gradients: f64,
    layers: usize,
}

impl Row {
    fn embeddings(&self) -> f64 {
        self.image.max(self.text).max(self.logits).max(self.loss)
    }
}

fn compare(folder: &Path, device: &Device) -> anyhow::Result<Row> {
    let bytes = std::fs::read(folder.join("reference.safetensors"))?;
    let reference = SafeTensors::deserialize(&bytes)?;
    let clip = Checkpoint::open(folder, None)?.load(device)?;
    let frozen = clip.clone().valid();
    let text = normalize(frozen.text_features(ids(&reference, device)?));
    let image = normalize(frozen.image_features(pixels(&reference, device)?));
    let logits = frozen.logits_per_image(image.clone(), text.clone());
    let row = |name, ours: Tensor<2>| relative_rows(name, ours, &reference);
    let (image, text, logits) =
        (row("image_embeds", image)?, row("text_embeds", text)?, row("logits", logits)?);
    drop(frozen);

    let clip = clip.train();
    let autodiff = device.clone().autodiff();
    let loss = contrastive_loss(&clip, &reference, &autodiff)?;
    let expected = f64::from(floats(&reference, "loss")?[0]);
    let loss_error = (f64::from(loss.clone().into_scalar::<f32>()) - expected).abs() / expected;
    let gradients = loss.backward();
    let mut visitor = LayerNorms { gradients: &gradients, names: Vec::new(), squares: BTreeMap::new() };
    clip.visit(&mut visitor);
    let mut worst: f64 = 0.0;
    for (layer, square) in &visitor.squares {
        let expected = f64::from(floats(&reference, &format!("grad_norm.{layer}"))?[0]);
        worst = worst.max((square.sqrt() - expected).abs() / expected);
    }
    let layers = visitor.squares.len();
    let expected = reference.names().iter().filter(|name| name.starts_with("grad_norm.")).count();
    ensure!(layers == expected, "{layers} layers have gradients, the reference has {expected}");
    Ok(Row { image, text, logits, loss: loss_error, gradients: worst, layers })
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
