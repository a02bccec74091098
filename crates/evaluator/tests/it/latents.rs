//! Predictions of the latent branch alone, from the latents of held-out images.

use std::path::Path;
use std::time::Instant;

use artifacts::{
    ArtifactReader, ArtifactWriter, FileContext, ImageRow, LatentRow, PredictionRow, SchemaInfo, round_to_f16,
};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use clip_model::{KeyTable, SaveDtype, load_safetensors, save_safetensors};
use flier_model::run::{RUN_FILE, WEIGHTS_FILE};
use flier_model::{Classifier, LatentClassifier, LatentEncoderConfig};
use pipeline_spec::pipeline::{EncodedLatentsTable, MethodTable};
use pipeline_spec::spec::{AdapterTraining, LatentOnlySpec, LatentSamples, Method};
use pipeline_spec::{Plan, StageSpec, Store, Unit};

use crate::predictions::{description, device, fill_data, predict, publish};
use crate::synthetic::{CLASSES, class_names, plan_with};

const SHAPE: LatentEncoderConfig =
    LatentEncoderConfig { latent_channels: 4, latent_height: 8, latent_width: 8 };

/// A plan of the latent branch alone, trained on encoded shots, and its first predictions.
fn planned(folder: &Path) -> (Plan, Unit) {
    let plan = plan_with(folder, |pipeline| {
        let training = AdapterTraining { epochs: 1, batch_size: 8, learning_rate: 1e-3 };
        pipeline.methods = vec![MethodTable {
            name: "latent-only".to_owned(),
            method: Method::LatentOnly(LatentOnlySpec { samples: LatentSamples::Shots, training }),
            text_classifier: None,
            prompts: None,
            latents: None,
            encoded_latents: Some(EncodedLatentsTable {
                checkpoint: "sd-a".to_owned(),
                image_size: 32,
                num_parts: 1,
            }),
        }];
    });
    let is_wanted = |unit: &Unit| matches!(&unit.spec, StageSpec::Predictions(_));
    let unit = plan.units.iter().find(|p| is_wanted(&p.unit)).unwrap().unit.clone();
    (plan, unit)
}

/// A latent that its image's identifier decides.
fn latent_of(sample_id: &str) -> Vec<f32> {
    let seed: u32 = sample_id.bytes().map(u32::from).sum();
    let mut latent: Vec<f32> = (0..256u32).map(|i| ((i * 7 + seed * 31) % 61) as f32 / 12.0 - 2.5).collect();
    round_to_f16(&mut latent);
    latent
}

/// The artifact of `unit`: latents of all images of `splits`.
fn write_latents(store: &Store, unit: &Unit, images: &[ImageRow], splits: &[&str]) {
    let of_splits = images.iter().filter(|image| splits.contains(&image.split.as_str()));
    let rows: Vec<LatentRow> = (0..)
        .zip(of_splits)
        .map(|(sample_index, image)| LatentRow {
            class_id: image.label.unwrap(),
            class_name: image.class_name.clone().unwrap(),
            prompt_index: 0,
            sample_index,
            prompt: image.sample_id.clone(),
            noise_seed: 0,
            latent: latent_of(&image.sample_id),
            mean: 0.0,
            std: 1.0,
            image_png: image.image.bytes.clone(),
            image_path: image.image.path.clone(),
            clip_score: None,
        })
        .collect();
    let info =
        SchemaInfo { class_names: class_names("toys"), tensor_shape: vec![4, 8, 8], ..SchemaInfo::default() };
    let writer = ArtifactWriter::open(store, unit, 1, FileContext::new("0.0.0")).unwrap();
    writer.write_part(0, &rows, &info).unwrap();
    writer.finish("cpu", Instant::now()).unwrap();
}

#[test]
fn held_out_images_are_classified_by_their_latents() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, path) = (folder.path().join("weights"), folder.path().join(WEIGHTS_FILE));
    let (plan, unit) = planned(folder.path());
    let store = Store::new(folder.path().join("store"));
    fill_data(&plan, &store);
    let model = LatentClassifier::empty(&SHAPE, CLASSES.len(), &device()).unwrap();
    save_safetensors(&model, &path, SaveDtype::F32, &KeyTable::new()).unwrap();
    description(Classifier::LatentOnly { encoder: SHAPE }, &weights)
        .write(&folder.path().join(RUN_FILE))
        .unwrap();
    publish(&plan, &store, &unit, folder.path(), &[RUN_FILE, WEIGHTS_FILE]);
    let images: Vec<ImageRow> =
        ArtifactReader::open(&store, unit.input("images").unwrap()).unwrap().rows().unwrap();
    let latents = unit.input("latents").unwrap();
    let latents = plan.units.iter().find(|p| p.output == *latents).unwrap();
    write_latents(&store, &latents.unit, &images, &["test", "shift"]);

    let rows: Vec<PredictionRow> = predict(&unit, &store, &weights, 5).unwrap();
    assert_eq!(rows.len(), 42, "30 test and 12 shifted images");
    let model = LatentClassifier::empty(&SHAPE, CLASSES.len(), &device()).unwrap();
    let model = load_safetensors(model, &path, &KeyTable::new()).unwrap().valid();
    for row in rows {
        let image = images.iter().find(|image| image.sample_id == row.sample_id).unwrap();
        assert_eq!((&image.split, image.label), (&row.split, Some(row.label)));
        let latent = TensorData::new(latent_of(&row.sample_id), [1, 4, 8, 8]);
        let expected = model.logits(Tensor::from_data(latent, &device()));
        for (found, expected) in row.logits.iter().zip(expected.into_data().iter::<f32>()) {
            // Another batch size may change the last digits of f32.
            assert!((found - expected).abs() < 1e-5, "{}: {found} and {expected}", row.sample_id);
        }
    }
}

#[test]
fn latents_of_other_images_than_those_evaluated_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("weights");
    let (plan, unit) = planned(folder.path());
    let store = Store::new(folder.path().join("store"));
    fill_data(&plan, &store);
    let model = LatentClassifier::empty(&SHAPE, CLASSES.len(), &device()).unwrap();
    save_safetensors(&model, &folder.path().join(WEIGHTS_FILE), SaveDtype::F32, &KeyTable::new()).unwrap();
    description(Classifier::LatentOnly { encoder: SHAPE }, &weights)
        .write(&folder.path().join(RUN_FILE))
        .unwrap();
    // With the latents of the shots that the run was trained on, written beside it.
    publish(&plan, &store, &unit, folder.path(), &[RUN_FILE, WEIGHTS_FILE]);
    let run = unit.input("checkpoints").unwrap();
    let run = &plan.units.iter().find(|p| p.output == *run).unwrap().unit;
    let mut wrong = unit.clone();
    wrong.inputs.insert("latents".to_owned(), run.input("latents").unwrap().clone());
    let message = predict(&wrong, &store, &weights, 5).unwrap_err().to_string();
    assert!(
        message.contains("expected the encoded images of") && message.contains("of a shot list"),
        "{message}"
    );

    let mut images: Vec<ImageRow> =
        ArtifactReader::open(&store, unit.input("images").unwrap()).unwrap().rows().unwrap();
    let lost = images.remove(images.iter().position(|image| image.split == "test").unwrap()).sample_id;
    let latents = unit.input("latents").unwrap();
    let latents = plan.units.iter().find(|p| p.output == *latents).unwrap();
    write_latents(&store, &latents.unit, &images, &["test", "shift"]);
    let message = predict(&unit, &store, &weights, 5).unwrap_err().to_string();
    assert!(message.contains(&format!("expected a latent of image `{lost}`, found none")), "{message}");
}
