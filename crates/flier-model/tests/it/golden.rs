//! Against PyTorch: `tests/golden/flier_loss.py`.

use burn::module::Param;
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor, TensorData};
use flier_model::{LatentEncoder, LatentEncoderConfig, loss};
use safetensors::SafeTensors;

use crate::device;

const GOLDEN: &[u8] = include_bytes!("../golden/flier_loss.safetensors");

fn golden(name: &str) -> (Vec<f32>, Vec<usize>) {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let view = file.tensor(name).unwrap();
    let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (values, view.shape().to_vec())
}

fn tensor<const D: usize>(name: &str, device: &Device) -> Tensor<D> {
    let (values, shape) = golden(name);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Relative to the largest value: 1e-5, about a hundred units in the last place of f32 sums over a few hundred terms.
fn assert_close<const D: usize>(name: &str, found: Tensor<D>) {
    let (expected, _) = golden(name);
    let found: Vec<f32> = found.try_into_vec_as::<f32>().unwrap();
    assert_eq!(found.len(), expected.len(), "{name}");
    let scale = expected.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-5 * scale, "{name}: difference {worst:e} of {scale:e}");
}

#[test]
fn latent_encoder_loss_and_gradients_equal_those_of_pytorch() {
    let device = device().autodiff();
    let config = LatentEncoderConfig { latent_channels: 4, latent_height: 16, latent_width: 8 };
    let empty = config.init(&device);
    let conv = |conv: Conv2d, name: &str| Conv2d {
        weight: Param::from_tensor(tensor(&format!("{name}.weight"), &device)),
        bias: Some(Param::from_tensor(tensor(&format!("{name}.bias"), &device))),
        ..conv
    };
    let encoder = LatentEncoder { conv1: conv(empty.conv1, "conv1"), conv2: conv(empty.conv2, "conv2") };
    let head = Linear {
        weight: Param::from_tensor(tensor::<2>("head.weight", &device).transpose()),
        bias: Some(Param::from_tensor(tensor("head.bias", &device))),
    };
    let labels: Vec<usize> = golden("labels").0.iter().map(|v| *v as usize).collect();
    let image_logits = tensor::<2>("image_logits", &device).require_grad();

    let features = encoder.forward(tensor("latents", &device));
    assert_close("features", features.clone());
    let latent_logits = head.forward(features);
    assert_close("latent_logits", latent_logits.clone());
    let targets = loss::smoothed_targets(&labels, 6, 0.1, &device);
    let image_loss = loss::cross_entropy(image_logits.clone(), targets.clone());
    let total = loss::combine(image_loss, loss::cross_entropy(latent_logits, targets), 0.3);
    assert_close("loss", total.clone());

    let gradients = total.backward();
    assert_close("grad.image_logits", image_logits.grad(&gradients).unwrap());
    assert_close("grad.conv1.weight", encoder.conv1.weight.val().grad(&gradients).unwrap());
    assert_close("grad.conv1.bias", encoder.conv1.bias.unwrap().val().grad(&gradients).unwrap());
    assert_close("grad.conv2.weight", encoder.conv2.weight.val().grad(&gradients).unwrap());
    assert_close("grad.conv2.bias", encoder.conv2.bias.unwrap().val().grad(&gradients).unwrap());
    assert_close("grad.head.weight", head.weight.val().grad(&gradients).unwrap().transpose());
    assert_close("grad.head.bias", head.bias.unwrap().val().grad(&gradients).unwrap());
}
