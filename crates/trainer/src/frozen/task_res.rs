//! TaskRes, "Task residual for tuning vision-language models" (Yu et al., CVPR 2023, arXiv 2211.10277): a trained residual
//! on the text features.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use clip_model::normalize;
use flier_model::loss;
use pipeline_spec::spec::TaskResSpec;
use serde_json::json;

use super::clap::cosine;
use super::steps::{Optimizer, Rate, Steps};
use super::{Fitted, Inputs, empty_grid, first_best};
use crate::parameters;
use crate::{Control, Error};

/// Adam with PyTorch's epsilon, and Dassl's default weight decay of 5e-4 left out: the authors' residual starts at zero.
const ADAM: Optimizer = Optimizer::AdamW { epsilon: 1e-8, weight_decay: 0.0 };

/// The residual, `[N, P]`.
#[derive(Module, Debug)]
struct Residual {
    vectors: Param<Tensor<2>>,
}

/// Trains one residual for each scale and keeps the best on the validation images; `mean_text_features` `[N, P]` are means
/// of text features that are not normalised, as in the authors' code. `None` if `control` stopped the work.
///
/// # Errors
///
/// Fails if there are several scales and no validation image to choose by, or the loss stops being finite.
pub fn train(
    spec: &TaskResSpec,
    inputs: &Inputs<'_>,
    mean_text_features: Tensor<2>,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let rule = inputs.rule_of("method.residual_scale", spec.residual_scale.len())?;
    let steps = Steps { training: spec.training, rate: Rate::PerEpoch, optimizer: ADAM };
    let base = mean_text_features.clone().autodiff();
    let scale = inputs.logit_scale;
    let (mut tried, mut log) = (Vec::new(), Vec::new());
    for &residual_scale in &spec.residual_scale {
        let logits_loss = |module: &Residual, features: Tensor<2>, targets: Tensor<2>| {
            let text = normalize(base.clone() + module.vectors.val().mul_scalar(residual_scale));
            let logits = normalize(features).matmul(text.transpose()).mul_scalar(scale);
            loss::cross_entropy(logits, targets)
        };
        let module = Residual { vectors: Param::from_tensor(mean_text_features.zeros_like()) };
        let module = parameters::freeze(module.train(), |_| false);
        let Some((module, epochs)) = steps.train(inputs, module, logits_loss, control)? else {
            return Ok(None);
        };
        let residual = module.valid().vectors.val().mul_scalar(residual_scale);
        let trained = cosine(inputs, normalize(mean_text_features.clone() + residual));
        let val_accuracy = inputs.val_accuracy(&trained)?;
        log.push(json!({ "residual_scale": residual_scale, "val_accuracy": val_accuracy }));
        let mut fitted = Fitted::new(trained, rule, val_accuracy).with_epochs(epochs);
        fitted.settings.insert("residual_scale".to_owned(), residual_scale);
        tried.push(fitted);
    }
    let best = first_best(tried, |fitted| fitted.val_accuracy);
    let best = best.ok_or_else(|| empty_grid("method.residual_scale"))?;
    Ok(Some(Fitted { log, ..best }))
}
