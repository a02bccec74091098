//! Checkpoint files: exact round trips, and a typed error for everything that does not fit.

use std::fs;
use std::path::Path;

use clip_model::{Clip, ClipConfig, Error, SaveDtype, key_list, load_safetensors, save_safetensors};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::golden::{device, path};

fn fresh() -> Clip {
    ClipConfig::from_file(&path("clip_vit/config.json")).unwrap().init(&device())
}

fn load(file: &Path) -> Result<Clip, Error> {
    let clip = fresh();
    let table = clip.key_table();
    load_safetensors(clip, file, &table)
}

/// Loads a changed copy of the golden checkpoint.
fn load_changed(change: impl FnOnce(&mut Vec<(String, TensorView<'_>)>)) -> Result<Clip, Error> {
    let bytes = fs::read(path("clip_vit/model.safetensors")).unwrap();
    let mut tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    change(&mut tensors);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("changed.safetensors");
    fs::write(&file, safetensors::serialize(tensors.iter().map(|(k, v)| (k, v)), None).unwrap()).unwrap();
    load(&file)
}

fn load_bytes(bytes: &[u8]) -> Result<Clip, Error> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("changed.safetensors");
    fs::write(&file, bytes).unwrap();
    load(&file)
}

#[test]
fn f32_round_trip_is_exact_and_reproducible() {
    for name in ["clip_vit", "clip_resnet"] {
        let dir = tempfile::tempdir().unwrap();
        let config = ClipConfig::from_file(&path(name).join("config.json")).unwrap();
        let clip = Clip::from_folder(&path(name), &device()).unwrap();
        clip.save_to_folder(&config, dir.path(), SaveDtype::F32).unwrap();
        assert_eq!(ClipConfig::from_file(&dir.path().join("config.json")).unwrap(), config);
        let first = fs::read(dir.path().join("model.safetensors")).unwrap();
        let again = Clip::from_folder(dir.path(), &device()).unwrap();
        again.save_to_folder(&config, dir.path(), SaveDtype::F32).unwrap();
        assert!(fs::read(dir.path().join("model.safetensors")).unwrap() == first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays");
    }
}

#[test]
fn saved_file_equals_the_one_that_pytorch_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let clip = Clip::from_folder(&path("clip_vit"), &device()).unwrap();
    save_safetensors(&clip, &file, SaveDtype::F32, &clip.key_table()).unwrap();
    let original = path("clip_vit/model.safetensors");
    assert_eq!(key_list(&file).unwrap(), key_list(&original).unwrap());
    let (ours, theirs) = (fs::read(&file).unwrap(), fs::read(&original).unwrap());
    let (ours, theirs) =
        (SafeTensors::deserialize(&ours).unwrap(), SafeTensors::deserialize(&theirs).unwrap());
    for (key, tensor) in theirs.tensors() {
        assert!(ours.tensor(&key).unwrap().data() == tensor.data(), "{key}");
    }
}

#[test]
fn f16_round_trip_is_exact_for_f16_values() {
    // The golden ResNet's weights are f16 values, counters of training steps aside.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let clip = Clip::from_folder(&path("clip_resnet"), &device()).unwrap();
    save_safetensors(&clip, &file, SaveDtype::F16, &clip.key_table()).unwrap();
    let (ours, theirs) = (fs::read(&file).unwrap(), fs::read(path("clip_resnet/model.safetensors")).unwrap());
    let (ours, theirs) =
        (SafeTensors::deserialize(&ours).unwrap(), SafeTensors::deserialize(&theirs).unwrap());
    for (key, tensor) in theirs.tensors() {
        if !key.ends_with("num_batches_tracked") {
            assert!(ours.tensor(&key).unwrap().data() == tensor.data(), "{key}");
        }
    }
}

#[test]
fn value_beyond_f16_is_refused() {
    let mut clip = fresh();
    clip.logit_scale = clip.logit_scale.map(|scale| scale * 1e6);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let error = save_safetensors(&clip, &file, SaveDtype::F16, &clip.key_table()).unwrap_err();
    assert!(matches!(&error, Error::HalfOverflow { key, .. } if key == "logit_scale"), "{error}");
    assert!(!file.exists());
}

#[test]
fn missing_tensor_is_named() {
    let error =
        load_changed(|tensors| tensors.retain(|(key, _)| !key.contains("layers.1.mlp.fc2"))).unwrap_err();
    let Error::MissingTensor { key, count, .. } = &error else { panic!("{error}") };
    assert_eq!((key.as_str(), *count), ("text_model.encoder.layers.1.mlp.fc2.bias", 4));
    assert!(
        error.to_string().ends_with("4 missing, first `text_model.encoder.layers.1.mlp.fc2.bias`"),
        "{error}"
    );
}

#[test]
fn unread_tensor_is_named() {
    let error = load_changed(|tensors| {
        let extra = tensors[0].1.clone();
        tensors.push(("zz.extra".to_owned(), extra.clone()));
        tensors.push(("text_model.embeddings.position_ids".to_owned(), extra));
    })
    .unwrap_err();
    assert!(matches!(&error, Error::UnreadTensor { key, count: 1, .. } if key == "zz.extra"), "{error}");
}

#[test]
fn wrong_shape_is_named() {
    let error = load_changed(|tensors| {
        let (_, view) = tensors.iter_mut().find(|(key, _)| key == "text_projection.weight").unwrap();
        *view = TensorView::new(view.dtype(), vec![32, 20], view.data()).unwrap();
    })
    .unwrap_err();
    let Error::Shape { key, expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (key.as_str(), &expected[..], &found[..]),
        ("text_projection.weight", &[20, 32][..], &[32, 20][..])
    );
}

#[test]
fn unknown_dtype_is_named() {
    let error = load_changed(|tensors| {
        let (_, view) = tensors.iter_mut().find(|(key, _)| key == "logit_scale").unwrap();
        *view = TensorView::new(safetensors::Dtype::I32, vec![], view.data()).unwrap();
    })
    .unwrap_err();
    assert!(
        matches!(&error, Error::Dtype { key, found, .. } if key == "logit_scale" && found == "I32"),
        "{error}"
    );
}

#[test]
fn truncated_file_is_refused() {
    let bytes = fs::read(path("clip_vit/model.safetensors")).unwrap();
    for length in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        let error = load_bytes(&bytes[..length]).unwrap_err();
        assert!(matches!(error, Error::SafeTensors { .. }), "{length}: {error}");
    }
}

#[test]
fn flipped_header_never_panics() {
    let bytes = fs::read(path("clip_vit/model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut refused = 0;
    for at in (0..header).step_by(37).chain(0..8) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        refused += usize::from(load_bytes(&flipped).is_err());
    }
    // A flip inside the metadata's own text or between equal tensors can stay valid; nothing else does.
    assert!(refused >= header / 37, "{refused} of {} refused", header / 37 + 8);
}

#[test]
fn absent_file_is_named() {
    let error = load(Path::new("no/such/model.safetensors")).unwrap_err();
    assert!(matches!(&error, Error::Read { .. }) && error.to_string().contains("no/such/model.safetensors"));
}
