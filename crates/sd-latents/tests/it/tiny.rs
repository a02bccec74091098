//! A tiny Stable Diffusion with random weights, and prompts for it.

use std::collections::BTreeMap;
use std::path::Path;

use artifacts::{ArtifactWriter, FileContext, PromptRow, SchemaInfo, Shard};
use backend::DeviceSpec;
use clip_model::{
    Activation, ClipConfig, Preprocess, SaveDtype, TextConfig, Tokenizer, VisionConfig,
    VisionTransformerConfig, train_bpe,
};
use pipeline_spec::spec::{LatentsSpec, PromptProvider, PromptsSpec, Scheduler};
use pipeline_spec::{CheckpointRef, DatasetId, Digest, StageSpec, Store, Unit, checkpoint_digest};
use sd_model::{
    AttentionHeadDim, AutoencoderKlConfig, DownBlockType, SchedulerClass, SchedulerConfig, StableDiffusion,
    UNet2DConditionConfig, UpBlockType,
};

/// Name of the checkpoint folder.
pub const CHECKPOINT: &str = "tiny-sd";
/// Name of the CLIP folder.
pub const CLIP: &str = "tiny-clip";
/// Tokens that the text encoder takes, start and end included.
pub const CONTEXT_LENGTH: usize = 20;

fn tokenizer() -> Tokenizer {
    train_bpe(&["a photo of a cat".to_owned(), "a photo of a sea lion".to_owned()], 540)
}

fn text_config(tokenizer: &Tokenizer) -> TextConfig {
    TextConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        max_position_embeddings: CONTEXT_LENGTH,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: 513,
        bos_token_id: 512,
    }
}

/// Writes a CLIP below `weights`.
pub fn save_clip(weights: &Path) {
    let device = DeviceSpec::Cpu.open().unwrap();
    device.seed(5);
    let tokenizer = tokenizer();
    let vision = VisionTransformerConfig {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        image_size: 16,
        patch_size: 8,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    };
    let config = ClipConfig {
        text_config: text_config(&tokenizer),
        vision_config: VisionConfig::VisionTransformer(vision),
        projection_dim: 12,
        logit_scale_init_value: 2.6592,
    };
    let dir = weights.join(CLIP);
    std::fs::create_dir_all(&dir).unwrap();
    config.init(&device).save_to_folder(&config, &dir, SaveDtype::F32).unwrap();
    tokenizer.save_to_folder(&dir).unwrap();
    Preprocess::new(16).save(&dir).unwrap();
}

/// Writes the model below `weights`.
pub fn save_model(weights: &Path) {
    let device = DeviceSpec::Cpu.open().unwrap();
    let tokenizer = tokenizer();
    let text_config = text_config(&tokenizer);
    let unet_config = UNet2DConditionConfig {
        sample_size: 8,
        down_block_types: vec![DownBlockType::CrossAttnDownBlock2D, DownBlockType::DownBlock2D],
        up_block_types: vec![UpBlockType::UpBlock2D, UpBlockType::CrossAttnUpBlock2D],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 16,
        attention_head_dim: AttentionHeadDim::All(2),
        ..UNet2DConditionConfig::default()
    };
    let vae_config = AutoencoderKlConfig {
        block_out_channels: vec![8, 8],
        layers_per_block: 1,
        norm_num_groups: 4,
        sample_size: 16,
        ..AutoencoderKlConfig::default()
    };
    let scheduler = SchedulerConfig {
        clip_sample: Some(false),
        set_alpha_to_one: Some(false),
        steps_offset: Some(1),
        prediction_type: Some(sd_model::PredictionType::Epsilon),
        ..SchedulerConfig::default()
    };
    let model = StableDiffusion {
        unet: unet_config.init(&device).unwrap(),
        unet_config,
        vae: vae_config.init(&device).unwrap(),
        vae_config,
        text_encoder: text_config.init(&device),
        text_config,
        tokenizer,
        scheduler: sd_model::Scheduler::new(SchedulerClass::Ddim, scheduler).unwrap(),
        device,
    };
    model.save_to_folder(&weights.join(CHECKPOINT), SaveDtype::F32).unwrap();
}

/// Writes a prompts artifact with the given prompts of two classes; gives its unit.
pub fn save_prompts(store: &Store, prompts: &[(u32, &str)]) -> Unit {
    let spec = StageSpec::Prompts(PromptsSpec {
        dataset: dataset(),
        manifest_digest: Digest::blake3(b"a manifest"),
        provider: PromptProvider::Templates { templates: vec!["{}".to_owned()] },
    });
    let unit = Unit { spec, inputs: BTreeMap::new() };
    let class_names = vec!["cat".to_owned(), "sea lion".to_owned()];
    let mut count = [0, 0];
    let rows: Vec<PromptRow> = prompts
        .iter()
        .map(|&(class_id, prompt)| {
            let prompt_index = count[class_id as usize];
            count[class_id as usize] += 1;
            PromptRow {
                class_id,
                class_name: class_names[class_id as usize].clone(),
                prompt_index,
                prompt: prompt.to_owned(),
                template: String::new(),
                provider: "test".to_owned(),
                model: String::new(),
                answer: None,
            }
        })
        .collect();
    let writer = ArtifactWriter::open(store, &unit, 1, FileContext::new("0.0.0")).unwrap();
    for part in writer.missing_parts(Shard::default()) {
        let info = SchemaInfo { class_names: class_names.clone(), ..SchemaInfo::default() };
        writer.write_part(part, &rows, &info).unwrap();
    }
    writer.finish("none", std::time::Instant::now()).unwrap();
    unit
}

/// Four samples of each of the prompts, in `num_parts` parts.
pub fn unit(weights: &Path, prompts: &Unit, num_parts: u32) -> Unit {
    let spec = LatentsSpec {
        dataset: dataset(),
        checkpoint: CheckpointRef {
            id: CHECKPOINT.to_owned(),
            digest: checkpoint_digest(&weights.join(CHECKPOINT)).unwrap(),
        },
        samples_per_prompt: 4,
        scheduler: Scheduler::Ddim,
        num_inference_steps: 3,
        guidance_scale: 2.5,
        negative_prompt: String::new(),
        seed: 7,
        num_parts,
        options: None,
        selection: None,
    };
    let inputs = BTreeMap::from([("prompts".to_owned(), prompts.output())]);
    Unit { spec: StageSpec::Latents(spec), inputs }
}

/// The unit with its spec changed.
pub fn changed(unit: &Unit, change: impl FnOnce(&mut LatentsSpec)) -> Unit {
    let StageSpec::Latents(mut spec) = unit.spec.clone() else { unreachable!() };
    change(&mut spec);
    Unit { spec: StageSpec::Latents(spec), inputs: unit.inputs.clone() }
}

pub fn dataset() -> DatasetId {
    DatasetId::try_from("animals".to_owned()).unwrap()
}
