//! Benchmarks: one listing, the same packed bytes from every layout; what is looked for, and what is refused.

use std::ops::ControlFlow;
use std::path::Path;

use artifacts::{ArtifactReader, FewshotRow, Outcome, Shard};
use dataset_pack::pack::{Encoding, encode_all};
use dataset_pack::source::benchmark::find;
use dataset_pack::{Dataset, Error, Job, load, photo, run};
use pipeline_spec::data_manifest::{BenchmarkForm, ClassFolders, DataManifest, Form, Listing, TextFiles};
use pipeline_spec::spec::{FewshotSplitsSpec, ImagesSpec, ShortClass, ValShots};
use pipeline_spec::{StageSpec, Store, Unit};

use crate::benchmark_small::{IMAGES, image_bytes, lay_out, manifest, split_json};

fn pack(dataset: &Dataset) -> Vec<Vec<u8>> {
    let items: Vec<_> = dataset.items.iter().collect();
    let encoding = Encoding { image_size: 64, stored: None, max_pixels: photo::MAX_PIXELS };
    encode_all(dataset, &items, encoding, || ControlFlow::Continue(())).unwrap()
}

fn form(manifest: &mut DataManifest) -> &mut BenchmarkForm {
    match &mut manifest.form {
        Form::Benchmark(form) => form,
        _ => panic!("not a benchmark"),
    }
}

#[test]
fn every_layout_gives_the_same_items_and_bytes_in_the_order_of_the_list() {
    for layout in ["coop", "torchvision", "tgz", "tar", "zip", "huggingface"] {
        let root = tempfile::tempdir().unwrap();
        lay_out(root.path(), layout);
        let mut manifest = manifest();
        let found = find(&manifest.clone(), form(&mut manifest), root.path()).unwrap();
        assert_eq!(found.layout, layout);
        let dataset = load(&manifest, root.path()).unwrap();
        assert_eq!(dataset.class_names, ["apple", "hot dog"]);
        let listed: Vec<_> = dataset
            .items
            .iter()
            .map(|i| (i.sample_id.as_str(), i.label.unwrap(), i.split.as_str()))
            .collect();
        assert_eq!(listed, IMAGES, "{layout}");
        let expected: Vec<_> = IMAGES.iter().map(|(path, ..)| image_bytes(path)).collect();
        assert_eq!(pack(&dataset), expected, "{layout}");
    }
}

#[test]
fn the_folder_of_the_data_set_itself_may_be_named() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), "coop");
    let base = root.path().join("small-set");
    std::fs::rename(root.path().join("split_small.json"), base.join("split_small.json")).unwrap();
    assert_eq!(load(&manifest(), &base).unwrap().items.len(), 6);
    assert_eq!(load(&manifest(), root.path()).unwrap().items.len(), 6);
}

#[test]
fn an_empty_root_is_told_what_was_looked_for() {
    let root = tempfile::tempdir().unwrap();
    let message = load(&manifest(), root.path()).unwrap_err().to_string();
    for part in
        ["coop (`small-set/images/`)", "tgz (`small-set/images.tar.gz`)", "`small-set/data/*.parquet`"]
    {
        assert!(message.contains(part), "{message}");
    }
    lay_out(root.path(), "coop");
    std::fs::remove_file(root.path().join("split_small.json")).unwrap();
    let message = load(&manifest(), root.path()).unwrap_err().to_string();
    assert!(message.contains("it is not there; looked for"), "{message}");
}

#[test]
fn missing_images_and_another_list_are_refused() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), "coop");
    let image = root.path().join("small-set/images/apple_1.png");
    let bytes = std::fs::read(&image).unwrap();
    std::fs::remove_file(&image).unwrap();
    let message = load(&manifest(), root.path()).unwrap_err().to_string();
    assert!(message.contains("1 of 6 listed images are missing, first `apple_1.png`"), "{message}");
    std::fs::write(&image, bytes).unwrap();
    // Another formatting is the same list, another order is not.
    let path = root.path().join("split_small.json");
    std::fs::write(&path, split_json().replace(", ", ",\n    ")).unwrap();
    assert!(load(&manifest(), root.path()).is_ok());
    let swapped = split_json().replace(
        "[[\"hot_dog_1.png\", 1, \"hot_dog\"], [\"apple_0.png\", 0, \"apple\"]]",
        "[[\"apple_0.png\", 0, \"apple\"], [\"hot_dog_1.png\", 1, \"hot_dog\"]]",
    );
    assert_ne!(swapped, split_json());
    std::fs::write(&path, swapped).unwrap();
    let error = load(&manifest(), root.path()).unwrap_err();
    assert!(
        matches!(error, Error::SplitFile { .. }) && error.to_string().contains("download it again"),
        "{error}"
    );
}

fn refuse_list(json: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("split.json");
    std::fs::write(&path, json).unwrap();
    let error = dataset_pack::split_file::SplitLists::read(&path).unwrap_err();
    assert!(error.to_string().contains("split.json"), "{error}");
    error.to_string()
}

#[test]
fn split_files_that_lead_astray_are_refused_by_entry() {
    let good = split_json();
    for path in ["../apple_0.png", "/etc/passwd", "a/../../b.png", "a\\\\b.png", "", "a/\\u0000.png"] {
        let message = refuse_list(&good.replace("apple_0.png", path));
        assert!(message.contains("train[1]") && message.contains("without `..`"), "{message}");
    }
    assert!(refuse_list(&good.replace("apple_2.jpg", "apple_0.png")).contains("is in `train` already"));
    assert!(refuse_list(&good.replace("apple_0.png", "hot_dog_1.png")).contains("is in `train` already"));
    assert!(refuse_list(&good.replace("0.png\", 0,", "0.png\", 7,")).contains("out of range"));
    assert!(refuse_list(&good.replace("0.png\", 0,", "0.png\", -1,")).contains("-1"));
    assert!(refuse_list(&good.replacen("\"apple\"", "\"pear\"", 1)).contains("label 0 is `pear` elsewhere"));
    assert!(
        refuse_list(&good.replace("[\"apple_0.png\", 0, \"apple\"]", "[\"x.png\", 1, \"hot_dog\"]"))
            .contains("class 0 `apple` has no training image")
    );
    assert!(refuse_list("{\"train\": [], \"val\": [], \"test\": []}").contains("is empty"));
    assert!(refuse_list(&good.replace("\"val\"", "\"valid\"")).contains("valid"));
    assert!(refuse_list(&good[..good.len() / 2]).contains("expected lists of [path, label, class name]"));
}

#[test]
fn class_folders_and_text_files_list_images_too() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str| {
        let path = root.path().join("small-set").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, image_bytes("apple_0.png")).unwrap();
    };
    for path in [
        "images/train/n2/b.png",
        "images/train/n1/z.png",
        "images/train/n1/a.png",
        "images/val/n1/c.png",
        "images/val/n2/d.png",
    ] {
        put(path);
    }
    let mut manifest = manifest();
    let form_mut = form(&mut manifest);
    form_mut.listing = Listing::ClassFolders(ClassFolders {
        splits: [("train", "train/"), ("test", "val/")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        folders: vec!["n1".to_owned(), "n2".to_owned()],
    });
    form_mut.expected = [("train", 3), ("test", 2)].map(|(s, n)| (s.to_owned(), n)).into();
    let dataset = load(&manifest, root.path()).unwrap();
    let listed: Vec<_> = dataset.items.iter().map(|i| (i.sample_id.as_str(), i.label.unwrap())).collect();
    assert_eq!(
        listed,
        [
            ("val/n1/c.png", 0),
            ("val/n2/d.png", 1),
            ("train/n1/a.png", 0),
            ("train/n1/z.png", 0),
            ("train/n2/b.png", 1)
        ]
    );
    put("images/train/n3/x.png");
    let message = load(&manifest, root.path()).unwrap_err().to_string();
    assert!(message.contains("`n3` is no class"), "{message}");
    text_files(root.path());
}

fn text_files(root: &Path) {
    let base = root.join("small-set");
    let mut manifest = manifest();
    let form_mut = form(&mut manifest);
    form_mut.listing = Listing::TextFiles(TextFiles {
        files: [("train", "train.txt"), ("test", "test.txt")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into(),
        extension: ".png".to_owned(),
    });
    form_mut.expected = [("train", 2), ("test", 1)].map(|(s, n)| (s.to_owned(), n)).into();
    std::fs::write(base.join("train.txt"), "train/n2/b hot dog\ntrain/n1/z apple\n").unwrap();
    std::fs::write(base.join("test.txt"), "val/n1/c apple\n").unwrap();
    let dataset = load(&manifest, root).unwrap();
    let listed: Vec<_> = dataset.items.iter().map(|i| (i.sample_id.as_str(), i.label.unwrap())).collect();
    assert_eq!(listed, [("train/n2/b.png", 1), ("train/n1/z.png", 0), ("val/n1/c.png", 0)]);
    std::fs::write(base.join("test.txt"), "val/n1/c apple\nval/n2/d plum\n").unwrap();
    let message = load(&manifest, root).unwrap_err().to_string();
    assert!(message.contains("line 2: `plum` is no class"), "{message}");
    std::fs::write(base.join("test.txt"), "train/n1/z apple\n").unwrap();
    assert!(load(&manifest, root).unwrap_err().to_string().contains("is in `train` already"));
}

#[test]
fn the_stage_draws_shots_in_the_order_of_the_split_file() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), "zip");
    let path = root.path().join("small.toml");
    std::fs::write(&path, toml::to_string(&manifest()).unwrap()).unwrap();
    let (_, manifest_digest) = DataManifest::read(&path).unwrap();
    let store = Store::new(root.path().join("store"));
    let dataset = manifest().dataset;
    let packed = |unit: &Unit| {
        let (shard, max_pixels) = (Shard::default(), photo::MAX_PIXELS);
        let (manifests, data) = (root.path(), root.path());
        let job = Job { unit, store: &store, shard, manifests, data, max_pixels };
        match run(&job, |_, _| ControlFlow::Continue(())).unwrap() {
            Outcome::Finished(record) => record.id,
            Outcome::PartsMissing(parts) => panic!("{parts:?} are missing"),
        }
    };
    let spec = ImagesSpec {
        dataset: dataset.clone(),
        manifest_digest,
        splits: ["train", "val", "test"].map(str::to_owned).to_vec(),
        image_size: 64,
        stored: None,
        classes: None,
        num_parts: 2,
    };
    let images = packed(&Unit { spec: StageSpec::Images(spec), inputs: [].into() });
    let (val_shots, short_class) = (ValShots::MinShots4, ShortClass::TakeAll);
    let spec = FewshotSplitsSpec { dataset, shots: 1, seed: 1, val_shots, short_class };
    let inputs = [("images".to_owned(), images)].into();
    let list = packed(&Unit { spec: StageSpec::FewshotSplits(spec), inputs });
    let rows: Vec<FewshotRow> = ArtifactReader::open(&store, &list).unwrap().rows().unwrap();
    let drawn: Vec<&str> = rows.iter().map(|row| row.sample_id.as_str()).collect();
    assert_eq!(drawn, ["hot_dog_1.png", "apple_0.png", "hot_dog_0.png", "apple_1.png"]);
}
