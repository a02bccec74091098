//! How the two branches meet.

use burn::module::Module;
use burn::tensor::Tensor;
use flier_model::{Coupling, Error, FlierModel, HeadInit, Pool, loss};

use crate::{device, rng, tiny_clip, tiny_config, tiny_resnet, tiny_vit, values, wave};

fn model(pool: Pool, coupling: Option<Coupling>) -> FlierModel {
    let config = tiny_config(tiny_vit(), pool, coupling);
    FlierModel::from_clip(tiny_clip(tiny_vit()), &config, &HeadInit::NearZero, &device(), &mut rng()).unwrap()
}

/// Whether the latent loss reaches a parameter of the image branch.
fn latent_loss_reaches_the_head(model: FlierModel) -> bool {
    let model = model.train();
    let device = device().autodiff();
    let logits = model.latent_logits(wave([2, 4, 16, 16], &device)).unwrap();
    let gradients = loss::cross_entropy(logits, loss::smoothed_targets(&[0, 1], 5, 0.1, &device)).backward();
    model.head.weight.val().grad(&gradients).is_some()
}

#[test]
fn independent_branches_share_no_gradient_and_a_shared_head_does() {
    assert!(!latent_loss_reaches_the_head(model(Pool::MeanPatch, Some(Coupling::Independent))));
    assert!(latent_loss_reaches_the_head(model(Pool::MeanPatch, Some(Coupling::SharedHead))));
}

#[test]
fn a_shared_head_projects_latents_only_where_widths_differ() {
    let differ = model(Pool::MeanPatch, Some(Coupling::SharedHead));
    assert!(differ.latent_projection.is_some() && differ.latent_head.is_none());
    let mut config = tiny_config(tiny_vit(), Pool::MeanPatch, Some(Coupling::SharedHead));
    config.latent.as_mut().unwrap().encoder.latent_height = 8; // 3 * 2 * 4 = 24, the encoder's width
    let same =
        FlierModel::from_clip(tiny_clip(tiny_vit()), &config, &HeadInit::NearZero, &device(), &mut rng())
            .unwrap();
    assert!(same.latent_projection.is_none());
    assert_eq!(same.latent_logits(wave([2, 4, 8, 16], &device())).unwrap().dims(), [2, 5]);
}

#[test]
fn a_latent_branch_beside_it_does_not_change_the_image_branch() {
    let clip = tiny_clip(tiny_vit());
    for pool in [Pool::MeanPatch, Pool::Projected] {
        let logits = [None, Some(Coupling::Independent), Some(Coupling::SharedHead)].map(|coupling| {
            let config = tiny_config(tiny_vit(), pool, coupling);
            let model =
                FlierModel::from_clip(clip.clone(), &config, &HeadInit::NearZero, &device(), &mut rng())
                    .unwrap();
            values(model.image_logits(wave([2, 3, 16, 16], &device())))
        });
        assert!(logits[0].iter().any(|v| *v != 0.0));
        assert_eq!(logits[0], logits[1]);
        assert_eq!(logits[0], logits[2]);
    }
}

#[test]
fn latents_of_another_shape_are_an_error_that_names_both() {
    let error =
        model(Pool::MeanPatch, Some(Coupling::Independent)).latent_logits(wave([2, 4, 8, 8], &device()));
    let message = error.unwrap_err().to_string();
    assert!(message.contains("[B, 4, 16, 16]") && message.contains("[B, 4, 8, 8]"), "{message}");
    let error = model(Pool::MeanPatch, None).latent_logits(wave([2, 4, 16, 16], &device())).unwrap_err();
    assert!(matches!(error, Error::WrongInput { .. }));
}

#[test]
fn a_text_head_starts_as_the_zero_shot_classifier() {
    let device = device();
    let clip = tiny_clip(tiny_vit());
    let text = clip_model::normalize(wave([5, 12], &device));
    let pixel_values: Tensor<4> = wave([3, 3, 16, 16], &device);
    let features = clip_model::normalize(clip.image_features(pixel_values.clone()));
    let expected = values(features.matmul(text.clone().transpose()).mul_scalar(100.0));
    let head = HeadInit::ZeroShotText { classifier: text.clone(), logit_scale: 100.0 };
    let config = tiny_config(tiny_vit(), Pool::Projected, None);
    let model = FlierModel::from_clip(clip.clone(), &config, &head, &device, &mut rng()).unwrap();
    for (a, b) in values(model.image_logits(pixel_values)).iter().zip(&expected) {
        // The same operations in another order, at values up to 100.
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
    let config = tiny_config(tiny_vit(), Pool::MeanPatch, None);
    let message = FlierModel::from_clip(clip, &config, &head, &device, &mut rng()).unwrap_err().to_string();
    assert!(message.contains("`pool`"), "{message}");
}

#[test]
fn a_resnet_is_pooled_to_the_width_of_its_last_stage() {
    let config = tiny_config(tiny_resnet(), Pool::MeanPatch, None);
    let clip = tiny_clip(tiny_resnet());
    let model =
        FlierModel::from_clip(clip, &config, &HeadInit::NearZero, &device(), &mut rng()).unwrap().valid();
    assert_eq!(model.image_features(wave([2, 3, 32, 32], &device())).dims(), [2, 128]);
    assert_eq!(model.image_logits(wave([2, 3, 64, 64], &device())).dims(), [2, 5]);
}

#[test]
fn a_latent_side_that_cannot_be_halved_twice_is_refused() {
    let mut config = tiny_config(tiny_vit(), Pool::MeanPatch, Some(Coupling::Independent));
    config.latent.as_mut().unwrap().encoder.latent_width = 6;
    let message = FlierModel::empty(&config, &device()).unwrap_err().to_string();
    assert!(message.contains("`latent.latent_width`") && message.contains("`6`"), "{message}");
}
