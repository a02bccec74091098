//! Peak memory and time of training steps of a published backbone, whole or in parts. One setting per process:
//! `cargo bench -p trainer --bench memory -- --batch 16 --micro-batch 4`.
#![allow(clippy::print_stdout)]

// Brings the allocator of the stages.
use stage_cli as _;

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use clap::Parser;
use clip_model::{Activation, Backbone};
use flier_model::{FlierConfig, FlierModel, HeadInit, Pool, layers, loss};
use trainer::fine_tune::accumulate::accumulate;
use trainer::optimizer::{AdamW, AdamWConfig, ParameterRule};
use trainer::{parameters, random};

const CLASSES: usize = 100;

#[derive(Parser)]
struct Args {
    /// OpenAI's name.
    #[arg(long, default_value = "ViT-B/16")]
    backbone: String,
    /// Images in a step.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Images that go through the model together; all if not given.
    #[arg(long)]
    micro_batch: Option<usize>,
    /// Compute cheap activations again in the backward pass.
    #[arg(long)]
    gradient_checkpointing: bool,
    #[arg(long, default_value_t = 2)]
    steps: usize,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let device = backend::DeviceSpec::Cpu.open().expect("the flex back end is built");
    let backbone = Backbone::by_name(&args.backbone).expect("a published backbone");
    let clip = backbone.config(Activation::QuickGelu);
    let config = FlierConfig {
        vision: clip.vision_config.clone(),
        projection_dim: clip.projection_dim,
        num_classes: CLASSES,
        pool: Pool::MeanPatch,
        latent: None,
    };
    let mut autodiff = device.clone().autodiff();
    if args.gradient_checkpointing {
        autodiff = autodiff.gradient_checkpointing();
    }
    // Every tensor of a graph must have one strategy, so the model is made under it.
    let mut rng = random::stream(1, "bench", &[]);
    let clip = clip.init(&autodiff);
    let model = FlierModel::from_clip(clip, &config, &HeadInit::NearZero, &autodiff, &mut rng);
    let mut model = parameters::freeze(model.expect("it fits"), layers::is_patch_conv);
    let adamw = AdamWConfig { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8 };
    let rule = ParameterRule { learning_rate_scale: 1.0, weight_decay: 0.05 };
    let mut optimizer = AdamW::new(&model, adamw, |_, _| rule);
    let size = backbone.image_size;
    let samples: Vec<usize> = (0..args.batch).collect();
    let start = Instant::now();
    for _ in 0..args.steps {
        let step = accumulate(&model, &samples, args.micro_batch.unwrap_or(args.batch), |part| {
            let pixels: Vec<f32> =
                (0..part.len() * 3 * size * size).map(|i| (i % 255) as f32 / 255.0).collect();
            let pixels =
                Tensor::<4>::from_data(TensorData::new(pixels, [part.len(), 3, size, size]), &autodiff);
            let labels: Vec<usize> = part.iter().map(|sample| sample % CLASSES).collect();
            let targets = loss::smoothed_targets(&labels, CLASSES, 0.1, &autodiff);
            Ok((loss::cross_entropy(model.image_logits(pixels), targets), 0.0))
        });
        let step = step.expect("the loss is read back");
        assert!(step.loss.is_finite());
        model = optimizer.step(model, step.gradients, 1e-4);
    }
    println!(
        "{} batch {} in parts of {}, checkpointing {}: {:.1} s a step, peak memory {:.2} GB",
        backbone.name,
        args.batch,
        args.micro_batch.unwrap_or(args.batch),
        args.gradient_checkpointing,
        start.elapsed().as_secs_f64() / args.steps as f64,
        peak_memory() as f64 / 1e9,
    );
}

/// The largest resident size of this process so far, in bytes; 0 where the system does not tell.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or(0_u64) * 1024
}
