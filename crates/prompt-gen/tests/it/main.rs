//! The stage from a unit to the artifact on disk.

mod fault_server;
mod kill;
mod openai;
mod place;

use std::collections::BTreeMap;
use std::path::Path;

use artifacts::{ArtifactReader, Outcome, PromptRow, Shard};
use clap::Parser as _;
use pipeline_spec::spec::{PromptProvider, PromptsSpec};
use pipeline_spec::{DatasetId, Digest, StageSpec, Store, Unit, prompts_digest};
use prompt_gen::{Error, ServerArgs, Settings, Watch};

const MANIFEST: &str = r#"
dataset = "animals"
description = "Two animals."
templates = ["a photo of a {}"]
sources = []

[form.folder]
root = "."
classes = [{ folder = "cat", name = "cat" }, { folder = "sea_lion", name = "sea lion" }]
split.folders = { train = "train" }
"#;

fn manifest(folder: &Path) -> Digest {
    std::fs::write(folder.join("animals.toml"), MANIFEST).unwrap();
    Digest::blake3(MANIFEST.as_bytes())
}

fn unit(manifest_digest: Digest, provider: PromptProvider) -> Unit {
    let dataset = DatasetId::try_from("animals".to_owned()).unwrap();
    let spec = StageSpec::Prompts(PromptsSpec { dataset, manifest_digest, provider });
    Unit { spec, inputs: BTreeMap::new() }
}

fn file_provider(path: &Path, text: &str) -> PromptProvider {
    std::fs::write(path, text).unwrap();
    let digest = Digest::blake3(text.as_bytes());
    PromptProvider::File { name: "cupl".to_owned(), path: path.display().to_string(), digest }
}

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the stage without a server; nobody watches.
fn run(unit: &Unit, store: &Store, folder: &Path) -> Result<Outcome, Error> {
    let server = Arguments::parse_from(["prompt-gen"]).server;
    let settings = Settings { store, manifests: folder, server: &server };
    let display = stage_cli::progress::Display::new(false);
    let watch =
        Watch { check_interrupted: &|| Ok(()), progress: &|total| display.progress("answers", total) };
    prompt_gen::run(unit, Shard::default(), settings, watch)
}

/// The rows that `unit` yields.
fn rows(folder: &Path, unit: &Unit) -> Vec<PromptRow> {
    let store = Store::new(folder.join("store"));
    let Outcome::Finished(record) = run(unit, &store, folder).unwrap() else { panic!("a part is missing") };
    ArtifactReader::open(&store, &record.id).unwrap().rows::<PromptRow>().unwrap()
}

/// The error text, with that of its sources.
fn failure(folder: &Path, unit: &Unit) -> String {
    let store = Store::new(folder.join("store"));
    let error = run(unit, &store, folder).unwrap_err();
    assert!(!store.contains(&unit.output()), "a failed run must not leave an artifact");
    error.to_string()
}

#[test]
fn templates_become_an_artifact_that_a_second_run_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let templates = ["a photo of a {}", "a drawing of a {}", "a photo of a {}"].map(str::to_owned).to_vec();
    let unit = unit(manifest(folder.path()), PromptProvider::Templates { templates });
    let store = Store::new(folder.path().join("store"));
    let first = run(&unit, &store, folder.path()).unwrap();
    let Outcome::Finished(record) = first else { panic!("{first:?}") };
    let reader = ArtifactReader::open(&store, &record.id).unwrap();
    let rows = reader.rows::<PromptRow>().unwrap();
    let prompts: Vec<_> =
        rows.iter().map(|r| (r.class_name.as_str(), r.prompt_index, r.prompt.as_str())).collect();
    assert_eq!(
        prompts,
        [
            ("cat", 0, "a photo of a cat"),
            ("cat", 1, "a drawing of a cat"),
            ("sea lion", 0, "a photo of a sea lion"),
            ("sea lion", 1, "a drawing of a sea lion"),
        ]
    );
    assert_eq!(reader.class_names().unwrap(), ["cat", "sea lion"]);
    std::fs::remove_file(folder.path().join("animals.toml")).unwrap();
    let Outcome::Finished(again) = run(&unit, &store, folder.path()).unwrap() else {
        panic!("the second run must find the artifact")
    };
    assert_eq!(again.parts, record.parts);
}

#[test]
fn a_changed_manifest_is_refused_by_digest() {
    let folder = tempfile::tempdir().unwrap();
    let found = manifest(folder.path());
    let expected = Digest::blake3(b"another manifest");
    let templates = vec!["a {}".to_owned()];
    let message = failure(folder.path(), &unit(expected.clone(), PromptProvider::Templates { templates }));
    for part in ["animals.toml", "manifest_digest", expected.as_str(), found.as_str()] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn prompts_of_a_file_follow_the_classes_and_lose_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let digest = manifest(folder.path());
    let text =
        r#"{"Sea_Lion": ["a sea lion barks. ", "a sea lion barks."], "cat": ["a cat sits", "a cat naps"]}"#;
    let provider = file_provider(&folder.path().join("prompts.json"), text);
    let rows = rows(folder.path(), &unit(digest, provider));
    let prompts: Vec<_> = rows.iter().map(|r| (r.class_id, r.prompt_index, r.prompt.as_str())).collect();
    assert_eq!(prompts, [(0, 0, "a cat sits"), (0, 1, "a cat naps"), (1, 0, "a sea lion barks.")]);
    assert!(rows.iter().all(|r| r.provider == "file" && r.template.is_empty()));
}

#[test]
fn bad_prompt_files_are_refused_with_their_fault() {
    let folder = tempfile::tempdir().unwrap();
    let digest = manifest(folder.path());
    let path = folder.path().join("prompts.json");
    let cases = [
        (r#"{"cat": ["a cat"]}"#, "no entry for class `sea lion`"),
        (r#"{"cat": ["a"], "sea lion": ["b"], "dog": ["c"]}"#, "unknown class `dog`"),
        (r#"{"cat": [], "sea lion": ["b"]}"#, "at least one prompt for `cat`, found an empty list"),
        (r#"{"cat": ["a", "  "], "sea lion": ["b"]}"#, "prompt 1 of `cat`"),
        (r#"{"cat": ["a"], "Cat": ["b"], "sea lion": ["c"]}"#, "found `cat` and `Cat`"),
        (r#"{"cat": ["a"], "cat": ["b"], "sea lion": ["c"]}"#, "found `cat` and `cat`"),
        (r#"["a cat"]"#, "found: invalid type: sequence"),
        (r#"{"cat": "a cat"}"#, "expected a sequence at line 1 column 15"),
        (r#"{"cat": ["a"], "sea li"#, "EOF while parsing"),
        (r#"{"cat": ["a"], "sea lion": ["b"]} {}"#, "trailing characters"),
    ];
    for (text, expected) in cases {
        let message = failure(folder.path(), &unit(digest.clone(), file_provider(&path, text)));
        assert!(
            message.contains("prompts.json") && message.contains(expected),
            "`{expected}` is not in: {message}"
        );
    }
}

#[test]
fn a_prompt_file_that_is_not_the_pinned_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let digest = manifest(folder.path());
    let path = folder.path().join("prompts.json");
    let provider = file_provider(&path, r#"{"cat": ["a"], "sea lion": ["b"]}"#);
    std::fs::write(&path, r#"{"cat": ["x"], "sea lion": ["b"]}"#).unwrap();
    let message = failure(folder.path(), &unit(digest, provider));
    assert!(message.contains("prompts.json") && message.contains("provider.digest"), "{message}");
}

/// A folder with these text files.
fn text_provider(folder: &Path, files: &[(&str, &[u8])]) -> PromptProvider {
    let path = folder.join("texts");
    std::fs::create_dir_all(&path).unwrap();
    for (name, bytes) in files {
        std::fs::write(path.join(name), bytes).unwrap();
    }
    let digest = prompts_digest(&path).unwrap();
    PromptProvider::File { name: "own".to_owned(), path: path.display().to_string(), digest }
}

#[test]
fn a_folder_of_text_files_has_a_prompt_on_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let digest = manifest(folder.path());
    let files: [(&str, &[u8]); 3] = [
        ("Sea_lion.txt", b"a sea lion\r\n\n a sea lion barks \na sea lion\n"),
        ("cat.txt", b"a cat"),
        ("README.md", b"not read"),
    ];
    let unit = unit(digest, text_provider(folder.path(), &files));
    let rows = rows(folder.path(), &unit);
    let prompts: Vec<_> = rows.iter().map(|r| (r.class_id, r.prompt_index, r.prompt.as_str())).collect();
    assert_eq!(prompts, [(0, 0, "a cat"), (1, 0, "a sea lion"), (1, 1, "a sea lion barks")]);
}

#[test]
fn a_folder_of_text_files_with_a_fault_is_refused() {
    let cases: [(&str, &[u8], &str); 3] = [
        ("dog.txt", b"a dog", "unknown class `dog`"),
        ("sea lion.txt", b"\n \n", "at least one prompt for `sea lion`, found an empty list"),
        ("sea lion.txt", b"caf\xe9", "UTF-8 text, found incomplete utf-8 byte sequence"),
    ];
    for (name, bytes, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let digest = manifest(folder.path());
        let files: [(&str, &[u8]); 3] =
            [("cat.txt", b"a cat"), ("sea lion.txt", b"a sea lion"), (name, bytes)];
        let unit = unit(digest, text_provider(folder.path(), &files));
        let message = failure(folder.path(), &unit);
        assert!(message.contains("texts") && message.contains(expected), "`{expected}` is not in: {message}");
        std::fs::write(folder.path().join("texts/cat.txt"), "another cat").unwrap();
        assert!(failure(folder.path(), &unit).contains("provider.digest"));
    }
}
