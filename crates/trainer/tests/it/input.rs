//! Bad input is an error that names what is wrong.

use pipeline_spec::spec::{
    ClassTexts, FineTuneSpec, GeneratedUse, LinearProbeSpec, Method, Select, ViewAugment,
};
use pipeline_spec::{Digest, StageSpec};
use trainer::Error;

use crate::fixture::{self, Fixture, VIT, fine_tune_spec};

#[test]
fn too_few_generated_samples_name_class_and_counts() {
    let fixture = Fixture::new();
    let generated = GeneratedUse::Images { per_class: Some(5) };
    let error =
        fixture.run(&fixture.fine_tune_unit(FineTuneSpec { generated, ..fine_tune_spec() })).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::TooFewGenerated { expected: 5, found: 4, .. }), "{message}");
    assert!(message.contains("`cat`") && message.contains("4 generated samples"), "{message}");
}

#[test]
fn a_changed_checkpoint_names_both_digests() {
    let fixture = Fixture::new();
    let mut unit = fixture.fine_tune_unit(fine_tune_spec());
    let StageSpec::Checkpoints(spec) = &mut unit.spec else { panic!() };
    let expected = Digest::blake3(b"another");
    spec.backbone.digest = expected.clone();
    let message = fixture.run(&unit).unwrap_err().to_string();
    let found = fixture.checkpoint(VIT).digest;
    assert!(message.contains(expected.as_str()) && message.contains(found.as_str()), "{message}");
}

#[test]
fn divergence_tells_step_and_learning_rate() {
    let fixture = Fixture::new();
    let mut spec = fine_tune_spec();
    spec.optimizer.learning_rate = 1e30;
    let error = fixture.run(&fixture.fine_tune_unit(spec)).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("step ") && message.contains("learning rate "), "{message}");
}

#[test]
fn a_list_for_other_shots_is_refused() {
    let fixture = Fixture::new();
    let mut unit = fixture.fine_tune_unit(fine_tune_spec());
    let StageSpec::Checkpoints(spec) = &mut unit.spec else { panic!() };
    spec.seed = 2;
    let message = fixture.run(&unit).unwrap_err().to_string();
    assert!(message.contains("shots and seed") && message.contains("2 and 2"), "{message}");
}

#[test]
fn choosing_without_validation_images_is_refused() {
    let mut fixture = Fixture::new();
    let mut unit = fixture::shots_unit(&fixture.images, 1);
    if let StageSpec::FewshotSplits(spec) = &mut unit.spec {
        spec.short_class = pipeline_spec::spec::ShortClass::Repeat;
    }
    let rows: Vec<_> = fixture::shot_rows("train").into_iter().filter(|row| row.split == "train").collect();
    fixture.shots = fixture::write(&fixture.store, unit, &rows, &[]);
    let spec = FineTuneSpec { select: Select::ValBest, ..fine_tune_spec() };
    let error = fixture.run(&fixture.fine_tune_unit(spec)).unwrap_err();
    assert!(matches!(error, Error::NoValidation { field: "select", .. }), "{error}");
    fixture.run(&fixture.fine_tune_unit(fine_tune_spec())).unwrap();

    let features = fixture.run(&fixture.features_unit(&["train", "val"], ViewAugment::Center)).unwrap();
    let method =
        Method::LinearProbe(LinearProbeSpec { inverse_regularization: vec![1.0, 2.0], max_iterations: 5 });
    let spec = StageSpec::Checkpoints(fixture.checkpoints_spec(VIT, method));
    let unit = fixture::unit(spec, &[("fewshot-splits", &fixture.shots), ("features", &features)]);
    assert!(matches!(fixture.run(&unit).unwrap_err(), Error::NoValidation { .. }));
}

#[test]
fn a_template_without_a_place_for_the_class_is_refused() {
    let fixture = Fixture::new();
    let mut spec = fixture.checkpoints_spec(VIT, Method::ZeroShot);
    spec.class_texts = Some(ClassTexts::Templates { templates: vec!["an icon".to_owned()] });
    let unit = fixture::unit(StageSpec::Checkpoints(spec), &[("images", &fixture.images)]);
    let message = fixture.run(&unit).unwrap_err().to_string();
    assert!(message.contains("`an icon`") && message.contains("`{}`"), "{message}");
}
