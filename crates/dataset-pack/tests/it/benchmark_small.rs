//! A benchmark of six small images in every layout, for the tests of sources and of the doctor.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use dataset_pack::split_file::SplitLists;
use flate2::Compression;
use flate2::write::GzEncoder;
use pipeline_spec::data_manifest::{BenchmarkForm, DataManifest, Download, Form, Layout, Listing, SplitFile};

/// Listed path, label and split of each image.
pub const IMAGES: [(&str, u32, &str); 6] = [
    ("hot_dog_1.png", 1, "train"),
    ("apple_0.png", 0, "train"),
    ("hot_dog_0.png", 1, "val"),
    ("apple_1.png", 0, "val"),
    ("apple_2.jpg", 0, "test"),
    ("hot_dog_2.jpg", 1, "test"),
];

/// The file of `golden/hf_images.py`.
pub fn parquet_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hf_images.parquet")
}

/// The bytes of the image at a listed path, as they stand in `golden/hf_images.parquet`.
pub fn image_bytes(listed: &str) -> Vec<u8> {
    let cells = artifacts::image_table::cells(&parquet_path(), "image", None).unwrap();
    let row = cells.iter().position(|cell| cell.path.as_deref() == Some(listed)).unwrap();
    artifacts::image_table::images(&parquet_path(), "image", &[row], 1 << 20).unwrap().remove(0)
}

/// The split file as JSON.
pub fn split_json() -> String {
    let list = |split: &str| {
        let entries = IMAGES.iter().filter(|i| i.2 == split);
        let entries =
            entries.map(|(path, label, _)| format!("[\"{path}\", {label}, \"{}\"]", NAMES[*label as usize]));
        format!("\"{split}\": [{}]", entries.collect::<Vec<_>>().join(", "))
    };
    format!("{{{}, {}, {}}}", list("train"), list("val"), list("test"))
}

const NAMES: [&str; 2] = ["apple", "hot_dog"];

fn layout(name: &str, folder: &str, start: &str) -> Layout {
    Layout {
        name: name.to_owned(),
        folder: folder.to_owned(),
        archives: vec![],
        parquet: None,
        paths: [(String::new(), start.to_owned())].into(),
        lists: None,
    }
}

/// The manifest.
pub fn manifest() -> DataManifest {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split_small.json");
    std::fs::write(&path, split_json()).unwrap();
    let entries_sha256 = SplitLists::read(&path).unwrap().entries_sha256();
    let archive = |name: &str, file: &str| Layout {
        archives: vec![file.to_owned()],
        ..layout(name, "small-set", "images/")
    };
    DataManifest {
        dataset: "small".to_owned().try_into().unwrap(),
        description: "Six images.".to_owned(),
        templates: vec!["a photo of a {}.".to_owned()],
        sources: vec![],
        form: Form::Benchmark(BenchmarkForm {
            license: "none".to_owned(),
            homepage: "none".to_owned(),
            downloads: vec![Download {
                file: "images.tar.gz".to_owned(),
                url: "http://old.example/images.tar.gz".to_owned(),
                md5: Some("00000000000000000000000000000000".to_owned()),
                dead: Some("404 since ever".to_owned()),
                alternatives: vec!["http://new.example".to_owned()],
            }],
            listing: Listing::SplitFile(SplitFile { file: "split_small.json".to_owned(), entries_sha256 }),
            layouts: vec![
                layout("coop", "small-set", "images/"),
                layout("torchvision", "small-tv", "small/pics/"),
                archive("tgz", "images.tar.gz"),
                archive("tar", "images.tar"),
                archive("zip", "images.zip"),
                Layout { parquet: Some("data".to_owned()), ..layout("huggingface", "small-set", "") },
            ],
            expected: [("train", 2), ("val", 2), ("test", 2)].map(|(s, n)| (s.to_owned(), n)).into(),
            class_names: vec!["apple".to_owned(), "hot dog".to_owned()],
        }),
    }
}

/// Puts the images and the split file below `root` in the layout called `name`.
pub fn lay_out(root: &Path, name: &str) {
    let files: Vec<(String, Vec<u8>)> =
        IMAGES.iter().map(|(path, ..)| (format!("images/{path}"), image_bytes(path))).collect();
    let base = root.join("small-set");
    std::fs::create_dir_all(&base).unwrap();
    std::fs::write(root.join("split_small.json"), split_json()).unwrap();
    match name {
        "coop" | "torchvision" => {
            let folder = if name == "coop" { base.join("images") } else { root.join("small-tv/small/pics") };
            std::fs::create_dir_all(&folder).unwrap();
            for (path, bytes) in files {
                std::fs::write(folder.join(path.trim_start_matches("images/")), bytes).unwrap();
            }
        }
        "tgz" => std::fs::write(base.join("images.tar.gz"), gzip(&tar(&files))).unwrap(),
        "tar" => std::fs::write(base.join("images.tar"), tar(&files)).unwrap(),
        "zip" => std::fs::write(base.join("images.zip"), zip(&files)).unwrap(),
        "huggingface" => {
            std::fs::create_dir_all(base.join("data")).unwrap();
            std::fs::copy(parquet_path(), base.join("data/train-00000-of-00001.parquet")).unwrap();
        }
        other => panic!("no layout `{other}`"),
    }
}

/// A tar file.
pub fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

/// A zip file.
pub fn zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name.as_str(), zip::write::FileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}
