//! The latent branch alone.

use artifacts::LatentRow;
use burn::tensor::{Tensor, TensorData};
use flier_model::run::{RUN_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, RunDescription, TrainedClassifier};
use pipeline_spec::spec::{AdapterTraining, EncodedLatentsSpec, LatentOnlySpec, LatentSamples, Method};
use pipeline_spec::{ArtifactId, CheckpointRef, Digest, StageSpec, Unit};

use crate::fixture::{self, Fixture, VIT, fine_tune_spec};

const GENERATED: LatentSamples = LatentSamples::Generated { per_class: None };

fn run_unit(fixture: &Fixture, samples: LatentSamples, latents: &ArtifactId) -> Unit {
    let training = AdapterTraining { epochs: 200, batch_size: 4, learning_rate: 3e-3 };
    let method = Method::LatentOnly(LatentOnlySpec { samples, training });
    let spec = StageSpec::Checkpoints(fixture.checkpoints_spec(VIT, method));
    fixture::unit(spec, &[("fewshot-splits", &fixture.shots), ("latents", latents)])
}

/// Encoded images: of the shot list, or all of `splits`.
fn encoded(fixture: &Fixture, splits: Option<&[&str]>, rows: &[LatentRow]) -> ArtifactId {
    let spec = EncodedLatentsSpec {
        dataset: fixture::dataset(),
        checkpoint: CheckpointRef { id: "sd".to_owned(), digest: Digest::blake3(b"sd") },
        run: "sd-encoded".to_owned(),
        splits: splits.map(fixture::strings),
        image_size: 64,
        num_parts: 1,
    };
    let shots = [("images", &fixture.images), ("fewshot-splits", &fixture.shots)];
    let inputs = if splits.is_some() { &shots[..1] } else { &shots[..] };
    fixture::write(&fixture.store, fixture::unit(StageSpec::EncodedLatents(spec), inputs), rows, &[4, 8, 8])
}

fn classifier(fixture: &Fixture, id: &ArtifactId) -> (RunDescription, TrainedClassifier) {
    let reader = fixture.reader(id);
    let run = RunDescription::read(&reader.file_path(RUN_FILE).unwrap()).unwrap();
    let weights = reader.file_path(WEIGHTS_FILE).unwrap();
    let trained = TrainedClassifier::from_files(&run, &weights, &fixture.device).unwrap();
    (run, trained)
}

/// Latents whose channel of the class's number is raised.
fn telling_rows() -> Vec<LatentRow> {
    let mut rows = fixture::latent_rows(1.0);
    for row in &mut rows {
        let first = row.class_id as usize * 64;
        row.latent[first..first + 64].iter_mut().for_each(|value| *value += 3.0);
    }
    rows
}

/// The class of the largest logit of each row's latent.
fn predicted(fixture: &Fixture, trained: &TrainedClassifier, rows: &[LatentRow]) -> Vec<u32> {
    let values: Vec<f32> = rows.iter().flat_map(|row| row.latent.clone()).collect();
    let latents = Tensor::<4>::from_data(TensorData::new(values, [rows.len(), 4, 8, 8]), &fixture.device);
    let logits = trained.logits_from_latents(latents).unwrap();
    logits.argmax(1).into_data().iter::<i64>().map(|class| class as u32).collect()
}

#[test]
fn the_latent_branch_alone_learns_the_classes_of_latents_that_tell_them() {
    let mut fixture = Fixture::new();
    let rows = telling_rows();
    let generated = fixture.store.record(&fixture.latents).unwrap().unit;
    fixture.forget(&fixture.latents);
    fixture.latents = fixture::write(&fixture.store, generated, &rows, &[4, 8, 8]);
    let labels: Vec<u32> = rows.iter().map(|row| row.class_id).collect();
    let shots = encoded(&fixture, None, &rows);
    for (samples, latents) in
        [(LatentSamples::Generated { per_class: Some(4) }, &fixture.latents), (LatentSamples::Shots, &shots)]
    {
        let id = fixture.run(&run_unit(&fixture, samples, latents)).unwrap();
        let (run, trained) = classifier(&fixture, &id);
        assert!(matches!(run.classifier, Classifier::LatentOnly { .. }), "{:?}", run.classifier);
        let (first, last) = (run.epochs[0].real_loss.unwrap(), run.final_loss.unwrap());
        // The head starts near zero.
        assert!((first - 3f64.ln()).abs() < 0.1 && last < 0.3, "{samples:?}: {first} {last}");
        assert_eq!(predicted(&fixture, &trained, &rows), labels, "{samples:?}");
        let images = Tensor::<4>::zeros([1, 3, 16, 16], &fixture.device);
        let message = trained.logits_from_images(images).unwrap_err().to_string();
        assert!(message.contains("latents"), "{message}");
    }
}

#[test]
fn whole_encoded_splits_are_refused_by_every_method_that_reads_latents() {
    let mut fixture = Fixture::new();
    for splits in [&["test"][..], &["train"], &["train", "test"]] {
        let latents = encoded(&fixture, Some(splits), &fixture::latent_rows(1.0));
        let refusal = |unit: &Unit| fixture.run(unit).unwrap_err().to_string();
        let found = format!("found all images of `{}`", splits.join("`, `"));
        for samples in [LatentSamples::Shots, GENERATED] {
            let message = refusal(&run_unit(&fixture, samples, &latents));
            assert!(message.contains(&found), "{message}");
        }
        fixture.latents = latents;
        let message = fixture.run(&fixture.fine_tune_unit(fine_tune_spec())).unwrap_err().to_string();
        assert!(message.contains(&found), "{message}");
    }
}

#[test]
fn the_source_of_the_latents_is_the_one_asked_for() {
    let fixture = Fixture::new();
    let shots = encoded(&fixture, None, &fixture::latent_rows(1.0));
    for (samples, latents) in [(LatentSamples::Shots, &fixture.latents), (GENERATED, &shots)] {
        let message = fixture.run(&run_unit(&fixture, samples, latents)).unwrap_err().to_string();
        assert!(message.contains("field `method.samples`"), "{message}");
    }
}
