//! Stable Diffusion as a whole: prompts and noise in, latents and images out.
//!
//! After `StableDiffusionPipeline` of diffusers, without its safety checker.

use burn::tensor::{Device, Int, Tensor, TensorData};
use clip_model::{TextConfig, TextTransformer, Tokenizer};

use crate::{
    AutoencoderKl, AutoencoderKlConfig, DdimScheduler, Error, UNet2DCondition, UNet2DConditionConfig,
};

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
    pub scheduler: DdimScheduler,
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

    /// Denoises latents with classifier-free guidance (Ho and Salimans, 2022, arXiv 2207.12598); deterministic.
    ///
    /// With `guidance_scale` 1 the negative prompt has no weight and is not computed.
    ///
    /// # Shapes
    ///
    /// - `prompt_embeds`, `negative_embeds`: `[B, T, D]`
    /// - `noise`: `[B, C, H, W]`, standard normal
    /// - output: `[B, C, H, W]`, scaled clean latents
    ///
    /// # Errors
    ///
    /// Fails if a shape does not fit the model or `num_inference_steps` does not fit the schedule.
    pub fn sample(
        &self,
        prompt_embeds: Tensor<3>,
        negative_embeds: Tensor<3>,
        noise: Tensor<4>,
        num_inference_steps: usize,
        guidance_scale: f64,
    ) -> Result<Tensor<4>, Error> {
        let embeds = (prompt_embeds, negative_embeds);
        self.sample_with_progress(embeds, noise, num_inference_steps, guidance_scale, &mut |_| {})
    }

    /// As [`sample`](Self::sample) with `(prompt_embeds, negative_embeds)`; `progress` is told the number of finished
    /// steps after each.
    ///
    /// # Errors
    ///
    /// As [`sample`](Self::sample).
    pub fn sample_with_progress(
        &self,
        (prompt_embeds, negative_embeds): (Tensor<3>, Tensor<3>),
        noise: Tensor<4>,
        num_inference_steps: usize,
        guidance_scale: f64,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Tensor<4>, Error> {
        self.check_shapes(&prompt_embeds, &negative_embeds, &noise)?;
        let timesteps = self.scheduler.timesteps(num_inference_steps)?;
        let is_guided = guidance_scale != 1.0;
        let context = match is_guided {
            true => Tensor::cat(vec![negative_embeds, prompt_embeds], 0), // [2 * B, T, D]
            false => prompt_embeds,
        };
        let mut latents = noise;
        for (step, &timestep) in timesteps.iter().enumerate() {
            let output = if is_guided {
                let pair = Tensor::cat(vec![latents.clone(), latents.clone()], 0);
                guided(self.predict(pair, timestep, context.clone()), guidance_scale)
            } else {
                self.predict(latents.clone(), timestep, context.clone())
            };
            let previous = self.scheduler.previous_timestep(timestep, num_inference_steps);
            latents = self.scheduler.step(output, timestep, previous, latents);
            progress(step + 1);
        }
        Ok(latents)
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

    fn predict(&self, latents: Tensor<4>, timestep: usize, context: Tensor<3>) -> Tensor<4> {
        let batch = latents.dims()[0];
        let timesteps = Tensor::<1>::full([batch], timestep as f32, &latents.device());
        self.unet.forward(latents, timesteps, context)
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

/// Moves the prediction away from the negative prompt: `[2 * B, C, H, W]` (negative first) to `[B, C, H, W]`.
fn guided(output: Tensor<4>, guidance_scale: f64) -> Tensor<4> {
    let batch = output.dims()[0] / 2;
    let negative = output.clone().narrow(0, 0, batch);
    let prompted = output.narrow(0, batch, batch);
    negative.clone() + (prompted - negative) * guidance_scale
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
