//! Small rows of every kind with odd values, and the units that yield them.

use std::collections::BTreeMap;

use artifacts::{
    FeatureRow, FewshotRow, ImageFile, ImageRow, LatentRow, MetricRow, PredictionRow, PromptRow, SchemaInfo,
    round_to_f16,
};
use pipeline_spec::{ArtifactKind, StageSpec, Unit};
use serde_json::json;

/// A red PNG of one pixel.
pub const PNG: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00,
    0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x02, 0x00, 0x00, 0x00, 0x90, 0x77, 0x53, 0xde, 0x00,
    0x00, 0x00, 0x0c, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0xc0, 0x00, 0x00, 0x03, 0x01,
    0x01, 0x00, 0xc9, 0xfe, 0x92, 0xef, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60,
    0x82,
];

/// Names with an accent, a space and characters beyond the basic plane.
pub const CLASSES: [&str; 3] = ["chat sauvage", "écureuil", "🦊 fox"];

/// Class names only.
pub fn class_info() -> SchemaInfo {
    SchemaInfo { class_names: CLASSES.map(str::to_owned).to_vec(), ..SchemaInfo::default() }
}

/// Class names and a tensor shape.
pub fn tensor_info(shape: &[usize]) -> SchemaInfo {
    SchemaInfo { tensor_shape: shape.to_vec(), ..class_info() }
}

/// A unit of the given kind without inputs; its name and key do not depend on what the stages' specifications become.
pub fn unit(kind: ArtifactKind) -> Unit {
    let digest = "0".repeat(64);
    let checkpoint = json!({ "id": "tiny", "digest": digest });
    let spec = match kind {
        ArtifactKind::Prompts => json!({ "dataset": "odd", "manifest_digest": digest,
            "provider": { "kind": "templates", "templates": ["a {}"] } }),
        ArtifactKind::Latents => json!({ "dataset": "odd", "checkpoint": checkpoint, "samples_per_prompt": 1,
            "scheduler": "ddim", "num_inference_steps": 2, "guidance_scale": 3.5, "negative_prompt": "", "seed": 1,
            "num_parts": 4 }),
        ArtifactKind::Images => {
            json!({ "dataset": "odd", "manifest_digest": digest, "splits": ["train", "base"],
            "image_size": 64, "num_parts": 4 })
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
    let spec: StageSpec =
        serde_json::from_value(json!({ "kind": kind, "spec": spec })).expect("a valid specification");
    Unit { spec, inputs: BTreeMap::new() }
}

/// Prompts with quotes, a line break and empty text where it is allowed.
pub fn prompts() -> Vec<PromptRow> {
    let texts = ["a \"wild\" cat", "ein Eichhörnchen,\nzwei", "🦊🦊🦊"];
    let row = |i: usize| PromptRow {
        class_id: i as u32,
        class_name: CLASSES[i].to_owned(),
        prompt_index: 0,
        prompt: texts[i].to_owned(),
        template: if i == 0 { String::new() } else { "a {}".to_owned() },
        provider: "templates".to_owned(),
        model: String::new(),
        answer: None,
    };
    (0..3).map(row).collect()
}

/// Latents `[2, 2, 3]` with negative zero, subnormal and extreme values of f16.
pub fn latents() -> Vec<LatentRow> {
    let row = |i: usize| {
        let odd = [0.0, -0.0, 6.0e-8, -65504.0, 65504.0, 1.0 / 3.0, -1.5, 2.0e-5, 7.0, 0.1, -0.1];
        let mut latent: Vec<f32> = odd.iter().copied().chain([i as f32]).collect();
        round_to_f16(&mut latent);
        LatentRow {
            class_id: i as u32,
            class_name: CLASSES[i].to_owned(),
            prompt_index: 1,
            sample_index: i as u32,
            prompt: "a {}".to_owned(),
            noise_seed: u64::MAX - i as u64,
            mean: latent.iter().sum::<f32>() / 12.0,
            std: f32::MIN_POSITIVE,
            latent,
            image_png: PNG.to_vec(),
            image_path: format!("{i}.png"),
            clip_score: None,
        }
    };
    (0..3).map(row).collect()
}

/// Images with and without label and caption.
pub fn images() -> Vec<ImageRow> {
    let row = |i: u32, label: Option<u32>| ImageRow {
        sample_id: format!("u1f98a-{i}"),
        split: if label.is_some() { "train" } else { "base" }.to_owned(),
        label,
        class_name: label.map(|l| CLASSES[l as usize].to_owned()),
        caption: match i % 3 {
            0 => None,
            1 => Some(String::new()),
            _ => Some("un écureuil — \"roux\"".to_owned()),
        },
        source: ["noto", ""][(i % 2) as usize].to_owned(),
        image: ImageFile { bytes: PNG.to_vec(), path: format!("images/u1f98a {i}.png") },
    };
    [None, None, Some(0), Some(0), Some(1), Some(2)]
        .into_iter()
        .zip(0..)
        .map(|(label, i)| row(i, label))
        .collect()
}

/// A shot list with train and val rows.
pub fn fewshot() -> Vec<FewshotRow> {
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

/// Features `[5]` of two views.
pub fn features() -> Vec<FeatureRow> {
    let row = |label: u32, view: u32| FeatureRow {
        sample_id: format!("u1f98a-{label}"),
        split: "train".to_owned(),
        label,
        view,
        feature: vec![label as f32, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, 0.1 + view as f32],
    };
    (0..3).flat_map(|label| [row(label, 0), row(label, 1)]).collect()
}

/// Logits of three classes.
pub fn predictions() -> Vec<PredictionRow> {
    let row = |label: u32| PredictionRow {
        sample_id: format!("u1f98a-{label}"),
        split: "test".to_owned(),
        label,
        logits: vec![-1.0e-30, 100.0 / 3.0, label as f32 * 40.0],
    };
    (0..3).map(row).collect()
}

/// Figures with and without shots.
pub fn metrics() -> Vec<MetricRow> {
    let row = |metric: &str, value: f64, shots: Option<u32>| MetricRow {
        run: "run-1".to_owned(),
        method: "zero-shot".to_owned(),
        dataset: "odd".to_owned(),
        backbone: "tiny".to_owned(),
        shots,
        seed: 1,
        split: "test".to_owned(),
        weights: "raw".to_owned(),
        select: "none".to_owned(),
        metric: metric.to_owned(),
        value,
        n: u64::MAX,
    };
    vec![row("mean_class", 1.0 / 3.0, None), row("top1", 5.0e-324, Some(16))]
}
