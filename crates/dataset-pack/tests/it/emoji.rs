//! The emoji benchmark end to end over its archives, where they have been fetched.
//!
//! `FLIER_DATA` names the data folder; without it `data` of the repository is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use dataset_pack::pack::{check_leaks, encode_all};
use dataset_pack::{Dataset, Error, load};
use pipeline_spec::data_manifest::DataManifest;

use crate::emoji_small::drawings;
use crate::manifest::emoji_path;

/// The data folder, if the archives lie there; says so otherwise.
fn data_dir(manifest: &DataManifest) -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    let folder = std::env::var_os("FLIER_DATA").map_or_else(default, PathBuf::from);
    let complete = manifest.sources.iter().all(|s| manifest.source_path(&folder, s).is_file());
    if !complete {
        #[allow(clippy::print_stderr)]
        {
            eprintln!(
                "no emoji archives in `{}`: run `cargo xtask fetch emoji`; not tested here",
                folder.display()
            );
        }
    }
    complete.then_some(folder)
}

fn hexcode(sample_id: &str) -> &str {
    let end = sample_id.find(|c: char| c.is_ascii_lowercase()).unwrap();
    sample_id[..end].trim_end_matches('-')
}

fn check_splits(dataset: &Dataset) {
    let mut splits_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut count: BTreeMap<(&str, u32), u32> = BTreeMap::new();
    for item in &dataset.items {
        splits_of.entry(hexcode(&item.sample_id)).or_default().insert(&item.split);
        assert_eq!(item.split == "shift", item.origin == "fxemoji", "{}", item.sample_id);
        match item.label {
            Some(label) => *count.entry((&item.split, label)).or_default() += 1,
            None => assert_eq!(item.split, "base", "{}", item.sample_id),
        }
    }
    for (hexcode, splits) in splits_of {
        let held_out = splits.iter().all(|s| ["test", "shift"].contains(s));
        assert!(splits.len() == 1 || held_out, "{hexcode} stands in {splits:?}");
    }
    for label in 0..dataset.class_names.len() as u32 {
        let n = |split| count.get(&(split, label)).copied().unwrap_or(0);
        assert!(n("train") >= 16 && n("val") >= 4 && n("base") >= 12 && n("test") >= 8, "{label}: {count:?}");
    }
}

#[test]
fn emoji_are_split_without_leaks_and_rendered_alike_twice() {
    let (manifest, _) = DataManifest::read(&emoji_path()).unwrap();
    let Some(data_dir) = data_dir(&manifest) else { return };
    let dataset = load(&manifest, &data_dir).unwrap();
    assert_eq!(dataset, load(&manifest, &data_dir).unwrap());
    check_splits(&dataset);
    let items: Vec<_> = dataset.items.iter().collect();
    let first = encode_all(&dataset, &items, drawings(64), || ControlFlow::Continue(())).unwrap();
    check_leaks(items.iter().copied().zip(first.iter().map(Vec::as_slice))).unwrap();
    let sample: Vec<_> = items.iter().copied().step_by(7).collect();
    let again = encode_all(&dataset, &sample, drawings(64), || ControlFlow::Continue(())).unwrap();
    assert!(again.iter().zip(first.iter().step_by(7)).all(|(a, b)| a == b));
}

#[test]
fn damaged_missing_and_miscounted_sources_are_refused() {
    let (mut manifest, _) = DataManifest::read(&emoji_path()).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let error = load(&manifest, empty.path()).unwrap_err();
    assert!(matches!(error, Error::MissingSource { .. }), "{error}");
    assert!(error.to_string().contains("cargo xtask fetch emoji"), "{error}");
    let vocabulary = manifest.source("emojibase").unwrap().clone();
    let path = manifest.source_path(empty.path(), &vocabulary);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "something else").unwrap();
    let error = load(&manifest, empty.path()).unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    assert!(error.to_string().contains(vocabulary.sha256.as_str()), "{error}");

    let Some(data_dir) = data_dir(&manifest) else { return };
    let pipeline_spec::data_manifest::Form::Emoji(form) = &mut manifest.form else { panic!("not emoji") };
    form.expected.insert("val".to_owned(), 1);
    let error = load(&manifest, &data_dir).unwrap_err();
    assert!(matches!(error, Error::Count { expected: 1, .. }), "{error}");
}
