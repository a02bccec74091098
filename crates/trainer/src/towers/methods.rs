//! CLIP-LoRA and 2SFS: what is trained in which steps.

use burn::tensor::{Device, Tensor, TensorData};
use clip_model::Clip;
use clip_model::low_rank::{LowRank, LowRankAttention};
use flier_model::init::default_linear;
use pipeline_spec::spec::{ClipLoraSpec, TwoStageSpec};

use crate::random::stream;

/// Steps that train the same parameters, with a learning-rate schedule of their own.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// Name in messages and figures.
    pub name: &'static str,
    /// Number of steps.
    pub steps: u64,
    /// Whether the parameter of this name is trained.
    pub trains: fn(&str) -> bool,
    /// Probability with which an element of a low-rank update's input is hidden.
    pub dropout: f64,
}

impl Stage {
    /// Whether it trains the classifier instead of the towers.
    pub fn trains_classifier(&self) -> bool {
        (self.trains)(CLASSIFIER)
    }
}

/// Name of the classifier of [`super::Towers`].
const CLASSIFIER: &str = "classifier";

/// The stage of CLIP-LoRA (arXiv 2405.18541).
pub fn clip_lora(spec: &ClipLoraSpec, shots: u32) -> [Stage; 1] {
    let steps = steps(spec.training.steps_per_shot, shots);
    [Stage { name: "low-rank", steps, trains: is_low_rank, dropout: spec.dropout }]
}

/// The stages of 2SFS (arXiv 2503.11609).
///
/// All layer norms are trained, as the paper says. In the authors' code (`trainable_norm_params` at 64ac143, by reading)
/// those before and behind the blocks are set to be trained and then, seen a second time, not to be.
pub fn two_stage(spec: &TwoStageSpec, shots: u32) -> [Stage; 2] {
    let all = steps(spec.training.steps_per_shot, shots);
    let first = (all as f64 * spec.first_stage) as u64;
    let stage = |name, steps, trains| Stage { name, steps, trains, dropout: 0.0 };
    [stage("layer-norms", first, is_layer_norm), stage(CLASSIFIER, all - first, is_classifier)]
}

fn steps(per_shot: u32, shots: u32) -> u64 {
    u64::from(per_shot) * u64::from(shots)
}

fn is_low_rank(name: &str) -> bool {
    name.split('.').any(|part| part == "low_rank")
}

fn is_layer_norm(name: &str) -> bool {
    // transformers' names, one of them misspelt.
    let norms = ["layer_norm1", "layer_norm2", "final_layer_norm", "pre_layrnorm", "post_layernorm"];
    name.split('.').any(|part| norms.contains(&part))
}

fn is_classifier(name: &str) -> bool {
    name == CLASSIFIER
}

/// `clip` with updates as they are before training: `down` as PyTorch draws a linear layer, `up` zero.
pub fn with_low_rank(clip: Clip, spec: &ClipLoraSpec, seed: u64, device: &Device) -> Clip {
    let rank = spec.rank as usize;
    let scale = spec.alpha / f64::from(spec.rank).sqrt();
    clip.with_low_rank(|place, width| {
        let mut rng = stream(seed, "init", &[&format!("{place:?}")]);
        let mut update = || {
            let down = default_linear(width, rank, device, &mut rng).weight.val();
            let up = Tensor::from_data(TensorData::new(vec![0.0f32; rank * width], [rank, width]), device);
            LowRank::new(down, up, scale)
        };
        LowRankAttention { query: update(), key: update(), value: update() }
    })
}
