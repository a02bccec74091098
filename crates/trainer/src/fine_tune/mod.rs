//! Fine-tuning of the image encoder: FLIER and its controls.

pub mod accumulate;
pub mod batch;
pub mod plan;
pub mod run;
pub mod state;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use flier_model::{FlierConfig, FlierModel, HeadInit, LatentBranchConfig, LatentEncoderConfig, layers};
use pipeline_spec::Seed;
use pipeline_spec::spec::{self, FineTuneSpec, GeneratedUse};

use self::batch::Views;
use crate::Error;
use crate::backbone::{Backbone, to_vec};
use crate::optimizer::{AdamW, AdamWConfig, ParameterRule};
use crate::parameters::{self, assign};
use crate::random::stream;

/// PyTorch's defaults, which the released code keeps.
const ADAMW: AdamWConfig = AdamWConfig { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8 };

/// The model's shape for `spec`; `latent_shape` `[C, H, W]` where latents are used.
///
/// # Errors
///
/// Fails if the latents have no shape that the latent encoder can take.
pub fn model_config(
    backbone: &Backbone,
    spec: &FineTuneSpec,
    num_classes: usize,
    latent_shape: Option<[usize; 3]>,
) -> Result<FlierConfig, Error> {
    let latent_scale = match spec.generated {
        GeneratedUse::ImagesAndLatents { latent_scale, .. } => latent_scale,
        _ => None,
    };
    let latent = latent_shape.map(|[latent_channels, latent_height, latent_width]| LatentBranchConfig {
        encoder: LatentEncoderConfig { latent_channels, latent_height, latent_width },
        coupling: match spec.coupling {
            spec::Coupling::Independent => flier_model::Coupling::Independent,
            spec::Coupling::SharedHead => flier_model::Coupling::SharedHead,
            spec::Coupling::LogitSum => flier_model::Coupling::LogitSum,
            spec::Coupling::FeatureAdd => flier_model::Coupling::FeatureAdd,
            spec::Coupling::AlignLoss => flier_model::Coupling::AlignLoss,
        },
        latent_scale,
    });
    let config = FlierConfig {
        vision: backbone.config.vision_config.clone(),
        projection_dim: backbone.config.projection_dim,
        num_classes,
        pool: match spec.pool {
            spec::Pool::MeanPatch => flier_model::Pool::MeanPatch,
            spec::Pool::Projected => flier_model::Pool::Projected,
        },
        latent,
    };
    config.check()?;
    Ok(config)
}

/// The model before its first step, with what stays as pre-trained frozen; `device` is a plain device.
///
/// With `text_classifier` `[N, P]` the head starts as the text classifier, otherwise near zero.
///
/// # Errors
///
/// Fails if the checkpoint or the text classifier does not fit the spec.
pub fn initial_model(
    backbone: Backbone,
    seed: Seed,
    spec: &FineTuneSpec,
    config: &FlierConfig,
    text_classifier: Option<Tensor<2>>,
    device: &Device,
) -> Result<FlierModel, Error> {
    let head_init = match text_classifier {
        None => HeadInit::NearZero,
        Some(classifier) => HeadInit::ZeroShotText { classifier, logit_scale: backbone.logit_scale()? },
    };
    let mut rng = stream(seed, "init", &[]);
    let model = FlierModel::from_clip(backbone.clip, config, &head_init, device, &mut rng)?;
    // The tower was opened for inference, the rest is new: set every requirement before `train` applies them.
    let model = parameters::freeze(model.train(), |name| is_frozen(spec, name));
    Ok(model)
}

/// `model` with the class means of `shots` as its classifier, see [`spec::HeadInit::ClassMean`]; `device` is a plain device.
///
/// Row c is `logit_scale / mean length * mean_c / |mean_c|`; a class without shots starts at zero. With normalised features
/// (`pool = "projected"`) the mean length is 1 and the rows are those of a cosine classifier on class means.
///
/// # Errors
///
/// Fails if the device does not give the features.
pub fn with_class_means(
    model: FlierModel,
    shots: &Views<'_>,
    logit_scale: f64,
    device: &Device,
) -> Result<FlierModel, Error> {
    let (plain, config) = (model.valid(), model.config());
    let (width, classes) = (config.feature_width(), config.num_classes);
    let (mut sums, mut lengths) = (vec![0.0; classes * width], 0.0);
    let length = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let indices: Vec<usize> = (0..shots.len()).collect();
    for batch in indices.chunks(run::VALIDATION_BATCH) {
        let features = to_vec(plain.image_features(shots.pixel_values(batch, None, device)))?;
        for (feature, class) in features.chunks_exact(width).zip(shots.labels(batch)) {
            let feature: Vec<f64> = feature.iter().copied().map(f64::from).collect();
            lengths += length(&feature);
            let sum = &mut sums[class * width..(class + 1) * width];
            sum.iter_mut().zip(feature).for_each(|(sum, value)| *sum += value);
        }
    }
    let scale = logit_scale * shots.len() as f64 / lengths;
    let mut weight = vec![0.0f32; width * classes]; // [F, N]
    for (class, sum) in sums.chunks_exact(width).enumerate() {
        let length = length(sum);
        for (row, value) in weight.chunks_exact_mut(classes).zip(sum).filter(|_| length > 0.0) {
            row[class] = (scale * value / length) as f32;
        }
    }
    let weight = Tensor::<1>::from_data(TensorData::new(weight, [width * classes]), device);
    Ok(assign(model, &[("head.weight".to_owned(), weight)].into()))
}

/// Whether the parameter `name` stays as it is under `spec`.
pub fn is_frozen(spec: &FineTuneSpec, name: &str) -> bool {
    if is_latent(name) {
        return !spec.latent_trainable;
    }
    match spec.freeze {
        spec::Freeze::None => false,
        spec::Freeze::PatchConv => layers::is_patch_conv(name),
        spec::Freeze::AllButHead => {
            // Under mean-patch the last norm is not CLIP's but a fresh part of the classifier.
            let fresh_norm = spec.pool == spec::Pool::MeanPatch && name.starts_with("vision.post_layernorm.");
            !name.starts_with("head.") && !fresh_norm
        }
    }
}

/// Whether the parameter belongs to the latent branch alone.
pub fn is_latent(name: &str) -> bool {
    name.starts_with("latent_")
}

/// AdamW with layer-wise decay of the learning rate.
pub fn optimizer(model: &FlierModel, spec: &FineTuneSpec) -> AdamW {
    let layers = model.config().layers();
    AdamW::new(model, ADAMW, |name, rank| ParameterRule {
        learning_rate_scale: layers.learning_rate_scale(name, spec.optimizer.layer_decay),
        weight_decay: if layers::is_decayed(name, rank) { spec.optimizer.weight_decay } else { 0.0 },
    })
}

/// Generated samples per class that `generated` uses with `shots` real images per class; `None` if it uses none.
pub fn generated_per_class(generated: GeneratedUse, shots: u32) -> Option<usize> {
    match generated {
        GeneratedUse::None => None,
        GeneratedUse::Images { per_class }
        | GeneratedUse::ImagesAndLatents { per_class, .. }
        | GeneratedUse::OnlyImages { per_class } => Some(per_class.unwrap_or(shots) as usize),
    }
}
