//! Artifacts open in the tools of the Arrow world, and every tool reads the same values.
//!
//! `tests/python/read_all.py` does the reading, with the interpreter that `FLIER_TEST_PYTHON` names or that
//! `cargo xtask test` sets up in `target/python`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use artifacts::{
    ArtifactWriter, FeatureRow, FewshotRow, FileContext, FileSource, ImageFile, ImageRow, LatentRow,
    MetricRow, Outcome, PredictionRow, PromptRow, Row, SchemaInfo, round_to_f16,
};
use pipeline_spec::{ArtifactKind, StageSpec, Store, Unit};
use serde_json::{Map, Value, json};

/// Class names with an accent, a space and a character beyond the basic plane.
const CLASSES: [&str; 3] = ["chat sauvage", "écureuil roux", "🦊"];
/// Shape of the latents.
const LATENT_SHAPE: [usize; 3] = [4, 3, 2];
/// Parts of each artifact, so that readers must put several files together.
const NUM_PARTS: u32 = 2;

/// Reads every artifact of the store at `root` with pyarrow, DuckDB, polars, pandas and Hugging Face `datasets`, compares
/// what they give bit for bit, and runs the examples of `docs/artifacts.md`.
///
/// # Panics
///
/// Panics if a tool gives other values than another, or if there is no Python environment.
pub fn compare_store(root: &Path) {
    read_all(root, None);
}

#[test]
fn odd_values_of_every_kind_are_the_same_in_five_tools() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("store"));
    let mut expected = Map::new();
    write_every_kind(&store, &mut expected);
    let path = folder.path().join("expected.json");
    std::fs::write(&path, Value::Object(expected).to_string()).unwrap();
    read_all(store.root(), Some(&path));
}

/// Runs `read_all.py`.
fn read_all(root: &Path, expected: Option<&Path>) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(python(repository));
    command.arg(repository.join("tests/python/read_all.py")).arg(root);
    command.arg("--docs").arg(repository.join("docs/artifacts.md"));
    if let Some(path) = expected {
        command.arg("--expected").arg(path);
    }
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
}

/// The interpreter with the readers.
fn python(repository: &Path) -> PathBuf {
    if let Some(path) = std::env::var_os("FLIER_TEST_PYTHON") {
        return path.into();
    }
    let path = repository.join("target/python/bin/python");
    assert!(
        path.is_file(),
        "`{}` is not there; run the tests by `cargo xtask test`, which sets it up",
        path.display()
    );
    path
}

/// Writes one artifact of each kind and notes the values that every tool must give.
fn write_every_kind(store: &Store, expected: &mut Map<String, Value>) {
    let classes = SchemaInfo { class_names: CLASSES.map(str::to_owned).to_vec(), ..SchemaInfo::default() };
    let tensors = |shape: &[usize]| SchemaInfo { tensor_shape: shape.to_vec(), ..classes.clone() };
    write(store, expected, &prompts(), &classes, |rows| {
        json!({
            "class_id": column(rows, |r| json!(r.class_id)),
            "class_name": column(rows, |r| json!(r.class_name)),
            "prompt_index": column(rows, |r| json!(r.prompt_index)),
            "prompt": column(rows, |r| json!(r.prompt)),
            "template": column(rows, |r| json!(r.template)),
            "provider": column(rows, |r| json!(r.provider)),
            "model": column(rows, |r| json!(r.model)),
        })
    });
    write(store, expected, &latents(), &tensors(&LATENT_SHAPE), |rows| {
        json!({
            "class_id": column(rows, |r| json!(r.class_id)),
            "class_name": column(rows, |r| json!(r.class_name)),
            "prompt_index": column(rows, |r| json!(r.prompt_index)),
            "sample_index": column(rows, |r| json!(r.sample_index)),
            "prompt": column(rows, |r| json!(r.prompt)),
            "noise_seed": column(rows, |r| json!(r.noise_seed)),
            "latent": column(rows, |r| bits(&r.latent)),
            "mean": column(rows, |r| json!(r.mean.to_bits())),
            "std": column(rows, |r| json!(r.std.to_bits())),
            "image": column(rows, |r| image_value(&r.image_png, &r.image_path)),
            "clip_score": column(rows, |r| json!(r.clip_score.map(f32::to_bits))),
        })
    });
    write(store, expected, &images(), &classes, |rows| {
        json!({
            "sample_id": column(rows, |r| json!(r.sample_id)),
            "split": column(rows, |r| json!(r.split)),
            "label": column(rows, |r| json!(r.label)),
            "class_name": column(rows, |r| json!(r.class_name)),
            "caption": column(rows, |r| json!(r.caption)),
            "source": column(rows, |r| json!(r.source)),
            "image": column(rows, |r| image_value(&r.image.bytes, &r.image.path)),
        })
    });
    write(store, expected, &fewshot(), &classes, |rows| {
        json!({
            "sample_id": column(rows, |r| json!(r.sample_id)),
            "label": column(rows, |r| json!(r.label)),
            "split": column(rows, |r| json!(r.split)),
            "shots": column(rows, |r| json!(r.shots)),
            "seed": column(rows, |r| json!(r.seed)),
            "order": column(rows, |r| json!(r.order)),
        })
    });
    write_results(store, expected, &tensors);
    write_checkpoint(store);
}

/// The kinds that come after training.
fn write_results(store: &Store, expected: &mut Map<String, Value>, tensors: &dyn Fn(&[usize]) -> SchemaInfo) {
    write(store, expected, &features(), &tensors(&[5]), |rows| {
        json!({
            "sample_id": column(rows, |r| json!(r.sample_id)),
            "split": column(rows, |r| json!(r.split)),
            "label": column(rows, |r| json!(r.label)),
            "view": column(rows, |r| json!(r.view)),
            "feature": column(rows, |r| bits(&r.feature)),
        })
    });
    write(store, expected, &predictions(), &tensors(&[3]), |rows| {
        json!({
            "sample_id": column(rows, |r| json!(r.sample_id)),
            "split": column(rows, |r| json!(r.split)),
            "label": column(rows, |r| json!(r.label)),
            "logits": column(rows, |r| bits(&r.logits)),
        })
    });
    write(store, expected, &metrics(), &SchemaInfo::default(), |rows| {
        json!({
            "run": column(rows, |r| json!(r.run)),
            "method": column(rows, |r| json!(r.method)),
            "dataset": column(rows, |r| json!(r.dataset)),
            "backbone": column(rows, |r| json!(r.backbone)),
            "shots": column(rows, |r| json!(r.shots)),
            "seed": column(rows, |r| json!(r.seed)),
            "split": column(rows, |r| json!(r.split)),
            "weights": column(rows, |r| json!(r.weights)),
            "select": column(rows, |r| json!(r.select)),
            "metric": column(rows, |r| json!(r.metric)),
            "value": column(rows, |r| json!(r.value.to_bits())),
            "n": column(rows, |r| json!(r.n)),
        })
    });
}

/// Writes `rows` as one artifact and notes its columns.
fn write<R: Row>(
    store: &Store,
    expected: &mut Map<String, Value>,
    rows: &[R],
    info: &SchemaInfo,
    columns: impl Fn(&[R]) -> Value,
) {
    let context = FileContext::new("0.0.0");
    let writer = ArtifactWriter::open(store, &unit(R::KIND), NUM_PARTS, context).unwrap();
    let (first, second) = rows.split_at(rows.len() / 2);
    writer.write_part(0, first, info).unwrap();
    writer.write_part(1, second, info).unwrap();
    assert!(matches!(writer.finish("none", Instant::now()).unwrap(), Outcome::Finished(_)));
    let description = json!({ "columns": columns(rows), "class_names": info.class_names, "tensor_shape": info.tensor_shape });
    expected.insert(writer.id().to_string(), description);
}

/// A checkpoint lies in the same store and is no table.
fn write_checkpoint(store: &Store) {
    let writer =
        ArtifactWriter::open(store, &unit(ArtifactKind::Checkpoints), 1, FileContext::new("0.0.0")).unwrap();
    writer.write_files(&[("run.json", FileSource::Bytes(b"{}"))]).unwrap();
    assert!(matches!(writer.finish("cpu", Instant::now()).unwrap(), Outcome::Finished(_)));
}

fn column<R>(rows: &[R], value: impl Fn(&R) -> Value) -> Vec<Value> {
    rows.iter().map(value).collect()
}

fn bits(values: &[f32]) -> Value {
    json!(values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>())
}

fn image_value(bytes: &[u8], path: &str) -> Value {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    json!({ "bytes": hex, "path": path })
}

fn unit(kind: ArtifactKind) -> Unit {
    let digest = "0".repeat(64);
    let checkpoint = json!({ "id": "tiny", "digest": digest });
    let spec = match kind {
        ArtifactKind::Prompts => json!({ "dataset": "odd", "manifest_digest": digest,
            "provider": { "kind": "templates", "templates": ["ein \"{}\" – 🦊"] } }),
        ArtifactKind::Latents => json!({ "dataset": "odd", "checkpoint": checkpoint, "samples_per_prompt": 1,
            "scheduler": "ddim", "num_inference_steps": 2, "guidance_scale": 3.5, "negative_prompt": "", "seed": 1,
            "num_parts": NUM_PARTS }),
        ArtifactKind::Images => {
            json!({ "dataset": "odd", "manifest_digest": digest, "splits": ["train", "base"],
            "image_size": 64, "num_parts": NUM_PARTS })
        }
        ArtifactKind::FewshotSplits => {
            json!({ "dataset": "odd", "shots": 2, "seed": 1, "val_shots": "min-shots4",
            "short_class": "take-all" })
        }
        ArtifactKind::Features => json!({ "dataset": "odd", "backbone": checkpoint, "splits": ["train"],
            "view": { "kind": "center" } }),
        ArtifactKind::Checkpoints => json!({ "dataset": "odd", "run": "run-1", "method_name": "zero-shot",
            "backbone": checkpoint, "seed": 1, "class_texts": { "kind": "templates", "templates": ["a {}"] }, "method": { "kind": "zero-shot" } }),
        ArtifactKind::Predictions => json!({ "dataset": "odd", "run": "run-1", "splits": ["test"],
            "source": "images", "weights": "raw" }),
        ArtifactKind::Metrics => json!({ "dataset": "odd", "run": "run-1" }),
    };
    let spec: StageSpec = serde_json::from_value(json!({ "kind": kind, "spec": spec })).unwrap();
    Unit { spec, inputs: BTreeMap::new() }
}

/// A PNG of `width` x 2 pixels.
fn png(width: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, 2, |x, y| image::Rgb([x as u8 * 40, y as u8 * 200, 7]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn prompts() -> Vec<PromptRow> {
    let texts = ["a \"quoted\", comma, cat", "ein Eichhörnchen,\nzwei\tZeilen \\", "🦊'🦊;-- "];
    let row = |label: usize, prompt_index: u32| PromptRow {
        class_id: label as u32,
        class_name: CLASSES[label].to_owned(),
        prompt_index,
        prompt: texts[label].to_owned(),
        template: ["", "a {}"][prompt_index as usize].to_owned(),
        provider: "templates".to_owned(),
        model: String::new(),
        answer: None,
    };
    (0..3).flat_map(|label| [row(label, 0), row(label, 1)]).collect()
}

fn latents() -> Vec<LatentRow> {
    let odd = [0.0, -0.0, 6.0e-8, -65504.0, 65504.0, 1.0 / 3.0, -1.5, 2.0e-5, 7.0, 0.1, -0.1, 1.0e-7];
    let row = |i: usize| {
        let mut latent: Vec<f32> =
            odd.iter().copied().chain((0..12).map(|j| (i * 12 + j) as f32 / 7.0)).collect();
        round_to_f16(&mut latent);
        LatentRow {
            class_id: (i / 2) as u32,
            class_name: CLASSES[i / 2].to_owned(),
            prompt_index: 0,
            sample_index: (i % 2) as u32,
            prompt: format!("a {}", CLASSES[i / 2]),
            noise_seed: u64::MAX - i as u64,
            latent,
            mean: -1.0 / (i as f32 + 3.0),
            std: f32::MIN_POSITIVE / 4.0 * (i as f32 + 1.0),
            image_png: png(i as u32 + 1),
            image_path: format!("écureuil {i}.png"),
            clip_score: (i != 1).then_some(0.1 * i as f32 - 0.15),
        }
    };
    (0..6).map(row).collect()
}

fn images() -> Vec<ImageRow> {
    let row = |i: usize, label: Option<u32>| ImageRow {
        sample_id: format!("u1f98a-{i}"),
        split: if label.is_some() { "train" } else { "base" }.to_owned(),
        label,
        class_name: label.map(|l| CLASSES[l as usize].to_owned()),
        caption: [None, Some(String::new()), Some("un écureuil — \"roux\"".to_owned())][i % 3].clone(),
        source: ["noto", ""][i % 2].to_owned(),
        image: ImageFile { bytes: png(i as u32 + 1), path: format!("images/u1f98a {i}.png") },
    };
    let labels = [None, None, Some(0), Some(1), Some(2), Some(2)];
    labels.into_iter().enumerate().map(|(i, label)| row(i, label)).collect()
}

fn fewshot() -> Vec<FewshotRow> {
    let row = |order: u32, label: u32, split: &str| FewshotRow {
        sample_id: format!("u1f98a-{order}"),
        label,
        split: split.to_owned(),
        shots: 1,
        seed: u64::MAX,
        order,
    };
    vec![row(0, 2, "train"), row(1, 0, "train"), row(2, 1, "train"), row(0, 1, "val")]
}

fn features() -> Vec<FeatureRow> {
    let row = |label: u32, view: u32| FeatureRow {
        sample_id: format!("u1f98a-{label}"),
        split: "train".to_owned(),
        label,
        view,
        feature: vec![label as f32, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, 0.1 + view as f32],
    };
    (0..3).flat_map(|label| [row(label, 0), row(label, 1)]).collect()
}

fn predictions() -> Vec<PredictionRow> {
    let row = |i: u32| PredictionRow {
        sample_id: format!("u1f98a-{i}"),
        split: ["shift", "test"][(i / 3) as usize].to_owned(),
        label: i % 3,
        logits: vec![-1.0e-30, 100.0 / 3.0, i as f32 * 9.0],
    };
    (0..6).map(row).collect()
}

fn metrics() -> Vec<MetricRow> {
    let row = |metric: &str, value: f64, shots: Option<u32>, n: u64| MetricRow {
        run: "run-1".to_owned(),
        method: "zero-shot".to_owned(),
        dataset: "odd".to_owned(),
        backbone: "tiny".to_owned(),
        shots,
        seed: u64::MAX,
        split: "test".to_owned(),
        weights: "raw".to_owned(),
        select: String::new(),
        metric: metric.to_owned(),
        value,
        n,
    };
    vec![
        row("mean_class", 1.0 / 3.0, None, 0),
        row("mean_class_ema", -0.0, None, 7),
        row("top1", 5.0e-324, Some(16), 1 << 60),
        row("top5", f64::MAX, Some(u32::MAX), u64::MAX),
    ]
}
