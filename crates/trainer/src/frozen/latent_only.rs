//! FLIER's latent branch alone: what latents say of a class without the image branch.
//!
//! A latent stands here as a feature of the autoencoder, flattened. There are no validation latents, so nothing is chosen.

use burn::module::Module;
use burn::tensor::Tensor;
use flier_model::{
    Classifier, LatentClassifier, LatentEncoderConfig, SelectionRule, TrainedClassifier, Weights, loss,
};
use pipeline_spec::spec::LatentOnlySpec;

use super::Fitted;
use super::steps::{Optimizer, Rate, Samples, Steps};
use crate::random::stream;
use crate::{Control, Error};

/// PyTorch's default.
const EPSILON: f64 = 1e-8;

/// Trains the latent encoder with its classifier on `samples`, whose features are latents of the shape `encoder`; `None` if
/// `control` stopped the work.
///
/// # Errors
///
/// Fails if the latents have a shape that cannot be encoded, or the loss stops being finite.
pub fn train(
    spec: &LatentOnlySpec,
    samples: Samples<'_>,
    encoder: LatentEncoderConfig,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let steps = Steps {
        training: spec.training,
        rate: Rate::PerStep,
        optimizer: Optimizer::AdamW { epsilon: EPSILON, weight_decay: 0.0 },
    };
    let mut rng = stream(samples.seed, "init", &[]);
    let model = LatentClassifier::initial(&encoder, samples.num_classes, samples.device, &mut rng)?;
    let LatentEncoderConfig { latent_channels, latent_height, latent_width } = encoder;
    let logits_loss = |model: &LatentClassifier, latents: Tensor<2>, targets: Tensor<2>| {
        let count = latents.dims()[0];
        let latents = latents.reshape([count, latent_channels, latent_height, latent_width]);
        loss::cross_entropy(model.logits(latents), targets)
    };
    let Some((model, epochs)) = steps.train(samples, model.train(), logits_loss, control)? else {
        return Ok(None);
    };
    let classifier = Classifier::LatentOnly { encoder };
    let trained = TrainedClassifier::new(Weights::LatentOnly(model.valid()), classifier);
    Ok(Some(Fitted::new(trained, SelectionRule::Last, None).with_epochs(epochs)))
}
