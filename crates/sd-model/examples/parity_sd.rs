//! Compares full-size Stable Diffusion models with the references that `tests/scale/parity.py` writes; prints a Markdown table.
//!
//! Usage: `parity_sd FOLDER CHECKPOINT...`, a folder of diffusers folders with `reference.safetensors` each. A figure is the
//! relative error `|ours - reference| / |reference|` (Euclidean), the largest of a batch.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use safetensors::SafeTensors;
use sd_model::StableDiffusion;

/// Bound on the relative errors.
const BOUND: f64 = 1e-3;
/// As in `parity.py`.
const GUIDANCE_SCALE: f64 = 7.5;
/// As in `parity.py`.
const STEPS: usize = 4;

#[derive(Parser)]
struct Args {
    /// Folder that `parity.py` wrote.
    folder: PathBuf,
    /// The checkpoints to compare.
    checkpoints: Vec<String>,
    /// Where the networks run.
    #[arg(long, default_value = "cpu")]
    device: backend::DeviceSpec,
}

#[allow(clippy::print_stdout)] // the table is the output
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = args.device.open()?;
    ensure!(!args.checkpoints.is_empty(), "name at least one checkpoint");
    println!(
        "| checkpoint | text states | UNet call | encode: mean / log variance | decode | 4 steps of DDIM | s |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut worst: f64 = 0.0;
    for checkpoint in &args.checkpoints {
        let start = Instant::now();
        let folder = args.folder.join(checkpoint);
        let row = compare(&folder, &device).with_context(|| format!("in `{}`", folder.display()))?;
        let [text, unet, mean, logvar, decoded, latents] = row;
        worst = row.into_iter().fold(worst, f64::max);
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "| {checkpoint} | {text:.1e} | {unet:.1e} | {mean:.1e} / {logvar:.1e} | {decoded:.1e} | {latents:.1e} | {seconds:.0} |"
        );
    }
    if worst > BOUND {
        bail!("a relative error is {worst:e}, above the bound {BOUND:e}");
    }
    Ok(())
}

/// Relative errors of text states, UNet call, moments, decoded image and sampled latents.
fn compare(folder: &Path, device: &Device) -> anyhow::Result<[f64; 6]> {
    let bytes = std::fs::read(folder.join("reference.safetensors"))?;
    let reference = Reference { tensors: SafeTensors::deserialize(&bytes)?, device };
    let model = StableDiffusion::from_folder(folder, device)?;

    let states = model.text_encoder.forward(reference.ids("input_ids")?).last_hidden_state;
    let text = reference.error("text_states", states.clone())?;

    let sample = reference.floats::<4>("sample")?;
    let batch = sample.dims()[0];
    let output =
        model.unet.forward(sample, reference.floats("timesteps")?, states.clone().narrow(0, 0, batch));
    let unet = reference.error("output", output)?;

    let posterior = model.vae.encode(reference.floats("pixels")?);
    let mean = reference.error("mean", posterior.mean)?;
    let logvar = reference.error("logvar", posterior.logvar)?;
    let decoded = reference.error("decoded", model.vae.decode(reference.floats("vae_latents")?))?;

    let (prompt, negative) = (states.clone().narrow(0, 0, 1), states.narrow(0, 2, 1));
    let latents = model.sample(prompt, negative, reference.floats("noise")?, STEPS, GUIDANCE_SCALE)?;
    let latents = reference.error("latents", latents)?;
    Ok([text, unet, mean, logvar, decoded, latents])
}

struct Reference<'a> {
    tensors: SafeTensors<'a>,
    device: &'a Device,
}

impl Reference<'_> {
    fn floats<const D: usize>(&self, name: &str) -> anyhow::Result<Tensor<D>> {
        let tensor = self.tensors.tensor(name).with_context(|| format!("no `{name}` in the reference"))?;
        let values: Vec<f32> =
            tensor.data().as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect();
        Ok(Tensor::from_data(TensorData::new(values, tensor.shape().to_vec()), self.device))
    }

    fn ids(&self, name: &str) -> anyhow::Result<Tensor<2, Int>> {
        let tensor = self.tensors.tensor(name).with_context(|| format!("no `{name}` in the reference"))?;
        let ids: Vec<i64> =
            tensor.data().as_chunks::<8>().0.iter().copied().map(i64::from_le_bytes).collect();
        Ok(Tensor::from_data(TensorData::new(ids, tensor.shape().to_vec()), self.device))
    }

    /// The largest relative error among the samples of the batch.
    fn error<const D: usize>(&self, name: &str, ours: Tensor<D>) -> anyhow::Result<f64> {
        let expected = self.floats::<D>(name)?;
        ensure!(
            ours.dims() == expected.dims(),
            "`{name}` is {:?}, expected {:?}",
            ours.dims(),
            expected.dims()
        );
        let norms = |x: Tensor<D>| -> anyhow::Result<Vec<f64>> {
            let length = x.dims()[1..].iter().product();
            let values = x.try_into_vec_as::<f32>()?;
            let norm = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            Ok(values.chunks_exact(length).map(norm).collect())
        };
        let pairs = norms(ours - expected.clone())?.into_iter().zip(norms(expected)?);
        let errors = pairs.map(|(difference, norm)| difference / norm);
        // A NaN counts as the largest.
        Ok(errors.fold(0.0, |largest, e| if e.is_nan() { f64::INFINITY } else { e.max(largest) }))
    }
}
