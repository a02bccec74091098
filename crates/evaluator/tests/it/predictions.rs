//! Predictions of tiny trained runs, against logits worked out by hand or by the model itself.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use artifacts::{
    ArtifactReader, ArtifactWriter, FileContext, FileSource, ImageRow, MetricRow, PredictionRow, Shard,
};
use backend::DeviceSpec;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use clip_model::{
    Activation, KeyTable, Preprocess, SaveDtype, VisionConfig, VisionTransformerConfig, save_safetensors,
};
use evaluator::predictions::{Ending, Settings};
use flier_model::run::{EMA_FILE, RUN_FILE, WEIGHTS_FILE};
use flier_model::{
    Backbone, Classifier, FlierConfig, FlierModel, Pool, RunDescription, Selection, SelectionRule, ZeroShot,
};
use pipeline_spec::spec::{OtherClasses, WeightsUsed};
use pipeline_spec::{Plan, StageSpec, Store, Unit, checkpoint_digest};
use stage_cli::Cache;

use crate::synthetic::{CLASSES, OTHERS, class_names, fill, plan, plan_with, transfer};

pub fn device() -> Device {
    DeviceSpec::Cpu.open().unwrap()
}

pub fn description(classifier: Classifier, weights: &Path) -> RunDescription {
    RunDescription {
        run: "a-run".to_owned(),
        method: "a-method".to_owned(),
        dataset: "toys".to_owned(),
        backbone: Backbone {
            id: "clip-a".to_owned(),
            digest: checkpoint_digest(&weights.join("clip-a")).unwrap().to_string(),
        },
        class_names: CLASSES.map(str::to_owned).to_vec(),
        shots: None,
        seed: 0,
        shot_list_digest: None,
        classifier,
        selection: Selection::new(SelectionRule::None, 0, None),
        has_ema: false,
        final_loss: None,
        epochs: vec![],
    }
}

/// Fills the store with what does not depend on a trained run.
pub fn fill_data(plan: &Plan, store: &Store) {
    fill(plan, store, |unit| {
        matches!(unit.spec, StageSpec::Images(_) | StageSpec::FewshotSplits(_) | StageSpec::Features(_))
    });
}

/// Publishes the files of `folder` as the checkpoints that the predictions unit `unit` reads.
pub fn publish(plan: &Plan, store: &Store, unit: &Unit, folder: &Path, names: &[&str]) {
    let id = unit.input("checkpoints").unwrap();
    let checkpoints = &plan.units.iter().find(|p| p.output == *id).unwrap().unit;
    // Inputs of the run that no prediction depends on.
    fill(plan, store, |unit| {
        checkpoints.inputs.values().any(|input| *input == unit.output() && !store.contains(input))
            || (matches!(unit.spec, StageSpec::Prompts(_)) && !store.contains(&unit.output()))
    });
    let writer = ArtifactWriter::open(store, checkpoints, 1, FileContext::new("0.0.0")).unwrap();
    let paths: Vec<_> = names.iter().map(|name| (*name, folder.join(name))).collect();
    let files: Vec<_> = paths.iter().map(|(name, path)| (*name, FileSource::Path(path))).collect();
    writer.write_files(&files).unwrap();
    writer.finish("cpu", Instant::now()).unwrap();
}

fn predictions_unit(plan: &Plan, run: &str, weights: WeightsUsed) -> Unit {
    let is_wanted = |unit: &Unit| matches!(&unit.spec, StageSpec::Predictions(s) if s.run.starts_with(run) && s.weights == weights);
    plan.units.iter().find(|p| is_wanted(&p.unit)).unwrap().unit.clone()
}

pub fn predict(
    unit: &Unit,
    store: &Store,
    weights: &Path,
    batch: usize,
) -> Result<Vec<PredictionRow>, evaluator::Error> {
    let StageSpec::Predictions(spec) = &unit.spec else { unreachable!() };
    let device = device();
    let (shard, cache) = (Shard::default(), Cache::with_capacity(0));
    let settings =
        Settings { store, weights, shard, batch, device: &device, device_name: "cpu", cache: &cache };
    let ending = evaluator::predictions::run(unit, spec, &settings, &mut |_, _| ControlFlow::Continue(()))?;
    assert!(matches!(ending, Ending::Done(_)));
    Ok(ArtifactReader::open(store, &unit.output())?.rows()?)
}

/// A zero-shot run whose text features are those of `synthetic::features`, so that every image is recognised.
fn zero_shot_run(folder: &Path, weights: &Path) {
    let text = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0], [-0.894_427_2, 0.447_213_6]], &device());
    save_safetensors(&ZeroShot::new(text), &folder.join(WEIGHTS_FILE), SaveDtype::F32, &KeyTable::new())
        .unwrap();
    let classifier = Classifier::ZeroShot { projection_dim: 2, logit_scale: 10.0 };
    description(classifier, weights).write(&folder.join(RUN_FILE)).unwrap();
}

#[test]
fn zero_shot_logits_are_scaled_cosines_and_metrics_follow() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    let weights = folder.path().join("weights");
    fill_data(&plan, &store);
    zero_shot_run(folder.path(), &weights);
    let unit = predictions_unit(&plan, "zero-shot", WeightsUsed::Raw);
    publish(&plan, &store, &unit, folder.path(), &[RUN_FILE, WEIGHTS_FILE]);
    let rows = predict(&unit, &store, &weights, 2).unwrap();
    let places: Vec<_> = rows.iter().map(|r| (r.split.as_str(), r.label)).collect();
    assert_eq!(places, [("shift", 0), ("shift", 1), ("shift", 2), ("test", 0), ("test", 1), ("test", 2)]);
    // Cosines of (1, 0) with (1, 0), (0, 1) and (-2, 1) / sqrt(5), times 10.
    for (found, expected) in rows[0].logits.iter().zip([10.0, 0.0, -8.944_272]) {
        // f32 arithmetic on numbers near 10.
        assert!((found - expected).abs() < 1e-5, "{:?}", rows[0].logits);
    }
    let metrics = plan
        .units
        .iter()
        .find(|p| p.unit.inputs.get("predictions") == Some(&unit.output()))
        .map(|p| &p.unit)
        .unwrap();
    evaluator::metrics::run(metrics, &store, Shard::default()).unwrap();
    let rows = ArtifactReader::open(&store, &metrics.output()).unwrap().rows::<MetricRow>().unwrap();
    let found: Vec<_> = rows.iter().map(|r| (r.split.as_str(), r.metric.as_str(), r.n)).collect();
    let metrics = ["ece", "nll", "per_class_mean", "top1"];
    let expected: Vec<_> = ["shift", "test"].into_iter().flat_map(|s| metrics.map(|m| (s, m, 3))).collect();
    assert_eq!(found, expected, "three classes have no top-5");
    for row in rows {
        let is_accuracy = row.metric == "top1" || row.metric == "per_class_mean";
        assert_eq!(row.value == 1.0, is_accuracy, "{row:?}");
        // The nearest logits are 10 and 4.47: the right class has all but exp(-5.53) = 0.004.
        assert!(is_accuracy || (0.0..5e-3).contains(&row.value), "{row:?}");
    }
}

/// The unit of a zero-shot run on the other data set, with what it reads in the store.
fn on_others(folder: &Path, classes: OtherClasses) -> (Plan, Store, Unit) {
    let plan = plan_with(folder, |pipeline| {
        pipeline.methods.truncate(1);
        pipeline.transfers.push(transfer(classes));
    });
    let store = Store::new(folder.join("store"));
    fill_data(&plan, &store);
    let is_wanted =
        |unit: &Unit| matches!(&unit.spec, StageSpec::Predictions(s) if s.classes == Some(classes));
    let unit = plan.units.iter().find(|p| is_wanted(&p.unit)).unwrap().unit.clone();
    (plan, store, unit)
}

#[test]
fn on_some_of_its_classes_a_run_keeps_their_logits_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("weights");
    let (plan, store, unit) = on_others(folder.path(), OtherClasses::Subset);
    zero_shot_run(folder.path(), &weights);
    publish(&plan, &store, &unit, folder.path(), &[RUN_FILE, WEIGHTS_FILE]);
    let rows = predict(&unit, &store, &weights, 2).unwrap();
    // A sea lion and a violin, told apart among the two: the logits of classes 1 and 2 of three. The cosine of (0, 1) with
    // (-2, 1) / sqrt(5), times 10, is 4.472136; labels are those of the images.
    let expected = [(0, [10.0, 4.472_136]), (1, [4.472_136, 10.0])];
    assert_eq!(rows.len(), 2);
    for (row, (label, logits)) in rows.iter().zip(expected) {
        assert_eq!(row.label, label);
        for (found, expected) in row.logits.iter().zip(logits) {
            // f32 arithmetic on numbers near 10.
            assert!((found - expected).abs() < 1e-5, "{:?}", row.logits);
        }
    }
    let reader = ArtifactReader::open(&store, &unit.output()).unwrap();
    assert_eq!(reader.class_names().unwrap(), ["sea lion", "violin"]);
    let metrics =
        plan.units.iter().find(|p| p.unit.inputs.get("predictions") == Some(&unit.output())).unwrap();
    evaluator::metrics::run(&metrics.unit, &store, Shard::default()).unwrap();
    let rows = ArtifactReader::open(&store, &metrics.output).unwrap().rows::<MetricRow>().unwrap();
    assert!(rows.iter().all(|r| r.split == "others/test" && r.dataset == "toys"), "{rows:?}");
}

#[test]
fn a_class_that_a_run_does_not_know_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("weights");
    let (plan, store, unit) = on_others(folder.path(), OtherClasses::Subset);
    zero_shot_run(folder.path(), &weights);
    let path = folder.path().join(RUN_FILE);
    let text = std::fs::read_to_string(&path).unwrap().replace("violin", "viola");
    std::fs::write(&path, text).unwrap();
    publish(&plan, &store, &unit, folder.path(), &[RUN_FILE, WEIGHTS_FILE]);
    let message = predict(&unit, &store, &weights, 2).unwrap_err().to_string();
    assert!(message.contains("`violin`") && message.contains("does not know"), "{message}");
}

#[test]
fn classes_that_were_never_trained_on_are_met_by_their_texts() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("weights");
    let (plan, store, unit) = on_others(folder.path(), OtherClasses::Texts);
    zero_shot_run(folder.path(), &weights);
    publish(&plan, &store, &unit, folder.path(), &[RUN_FILE, WEIGHTS_FILE]);
    // Texts of the two classes, the other way round than the images: every answer is wrong, which only these texts explain.
    let text = Tensor::<2>::from_floats([[-0.894_427_2, 0.447_213_6], [0.0, 1.0]], &device());
    save_safetensors(
        &ZeroShot::new(text),
        &folder.path().join(WEIGHTS_FILE),
        SaveDtype::F32,
        &KeyTable::new(),
    )
    .unwrap();
    let classifier = Classifier::ZeroShot { projection_dim: 2, logit_scale: 10.0 };
    let texts = RunDescription { class_names: class_names(OTHERS), ..description(classifier, &weights) };
    texts.write(&folder.path().join(RUN_FILE)).unwrap();
    let id = unit.input("texts").unwrap();
    let texts = &plan.units.iter().find(|p| p.output == *id).unwrap().unit;
    let writer = ArtifactWriter::open(&store, texts, 1, FileContext::new("0.0.0")).unwrap();
    let paths = [RUN_FILE, WEIGHTS_FILE].map(|name| (name, folder.path().join(name)));
    let files: Vec<_> = paths.iter().map(|(name, path)| (*name, FileSource::Path(path))).collect();
    writer.write_files(&files).unwrap();
    writer.finish("cpu", Instant::now()).unwrap();
    let rows = predict(&unit, &store, &weights, 2).unwrap();
    let predicted: Vec<_> = rows.iter().map(|r| (r.label, r.logits[0] > r.logits[1])).collect();
    assert_eq!(predicted, [(0, false), (1, true)]);
}

fn tiny_config() -> FlierConfig {
    FlierConfig {
        vision: VisionConfig::VisionTransformer(VisionTransformerConfig {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: 32,
            patch_size: 16,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }),
        projection_dim: 8,
        num_classes: CLASSES.len(),
        pool: Pool::MeanPatch,
        latent: None,
    }
}

/// A fine-tuned run with random weights, and other random weights as its moving average.
fn fine_tuned_run(folder: &Path, weights: &Path) {
    Preprocess::new(32).save(&weights.join("clip-a")).unwrap();
    for file in [WEIGHTS_FILE, EMA_FILE] {
        let model = FlierModel::empty(&tiny_config(), &device()).unwrap();
        save_safetensors(&model, &folder.join(file), SaveDtype::F32, &model.key_table()).unwrap();
    }
    let classifier = Classifier::FineTune { config: tiny_config() };
    let run = RunDescription { has_ema: true, ..description(classifier, weights) };
    run.write(&folder.join(RUN_FILE)).unwrap();
}

#[test]
fn fine_tuned_runs_see_the_images_with_the_weights_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("weights");
    // The preprocessing is part of the checkpoint folder and so of its digest: it is there before the plan is made.
    std::fs::create_dir_all(weights.join("clip-a")).unwrap();
    Preprocess::new(32).save(&weights.join("clip-a")).unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    fill_data(&plan, &store);
    fine_tuned_run(folder.path(), &weights);
    let raw = predictions_unit(&plan, "real-only-clip-a-shots1-seed1", WeightsUsed::Raw);
    publish(&plan, &store, &raw, folder.path(), &[RUN_FILE, WEIGHTS_FILE, EMA_FILE]);
    let ema = predictions_unit(&plan, "real-only-clip-a-shots1-seed1", WeightsUsed::Ema);
    for (unit, file) in [(raw, WEIGHTS_FILE), (ema, EMA_FILE)] {
        let rows = predict(&unit, &store, &weights, 5).unwrap();
        assert_eq!(rows.len(), 42, "30 test and 12 shifted images");
        let images =
            ArtifactReader::open(&store, unit.input("images").unwrap()).unwrap().rows::<ImageRow>().unwrap();
        let model = FlierModel::empty(&tiny_config(), &device()).unwrap();
        let table = model.key_table();
        let model = clip_model::load_safetensors(model, &folder.path().join(file), &table).unwrap().valid();
        for row in rows.iter().step_by(9) {
            let image = images.iter().find(|i| i.sample_id == row.sample_id).unwrap();
            let pixels = image::load_from_memory(&image.image.bytes).unwrap().to_rgb8();
            let expected = model.image_logits(Preprocess::new(32).pixel_values(&[pixels], &device()));
            for (found, expected) in row.logits.iter().zip(expected.into_data().iter::<f32>()) {
                // Another batch size may change the last digits of f32.
                assert!((found - expected).abs() < 1e-5, "{}: {found} and {expected}", row.sample_id);
            }
        }
    }
}

#[test]
fn a_run_of_other_classes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    let weights = folder.path().join("weights");
    fill_data(&plan, &store);
    zero_shot_run(folder.path(), &weights);
    let path = folder.path().join(RUN_FILE);
    let text = std::fs::read_to_string(&path).unwrap().replace("violin", "viola");
    std::fs::write(&path, text).unwrap();
    let unit = predictions_unit(&plan, "zero-shot", WeightsUsed::Raw);
    publish(&plan, &store, &unit, folder.path(), &[RUN_FILE, WEIGHTS_FILE]);
    let message = predict(&unit, &store, &weights, 2).unwrap_err().to_string();
    assert!(message.contains("class 2 `viola`") && message.contains("class 2 `violin`"), "{message}");
    assert!(!store.contains(&unit.output()));
}

#[test]
fn a_missing_moving_average_names_the_files_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    let weights = folder.path().join("weights");
    fill_data(&plan, &store);
    zero_shot_run(folder.path(), &weights);
    let unit = predictions_unit(&plan, "real-only-clip-a-shots1-seed1", WeightsUsed::Ema);
    publish(&plan, &store, &unit, folder.path(), &[RUN_FILE, WEIGHTS_FILE]);
    let message = predict(&unit, &store, &weights, 2).unwrap_err().to_string();
    assert!(message.contains("ema.safetensors") && message.contains("`model.safetensors`"), "{message}");
}
