//! Images per second of one training step: forward, backward, AdamW. A plain program, `cargo bench -p trainer`.
#![allow(clippy::print_stdout)]

// Brings the allocator of the stages.
use stage_cli as _;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use clip_model::{Activation, ClipConfig, TextConfig, VisionConfig, VisionTransformerConfig};
use flier_model::{FlierConfig, FlierModel, HeadInit, Pool, layers, loss};
use std::time::Instant;
use trainer::optimizer::{AdamW, AdamWConfig, ParameterRule};
use trainer::{parameters, random};

const BATCH: usize = 32;

fn main() {
    for patch_size in [16, 8] {
        measure(patch_size);
    }
}

/// A ViT of width 128 with four blocks on 64 px images.
fn measure(patch_size: usize) {
    let device = backend::DeviceSpec::Cpu.open().expect("the flex back end is built");
    let vision = VisionTransformerConfig {
        hidden_size: 128,
        intermediate_size: 512,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        image_size: 64,
        patch_size,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    };
    let text_config = TextConfig {
        vocab_size: 100,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        max_position_embeddings: 16,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: 99,
        bos_token_id: 98,
    };
    let clip = ClipConfig {
        text_config,
        vision_config: VisionConfig::VisionTransformer(vision.clone()),
        projection_dim: 64,
        logit_scale_init_value: 2.6592,
    }
    .init(&device);
    let config = FlierConfig {
        vision: VisionConfig::VisionTransformer(vision),
        projection_dim: 64,
        num_classes: 30,
        pool: Pool::MeanPatch,
        latent: None,
    };
    let mut rng = random::stream(1, "bench", &[]);
    let model =
        FlierModel::from_clip(clip, &config, &HeadInit::NearZero, &device, &mut rng).expect("it fits");
    println!("patch {patch_size}: {} parameters", model.num_params());
    let mut model = parameters::freeze(model, layers::is_patch_conv).train();
    let adamw = AdamWConfig { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8 };
    let mut optimizer = AdamW::new(&model, adamw, |_, rank| ParameterRule {
        learning_rate_scale: 1.0,
        weight_decay: if rank > 1 { 0.05 } else { 0.0 },
    });
    let autodiff = device.clone().autodiff();
    let pixels: Vec<f32> = (0..BATCH * 3 * 64 * 64).map(|i| (i % 255) as f32 / 255.0 - 0.5).collect();
    let labels: Vec<usize> = (0..BATCH).map(|i| i % 30).collect();
    let mut parts = [0.0; 4];
    const STEPS: usize = 20;
    for step in 0..STEPS + 3 {
        let start = Instant::now();
        let mut lap = {
            let mut last = start;
            move || {
                let elapsed = last.elapsed().as_secs_f64();
                last = Instant::now();
                elapsed
            }
        };
        let images = Tensor::<4>::from_data(TensorData::new(pixels.clone(), [BATCH, 3, 64, 64]), &autodiff);
        let targets = loss::smoothed_targets(&labels, 30, 0.1, &autodiff);
        let loss = loss::cross_entropy(model.image_logits(images), targets);
        let value = loss.clone().into_scalar::<f32>();
        let forward = lap();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let backward = lap();
        model = optimizer.step(model, gradients, 1e-4);
        let update = lap();
        assert!(value.is_finite());
        if step >= 3 {
            for (part, time) in
                parts.iter_mut().zip([forward, backward, update, start.elapsed().as_secs_f64()])
            {
                *part += time * 1e3 / STEPS as f64;
            }
        }
    }
    let threads = std::env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| "default".to_owned());
    println!(
        "threads {threads}: forward {:.1} ms, backward {:.1} ms, AdamW {:.1} ms, step {:.1} ms, {:.0} images/s",
        parts[0],
        parts[1],
        parts[2],
        parts[3],
        BATCH as f64 * 1e3 / parts[3]
    );
    // Another process competes for the same cores: `step` is a mean, not a best case.
}
