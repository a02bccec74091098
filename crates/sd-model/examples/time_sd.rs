//! One pass through a network of Stable Diffusion 2.1-base on random weights, timed whenever a line arrives.
//!
//! Usage: `time_sd CASE [--device DEVICE]`, with the protocol of `passes`; `tests/scale/time_sd.py` is the other side.

#[path = "../../clip-model/examples/passes/mod.rs"]
mod passes;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use clap::{Parser, ValueEnum};
use clip_model::{Activation, TextConfig};
use sd_model::AutoencoderKlConfig;
use sd_model::checkpoints::Pretrained;

#[derive(Parser)]
struct Args {
    /// What is timed.
    #[arg(value_enum)]
    case: Case,
    /// Where the network runs.
    #[arg(long, default_value = "cpu")]
    device: backend::DeviceSpec,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Case {
    /// One call for a guided step: two latents of 64x64.
    Unet,
    /// One image of 512 pixels.
    VaeDecode,
    /// Two prompts.
    Text,
}

fn main() -> anyhow::Result<()> {
    let Args { case, device } = Args::parse();
    let device = device.open()?;
    let normal = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let pass: Box<dyn FnMut() -> anyhow::Result<()>> = match case {
        Case::Unet => {
            let unet = Pretrained::by_name("2.1-base")?.unet_config().init(&device)?.valid();
            let (sample, timesteps) = (normal([2, 4, 64, 64]), Tensor::<1>::full([2], 981.0, &device));
            let states = normal([1, 2, 77, 1024]).squeeze_dim::<3>(0);
            Box::new(move || wait(unet.forward(sample.clone(), timesteps.clone(), states.clone())))
        }
        Case::VaeDecode => {
            let vae = AutoencoderKlConfig::default().init(&device)?.valid();
            let latents = normal([1, 4, 64, 64]);
            Box::new(move || wait(vae.decode(latents.clone())))
        }
        Case::Text => {
            let text_encoder = text_config().init(&device).valid();
            let ids = token_ids(&device);
            Box::new(move || wait(text_encoder.forward(ids.clone()).last_hidden_state))
        }
    };
    passes::serve(1, pass)
}

fn text_config() -> TextConfig {
    TextConfig {
        vocab_size: 49408,
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 23,
        num_attention_heads: 16,
        max_position_embeddings: 77,
        hidden_act: Activation::Gelu,
        layer_norm_eps: 1e-5,
        eos_token_id: 2,
        bos_token_id: 0,
    }
}

fn token_ids(device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = (0..2 * 77).map(|i| if i % 77 == 76 { 49_407 } else { i * 31 % 49_000 }).collect();
    Tensor::from_data(TensorData::new(ids, [2, 77]), device)
}

/// Ends when the numbers are there.
fn wait<const D: usize>(tensor: Tensor<D>) -> anyhow::Result<()> {
    tensor.try_into_data()?;
    Ok(())
}
