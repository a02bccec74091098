//! Shot lists against CPython: the checked-in fixture, and every published list where the reference data are
//! present.

use std::path::Path;

use dataset_pack::fewshot::draw;
use dataset_pack::python_random::PythonRandom;
use pipeline_spec::spec::{ShortClass, ValShots};
use serde::Deserialize;

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

/// An entry of CoOp's split files: path, label, class name.
type Entry = (String, u32, String);

#[derive(Deserialize)]
struct SplitFile {
    train: Vec<Entry>,
    val: Vec<Entry>,
}

#[derive(Deserialize)]
struct PublishedList {
    train: Vec<(String, u32)>,
    val: Vec<(String, u32)>,
}

#[test]
fn published_lists_are_reproduced() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !data.join("fewshot").is_dir() {
        #[allow(clippy::print_stderr)]
        {
            eprintln!(
                "`shared/data/fewshot` is absent beside the repository: published shot lists were not compared"
            );
        }
        return;
    }
    let mut compared = 0;
    for file in std::fs::read_dir(data.join("fewshot")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (dataset, rest) = name.split_once("-shots").unwrap();
        let (shots, seed) = rest.split_once("-seed").unwrap();
        let split = match dataset {
            "dtd" => "DescribableTextures",
            "oxford_pets" => "OxfordPets",
            "caltech101" => "Caltech101",
            "eurosat" => "EuroSAT",
            "oxford_flowers" => "OxfordFlowers",
            "stanford_cars" => "StanfordCars",
            "ucf101" => "UCF101",
            other => panic!("no split file is known for `{other}`"),
        };
        let split = std::fs::read(data.join(format!("splits/split_zhou_{split}.json"))).unwrap();
        let split: SplitFile = serde_json::from_slice(&split).unwrap();
        let published: PublishedList = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let labels = |entries: &[Entry]| entries.iter().map(|e| e.1).collect::<Vec<_>>();
        let (shots, seed) = (shots.parse().unwrap(), seed.parse().unwrap());
        let (train, val) = (labels(&split.train), labels(&split.val));
        let list = draw(&train, &val, shots, seed, ValShots::MinShots4, ShortClass::TakeAll).unwrap();
        for (entries, drawn, expected) in
            [(&split.train, &list.train, &published.train), (&split.val, &list.val, &published.val)]
        {
            assert_eq!(drawn.len(), expected.len(), "{name}");
            for (&position, (path, label)) in drawn.iter().zip(expected) {
                assert!(
                    path.ends_with(&entries[position].0),
                    "{name}: {} is not {path}",
                    entries[position].0
                );
                assert_eq!(entries[position].1, *label, "{name}");
            }
        }
        compared += 1;
    }
    assert!(compared >= 18, "compared {compared} lists");
}
