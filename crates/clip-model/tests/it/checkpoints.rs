//! Every layout of a published checkpoint: the same model, the same embeddings, and a typed error for what contradicts itself.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use clip_model::{
    Activation, Backbone, Checkpoint, Clip, Error, Format, HubCache, Layout, OpenAiCache, Pretrained,
    SaveDtype, find, normalize, save_safetensors,
};
use tempfile::TempDir;

use crate::golden::{Golden, device, path};
use crate::torch_files::{unzip, zip};

/// Embeddings have length one and logits are at most 15; sums run over at most a few hundred f32 terms in another order.
const TOLERANCE: f32 = 2e-5;

fn open(file: &str) -> Checkpoint {
    Checkpoint::open(&path("checkpoints").join(file), None).unwrap()
}

/// Compares embeddings and logits with those that open_clip gave.
fn compare(clip: &Clip, model: &str) {
    let golden = Golden::open(&format!("checkpoints/{model}/expected.safetensors"));
    let image = clip.image_features(golden.tensor("pixel_values", &device()));
    let text = clip.text_features(golden.ids("input_ids", &device()));
    assert!(golden.compare("logits", clip.logits_per_image(image.clone(), text.clone())) <= 10.0 * TOLERANCE);
    for (key, features) in [("image_embeds", image), ("text_embeds", text)] {
        let embeds: Tensor<2> = normalize(features);
        assert!(golden.compare(key, embeds) <= TOLERANCE, "{model} {key}");
    }
}

/// A folder with copies of golden files.
fn folder(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let from = path("checkpoints").join(file);
        fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    dir
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn every_layout_gives_the_embeddings_of_open_clip() {
    for (file, layout, format) in [
        ("vit/openai.pt", Layout::OpenAi, Format::TorchScript),
        ("vit/open_clip_pytorch_model.bin", Layout::OpenClip, Format::Torch),
        ("vit/epoch_1.pt", Layout::OpenClip, Format::Torch),
        ("vit/legacy.pt", Layout::OpenClip, Format::TorchLegacy),
        ("vit/transformers/pytorch_model.bin", Layout::Transformers, Format::Torch),
        ("resnet/openai.pt", Layout::OpenAi, Format::TorchScript),
        ("resnet/open_clip_model.safetensors", Layout::OpenClip, Format::SafeTensors),
    ] {
        let checkpoint = open(file);
        assert_eq!((checkpoint.layout(), checkpoint.format()), (layout, format), "{file}");
        assert_eq!(checkpoint.config().text_config.hidden_act, Activation::QuickGelu, "{file}");
        assert!(checkpoint.backbone().is_none(), "{file} is no published architecture");
        compare(&checkpoint.load(&device()).unwrap(), file.split('/').next().unwrap());
    }
}

#[test]
fn checkpoint_converts_to_the_crates_own_folder() {
    for model in ["vit", "resnet"] {
        let checkpoint = open(&format!("{model}/openai.pt"));
        let clip = checkpoint.load(&device()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        clip.save_to_folder(checkpoint.config(), dir.path(), SaveDtype::F16).unwrap();
        checkpoint.preprocess().save(dir.path()).unwrap();
        let again = Checkpoint::open(dir.path(), None).unwrap();
        assert_eq!((again.layout(), again.config()), (Layout::Transformers, checkpoint.config()));
        assert_eq!(again.preprocess(), checkpoint.preprocess());
        compare(&again.load(&device()).unwrap(), model);
    }
}

#[test]
fn folder_of_the_hub_cache_is_opened_by_its_reference() {
    let dir = tempfile::tempdir().unwrap();
    let hub = HubCache { root: dir.path().to_owned() };
    let repository = hub.repository("openai/clip-vit-base-patch32");
    assert!(repository.ends_with("models--openai--clip-vit-base-patch32"));
    let snapshot = repository.join("snapshots/0123abcd");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(repository.join("refs/main"), "0123abcd").unwrap();
    for file in ["config.json", "pytorch_model.bin"] {
        fs::copy(path("checkpoints/vit/transformers").join(file), snapshot.join(file)).unwrap();
    }
    let weights = Pretrained::by_name("ViT-B-32", "openai").unwrap();
    let openai = OpenAiCache { root: dir.path().join("nothing") };
    let found = find(None, weights, &hub, &openai).unwrap();
    assert_eq!(found, snapshot.join("pytorch_model.bin"));
    assert_eq!(Checkpoint::open(&repository, None).unwrap().path(), found);
    // A reference is a name, not a way out of the cache.
    fs::write(repository.join("refs/main"), "../../elsewhere").unwrap();
    assert!(hub.snapshot("openai/clip-vit-base-patch32", "main").is_none());
}

#[cfg(unix)]
#[test]
fn file_of_the_hub_cache_is_compared_with_the_name_of_its_blob() {
    let dir = tempfile::tempdir().unwrap();
    let hub = HubCache { root: dir.path().to_owned() };
    let repository = hub.repository("timm/resnet50_clip.openai");
    let snapshot = repository.join("snapshots/0123abcd");
    for folder in ["refs", "blobs", "snapshots/0123abcd"] {
        fs::create_dir_all(repository.join(folder)).unwrap();
    }
    fs::write(repository.join("refs/main"), "0123abcd\n").unwrap();
    let blob = format!("blobs/{}", "5e".repeat(32));
    fs::copy(path("checkpoints/resnet/open_clip_model.safetensors"), repository.join(&blob)).unwrap();
    let link = snapshot.join("open_clip_model.safetensors");
    std::os::unix::fs::symlink(Path::new("../..").join(&blob), &link).unwrap();
    let weights = Pretrained::by_name("RN50", "openai").unwrap();
    let error = find(None, weights, &hub, &OpenAiCache { root: "no/clip".into() }).unwrap_err();
    let Error::Digest { expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!(expected, &"5e".repeat(32));
    fs::rename(repository.join(&blob), repository.join("blobs").join(found)).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(Path::new("../../blobs").join(found), &link).unwrap();
    assert_eq!(find(None, weights, &hub, &OpenAiCache { root: "no/clip".into() }).unwrap(), link);
}

#[test]
fn given_path_comes_before_the_caches() {
    let weights = Pretrained::by_name("RN50", "openai").unwrap();
    let nowhere = (HubCache { root: "no/hub".into() }, OpenAiCache { root: "no/clip".into() });
    let given = path("checkpoints/resnet");
    let found = find(Some(&given), weights, &nowhere.0, &nowhere.1).unwrap();
    assert_eq!(found, given.join("open_clip_model.safetensors"));
}

#[test]
fn absent_model_is_an_error_that_says_what_to_put_where() {
    let weights = Pretrained::by_name("ViT-B/16", "openai").unwrap();
    let (hub, openai) = (HubCache { root: "no/hub".into() }, OpenAiCache { root: "no/clip".into() });
    let error = find(None, weights, &hub, &openai).unwrap_err().to_string();
    for part in [
        "weights of `ViT-B/16 (openai)` are not on this machine",
        "--weights",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt` at `no/clip/ViT-B-16.pt`",
        "`model.safetensors` and `config.json` of `openai/clip-vit-base-patch16`",
        "`open_clip_model.safetensors` and `open_clip_config.json` of `timm/vit_base_patch16_clip_224.openai`",
        "hub cache `no/hub`",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn file_of_openais_cache_is_compared_with_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(path("checkpoints/resnet/openai.pt"), dir.path().join("RN50.pt")).unwrap();
    let weights = Pretrained::by_name("RN50", "openai").unwrap();
    let (hub, openai) = (HubCache { root: "no/hub".into() }, OpenAiCache { root: dir.path().to_owned() });
    let error = find(None, weights, &hub, &openai).unwrap_err();
    let Error::Digest { expected, found, .. } = &error else { panic!("{error}") };
    assert!(expected.starts_with("afeb0e10") && found.len() == 64 && found != expected, "{error}");
    // A path that the caller names is the caller's: weights trained further keep their name.
    compare(&Checkpoint::open(dir.path(), None).unwrap().load(&device()).unwrap(), "resnet");
}

#[test]
fn folder_without_weights_names_the_files_it_could_hold() {
    let dir = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(dir.path(), None).err().unwrap().to_string();
    assert!(error.contains("model.safetensors") && error.contains("ViT-B-32.pt"), "{error}");
    for name in ["RN50.pt", "ViT-B-32.pt"] {
        fs::copy(path("checkpoints/resnet/openai.pt"), dir.path().join(name)).unwrap();
    }
    let error = Checkpoint::open(dir.path(), None).err().unwrap();
    assert!(matches!(&error, Error::SeveralWeights { names, .. } if names.len() == 2), "{error}");
    let error = Checkpoint::open(Path::new("no/such/folder"), None).err().unwrap();
    assert!(matches!(error, Error::Read { .. }), "{error}");
}

#[test]
fn activation_that_nothing_tells_must_be_named() {
    let dir = folder(&["vit/open_clip_pytorch_model.bin"]);
    let file = dir.path().join("open_clip_pytorch_model.bin");
    let error = Checkpoint::open(&file, None).err().unwrap();
    assert!(matches!(error, Error::UnknownActivation { .. }), "{error}");
    let checkpoint = Checkpoint::open(&file, Some(Activation::QuickGelu)).unwrap();
    compare(&checkpoint.load(&device()).unwrap(), "vit");
    // One that contradicts the checkpoint is refused, in every layout.
    for file in ["vit/openai.pt", "vit/epoch_1.pt", "vit/transformers"] {
        let error = Checkpoint::open(&path("checkpoints").join(file), Some(Activation::Gelu)).err().unwrap();
        assert!(error.to_string().contains("trained with `quick_gelu`, not with `gelu`"), "{error}");
    }
    // open_clip's release of this name is known.
    let released = dir.path().join("vit_b_16-laion400m_e32-55e67d44.pt");
    fs::rename(&file, &released).unwrap();
    let checkpoint = Checkpoint::open(&released, None).unwrap();
    assert_eq!(checkpoint.config().text_config.hidden_act, Activation::Gelu);
}

#[test]
fn open_clip_config_decides_what_the_tensors_do_not_tell() {
    let dir = folder(&["vit/open_clip_pytorch_model.bin", "vit/open_clip_config.json"]);
    let config = dir.path().join("open_clip_config.json");
    edit(&config, "\"quick_gelu\": true", "\"quick_gelu\": false");
    edit(&config, "0.48145466", "0.5");
    let checkpoint = Checkpoint::open(dir.path(), None).unwrap();
    assert_eq!(checkpoint.config().text_config.hidden_act, Activation::Gelu);
    assert_eq!(checkpoint.preprocess().mean[0], 0.5);
    assert_eq!(checkpoint.preprocess().image_size, 12);
}

#[test]
fn open_clip_config_of_another_model_is_refused() {
    for (from, to, field) in [
        ("\"embed_dim\": 16", "\"embed_dim\": 32", "model_cfg.embed_dim"),
        ("\"image_size\": 12", "\"image_size\": 16", "model_cfg.vision_cfg.image_size"),
        ("\"layers\": 2", "\"layers\": [1, 1, 1, 1]", "model_cfg.vision_cfg.layers"),
        ("\"heads\": 1", "\"heads\": 3", "text_config.num_attention_heads"),
        ("\"interpolation\": \"bicubic\"", "\"interpolation\": \"bilinear\"", "preprocess_cfg.interpolation"),
    ] {
        let dir = folder(&["vit/open_clip_pytorch_model.bin", "vit/open_clip_config.json"]);
        edit(&dir.path().join("open_clip_config.json"), from, to);
        let error = Checkpoint::open(dir.path(), None).err().unwrap();
        let Error::Field { field: named, .. } = &error else { panic!("{error}") };
        assert_eq!(named, field);
    }
    let dir = folder(&["vit/open_clip_pytorch_model.bin", "vit/open_clip_config.json"]);
    let config = dir.path().join("open_clip_config.json");
    edit(&config, "\"embed_dim\"", "\"multimodal_cfg\": {}, \"embed_dim\"");
    assert!(matches!(Checkpoint::open(dir.path(), None).err().unwrap(), Error::Json { .. }));
}

#[test]
fn wrong_architecture_is_named() {
    let load = |from: &str, to: &str| {
        let dir = folder(&["vit/transformers/pytorch_model.bin", "vit/transformers/config.json"]);
        edit(&dir.path().join("config.json"), from, to);
        Checkpoint::open(dir.path(), None).and_then(|checkpoint| checkpoint.load(&device())).unwrap_err()
    };
    let error = load("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    assert!(
        matches!(&error, Error::MissingTensor { key, count: 16, .. } if key.starts_with("vision_model.encoder.layers.2.")),
        "{error}"
    );
    let error = load("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    assert!(matches!(&error, Error::UnreadTensor { count: 16, .. }), "{error}");
    let error = load("\"patch_size\": 4", "\"patch_size\": 6");
    assert!(matches!(&error, Error::Shape { key, .. } if key.contains("patch_embedding")), "{error}");
    let error = load("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000000");
    assert!(
        matches!(&error, Error::Field { field, .. } if field == "vision_config.num_hidden_layers"),
        "{error}"
    );
    let error = load("\"vocab_size\": 50", "\"vocab_size\": 1000000000000");
    assert!(matches!(&error, Error::Field { field, .. } if field == "text_config.vocab_size"), "{error}");
}

/// Loads OpenAI's golden file with one entry changed.
fn load_openai(change: impl Fn(&mut Vec<(String, Vec<u8>)>)) -> Result<Clip, Error> {
    let mut entries = unzip(&fs::read(path("checkpoints/vit/openai.pt")).unwrap());
    change(&mut entries);
    let dir = tempfile::tempdir().unwrap();
    let file: PathBuf = dir.path().join("changed.pt");
    fs::write(&file, zip(&entries)).unwrap();
    Checkpoint::open(&file, None)?.load(&device())
}

fn replace(bytes: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes.splice(at..at + from.len(), to.iter().copied());
}

#[test]
fn torchscript_file_written_anew_loads() {
    compare(&load_openai(|_| {}).unwrap(), "vit");
}

#[test]
fn numbers_beside_openais_weights_must_agree() {
    let error = load_openai(|entries| {
        let number = |data: &&mut (String, Vec<u8>)| data.1 == 12_i64.to_le_bytes();
        entries.iter_mut().find(number).unwrap().1 = 224_i64.to_le_bytes().to_vec();
    })
    .unwrap_err();
    assert!(error.to_string().contains("the value of `input_resolution` is 224, expected 12"), "{error}");
}

#[test]
fn missing_and_extra_tensors_of_a_torch_file_are_named() {
    let renamed = |from: &str, to: &str| {
        load_openai(|entries| {
            let pickle = entries.iter_mut().find(|(name, _)| name.ends_with("/data.pkl")).unwrap();
            replace(&mut pickle.1, from.as_bytes(), to.as_bytes());
        })
        .unwrap_err()
    };
    let error = renamed("in_proj_bias", "in_proj_bios");
    assert!(
        matches!(&error, Error::MissingTensor { key, .. } if key.ends_with("attn.in_proj_bias")),
        "{error}"
    );
    let error = renamed("text_projection", "text_projectiom");
    assert!(matches!(&error, Error::MissingTensor { key, .. } if key == "text_projection"), "{error}");
    let error = renamed("vocab_size", "vocab_sixe");
    assert!(matches!(&error, Error::UnreadTensor { key, count: 1, .. } if key == "vocab_sixe"), "{error}");
    let error = load_openai(|entries| entries.retain(|(name, _)| !name.ends_with("/data/9"))).unwrap_err();
    assert!(chain(&error).contains("no entry `openai/data/9`"), "{}", chain(&error));
}

/// The whole chain of causes.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn layout_that_stacks_parameters_only_loads() {
    let clip = open("vit/openai.pt").load(&device()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let error =
        save_safetensors(&clip, &file, SaveDtype::F32, &clip.key_table_of(Layout::OpenClip)).unwrap_err();
    assert!(
        matches!(&error, Error::DuplicateKey { key, .. } if key.ends_with("attn.in_proj_weight")),
        "{error}"
    );
    assert!(!file.exists());
}

#[test]
fn other_models_are_no_clip() {
    let error = Checkpoint::open(&path("checkpoints/vit/expected.safetensors"), None).err().unwrap();
    assert!(matches!(error, Error::UnknownLayout { .. }), "{error}");
}

#[test]
fn full_size_shapes_are_recognised() {
    let clip = Backbone::by_name("RN50").unwrap().config(Activation::QuickGelu);
    let dir = tempfile::tempdir().unwrap();
    clip.save(&dir.path().join("config.json")).unwrap();
    assert_eq!(clip_model::ClipConfig::from_file(&dir.path().join("config.json")).unwrap(), clip);
}

#[test]
fn files_of_transformers_4_have_its_defaults() {
    let dir = folder(&["vit/transformers/pytorch_model.bin"]);
    let config = dir.path().join("config.json");
    // As version 4 wrote ViT-B/32: nothing that equals the defaults.
    let text = r#"{"architectures": ["CLIPModel"], "model_type": "clip", "transformers_version": "4.36.0",
        "text_config": {"model_type": "clip_text_model"}, "vision_config": {"model_type": "clip_vision_model"}}"#;
    fs::write(&config, text).unwrap();
    let read = clip_model::ClipConfig::from_file(&config).unwrap();
    let mut expected = Backbone::by_name("ViT-B/32").unwrap().config(Activation::QuickGelu);
    expected.logit_scale_init_value = read.logit_scale_init_value;
    assert_eq!(read, expected);
    // What the author gave by hand wins, as in transformers.
    let text = text.replace(r#""text_config""#, r#""text_config_dict": {"hidden_size": 768}, "text_config""#);
    fs::write(&config, &text).unwrap();
    assert_eq!(clip_model::ClipConfig::from_file(&config).unwrap().text_config.hidden_size, 768);
    // Any other file must say everything.
    fs::write(&config, text.replace("4.36.0", "5.24.0")).unwrap();
    assert!(matches!(clip_model::ClipConfig::from_file(&config).unwrap_err(), Error::Json { .. }));
}
