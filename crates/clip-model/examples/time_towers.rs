//! One pass through a CLIP tower on random weights, timed whenever a line arrives.
//!
//! Usage: `time_towers CASE [--device DEVICE]`, the protocol of `cargo xtask bench towers`: for every line on stdin one pass,
//! answered by `WALL CPU` in seconds; at the end of stdin `peak KIB`, the process's largest resident memory. Two warm-up
//! passes precede the first answer. `tests/scale/time_towers.py` is the other side.

use std::io::Write;
use std::time::Instant;

use anyhow::Context;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Gradients, Int, Tensor, TensorData};
use clap::{Parser, ValueEnum};
use clip_model::{Activation, Backbone, Clip};

#[derive(Parser)]
struct Args {
    /// What is timed.
    #[arg(value_enum)]
    case: Case,
    /// Where the tower runs.
    #[arg(long, default_value = "cpu")]
    device: backend::DeviceSpec,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Case {
    VitForward,
    Rn50Forward,
    VitStep,
    Rn50Step,
    TextForward,
}

impl Case {
    fn backbone(self) -> &'static str {
        match self {
            Case::Rn50Forward | Case::Rn50Step => "RN50",
            _ => "ViT-B/16",
        }
    }

    fn batch(self) -> usize {
        match self {
            Case::VitForward | Case::VitStep => 8,
            Case::Rn50Forward | Case::Rn50Step => 16,
            Case::TextForward => 64,
        }
    }
}

#[allow(clippy::print_stdout)] // the times are the output
fn main() -> anyhow::Result<()> {
    let Args { case, device } = Args::parse();
    let device = device.open()?;
    let config = Backbone::by_name(case.backbone())?.config(Activation::QuickGelu);
    let mut pass: Box<dyn FnMut()> = match case {
        Case::TextForward => {
            let model = config.init(&device).valid();
            let ids = token_ids(case.batch(), &device);
            Box::new(move || wait(model.text_features(ids.clone())))
        }
        Case::VitForward | Case::Rn50Forward => {
            let model = config.init(&device).valid();
            let pixel_values = pixels(case.batch(), &device);
            Box::new(move || wait(model.image_features(pixel_values.clone())))
        }
        Case::VitStep | Case::Rn50Step => {
            let device = device.autodiff();
            let model = config.init(&device);
            let pixel_values = pixels(case.batch(), &device);
            Box::new(move || step(&model, pixel_values.clone()))
        }
    };
    pass();
    pass();
    for line in std::io::stdin().lines() {
        line.context("cannot read stdin")?;
        let (wall, cpu) = (Instant::now(), cpu_seconds()?);
        pass();
        println!("{} {}", wall.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        std::io::stdout().flush()?;
    }
    println!("peak {}", peak()?);
    Ok(())
}

fn pixels(batch: usize, device: &Device) -> Tensor<4> {
    Tensor::random([batch, 3, 224, 224], Distribution::Normal(0.0, 1.0), device)
}

/// Texts that fill the context.
fn token_ids(batch: usize, device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> =
        (0..batch * 77).map(|i| if i % 77 == 76 { 49_407 } else { i as i64 * 31 % 49_000 }).collect();
    Tensor::from_data(TensorData::new(ids, [batch, 77]), device)
}

/// Ends when the numbers are there.
fn wait<const D: usize>(tensor: Tensor<D>) {
    tensor.into_data();
}

/// Forward, and the gradients of all parameters of the image tower.
fn step(model: &Clip, pixel_values: Tensor<4>) {
    let features = model.image_features(pixel_values);
    let grads = (features.clone() * features).mean().backward();
    let mut reader = Reader { grads };
    model.vision.visit(&mut reader);
}

/// Takes every gradient out.
struct Reader {
    grads: Gradients,
}

impl ModuleVisitor for Reader {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad_remove(&mut self.grads) {
            wait(grad.narrow(0, 0, 1));
        }
    }
}

/// User and system time of the process.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().context("no fields in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0) // the kernel counts hundredths for programs on every Linux
}

/// Largest resident memory in KiB.
fn peak() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM in /proc/self/status")?;
    line.split_whitespace().nth(1).context("an empty VmHWM")?.parse().context("VmHWM is no number")
}
