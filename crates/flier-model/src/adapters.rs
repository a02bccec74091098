//! Classifiers on frozen features: zero-shot, linear probe, Tip-Adapter.
//!
//! All of them take features as the encoder gives them and normalise them here.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use clip_model::normalize;

/// CLIP's zero-shot classifier.
#[derive(Module, Debug)]
pub struct ZeroShot {
    /// Normalised text features, `[P, N]` without bias.
    pub classifier: Linear,
}

/// A linear classifier on normalised features.
#[derive(Module, Debug)]
pub struct LinearProbe {
    /// `[P, N]` with bias.
    pub classifier: Linear,
}

/// Tip-Adapter (arXiv 2207.09519): zero-shot logits plus those of a key-value cache of the few shots.
#[derive(Module, Debug)]
pub struct TipAdapter {
    /// Normalised features of the cached images, `[M, P]`; trained in Tip-Adapter-F.
    pub keys: Param<Tensor<2>>,
    /// One-hot labels of the cached images, `[M, N]`; not trained.
    pub values: Param<Tensor<2>>,
    /// Normalised text features, `[P, N]` without bias; not trained.
    pub classifier: Linear,
}

/// A classifier `[P, N]` without bias from rows of text features `[N, P]`.
fn classifier(text_features: Tensor<2>) -> Linear {
    Linear { weight: Param::from_tensor(text_features.transpose()), bias: None }
}

fn empty_classifier(width: usize, classes: usize, bias: bool, device: &Device) -> Linear {
    LinearConfig::new(width, classes).with_bias(bias).init(device)
}

impl ZeroShot {
    /// From normalised text features `[N, P]`.
    pub fn new(text_features: Tensor<2>) -> Self {
        Self { classifier: classifier(text_features) }
    }

    /// To load weights into.
    pub fn empty(width: usize, num_classes: usize, device: &Device) -> Self {
        Self { classifier: empty_classifier(width, num_classes, false, device) }
    }

    /// Logits `[B, N]` of features `[B, P]`: `logit_scale` times the cosine.
    pub fn logits(&self, features: Tensor<2>, logit_scale: f64) -> Tensor<2> {
        self.classifier.forward(normalize(features)).mul_scalar(logit_scale)
    }
}

impl LinearProbe {
    /// To load weights into.
    pub fn empty(width: usize, num_classes: usize, device: &Device) -> Self {
        Self { classifier: empty_classifier(width, num_classes, true, device) }
    }

    /// Logits `[B, N]` of features `[B, P]`.
    pub fn logits(&self, features: Tensor<2>) -> Tensor<2> {
        self.classifier.forward(normalize(features))
    }
}

impl TipAdapter {
    /// From normalised keys `[M, P]`, one-hot values `[M, N]` and normalised text features `[N, P]`.
    pub fn new(keys: Tensor<2>, values: Tensor<2>, text_features: Tensor<2>) -> Self {
        Self {
            keys: Param::from_tensor(keys),
            values: Param::from_tensor(values),
            classifier: classifier(text_features),
        }
    }

    /// To load weights into.
    pub fn empty(num_keys: usize, width: usize, num_classes: usize, device: &Device) -> Self {
        Self {
            keys: Param::from_tensor(Tensor::zeros([num_keys, width], device)),
            values: Param::from_tensor(Tensor::zeros([num_keys, num_classes], device)),
            classifier: empty_classifier(width, num_classes, false, device),
        }
    }

    /// Logits `[B, N]` of features `[B, P]`: `logit_scale * f W + alpha * exp(-beta * (1 - f K^T)) V`.
    pub fn logits(&self, features: Tensor<2>, logit_scale: f64, alpha: f64, beta: f64) -> Tensor<2> {
        let features = normalize(features);
        let affinity = features.clone().matmul(self.keys.val().transpose()); // [B, M]
        let cache = affinity.sub_scalar(1.0).mul_scalar(beta).exp().matmul(self.values.val());
        self.classifier.forward(features).mul_scalar(logit_scale) + cache.mul_scalar(alpha)
    }
}
