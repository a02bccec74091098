//! Against PyTorch: `tests/golden/flier_loss.py` and `tests/golden/couplings.py`.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor, TensorData};
use flier_model::{Coupling, FlierModel, HeadInit, LatentEncoder, LatentEncoderConfig, Pool, loss};
use safetensors::SafeTensors;

use crate::{device, rng, tiny_clip, tiny_config, tiny_vit};

const LOSS: &[u8] = include_bytes!("../golden/flier_loss.safetensors");
const COUPLINGS: &[u8] = include_bytes!("../golden/couplings.safetensors");

fn golden(file: &[u8], name: &str) -> (Vec<f32>, Vec<usize>) {
    let file = SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(name).unwrap();
    let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (values, view.shape().to_vec())
}

fn tensor<const D: usize>(name: &str, device: &Device) -> Tensor<D> {
    tensor_of(LOSS, name, device)
}

fn tensor_of<const D: usize>(file: &[u8], name: &str, device: &Device) -> Tensor<D> {
    let (values, shape) = golden(file, name);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Relative to the largest value: 1e-5, about a hundred units in the last place of f32 sums over a few hundred terms.
fn assert_close<const D: usize>(name: &str, found: Tensor<D>) {
    assert_close_to(LOSS, name, found);
}

fn assert_close_to<const D: usize>(file: &[u8], name: &str, found: Tensor<D>) {
    let (expected, _) = golden(file, name);
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
    let labels: Vec<usize> = golden(LOSS, "labels").0.iter().map(|v| *v as usize).collect();
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

/// The model of a coupling with the weights of the file, on an autodiff device.
fn coupled_model(coupling: Coupling) -> FlierModel {
    let (config, device) = (tiny_config(tiny_vit(), Pool::MeanPatch, Some(coupling)), device());
    let linear = |name: &str, bias: Option<&str>| Linear {
        weight: Param::from_tensor(tensor_of::<2>(COUPLINGS, name, &device).transpose()),
        bias: bias.map(|bias| Param::from_tensor(tensor_of(COUPLINGS, bias, &device))),
    };
    let clip = tiny_clip(tiny_vit());
    let mut model = FlierModel::from_clip(clip, &config, &HeadInit::NearZero, &device, &mut rng()).unwrap();
    let LatentEncoder { conv1, conv2 } = model.latent_encoder.take().unwrap();
    let conv = |conv: Conv2d, name: &str| Conv2d {
        weight: Param::from_tensor(tensor_of(COUPLINGS, &format!("{name}.weight"), &device)),
        bias: Some(Param::from_tensor(tensor_of(COUPLINGS, &format!("{name}.bias"), &device))),
        ..conv
    };
    model.latent_encoder = Some(LatentEncoder { conv1: conv(conv1, "conv1"), conv2: conv(conv2, "conv2") });
    model.head = linear("head.weight", Some("head.bias"));
    let has_head = model.latent_head.is_some();
    model.latent_head = has_head.then(|| linear("latent_head.weight", Some("latent_head.bias")));
    let meets = model.latent_projection.is_some();
    model.latent_projection = meets.then(|| linear("latent_projection.weight", None));
    model.train()
}

#[test]
fn the_latent_loss_of_every_coupling_and_its_gradients_equal_those_of_pytorch() {
    let device = device().autodiff();
    for (coupling, name) in [
        (Coupling::Independent, "independent"),
        (Coupling::SharedHead, "shared-head"),
        (Coupling::LogitSum, "logit-sum"),
        (Coupling::FeatureAdd, "feature-add"),
        (Coupling::AlignLoss, "align-loss"),
    ] {
        let model = coupled_model(coupling);
        let image_features = tensor_of::<2>(COUPLINGS, "image_features", &device).require_grad();
        let latents = tensor_of(COUPLINGS, "latents", &device);
        let targets = loss::smoothed_targets(&[0, 4, 2, 2], 5, 0.1, &device);
        let loss = model.latent_loss(image_features.clone(), latents, targets).unwrap();
        assert_close_to(COUPLINGS, &format!("{name}/loss"), loss.clone());
        let gradients = loss.backward();
        let check = |tensor: &str, gradient: Option<Tensor<2>>| {
            let tensor = format!("{name}/{tensor}");
            match gradient {
                Some(gradient) => assert_close_to(COUPLINGS, &tensor, gradient),
                None => assert!(golden(COUPLINGS, &tensor).0.iter().all(|value| *value == 0.0), "{tensor}"),
            }
        };
        check("image_features", image_features.grad(&gradients));
        check("head.weight", model.head.weight.val().grad(&gradients).map(Tensor::transpose));
        let projection = model.latent_projection.and_then(|layer| layer.weight.val().grad(&gradients));
        check("latent_projection.weight", projection.map(Tensor::transpose));
        let encoder = model.latent_encoder.unwrap();
        let conv1 = encoder.conv1.weight.val().grad(&gradients).unwrap();
        assert_close_to(COUPLINGS, &format!("{name}/conv1.weight"), conv1);
    }
}
