//! Folder-per-class trees: what is read, and what is refused by name.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use dataset_pack::pack::{Encoding, encode_all, select};
use dataset_pack::{Dataset, Error, Item, load, photo};
use pipeline_spec::data_manifest::{DataManifest, FolderForm, FolderSplit, Form};

fn manifest(split: FolderSplit) -> DataManifest {
    DataManifest {
        dataset: "things".to_owned().try_into().unwrap(),
        description: "Things.".to_owned(),
        templates: vec!["a photo of a {}".to_owned()],
        sources: vec![],
        form: Form::Folder(FolderForm { root: ".".to_owned(), classes: None, split, expected: None }),
    }
}

fn encode(dataset: &Dataset, items: &[&Item]) -> Result<Vec<Vec<u8>>, Error> {
    let encoding = Encoding { image_size: 64, stored: None, max_pixels: photo::MAX_PIXELS };
    encode_all(dataset, items, encoding, || ControlFlow::Continue(()))
}

fn percent(shares: &[(&str, u32)]) -> FolderSplit {
    FolderSplit::Percent(shares.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect())
}

fn put(root: &Path, name: &str) {
    let path = root.join("things").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(3, 2, image::Rgb([name.len() as u8, 2, 3])).save(&path).unwrap();
}

fn tree(names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in names {
        put(root.path(), name);
    }
    root
}

#[test]
fn classes_are_folder_names_and_bytes_are_kept() {
    let root = tree(&["hot_dog/b.png", "hot_dog/deep/er/a.jpg", "apple/c.PNG"]);
    std::fs::write(root.path().join("things/hot_dog/notes.txt"), "x").unwrap();
    std::fs::write(root.path().join("things/apple/.hidden.png"), "x").unwrap();
    let dataset = load(&manifest(percent(&[("train", 100)])), root.path()).unwrap();
    assert_eq!(dataset.class_names, ["apple", "hot dog"]);
    let ids: Vec<_> = dataset.items.iter().map(|i| (i.sample_id.as_str(), i.label.unwrap())).collect();
    assert_eq!(ids, [("apple/c.PNG", 0), ("hot_dog/b.png", 1), ("hot_dog/deep/er/a.jpg", 1)]);
    let items = select(&dataset, "things", &["train".to_owned()]).unwrap();
    let bytes = encode(&dataset, &items).unwrap();
    assert_eq!(bytes[1], std::fs::read(root.path().join("things/hot_dog/b.png")).unwrap());
    let unknown = select(&dataset, "things", &["test".to_owned()]).unwrap_err();
    assert!(unknown.to_string().contains("has no split `test`; it has train"), "{unknown}");
}

#[test]
fn split_folders_and_shares_deal_every_image_once() {
    let root = tree(&["training/a/1.png", "training/b/2.png", "testing/a/3.png"]);
    let folders = BTreeMap::from([
        ("train".to_owned(), "training".to_owned()),
        ("test".to_owned(), "testing".to_owned()),
    ]);
    let dataset = load(&manifest(FolderSplit::Folders(folders)), root.path()).unwrap();
    assert_eq!((dataset.count("train"), dataset.count("test")), (2, 1));

    let names: Vec<String> = (0..40).map(|i| format!("{}/{i}.png", ["a", "b"][i % 2])).collect();
    let root = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let manifest = manifest(percent(&[("train", 50), ("val", 20), ("test", 30)]));
    let dataset = load(&manifest, root.path()).unwrap();
    assert_eq!((dataset.count("train"), dataset.count("val"), dataset.count("test")), (20, 8, 12));
    assert_eq!(dataset, load(&manifest, root.path()).unwrap());
}

#[test]
fn bad_images_are_named_with_a_remedy() {
    let root = tree(&["a/1.png"]);
    let path = root.path().join("things/a/1.png");
    let whole = std::fs::read(&path).unwrap();
    for bytes in [&whole[..whole.len() - 20], b"GIF89a\x01\x00\x01\x00", b"", b"text"] {
        std::fs::write(&path, bytes).unwrap();
        let dataset = load(&manifest(percent(&[("train", 100)])), root.path()).unwrap();
        let items: Vec<_> = dataset.items.iter().collect();
        let error = encode(&dataset, &items).unwrap_err();
        assert!(matches!(error, Error::Image { .. }), "{error}");
        assert!(
            error.to_string().contains("1.png") && error.to_string().contains("replace or remove"),
            "{error}"
        );
    }
    std::fs::rename(&path, root.path().join("things/a/1.webp")).unwrap();
    let error = load(&manifest(percent(&[("train", 100)])), root.path()).unwrap_err();
    assert!(error.to_string().contains("expected PNG or JPEG"), "{error}");
}

#[test]
fn empty_and_misplaced_things_are_named() {
    let refuse = |root: &Path| load(&manifest(percent(&[("train", 100)])), root).unwrap_err().to_string();
    let root = tree(&["a/1.png"]);
    std::fs::create_dir(root.path().join("things/b")).unwrap();
    assert!(refuse(root.path()).contains("no PNG or JPEG image of class `b`"));
    let root = tree(&["1.png"]);
    assert!(refuse(root.path()).contains("outside a class folder"));
    let root = tempfile::tempdir().unwrap();
    assert!(refuse(root.path()).contains("things"));
}

#[cfg(unix)]
#[test]
fn links_out_of_the_root_and_names_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let refuse = |root: &Path| load(&manifest(percent(&[("train", 100)])), root).unwrap_err().to_string();
    let outside = tree(&["secret.png"]);
    let root = tree(&["a/1.png"]);
    let a = root.path().join("things/a");
    std::os::unix::fs::symlink("1.png", a.join("2.png")).unwrap();
    assert_eq!(load(&manifest(percent(&[("train", 100)])), root.path()).unwrap().items.len(), 2);
    std::os::unix::fs::symlink(outside.path().join("things/secret.png"), a.join("3.png")).unwrap();
    assert!(refuse(root.path()).contains("outside the data set"));
    std::fs::remove_file(a.join("3.png")).unwrap();
    std::os::unix::fs::symlink("..", a.join("up")).unwrap();
    assert!(refuse(root.path()).contains("deep"));
    std::fs::remove_file(a.join("up")).unwrap();
    std::fs::write(a.join(std::ffi::OsStr::from_bytes(b"\xff.png")), "x").unwrap();
    assert!(refuse(root.path()).contains("not UTF-8"));
}
