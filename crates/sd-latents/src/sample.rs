//! `sd-latents sample`: one sample of a checkpoint, for checking by anyone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use pipeline_spec::spec::{LatentsOptions, LongPrompts, Scheduler};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sd_model::{SampleRequest, StableDiffusion, noise, step_noise, to_rgb_images};

use crate::generate::{check_latent, too_long};
use crate::picture::encode_png;
use crate::{Error, model};

/// What is drawn, and where it goes.
#[derive(Debug, Clone)]
pub struct Request {
    /// Stable Diffusion in diffusers' layout.
    pub weights: PathBuf,
    /// The prompt.
    pub prompt: String,
    /// The negative prompt, often empty.
    pub negative: String,
    /// Seed of the noise.
    pub seed: u64,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// Weight of classifier-free guidance; 1.0 turns it off.
    pub guidance_scale: f64,
    /// The sampler; `None` for the one that the checkpoint names.
    pub scheduler: Option<Scheduler>,
    /// Settings of the sampler beyond those.
    pub options: LatentsOptions,
    /// Height of the image in pixels; `None` for the checkpoint's own.
    pub height: Option<u32>,
    /// Width of the image in pixels; `None` for the checkpoint's own.
    pub width: Option<u32>,
    /// File with the starting noise; `None` to draw it from the seed.
    pub noise: Option<PathBuf>,
    /// safetensors file to write.
    pub out: PathBuf,
    /// PNG file to write.
    pub png: PathBuf,
}

/// Draws the sample and writes it: `latents` `[1, C, H/s, W/s]`, scaled, and `image` `[1, 3, H, W]` in 0..=1, both f32, with s
/// the scale of the autoencoder; and the image as PNG.
///
/// Without a file of noise, starting noise and noise of the steps are those of class 0, prompt 0, sample 0 of the seed.
///
/// # Errors
///
/// Fails if the checkpoint, the noise or a setting cannot be used, the latent is not finite, or a file cannot be written.
pub fn sample(request: &Request, device: &Device) -> Result<(), Error> {
    let model = StableDiffusion::from_path(&request.weights, device)?;
    let class = match request.scheduler {
        Some(scheduler) => model::class_of(scheduler),
        None => model.scheduler.config().class()?,
    };
    let model = model::set_up(model, class, &request.options)?;
    for text in [&request.prompt, &request.negative] {
        match too_long(&model, text)? {
            Some((num_tokens, limit)) if request.options.long_prompts != Some(LongPrompts::Truncate) => {
                let (class_name, prompt) = ("-".to_owned(), text.clone());
                return Err(Error::PromptTooLong { class_name, prompt_index: 0, prompt, num_tokens, limit });
            }
            Some((num_tokens, limit)) => tracing::warn!(num_tokens, limit, "the prompt `{text}` is cut"),
            None => {}
        }
    }
    let shape = latent_shape(request, &model)?;
    let tensor = |values: Vec<f32>| {
        Tensor::<4>::from_data(TensorData::new(values, [1, shape[0], shape[1], shape[2]]), device)
    };
    let start = match &request.noise {
        Some(path) => read_noise(path, shape)?,
        None => noise(request.seed, 0, 0, 0, shape),
    };
    let latents = model.draw(
        SampleRequest {
            prompt_embeds: model.encode_prompts(std::slice::from_ref(&request.prompt))?,
            negative_embeds: model.encode_prompts(std::slice::from_ref(&request.negative))?,
            noise: tensor(start),
            num_inference_steps: request.num_inference_steps,
            guidance_scale: request.guidance_scale,
            guidance_rescale: request.options.guidance_rescale.unwrap_or(0.0),
            step_noise: Some(&|step| tensor(step_noise(request.seed, 0, 0, 0, step, shape))),
        },
        &mut |step| tracing::info!(step = step.index + 1, "denoised"),
    )?;
    let image = model.decode(latents.clone());
    let [_, _, height, width] = image.dims();
    let rgb = to_rgb_images(image.clone()).concat();
    let latents: Vec<f32> = latents.into_data().iter::<f32>().collect();
    check_latent("the sample".to_owned(), &latents)?;
    let image: Vec<f32> = image.into_data().iter::<f32>().collect();
    let [channels, latent_height, latent_width] = shape;
    write_tensors(
        &request.out,
        &[
            ("latents", vec![1, channels, latent_height, latent_width], latents),
            ("image", vec![1, 3, height, width], image),
        ],
    )?;
    let png = encode_png(&rgb, [height, width])
        .map_err(|source| Error::Image { sample: "the sample".to_owned(), source })?;
    std::fs::write(&request.png, png).map_err(|source| Error::Io { path: request.png.clone(), source })
}

/// `[C, H/s, W/s]` of the request, with s the scale of the autoencoder.
fn latent_shape(request: &Request, model: &StableDiffusion) -> Result<[usize; 3], Error> {
    let [channels, height, width] = model.latent_shape();
    let scale = model.vae_config.scale();
    let side = |what: &'static str, pixels: Option<u32>, default: usize| match pixels {
        None => Ok(default),
        Some(pixels) if pixels > 0 && (pixels as usize).is_multiple_of(scale) => Ok(pixels as usize / scale),
        Some(found) => Err(Error::ImageSize { what, found, multiple: scale as u32 }),
    };
    Ok([channels, side("`--height`", request.height, height)?, side("`--width`", request.width, width)?])
}

/// The starting noise in a safetensors file: its tensor `noise`, or its only one, as f32 `[1, C, H, W]` or `[C, H, W]`.
fn read_noise(path: &Path, shape: [usize; 3]) -> Result<Vec<f32>, Error> {
    let fault = |problem: String| Error::Noise { path: path.to_owned(), problem };
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|e| fault(format!("is not a safetensors file: {e}")))?;
    let names = file.names();
    let name = match names[..] {
        [only] => only,
        _ => "noise",
    };
    let tensor = file
        .tensor(name)
        .map_err(|_| fault(format!("has the tensors {names:?}, expected `noise` or a single one")))?;
    let dims = tensor.shape().strip_prefix(&[1]).filter(|d| d.len() == 3).unwrap_or(tensor.shape());
    if tensor.dtype() != Dtype::F32 || dims != shape {
        let found = format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape());
        return Err(fault(format!(
            "`{name}` is {found}, expected F32 of shape {shape:?} or with 1 before it"
        )));
    }
    let values: Vec<f32> = tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(fault(format!("`{name}` holds {value}, expected finite numbers"))),
        None => Ok(values),
    }
}

fn write_tensors(path: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Result<(), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let mut views = HashMap::new();
    for ((name, shape, _), bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(std::io::Error::other);
        views.insert((*name).to_owned(), view.map_err(failed)?);
    }
    let file = safetensors::serialize(&views, None).map_err(std::io::Error::other).map_err(failed)?;
    std::fs::write(path, file).map_err(failed)
}
