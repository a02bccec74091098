//! Facts about recipe files.

use pretrain::recipe::Recipe;
use pretrain::{AutoencoderRecipe, ClipRecipe, UnetRecipe};
use std::path::Path;

use crate::fixtures::recipe;

fn edited(name: &str, from: &str, to: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/pretrain").join(name);
    let text = std::fs::read_to_string(source).unwrap();
    assert!(text.contains(from), "`{from}` is in `{name}`");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    (dir, path)
}

fn message<R: Recipe + std::fmt::Debug>(path: &Path) -> String {
    let error = R::from_file(path).unwrap_err();
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn the_recipes_of_the_repository_are_read() {
    for name in ["emoji-clip-vit.toml", "emoji-clip-resnet.toml"] {
        assert_eq!(recipe::<ClipRecipe>(name).split, "base");
    }
    assert_eq!(recipe::<AutoencoderRecipe>("emoji-sd-autoencoder.toml").model.scale(), 4);
    let unet = recipe::<UnetRecipe>("emoji-sd-unet.toml");
    assert_eq!(unet.model.cross_attention_dim, 128);
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    let (_dir, path) = edited("emoji-clip-vit.toml", "class_share =", "clas_share = 0.1\nclass_share =");
    let message = message::<ClipRecipe>(&path);
    assert!(message.contains("clas_share") && message.contains("emoji-clip-vit.toml"), "{message}");
}

#[test]
fn a_missing_field_is_refused_by_name() {
    let (_dir, path) = edited("emoji-sd-unet.toml", "min_snr_gamma = 5.0", "");
    assert!(message::<UnetRecipe>(&path).contains("min_snr_gamma"));
}

#[test]
fn a_value_out_of_range_names_field_expected_and_found() {
    let (_dir, path) = edited("emoji-sd-unet.toml", "caption_dropout = 0.1", "caption_dropout = 1.5");
    let expected = "recipe field `caption_dropout`: expected a share in 0 to 1, found `1.5`";
    assert_eq!(message::<UnetRecipe>(&path), expected);
}

#[test]
fn comments_do_not_change_a_recipes_digest_and_values_do() {
    let digest = |from, to| {
        let (_dir, path) = edited("emoji-clip-vit.toml", from, to);
        ClipRecipe::from_file(&path).unwrap().digest()
    };
    let original = recipe::<ClipRecipe>("emoji-clip-vit.toml").digest();
    assert_eq!(digest("seed = 1", "seed = 1 # one"), original);
    assert_ne!(digest("seed = 1", "seed = 9"), original);
}

#[test]
fn the_learning_rate_warms_up_and_falls() {
    let optimizer = recipe::<ClipRecipe>("emoji-clip-vit.toml").optimizer;
    let rates: Vec<f64> = (0..optimizer.num_steps).map(|step| optimizer.learning_rate_at(step)).collect();
    let peak = rates.iter().copied().fold(0.0, f64::max);
    assert!((peak - optimizer.learning_rate).abs() < 1e-12, "{peak}");
    assert!(rates[0] < peak / 10.0 && rates[rates.len() - 1] < peak / 10.0);
    assert!(rates[optimizer.warmup_steps..].windows(2).all(|pair| pair[1] < pair[0]));
}
