//! APE-T (Zhu et al., ICCV 2023, arXiv 2304.01195): on the refined channels a trained residual per class moves both the
//! text feature and the cached images of the class, and each cached image has a trained weight.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clip_model::normalize;
use flier_model::{TipAdapter, loss};
use pipeline_spec::spec::ApeTSpec;

use super::ape::{class_sums, refined_channels};
use super::grid::CacheGrid;
use super::steps::{Optimizer, Rate, Steps};
use super::tip_adapter::cache_classifier;
use super::{Fitted, Inputs, empty_grid};
use crate::backbone::to_vec;
use crate::parameters;
use crate::{Control, Error};

/// AdamW as in the authors' configurations.
const ADAMW: Optimizer = Optimizer::AdamW { epsilon: 1e-3, weight_decay: 0.1 };

/// What is trained.
#[derive(Module, Debug)]
struct Residuals {
    /// Per class, on the refined channels, `[N, Q]`.
    residual: Param<Tensor<2>>,
    /// Per cached image, `[M, 1]`.
    value_weights: Param<Tensor<2>>,
}

/// Trains the residuals, then chooses `alpha` and `beta` on the validation images; `None` if `control` stopped the work.
///
/// # Errors
///
/// Fails if there are several pairs and no validation image to choose by, or the loss stops being finite.
pub fn train(
    spec: &ApeTSpec,
    inputs: &Inputs<'_>,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    inputs.check_choice("method.alpha", spec.alpha.len() * spec.beta.len())?;
    let (width, labels) = (inputs.cache.width, &inputs.cache.train_labels);
    let text = to_vec(inputs.text_features.clone())?;
    // As in the authors' code the trained form looks at the text features alone.
    let channels = refined_channels(&spec.channels, &text, &class_sums(inputs, &text, None));
    let mut spread = vec![0.0f32; channels.len() * width];
    channels.iter().enumerate().for_each(|(at, channel)| spread[at * width + channel] = 1.0);
    let spread = inputs.matrix(spread, width); // [Q, P]
    let keys = inputs.matrix(inputs.mean_keys(), width);
    let one_hot = loss::smoothed_targets(labels, inputs.num_classes(), 0.0, inputs.device);
    let indices = |device: &Device| {
        let labels: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
        Tensor::<1, Int>::from_data(TensorData::new(labels, [inputs.cache.train_labels.len()]), device)
    };

    let module = Residuals {
        residual: Param::from_tensor(Tensor::zeros([inputs.num_classes(), channels.len()], inputs.device)),
        value_weights: Param::from_tensor(Tensor::ones([labels.len(), 1], inputs.device)),
    };
    let module = parameters::freeze(module.train(), |_| false);
    let (graph_text, graph_keys) = (inputs.text_features.clone().autodiff(), keys.clone().autodiff());
    let (graph_spread, graph_one_hot) = (spread.clone().autodiff(), one_hot.clone().autodiff());
    let graph_indices = indices(&inputs.device.clone().autodiff());
    let (alpha, beta, scale) = (spec.initial_alpha, spec.initial_beta, inputs.logit_scale);
    let logits_loss = |module: &Residuals, features: Tensor<2>, targets: Tensor<2>| {
        let features = normalize(features);
        let moved = module.residual.val().matmul(graph_spread.clone()); // [N, P]
        let shift = features.clone().matmul(moved.transpose()); // [B, N]
        let text = features.clone().matmul(graph_text.clone().transpose()) + shift.clone();
        // A residual shifts the affinity with every cached image of its class by the same amount.
        let affinity =
            features.matmul(graph_keys.clone().transpose()) + shift.select(1, graph_indices.clone());
        let values = graph_one_hot.clone() * module.value_weights.val();
        let cache = affinity.sub_scalar(1.0).mul_scalar(beta).exp().matmul(values);
        loss::cross_entropy(text.mul_scalar(scale) + cache.mul_scalar(alpha), targets)
    };
    let steps = Steps { training: spec.training, rate: Rate::PerStep, optimizer: ADAMW };
    let Some((module, epochs)) = steps.train(inputs, module, logits_loss, control)? else { return Ok(None) };

    let module = module.valid();
    let moved = module.residual.val().matmul(spread);
    let keys = keys + moved.clone().select(0, indices(inputs.device));
    let weights = module.value_weights.val();
    let text = inputs.text_features.clone() + moved;
    let adapter = TipAdapter::new(keys, one_hot * weights.clone(), text);
    let grid = CacheGrid::new(inputs, &adapter, labels)?;
    let chosen = grid.choose(&spec.alpha, &spec.beta, &[to_vec(weights)?]);
    let chosen = chosen.ok_or_else(|| empty_grid("method.alpha"))?;
    Ok(Some(cache_classifier(inputs, adapter, chosen, epochs)))
}
