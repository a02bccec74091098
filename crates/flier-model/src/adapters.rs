//! Classifiers on frozen features: what the baselines leave behind.
//!
//! All of them take features as the encoder gives them and normalise them here. Methods that end in the same form share
//! it: a vector per class ([`ZeroShot`]), a linear layer ([`LinearProbe`]), a cache ([`TipAdapter`]).

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use clip_model::normalize;

/// CLIP's zero-shot classifier, or other vectors of length 1 in its place.
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
    /// Normalised features of the cached images, `[M, P]`, or `[M, Q]` of Q channels; trained in Tip-Adapter-F.
    pub keys: Param<Tensor<2>>,
    /// One-hot labels of the cached images, `[M, N]`, in some methods times a weight per image.
    pub values: Param<Tensor<2>>,
    /// Normalised text features, `[P, N]` without bias.
    pub classifier: Linear,
    #[module(skip)]
    channels: Vec<usize>,
}

/// CLIP-Adapter (arXiv 2110.04544): zero-shot logits of a feature mixed with what a bottleneck makes of it.
#[derive(Module, Debug)]
pub struct ClipAdapter {
    /// `[P, H]` without bias.
    pub down: Linear,
    /// `[H, P]` without bias.
    pub up: Linear,
    /// Normalised text features, `[P, N]` without bias; not trained.
    pub classifier: Linear,
}

/// ProLIP (arXiv 2410.05270): zero-shot logits behind a fine-tuned visual projection.
#[derive(Module, Debug)]
pub struct ProLip {
    /// CLIP's visual projection, `[D, P]`; a ResNet's has a bias, which is not trained.
    pub projection: Linear,
    /// Normalised text features, `[P, N]` without bias; not trained.
    pub classifier: Linear,
}

/// A classifier `[P, N]` without bias from rows of text features `[N, P]`.
fn classifier(text_features: Tensor<2>) -> Linear {
    Linear { weight: Param::from_tensor(text_features.transpose()), bias: None }
}

fn empty_linear(width: usize, classes: usize, bias: bool, device: &Device) -> Linear {
    LinearConfig::new(width, classes).with_bias(bias).init(device)
}

impl ZeroShot {
    /// From normalised text features `[N, P]`.
    pub fn new(text_features: Tensor<2>) -> Self {
        Self { classifier: classifier(text_features) }
    }

    /// To load weights into.
    pub fn empty(width: usize, num_classes: usize, device: &Device) -> Self {
        Self { classifier: empty_linear(width, num_classes, false, device) }
    }

    /// Logits `[B, N]` of features `[B, P]`: `logit_scale` times the cosine.
    pub fn logits(&self, features: Tensor<2>, logit_scale: f64) -> Tensor<2> {
        self.classifier.forward(normalize(features)).mul_scalar(logit_scale)
    }
}

impl LinearProbe {
    /// From weights `[P, N]` and biases `[N]`.
    pub fn new(weight: Tensor<2>, bias: Tensor<1>) -> Self {
        let (weight, bias) = (Param::from_tensor(weight), Some(Param::from_tensor(bias)));
        Self { classifier: Linear { weight, bias } }
    }

    /// To load weights into.
    pub fn empty(width: usize, num_classes: usize, device: &Device) -> Self {
        Self { classifier: empty_linear(width, num_classes, true, device) }
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
            channels: Vec::new(),
        }
    }

    /// To load weights into.
    pub fn empty(num_keys: usize, width: usize, num_classes: usize, device: &Device) -> Self {
        Self {
            keys: Param::from_tensor(Tensor::zeros([num_keys, width], device)),
            values: Param::from_tensor(Tensor::zeros([num_keys, num_classes], device)),
            classifier: empty_linear(width, num_classes, false, device),
            channels: Vec::new(),
        }
    }

    /// The same with keys `[M, Q]` of `channels` of the feature only, as in APE (arXiv 2304.01195).
    pub fn with_channels(self, keys: Tensor<2>, channels: Vec<usize>) -> Self {
        Self { keys: Param::from_tensor(keys), channels, ..self }
    }

    /// Cosine `[B, M]` of features `[B, P]` with every key, on the channels of the keys.
    pub fn affinity(&self, features: Tensor<2>) -> Tensor<2> {
        self.affinity_of(normalize(features))
    }

    fn affinity_of(&self, features: Tensor<2>) -> Tensor<2> {
        let seen = match self.channels.len() {
            0 => features,
            _ => normalize(select_channels(features, &self.channels)),
        };
        seen.matmul(self.keys.val().transpose())
    }

    /// Logits `[B, N]` of features `[B, P]`: `logit_scale * f W + alpha * exp(-beta * (1 - f K^T)) V`.
    pub fn logits(&self, features: Tensor<2>, logit_scale: f64, alpha: f64, beta: f64) -> Tensor<2> {
        let features = normalize(features);
        let affinity = self.affinity_of(features.clone()); // [B, M]
        let cache = affinity.sub_scalar(1.0).mul_scalar(beta).exp().matmul(self.values.val());
        self.classifier.forward(features).mul_scalar(logit_scale) + cache.mul_scalar(alpha)
    }
}

/// The columns of `features` at `channels`.
pub fn select_channels(features: Tensor<2>, channels: &[usize]) -> Tensor<2> {
    let indices: Vec<i64> = channels.iter().map(|channel| *channel as i64).collect();
    let indices = TensorData::new(indices, [channels.len()]);
    let indices = Tensor::<1, Int>::from_data(indices, &features.device());
    features.select(1, indices)
}

impl ClipAdapter {
    /// From the two layers and normalised text features `[N, P]`.
    pub fn new(down: Linear, up: Linear, text_features: Tensor<2>) -> Self {
        Self { down, up, classifier: classifier(text_features) }
    }

    /// To load weights into.
    pub fn empty(width: usize, hidden: usize, num_classes: usize, device: &Device) -> Self {
        Self {
            down: empty_linear(width, hidden, false, device),
            up: empty_linear(hidden, width, false, device),
            classifier: empty_linear(width, num_classes, false, device),
        }
    }

    /// Logits `[B, N]` of features `[B, P]`: `ratio` of the adapted feature, the rest of the feature itself.
    pub fn logits(&self, features: Tensor<2>, logit_scale: f64, ratio: f64) -> Tensor<2> {
        let adapted = relu(self.up.forward(relu(self.down.forward(features.clone()))));
        let mixed = adapted.mul_scalar(ratio) + features.mul_scalar(1.0 - ratio);
        self.classifier.forward(normalize(mixed)).mul_scalar(logit_scale)
    }
}

impl ProLip {
    /// From the visual projection and normalised text features `[N, P]`.
    pub fn new(projection: Linear, text_features: Tensor<2>) -> Self {
        Self { projection, classifier: classifier(text_features) }
    }

    /// To load weights into.
    pub fn empty(width: usize, dim: usize, has_bias: bool, num_classes: usize, device: &Device) -> Self {
        Self {
            projection: empty_linear(width, dim, has_bias, device),
            classifier: empty_linear(dim, num_classes, false, device),
        }
    }

    /// Logits `[B, N]` of features `[B, D]` before the projection.
    pub fn logits(&self, features: Tensor<2>, logit_scale: f64) -> Tensor<2> {
        self.classifier.forward(normalize(self.projection.forward(features))).mul_scalar(logit_scale)
    }
}
