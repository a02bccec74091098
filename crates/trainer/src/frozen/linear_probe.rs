//! Logistic regression on frozen features.

use std::ops::ControlFlow;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use flier_model::{Classifier, LinearProbe, SelectionRule, TrainedClassifier, Weights};
use pipeline_spec::spec::LinearProbeSpec;
use serde_json::json;

use super::lbfgs::{Regression, Samples, fit};
use super::{Fitted, empty_grid};
use crate::backbone::accuracy;
use crate::features::{TrainingFeatures, normalize_rows};
use crate::{Control, Error};

/// Fits one regression per `C` on normalised features and keeps the one with the best validation accuracy, the first of
/// equals; `None` if `control` stopped the work.
///
/// # Errors
///
/// Fails if there are several `C` and no validation image to choose by.
pub fn train(
    spec: &LinearProbeSpec,
    mut features: TrainingFeatures,
    num_classes: usize,
    device: &Device,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    if features.val_labels.is_empty() && spec.inverse_regularization.len() > 1 {
        let remedy = "give one value or draw a list with validation images";
        return Err(Error::NoValidation { field: "method.inverse_regularization", remedy });
    }
    let width = features.width;
    normalize_rows(&mut features.train, width);
    normalize_rows(&mut features.val, width);
    let samples = Samples { features: &features.train, labels: &features.train_labels, width, num_classes };
    let mut best: Option<(Regression, f64, Option<f64>)> = None;
    let mut log = Vec::new();
    let total = spec.inverse_regularization.len() as u64;
    for (index, &c) in spec.inverse_regularization.iter().enumerate() {
        let regression = fit(samples, c, spec.max_iterations);
        if control(index as u64 + 1, total) == ControlFlow::Break(()) {
            return Ok(None);
        }
        let val_accuracy = accuracy(&regression.predict(&features.val), &features.val_labels);
        log.push(json!({
            "inverse_regularization": c,
            "iterations": regression.iterations,
            "loss": regression.loss(samples),
            "val_accuracy": val_accuracy,
        }));
        if best.as_ref().is_none_or(|(_, _, accuracy)| val_accuracy > *accuracy) {
            best = Some((regression, c, val_accuracy));
        }
    }
    let (regression, c, val_accuracy) = best.ok_or_else(|| empty_grid("method.inverse_regularization"))?;
    let probe = LinearProbe { classifier: linear_of(&regression, width, num_classes, device) };
    let classifier = Classifier::LinearProbe { projection_dim: width, inverse_regularization: c };
    let trained = TrainedClassifier::new(Weights::LinearProbe(probe), classifier);
    let final_loss = Some(regression.loss(samples));
    Ok(Some(Fitted { final_loss, log, ..Fitted::new(trained, SelectionRule::ValGrid, val_accuracy) }))
}

fn linear_of(regression: &Regression, width: usize, num_classes: usize, device: &Device) -> Linear {
    let weights: Vec<f32> = regression.weights().iter().map(|w| *w as f32).collect();
    let biases: Vec<f32> = regression.biases().iter().map(|b| *b as f32).collect();
    let weight = Tensor::<2>::from_data(TensorData::new(weights, [num_classes, width]), device).transpose();
    Linear {
        weight: Param::from_tensor(weight),
        bias: Some(Param::from_data(TensorData::new(biases, [num_classes]), device)),
    }
}
