//! A plan and a store whose artifacts a test made up. Metrics are computed from the predictions by the crate.

use std::path::Path;
use std::time::Instant;

use artifacts::{
    ArtifactWriter, FeatureRow, FewshotRow, FileContext, FileSource, ImageFile, ImageRow, LatentRow,
    PredictionRow, PromptRow, Row, SchemaInfo, Shard, round_to_f16,
};
use flier_model::run::RUN_FILE;
use flier_model::{Backbone, Classifier, RunDescription, Selection, SelectionRule};
use image::{Rgb, RgbImage};
use pipeline_spec::pipeline::TransferTable;
use pipeline_spec::spec::{CheckpointsSpec, FewshotSplitsSpec, OtherClasses, PredictionsSpec, WeightsUsed};
use pipeline_spec::{Pipeline, Plan, StageSpec, Store, Unit};

pub const CLASSES: [&str; 3] = ["cat", "sea lion", "violin"];
/// Images of each class in `test` and in `shift`.
pub const TEST_IMAGES: usize = 10;
pub const SHIFT_IMAGES: usize = 4;

/// A data set with the last two classes of the other.
pub const OTHERS: &str = "others";

/// Names of the classes of a data set.
pub fn class_names(dataset: &str) -> Vec<String> {
    let names = if dataset == OTHERS { &CLASSES[1..] } else { &CLASSES[..] };
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The plan of `pipeline.toml`; its manifest and checkpoints are made up in `folder`.
pub fn plan(folder: &Path) -> Plan {
    plan_with(folder, |_| {})
}

/// The same after `change`.
pub fn plan_with(folder: &Path, change: impl FnOnce(&mut Pipeline)) -> Plan {
    let manifests = folder.join("data-manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    std::fs::write(manifests.join("toys.toml"), "dataset = \"toys\"").unwrap();
    std::fs::write(manifests.join("others.toml"), "dataset = \"others\"").unwrap();
    for checkpoint in ["clip-a", "sd-a"] {
        let model = folder.join("weights").join(checkpoint);
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(model.join("config.json"), format!("{{\"name\": \"{checkpoint}\"}}")).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/pipeline.toml");
    let mut pipeline = Pipeline::read(&path).unwrap();
    change(&mut pipeline);
    Plan::new(pipeline, &manifests, &folder.join("weights")).unwrap()
}

/// Evaluation on the other data set, to be put into a pipeline.
pub fn transfer(classes: OtherClasses) -> TransferTable {
    let dataset = OTHERS.to_owned().try_into().unwrap();
    TransferTable { dataset, splits: vec!["test".to_owned()], classes, num_parts: 1 }
}

/// How many of the ten test images of each class a run gets right; of four shifted ones a third as many, of another data
/// set one less.
pub fn num_right(training: &CheckpointsSpec, weights: WeightsUsed) -> usize {
    let Some(shots) = training.shots else { return 4 };
    let base = match training.method_name.as_str() {
        "linear-probe" => 1,
        "tip-adapter-f" => 4,
        "real-only" => 2,
        _ => 3,
    };
    let ema = usize::from(weights == WeightsUsed::Ema && shots > 2);
    (base + shots.ilog2() as usize + ema + training.seed as usize % 3).min(TEST_IMAGES)
}

/// Fills the store with everything of the plan for which `wanted` holds. What a unit reads must be wanted too.
pub fn fill(plan: &Plan, store: &Store, wanted: impl Fn(&Unit) -> bool) {
    for planned in plan.units.iter().filter(|p| wanted(&p.unit)) {
        let unit = &planned.unit;
        let dataset = unit.spec.dataset().as_str();
        match &unit.spec {
            StageSpec::Prompts(_) => write(store, unit, &prompts(dataset), &[]),
            StageSpec::Latents(_) | StageSpec::EncodedLatents(_) => {
                write(store, unit, &latents(dataset), &[4, 8, 8]);
            }
            StageSpec::Images(_) => write(store, unit, &images(dataset), &[]),
            StageSpec::FewshotSplits(spec) => write(store, unit, &shot_list(spec), &[]),
            StageSpec::Features(_) => write(store, unit, &features(dataset), &[2]),
            StageSpec::Checkpoints(spec) => {
                let writer = ArtifactWriter::open(store, unit, 1, FileContext::new("0.0.0")).unwrap();
                let run = serde_json::to_vec(&description(spec)).unwrap();
                writer.write_files(&[(RUN_FILE, FileSource::Bytes(&run))]).unwrap();
                writer.finish("cpu", Instant::now()).unwrap();
            }
            StageSpec::Predictions(spec) => {
                let training = store.record(unit.input("checkpoints").unwrap()).unwrap().unit;
                let StageSpec::Checkpoints(training) = training.spec else { unreachable!() };
                let num_classes = class_names(dataset).len();
                write(store, unit, &predictions(spec, &training), &[num_classes]);
            }
            StageSpec::Metrics(_) => {
                evaluator::metrics::run(unit, store, Shard::default()).unwrap();
            }
        }
    }
}

/// What a run would say of itself; its weights are never read here.
fn description(spec: &CheckpointsSpec) -> RunDescription {
    RunDescription {
        run: spec.run.clone(),
        method: spec.method_name.clone(),
        dataset: spec.dataset.to_string(),
        backbone: Backbone { id: spec.backbone.id.clone(), digest: spec.backbone.digest.to_string() },
        class_names: class_names(spec.dataset.as_str()),
        shots: spec.shots,
        seed: spec.seed,
        shot_list_digest: spec.shots.map(|shots| format!("list-of-{shots}-{}", spec.seed)),
        classifier: Classifier::ZeroShot { projection_dim: 2, logit_scale: 10.0 },
        selection: Selection::new(SelectionRule::Last, 0, None),
        has_ema: false,
        final_loss: None,
        epochs: vec![],
    }
}

fn write<R: Row>(store: &Store, unit: &Unit, rows: &[R], tensor_shape: &[usize]) {
    let class_names = class_names(unit.spec.dataset().as_str());
    let info = SchemaInfo { class_names, tensor_shape: tensor_shape.to_vec(), ..SchemaInfo::default() };
    let writer = ArtifactWriter::open(store, unit, 1, FileContext::new("0.0.0")).unwrap();
    writer.write_part(0, rows, &info).unwrap();
    writer.finish("cpu", Instant::now()).unwrap();
}

fn predictions(spec: &PredictionsSpec, training: &CheckpointsSpec) -> Vec<PredictionRow> {
    let right = num_right(training, spec.weights) - usize::from(spec.dataset.as_str() == OTHERS);
    let num_classes = class_names(spec.dataset.as_str()).len();
    let mut rows = Vec::new();
    // `shift` sorts before `test`.
    for (split, count, right) in [("shift", SHIFT_IMAGES, right / 3), ("test", TEST_IMAGES, right)] {
        if !spec.splits.iter().any(|wanted| wanted == split) {
            continue;
        }
        for label in 0..num_classes {
            for image in 0..count {
                let predicted = if image < right { label } else { (label + 1) % num_classes };
                let logits =
                    (0..num_classes).map(|class| if class == predicted { 2.5 } else { -1.0 }).collect();
                let sample_id = format!("{split}-{label}-{image:02}");
                rows.push(PredictionRow { sample_id, split: split.to_owned(), label: label as u32, logits });
            }
        }
    }
    rows
}

/// A picture whose colour says the class and whose stripe says which one it is.
pub fn picture(class: usize, number: usize, is_generated: bool) -> RgbImage {
    let color = [[200, 80, 60], [60, 120, 200], [90, 170, 90]][class];
    RgbImage::from_fn(32, 32, |x, y| {
        let on_stripe = (y as usize) / 4 == number % 8;
        let inside = if is_generated {
            x.abs_diff(16) + y.abs_diff(16) < 14
        } else {
            x.abs_diff(16).max(y.abs_diff(16)) < 12
        };
        Rgb(if on_stripe {
            [20; 3]
        } else if inside {
            color
        } else {
            [240; 3]
        })
    })
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn images(dataset: &str) -> Vec<ImageRow> {
    let mut rows = Vec::new();
    for (label, name) in class_names(dataset).iter().enumerate() {
        for (split, count) in [("shift", SHIFT_IMAGES), ("test", TEST_IMAGES), ("train", 16), ("val", 4)] {
            for number in 0..count {
                let sample_id = format!("{split}-{label}-{number:02}");
                let image = ImageFile {
                    bytes: png(&picture(label, number, false)),
                    path: format!("{sample_id}.png"),
                };
                rows.push(ImageRow {
                    sample_id,
                    split: split.to_owned(),
                    label: Some(label as u32),
                    class_name: Some(name.clone()),
                    caption: None,
                    source: "test".to_owned(),
                    image,
                });
            }
        }
    }
    rows
}

fn shot_list(spec: &FewshotSplitsSpec) -> Vec<FewshotRow> {
    let mut rows = Vec::new();
    for (split, count) in [("train", spec.shots), ("val", spec.shots.min(4))] {
        let mut order = 0;
        for label in 0..class_names(spec.dataset.as_str()).len() as u32 {
            for number in 0..count {
                let sample_id = format!("{split}-{label}-{number:02}");
                let (shots, seed) = (spec.shots, spec.seed);
                rows.push(FewshotRow { sample_id, label, split: split.to_owned(), shots, seed, order });
                order += 1;
            }
        }
    }
    rows
}

/// Features of two numbers whose direction says the class.
pub fn features(dataset: &str) -> Vec<FeatureRow> {
    let directions = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]];
    let mut rows = Vec::new();
    let first = CLASSES.len() - class_names(dataset).len();
    for (label, direction) in directions[first..].iter().enumerate() {
        for split in ["shift", "test", "train", "val"] {
            let sample_id = format!("{split}-{label}-00");
            let feature = direction.iter().map(|v| 3.0 * v).collect();
            rows.push(FeatureRow {
                sample_id,
                split: split.to_owned(),
                label: label as u32,
                view: 0,
                feature,
            });
        }
    }
    rows
}

fn prompts(dataset: &str) -> Vec<PromptRow> {
    let row = |(class_id, name): (u32, &String)| PromptRow {
        class_id,
        class_name: name.clone(),
        prompt_index: 0,
        prompt: format!("a {name}"),
        template: "a {}".to_owned(),
        provider: "templates".to_owned(),
        model: String::new(),
        answer: None,
    };
    (0..).zip(&class_names(dataset)).map(row).collect()
}

fn latents(dataset: &str) -> Vec<LatentRow> {
    let mut rows = Vec::new();
    for (class, name) in class_names(dataset).iter().enumerate() {
        for sample in 0..4 {
            let mut latent: Vec<f32> =
                (0..256).map(|i| ((i * 7 + class * 31 + sample * 13) % 61) as f32 / 12.0 - 2.5).collect();
            round_to_f16(&mut latent);
            rows.push(LatentRow {
                class_id: class as u32,
                class_name: name.clone(),
                prompt_index: 0,
                sample_index: sample as u32,
                prompt: format!("a {name}"),
                noise_seed: 7,
                latent,
                mean: 0.0,
                std: 1.5,
                image_png: png(&picture(class, sample, true)),
                image_path: format!("{class}-{sample}.png"),
                clip_score: None,
            });
        }
    }
    rows
}
