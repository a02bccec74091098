//! Time of the baselines on synthetic features of ImageNet's size; `tests/scale/baselines.py` is the same in PyTorch.
//!
//! cargo run --release -p trainer --example time_baselines
//!
//! What grows evenly is measured in part and multiplied: epochs, test images and seeds. Every line gives the measured time,
//! the processor time of the full size (it is less disturbed by other work than the time on the clock), and the most memory.
#![allow(clippy::print_stdout)]

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Context as _;
use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser as _;
use flier_model::init::normal;
use pipeline_spec::spec::{
    AdapterTraining, ApeSpec, ApeTSpec, CacheSpec, ChannelSpec, ClapSpec, ClipAdapterSpec, GdaSpec,
    LinearProbeSpec, LpPlusPlusSpec, Penalty, ProLipSpec, TaskResSpec, TipAdapterSpec,
};
use trainer::features::TrainingFeatures;
use trainer::frozen::{
    self, Fitted, Inputs, ape, ape_t, clip_adapter, gda, linear_probe, lp_plus_plus, prolip, task_res,
    tip_adapter,
};
use trainer::random::stream;

/// Images that go through a classifier together.
const TEST_BATCH: usize = 1024;
/// Test images and seeds of the full size.
const FULL_TEST: f64 = 50_000.0;
const FULL_SEEDS: f64 = 3.0;

/// What is measured; the rest of the sizes are ImageNet's and the epochs the papers'.
#[derive(Debug, clap::Parser)]
struct Args {
    /// Shots, each with every seed.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    shots: Vec<u32>,
    /// Number of seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Number of classes.
    #[arg(long, default_value_t = 1000)]
    classes: usize,
    /// Width of the features.
    #[arg(long, default_value_t = 1024)]
    width: usize,
    /// Test images that are measured.
    #[arg(long, default_value_t = 2048)]
    test: usize,
    /// Augmented views of the shots.
    #[arg(long, default_value_t = 1)]
    views: usize,
    /// Share of the papers' epochs that is measured; at least one epoch.
    #[arg(long, default_value_t = 0.005)]
    epochs: f64,
    /// Methods; all by default.
    #[arg(long, value_delimiter = ',')]
    methods: Vec<String>,
}

/// What one run takes.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Seconds on the clock.
    wall: f64,
    /// Seconds of all processor cores.
    cpu: f64,
    /// The same of the full size.
    full: f64,
    /// Most memory at a time in MiB, data included.
    peak: f64,
}

fn main() -> anyhow::Result<()> {
    stage_cli::keep_freed_memory();
    let args = Args::parse();
    let device = backend::DeviceSpec::Cpu.open()?;
    let test = features(args.test, &args, 0);
    let mut totals: Vec<(&str, Cost)> = Vec::new();
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
            for (name, epochs) in METHODS {
                if !args.methods.is_empty() && !args.methods.iter().any(|wanted| wanted == name) {
                    continue;
                }
                let (cost, sum) = time(name, epochs, &inputs, &text, (&test, &args))?;
                println!("{name} shots {shots} seed {seed}: {cost}, checksum {sum:.3}");
                match totals.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, total)) => total.add(cost),
                    None => totals.push((name, cost)),
                }
            }
        }
    }
    let seeds = FULL_SEEDS / args.seeds as f64;
    let mut all = Cost::default();
    for (name, total) in &mut totals {
        total.full *= seeds;
        println!("{name}: {total}");
        all.add(*total);
    }
    println!("all: {all}");
    Ok(())
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
        self.full += other.full;
        self.peak = self.peak.max(other.peak);
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wall, cpu, full, peak } = self;
        write!(f, "wall {wall:.2} s, cpu {cpu:.2} s, full cpu {full:.1} s, peak {peak:.0} MiB")
    }
}

/// Processor time of this process in seconds, as Linux counts it.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // User and system time are fields 14 and 15; the second, a name in parentheses, may hold spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Most memory since the last call of [`forget_peak`], in MiB.
fn peak_memory() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).context("VmHWM")?;
    Ok(kib / 1024.0)
}

fn forget_peak() -> anyhow::Result<()> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

/// Methods with their epochs in the papers; 1 where nothing is trained. The linear probe's are CoOp's iterations of L-BFGS, for one
/// of its penalties.
const METHODS: [(&str, u32); 11] = [
    ("linear-probe", 1000),
    ("gda", 1),
    ("tip-adapter", 1),
    ("tip-adapter-f", 20),
    ("ape", 1),
    ("ape-t", 20),
    ("clap", 300),
    ("taskres", 100),
    ("clip-adapter", 300),
    ("prolip", 300),
    ("lp-plus-plus", 300),
];

/// What fitting and predicting take, and the checksum.
fn time(
    name: &str,
    full_epochs: u32,
    inputs: &Inputs<'_>,
    text: &Tensor<2>,
    (test, args): (&[f32], &Args),
) -> anyhow::Result<(Cost, f64)> {
    let epochs = ((f64::from(full_epochs) * args.epochs).round() as u32).clamp(1, full_epochs);
    forget_peak()?;
    let (wall, started) = (Instant::now(), cpu_seconds());
    // The steps lie between the first call and the last, but for the first step.
    let (mut calls, mut first, mut last) = (0u32, 0.0, 0.0);
    let mut control = |_: u64, _: u64| {
        last = cpu_seconds() - started;
        calls += 1;
        if calls == 1 {
            first = last;
        }
        ControlFlow::Continue(())
    };
    let fitted = fit(name, inputs, text, epochs, &mut control)?;
    let fitting = cpu_seconds() - started;
    let sum = predict(&fitted, test, args, inputs.device)?;
    let cpu = cpu_seconds() - started;
    let training = match calls {
        0 => 0.0,
        1 => first,
        _ => (last - first) * f64::from(calls) / f64::from(calls - 1),
    };
    let more_epochs = f64::from(full_epochs) / f64::from(epochs) - 1.0;
    let predicting = (cpu - fitting) * FULL_TEST / args.test as f64;
    let full = fitting + training * more_epochs + predicting;
    Ok((Cost { wall: wall.elapsed().as_secs_f64(), cpu, full, peak: peak_memory()? }, sum))
}

fn fit(
    name: &str,
    inputs: &Inputs<'_>,
    text: &Tensor<2>,
    epochs: u32,
    control: &mut trainer::Control<'_>,
) -> anyhow::Result<Fitted> {
    let grid = |count: usize, highest: f64| -> Vec<f64> {
        (0..count).map(|i| i as f64 * (highest - 0.1) / count as f64 + 0.1).collect()
    };
    // Tip-Adapter's and APE's search: 20 weights, 200 sharpness values.
    let (alpha, beta) = (grid(20, 3.0), grid(200, 7.0));
    let training = |learning_rate: f64| AdapterTraining { epochs, batch_size: 256, learning_rate };
    let count = u32::try_from(inputs.cache.width / 2).context("width")?;
    let fitted = match name {
        "linear-probe" => {
            let spec = LinearProbeSpec { inverse_regularization: vec![1.0], max_iterations: epochs };
            let features = TrainingFeatures { val: inputs.plain.val.clone(), ..inputs.cache.clone() };
            let features = TrainingFeatures { val_labels: inputs.plain.val_labels.clone(), ..features };
            let fitted = linear_probe::train(&spec, features, text.dims()[0], inputs.device, control)?;
            if let Some(entry) = fitted.iter().flat_map(|fitted| &fitted.log).next() {
                println!("linear-probe: {} of {epochs} iterations", entry["iterations"]);
            }
            fitted
        }
        "tip-adapter" => Some(tip_adapter::fit(&CacheSpec { alpha, beta }, inputs)?),
        "tip-adapter-f" => {
            let AdapterTraining { epochs, batch_size, learning_rate } = training(1e-3);
            let spec = TipAdapterSpec { alpha, beta, epochs, batch_size, learning_rate };
            tip_adapter::train(&spec, inputs, control)?
        }
        "ape" => {
            let channels = ChannelSpec { count, similarity_weight: 0.7, variance_weight: 0.3 };
            let gamma = vec![0.0, 0.1, 0.2, 0.3, 0.4];
            Some(ape::fit(&ApeSpec { channels, alpha, beta, gamma }, inputs)?)
        }
        "ape-t" => {
            let channels = ChannelSpec { count, similarity_weight: 0.2, variance_weight: 0.8 };
            let (initial_alpha, initial_beta, training) = (1.0, 1.0, training(1e-3));
            let spec = ApeTSpec { channels, initial_alpha, initial_beta, alpha, beta, training };
            ape_t::train(&spec, inputs, control)?
        }
        "gda" => Some(gda::fit(&GdaSpec { alpha: vec![1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0] }, inputs)?),
        "clap" => frozen::clap::train(&ClapSpec { training: training(0.1) }, inputs, text.clone(), control)?,
        "taskres" => {
            let spec = TaskResSpec { residual_scale: vec![0.5], training: training(2e-3) };
            task_res::train(&spec, inputs, text.clone(), control)?
        }
        "clip-adapter" => {
            let spec = ClipAdapterSpec { reduction: 4, ratio: vec![0.2], training: training(1e-2) };
            let layers = clip_adapter::initial_layers(&spec, inputs);
            clip_adapter::train(&spec, inputs, &layers, control)?
        }
        "prolip" => {
            // The features stand for those before a square projection.
            let weight = Param::from_tensor(Tensor::eye(inputs.cache.width, inputs.device));
            let projection = Linear { weight, bias: None };
            let (penalty, learning_rate) = (Penalty::InverseShots, vec![1e-5]);
            prolip::train(&ProLipSpec { penalty, learning_rate, epochs }, inputs, &projection, control)?
        }
        "lp-plus-plus" => lp_plus_plus::train(&LpPlusPlusSpec { epochs }, inputs, control)?,
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
