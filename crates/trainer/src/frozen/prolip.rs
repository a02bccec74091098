//! ProLIP, "Fine-tuning CLIP's last visual projector" (Fahes et al., arXiv 2410.05270): CLIP's visual projection is trained
//! alone, on features before it, and held near its pre-trained weights.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use flier_model::{Classifier, ProLip, SelectionRule, TrainedClassifier, Weights, loss};
use pipeline_spec::spec::{AdapterTraining, Penalty, ProLipSpec};
use serde_json::json;

use super::steps::{Optimizer, Rate, Steps};
use super::{Fitted, Inputs, empty_grid, first_best};
use crate::parameters;
use crate::{Control, Error};

/// Adam with the authors' epsilon.
const ADAM: Optimizer = Optimizer::AdamW { epsilon: 1e-4, weight_decay: 0.0 };

/// Trains `projection` for each learning rate and penalty and keeps the best on the validation images; features are those
/// before the projection. `None` if `control` stopped the work.
///
/// # Errors
///
/// Fails if there are several settings and no validation image to choose by, or the loss stops being finite.
pub fn train(
    spec: &ProLipSpec,
    inputs: &Inputs<'_>,
    projection: &Linear,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let shots = f64::from(inputs.shots.max(1));
    let penalties = match &spec.penalty {
        Penalty::InverseShots => vec![1.0 / shots],
        Penalty::InverseShotsSquared => vec![1.0 / (shots * shots)],
        Penalty::Values { values } => values.clone(),
    };
    let count = penalties.len() * spec.learning_rate.len();
    let rule = inputs.rule_of("method.learning_rate", count)?;
    let (mut tried, mut log) = (Vec::new(), Vec::new());
    for &learning_rate in &spec.learning_rate {
        for &penalty in &penalties {
            let Some(fitted) = train_one(spec, inputs, projection, (learning_rate, penalty), rule, control)?
            else {
                return Ok(None);
            };
            log.push(json!({
                "learning_rate": learning_rate,
                "penalty": penalty,
                "val_accuracy": fitted.val_accuracy,
            }));
            tried.push(fitted);
        }
    }
    let best = first_best(tried, |fitted| fitted.val_accuracy);
    let best = best.ok_or_else(|| empty_grid("method.learning_rate"))?;
    Ok(Some(Fitted { log, ..best }))
}

fn train_one(
    spec: &ProLipSpec,
    inputs: &Inputs<'_>,
    projection: &Linear,
    (learning_rate, penalty): (f64, f64),
    rule: SelectionRule,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let batch_size = u32::try_from(inputs.cache.train_labels.len()).unwrap_or(u32::MAX);
    let training = AdapterTraining { epochs: spec.epochs, batch_size, learning_rate };
    let steps = Steps { training, rate: Rate::PerStep, optimizer: ADAM };
    let module = ProLip::new(projection.clone(), inputs.text_features.clone());
    let module = parameters::freeze(module.train(), |name| name != "projection.weight");
    let start = projection.weight.val().autodiff();
    let scale = inputs.logit_scale;
    let logits_loss = |module: &ProLip, features: Tensor<2>, targets: Tensor<2>| {
        let distance = (module.projection.weight.val() - start.clone()).powi_scalar(2).sum();
        loss::cross_entropy(module.logits(features, scale), targets) + distance.mul_scalar(penalty)
    };
    let Some((module, epochs)) = steps.train(inputs, module, logits_loss, control)? else { return Ok(None) };
    let [feature_dim, projection_dim] = projection.weight.dims();
    let classifier = Classifier::ProLip {
        feature_dim,
        projection_dim,
        has_bias: projection.bias.is_some(),
        logit_scale: scale,
    };
    let trained = TrainedClassifier::new(Weights::ProLip(module.valid()), classifier);
    let val_accuracy = inputs.val_accuracy(&trained)?;
    let mut fitted = Fitted::new(trained, rule, val_accuracy).with_epochs(epochs);
    fitted.settings.insert("learning_rate".to_owned(), learning_rate);
    fitted.settings.insert("penalty".to_owned(), penalty);
    Ok(Some(fitted))
}
