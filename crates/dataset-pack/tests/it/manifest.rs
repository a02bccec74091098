//! The checked-in manifest, and manifests that must be refused.

use std::path::{Path, PathBuf};

use pipeline_spec::Error;
use pipeline_spec::data_manifest::{DataManifest, Form};

/// The emoji manifest of this repository.
pub fn emoji_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests/emoji.toml")
}

fn refusal(change: impl Fn(&str) -> String) -> String {
    let text = std::fs::read_to_string(emoji_path()).unwrap();
    let changed = change(&text);
    assert_ne!(text, changed, "the change did not apply");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("emoji.toml");
    std::fs::write(&path, changed).unwrap();
    match DataManifest::read(&path).unwrap_err() {
        Error::Field { field, problem } => format!("{field}: {problem}"),
        error => {
            assert!(error.to_string().contains("emoji.toml"), "{error}");
            error.to_string()
        }
    }
}

#[test]
fn emoji_manifest_has_its_classes_sources_and_counts() {
    let (manifest, digest) = DataManifest::read(&emoji_path()).unwrap();
    assert_eq!(manifest.dataset.as_str(), "emoji");
    assert_eq!(digest, pipeline_spec::Digest::blake3(&std::fs::read(emoji_path()).unwrap()));
    assert_eq!(manifest.sources.len(), 6);
    let names = manifest.class_names().unwrap();
    assert_eq!(names.len(), 32);
    assert_eq!((names[0], names[31]), ("mammal", "body part"));
    let expected = manifest.expected().unwrap();
    assert_eq!(expected.len(), 5);
    assert!(expected["test"] >= 1000 && expected["train"] >= 16 * 32 && expected["val"] >= 4 * 32);
    let Form::Emoji(form) = &manifest.form else { panic!("not an emoji manifest") };
    assert_eq!(form.artists.len(), 5);
}

#[test]
fn unknown_and_missing_fields_are_refused() {
    let message = refusal(|t| t.replace("max_group = 2", "max_group = 2\nmax_groups = 2"));
    assert!(message.contains("max_groups"), "{message}");
    let message = refusal(|t| t.replace("max_group = 2\n", ""));
    assert!(message.contains("max_group"), "{message}");
    let message = refusal(|t| t.replace("registry = \"npm\"", "registry = \"ftp\""));
    assert!(message.contains("ftp"), "{message}");
    let message = refusal(|t| t.replacen("sha256 = \"3", "sha256 = \"Z", 1));
    assert!(message.contains("hexadecimal"), "{message}");
}

#[test]
fn contradictions_are_refused() {
    let message = refusal(|t| t.replace("an emoji of a {}", "an emoji"));
    assert!(message.contains("templates") && message.contains("an emoji"), "{message}");
    let message = refusal(|t| t.replace("vocabulary = \"emojibase\"", "vocabulary = \"elsewhere\""));
    assert!(message.contains("vocabulary") && message.contains("elsewhere"), "{message}");
    let message = refusal(|t| t.replace("name = \"bird\"", "name = \"mammal\""));
    assert!(message.contains("`mammal` twice"), "{message}");
    let message = refusal(|t| t.replace("[\"2660\", \"2663\"]", "[\"2660\", \"2660\"]"));
    assert!(message.contains("series") && message.contains("twice"), "{message}");
    let message = refusal(|t| t.replace("[\"2660\", \"2663\"]", "[\"2660-FE0F\", \"2663\"]"));
    assert!(message.contains("2660-FE0F"), "{message}");
    let message = refusal(|t| t.replacen("file = \"", "file = \"../", 1));
    assert!(message.contains("plain file name"), "{message}");
}
