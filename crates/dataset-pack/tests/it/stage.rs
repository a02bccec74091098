//! The stage over a store: parts, shards, resume, shot lists, and units that must be refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use artifacts::{ArtifactReader, FewshotRow, ImageRow, Outcome, Shard};
use dataset_pack::{Error, Job, run};
use pipeline_spec::data_manifest::DataManifest;
use pipeline_spec::spec::{ClassHalf, FewshotSplitsSpec, ImagesSpec, ShortClass, ValShots};
use pipeline_spec::{ArtifactId, Digest, StageSpec, Store, Unit};

use crate::emoji_small::{accept_counts, small};

struct Fixture {
    root: tempfile::TempDir,
    store: Store,
    digest: Digest,
}

impl Fixture {
    /// Archives and a manifest with the right counts below a temporary folder.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut manifest = small(root.path(), str::to_owned);
        accept_counts(&mut manifest, root.path());
        let path = root.path().join("small.toml");
        std::fs::write(&path, toml::to_string(&manifest).unwrap()).unwrap();
        let (_, digest) = DataManifest::read(&path).unwrap();
        let store = Store::new(root.path().join("store"));
        Self { root, store, digest }
    }

    fn images(&self, num_parts: u32) -> Unit {
        let spec = ImagesSpec {
            dataset: "small".to_owned().try_into().unwrap(),
            manifest_digest: self.digest.clone(),
            splits: ["train", "val", "test", "shift"].map(str::to_owned).to_vec(),
            image_size: 24,
            stored: None,
            classes: None,
            num_parts,
        };
        Unit { spec: StageSpec::Images(spec), inputs: BTreeMap::new() }
    }

    fn shots(&self, images: &ArtifactId, shots: u32, seed: u64) -> Unit {
        let spec = FewshotSplitsSpec {
            dataset: "small".to_owned().try_into().unwrap(),
            shots,
            seed,
            val_shots: ValShots::MinShots4,
            short_class: ShortClass::TakeAll,
        };
        let inputs = BTreeMap::from([("images".to_owned(), images.clone())]);
        Unit { spec: StageSpec::FewshotSplits(spec), inputs }
    }

    fn job<'a>(&'a self, unit: &'a Unit, shard: Shard) -> Job<'a> {
        Job {
            unit,
            store: &self.store,
            shard,
            manifests: self.root.path(),
            data: self.root.path(),
            max_pixels: 1 << 24,
        }
    }

    fn run(&self, unit: &Unit, shard: Shard) -> Result<Outcome, Error> {
        run(&self.job(unit, shard), |_, _| ControlFlow::Continue(()))
    }
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "parquet") {
            found.insert(path.file_name().unwrap().into(), std::fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn shards_and_repeated_runs_give_equal_parts() {
    let (one, two) = (Fixture::new(), Fixture::new());
    let unit = one.images(3);
    let done = AtomicU64::new(0);
    let count = |_, _| {
        done.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let Outcome::Finished(record) = run(&one.job(&unit, Shard::default()), count).unwrap() else {
        panic!("not finished")
    };
    assert_eq!(record.rows, done.load(Ordering::Relaxed));
    assert!(matches!(two.run(&two.images(3), Shard::new(1, 2).unwrap()).unwrap(), Outcome::PartsMissing(_)));
    assert!(matches!(two.run(&two.images(3), Shard::new(0, 2).unwrap()).unwrap(), Outcome::Finished(_)));
    assert_eq!(files(one.store.root()), files(two.store.root()));
    assert_eq!(files(one.store.root()).len(), 3);

    let reader = ArtifactReader::open(&one.store, &record.id).unwrap();
    let rows: Vec<ImageRow> = reader.rows().unwrap();
    assert!(
        rows.iter()
            .all(|r| r.split != "base" && image::load_from_memory(&r.image.bytes).unwrap().width() == 24)
    );
    assert!(rows.is_sorted_by_key(|r| (r.label, r.sample_id.clone())));
    assert_eq!(reader.class_names().unwrap(), ["animal", "food"]);

    done.store(0, Ordering::Relaxed);
    let count = |_, _| {
        done.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    run(&one.job(&unit, Shard::default()), count).unwrap();
    assert_eq!(done.load(Ordering::Relaxed), 0, "a finished unit was computed again");
}

#[test]
fn halves_of_the_classes_share_no_image_and_count_labels_from_zero() {
    let fixture = Fixture::new();
    let pack = |classes: Option<ClassHalf>| {
        let mut unit = fixture.images(1);
        let StageSpec::Images(spec) = &mut unit.spec else { unreachable!() };
        spec.classes = classes;
        let Outcome::Finished(record) = fixture.run(&unit, Shard::default()).unwrap() else {
            panic!("not finished")
        };
        let reader = ArtifactReader::open(&fixture.store, &record.id).unwrap();
        (reader.class_names().unwrap().to_vec(), reader.rows::<ImageRow>().unwrap())
    };
    let (_, all) = pack(None);
    let (base_names, base) = pack(Some(ClassHalf::Base));
    let (new_names, new) = pack(Some(ClassHalf::New));
    assert_eq!((base_names, new_names), (vec!["animal".to_owned()], vec!["food".to_owned()]));
    assert!(base.iter().chain(&new).all(|row| row.label == Some(0)));
    let ids = |rows: &[ImageRow]| rows.iter().map(|r| r.sample_id.clone()).collect::<BTreeSet<_>>();
    let labelled: Vec<ImageRow> = all.into_iter().filter(|row| row.label.is_some()).collect();
    assert!(ids(&base).is_disjoint(&ids(&new)));
    assert_eq!(&ids(&base) | &ids(&new), ids(&labelled));
}

#[test]
fn stopped_work_commits_nothing_and_goes_on_later() {
    let fixture = Fixture::new();
    let unit = fixture.images(1);
    let error = run(&fixture.job(&unit, Shard::default()), |_, _| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert!(files(fixture.store.root()).is_empty());
    assert!(matches!(fixture.run(&unit, Shard::default()).unwrap(), Outcome::Finished(_)));
}

#[test]
fn shot_lists_name_images_of_the_pool() {
    let fixture = Fixture::new();
    let Outcome::Finished(images) = fixture.run(&fixture.images(1), Shard::default()).unwrap() else {
        panic!("not finished")
    };
    let pool: Vec<ImageRow> = ArtifactReader::open(&fixture.store, &images.id).unwrap().rows().unwrap();
    let unit = fixture.shots(&images.id, 1, 2);
    let Outcome::Finished(record) = fixture.run(&unit, Shard::default()).unwrap() else {
        panic!("not finished")
    };
    let rows: Vec<FewshotRow> = ArtifactReader::open(&fixture.store, &record.id).unwrap().rows().unwrap();
    assert_eq!(
        rows.iter().map(|r| (r.split.as_str(), r.order)).collect::<Vec<_>>(),
        [("train", 0), ("train", 1), ("val", 0), ("val", 1)]
    );
    for row in rows {
        let image = pool.iter().find(|i| i.sample_id == row.sample_id).unwrap();
        assert_eq!((image.split.as_str(), image.label), (row.split.as_str(), Some(row.label)));
        assert_eq!((row.shots, row.seed), (1, 2));
    }
}

#[test]
fn another_manifest_unknown_splits_and_too_many_parts_are_refused() {
    let fixture = Fixture::new();
    let path = fixture.root.path().join("small.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "\n").unwrap();
    let error = fixture.run(&fixture.images(1), Shard::default()).unwrap_err();
    assert!(matches!(error, Error::ManifestDigest { .. }), "{error}");
    assert!(
        error.to_string().contains("small.toml") && error.to_string().contains("make the plan again"),
        "{error}"
    );

    let fixture = Fixture::new();
    let mut unit = fixture.images(1);
    let StageSpec::Images(spec) = &mut unit.spec else { panic!("not images") };
    spec.splits = vec!["tset".to_owned()];
    let error = fixture.run(&unit, Shard::default()).unwrap_err();
    assert!(error.to_string().contains("has no split `tset`; it has base"), "{error}");
    let error = fixture.run(&fixture.images(1000), Shard::default()).unwrap_err();
    assert!(error.to_string().contains("num_parts"), "{error}");
}

#[test]
fn shots_over_images_that_do_not_exist_are_refused() {
    let fixture = Fixture::new();
    let id = fixture.images(1).output();
    let error = fixture.run(&fixture.shots(&id, 1, 1), Shard::default()).unwrap_err();
    assert!(error.to_string().contains("is not in the store"), "{error}");
}
