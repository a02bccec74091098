//! Names and shapes of the published files against what the networks expect, without weights.

use clip_model::{Activation, HubCache, KeyTable, TextConfig, expected_keys};
use sd_model::checkpoints::Pretrained;
use sd_model::{AutoencoderKlConfig, PredictionType, SingleFile};
use std::collections::BTreeMap;
use std::path::Path;

use crate::golden::path;
use crate::single_file::put_tokenizer;

type Keys = Vec<(String, Vec<usize>)>;

fn shape(text: &str) -> Vec<usize> {
    text.split(',').filter(|axis| !axis.is_empty()).map(|axis| axis.parse().unwrap()).collect()
}

fn rows(name: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path(&format!("keys/{name}.tsv"))).unwrap();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Tensors of a list of layers: the names of diffusers (column 0) or of the single file (column 1).
fn keys(name: &str, column: usize) -> Keys {
    let mut keys = Keys::new();
    for row in rows(name) {
        let (layer, shape) = (&row[column], shape(&row[2]));
        if row[3] == "bias" {
            keys.push((format!("{layer}.bias"), shape[..1].to_vec()));
        }
        keys.push((format!("{layer}.weight"), shape));
    }
    keys.sort();
    keys
}

fn sd1_text() -> TextConfig {
    TextConfig {
        vocab_size: 49408,
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        max_position_embeddings: 77,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: 2,
        bos_token_id: 0,
    }
}

fn sd2_text() -> TextConfig {
    TextConfig {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 23,
        num_attention_heads: 16,
        hidden_act: Activation::Gelu,
        ..sd1_text()
    }
}

#[test]
fn diffusers_folders_have_the_expected_keys() {
    let device = backend::test_device();
    for (checkpoint, name) in [("1.5", "sd1_unet"), ("2.1-base", "sd2_unet"), ("2.1", "sd2_unet")] {
        let unet = Pretrained::by_name(checkpoint).unwrap().unet_config().init(&device).unwrap();
        assert_eq!(expected_keys(&unet, &KeyTable::new()), keys(name, 0), "{checkpoint}");
    }
    let vae = AutoencoderKlConfig::default().init(&device).unwrap();
    assert_eq!(expected_keys(&vae, &KeyTable::new()), keys("vae", 0));
    let table = KeyTable::new().with_prefix("text_model");
    assert_eq!(expected_keys(&sd1_text().init(&device), &table), keys("sd1_text", 0));
}

/// A safetensors file of these names and shapes in f16 whose tensors are holes: a few kilobytes on disk.
fn write_hollow(path: &Path, keys: &Keys) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (key, shape) in keys {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            key.clone(),
            serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes(), &header[..]].concat();
    std::fs::write(path, &bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((bytes.len() + end) as u64).unwrap();
}

/// All tensors of a single file.
fn single_file_keys(unet: &str, text: Keys) -> Keys {
    let below = |prefix: &'static str, keys: Keys| {
        keys.into_iter().map(move |(key, shape)| (format!("{prefix}.{key}"), shape))
    };
    let mut vae = keys("vae", 1);
    for (key, shape) in &mut vae {
        let is_projection =
            ["q", "k", "v", "proj_out"].iter().any(|n| key.ends_with(&format!("attn_1.{n}.weight")));
        if is_projection {
            shape.extend([1, 1]);
        }
    }
    let mut all: Keys = below("model.diffusion_model", keys(unet, 1)).collect();
    all.extend(below("first_stage_model", vae));
    all.extend(below("cond_stage_model", text));
    all
}

fn sd1_text_keys() -> Keys {
    let mut keys = keys("sd1_text", 1);
    keys.push(("transformer.text_model.embeddings.position_ids".into(), vec![1, 77]));
    keys
}

fn sd2_text_keys() -> Keys {
    rows("sd2_text").iter().map(|row| (format!("model.{}", row[0]), shape(&row[1]))).collect()
}

#[test]
fn shapes_of_a_single_file_give_the_published_configurations() {
    let folder = tempfile::tempdir().unwrap();
    put_tokenizer(folder.path());
    for (checkpoint, unet, text, text_config) in [
        ("1.5", "sd1_unet", sd1_text_keys(), sd1_text()),
        ("2.0-base", "sd2_unet", sd2_text_keys(), sd2_text()),
        ("2.0", "sd2_unet", sd2_text_keys(), sd2_text()),
        ("2.1-base", "sd2_unet", sd2_text_keys(), sd2_text()),
        ("2.1", "sd2_unet", sd2_text_keys(), sd2_text()),
    ] {
        let published = Pretrained::by_name(checkpoint).unwrap();
        let file = folder.path().join(published.files[0].name);
        write_hollow(&file, &single_file_keys(unet, text));
        let single = SingleFile::open(&file).unwrap();
        assert_eq!(*single.unet_config(), published.unet_config(), "{checkpoint}");
        assert_eq!(*single.text_config(), text_config, "{checkpoint}");
        let vae = AutoencoderKlConfig { sample_size: published.resolution, ..AutoencoderKlConfig::default() };
        assert_eq!(*single.vae_config(), vae, "{checkpoint}");
        assert_eq!(*single.scheduler().config(), published.scheduler_config(), "{checkpoint}");
        std::fs::remove_file(file).unwrap();
    }
}

/// The names of a list by the names of diffusers, for `weight` and `bias`.
fn translations(name: &str) -> BTreeMap<String, String> {
    let leaves = |row: &Vec<String>| {
        ["weight", "bias"].map(|leaf| (format!("{}.{leaf}", row[0]), format!("{}.{leaf}", row[1])))
    };
    rows(name).iter().flat_map(leaves).collect()
}

#[test]
fn single_files_name_every_parameter_as_the_converters_of_diffusers_do() {
    let folder = tempfile::tempdir().unwrap();
    put_tokenizer(folder.path());
    let device = backend::test_device();
    for (name, unet, text) in [
        ("v1-5-pruned.safetensors", "sd1_unet", sd1_text_keys()),
        ("v2-1_512-ema-pruned.safetensors", "sd2_unet", sd2_text_keys()),
    ] {
        let file = folder.path().join(name);
        let mut keys = single_file_keys(unet, text);
        write_hollow(&file, &keys);
        let single = SingleFile::open(&file).unwrap();
        let [text_table, unet_table, vae_table] = single.key_tables();
        let networks = [
            expected_keys(&single.text_config().init(&device), &text_table),
            expected_keys(&single.unet_config().init(&device).unwrap(), &unet_table),
            expected_keys(&single.vae_config().init(&device).unwrap(), &vae_table),
        ];
        // Every tensor is read, but for what the text encoder does not use.
        let unread = ["position_ids", "logit_scale", "text_projection", "resblocks.23."];
        keys.retain(|(key, _)| !unread.iter().any(|part| key.contains(part)));
        keys.sort();
        let mut found = networks.concat();
        found.sort();
        assert_eq!(found, keys, "{name}");
        // And by the right parameter.
        for (list, table, prefix) in
            [(unet, &unet_table, "model.diffusion_model"), ("vae", &vae_table, "first_stage_model")]
        {
            for (ours, theirs) in translations(list) {
                let theirs = format!("{prefix}.{theirs}");
                assert_eq!(table.to_checkpoint(&ours), theirs);
                assert_eq!(table.to_module(&theirs), Some(ours));
            }
        }
        if unet == "sd2_unet" {
            for row in rows("sd2_text") {
                for ours in row[2].split(',').filter(|ours| !ours.is_empty()) {
                    let ours = ours.strip_prefix("text_model.").unwrap();
                    assert_eq!(text_table.to_checkpoint(ours), format!("cond_stage_model.model.{}", row[0]));
                }
            }
        }
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_published_name_is_found_in_the_cache_of_the_hub() {
    let cache = tempfile::tempdir().unwrap();
    let hub = HubCache { root: cache.path().to_owned() };
    let published = Pretrained::by_name("2.1-base").unwrap();
    assert_eq!(published.find(&hub), None);
    // The withdrawn repository still lies in many caches.
    let repository = hub.repository("stabilityai/stable-diffusion-2-1-base");
    let snapshot = repository.join("snapshots/5ede9e4bf3e3fd1cb0ef2f7a3fff13ee514fdf06");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), "5ede9e4bf3e3fd1cb0ef2f7a3fff13ee514fdf06").unwrap();
    assert_eq!(published.find(&hub), None, "no model there yet");
    std::fs::write(snapshot.join("model_index.json"), "{}").unwrap();
    assert_eq!(published.find(&hub), Some(snapshot));
}

#[test]
fn the_registry_tells_names_and_digests_apart() {
    let error = Pretrained::by_name("3.0").unwrap_err().to_string();
    assert_eq!(error, "unknown checkpoint `3.0`; known: 1.5, 2.0-base, 2.0, 2.1-base, 2.1");
    let file = Path::new("/somewhere/768-v-ema.ckpt");
    assert_eq!(Pretrained::by_file_name(file).unwrap().prediction_type, PredictionType::VPrediction);
    assert_eq!(Pretrained::by_file_name(Path::new("model.ckpt")), None);
    let digests =
        Pretrained::all().iter().flat_map(|published| published.files).filter_map(|file| file.sha256);
    assert!(
        digests.clone().all(|digest| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
    );
    let folder = tempfile::tempdir().unwrap();
    let forged = folder.path().join("768-v-ema.ckpt");
    std::fs::write(&forged, "forged").unwrap();
    let error = Pretrained::by_name("2.0").unwrap().check_digest(&forged).unwrap_err().to_string();
    assert!(error.contains("768-v-ema.ckpt` has sha256") && error.contains("bfcaf0755797"), "{error}");
}
