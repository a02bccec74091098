//! One's own images: CSV, Parquet, and the manifests that `init` writes.

use std::path::Path;

use dataset_pack::{init, load};
use pipeline_spec::data_manifest::{CsvForm, CsvSplit, DataManifest, Form, TableClass};

use crate::bad_images::png;
use crate::benchmark_small::parquet_path;

fn put(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Writes the manifest that `init` gives for `<root>/mine`, and loads the data with it.
fn init_and_load(root: &Path) -> (DataManifest, dataset_pack::Dataset) {
    let (manifest, _) = init::describe(&root.join("mine")).unwrap();
    let path = root.join("mine.toml");
    std::fs::write(&path, init::to_toml(&manifest).unwrap()).unwrap();
    let (read, _) = DataManifest::read(&path).unwrap();
    assert_eq!(read, manifest);
    let dataset = load(&read, root).unwrap();
    (read, dataset)
}

#[test]
fn init_describes_folders_with_and_without_splits() {
    let root = tempfile::tempdir().unwrap();
    for i in 0..10 {
        put(root.path(), &format!("mine/{}/{i}.png", ["hot_dog", "apple"][i % 2]), &png(4 + i as u32, 4));
    }
    let (manifest, dataset) = init_and_load(root.path());
    assert_eq!(manifest.class_names().unwrap(), ["apple", "hot dog"]);
    assert_eq!(manifest.expected().unwrap().values().sum::<u64>(), 10);
    assert_eq!(dataset.items.len(), 10);

    let root = tempfile::tempdir().unwrap();
    for (i, name) in ["train/a/1", "train/b/2", "valid/a/3", "test/b/4"].iter().enumerate() {
        put(root.path(), &format!("mine/{name}.png"), &png(4 + i as u32, 4));
    }
    let (_, dataset) = init_and_load(root.path());
    assert_eq!((dataset.count("train"), dataset.count("val"), dataset.count("test")), (2, 1, 1));
}

#[test]
fn init_describes_csv_and_parquet() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "mine/pics/x.png", &png(4, 4));
    put(root.path(), "mine/pics/y, z.png", &png(5, 4));
    put(
        root.path(),
        "mine/labels.csv",
        b"filename,label,split\npics/x.png,cat_fish,train\n\"pics/y, z.png\",dog,test\n",
    );
    let (manifest, dataset) = init_and_load(root.path());
    assert_eq!(manifest.class_names().unwrap(), ["cat fish", "dog"]);
    let listed: Vec<_> = dataset.items.iter().map(|i| (i.sample_id.as_str(), i.split.as_str())).collect();
    assert_eq!(listed, [("pics/x.png", "train"), ("pics/y, z.png", "test")]);

    let root = tempfile::tempdir().unwrap();
    put(root.path(), "mine/data/train-00000-of-00001.parquet", &std::fs::read(parquet_path()).unwrap());
    let (manifest, dataset) = init_and_load(root.path());
    assert_eq!(manifest.class_names().unwrap(), ["apple", "hot dog"]);
    assert_eq!(dataset.items.len(), 6);
    assert!(
        dataset
            .items
            .iter()
            .all(|i| i.sample_id.starts_with(["apple", "hot_dog"][i.label.unwrap() as usize]))
    );

    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("mine")).unwrap();
    let message = init::describe(&root.path().join("mine")).unwrap_err().to_string();
    assert!(message.contains("expected a folder for each class"), "{message}");
}

fn csv_refusal(rows: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "mine/a.png", &png(4, 4));
    put(root.path(), "mine/b.png", &png(5, 4));
    put(root.path(), "mine/list.csv", rows.as_bytes());
    let class = |value: &str| TableClass { value: value.to_owned(), name: value.to_owned() };
    let manifest = DataManifest {
        dataset: "mine".to_owned().try_into().unwrap(),
        description: "Mine.".to_owned(),
        templates: vec!["a photo of a {}".to_owned()],
        sources: vec![],
        form: Form::Csv(CsvForm {
            file: "list.csv".to_owned(),
            root: ".".to_owned(),
            path_column: "path".to_owned(),
            class_column: "class".to_owned(),
            classes: Some(vec![class("cat"), class("dog")]),
            split: CsvSplit::Column("split".to_owned()),
            expected: None,
        }),
    };
    load(&manifest, root.path()).unwrap_err().to_string()
}

#[test]
fn bad_rows_are_named_by_line() {
    for (rows, expected) in [
        ("../a.png,cat,train", "line 2: `../a.png`: expected a relative path"),
        ("/etc/passwd,cat,train", "line 2: `/etc/passwd`: expected a relative path"),
        ("a.png,cat,train\na.png,dog,test", "line 3: image `a.png` stands twice"),
        ("c.png,cat,train", "line 2: image `c.png` is not below"),
        ("a.png,cow,train", "line 2: `cow` is no class"),
        ("a.png,cat,", "line 2: the split is empty"),
        ("a.png,cat", "line 2: expected 3 fields, found 2"),
        ("a.png,cat,train", "no image of class `dog`"),
    ] {
        let message = csv_refusal(&format!("path,class,split\n{rows}\n"));
        assert!(message.contains(expected), "{expected} in {message}");
    }
    let message = csv_refusal("path,label,split\n");
    assert!(message.contains("line 1: expected a column `class`, found path, label, split"), "{message}");
    assert!(csv_refusal("").contains("expected a header"));
}
