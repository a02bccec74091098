//! A small pipeline with a manifest and checkpoints on disk.

use pipeline_spec::{Pipeline, Plan};
use std::path::PathBuf;
use tempfile::TempDir;

/// A pipeline file that uses every method and every table.
pub const PIPELINE: &str = r#"
name = "small"
description = "a pipeline for tests"
dataset = "toys"
backbones = ["clip-a", "clip-b"]
text_classifier = { kind = "templates", templates = ["a toy {}"] }
cache_views = { views = 2, scale_min = 0.5 }
evaluation_splits = ["test"]

[images]
splits = ["train", "val", "test"]
image_size = 32
num_parts = 1

[fewshot]
shots = [1, 2]
seeds = [1, 2, 3]
val_shots = "min-shots4"
short_class = "take-all"

[prompts]
kind = "templates"
templates = ["a {}", "the {}"]

[latents]
checkpoint = "sd-a"
samples_per_prompt = 2
scheduler = "ddim"
num_inference_steps = 4
guidance_scale = 3.0
negative_prompt = ""
seed = 7
num_parts = 3

[training]
schedule = "alternate"
head_init = "near-zero"
pool = "mean-patch"
freeze = "patch-conv"
select = "last"
augment = { kind = "crop-flip", scale_min = 0.5 }
label_smoothing = 0.1
ema_decay = 0.99
latent_factor = 0.5

[training.optimizer]
epochs = 2
warmup_epochs = 1
batch_size = 8
learning_rate = 1e-4
min_learning_rate = 1e-6
weight_decay = 0.05
layer_decay = 0.7

[[methods]]
name = "zero-shot"
method = { kind = "zero-shot" }

[[methods]]
name = "linear-probe"
method = { kind = "linear-probe", inverse_regularization = [0.1, 1.0], max_iterations = 100 }

[[methods]]
name = "tip-adapter-f"
method = { kind = "tip-adapter-f", alpha = [1.0], beta = [1.0, 5.0], epochs = 2, batch_size = 8, learning_rate = 1e-3 }

[[methods]]
name = "real-only"
method = { kind = "fine-tune", preset = "real-only" }

[[methods]]
name = "flier-coupled"
method = { kind = "fine-tune", preset = "coupled", head_init = "zero-shot-text", pool = "projected" }
"#;

/// A temporary folder with `pipeline.toml`, `data-manifests/` and `models/`.
pub struct Fixture {
    pub folder: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("pipeline.toml", PIPELINE);
        write("data-manifests/toys.toml", "name = \"toys\"");
        for model in ["clip-a", "clip-b", "sd-a"] {
            write(&format!("models/{model}/config.json"), &format!("{{\"name\":\"{model}\"}}"));
            write(&format!("models/{model}/README.md"), "a card");
        }
        Self { folder }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn plan(&self) -> Plan {
        let pipeline = Pipeline::read(&self.path("pipeline.toml")).unwrap();
        Plan::new(pipeline, &self.path("data-manifests"), &self.path("models")).unwrap()
    }

    /// The message of reading the pipeline after replacing `from` by `to`.
    pub fn refusal(&self, from: &str, to: &str) -> String {
        assert!(PIPELINE.contains(from), "{from}");
        std::fs::write(self.path("pipeline.toml"), PIPELINE.replace(from, to)).unwrap();
        Pipeline::read(&self.path("pipeline.toml")).unwrap_err().to_string()
    }
}
