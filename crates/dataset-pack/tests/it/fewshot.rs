//! Shot lists against CPython: the checked-in fixture, and every published list where the reference data are
//! present.

use std::path::Path;

use dataset_pack::shots::python_random::PythonRandom;
use dataset_pack::shots::{IndexFormat, draw, from_lists, index_file};
use dataset_pack::split_file::SplitLists;
use pipeline_spec::spec::{ShortClass, ValShots};
use serde::Deserialize;

use crate::benchmarks::shared_data;

#[derive(Deserialize)]
struct Case {
    name: String,
    shots: u32,
    seed: u64,
    repeat: bool,
    train: Vec<u32>,
    val: Vec<u32>,
    drawn_train: Vec<usize>,
    drawn_val: Vec<usize>,
}

#[test]
fn lists_equal_those_of_cpython() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/fewshot.json")).unwrap();
    assert_eq!(cases.len(), 98);
    for case in cases {
        let short_class = if case.repeat { ShortClass::Repeat } else { ShortClass::TakeAll };
        let list =
            draw(&case.train, &case.val, case.shots, case.seed, ValShots::MinShots4, short_class).unwrap();
        assert_eq!(list.train, case.drawn_train, "{}", case.name);
        assert_eq!(list.val, case.drawn_val, "{}", case.name);
    }
}

#[test]
fn stream_equals_known_values_of_cpython() {
    // `random.seed(1); [random.randrange(1000) for _ in range(5)]` and `random.seed(1); random.random()`.
    let mut random = PythonRandom::seed(1);
    assert_eq!([0; 5].map(|_: u32| random.randbelow(1000)), [137, 582, 867, 821, 782]);
    assert_eq!(PythonRandom::seed(1).random(), 0.134_364_244_112_401_22);
    assert_eq!(PythonRandom::seed(1).sample(2, 3), None);
}

#[test]
fn all_validation_images_can_be_kept_and_no_shots_is_an_error() {
    let list = draw(&[0, 1, 0, 1], &[1, 1, 1, 1, 1, 0], 1, 1, ValShots::All, ShortClass::TakeAll).unwrap();
    assert_eq!(list.val, [0, 1, 2, 3, 4, 5]);
    assert!(draw(&[0], &[0], 0, 1, ValShots::All, ShortClass::TakeAll).is_err());
    assert!(draw(&[], &[], 1, 1, ValShots::All, ShortClass::TakeAll).is_err());
}

#[test]
fn published_lists_are_reproduced() {
    let Some(data) = shared_data() else { return };
    let mut compared = 0;
    for file in std::fs::read_dir(data.join("fewshot")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (dataset, rest) = name.split_once("-shots").unwrap();
        let (shots, seed) = rest.split_once("-seed").unwrap();
        let split = match dataset {
            "dtd" => "DescribableTextures",
            "oxford_pets" => "OxfordPets",
            other => panic!("no split file is known for `{other}`"),
        };
        let lists = SplitLists::read(&data.join(format!("splits/split_zhou_{split}.json"))).unwrap();
        let (shots, seed) = (shots.parse().unwrap(), seed.parse().unwrap());
        let list = from_lists(&lists, shots, seed, ValShots::MinShots4, ShortClass::TakeAll).unwrap();
        assert_eq!(list, index_file::read(&path, &lists).unwrap(), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 18);
}

/// A split file of two classes, the second with two training images.
fn small_lists(folder: &Path) -> SplitLists {
    let entry =
        |i: usize| format!("[\"{}/{i}.jpg\", {}, \"{}\"]", ["a", "b"][i % 2], i % 2, ["cat", "dog"][i % 2]);
    let list = |range: &[usize]| range.iter().map(|i| entry(*i)).collect::<Vec<_>>().join(",");
    let json = format!(
        "{{\"train\": [{}], \"val\": [{}], \"test\": []}}",
        list(&[1, 0, 2, 3, 4, 6, 8]),
        list(&[10, 11, 12, 13])
    );
    let path = folder.join("split.json");
    std::fs::write(&path, json).unwrap();
    SplitLists::read(&path).unwrap()
}

#[test]
fn lists_survive_every_form_and_the_folders_of_their_authors() {
    let folder = tempfile::tempdir().unwrap();
    let lists = small_lists(folder.path());
    let list = from_lists(&lists, 2, 3, ValShots::MinShots4, ShortClass::TakeAll).unwrap();
    for (format, name) in [
        (IndexFormat::Tsv, "list.tsv"),
        (IndexFormat::CrossModal, "list.json"),
        (IndexFormat::TwoStage, "list"),
    ] {
        let target = folder.path().join(name);
        let files = index_file::write_files(&list, format, "./data/small/images/", &target).unwrap();
        assert_eq!(index_file::read(&files[0], &lists).unwrap(), list, "{name}");
        assert_eq!(files.len(), if format == IndexFormat::TwoStage { 2 } else { 1 });
    }
    let text = std::fs::read_to_string(folder.path().join("list_val.jsonl")).unwrap();
    assert!(text.starts_with("{\"_impath\":\"./data/small/images/"), "{text}");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("list.json")).unwrap()).unwrap();
    assert_eq!(json["train"]["indices"].as_array().unwrap().len(), list.train.len());
}

#[test]
fn lists_of_other_images_or_labels_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lists = small_lists(folder.path());
    let refuse = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        index_file::read(&path, &lists).unwrap_err().to_string()
    };
    assert!(refuse("a.tsv", "a/0.jpg\t0\nc/9.jpg\t0\n").contains("train image `c/9.jpg` is not in the list"));
    assert!(refuse("b.tsv", "a/0.jpg\t1\n").contains("has label 1, the split file says 0"));
    assert!(refuse("c.tsv", "a/0.jpg 0\n").contains("line 1: expected `path TAB label`"));
    assert!(
        refuse("d.tsv", "a/0.jpg\t0\n\na/10.jpg\t0\n\na/12.jpg\t0\n").contains("expected one empty line")
    );
    assert!(refuse("e.json", "{\"train\": 3}").contains("cross_modal_adaptation"));
    assert!(refuse("f.jsonl", "{}").contains("_train.jsonl"));
    assert!(refuse("g_train.jsonl", "{}").contains("line 1"));
}

#[test]
fn a_short_class_is_taken_whole_or_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let lists = small_lists(folder.path());
    let count = |rule| {
        let list = from_lists(&lists, 4, 1, ValShots::All, rule).unwrap();
        assert_eq!(list.val.len(), 4);
        list.train.iter().filter(|(_, e)| e.label() == 1).count()
    };
    assert_eq!((count(ShortClass::TakeAll), count(ShortClass::Repeat)), (2, 4));
}
