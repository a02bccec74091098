//! Checkpoints in several files, and open_clip's text tower below `text.`.

use std::fs;
use std::path::Path;

use clip_model::{Checkpoint, Error, Format, Layout, key_list, normalize, shard_names};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::golden::{Golden, device, path};

/// As in `checkpoints`.
const TOLERANCE: f32 = 2e-5;
const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

fn copy(folder: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(path(folder)).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    dir
}

/// Changes the index's `weight_map`.
fn edit(dir: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let file = dir.join(INDEX);
    let mut index: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(index["weight_map"].as_object_mut().unwrap());
    fs::write(file, index.to_string()).unwrap();
}

fn refused(dir: &Path) -> Error {
    Checkpoint::open(dir, None).err().expect("a damaged index does not open")
}

#[test]
fn sharded_and_custom_text_checkpoints_give_the_embeddings_of_open_clip() {
    let golden = Golden::open("checkpoints/sharded/expected.safetensors");
    for (folder, layout, format) in [
        ("sharded", Layout::Transformers, Format::SafeTensors),
        ("sharded_bin", Layout::Transformers, Format::Torch),
        ("custom_text", Layout::OpenClip, Format::SafeTensors),
    ] {
        let checkpoint = Checkpoint::open(&path("checkpoints").join(folder), None).unwrap();
        assert_eq!((checkpoint.layout(), checkpoint.format()), (layout, format), "{folder}");
        let clip = checkpoint.load(&device()).unwrap();
        let image = clip.image_features(golden.tensor("pixel_values", &device()));
        let text = clip.text_features(golden.ids("input_ids", &device()));
        let logits = clip.logits_per_image(image.clone(), text.clone());
        assert!(golden.compare("logits", logits) <= 10.0 * TOLERANCE, "{folder}");
        assert!(golden.compare("image_embeds", normalize(image)) <= TOLERANCE, "{folder}");
        assert!(golden.compare("text_embeds", normalize(text)) <= TOLERANCE, "{folder}");
    }
}

#[test]
fn index_lists_the_keys_of_all_its_files() {
    let all = key_list(&path("checkpoints/sharded").join(INDEX)).unwrap();
    let parts = [FIRST, SECOND].map(|name| key_list(&path("checkpoints/sharded").join(name)).unwrap());
    let mut joined = parts.concat();
    joined.sort();
    assert_eq!(all, joined);
    assert_eq!(shard_names(&path("checkpoints/sharded").join(INDEX)).unwrap(), [FIRST, SECOND]);
}

#[test]
fn missing_file_of_an_index_is_named() {
    let dir = copy("checkpoints/sharded");
    fs::remove_file(dir.path().join(SECOND)).unwrap();
    let error = refused(dir.path());
    assert!(matches!(&error, Error::ShardName { name, .. } if name == SECOND), "{error}");
    assert!(error.to_string().contains(INDEX), "{error}");
}

#[test]
fn index_and_files_that_disagree_are_refused() {
    let key = "logit_scale";
    let cases: [(&dyn Fn(&Path), &str, &str); 4] = [
        // A tensor in two files: the other file gets it too.
        (&|dir| fs::copy(dir.join(FIRST), dir.join(SECOND)).map(drop).unwrap(), SECOND, FIRST),
        (&|dir| edit(dir, |map| drop(map.insert(key.into(), json!(SECOND)))), FIRST, SECOND),
        (&|dir| edit(dir, |map| drop(map.remove(key))), FIRST, "index"),
        (&|dir| edit(dir, |map| drop(map.insert("more".into(), json!(SECOND)))), "not there", SECOND),
    ];
    for (damage, found, expected) in cases {
        let dir = copy("checkpoints/sharded");
        damage(dir.path());
        let error = refused(dir.path());
        let Error::ShardTensor { path, found: is, expected: should, .. } = &error else { panic!("{error}") };
        assert!(path.ends_with(INDEX) && is.contains(found) && should.contains(expected), "{error}");
    }
}

#[test]
fn names_of_an_index_lead_nowhere_else() {
    for name in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "", "..", ".hidden", "a\0b", INDEX]
    {
        let dir = copy("checkpoints/sharded");
        edit(dir.path(), |map| drop(map.insert("logit_scale".into(), json!(name))));
        let error = refused(dir.path());
        assert!(matches!(&error, Error::ShardName { .. }), "{name}: {error}");
    }
    let dir = copy("checkpoints/sharded");
    edit(dir.path(), |map| {
        map.extend((0..1000).map(|i| (format!("t{i}"), json!(format!("model-{i}.safetensors")))));
    });
    assert!(matches!(refused(dir.path()), Error::ShardName { .. }));
}

#[test]
fn malformed_index_is_an_error() {
    for index in [
        "{}",
        "[]",
        r#"{"weight_map": {"a": 1}}"#,
        r#"{"weight_map": {"logit_scale": "a.safetensors", "logit_scale": "b.safetensors"}}"#,
        r#"{"weight_map": {"#,
    ] {
        let dir = copy("checkpoints/sharded");
        fs::write(dir.path().join(INDEX), index).unwrap();
        let error = refused(dir.path());
        assert!(matches!(&error, Error::Json { path, .. } if path.ends_with(INDEX)), "{index}: {error}");
    }
    let dir = copy("checkpoints/sharded");
    fs::write(dir.path().join(INDEX), r#"{"weight_map": {}}"#).unwrap();
    assert!(matches!(refused(dir.path()), Error::Field { .. }));
    fs::write(dir.path().join(INDEX), vec![b' '; 17 << 20]).unwrap();
    assert!(matches!(refused(dir.path()), Error::Field { .. }));
}

#[test]
fn damaged_file_of_an_index_is_named() {
    let dir = copy("checkpoints/sharded");
    let file = dir.path().join(SECOND);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let error = refused(dir.path());
    assert!(matches!(&error, Error::SafeTensors { path, .. } if path.ends_with(SECOND)), "{error}");
}

#[test]
fn text_tower_below_text_and_beside_it_is_refused() {
    let dir = copy("checkpoints/custom_text");
    let file = dir.path().join("open_clip_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let (head, rest) = bytes[8..].split_at(u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize);
    // The one-number tensor `logit_scale` takes the name of a tensor that is below `text.` too.
    let head = String::from_utf8(head.to_vec()).unwrap().replace("\"logit_scale\"", "\"ln_final.bias\"");
    let len = (head.len() as u64).to_le_bytes();
    fs::write(&file, [&len[..], head.as_bytes(), rest].concat()).unwrap();
    let error = refused(dir.path());
    assert!(matches!(&error, Error::Tensor { field: "name", .. }), "{error}");
}
