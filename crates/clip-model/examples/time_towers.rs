//! One pass through a CLIP tower on random weights, timed whenever a line arrives.
//!
//! Usage: `time_towers CASE [--device DEVICE]`, with the protocol in `passes/mod.rs`; `tests/scale/time_towers.py` is the other side.

mod passes;

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

fn main() -> anyhow::Result<()> {
    let Args { case, device } = Args::parse();
    let device = device.open()?;
    let config = Backbone::by_name(case.backbone())?.config(Activation::QuickGelu);
    let pass: Box<dyn FnMut() -> anyhow::Result<()>> = match case {
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
    passes::serve(2, pass)
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

/// Forward, and the gradients of all parameters of the image tower.
fn step(model: &Clip, pixel_values: Tensor<4>) -> anyhow::Result<()> {
    let features = model.image_features(pixel_values);
    let grads = (features.clone() * features).mean().backward();
    let mut reader = Reader { grads };
    model.vision.visit(&mut reader);
    Ok(())
}

/// Takes every gradient out.
struct Reader {
    grads: Gradients,
}

impl ModuleVisitor for Reader {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad_remove(&mut self.grads) {
            grad.narrow(0, 0, 1).into_data();
        }
    }
}

/// Ends when the numbers are there.
fn wait<const D: usize>(tensor: Tensor<D>) -> anyhow::Result<()> {
    tensor.try_into_data()?;
    Ok(())
}
