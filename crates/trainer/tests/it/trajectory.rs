//! A whole training run against PyTorch: `tests/golden/trajectory.py`.

use std::ops::ControlFlow;
use std::path::Path;

use burn::module::Module;
use clip_model::{Preprocess, SaveDtype, VisionConfig, load_safetensors, save_safetensors};
use flier_model::{
    Coupling, EpochSummary, FlierConfig, FlierModel, LatentBranchConfig, LatentEncoderConfig, Pool,
};
use image::RgbImage;
use pipeline_spec::spec::{Augment, FineTuneSpec, GeneratedUse, OptimizerSpec, Schedule};
use safetensors::SafeTensors;
use trainer::fine_tune::batch::Views;
use trainer::fine_tune::is_frozen;
use trainer::fine_tune::run::{Trained, Training};
use trainer::images::{GeneratedSample, LabeledImage};
use trainer::parameters::freeze;

use crate::fixture::{device, fine_tune_spec, small_vit};

const GOLDEN: &[u8] = include_bytes!("../golden/trajectory.safetensors");

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn pictures(file: &SafeTensors<'_>, name: &str) -> Vec<LabeledImage> {
    let view = file.tensor(name).unwrap();
    let picture = |(index, bytes): (usize, &[u8])| LabeledImage {
        sample_id: format!("{name}-{index}"),
        label: index % 3,
        image: RgbImage::from_raw(16, 16, bytes.to_vec()).unwrap(),
    };
    view.data().chunks_exact(16 * 16 * 3).enumerate().map(picture).collect()
}

fn config() -> FlierConfig {
    let encoder = LatentEncoderConfig { latent_channels: 4, latent_height: 8, latent_width: 8 };
    FlierConfig {
        vision: VisionConfig::VisionTransformer(small_vit()),
        projection_dim: 12,
        num_classes: 3,
        pool: Pool::MeanPatch,
        latent: Some(LatentBranchConfig { encoder, coupling: Coupling::Independent, latent_scale: None }),
    }
}

fn spec() -> FineTuneSpec {
    FineTuneSpec {
        generated: GeneratedUse::ImagesAndLatents {
            per_class: None,
            latent_factor: 0.3,
            control: None,
            latent_scale: None,
        },
        augment: Augment::None,
        optimizer: OptimizerSpec {
            epochs: 10,
            warmup_epochs: 3,
            batch_size: 6,
            micro_batch_size: None,
            learning_rate: 4e-3,
            min_learning_rate: 1e-5,
            weight_decay: 0.05,
            layer_decay: 0.7,
        },
        label_smoothing: 0.1,
        ema_decay: Some(0.9),
        ..fine_tune_spec()
    }
}

/// Fails unless the weights of `model` are those under `prefix`, each tensor within 1e-4 of its largest value: AdamW divides
/// by the root of squared gradients, which brings out the rounding of small ones.
fn assert_weights(model: &FlierModel, file: &SafeTensors<'_>, prefix: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save_safetensors(model, &path, SaveDtype::F32, &model.key_table()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let found = SafeTensors::deserialize(&bytes).unwrap();
    let (mut count, mut highest) = (0, 0.0f32);
    for name in file.names() {
        let Some(name) = name.strip_prefix(prefix) else { continue };
        // A key's bias adds the same to every score of a query, so its gradient is zero but for rounding, which AdamW scales up.
        if name.ends_with("k_proj.bias") {
            continue;
        }
        let expected = floats(file.tensor(&format!("{prefix}{name}")).unwrap().data());
        let found = floats(found.tensor(name).unwrap().data());
        assert_eq!(found.len(), expected.len(), "{name}");
        let scale = expected.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale;
        highest = highest.max(worst);
        assert!(worst <= 1e-4, "{prefix}{name}: {worst:e} of {scale:e}");
        count += 1;
    }
    eprintln!("{prefix}: {count} tensors, relative difference {highest:e}");
    assert!(count > 30, "{count}");
}

/// The run of `spec` from the reference's start.
fn train(file: &SafeTensors<'_>, spec: &FineTuneSpec) -> Trained {
    let (real, generated) = (pictures(file, "real"), pictures(file, "generated"));
    let latents = floats(file.tensor("latents").unwrap().data());
    let samples = generated.iter().cloned().zip(latents.chunks_exact(4 * 8 * 8));
    let samples: Vec<GeneratedSample> =
        samples.map(|(image, latent)| GeneratedSample { image, latent: latent.to_vec() }).collect();
    let (device, preprocess) = (device(), Preprocess::new(16));
    let start = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/trajectory_start.safetensors");
    let model = FlierModel::empty(&config(), &device).unwrap();
    let table = model.key_table();
    let model = load_safetensors(model, &start, &table).unwrap();
    let model = freeze(model.train(), |name| is_frozen(spec, name));

    let real: Vec<&LabeledImage> = real.iter().collect();
    let images: Vec<&LabeledImage> = samples.iter().map(|sample| &sample.image).collect();
    let training = Training {
        spec,
        seed: 1,
        real: Views::new(&real, &preprocess, Augment::None, 1),
        generated: Views::new(&images, &preprocess, Augment::None, 1),
        samples: &samples,
        val: Views::new(&[], &preprocess, Augment::None, 1),
        device: &device,
        work_dir: None,
        save_every_steps: None,
        metrics: None,
    };
    training.run(model, &mut |_, _| ControlFlow::Continue(())).unwrap().unwrap()
}

/// Fails unless the losses are those under `name`, each within 1e-4 of itself.
fn assert_losses(found: &[f64], file: &SafeTensors<'_>, name: &str) {
    let expected = floats(file.tensor(name).unwrap().data());
    assert_eq!(found.len(), expected.len());
    let mut highest = 0.0f64;
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let relative = (found - f64::from(*expected)).abs() / f64::from(*expected);
        highest = highest.max(relative);
        assert!(relative < 1e-4, "step {step}: {found} {expected}");
    }
    eprintln!("{} losses, relative difference {highest:e}", found.len());
    assert!(expected[expected.len() - 1] < 0.9 * expected[1], "the reference learns: {expected:?}");
}

#[test]
fn twenty_steps_of_flier_equal_those_of_pytorch() {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let trained = train(&file, &spec());
    let losses = trained.epochs.iter().flat_map(|e| [e.real_loss.unwrap(), e.generated_loss.unwrap()]);
    assert_losses(&losses.collect::<Vec<_>>(), &file, "losses");
    assert_weights(&trained.model, &file, "final/");
    assert_weights(&trained.average.unwrap(), &file, "average/");
}

#[test]
fn ten_steps_on_mixed_batches_equal_those_of_pytorch_whole_and_in_parts() {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let mut spec = FineTuneSpec { schedule: Schedule::Mixed, ..spec() };
    spec.optimizer.batch_size = 12;
    for micro_batch_size in [None, Some(4)] {
        spec.optimizer.micro_batch_size = micro_batch_size;
        let trained = train(&file, &spec);
        let mean = |e: &EpochSummary| (e.real_loss.unwrap() + e.generated_loss.unwrap()) / 2.0;
        assert_losses(&trained.epochs.iter().map(mean).collect::<Vec<_>>(), &file, "mixed_losses");
        assert_weights(&trained.model, &file, "mixed/");
    }
}
