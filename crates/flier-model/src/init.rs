//! First weights, drawn on the host from a given generator, so that they depend neither on the device nor on burn's
//! global generator.

use burn::module::Param;
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor, TensorData};
use rand_core::Rng;
use std::f64::consts::TAU;

/// Spacing of f64 below 1.
const ULP: f64 = 1.0 / (1_u64 << 53) as f64;

/// A uniform number in [0, 1).
pub fn uniform(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * ULP
}

/// A standard normal number (Box and Muller's cosine).
pub fn normal(rng: &mut impl Rng) -> f64 {
    let u1 = 1.0 - uniform(rng);
    let u2 = uniform(rng);
    (-2.0 * u1.ln()).sqrt() * (TAU * u2).cos()
}

/// Normal numbers of the given standard deviation, drawn again while outside [-2, 2] (timm's absolute bounds).
fn truncated_normal(count: usize, std: f64, rng: &mut impl Rng) -> Vec<f64> {
    let mut draw = || loop {
        let value = normal(rng) * std;
        if value.abs() <= 2.0 {
            return value;
        }
    };
    (0..count).map(|_| draw()).collect()
}

/// Uniform numbers in [-bound, bound).
fn uniform_within(count: usize, bound: f64, rng: &mut impl Rng) -> Vec<f32> {
    (0..count).map(|_| ((uniform(rng) * 2.0 - 1.0) * bound) as f32).collect()
}

fn param<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_data(TensorData::new(values, shape), device)
}

/// A classifier whose logits are almost zero: weights from a truncated normal of std 0.02, times 0.001; bias zero.
pub fn near_zero_head(inputs: usize, outputs: usize, device: &Device, rng: &mut impl Rng) -> Linear {
    let weight =
        truncated_normal(inputs * outputs, 0.02, rng).into_iter().map(|v| (v * 0.001) as f32).collect();
    Linear {
        weight: param(weight, [inputs, outputs], device),
        bias: Some(param(vec![0.0; outputs], [outputs], device)),
    }
}

/// The latent branch's classifier: as [`near_zero_head`], with PyTorch's default bias times 0.001.
pub fn near_zero_latent_head(inputs: usize, outputs: usize, device: &Device, rng: &mut impl Rng) -> Linear {
    let head = near_zero_head(inputs, outputs, device, rng);
    let bias = uniform_within(outputs, 0.001 / (inputs as f64).sqrt(), rng);
    Linear { bias: Some(param(bias, [outputs], device)), ..head }
}

/// A linear layer without bias with PyTorch's default weights: uniform within `1 / sqrt(inputs)`.
pub fn default_linear(inputs: usize, outputs: usize, device: &Device, rng: &mut impl Rng) -> Linear {
    let weight = uniform_within(inputs * outputs, 1.0 / (inputs as f64).sqrt(), rng);
    Linear { weight: param(weight, [inputs, outputs], device), bias: None }
}

/// Gives `conv` PyTorch's default weights: uniform within `1 / sqrt(fan_in)`, weight and bias.
pub fn default_conv(conv: Conv2d, device: &Device, rng: &mut impl Rng) -> Conv2d {
    let shape: [usize; 4] = conv.weight.lazy_shape().dims();
    let bound = 1.0 / (shape[1..].iter().product::<usize>() as f64).sqrt();
    let weight = uniform_within(shape.iter().product(), bound, rng);
    let bias = uniform_within(shape[0], bound, rng);
    Conv2d {
        weight: param(weight, shape, device),
        bias: conv.bias.is_some().then(|| param(bias, [shape[0]], device)),
        ..conv
    }
}
