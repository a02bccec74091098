//! Configuration files: what is read, what is refused, what is written.

use sd_model::{
    AttentionHeadDim, AutoencoderKlConfig, BetaSchedule, DownBlockType, PredictionType, SchedulerConfig,
    UNet2DConditionConfig,
};
use serde_json::{Value, json};
use std::path::PathBuf;

use crate::golden::path;

/// A copy of a golden configuration with one field changed; null removes it.
fn changed(name: &str, field: &str, value: Value) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(path(name)).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config[field] = value;
    let file = folder.path().join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    (folder, file)
}

fn unet_error(field: &str, value: Value) -> String {
    let (_folder, file) = changed("unet_sd2/config.json", field, value);
    UNet2DConditionConfig::from_file(&file).unwrap_err().to_string()
}

#[test]
fn unsupported_unet_values_name_file_field_expected_and_found() {
    let cases = [
        ("act_fn", json!("gelu")),
        ("down_block_types", json!(["AttnDownBlock2D", "DownBlock2D"])),
        ("up_block_types", json!(["UpBlock2D", "SimpleCrossAttnUpBlock2D"])),
        ("mid_block_type", json!("UNetMidBlock2D")),
        ("class_embed_type", json!("timestep")),
        ("addition_embed_type", json!("text_time")),
        ("cross_attention_dim", json!([8, 8])),
        ("only_cross_attention", json!(true)),
        ("resnet_time_scale_shift", json!("scale_shift")),
        ("num_attention_heads", json!(4)),
        ("norm_num_groups", json!(3)),
        ("attention_head_dim", json!([2])),
        ("attention_head_dim", json!(3)),
        ("block_out_channels", json!([])),
        ("sample_size", json!("eight")),
        ("layers_per_block", json!(0)),
    ];
    for (field, value) in cases {
        let error = unet_error(field, value.clone());
        assert!(error.contains("config.json`"), "{error}");
        // A number of groups is refused at the channels that it does not divide.
        let named = if field == "norm_num_groups" { "block_out_channels" } else { field };
        assert!(error.contains(&format!("field `{named}`: expected")), "{field} = {value}: {error}");
        assert!(error.contains("found"), "{error}");
    }
    assert!(
        unet_error("act_fn", json!("gelu")).ends_with("expected `\"silu\"` or `\"swish\"`, found `\"gelu\"`")
    );
}

#[test]
fn unsupported_autoencoder_values_are_refused() {
    let cases = [
        ("down_block_types", json!(["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"])),
        ("use_quant_conv", json!(false)),
        ("shift_factor", json!(0.1)),
        ("block_out_channels", Value::Null),
        ("scaling_factor", json!(0.0)),
        ("latent_channels", json!(-4)),
    ];
    for (field, value) in cases {
        let (_folder, file) = changed("autoencoder/config.json", field, value.clone());
        let error = AutoencoderKlConfig::from_file(&file).unwrap_err().to_string();
        assert!(error.contains(&format!("field `{field}`: expected")), "{field} = {value}: {error}");
    }
}

#[test]
fn unsupported_scheduler_values_are_refused() {
    let cases = [
        ("beta_schedule", json!("sigmoid")),
        ("prediction_type", json!("flow")),
        ("timestep_spacing", json!("karras")),
        ("thresholding", json!(true)),
        ("trained_betas", json!([0.1])),
        ("beta_end", json!(2.0)),
        ("num_train_timesteps", json!(1)),
        ("algorithm_type", json!("sde-dpmsolver++")),
        ("solver_type", json!("heun")),
        ("solver_order", json!(3)),
        ("final_sigmas_type", json!("one")),
        ("skip_prk_steps", json!(false)),
        ("use_exponential_sigmas", json!(true)),
        ("sigma_min", json!(0.1)),
        ("original_inference_steps", json!(0)),
    ];
    for (field, value) in cases {
        let name = "pipeline_sd1/scheduler/scheduler_config.json";
        let (_folder, file) = changed(name, field, value.clone());
        let error = SchedulerConfig::from_file(&file).unwrap_err().to_string();
        assert!(error.contains(&format!("field `{field}`: expected")), "{field} = {value}: {error}");
    }
}

#[test]
fn a_file_that_is_not_json_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, "{\"sample_size\": ").unwrap();
    let error = UNet2DConditionConfig::from_file(&file).unwrap_err().to_string();
    assert!(error.contains("config.json` is not a JSON configuration file"), "{error}");
    let error = UNet2DConditionConfig::from_file(&folder.path().join("none.json")).unwrap_err().to_string();
    assert!(error.contains("cannot access") && error.contains("none.json"), "{error}");
}

#[test]
fn configurations_are_read_and_survive_saving() {
    let unet = UNet2DConditionConfig::from_file(&path("unet_sd2/config.json")).unwrap();
    assert_eq!(unet.attention_head_dim, AttentionHeadDim::Each(vec![2, 4]));
    assert_eq!(unet.down_block_types, [DownBlockType::CrossAttnDownBlock2D, DownBlockType::DownBlock2D]);
    assert!(unet.use_linear_projection && !unet.flip_sin_to_cos);
    let vae = AutoencoderKlConfig::from_file(&path("autoencoder/config.json")).unwrap();
    assert_eq!((vae.scaling_factor, vae.scale()), (0.18215, 4));
    let ddim = SchedulerConfig::from_file(&path("pipeline_sd2/scheduler/scheduler_config.json")).unwrap();
    assert_eq!(ddim.beta_schedule, Some(BetaSchedule::ScaledLinear));
    assert_eq!(ddim.prediction_type(), PredictionType::VPrediction);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    unet.save(&file).unwrap();
    assert_eq!(UNet2DConditionConfig::from_file(&file).unwrap(), unet);
    vae.save(&file).unwrap();
    assert_eq!(AutoencoderKlConfig::from_file(&file).unwrap(), vae);
    ddim.save(&file).unwrap();
    assert_eq!(SchedulerConfig::from_file(&file).unwrap(), ddim);
}

#[test]
fn every_saved_field_is_known_to_diffusers_with_the_same_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let check = |golden: &str| {
        let read = |path: &std::path::Path| -> Value {
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let (written, expected) = (read(&file), read(&path(golden)));
        for (field, value) in written.as_object().unwrap() {
            let equal = match (value.as_f64(), expected[field].as_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => *value == expected[field],
            };
            assert!(equal, "{golden} `{field}`: {value} {}", expected[field]);
        }
    };
    UNet2DConditionConfig::from_file(&path("unet_sd2/config.json")).unwrap().save(&file).unwrap();
    check("unet_sd2/config.json");
    AutoencoderKlConfig::from_file(&path("autoencoder/config.json")).unwrap().save(&file).unwrap();
    check("autoencoder/config.json");
    let scheduler = "pipeline_sd2/scheduler/scheduler_config.json";
    SchedulerConfig::from_file(&path(scheduler)).unwrap().save(&file).unwrap();
    check(scheduler);
}

#[test]
fn the_minus_infinity_that_python_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scheduler_config.json");
    std::fs::write(&file, "{\"lambda_min_clipped\": -Infinity, \"solver_order\": 2}").unwrap();
    assert_eq!(SchedulerConfig::from_file(&file).unwrap().solver_order, Some(2));
}
