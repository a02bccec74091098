//! CLIP-Adapter (Gao et al., arXiv 2110.04544): a bottleneck of two layers beside the image feature.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use flier_model::init::default_linear;
use flier_model::{Classifier, ClipAdapter, TrainedClassifier, Weights, loss};
use pipeline_spec::spec::ClipAdapterSpec;
use serde_json::json;

use super::steps::{Optimizer, Rate, Steps};
use super::{Fitted, Inputs, empty_grid, first_best};
use crate::parameters;
use crate::random::stream;
use crate::{Control, Error};

/// The layers before training, with PyTorch's default weights.
pub fn initial_layers(spec: &ClipAdapterSpec, inputs: &Inputs<'_>) -> [Linear; 2] {
    let (width, device) = (inputs.cache.width, inputs.device);
    let hidden = (width / spec.reduction.max(1) as usize).max(1);
    let mut rng = stream(inputs.seed, "init", &[]);
    [default_linear(width, hidden, device, &mut rng), default_linear(hidden, width, device, &mut rng)]
}

/// Trains one bottleneck from `layers` for each ratio and keeps the best on the validation images; `None` if `control`
/// stopped the work.
///
/// # Errors
///
/// Fails if there are several ratios and no validation image to choose by, or the loss stops being finite.
pub fn train(
    spec: &ClipAdapterSpec,
    inputs: &Inputs<'_>,
    layers: &[Linear; 2],
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let rule = inputs.rule_of("method.ratio", spec.ratio.len())?;
    let steps = Steps {
        training: spec.training,
        rate: Rate::PerEpoch,
        optimizer: Optimizer::Sgd { weight_decay: 0.0 },
    };
    let (scale, [down, up]) = (inputs.logit_scale, layers);
    let (mut tried, mut log) = (Vec::new(), Vec::new());
    for &ratio in &spec.ratio {
        let adapter = ClipAdapter::new(down.clone(), up.clone(), inputs.text_features.clone());
        let adapter = parameters::freeze(adapter.train(), |name| name.starts_with("classifier"));
        let logits_loss = |adapter: &ClipAdapter, features: Tensor<2>, targets: Tensor<2>| {
            loss::cross_entropy(adapter.logits(features, scale, ratio), targets)
        };
        let Some((adapter, epochs)) = steps.train(inputs, adapter, logits_loss, control)? else {
            return Ok(None);
        };
        let [projection_dim, hidden_dim] = down.weight.dims();
        let classifier = Classifier::ClipAdapter { projection_dim, hidden_dim, logit_scale: scale, ratio };
        let trained = TrainedClassifier::new(Weights::ClipAdapter(adapter.valid()), classifier);
        let val_accuracy = inputs.val_accuracy(&trained)?;
        log.push(json!({ "ratio": ratio, "val_accuracy": val_accuracy }));
        tried.push(Fitted::new(trained, rule, val_accuracy).with_epochs(epochs));
    }
    let best = first_best(tried, |fitted| fitted.val_accuracy).ok_or_else(|| empty_grid("method.ratio"))?;
    Ok(Some(Fitted { log, ..best }))
}
