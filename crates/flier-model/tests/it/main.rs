//! Integration tests of `flier-model`.

mod branches;
mod golden;
mod oracles;
mod trained;

use burn::tensor::{Device, Tensor, TensorData};
use clip_model::{
    Activation, Clip, ClipConfig, ModifiedResNetConfig, TextConfig, VisionConfig, VisionTransformerConfig,
};
use flier_model::{Coupling, FlierConfig, LatentBranchConfig, LatentEncoderConfig, Pool};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// The pure Rust back end on the CPU.
fn device() -> Device {
    backend::test_device()
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

/// A ViT of two blocks of width 24 on 16 x 16 images.
fn tiny_vit() -> VisionConfig {
    VisionConfig::VisionTransformer(VisionTransformerConfig {
        hidden_size: 24,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 16,
        patch_size: 8,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    })
}

fn tiny_resnet() -> VisionConfig {
    VisionConfig::ModifiedResNet(ModifiedResNetConfig {
        layers: [1, 1, 1, 1],
        width: 4,
        heads: 2,
        image_size: 32,
    })
}

fn tiny_clip(vision_config: VisionConfig) -> Clip {
    let text_config = TextConfig {
        vocab_size: 20,
        hidden_size: 8,
        intermediate_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        max_position_embeddings: 6,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: 19,
        bos_token_id: 18,
    };
    ClipConfig { text_config, vision_config, projection_dim: 12, logit_scale_init_value: 2.6592 }
        .init(&device())
}

/// Latents of 4 x 16 x 16: 48 features, twice the width of [`tiny_vit`].
fn tiny_config(vision: VisionConfig, pool: Pool, coupling: Option<Coupling>) -> FlierConfig {
    let encoder = LatentEncoderConfig { latent_channels: 4, latent_height: 16, latent_width: 16 };
    FlierConfig {
        vision,
        projection_dim: 12,
        num_classes: 5,
        pool,
        latent: coupling.map(|coupling| LatentBranchConfig { encoder, coupling, latent_scale: None }),
    }
}

/// Numbers that look random, the same on every run.
fn wave<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}
