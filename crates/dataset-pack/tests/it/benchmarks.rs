//! The manifests of the published benchmarks, against the published split files where these are present.

use std::path::{Path, PathBuf};

use dataset_pack::split_file::SplitLists;
use pipeline_spec::data_manifest::{BenchmarkForm, DataManifest, Form, Listing};

/// Name, classes, and images of train, val and test.
const SETS: [(&str, usize, u64, u64, u64); 15] = [
    ("caltech101", 100, 4128, 1649, 2465),
    ("dtd", 47, 2820, 1128, 1692),
    ("eurosat", 10, 13500, 5400, 8100),
    ("fgvc_aircraft", 100, 3334, 3333, 3333),
    ("food101", 101, 50500, 20200, 30300),
    ("imagenet", 1000, 1_281_167, 0, 50000),
    ("imagenet_a", 200, 0, 0, 7500),
    ("imagenet_r", 200, 0, 0, 30000),
    ("imagenet_sketch", 1000, 0, 0, 50889),
    ("imagenetv2", 1000, 0, 0, 10000),
    ("oxford_flowers", 102, 4093, 1633, 2463),
    ("oxford_pets", 37, 2944, 736, 3669),
    ("stanford_cars", 196, 6509, 1635, 8041),
    ("sun397", 397, 15880, 3970, 19850),
    ("ucf101", 101, 7639, 1898, 3783),
];

fn read(name: &str) -> (DataManifest, BenchmarkForm) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../data-manifests/{name}.toml"));
    let (manifest, _) = DataManifest::read(&path).unwrap();
    let Form::Benchmark(form) = manifest.form.clone() else { panic!("{name} is no benchmark") };
    (manifest, form)
}

/// The reference data beside the repository; absent elsewhere.
pub fn shared_data() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if data.join("splits").is_dir() {
        return Some(data);
    }
    #[expect(clippy::print_stderr, reason = "says what was not compared")]
    {
        eprintln!("`shared/data` is absent beside the repository: published files were not compared");
    }
    None
}

#[test]
fn every_manifest_is_valid_and_has_the_published_counts() {
    for (name, num_classes, train, val, test) in SETS {
        let (manifest, form) = read(name);
        assert_eq!(manifest.dataset.as_str(), name);
        assert_eq!(manifest.class_names().unwrap().len(), num_classes, "{name}");
        let count = |split: &str| form.expected.get(split).copied().unwrap_or(0);
        assert_eq!((count("train"), count("val"), count("test")), (train, val, test), "{name}");
        assert_eq!(manifest.templates.len(), if name.starts_with("imagenet") { 7 } else { 1 }, "{name}");
        assert!(form.layouts.iter().any(|layout| layout.name == "coop"), "{name}");
        assert!(manifest.class_names().unwrap().iter().all(|n| !n.contains('_')), "{name}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests");
    let num_manifests = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(num_manifests, SETS.len() + 1, "a manifest without a test");
}

#[test]
fn dead_links_have_an_alternative() {
    let mut num_dead = 0;
    for (name, ..) in SETS {
        for download in read(name).1.downloads {
            if download.dead.is_some() {
                num_dead += 1;
                assert!(!download.alternatives.is_empty(), "{name}: {}", download.file);
            }
        }
    }
    assert_eq!(num_dead, 6);
}

#[test]
fn split_files_have_the_digest_names_and_counts_of_the_manifest() {
    let Some(data) = shared_data() else { return };
    let mut compared = 0;
    for (name, ..) in SETS {
        let (manifest, form) = read(name);
        let Listing::SplitFile(split) = &form.listing else { continue };
        let path = data.join("splits").join(&split.file);
        if !path.is_file() {
            continue;
        }
        let lists = SplitLists::read(&path).unwrap();
        assert_eq!(lists.entries_sha256(), split.entries_sha256, "{name}");
        let names: Vec<String> = lists.class_names().iter().map(|n| n.replace('_', " ")).collect();
        assert_eq!(names, manifest.class_names().unwrap(), "{name}");
        for (split, list) in lists.lists() {
            assert_eq!(list.len() as u64, form.expected[split], "{name}");
        }
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn imagenet_variants_name_the_classes_of_imagenet() {
    let folders = |name: &str| match read(name).1.listing {
        Listing::ClassFolders(tree) => tree.folders,
        _ => panic!("{name} has no class folders"),
    };
    let (all, names) = (folders("imagenet"), read("imagenet").1.class_names);
    assert!(all.is_sorted());
    for name in ["imagenet_a", "imagenet_r", "imagenet_sketch"] {
        let form = read(name).1;
        for (folder, class) in folders(name).iter().zip(&form.class_names) {
            let label = all.iter().position(|f| f == folder).unwrap();
            assert_eq!(*class, names[label], "{name}");
        }
    }
    assert_eq!(read("imagenetv2").1.class_names, names);
    assert_eq!(folders("imagenetv2")[999], "999");
}
