//! Runs of the methods on both towers.

use burn::tensor::{Tensor, TensorData};
use flier_model::run::{RUN_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, RunDescription, TrainedClassifier};
use pipeline_spec::spec::{Augment, ClassTexts, ClipLoraSpec, Method, TowerTraining, TwoStageSpec};
use pipeline_spec::{ArtifactId, StageSpec, Unit};
use safetensors::SafeTensors;

use crate::fixture::{self, Fixture, RESNET, VIT};

/// Two shots of three classes: six images, so a pass has two steps.
fn training() -> TowerTraining {
    TowerTraining {
        steps_per_shot: 4,
        batch_size: 4,
        learning_rate: 1e-2,
        weight_decay: 0.01,
        augment: Augment::CropFlip { scale_min: 0.5 },
    }
}

fn clip_lora(dropout: f64) -> Method {
    Method::ClipLora(ClipLoraSpec { rank: 2, alpha: 1.0, dropout, training: training() })
}

fn two_stage() -> Method {
    Method::TwoStage(TwoStageSpec { first_stage: 0.6, training: training() })
}

fn unit_of(fixture: &Fixture, backbone: &str, method: Method) -> Unit {
    let spec = StageSpec::Checkpoints(fixture.checkpoints_spec(backbone, method));
    fixture::unit(spec, &[("images", &fixture.images), ("fewshot-splits", &fixture.shots)])
}

fn weights(fixture: &Fixture, id: &ArtifactId) -> Vec<u8> {
    std::fs::read(fixture.reader(id).file_path(WEIGHTS_FILE).unwrap()).unwrap()
}

#[test]
fn what_is_left_is_an_image_encoder_with_a_classifier() {
    let fixture = Fixture::new();
    for backbone in [VIT, RESNET] {
        for method in [clip_lora(0.25), two_stage()] {
            let id = fixture.run(&unit_of(&fixture, backbone, method.clone())).unwrap();
            let reader = fixture.reader(&id);
            let run = RunDescription::read(&reader.file_path(RUN_FILE).unwrap()).unwrap();
            let Classifier::FineTune { config } = &run.classifier else { panic!("{:?}", run.classifier) };
            assert!(config.latent.is_none());
            let rule = serde_json::to_value(run.selection.rule).unwrap();
            assert_eq!(rule, method.selection_rule());
            assert!(run.selection.val_accuracy.is_some());
            // Eight steps; 2SFS begins a new pass with its second stage: 2 + 2 and 2 + 2.
            assert_eq!(run.epochs.len(), 4, "{method:?}");
            let first = run.epochs[0].real_loss.unwrap();
            assert!(run.final_loss.unwrap() < first, "{method:?}: {first} {:?}", run.final_loss);
            let path = reader.file_path(WEIGHTS_FILE).unwrap();
            let trained = TrainedClassifier::from_files(&run, &path, &fixture.device).unwrap();
            let side = if backbone == VIT { 16 } else { 32 };
            let values = vec![0.5; 2 * 3 * side * side];
            let images = Tensor::<4>::from_data(TensorData::new(values, [2, 3, side, side]), &fixture.device);
            assert_eq!(trained.logits_from_images(images).unwrap().dims(), [2, 3]);
        }
    }
}

#[test]
fn each_method_changes_its_own_weights_only() {
    let fixture = Fixture::new();
    let clip = std::fs::read(fixture.weights().join(VIT).join("model.safetensors")).unwrap();
    let clip = SafeTensors::deserialize(&clip).unwrap();
    let (query, norm) = ("self_attn.q_proj.weight", "layer_norm1.weight");
    for (method, moved) in [(clip_lora(0.25), query), (two_stage(), norm)] {
        let id = fixture.run(&unit_of(&fixture, VIT, method)).unwrap();
        let bytes = weights(&fixture, &id);
        let trained = SafeTensors::deserialize(&bytes).unwrap();
        for name in [query, norm, "mlp.fc1.weight", "self_attn.out_proj.weight"] {
            let key = format!("vision_model.encoder.layers.1.{name}");
            let same = trained.tensor(&key).unwrap().data() == clip.tensor(&key).unwrap().data();
            assert_eq!(!same, name == moved, "{key}");
        }
        assert!(trained.names().iter().all(|name| !name.contains("low_rank")));
    }
}

#[test]
fn a_run_stopped_after_any_step_ends_as_if_undisturbed() {
    let fixture = Fixture::new();
    for method in [clip_lora(0.25), two_stage()] {
        fixture.expect_resumed(&unit_of(&fixture, VIT, method), 8);
    }
}

#[test]
fn dropout_takes_part_in_training() {
    let fixture = Fixture::new();
    let trained = |dropout| {
        let id = fixture.run(&unit_of(&fixture, VIT, clip_lora(dropout))).unwrap();
        weights(&fixture, &id)
    };
    assert_ne!(trained(0.0), trained(0.25));
}

#[test]
fn a_class_may_have_any_number_of_texts() {
    let fixture = Fixture::new();
    let trained = |templates: &[&str]| {
        let mut spec = fixture.checkpoints_spec(VIT, clip_lora(0.0));
        spec.class_texts = Some(ClassTexts::Templates { templates: fixture::strings(templates) });
        let inputs = [("images", &fixture.images), ("fewshot-splits", &fixture.shots)];
        let id = fixture.run(&fixture::unit(StageSpec::Checkpoints(spec), &inputs)).unwrap();
        weights(&fixture, &id)
    };
    assert_ne!(trained(&["a {}"]), trained(&["a {}", "an icon of a {}"]));
}
