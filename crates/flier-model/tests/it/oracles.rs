//! Figures that a faithful implementation must give.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use clip_model::{Activation, VisionConfig, VisionTransformerConfig};
use flier_model::{
    Coupling, FlierConfig, FlierModel, HeadInit, LatentBranchConfig, LatentEncoderConfig, Pool, layers, loss,
};

use crate::{device, rng, tiny_clip, tiny_config, tiny_resnet, tiny_vit, values, wave};

/// ViT-B of this patch size with 1000 classes and 64 x 64 latents.
fn vit_b(patch_size: usize) -> FlierConfig {
    let encoder = LatentEncoderConfig { latent_channels: 4, latent_height: 64, latent_width: 64 };
    FlierConfig {
        vision: VisionConfig::VisionTransformer(VisionTransformerConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }),
        projection_dim: 512,
        num_classes: 1000,
        pool: Pool::MeanPatch,
        latent: Some(LatentBranchConfig { encoder, coupling: Coupling::Independent, latent_scale: None }),
    }
}

/// Numbers of parameters by part; nothing is allocated.
#[derive(Default)]
struct Count {
    path: Vec<String>,
    image: usize,
    patch_conv: usize,
    latent_encoder: usize,
    latent_head: usize,
}

impl ModuleVisitor for Count {
    fn enter_module(&mut self, name: &str, container: &str) {
        // Names of enum variants are no part of a path.
        self.path.push(if container.starts_with("Enum:") { String::new() } else { name.to_owned() });
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        assert!(!param.is_initialized(), "counting must not allocate");
        let path: Vec<&str> = self.path.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let path = path.join(".");
        let count = param.lazy_shape().num_elements();
        match path.split('.').next() {
            Some("latent_encoder") => self.latent_encoder += count,
            Some("latent_head") => self.latent_head += count,
            _ if layers::is_patch_conv(&path) => self.patch_conv += count,
            _ => self.image += count,
        }
    }
}

#[test]
fn parameter_counts_of_vit_b_are_those_of_the_released_code() {
    for (patch_size, patch_conv) in [(16, 589_824), (32, 2_359_296)] {
        let model = FlierModel::empty(&vit_b(patch_size), &device()).unwrap();
        let mut count = Count::default();
        model.visit(&mut count);
        assert_eq!(count.patch_conv, patch_conv);
        assert_eq!(count.latent_encoder, 83);
        assert_eq!(count.latent_head, 769_000);
        if patch_size == 16 {
            // 12 blocks, embeddings and first norm, fresh last norm, classifier.
            assert_eq!(count.image, 85_978_600);
        }
    }
}

#[test]
fn latents_of_512_pixel_images_give_the_width_of_vit_b() {
    let shape = LatentEncoderConfig { latent_channels: 4, latent_height: 64, latent_width: 64 };
    assert_eq!(shape.feature_width(), 768);
}

#[test]
fn the_first_loss_of_either_branch_is_ln_n_whatever_the_smoothing() {
    let device = device();
    for vision in [tiny_vit(), tiny_resnet()] {
        let config = tiny_config(vision.clone(), Pool::MeanPatch, Some(Coupling::Independent));
        let model =
            FlierModel::from_clip(tiny_clip(vision), &config, &HeadInit::NearZero, &device, &mut rng())
                .unwrap();
        let model = model.valid();
        let side = if config.feature_width() == 24 { 16 } else { 32 };
        for smoothing in [0.0, 0.1, 0.5] {
            let targets = loss::smoothed_targets(&[0, 1, 4], 5, smoothing, &device);
            let image = model.image_logits(wave([3, 3, side, side], &device));
            let latent = model.latent_logits(wave([3, 4, 16, 16], &device)).unwrap();
            for logits in [image, latent] {
                let loss = values(loss::cross_entropy(logits, targets.clone()))[0];
                // Weights of 2e-5 on features of size about 1 move the loss by less than 1e-3.
                assert!((loss - 5f32.ln()).abs() < 1e-3, "{loss}");
            }
        }
    }
}
