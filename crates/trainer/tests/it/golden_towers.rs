//! CoOp, CLIP-LoRA and 2SFS against PyTorch: `tests/golden/towers/*.py`.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use clip_model::low_rank::{Dropped, LowRank, LowRankAttention, Place};
use clip_model::{Activation, Clip, ClipConfig, Preprocess, TextConfig, VisionConfig, load_safetensors};
use image::RgbImage;
use pipeline_spec::spec::{
    Augment, ClipLoraSpec, CoOpSpec, Context, EpochsFrom, TowerTraining, TwoStageSpec,
};
use trainer::class_texts::TokenIds;
use trainer::features::TrainingFeatures;
use trainer::fine_tune::batch::Views;
use trainer::fine_tune::plan::{Pass, PassKind};
use trainer::frozen::{Inputs, coop};
use trainer::images::LabeledImage;
use trainer::parameters::freeze;
use trainer::towers::methods::{Stage, clip_lora, two_stage};
use trainer::towers::run::{Training, set_dropout};
use trainer::towers::{ClassPrompts, Towers};

use crate::expected::{Golden, assert_close, folder};
use crate::fixture::{device, small_vit};

/// Of the largest value: AdamW divides by the root of squared gradients, which brings out the rounding of small ones.
const TOLERANCE: f32 = 1e-4;
const TOPIC: &str = "towers";
const END: i64 = 19;
const ALL: [usize; 6] = [0, 1, 2, 3, 4, 5];

fn config() -> ClipConfig {
    ClipConfig {
        text_config: TextConfig {
            vocab_size: 20,
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            max_position_embeddings: 12,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: END as u32,
            bos_token_id: 18,
        },
        vision_config: VisionConfig::VisionTransformer(small_vit()),
        projection_dim: 12,
        logit_scale_init_value: 0.0,
    }
}

/// The CLIP, the images and the rows of token ids of every case.
struct Case {
    config: ClipConfig,
    clip: Clip,
    images: Vec<LabeledImage>,
    rows: Vec<Vec<i64>>,
    preprocess: Preprocess,
    device: Device,
}

impl Case {
    fn new() -> Self {
        let (config, device) = (config(), device());
        let clip = config.init(&device);
        let table = clip.key_table();
        let clip = load_safetensors(clip, &folder(TOPIC).join("start.safetensors"), &table).unwrap().valid();
        let data = Golden::open(TOPIC, "data");
        let pictures = data.bytes("pictures");
        let picture = |(index, bytes): (usize, &[u8])| LabeledImage {
            sample_id: index.to_string(),
            label: index % 3,
            image: RgbImage::from_raw(16, 16, bytes.to_vec()).unwrap(),
        };
        let ids = data.bytes("ids");
        let ids: Vec<i64> = ids.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        Self {
            config,
            clip,
            images: pictures.chunks_exact(16 * 16 * 3).enumerate().map(picture).collect(),
            rows: ids.chunks_exact(8).map(<[i64]>::to_vec).collect(),
            preprocess: Preprocess::new(16),
            device,
        }
    }

    fn training<'a>(&'a self, spec: &'a TowerTraining) -> Training<'a> {
        let images: Vec<&LabeledImage> = self.images.iter().collect();
        Training {
            spec,
            seed: 1,
            images: Views::new(&images, &self.preprocess, Augment::None, 1),
            val: Views::new(&images, &self.preprocess, Augment::None, 1),
            prompts: ClassPrompts::new(TokenIds::new(&self.rows, END), vec![1; 3]),
            vision: &self.config.vision_config,
            projection_dim: 12,
            logit_scale: 20.0,
            device: &self.device,
            work_dir: None,
            save_every_steps: None,
            metrics: None,
        }
    }

    /// Trains `clip` and fails unless losses and last logits are those of the file `name`.
    fn check(&self, name: &str, spec: &TowerTraining, clip: Clip, stages: &[Stage]) -> Golden {
        let training = self.training(spec);
        let trained = training.run(clip, stages, &mut |_, _| ControlFlow::Continue(())).unwrap().unwrap();
        let golden = Golden::open(TOPIC, name);
        let losses: Vec<f32> = trained.epochs.iter().map(|epoch| epoch.real_loss.unwrap() as f32).collect();
        assert_close(&format!("{name}: losses"), &losses, &golden.floats("losses"), TOLERANCE);
        let pixel_values = training.images.pixel_values(&ALL, None, &self.device);
        let logits = trained.model.image_logits(pixel_values).try_into_vec_as::<f32>().unwrap();
        assert_close(&format!("{name}: logits"), &logits, &golden.floats("logits"), TOLERANCE);
        golden
    }
}

fn tower_training(steps_per_shot: u32) -> TowerTraining {
    TowerTraining {
        steps_per_shot,
        batch_size: 6,
        learning_rate: 5e-3,
        weight_decay: 0.01,
        augment: Augment::None,
    }
}

#[test]
fn coop_equals_the_reference() {
    let (case, golden) = (Case::new(), Golden::open(TOPIC, "coop"));
    let features = TrainingFeatures {
        width: 12,
        views: 1,
        train: golden.floats("images"),
        train_labels: vec![0, 1, 2, 0, 1, 2],
        val: golden.floats("images"),
        val_labels: vec![0, 1, 2, 0, 1, 2],
    };
    // Three places for learned vectors behind the start token.
    let rows: Vec<Vec<i64>> = case.rows.iter().map(|row| [&row[..1], &[0; 3], &row[1..]].concat()).collect();
    let tower = coop::PromptTower::new(case.clip.clone(), TokenIds::new(&rows, END), &case.device);
    let losses = golden.floats("losses");
    for (kind, context, owners) in [("unified", Context::Unified, 1), ("own", Context::ClassSpecific, 3)] {
        let prompt = || coop::Prompt::new(golden.tensor(&format!("{kind}/start"), [owners, 3, 16]));
        let inputs = Inputs {
            seed: 1,
            shots: 2,
            cache: &features,
            plain: &features,
            text_features: tower.text_features(&prompt()),
            logit_scale: 20.0,
            device: &case.device,
        };
        let spec = CoOpSpec {
            context_length: 3,
            context,
            epochs: vec![EpochsFrom { shots: 1, epochs: 3 }, EpochsFrom { shots: 2, epochs: 8 }],
            batch_size: 6,
            learning_rate: 5e-3,
        };
        let fitted = coop::train(&spec, &inputs, &tower, prompt(), &mut |_, _| ControlFlow::Continue(()));
        let fitted = fitted.unwrap().unwrap();
        let found: Vec<f32> = fitted.epochs.iter().map(|epoch| epoch.real_loss.unwrap() as f32).collect();
        let expected = if owners == 1 { &losses[..8] } else { &losses[8..] };
        assert_close(&format!("coop {kind}: losses"), &found, expected, TOLERANCE);
        let logits = fitted.trained.logits_from_features(golden.tensor("images", [6, 12])).unwrap();
        let logits = logits.try_into_vec_as::<f32>().unwrap();
        assert_close(
            &format!("coop {kind}: logits"),
            &logits,
            &golden.floats(&format!("{kind}/logits")),
            TOLERANCE,
        );
    }
}

fn name_of(place: Place, part: &str) -> String {
    match place {
        Place::Text(layer) => format!("text_model.encoder.layers.{layer}.{part}"),
        Place::Vision(layer) => format!("vision_model.encoder.layers.{layer}.{part}"),
    }
}

fn lora_spec() -> ClipLoraSpec {
    ClipLoraSpec { rank: 2, alpha: 1.0, dropout: 0.0, training: tower_training(5) }
}

/// The CLIP with the updates that the file starts from.
fn with_updates(case: &Case, golden: &Golden) -> Clip {
    case.clip.clone().with_low_rank(|place, width| {
        let update = |part: &str| {
            let name = name_of(place, part);
            let down = golden.tensor(&format!("start/{name}.down"), [2, width]).transpose();
            let up = golden.tensor(&format!("start/{name}.up"), [width, 2]).transpose();
            LowRank::new(down, up, 1.0 / 2f64.sqrt())
        };
        LowRankAttention { query: update("q"), key: update("k"), value: update("v") }
    })
}

#[test]
fn clip_lora_equals_the_reference() {
    let (case, golden) = (Case::new(), Golden::open(TOPIC, "clip_lora"));
    let clip = with_updates(&case, &golden);
    let spec = lora_spec();
    case.check("clip_lora", &spec.training, clip, &clip_lora(&spec, 2));
}

#[test]
fn hidden_elements_of_a_low_rank_update_give_the_loss_and_gradients_of_the_reference() {
    let (case, golden) = (Case::new(), Golden::open(TOPIC, "clip_lora"));
    let towers = Towers { clip: with_updates(&case, &golden), classifier: None };
    let mut towers = freeze(towers.train(), |name| !name.contains("low_rank"));
    let autodiff = case.device.clone().autodiff();
    set_dropout(&mut towers.clip, |place, part| {
        let name = name_of(place, ["q", "k", "v"][part]);
        let values = golden.floats(&format!("mask/{name}"));
        let (rows, tokens) = if matches!(place, Place::Text(_)) { (3, 8) } else { (6, 5) };
        // The text tower sees the tokens up to the last end alone.
        let tokens_seen = if rows == 3 { 6 } else { tokens };
        let hidden = values.chunks_exact(tokens * 16).flat_map(|row| &row[..tokens_seen * 16]);
        let hidden: Vec<bool> = hidden.map(|value| *value == 1.0).collect();
        let mask = TensorData::new(hidden, [rows, tokens_seen, 16]);
        Some(Dropped { mask: Tensor::<3, Bool>::from_data(mask, &autodiff), keep: 0.75 })
    });
    let spec = tower_training(1);
    let training = case.training(&spec);
    let pass = Pass { kind: PassKind::Real, epoch: 0, schedule_epoch: 0, ends_epoch: true };
    let loss = training.loss(&towers, pass, &ALL);
    let value = loss.clone().try_into_vec_as::<f32>().unwrap();
    assert_close("masked loss", &value, &golden.floats("masked_loss"), TOLERANCE);
    let gradients = loss.backward();
    let mut count = 0;
    towers.clip.for_each_low_rank(|place, update| {
        for (part, update) in ["q", "k", "v"].into_iter().zip(update.all_mut()) {
            for (name, weight) in [("down", &update.down), ("up", &update.up)] {
                let name = format!("gradient/{}.{name}", name_of(place, part));
                let gradient = weight.val().grad(&gradients).unwrap().transpose();
                assert_close(
                    &name,
                    &gradient.try_into_vec_as::<f32>().unwrap(),
                    &golden.floats(&name),
                    TOLERANCE,
                );
                count += 1;
            }
        }
    });
    assert_eq!(count, 24);
}

#[test]
fn two_stages_equal_the_reference() {
    let case = Case::new();
    let spec = TwoStageSpec { first_stage: 0.6, training: tower_training(5) };
    case.check("two_stage", &spec.training, case.clip.clone(), &two_stage(&spec, 2));
}
