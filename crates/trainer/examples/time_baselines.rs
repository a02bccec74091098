//! Time of the baselines on synthetic features of ImageNet's size; `tests/scale/baselines.py` is the same in PyTorch.
//!
//! cargo run --release -p trainer --example time_baselines -- --shots 1,2,4,8,16 --seeds 3
#![allow(clippy::print_stdout)]

// Brings the allocator of the stages.
use stage_cli as _;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser as _;
use flier_model::init::normal;
use pipeline_spec::spec::{
    AdapterTraining, ApeSpec, CacheSpec, ChannelSpec, ClapSpec, GdaSpec, LpPlusPlusSpec, TaskResSpec,
    TipAdapterSpec,
};
use trainer::features::TrainingFeatures;
use trainer::frozen::{self, Fitted, Inputs, ape, gda, lp_plus_plus, task_res, tip_adapter};
use trainer::random::stream;

/// Images that go through a classifier together.
const TEST_BATCH: usize = 1024;

/// Sizes and epochs; the defaults are ImageNet's and the papers'.
#[derive(Debug, clap::Parser)]
struct Args {
    /// Shots, each with every seed.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    shots: Vec<u32>,
    /// Number of seeds.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Number of classes.
    #[arg(long, default_value_t = 1000)]
    classes: usize,
    /// Width of the features.
    #[arg(long, default_value_t = 1024)]
    width: usize,
    /// Test images.
    #[arg(long, default_value_t = 50_000)]
    test: usize,
    /// Augmented views of the shots.
    #[arg(long, default_value_t = 1)]
    views: usize,
    /// Share of the papers' epochs, for a machine without a day to spare.
    #[arg(long, default_value_t = 1.0)]
    epochs: f64,
    /// Methods; all by default.
    #[arg(long, value_delimiter = ',')]
    methods: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = backend::DeviceSpec::Cpu.open()?;
    let test = features(args.test, &args, 0);
    let mut totals: Vec<(&str, Duration)> = Vec::new();
    for &shots in &args.shots {
        for seed in 1..=args.seeds {
            let (cache, plain) = data(shots, seed, &args);
            let text = features(args.classes, &args, seed);
            let text = Tensor::<2>::from_data(TensorData::new(text, [args.classes, args.width]), &device);
            let inputs = Inputs {
                seed,
                shots,
                cache: &cache,
                plain: &plain,
                text_features: clip_model::normalize(text.clone()),
                logit_scale: 100.0,
                device: &device,
            };
            for name in METHODS {
                if !args.methods.is_empty() && !args.methods.iter().any(|wanted| wanted == name) {
                    continue;
                }
                let started = Instant::now();
                let fitted = fit(name, &inputs, &text, args.epochs)?;
                let fitting = started.elapsed();
                let sum = predict(&fitted, &test, &args, &device)?;
                let all = started.elapsed();
                println!(
                    "{name} shots {shots} seed {seed}: fit {fitting:.2?}, all {all:.2?}, checksum {sum:.3}"
                );
                match totals.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, total)) => *total += all,
                    None => totals.push((name, all)),
                }
            }
        }
    }
    for (name, total) in &totals {
        println!("{name}: {total:.1?}");
    }
    println!("all: {:.1?}", totals.iter().map(|(_, total)| *total).sum::<Duration>());
    Ok(())
}

const METHODS: [&str; 7] = ["gda", "tip-adapter", "tip-adapter-f", "ape", "clap", "taskres", "lp-plus-plus"];

fn fit(name: &str, inputs: &Inputs<'_>, text: &Tensor<2>, share: f64) -> anyhow::Result<Fitted> {
    let grid = |count: usize, highest: f64| -> Vec<f64> {
        (0..count).map(|i| i as f64 * (highest - 0.1) / count as f64 + 0.1).collect()
    };
    // Tip-Adapter's and APE's search: 20 weights, 200 sharpness values.
    let (alpha, beta) = (grid(20, 3.0), grid(200, 7.0));
    let epochs = |epochs: u32| ((f64::from(epochs) * share).round() as u32).max(1);
    let training = |count: u32, learning_rate: f64| AdapterTraining {
        epochs: epochs(count),
        batch_size: 256,
        learning_rate,
    };
    let mut go_on = |_: u64, _: u64| ControlFlow::Continue(());
    let fitted = match name {
        "tip-adapter" => Some(tip_adapter::fit(&CacheSpec { alpha, beta }, inputs)?),
        "tip-adapter-f" => {
            let AdapterTraining { epochs, batch_size, learning_rate } = training(20, 1e-3);
            let spec = TipAdapterSpec { alpha, beta, epochs, batch_size, learning_rate };
            tip_adapter::train(&spec, inputs, &mut go_on)?
        }
        "ape" => {
            let count = u32::try_from(inputs.cache.width / 2).context("width")?;
            let channels = ChannelSpec { count, similarity_weight: 0.7, variance_weight: 0.3 };
            let gamma = vec![0.0, 0.1, 0.2, 0.3, 0.4];
            Some(ape::fit(&ApeSpec { channels, alpha, beta, gamma }, inputs)?)
        }
        "gda" => Some(gda::fit(&GdaSpec { alpha: vec![1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0] }, inputs)?),
        "clap" => {
            frozen::clap::train(&ClapSpec { training: training(300, 0.1) }, inputs, text.clone(), &mut go_on)?
        }
        "taskres" => {
            let spec = TaskResSpec { residual_scale: vec![0.5], training: training(100, 2e-3) };
            task_res::train(&spec, inputs, text.clone(), &mut go_on)?
        }
        "lp-plus-plus" => lp_plus_plus::train(&LpPlusPlusSpec { epochs: epochs(300) }, inputs, &mut go_on)?,
        _ => None,
    };
    fitted.with_context(|| format!("method `{name}` is not timed"))
}

/// Sum of the first class's logits over the test images, so that nothing is left out.
fn predict(fitted: &Fitted, test: &[f32], args: &Args, device: &Device) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for rows in test.chunks(TEST_BATCH * args.width) {
        let rows = TensorData::new(rows.to_vec(), [rows.len() / args.width, args.width]);
        let logits = fitted.trained.logits_from_features(Tensor::from_data(rows, device))?;
        let values = trainer::backbone::to_vec(logits)?;
        sum += values.chunks_exact(args.classes).map(|row| f64::from(row[0])).sum::<f64>();
    }
    Ok(sum)
}

/// Rows around a common direction, as CLIP's are.
fn features(rows: usize, args: &Args, seed: u64) -> Vec<f32> {
    let mut rng = stream(seed, "synthetic", &[&rows.to_string()]);
    let mut values = Vec::with_capacity(rows * args.width);
    for _ in 0..rows {
        values.extend(
            (0..args.width).map(|at| (normal(&mut rng) + if at % 7 == 0 { 1.0 } else { 0.0 }) as f32),
        );
    }
    values
}

/// Shots with their views, and `min(shots, 4)` validation images per class.
fn data(shots: u32, seed: u64, args: &Args) -> (TrainingFeatures, TrainingFeatures) {
    let labels = |count: usize| (0..args.classes * count).map(|i| i / count).collect::<Vec<_>>();
    let (train, val) = (shots as usize, shots.min(4) as usize);
    let cache = TrainingFeatures {
        width: args.width,
        views: args.views,
        train: features(args.classes * train * args.views, args, seed + 100),
        train_labels: labels(train),
        val: Vec::new(),
        val_labels: Vec::new(),
    };
    let plain = TrainingFeatures {
        width: args.width,
        views: 1,
        train: Vec::new(),
        train_labels: Vec::new(),
        val: features(args.classes * val, args, seed + 200),
        val_labels: labels(val),
    };
    (cache, plain)
}
