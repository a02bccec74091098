//! Names and shapes of public checkpoints against what the models expect, without weights.

use clip_model::{
    Activation, Clip, ClipConfig, KeyTable, ModifiedResNetConfig, TextConfig, VisionConfig,
    VisionTransformerConfig, expected_keys,
};

use crate::golden::{device, path};

type Keys = Vec<(String, Vec<usize>)>;

fn list(name: &str) -> Keys {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let parse =
        |shape: &str| shape.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect();
    text.lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(key, s)| (key.to_owned(), parse(s)))
        .collect()
}

fn text_config() -> TextConfig {
    TextConfig {
        vocab_size: 49408,
        hidden_size: 512,
        intermediate_size: 2048,
        num_hidden_layers: 12,
        num_attention_heads: 8,
        max_position_embeddings: 77,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: 2,
        bos_token_id: 0,
    }
}

fn clip(vision_config: VisionConfig, projection_dim: usize) -> Clip {
    ClipConfig { text_config: text_config(), vision_config, projection_dim, logit_scale_init_value: 2.6592 }
        .init(&device())
}

#[test]
fn clip_vit_base_patch16_has_the_published_keys() {
    let vision = VisionTransformerConfig {
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        image_size: 224,
        patch_size: 16,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    };
    let clip = clip(VisionConfig::VisionTransformer(vision), 512);
    assert_eq!(expected_keys(&clip, &clip.key_table()), list("clip_vit_base_patch16.keys.tsv"));
}

#[test]
fn rn50_has_the_published_keys() {
    let vision = ModifiedResNetConfig { layers: [3, 4, 6, 3], width: 64, heads: 32, image_size: 224 };
    let clip = clip(VisionConfig::ModifiedResNet(vision), 1024);
    let mut keys = expected_keys(&clip, &clip.key_table());
    keys.retain(|(key, _)| key.starts_with("visual."));
    // Counters of training steps, which nothing reads.
    let mut published = list("rn50_visual.keys.tsv");
    published.retain(|(key, _)| !key.ends_with("num_batches_tracked"));
    assert_eq!(keys, published);
}

#[test]
fn stable_diffusion_2_text_encoder_has_the_published_keys() {
    let config = TextConfig {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 23,
        num_attention_heads: 16,
        hidden_act: Activation::Gelu,
        ..text_config()
    };
    let table = KeyTable::new().with_prefix("text_model");
    assert_eq!(expected_keys(&config.init(&device()), &table), list("sd2_text_encoder.keys.tsv"));
}
