//! Two steps of FLIER's training, one on real and one on generated images with latents, timed whenever a line arrives.
//!
//! Usage: `time_steps CASE [--device DEVICE]`, with the protocol of `passes`; `tests/scale/time_steps.py` is the other side.
//! The loop of the `trainer` runs as it is: pixel values, both branches, AdamW with layer-wise decay, the moving average.

#[path = "../../clip-model/examples/passes/mod.rs"]
mod passes;

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Context;
use burn::module::Module;
use clap::{Parser, ValueEnum};
use clip_model::{Activation, Backbone, Preprocess};
use flier_model::{
    Coupling, FlierConfig, FlierModel, HeadInit, LatentBranchConfig, LatentEncoderConfig, Pool,
};
use image::RgbImage;
use pipeline_spec::spec::{
    self, Augment, FineTuneSpec, Freeze, GeneratedUse, OptimizerSpec, Schedule, Select,
};
use rand_core::Rng;
use trainer::fine_tune::batch::Views;
use trainer::fine_tune::is_frozen;
use trainer::fine_tune::run::Training;
use trainer::images::{GeneratedSample, LabeledImage};
use trainer::{parameters, random};

/// Images in a step.
const BATCH: usize = 16;
const CLASSES: usize = 100;
const IMAGE_SIZE: usize = 224;
/// Scaled latents of 512-pixel images.
const LATENT: LatentEncoderConfig =
    LatentEncoderConfig { latent_channels: 4, latent_height: 64, latent_width: 64 };

#[derive(Parser)]
struct Args {
    /// What is timed.
    #[arg(value_enum)]
    case: Case,
    /// Where the model runs.
    #[arg(long, default_value = "cpu")]
    device: backend::DeviceSpec,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Case {
    Vit,
    Rn50,
}

impl Case {
    fn backbone(self) -> &'static str {
        match self {
            Case::Vit => "ViT-B/16",
            Case::Rn50 => "RN50",
        }
    }
}

/// The training thread waits for permission before each step and says when it is done.
struct Turns {
    go: Receiver<()>,
    done: SyncSender<()>,
}

fn main() -> anyhow::Result<()> {
    let Args { case, device } = Args::parse();
    let (permit, go) = sync_channel::<()>(0);
    let (done, finished) = sync_channel::<()>(0);
    let training = std::thread::spawn(move || train(case, device, Turns { go, done }));
    let served = passes::serve(2, || {
        for _ in 0..2 {
            permit.send(()).context("training has ended")?;
            finished.recv().context("training has ended")?;
        }
        Ok(())
    });
    drop((permit, finished));
    training.join().map_err(|_| anyhow::anyhow!("training panicked"))??;
    served
}

fn train(case: Case, device: backend::DeviceSpec, turns: Turns) -> anyhow::Result<()> {
    let device = device.open()?;
    let mut clip = Backbone::by_name(case.backbone())?.config(Activation::QuickGelu);
    // No text goes through the model; a small text tower is dropped with the rest of CLIP.
    (clip.text_config.vocab_size, clip.text_config.num_hidden_layers) = (100, 1);
    let config = FlierConfig {
        vision: clip.vision_config.clone(),
        projection_dim: clip.projection_dim,
        num_classes: CLASSES,
        pool: Pool::MeanPatch,
        latent: Some(LatentBranchConfig {
            encoder: LATENT,
            coupling: Coupling::Independent,
            latent_scale: None,
        }),
    };
    let mut rng = random::stream(1, "time", &[]);
    let clip = clip.init(&device);
    let model = FlierModel::from_clip(clip, &config, &HeadInit::NearZero, &device, &mut rng)?;
    let spec = spec();
    let model = parameters::freeze(model.train(), |name| is_frozen(&spec, name));
    let (real, generated) = (pictures(&mut rng), pictures(&mut rng));
    let samples: Vec<GeneratedSample> =
        generated.into_iter().map(|image| GeneratedSample { image, latent: latent(&mut rng) }).collect();
    let real: Vec<&LabeledImage> = real.iter().collect();
    let generated: Vec<&LabeledImage> = samples.iter().map(|sample| &sample.image).collect();
    let preprocess = Preprocess::new(IMAGE_SIZE);
    let training = Training {
        spec: &spec,
        seed: 1,
        real: Views::new(&real, &preprocess, Augment::None, 1),
        generated: Views::new(&generated, &preprocess, Augment::None, 1),
        samples: &samples,
        val: Views::new(&[], &preprocess, Augment::None, 1),
        device: &device,
        work_dir: None,
        save_every_steps: None,
        metrics: None,
    };
    if turns.go.recv().is_err() {
        return Ok(());
    }
    training.run(model, &mut |_, _| {
        let is_next = turns.done.send(()).is_ok() && turns.go.recv().is_ok();
        if is_next { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(())
}

/// The preset `paper` without augmentation, for longer than anybody waits.
fn spec() -> FineTuneSpec {
    FineTuneSpec {
        generated: GeneratedUse::ImagesAndLatents {
            per_class: None,
            latent_factor: 0.2,
            control: None,
            latent_scale: None,
        },
        coupling: spec::Coupling::Independent,
        latent_trainable: true,
        schedule: Schedule::Alternate,
        head_init: spec::HeadInit::NearZero,
        pool: spec::Pool::MeanPatch,
        freeze: Freeze::PatchConv,
        select: Select::Last,
        augment: Augment::None,
        optimizer: OptimizerSpec {
            epochs: 10_000,
            warmup_epochs: 5,
            batch_size: BATCH as u32,
            micro_batch_size: None,
            learning_rate: 1e-4,
            min_learning_rate: 1e-6,
            weight_decay: 0.05,
            layer_decay: 0.7,
        },
        label_smoothing: 0.1,
        ema_decay: Some(0.9998),
    }
}

/// A batch of noise.
fn pictures(rng: &mut impl Rng) -> Vec<LabeledImage> {
    let side = IMAGE_SIZE as u32;
    let picture = |label: usize| {
        let mut image = RgbImage::new(side, side);
        rng.fill_bytes(&mut image);
        LabeledImage { sample_id: label.to_string(), label, image }
    };
    (0..BATCH).map(picture).collect()
}

fn latent(rng: &mut impl Rng) -> Vec<f32> {
    let values = LATENT.latent_channels * LATENT.latent_height * LATENT.latent_width;
    (0..values).map(|_| random::uniform(rng, -1.7, 1.7) as f32).collect()
}
