//! Features and the methods on them.

use artifacts::FeatureRow;
use burn::tensor::{Tensor, TensorData};
use clip_model::{Clip, Preprocess};
use flier_model::run::{RUN_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, RunDescription, SelectionRule, TrainedClassifier};
use pipeline_spec::spec::{
    AdapterTraining, ApeSpec, ApeTSpec, CacheSpec, CafoSpec, ChannelSpec, ClapSpec, ClipAdapterSpec,
    CoOpSpec, Context, EpochsFrom, FeatureLayer, GdaSpec, LinearProbeSpec, LpPlusPlusSpec, Method, Penalty,
    ProLipSpec, TaskResSpec, TipAdapterSpec, ViewAugment,
};
use pipeline_spec::{ArtifactId, StageSpec};

use crate::fixture::{self, Fixture, RESNET, VIT};

const CROPS: ViewAugment = ViewAugment::CropFlip { views: 3, scale_min: 0.5, seed: 1 };

/// Predictions of a run for the rows of `features`, and their labels.
fn predictions(
    fixture: &Fixture,
    run: &ArtifactId,
    features: &ArtifactId,
) -> (RunDescription, Vec<usize>, Vec<usize>) {
    let reader = fixture.reader(run);
    let run = RunDescription::read(&reader.file_path(RUN_FILE).unwrap()).unwrap();
    let weights = reader.file_path(WEIGHTS_FILE).unwrap();
    let trained = TrainedClassifier::from_files(&run, &weights, &fixture.device).unwrap();
    let rows = fixture.reader(features).rows::<FeatureRow>().unwrap();
    let values: Vec<f32> = rows.iter().flat_map(|row| row.feature.clone()).collect();
    let features =
        Tensor::<2>::from_data(TensorData::new(values, [rows.len(), rows[0].feature.len()]), &fixture.device);
    let predicted =
        trainer::backbone::predicted_classes(trained.logits_from_features(features).unwrap()).unwrap();
    (run, predicted, rows.iter().map(|row| row.label as usize).collect())
}

#[test]
fn features_are_those_of_the_projection_not_normalised() {
    let fixture = Fixture::new();
    let id = fixture.run(&fixture.features_unit(&["val", "train"], ViewAugment::Center)).unwrap();
    let rows = fixture.reader(&id).rows::<FeatureRow>().unwrap();
    assert_eq!(rows.len(), 18);
    let folder = fixture.weights().join(VIT);
    let clip = Clip::from_folder(&folder, &fixture.device).unwrap();
    let preprocess = Preprocess::from_folder(&folder).unwrap();
    for row in [&rows[0], &rows[17]] {
        let source = fixture::image_rows().into_iter().find(|r| r.sample_id == row.sample_id).unwrap();
        let image = image::load_from_memory(&source.image.bytes).unwrap().into_rgb8();
        let expected = clip.image_features(preprocess.pixel_values(&[image], &fixture.device));
        let expected = expected.try_into_vec_as::<f32>().unwrap();
        for (a, b) in row.feature.iter().zip(&expected) {
            // Batches of another size sum in another order.
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        let length: f32 = row.feature.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() > 1e-3, "{length}");
    }
}

#[test]
fn augmented_views_are_those_of_the_list_and_repeat() {
    let fixture = Fixture::new();
    let unit = fixture.features_unit(&["train"], CROPS);
    let id = fixture.run(&unit).unwrap();
    let rows = fixture.reader(&id).rows::<FeatureRow>().unwrap();
    assert_eq!(rows.len(), 6 * 3);
    assert_eq!(rows.iter().take(3).map(|r| r.view).collect::<Vec<_>>(), [0, 1, 2]);
    assert_ne!(rows[0].feature, rows[1].feature);
    let bytes = fixture.files(&id);
    fixture.forget(&id);
    fixture.run(&unit).unwrap();
    assert!(bytes == fixture.files(&id));
}

#[test]
fn a_split_without_images_is_an_error() {
    let fixture = Fixture::new();
    let error = fixture.run(&fixture.features_unit(&["train", "vall"], ViewAugment::Center)).unwrap_err();
    assert!(error.to_string().contains("split `vall`"), "{error}");
}

#[test]
fn a_linear_probe_separates_the_colours() {
    let fixture = Fixture::new();
    let features = fixture.run(&fixture.features_unit(&["train", "val"], ViewAugment::Center)).unwrap();
    let method = Method::LinearProbe(LinearProbeSpec {
        inverse_regularization: vec![1e-6, 100.0, 1000.0],
        max_iterations: 500,
    });
    let spec = StageSpec::Checkpoints(fixture.checkpoints_spec(VIT, method));
    let unit = fixture::unit(spec, &[("fewshot-splits", &fixture.shots), ("features", &features)]);
    let (run, predicted, labels) = predictions(&fixture, &fixture.run(&unit).unwrap(), &features);
    assert_eq!(predicted, labels);
    let Classifier::LinearProbe { inverse_regularization, .. } = run.classifier else { panic!() };
    assert!(inverse_regularization > 1.0);
    assert_eq!((run.selection.rule, run.selection.val_accuracy), (SelectionRule::ValGrid, Some(1.0)));
}

#[test]
fn tip_adapter_and_zero_shot_give_classifiers_on_features() {
    let fixture = Fixture::new();
    let features = fixture.run(&fixture.features_unit(&["train", "val"], ViewAugment::Center)).unwrap();
    let cache = fixture.run(&fixture.features_unit(&["train"], CROPS)).unwrap();
    let method = Method::TipAdapterF(TipAdapterSpec {
        alpha: vec![0.5, 20.0, 100.0],
        beta: vec![1.0, 5.5, 50.0],
        epochs: 20,
        batch_size: 4,
        learning_rate: 1e-3,
    });
    let spec = StageSpec::Checkpoints(fixture.checkpoints_spec(VIT, method));
    let inputs = [("fewshot-splits", &fixture.shots), ("features", &features), ("cache-features", &cache)];
    let unit = fixture::unit(spec, &inputs);
    let id = fixture.run(&unit).unwrap();
    let (run, predicted, labels) = predictions(&fixture, &id, &features);
    let Classifier::TipAdapterF { num_keys, logit_scale, .. } = run.classifier else { panic!() };
    assert_eq!(num_keys, 6);
    assert!((logit_scale - 2.6592f64.exp()).abs() < 1e-3);
    assert_eq!(run.epochs.len(), 20);
    assert!(run.epochs[19].real_loss < run.epochs[0].real_loss);
    let right = predicted.iter().zip(&labels).filter(|(a, b)| a == b).count();
    // Keys are the training images: with a heavy cache most of them find themselves.
    assert!(right > labels.len() / 2, "{predicted:?}");
    let bytes = fixture.files(&id);
    fixture.forget(&id);
    fixture.run(&unit).unwrap();
    assert!(bytes == fixture.files(&id));

    let mut spec = fixture.checkpoints_spec(VIT, Method::ZeroShot);
    spec.shots = None;
    let id =
        fixture.run(&fixture::unit(StageSpec::Checkpoints(spec), &[("images", &fixture.images)])).unwrap();
    let (run, predicted, labels) = predictions(&fixture, &id, &features);
    assert_eq!(predicted.len(), labels.len());
    assert_eq!((run.shots, run.selection.rule), (None, SelectionRule::None));
}

/// Every method on frozen features that a pipeline may ask for, with small settings.
fn adapters() -> Vec<Method> {
    let training = AdapterTraining { epochs: 3, batch_size: 4, learning_rate: 1e-2 };
    let channels = ChannelSpec { count: 6, similarity_weight: 0.7, variance_weight: 0.3 };
    let (alpha, beta) = (vec![0.5, 2.0], vec![1.0, 5.5]);
    vec![
        Method::TipAdapter(CacheSpec { alpha: alpha.clone(), beta: beta.clone() }),
        Method::Cafo(CafoSpec {
            generated_per_class: Some(3),
            alpha: alpha.clone(),
            beta: beta.clone(),
            training,
        }),
        Method::ClipAdapter(ClipAdapterSpec { reduction: 4, ratio: vec![0.2, 0.6], training }),
        Method::Gda(GdaSpec { alpha: vec![0.01, 1.0] }),
        Method::Clap(ClapSpec { training }),
        Method::ProLip(ProLipSpec { penalty: Penalty::InverseShots, learning_rate: vec![1e-3], epochs: 3 }),
        Method::Ape(ApeSpec { channels, alpha: alpha.clone(), beta: beta.clone(), gamma: vec![0.1, 0.4] }),
        Method::ApeT(ApeTSpec { channels, initial_alpha: 1.0, initial_beta: 1.0, alpha, beta, training }),
        Method::LpPlusPlus(LpPlusPlusSpec { epochs: 12 }),
        Method::TaskRes(TaskResSpec { residual_scale: vec![0.5], training }),
        coop(Context::Unified),
        coop(Context::ClassSpecific),
    ]
}

fn coop(context: Context) -> Method {
    let epochs = vec![EpochsFrom { shots: 1, epochs: 2 }];
    Method::CoOp(CoOpSpec { context_length: 4, context, epochs, batch_size: 4, learning_rate: 1e-2 })
}

#[test]
fn a_context_that_does_not_fit_the_text_tower_is_refused() {
    let fixture = Fixture::new();
    let features = fixture.run(&fixture.features_unit(&["train", "val"], ViewAugment::Center)).unwrap();
    let cache = fixture.run(&fixture.features_unit(&["train"], CROPS)).unwrap();
    let Method::CoOp(spec) = coop(Context::Unified) else { panic!() };
    let method = Method::CoOp(CoOpSpec { context_length: 23, ..spec });
    let spec = StageSpec::Checkpoints(fixture.checkpoints_spec(VIT, method));
    let inputs = [("fewshot-splits", &fixture.shots), ("features", &features), ("cache-features", &cache)];
    let message = fixture.run(&fixture::unit(spec, &inputs)).unwrap_err().to_string();
    assert!(message.contains("method.context_length") && message.contains("at most"), "{message}");
}

#[test]
fn every_adapter_trains_is_read_back_and_repeats_with_inputs_that_others_have_read() {
    let fixture = Fixture::new();
    let shared = stage_cli::Cache::with_capacity(1 << 30);
    for method in adapters() {
        let layer = method.feature_layer();
        let backbones: &[&str] = if layer.is_some() { &[VIT, RESNET] } else { &[VIT] };
        for backbone in backbones {
            let run = |unit| {
                let id = pipeline_spec::Unit::output(&unit);
                if fixture.store.record(&id).is_err() {
                    fixture.run(&unit).unwrap();
                }
                id
            };
            let features =
                run(fixture.features_unit_of(backbone, &["train", "val"], ViewAugment::Center, layer));
            let cache = run(fixture.features_unit_of(backbone, &["train"], CROPS, layer));
            let generated = run(fixture.generated_features_unit(3, CROPS));
            let all = [
                ("fewshot-splits", &fixture.shots),
                ("features", &features),
                ("cache-features", &cache),
                ("generated-features", &generated),
            ];
            let slots = method.input_slots();
            let inputs: Vec<_> =
                all.into_iter().filter(|(name, _)| slots.iter().any(|slot| slot.name == *name)).collect();
            let spec = StageSpec::Checkpoints(fixture.checkpoints_spec(backbone, method.clone()));
            let unit = fixture::unit(spec, &inputs);
            let id = fixture.run(&unit).unwrap();
            let (run, predicted, labels) = predictions(&fixture, &id, &features);
            assert_eq!(predicted.len(), labels.len(), "{method:?}");
            let rule = serde_json::to_value(run.selection.rule).unwrap();
            assert_eq!(rule, method.selection_rule(), "{method:?}");
            assert!(run.selection.val_accuracy.is_some(), "{method:?}");
            let bytes = fixture.files(&id);
            for _ in 0..2 {
                fixture.forget(&id);
                fixture.run_sharing(&shared, &unit).unwrap();
                assert!(bytes == fixture.files(&id), "{method:?}");
            }
        }
    }
}

#[test]
fn features_before_the_projection_give_those_behind_it() {
    let fixture = Fixture::new();
    for backbone in [VIT, RESNET] {
        let features = |layer| {
            let unit = fixture.features_unit_of(backbone, &["train", "val"], ViewAugment::Center, layer);
            let id = fixture.run(&unit).unwrap();
            fixture.reader(&id).rows::<FeatureRow>().unwrap()
        };
        let (inner, outer) = (features(Some(FeatureLayer::PreProjection)), features(None));
        let checkpoint = fixture.checkpoint(backbone);
        let opened =
            trainer::backbone::Backbone::open(&checkpoint, &fixture.weights(), &fixture.device).unwrap();
        let width = inner[0].feature.len();
        assert_eq!(width, opened.feature_width(Some(FeatureLayer::PreProjection)));
        let values: Vec<f32> = inner.iter().flat_map(|row| row.feature.clone()).collect();
        let values = Tensor::<2>::from_data(TensorData::new(values, [inner.len(), width]), &fixture.device);
        let projected = opened.visual_projection().unwrap().forward(values);
        let projected = projected.try_into_vec_as::<f32>().unwrap();
        let expected: Vec<f32> = outer.iter().flat_map(|row| row.feature.clone()).collect();
        for (a, b) in projected.iter().zip(&expected) {
            // Batches of another size sum in another order.
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}

#[test]
fn features_taken_elsewhere_are_refused() {
    let fixture = Fixture::new();
    let features = fixture.run(&fixture.features_unit(&["train", "val"], ViewAugment::Center)).unwrap();
    let cache = fixture.run(&fixture.features_unit(&["train"], CROPS)).unwrap();
    let method =
        Method::ProLip(ProLipSpec { penalty: Penalty::InverseShots, learning_rate: vec![1e-3], epochs: 1 });
    let spec = StageSpec::Checkpoints(fixture.checkpoints_spec(VIT, method));
    let inputs = [("fewshot-splits", &fixture.shots), ("features", &features), ("cache-features", &cache)];
    let message = fixture.run(&fixture::unit(spec, &inputs)).unwrap_err().to_string();
    assert!(message.contains("pre-projection"), "{message}");
}
