//! CLAP, "A closer look at the few-shot adaptation of large vision-language models" (Silva-Rodriguez et al., CVPR 2024,
//! arXiv 2312.12730): class prototypes start at the text features and are held near them by a penalty whose weight for a
//! class is the zero-shot model's mean probability of its own training images. Nothing is chosen; the last epoch counts.
//!
//! One deviation: an epoch sees one view of every image, where the authors draw from all views.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use clip_model::normalize;
use flier_model::{Classifier, SelectionRule, TrainedClassifier, Weights, ZeroShot, loss};
use pipeline_spec::spec::ClapSpec;

use super::steps::{Optimizer, Rate, Steps};
use super::{Fitted, Inputs};
use crate::backbone::to_vec;
use crate::parameters;
use crate::{Control, Error};

/// One vector per class, `[N, P]`.
#[derive(Module, Debug)]
struct Prototypes {
    vectors: Param<Tensor<2>>,
}

/// Trains the prototypes; `mean_text_features` `[N, P]` are means of text features that are not normalised, as in the
/// authors' code: their length sets the pace of SGD. `None` if `control` stopped the work.
///
/// # Errors
///
/// Fails if the loss stops being finite.
pub fn train(
    spec: &ClapSpec,
    inputs: &Inputs<'_>,
    mean_text_features: Tensor<2>,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let multipliers = multipliers(inputs, mean_text_features.clone())?;
    let multipliers = inputs.matrix(multipliers, 1).autodiff(); // [N, 1]
    let start = mean_text_features.clone().autodiff();
    let (scale, classes) = (inputs.logit_scale, inputs.num_classes() as f64);
    let module = Prototypes { vectors: Param::from_tensor(mean_text_features) };
    let module = parameters::freeze(module.train(), |_| false);
    let constrained = |module: &Prototypes, features: Tensor<2>, targets: Tensor<2>| {
        let vectors = module.vectors.val();
        let logits = normalize(features).matmul(normalize(vectors.clone()).transpose()).mul_scalar(scale);
        let distance = (vectors - start.clone()).powi_scalar(2).sum_dim(1); // [N, 1]
        let penalty = (distance * multipliers.clone()).sum().mul_scalar(1.0 / classes);
        loss::cross_entropy(logits, targets) + penalty
    };
    let steps = Steps {
        training: spec.training,
        rate: Rate::PerEpoch,
        optimizer: Optimizer::Sgd { weight_decay: 0.0 },
    };
    let Some((module, epochs)) = steps.train(inputs, module, constrained, control)? else { return Ok(None) };
    let vectors = normalize(module.valid().vectors.val());
    let trained = cosine(inputs, vectors);
    let val_accuracy = inputs.val_accuracy(&trained)?;
    Ok(Some(Fitted::new(trained, SelectionRule::Last, val_accuracy).with_epochs(epochs)))
}

/// A classifier of one normalised vector per class, `[N, P]`.
pub(super) fn cosine(inputs: &Inputs<'_>, vectors: Tensor<2>) -> TrainedClassifier {
    let classifier =
        Classifier::Cosine { projection_dim: inputs.cache.width, logit_scale: inputs.logit_scale };
    TrainedClassifier::new(Weights::ZeroShot(ZeroShot::new(vectors)), classifier)
}

/// Weight of each class's penalty: the mean, over its training images in all views, of their zero-shot probability.
fn multipliers(inputs: &Inputs<'_>, text: Tensor<2>) -> Result<Vec<f32>, Error> {
    let (cache, classes) = (inputs.cache, inputs.num_classes());
    let text = ZeroShot::new(normalize(text));
    let (mut sums, mut counts) = (vec![0.0f64; classes], vec![0u32; classes]);
    for view in cache.train.chunks_exact(cache.train_labels.len() * cache.width) {
        let logits = text.logits(cache.tensor(view, inputs.device), inputs.logit_scale);
        let probabilities = to_vec(softmax(logits, 1))?;
        for (row, &label) in probabilities.chunks_exact(classes).zip(&cache.train_labels) {
            sums[label] += f64::from(row[label]);
            counts[label] += 1;
        }
    }
    Ok(sums.iter().zip(&counts).map(|(sum, count)| (sum / f64::from((*count).max(1))) as f32).collect())
}
