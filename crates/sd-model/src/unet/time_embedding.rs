//! The timestep as a vector: sinusoids, then two linear layers.
//!
//! After `Timesteps` and `TimestepEmbedding` of diffusers.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, TensorData};

/// Sinusoids of the timestep (Vaswani et al., 2017, section 3.5) with diffusers' two switches.
#[derive(Debug, Clone)]
pub(crate) struct Timesteps {
    pub num_channels: usize,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
}

impl Timesteps {
    /// `[B]` timesteps to `[B, num_channels]` sines and cosines.
    pub(crate) fn forward(&self, timesteps: Tensor<1>) -> Tensor<2> {
        let half = self.num_channels / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| (-(1e4_f64.ln()) * i as f64 / (half as f64 - self.freq_shift)).exp() as f32)
            .collect();
        let frequencies = Tensor::<2>::from_data(
            TensorData::new(frequencies, [1, half]),
            (&timesteps.device(), timesteps.dtype()),
        );
        let angles = timesteps.unsqueeze_dim::<2>(1) * frequencies; // [B, half]
        let (sin, cos) = (angles.clone().sin(), angles.cos());
        Tensor::cat(if self.flip_sin_to_cos { vec![cos, sin] } else { vec![sin, cos] }, 1)
    }
}

/// Two linear layers with a SiLU between them.
#[derive(Module, Debug)]
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub(crate) fn new(channels: usize, width: usize, device: &Device) -> Self {
        Self {
            linear_1: LinearConfig::new(channels, width).init(device),
            linear_2: LinearConfig::new(width, width).init(device),
        }
    }

    /// `[B, C]` sinusoids to `[B, D]` embeddings.
    pub fn forward(&self, sinusoids: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(silu(self.linear_1.forward(sinusoids)))
    }
}
