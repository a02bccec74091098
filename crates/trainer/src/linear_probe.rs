//! Logistic regression on frozen features.

use std::ops::ControlFlow;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use flier_model::LinearProbe;
use pipeline_spec::spec::LinearProbeSpec;
use serde_json::json;

use crate::backbone::accuracy;
use crate::features::{TrainingFeatures, normalize_rows};
use crate::lbfgs::{Regression, Samples, fit};
use crate::{Control, Error};

/// A fitted probe.
#[derive(Debug)]
pub struct Fitted {
    /// The classifier.
    pub probe: LinearProbe,
    /// The chosen `C`.
    pub c: f64,
    /// Its accuracy on the validation images.
    pub val_accuracy: Option<f64>,
    /// Mean cross entropy over the training images.
    pub loss: f64,
    /// One object per `C` tried.
    pub log: Vec<serde_json::Value>,
}

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
    let (regression, c, val_accuracy) = best.ok_or_else(|| pipeline_spec::Error::Field {
        field: "method.inverse_regularization".to_owned(),
        problem: "expected at least one value, found `[]`".to_owned(),
    })?;
    let probe = LinearProbe { classifier: linear_of(&regression, width, num_classes, device) };
    Ok(Some(Fitted { probe, c, val_accuracy, loss: regression.loss(samples), log }))
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
