//! Weights written and read back.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use clip_model::{KeyTable, SaveDtype, normalize, save_safetensors};
use flier_model::{
    Backbone, Classifier, ClipAdapter, Coupling, FlierModel, HeadInit, LatentClassifier, LinearProbe, Pool,
    RunDescription, Selection, SelectionRule, TipAdapter, TrainedClassifier, Weights, ZeroShot,
};

use crate::{device, rng, tiny_clip, tiny_config, tiny_resnet, tiny_vit, values, wave};

fn description(classifier: Classifier) -> RunDescription {
    RunDescription {
        run: "run".to_owned(),
        method: "method".to_owned(),
        dataset: "emoji".to_owned(),
        backbone: Backbone { id: "clip".to_owned(), digest: "0".repeat(64) },
        class_names: (0..5).map(|i| format!("class {i}")).collect(),
        shots: Some(1),
        seed: 1,
        shot_list_digest: None,
        classifier,
        selection: Selection::new(SelectionRule::Last, 0, None),
        has_ema: false,
        final_loss: None,
        epochs: vec![],
    }
}

#[test]
fn a_fine_tuned_model_gives_the_same_logits_after_a_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, run_file) = (folder.path().join("model.safetensors"), folder.path().join("run.json"));
    for vision in [tiny_vit(), tiny_resnet()] {
        for pool in [Pool::MeanPatch, Pool::Projected] {
            for coupling in [None, Some(Coupling::Independent), Some(Coupling::SharedHead)] {
                let config = tiny_config(vision.clone(), pool, coupling);
                let clip = tiny_clip(vision.clone());
                let model =
                    FlierModel::from_clip(clip, &config, &HeadInit::NearZero, &device(), &mut rng()).unwrap();
                let model = model.valid();
                save_safetensors(&model, &weights, SaveDtype::F32, &model.key_table()).unwrap();
                description(Classifier::FineTune { config }).write(&run_file).unwrap();
                let run = RunDescription::read(&run_file).unwrap();
                let trained = TrainedClassifier::from_files(&run, &weights, &device()).unwrap();
                assert!(trained.reads_images());
                let images = wave([2, 3, 32, 32], &device());
                let expected = values(model.image_logits(images.clone()));
                assert_eq!(values(trained.logits_from_images(images).unwrap()), expected);
            }
        }
    }
}

/// A weight that was loaded lies in memory in another order than one that was transposed, so sums round differently:
/// 1e-4 at logits up to 100.
fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn classifiers_on_features_survive_a_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    let device = device();
    let text = normalize(wave([5, 12], &device));
    let features = wave([3, 12], &device).add_scalar(0.1);

    let model = ZeroShot::new(text.clone());
    save_safetensors(&model, &weights, SaveDtype::F32, &KeyTable::new()).unwrap();
    let run = description(Classifier::ZeroShot { projection_dim: 12, logit_scale: 100.0 });
    let trained = TrainedClassifier::from_files(&run, &weights, &device).unwrap();
    let found = values(trained.logits_from_features(features.clone()).unwrap());
    assert_close(&found, &values(model.logits(features.clone(), 100.0)));
    assert!(trained.logits_from_images(wave([1, 3, 16, 16], &device)).is_err());
    let message = trained.logits_from_features(wave([1, 7], &device)).unwrap_err().to_string();
    assert!(message.contains("[B, 12]") && message.contains("[B, 7]"), "{message}");

    let model = LinearProbe::empty(12, 5, &device);
    save_safetensors(&model, &weights, SaveDtype::F32, &KeyTable::new()).unwrap();
    let run = description(Classifier::LinearProbe { projection_dim: 12, inverse_regularization: 1.0 });
    let trained = TrainedClassifier::from_files(&run, &weights, &device).unwrap();
    let found = values(trained.logits_from_features(features.clone()).unwrap());
    assert_close(&found, &values(model.logits(features.clone())));

    let model = TipAdapter::new(normalize(wave([7, 12], &device)), wave([7, 5], &device), text);
    save_safetensors(&model, &weights, SaveDtype::F32, &KeyTable::new()).unwrap();
    let classifier = Classifier::TipAdapterF {
        projection_dim: 12,
        num_keys: 7,
        logit_scale: 100.0,
        alpha: 1.5,
        beta: 2.5,
    };
    let trained = TrainedClassifier::from_files(&description(classifier), &weights, &device).unwrap();
    let found = values(trained.logits_from_features(features.clone()).unwrap());
    assert_close(&found, &values(model.logits(features, 100.0, 1.5, 2.5)));
}

#[test]
fn a_classifier_made_of_texts_meets_those_of_other_classes() {
    let device = device();
    let (own, other) = (normalize(wave([5, 12], &device)), normalize(wave([3, 12], &device).add_scalar(0.4)));
    let features = wave([4, 12], &device).add_scalar(0.1);
    let zero_shot = |texts: Tensor<2>| {
        let classifier = Classifier::ZeroShot { projection_dim: texts.dims()[1], logit_scale: 100.0 };
        TrainedClassifier::new(Weights::ZeroShot(ZeroShot::new(texts)), classifier)
    };
    let found = zero_shot(own.clone()).with_texts(zero_shot(other.clone())).unwrap();
    let expected = zero_shot(other.clone()).logits_from_features(features.clone()).unwrap();
    assert_eq!(values(found.logits_from_features(features.clone()).unwrap()), values(expected));

    // The bottleneck was trained with the own classes and stays.
    let layer = |width, out: usize, shift| Linear {
        weight: Param::from_tensor(wave([width, out], &device).add_scalar(shift)),
        bias: None,
    };
    let adapter = |texts| ClipAdapter::new(layer(12, 3, 0.2), layer(3, 12, -0.1), texts);
    let classifier =
        Classifier::ClipAdapter { projection_dim: 12, hidden_dim: 3, logit_scale: 100.0, ratio: 0.3 };
    let trained = TrainedClassifier::new(Weights::ClipAdapter(adapter(own.clone())), classifier);
    let found = trained.with_texts(zero_shot(other.clone())).unwrap();
    let expected = values(adapter(other.clone()).logits(features.clone(), 100.0, 0.3));
    assert_eq!(values(found.logits_from_features(features).unwrap()), expected);
    assert_ne!(
        expected,
        values(zero_shot(other.clone()).logits_from_features(wave([4, 12], &device)).unwrap())
    );

    let probe = TrainedClassifier::new(
        Weights::LinearProbe(LinearProbe::empty(12, 5, &device)),
        Classifier::Linear { projection_dim: 12 },
    );
    let message = probe.with_texts(zero_shot(other)).unwrap_err().to_string();
    assert!(message.contains("classifier `linear` is not made of texts"), "{message}");
    let narrow = normalize(wave([3, 7], &device));
    let message = zero_shot(own).with_texts(zero_shot(narrow)).unwrap_err().to_string();
    assert!(message.contains("[12, N]") && message.contains("[7, N]"), "{message}");
}

#[test]
fn tip_adapter_adds_what_the_formula_says() {
    let device = device();
    let keys = normalize(wave([2, 3], &device));
    let one_hot = flier_model::loss::smoothed_targets(&[1, 0], 2, 0.0, &device);
    let text = normalize(wave([2, 3], &device).mul_scalar(-1.0).add_scalar(0.3));
    let feature = wave([1, 3], &device).add_scalar(0.2);
    let found =
        values(TipAdapter::new(keys.clone(), one_hot, text.clone()).logits(feature.clone(), 100.0, 2.0, 3.0));
    let unit = |v: Vec<f32>| {
        let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.into_iter().map(|x| x / length).collect::<Vec<_>>()
    };
    let (f, k, w) = (unit(values(feature)), values(keys), values(text));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let cache: Vec<f32> = (0..2).map(|i| (-3.0 * (1.0 - dot(&f, &k[i * 3..][..3]))).exp()).collect();
    // Sample 0 has label 1, sample 1 has label 0.
    for (class, cached) in [(0, cache[1]), (1, cache[0])] {
        let expected = 100.0 * dot(&f, &w[class * 3..][..3]) + 2.0 * cached;
        // f32 at values up to 100.
        assert!((found[class] - expected).abs() < 1e-3, "{} {expected}", found[class]);
    }
}

#[test]
fn a_missing_tensor_and_an_unknown_field_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    save_safetensors(&ZeroShot::new(wave([5, 12], &device())), &weights, SaveDtype::F32, &KeyTable::new())
        .unwrap();
    let run = description(Classifier::LinearProbe { projection_dim: 12, inverse_regularization: 1.0 });
    let message = TrainedClassifier::from_files(&run, &weights, &device()).unwrap_err().to_string();
    assert!(message.contains("model.safetensors") && message.contains("classifier.bias"), "{message}");

    let path = folder.path().join("run.json");
    run.write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap().replace("\"seed\"", "\"sead\"");
    std::fs::write(&path, text).unwrap();
    let message = RunDescription::read(&path).unwrap_err().to_string();
    assert!(message.contains("run.json") && message.contains("sead"), "{message}");
}

#[test]
fn a_latent_branch_alone_gives_the_logits_of_flier_s_latent_branch_with_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    let device = device();
    let config = tiny_config(tiny_vit(), Pool::MeanPatch, Some(Coupling::Independent));
    let model =
        FlierModel::from_clip(tiny_clip(tiny_vit()), &config, &HeadInit::NearZero, &device, &mut rng());
    let model = model.unwrap().valid();
    let encoder = config.latent.unwrap().encoder;
    let alone = LatentClassifier {
        latent_encoder: model.latent_encoder.clone().unwrap(),
        latent_head: model.latent_head.clone().unwrap(),
    };
    save_safetensors(&alone, &weights, SaveDtype::F32, &KeyTable::new()).unwrap();
    let run = description(Classifier::LatentOnly { encoder });
    let trained = TrainedClassifier::from_files(&run, &weights, &device).unwrap();
    let (channels, height, width) = (encoder.latent_channels, encoder.latent_height, encoder.latent_width);
    let latents = wave([3, channels, height, width], &device);
    let expected = values(model.latent_logits(latents.clone()).unwrap());
    assert_close(&values(trained.logits_from_latents(latents.clone()).unwrap()), &expected);
    let classifier = Classifier::FineTune { config };
    let flier = TrainedClassifier::new(Weights::FineTune(Box::new(model)), classifier);
    assert_eq!(values(flier.logits_from_latents(latents).unwrap()), expected);

    let message = trained.logits_from_latents(wave([1, channels, height, 2 * width], &device)).unwrap_err();
    assert!(message.to_string().contains("latents [B, C, H, W]"), "{message}");
    let message = trained.logits_from_features(wave([1, 12], &device)).unwrap_err().to_string();
    assert!(message.contains("latents"), "{message}");
}
