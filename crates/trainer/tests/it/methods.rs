//! What fine-tuning does under each switch.

use artifacts::ArtifactReader;
use burn::tensor::{Tensor, TensorData};
use flier_model::run::{EMA_FILE, LOG_FILE, RUN_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, RunDescription, SelectionRule, TrainedClassifier};
use image::RgbImage;
use pipeline_spec::spec::{
    Augment, Coupling, EncodedLatentsSpec, FineTuneSpec, Freeze, GeneratedUse, HeadInit, LatentControl, Pool,
    Preset, Schedule, Select, Training, ViewAugment,
};
use pipeline_spec::{CheckpointRef, Digest, StageSpec};
use safetensors::SafeTensors;
use trainer::images::{GeneratedSample, LabeledImage, replace_latents};

use crate::fixture::{self, Fixture, RESNET, VIT, fine_tune_spec};

fn description(reader: &ArtifactReader) -> RunDescription {
    RunDescription::read(&reader.file_path(RUN_FILE).unwrap()).unwrap()
}

fn training() -> Training {
    let spec = fine_tune_spec();
    Training {
        schedule: spec.schedule,
        head_init: spec.head_init,
        pool: spec.pool,
        freeze: spec.freeze,
        select: spec.select,
        augment: spec.augment,
        optimizer: spec.optimizer,
        label_smoothing: spec.label_smoothing,
        ema_decay: spec.ema_decay,
        latent_factor: 0.5,
        latent_scale: None,
        generated_per_class: None,
    }
}

/// A tensor of a run's weights.
fn tensor(reader: &ArtifactReader, file: &str, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(reader.file_path(file).unwrap()).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data().to_vec()
}

fn image_logits(fixture: &Fixture, reader: &ArtifactReader, file: &str) -> Vec<f32> {
    let run = description(reader);
    let weights = reader.file_path(file).unwrap();
    let trained = TrainedClassifier::from_files(&run, &weights, &fixture.device).unwrap();
    let values: Vec<f32> = (0..2 * 3 * 16 * 16).map(|i| (i * 31 % 97) as f32 / 48.0 - 1.0).collect();
    let images = Tensor::<4>::from_data(TensorData::new(values, [2, 3, 16, 16]), &fixture.device);
    trained.logits_from_images(images).unwrap().try_into_vec_as::<f32>().unwrap()
}

#[test]
fn every_preset_trains_and_describes_itself() {
    let fixture = Fixture::new();
    for backbone in [VIT, RESNET] {
        for preset in [
            Preset::Released,
            Preset::Paper,
            Preset::Coupled,
            Preset::RealOnly,
            Preset::RealGenerated,
            Preset::GeneratedOnly,
            Preset::ShuffledLatents,
            Preset::NoiseLatents,
        ] {
            let spec = FineTuneSpec::preset(preset, &training());
            let id = fixture.run(&fixture.fine_tune_unit_of(backbone, spec.clone())).unwrap();
            let reader = fixture.reader(&id);
            let run = description(&reader);
            assert_eq!(run.class_names, fixture::CLASSES);
            assert_eq!((run.shots, run.seed, run.has_ema), (Some(2), 1, true));
            assert_eq!(run.epochs.len(), 2);
            assert_eq!(run.selection.rule, SelectionRule::Last);
            assert_eq!(run.selection.num_val_images, 6);
            assert!(run.selection.val_accuracy.is_some() && run.selection.ema_val_accuracy.is_some());
            let first = &run.epochs[0];
            // The first rate is 0 and heads are near zero: the first epoch's loss is close to ln 3.
            let loss = first.real_loss.or(first.generated_loss).unwrap();
            assert!((loss - 3f64.ln()).abs() < 0.1, "{preset:?} {first:?}");
            assert_eq!(first.real_loss.is_some(), preset != Preset::GeneratedOnly);
            assert_eq!(first.generated_loss.is_some(), preset != Preset::RealOnly);
            let Classifier::FineTune { config } = &run.classifier else { panic!("{:?}", run.classifier) };
            let without = [Preset::RealOnly, Preset::RealGenerated, Preset::GeneratedOnly];
            let latents = !without.contains(&preset);
            assert_eq!((config.latent.is_some(), first.latent_loss.is_some()), (latents, latents));
            let log = std::fs::read_to_string(reader.file_path(LOG_FILE).unwrap()).unwrap();
            assert_eq!(log.lines().count(), 2);
            assert!(!fixture.store.work_dir(&id).exists());
        }
    }
}

#[test]
fn training_lowers_the_loss() {
    let fixture = Fixture::new();
    let mut spec = FineTuneSpec { ema_decay: None, ..fine_tune_spec() };
    spec.optimizer.epochs = 12;
    let id = fixture.run(&fixture.fine_tune_unit(spec)).unwrap();
    let run = description(&fixture.reader(&id));
    let (first, last) = (run.epochs[0].real_loss.unwrap(), run.epochs[11].real_loss.unwrap());
    // Three solid colours: any classifier of the mean patch learns them.
    assert!(last < 0.8 * first, "{first} {last}");
    assert_eq!(run.selection.val_accuracy, Some(1.0));
}

#[test]
fn the_same_spec_gives_the_same_bytes() {
    let spec = FineTuneSpec { select: Select::ValBest, ..fine_tune_spec() };
    let files: Vec<_> = (0..2)
        .map(|_| {
            let fixture = Fixture::new();
            fixture.files(&fixture.run(&fixture.fine_tune_unit(spec.clone())).unwrap())
        })
        .collect();
    assert_eq!(files[0].len(), 4);
    assert!(files[0] == files[1]);
}

#[test]
fn encoded_latents_must_be_those_of_the_run_s_shot_list() {
    let mut fixture = Fixture::new();
    let other = fixture::shots_unit(&fixture.images, 2);
    let other = fixture::write(&fixture.store, other, &fixture::shot_rows("train"), &[]);
    let own = fixture.shots.clone();
    for (shots, is_own) in [(own, true), (other, false)] {
        let spec = EncodedLatentsSpec {
            dataset: fixture::dataset(),
            checkpoint: CheckpointRef { id: "sd".to_owned(), digest: Digest::blake3(b"sd") },
            run: "sd-shots2".to_owned(),
            splits: None,
            image_size: 64,
            num_parts: 1,
        };
        let inputs = [("images", &fixture.images), ("fewshot-splits", &shots)];
        let unit = fixture::unit(StageSpec::EncodedLatents(spec), &inputs);
        fixture.latents = fixture::write(&fixture.store, unit, &fixture::latent_rows(1.0), &[4, 8, 8]);
        let result = fixture.run(&fixture.fine_tune_unit(fine_tune_spec()));
        let message = result.map_or_else(|error| error.to_string(), |_| "trained".to_owned());
        assert_eq!(message == "trained", is_own, "{message}");
        assert!(is_own || message.contains("shot list of the encoded images"), "{message}");
    }
    let view = ViewAugment::CropFlip { views: 1, scale_min: 0.5, seed: 1 };
    let message = fixture.run(&fixture.generated_features_unit(2, view)).unwrap_err().to_string();
    assert!(message.contains("generated samples"), "{message}");
}

/// Image logits after training with the fixture's latents times `factor`.
fn logits_with_latents_times(factor: f32, spec: &FineTuneSpec) -> Vec<f32> {
    let mut fixture = Fixture::new();
    let latents = &fixture.store.record(&fixture.latents).unwrap().unit;
    let mut unit = latents.clone();
    // Another seed gives another artifact beside the first.
    if let StageSpec::Latents(latents) = &mut unit.spec {
        latents.seed = 2;
    }
    fixture.latents = fixture::write(&fixture.store, unit, &fixture::latent_rows(factor), &[4, 8, 8]);
    let id = fixture.run(&fixture.fine_tune_unit(spec.clone())).unwrap();
    image_logits(&fixture, &fixture.reader(&id), WEIGHTS_FILE)
}

#[test]
fn latents_do_not_change_image_logits_where_branches_are_independent() {
    for latent_trainable in [false, true] {
        let spec = FineTuneSpec { latent_trainable, ..fine_tune_spec() };
        let [a, b] = [1.0, 2.0].map(|factor| logits_with_latents_times(factor, &spec));
        assert_eq!(a, b, "latent_trainable = {latent_trainable}");
    }
}

#[test]
fn a_latent_scale_trains_as_latents_of_that_scale_do() {
    let spec = FineTuneSpec { coupling: Coupling::SharedHead, ..fine_tune_spec() };
    let generated = GeneratedUse::ImagesAndLatents {
        per_class: None,
        latent_factor: 0.5,
        control: None,
        latent_scale: Some(2.0),
    };
    let scaled = FineTuneSpec { generated, ..spec.clone() };
    assert_eq!(logits_with_latents_times(1.0, &scaled), logits_with_latents_times(2.0, &spec));
}

#[test]
fn latents_change_image_logits_where_the_branches_meet() {
    use Coupling::{AlignLoss, FeatureAdd, LogitSum, SharedHead};
    for coupling in [SharedHead, LogitSum, FeatureAdd, AlignLoss] {
        let spec = FineTuneSpec { coupling, ..fine_tune_spec() };
        let [a, b] = [1.0, 2.0].map(|factor| logits_with_latents_times(factor, &spec));
        assert_ne!(a, b, "{coupling:?}");
    }
}

#[test]
fn shuffled_and_noise_latents_are_other_latents_for_the_same_images() {
    let samples = |value: usize| GeneratedSample {
        image: LabeledImage { sample_id: value.to_string(), label: 0, image: RgbImage::new(1, 1) },
        latent: vec![value as f32; 500],
    };
    let start: Vec<GeneratedSample> = (0..6).map(samples).collect();
    let replaced = |control| {
        let mut samples = start.clone();
        replace_latents(&mut samples, control, 1);
        let ids: Vec<&str> = samples.iter().map(|sample| sample.image.sample_id.as_str()).collect();
        assert_eq!(ids, ["0", "1", "2", "3", "4", "5"]);
        samples.into_iter().map(|sample| sample.latent).collect::<Vec<_>>()
    };
    let mut shuffled: Vec<f32> = replaced(LatentControl::Shuffled).iter().map(|latent| latent[0]).collect();
    assert!(shuffled.iter().enumerate().all(|(at, value)| *value != at as f32), "{shuffled:?}");
    shuffled.sort_by(f32::total_cmp);
    assert_eq!(shuffled, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    for latent in replaced(LatentControl::Noise) {
        let mean = latent.iter().sum::<f32>() / 500.0;
        // Five standard deviations of the mean of 500 normal numbers.
        assert!(mean.abs() < 0.23 && latent[0] != latent[1], "{mean}");
    }
}

#[test]
fn what_is_frozen_stays_and_what_is_trained_moves() {
    let fixture = Fixture::new();
    let clip = std::fs::read(fixture.weights().join(VIT).join("model.safetensors")).unwrap();
    let clip = SafeTensors::deserialize(&clip).unwrap();
    let patch = "vision_model.embeddings.patch_embedding.weight";
    let block = "vision_model.encoder.layers.1.mlp.fc1.weight";
    for (freeze, moved) in [
        (Freeze::PatchConv, [false, true]),
        (Freeze::None, [true, true]),
        (Freeze::AllButHead, [false, false]),
    ] {
        let id = fixture.run(&fixture.fine_tune_unit(FineTuneSpec { freeze, ..fine_tune_spec() })).unwrap();
        let reader = fixture.reader(&id);
        for (name, moved) in [patch, block].into_iter().zip(moved) {
            let same = tensor(&reader, WEIGHTS_FILE, name) == clip.tensor(name).unwrap().data();
            assert_eq!(!same, moved, "{freeze:?} {name}");
        }
        // The fresh norm and the head are trained under every setting; the average lags behind.
        for name in ["vision_model.post_layernorm.weight", "head.weight"] {
            assert_ne!(
                tensor(&reader, WEIGHTS_FILE, name),
                tensor(&reader, EMA_FILE, name),
                "{freeze:?} {name}"
            );
        }
    }
    let trained = |latent_trainable| {
        let id = fixture
            .run(&fixture.fine_tune_unit(FineTuneSpec { latent_trainable, ..fine_tune_spec() }))
            .unwrap();
        tensor(&fixture.reader(&id), WEIGHTS_FILE, "latent_encoder.conv1.weight")
    };
    assert_ne!(trained(false), trained(true));
}

#[test]
fn switches_of_schedule_head_pool_and_augmentation_are_honoured() {
    let fixture = Fixture::new();
    let run = |spec: FineTuneSpec| {
        let reader = fixture.reader(&fixture.run(&fixture.fine_tune_unit(spec)).unwrap());
        (description(&reader), image_logits(&fixture, &reader, WEIGHTS_FILE))
    };
    let (_, base) = run(fine_tune_spec());
    let (sequential, logits) = run(FineTuneSpec { schedule: Schedule::Sequential, ..fine_tune_spec() });
    assert_ne!(logits, base);
    let (mixed, logits) = run(FineTuneSpec { schedule: Schedule::Mixed, ..fine_tune_spec() });
    assert_ne!(logits, base);
    assert_eq!(mixed.epochs.len(), 2);
    assert!(mixed.epochs.iter().all(|e| e.real_loss.is_some() && e.latent_loss.is_some()));
    let losses: Vec<_> =
        sequential.epochs.iter().map(|e| (e.real_loss.is_some(), e.generated_loss.is_some())).collect();
    assert_eq!(losses, [(true, false), (true, false), (false, true), (false, true)]);

    let (_, plain) = run(FineTuneSpec { augment: Augment::None, ..fine_tune_spec() });
    assert_ne!(plain, base);
    let strong = |random_erasing| {
        let augment =
            Augment::TimmStrong { scale_min: 0.5, magnitude: 9.0, magnitude_std: 0.5, random_erasing };
        run(FineTuneSpec { augment, ..fine_tune_spec() }).1
    };
    assert_ne!(strong(0.0), base);
    assert_ne!(strong(0.0), strong(1.0));
    let projected = FineTuneSpec { pool: Pool::Projected, ..fine_tune_spec() };
    let (_, near_zero) = run(projected.clone());
    let (_, text) = run(FineTuneSpec { head_init: HeadInit::ZeroShotText, ..projected });
    let size = |logits: &[f32]| logits.iter().fold(0f32, |m, v| m.max(v.abs()));
    // A head of the text classifier times the logit scale (14.3) starts at logits of size 1 and more.
    assert!(size(&text) > 5.0 * size(&near_zero), "{text:?} {near_zero:?}");
    let (_, means) = run(FineTuneSpec { head_init: HeadInit::ClassMean, ..fine_tune_spec() });
    assert!(size(&means) > 5.0 * size(&near_zero), "{means:?} {near_zero:?}");

    let more = GeneratedUse::ImagesAndLatents {
        per_class: Some(4),
        latent_factor: 0.5,
        control: None,
        latent_scale: None,
    };
    let (_, more) = run(FineTuneSpec { generated: more, ..fine_tune_spec() });
    assert_ne!(more, base);
}

#[test]
fn the_best_epoch_on_validation_images_is_kept() {
    let fixture = Fixture::new();
    let mut spec = FineTuneSpec { select: Select::ValBest, ..fine_tune_spec() };
    spec.optimizer.epochs = 6;
    let run = description(&fixture.reader(&fixture.run(&fixture.fine_tune_unit(spec)).unwrap()));
    let best = run.epochs.iter().map(|e| e.val_accuracy.unwrap()).fold(0.0, f64::max);
    let first = run.epochs.iter().find(|e| e.val_accuracy == Some(best)).unwrap();
    assert_eq!(run.selection.rule, SelectionRule::ValBest);
    assert_eq!((run.selection.val_accuracy, run.selection.epoch), (Some(best), Some(first.epoch)));
    assert!(run.selection.ema_epoch.is_some());
}
