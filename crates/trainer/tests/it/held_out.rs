//! Training cannot see a held-out split.

use pipeline_spec::spec::{FineTuneSpec, GeneratedUse, LinearProbeSpec, Method, ViewAugment};
use pipeline_spec::{ArtifactId, StageSpec};
use trainer::Error;
use trainer::images::TrainingImages;
use trainer::shot_list::ShotList;

use crate::fixture::{self, Fixture, VIT, fine_tune_spec};

/// A shot list that names test images as its training images.
fn leaking_list(fixture: &Fixture) -> ArtifactId {
    let mut unit = fixture::shots_unit(&fixture.images, 1);
    if let StageSpec::FewshotSplits(spec) = &mut unit.spec {
        spec.short_class = pipeline_spec::spec::ShortClass::Repeat;
    }
    fixture::write(&fixture.store, unit, &fixture::shot_rows("test"), &[])
}

#[test]
fn training_decodes_no_image_outside_its_list() {
    // Test images of the fixture cannot be decoded: any attempt would fail.
    let fixture = Fixture::new();
    let shots = ShotList::open(&fixture.reader(&fixture.shots), None).unwrap();
    let images = TrainingImages::open(&fixture.reader(&fixture.images), &shots).unwrap();
    let ids: Vec<&str> = images.train().iter().map(|image| image.sample_id.as_str()).collect();
    assert_eq!(ids, ["train-0-0", "train-0-1", "train-1-0", "train-1-1", "train-2-0", "train-2-1"]);
    assert_eq!(images.val().len(), 6);
    fixture.run(&fixture.fine_tune_unit(fine_tune_spec())).unwrap();
}

#[test]
fn a_list_that_names_a_test_image_is_refused() {
    let mut fixture = Fixture::new();
    fixture.shots = leaking_list(&fixture);
    let spec = FineTuneSpec { generated: GeneratedUse::None, ..fine_tune_spec() };
    let error = fixture.run(&fixture.fine_tune_unit(spec)).unwrap_err();
    assert!(matches!(&error, Error::HeldOutSplit { split, .. } if split == "test"), "{error}");
}

#[test]
fn features_with_a_held_out_split_are_refused_by_training() {
    let fixture = Fixture::new();
    // The list is sound, the features hold the test split beside it.
    let rows: Vec<artifacts::FeatureRow> = fixture::image_rows()
        .into_iter()
        .map(|row| artifacts::FeatureRow {
            sample_id: row.sample_id,
            split: row.split,
            label: row.label.unwrap(),
            view: 0,
            feature: vec![1.0; 12],
        })
        .collect();
    let unit = fixture.features_unit(&["train", "val", "test"], ViewAugment::Center);
    let features = fixture::write(&fixture.store, unit, &rows, &[12]);
    let probe =
        Method::LinearProbe(LinearProbeSpec { inverse_regularization: vec![1.0], max_iterations: 10 });
    let spec = StageSpec::Checkpoints(fixture.checkpoints_spec(VIT, probe));
    let unit = fixture::unit(spec, &[("fewshot-splits", &fixture.shots), ("features", &features)]);
    let error = fixture.run(&unit).unwrap_err();
    assert!(matches!(&error, Error::HeldOutSplit { split, .. } if split == "test"), "{error}");
}
