//! Configurations: what is read, and what is refused by name.

use std::fs;

use clip_model::{Activation, ClipConfig, Error, TextConfig, VisionConfig};
use serde_json::{Value, json};

use crate::checkpoints::chain;
use crate::golden::path;

fn changed(change: impl FnOnce(&mut Value)) -> Result<ClipConfig, Error> {
    let mut value = serde_json::from_slice(&fs::read(path("clip_vit/config.json")).unwrap()).unwrap();
    change(&mut value);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs::write(&file, value.to_string()).unwrap();
    ClipConfig::from_file(&file)
}

#[test]
fn missing_field_is_named() {
    let error = changed(|value| {
        value["text_config"].as_object_mut().unwrap().remove("hidden_size");
    })
    .unwrap_err();
    assert!(chain(&error).contains("missing field `hidden_size`"), "{}", chain(&error));
    let error = changed(|value| {
        value["vision_config"].as_object_mut().unwrap().remove("patch_size");
    })
    .unwrap_err();
    assert!(chain(&error).contains("vision_config: missing field `patch_size`"), "{}", chain(&error));
}

#[test]
fn impossible_value_is_named() {
    for (tower, field, value) in [
        ("text_config", "num_attention_heads", json!(5)),
        ("text_config", "num_attention_heads", json!(0)),
        ("text_config", "vocab_size", json!(0)),
        ("text_config", "layer_norm_eps", json!(0.0)),
        ("vision_config", "image_size", json!(4)),
        ("vision_config", "patch_size", json!(0)),
        ("vision_config", "hidden_size", json!(0)),
    ] {
        let error = changed(|config| config[tower][field] = value).unwrap_err();
        let Error::Field { field: named, .. } = &error else { panic!("{error}") };
        assert_eq!(*named, format!("{tower}.{field}"));
    }
    for (tower, field, value) in [
        ("text_config", "hidden_act", json!("swish")),
        ("vision_config", "model_type", json!("resnet")),
        ("vision_config", "num_channels", json!(1)),
        ("vision_config", "hidden_size", json!(-1)),
    ] {
        let error = changed(|config| config[tower][field] = value).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{error}");
    }
}

#[test]
fn open_clip_resnet_is_known_by_its_layers() {
    let config = changed(|config| {
        config["vision_config"] =
            json!({"image_size": 224, "layers": [3, 4, 6, 3], "width": 64, "patch_size": null});
    })
    .unwrap();
    let VisionConfig::ModifiedResNet(vision) = config.vision_config else { panic!("not a ResNet") };
    assert_eq!((vision.layers, vision.width, vision.heads, vision.image_size), ([3, 4, 6, 3], 64, 32, 224));
}

#[test]
fn stable_diffusion_text_encoder_config_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let value = json!({
        "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0,
        "eos_token_id": 2, "hidden_act": "gelu", "hidden_size": 1024, "initializer_factor": 1.0,
        "initializer_range": 0.02, "intermediate_size": 4096, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 16,
        "num_hidden_layers": 23, "pad_token_id": 1, "projection_dim": 512, "torch_dtype": "float32",
        "vocab_size": 49408
    });
    fs::write(&file, value.to_string()).unwrap();
    let config = TextConfig::from_file(&file).unwrap();
    assert_eq!((config.num_hidden_layers, config.hidden_act, config.eos_token_id), (23, Activation::Gelu, 2));
}
