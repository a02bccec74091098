//! Stable Diffusion as a whole: prompts and noise in, latents and images out.
//!
//! After `StableDiffusionPipeline` of diffusers, without its safety checker.

use burn::tensor::{Device, Int, Tensor, TensorData};
use clip_model::{TextConfig, TextTransformer, Tokenizer};

use crate::{AutoencoderKl, AutoencoderKlConfig, Error, Scheduler, UNet2DCondition, UNet2DConditionConfig};

/// The parts of a text-to-image model and their shapes.
///
/// Made by [`StableDiffusion::from_folder`], or put together from parts that were just trained.
#[derive(Debug)]
pub struct StableDiffusion {
    /// Shape of `unet`.
    pub unet_config: UNet2DConditionConfig,
    /// Predicts noise in scaled latents.
    pub unet: UNet2DCondition,
    /// Shape of `vae`.
    pub vae_config: AutoencoderKlConfig,
    /// Maps images to raw latents and back.
    pub vae: AutoencoderKl,
    /// Shape of `text_encoder`.
    pub text_config: TextConfig,
    /// Maps token ids to text tokens.
    pub text_encoder: TextTransformer,
    /// Maps prompts to token ids.
    pub tokenizer: Tokenizer,
    /// Leads from noise to a clean latent.
    pub scheduler: Scheduler,
    /// Where the parameters lie.
    pub device: Device,
}

impl StableDiffusion {
    /// `[C, H, W]` of a latent of this model.
    pub fn latent_shape(&self) -> [usize; 3] {
        let size = self.unet_config.sample_size;
        [self.unet_config.in_channels, size, size]
    }

    /// Text tokens of prompts: the text encoder's last layer after its final norm, `[B, T, D]` with T the context length.
    ///
    /// A prompt longer than the context is cut, as in diffusers; [`Tokenizer`] tells whether one is.
    ///
    /// # Errors
    ///
    /// Fails if there is no prompt or one cannot be tokenized.
    pub fn encode_prompts(&self, prompts: &[String]) -> Result<Tensor<3>, Error> {
        if prompts.is_empty() {
            return Err(Error::NoPrompt);
        }
        let context_length = self.text_config.max_position_embeddings;
        let ids: Vec<i64> = self.tokenizer.encode_batch(prompts, context_length, true)?.concat();
        let data = TensorData::new(ids, [prompts.len(), context_length]);
        let ids = Tensor::<2, Int>::from_data(data, &self.device);
        Ok(self.text_encoder.forward(ids).last_hidden_state)
    }

    /// Denoises latents by [`scheduler`](Self::scheduler) with classifier-free guidance; see [`SampleRequest`] for the
    /// arguments.
    ///
    /// # Errors
    ///
    /// As [`draw`](Self::draw); also if the scheduler adds noise in its steps.
    pub fn sample(
        &self,
        prompt_embeds: Tensor<3>,
        negative_embeds: Tensor<3>,
        noise: Tensor<4>,
        num_inference_steps: usize,
        guidance_scale: f64,
    ) -> Result<Tensor<4>, Error> {
        let request = SampleRequest {
            prompt_embeds,
            negative_embeds,
            noise,
            num_inference_steps,
            guidance_scale,
            guidance_rescale: 0.0,
            step_noise: None,
        };
        self.draw(request, &mut |_| {})
    }

    /// Denoises latents by [`scheduler`](Self::scheduler) with classifier-free guidance (Ho and Salimans, 2022, arXiv
    /// 2207.12598). `on_step` is told of every step when it is done.
    ///
    /// Latents and the scheduler's arithmetic are f32; the UNet runs in the type of the embeddings, which must be that of
    /// its parameters. Gives scaled clean latents `[B, C, H, W]`.
    ///
    /// # Errors
    ///
    /// Fails if a shape does not fit the model, `num_inference_steps` does not fit the schedule, or the scheduler adds
    /// noise and the request has none.
    pub fn draw(
        &self,
        request: SampleRequest<'_>,
        on_step: &mut dyn FnMut(&Step),
    ) -> Result<Tensor<4>, Error> {
        self.check_shapes(&request.prompt_embeds, &request.negative_embeds, &request.noise)?;
        let mut run = self.scheduler.start(request.num_inference_steps)?;
        let is_guided = request.guidance_scale != 1.0;
        let context = match is_guided {
            true => Tensor::cat(vec![request.negative_embeds, request.prompt_embeds], 0), // [2 * B, T, D]
            false => request.prompt_embeds,
        };
        let mut latents = request.noise;
        if run.init_noise_sigma() != 1.0 {
            latents = latents * run.init_noise_sigma();
        }
        for (index, timestep) in run.timesteps().to_vec().into_iter().enumerate() {
            let input = run.scale_model_input(latents.clone());
            let output = if is_guided {
                let pair = Tensor::cat(vec![input.clone(), input], 0);
                let pair = self.predict(pair, timestep, context.clone());
                guided(pair, request.guidance_scale, request.guidance_rescale)
            } else {
                self.predict(input, timestep, context.clone())
            };
            let noise = match (run.needs_noise(), request.step_noise) {
                (false, _) => None,
                (true, Some(step_noise)) => Some(step_noise(index)),
                (true, None) => return Err(Error::StepNoise { scheduler: self.scheduler.class().name() }),
            };
            latents = run.step(output, latents, noise);
            let next_timestep = run.timesteps().get(index + 1).copied();
            on_step(&Step { index, next_timestep, latents: run.scale_model_input(latents.clone()) });
        }
        Ok(latents)
    }

    /// Encodes images `[B, 3, H, W]` in 0..=1 as scaled latents `[B, C, h, w]`: the most likely ones, without noise.
    ///
    /// # Panics
    ///
    /// Panics if the shape does not fit the autoencoder.
    pub fn encode(&self, images: Tensor<4>) -> Tensor<4> {
        self.vae.encode(images * 2.0 - 1.0).mode() * self.vae_config.scaling_factor
    }

    /// Decodes scaled latents `[B, C, h, w]` as images `[B, 3, H, W]` in 0..=1.
    ///
    /// # Panics
    ///
    /// Panics if the shape does not fit the autoencoder.
    pub fn decode(&self, latents_scaled: Tensor<4>) -> Tensor<4> {
        let pixels = self.vae.decode(latents_scaled / self.vae_config.scaling_factor);
        (pixels / 2.0 + 0.5).clamp(0.0, 1.0)
    }

    fn predict(&self, latents: Tensor<4>, timestep: f64, context: Tensor<3>) -> Tensor<4> {
        let (batch, dtype) = (latents.dims()[0], latents.dtype());
        let timesteps = Tensor::<1>::full([batch], timestep as f32, &latents.device());
        self.unet.forward(latents.cast(context.dtype()), timesteps, context).cast(dtype)
    }

    fn check_shapes(
        &self,
        prompt_embeds: &Tensor<3>,
        negative_embeds: &Tensor<3>,
        noise: &Tensor<4>,
    ) -> Result<(), Error> {
        let channels = self.unet_config.in_channels;
        let [batch, found, height, width] = noise.dims();
        if found != channels || batch == 0 || height == 0 || width == 0 {
            let expected = format!("[B, {channels}, H, W]");
            return Err(Error::Shape { what: "noise", expected, found: noise.dims().to_vec() });
        }
        let text_width = self.unet_config.cross_attention_dim;
        let tokens = prompt_embeds.dims()[1];
        for (what, embeds) in [("prompt_embeds", prompt_embeds), ("negative_embeds", negative_embeds)] {
            if embeds.dims() != [batch, tokens, text_width] || tokens == 0 {
                let expected = format!("[{batch}, {tokens}, {text_width}] for {batch} latents");
                return Err(Error::Shape { what, expected, found: embeds.dims().to_vec() });
            }
        }
        Ok(())
    }
}

/// What is drawn, and how.
pub struct SampleRequest<'a> {
    /// Text tokens of the prompts `[B, T, D]`.
    pub prompt_embeds: Tensor<3>,
    /// Text tokens of the negative prompts `[B, T, D]`.
    pub negative_embeds: Tensor<3>,
    /// Standard normal starting noise `[B, C, H, W]`.
    pub noise: Tensor<4>,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// Weight of the prompt against the negative prompt; with 1 the latter is not computed.
    pub guidance_scale: f64,
    /// Share of the guided prediction whose deviation is set to that of the prompted one, against overexposure (Lin et al.,
    /// 2023, arXiv 2305.08891, section 3.4); 0 for none.
    pub guidance_rescale: f64,
    /// Standard normal noise `[B, C, H, W]` of the step of an index; samplers that add noise ask for it.
    pub step_noise: Option<&'a dyn Fn(usize) -> Tensor<4>>,
}

/// A step that is done.
pub struct Step {
    /// Position among the calls of the network, from 0.
    pub index: usize,
    /// Timestep of the next step; `None` after the last.
    pub next_timestep: Option<f64>,
    /// The latents `[B, C, H, W]` as the network takes them in the next step; the clean latents after the last.
    pub latents: Tensor<4>,
}

/// Moves the prediction away from the negative prompt: `[2 * B, C, H, W]` (negative first) to `[B, C, H, W]`.
fn guided(output: Tensor<4>, guidance_scale: f64, guidance_rescale: f64) -> Tensor<4> {
    let batch = output.dims()[0] / 2;
    let negative = output.clone().narrow(0, 0, batch);
    let prompted = output.narrow(0, batch, batch);
    let guided = negative.clone() + (prompted.clone() - negative) * guidance_scale;
    if guidance_rescale == 0.0 {
        return guided;
    }
    let ratio = deviation(prompted) / deviation(guided.clone()); // [B, 1, 1, 1]
    guided.clone() * ratio * guidance_rescale + guided * (1.0 - guidance_rescale)
}

/// Standard deviation of each latent: `[B, C, H, W]` to `[B, 1, 1, 1]`.
fn deviation(latents: Tensor<4>) -> Tensor<4> {
    let mean = latents.clone().mean_dims(&[1, 2, 3]);
    (latents - mean).square().mean_dims(&[1, 2, 3]).sqrt()
}

/// Images `[B, C, H, W]` in 0..=1 as bytes, one vector per image in the order H, W, C.
///
/// Rounded as in diffusers: to the nearest, halves to the even neighbour.
pub fn to_rgb_images(images: Tensor<4>) -> Vec<Vec<u8>> {
    let [batch, channels, height, width] = images.dims();
    let values: Vec<f32> = images.permute([0, 2, 3, 1]).into_data().iter::<f32>().collect();
    let bytes: Vec<u8> = values.iter().map(|v| (v * 255.0).round_ties_even() as u8).collect();
    match channels * height * width {
        0 => vec![Vec::new(); batch],
        size => bytes.chunks_exact(size).map(<[u8]>::to_vec).collect(),
    }
}
