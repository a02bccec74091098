//! The files in which a component of a diffusers folder may keep its weights.

use burn::tensor::Tensor;
use safetensors::SafeTensors;
use sd_model::{AutoencoderTinyConfig, StableDiffusion};
use std::collections::BTreeMap;
use std::path::Path;

use crate::golden::{Golden, assert_close, distance, path};
use crate::pipeline::copy;

const WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";

/// A copy of a small pipeline, changed in its `vae` folder.
fn pipeline(change: impl FnOnce(&Path)) -> Result<StableDiffusion, String> {
    let folder = tempfile::tempdir().unwrap();
    copy(&path("pipeline_sd2"), folder.path());
    change(&folder.path().join("vae"));
    StableDiffusion::from_folder(folder.path(), &backend::test_device()).map_err(|error| error.to_string())
}

fn decoded(model: &StableDiffusion) -> Tensor<4> {
    model.decode(Golden::open("pipeline_sd2/golden.safetensors", &model.device).tensor("latents"))
}

/// Splits the weights into two shards with an index in diffusers' names.
fn shard(vae: &Path, change: impl FnOnce(&mut BTreeMap<String, String>)) {
    let whole = vae.join("diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&whole).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (encoder, rest): (Vec<_>, Vec<_>) =
        tensors.tensors().into_iter().partition(|(key, _)| key.starts_with("encoder."));
    let mut weight_map = BTreeMap::new();
    for (number, part) in [(1, encoder), (2, rest)] {
        let name = format!("diffusion_pytorch_model-0000{number}-of-00002.safetensors");
        weight_map.extend(part.iter().map(|(key, _)| (key.clone(), name.clone())));
        safetensors::serialize_to_file(part, None, &vae.join(name)).unwrap();
    }
    change(&mut weight_map);
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    std::fs::write(vae.join("diffusion_pytorch_model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::remove_file(whole).unwrap();
}

#[test]
fn the_index_of_a_variant_is_read_too() {
    let variant = pipeline(|vae| {
        shard(vae, |_| ());
        let name =
            |variant: &str| vae.join(format!("diffusion_pytorch_model.safetensors.index{variant}.json"));
        std::fs::rename(name(""), name(".fp16")).unwrap();
    });
    assert_eq!(distance(decoded(&variant.unwrap()), decoded(&pipeline(|_| ()).unwrap())), 0.0);
}

#[test]
fn shards_and_the_half_precision_variant_load_as_the_whole_file() {
    let whole = decoded(&pipeline(|_| ()).unwrap());
    let sharded = pipeline(|vae| shard(vae, |_| ())).unwrap();
    assert_eq!(distance(decoded(&sharded), whole.clone()), 0.0);
    let variant = pipeline(|vae| {
        let rename = |from: &str, to: &str| std::fs::rename(vae.join(from), vae.join(to)).unwrap();
        rename("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors");
    });
    assert_eq!(distance(decoded(&variant.unwrap()), whole.clone()), 0.0);
    // Full precision is preferred: the variant here is not even a file of tensors.
    let both =
        pipeline(|vae| std::fs::write(vae.join("diffusion_pytorch_model.fp16.safetensors"), "x").unwrap());
    assert_eq!(distance(decoded(&both.unwrap()), whole), 0.0);
}

#[test]
fn an_index_that_contradicts_its_shards_is_refused() {
    let other = "diffusion_pytorch_model-00001-of-00002.safetensors";
    let wrong_file = |map: &mut BTreeMap<String, String>| {
        map.insert("quant_conv.bias".into(), other.into());
    };
    let error = pipeline(|vae| shard(vae, wrong_file)).unwrap_err();
    assert!(error.contains(&format!("expected in `{other}` alone")), "{error}");
    let unnamed = |map: &mut BTreeMap<String, String>| {
        map.remove("quant_conv.bias");
    };
    let error = pipeline(|vae| shard(vae, unnamed)).unwrap_err();
    assert!(
        error.contains("tensor `quant_conv.bias` is in") && error.contains("expected in the index"),
        "{error}"
    );
    let elsewhere = |map: &mut BTreeMap<String, String>| {
        map.insert("quant_conv.bias".into(), "../../other.safetensors".into());
    };
    let error = pipeline(|vae| shard(vae, elsewhere)).unwrap_err();
    assert!(error.contains("names the file `../../other.safetensors`, expected the plain name"), "{error}");
    let gone = |vae: &Path| {
        shard(vae, |_| ());
        std::fs::remove_file(vae.join(other)).unwrap();
    };
    assert!(pipeline(gone).unwrap_err().contains(other));
}

#[test]
fn a_component_without_weights_names_all_files_that_would_do() {
    let folder = Path::new(WEIGHTS).file_name().unwrap();
    let error = pipeline(|vae| std::fs::remove_file(vae.join(folder)).unwrap()).unwrap_err();
    for name in [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
    ] {
        assert!(error.contains(name), "{name}: {error}");
    }
    let error = pipeline(|vae| std::fs::remove_dir_all(vae).unwrap()).unwrap_err();
    assert!(error.contains("has no vae: expected the folder `vae`"), "{error}");
}

#[test]
fn the_tiny_autoencoder_matches_diffusers_from_a_torch_file() {
    let device = backend::test_device();
    let config = AutoencoderTinyConfig::from_file(&path("autoencoder_tiny/config.json")).unwrap();
    let weights = path("autoencoder_tiny/diffusion_pytorch_model.bin");
    let tiny = config.init(&device).unwrap().load(&weights).unwrap();
    let golden = Golden::open("autoencoder_tiny/golden.safetensors", &device);
    let latents = tiny.encode(golden.tensor("pixels"));
    assert_close("tiny autoencoder latents", latents, golden.tensor::<4>("latents"), 1e-4);
    let decoded = tiny.decode(golden.tensor("given"));
    assert_close("tiny autoencoder decoded", decoded, golden.tensor::<4>("decoded"), 1e-4);
    let deeper = AutoencoderTinyConfig { num_decoder_blocks: vec![2, 1, 2], ..config };
    let error = deeper.init(&device).unwrap().load(&weights).unwrap_err().to_string();
    assert!(error.contains("missing, first `decoder.layers."), "{error}");
}

#[test]
fn a_tiny_autoencoder_of_another_kind_is_refused() {
    let read = |fields: serde_json::Value| {
        serde_json::from_value::<AutoencoderTinyConfig>(fields).map_err(|error| error.to_string())
    };
    assert_eq!(read(serde_json::json!({})).unwrap(), AutoencoderTinyConfig::default());
    for (field, value) in [
        ("act_fn", serde_json::json!("silu")),
        ("shift_factor", serde_json::json!(0.1)),
        ("encoder_block_out_channels", serde_json::json!([64, 128, 64, 64])),
        ("num_decoder_blocks", serde_json::json!([1])),
        ("latent_channels", serde_json::json!(0)),
    ] {
        let named = if field == "num_decoder_blocks" { "decoder_block_out_channels" } else { field };
        let error = read(serde_json::json!({field: value})).unwrap_err();
        assert!(error.contains(&format!("field `{named}`")), "{field}: {error}");
    }
}
