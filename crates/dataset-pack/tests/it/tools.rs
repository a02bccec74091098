//! The commands as people type them: output, exit codes, and that the stage still needs its unit.

use std::path::Path;
use std::process::{Command, Output};

use crate::bad_images::png;
use crate::benchmark_small::split_json;

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dataset-pack")).args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn shots_prints_train_a_blank_line_and_val() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("split.json"), split_json()).unwrap();
    let output = run(folder.path(), &["shots", "--split-file", "split.json", "--shots", "1", "--seed", "1"]);
    let expected = "hot_dog_1.png\t1\napple_0.png\t0\n\nhot_dog_0.png\t1\napple_1.png\t0\n";
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), (expected, Some(0)));
    std::fs::write(folder.path().join("list.tsv"), expected).unwrap();
    let draw =
        ["shots", "--split-file", "split.json", "--shots", "1", "--seed", "2", "--compare", "list.tsv"];
    assert_eq!(run(folder.path(), &draw).status.code(), Some(0));
    std::fs::write(folder.path().join("list.tsv"), "apple_0.png\t0\nhot_dog_1.png\t1\n\n").unwrap();
    let output = run(folder.path(), &draw);
    assert_eq!(output.status.code(), Some(65));
    assert!(text(&output.stderr).contains("train[0] is `hot_dog_1.png`, there it is `apple_0.png`"));
    let output = run(
        folder.path(),
        &["shots", "--split-file", "split.json", "--import", "list.tsv", "--format", "cross-modal"],
    );
    assert!(text(&output.stdout).contains("\"impath\": \"apple_0.png\""), "{}", text(&output.stderr));
    let output = run(folder.path(), &["shots", "--split-file", "split.json", "--shots", "1"]);
    assert!(!output.status.success() && text(&output.stderr).contains("expected `--seed`"));
    let output =
        run(folder.path(), &["shots", "--split-file", "nowhere.json", "--shots", "1", "--seed", "1"]);
    assert!(!output.status.success() && text(&output.stderr).contains("nowhere.json"));
}

#[test]
fn init_then_doctor_then_damage() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..10_u32 {
        let path = folder.path().join(format!("mine/{}", ["cat", "dog"][i as usize % 2]));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(format!("{i}.png")), png(5 + i, 5)).unwrap();
    }
    let output = run(folder.path(), &["init", "mine", "--manifests", "."]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("2 classes"));
    assert!(
        !run(folder.path(), &["init", "mine", "--manifests", "."]).status.success(),
        "a manifest was overwritten"
    );
    let doctor = ["doctor", "mine", "--root", ".", "--manifests", ".", "--sample", "all"];
    let output = run(folder.path(), &doctor);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("images             10 checked  ok"), "{}", text(&output.stdout));
    std::fs::write(folder.path().join("mine/cat/0.png"), b"<html>").unwrap();
    let output = run(folder.path(), &[&doctor[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(65));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rows"][0]["subject"], "cat/0.png");
    assert!(text(&output.stderr).contains("1 problem"), "{}", text(&output.stderr));
}

#[test]
fn the_stage_still_needs_its_unit() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--spec"), "{}", text(&output.stderr));
    let output = run(folder.path(), &["--spec", "nowhere.json"]);
    assert_eq!(output.status.code(), Some(78));
}
