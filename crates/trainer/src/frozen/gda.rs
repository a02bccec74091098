//! Gaussian discriminant analysis beside the text classifier: "A hard-to-beat baseline" (Wang et al., ICLR 2024,
//! arXiv 2402.04087). Closed form: class means, and one covariance shrunk as Kubokawa and Srivastava estimate its inverse.

use burn::tensor::{Tensor, TensorData};
use flier_model::{Classifier, LinearProbe, SelectionRule, TrainedClassifier, Weights};
use pipeline_spec::spec::GdaSpec;
use serde_json::json;

use super::grid::accuracy_of_sum;
use super::{Fitted, Inputs, cholesky, empty_grid, first_best};
use crate::Error;
use crate::backbone::to_vec;
use crate::features::normalize_rows;

/// Adds `alpha` times the Gaussian's logits to the zero-shot logits; `alpha` is chosen on the validation images.
///
/// # Errors
///
/// Fails if there are several `alpha` and no validation image to choose by, or the covariance is not positive definite.
pub fn fit(spec: &GdaSpec, inputs: &Inputs<'_>) -> Result<Fitted, Error> {
    inputs.check_choice("method.alpha", spec.alpha.len())?;
    let (weight, bias) = gaussian(inputs)?;
    let text = inputs.text_features.clone().transpose().mul_scalar(inputs.logit_scale); // [P, N]
    let (num_val, zeros) = (inputs.plain.val_labels.len(), bias.zeros_like());
    let of = |weight: &Tensor<2>, bias: &Tensor<1>| match num_val {
        0 => Ok(Vec::new()),
        _ => to_vec(LinearProbe::new(weight.clone(), bias.clone()).logits(inputs.val_features())),
    };
    let (zero_shot, gaussian) = (of(&text, &zeros)?, of(&weight, &bias)?);
    let tried = spec
        .alpha
        .iter()
        .map(|&alpha| (alpha, accuracy_of_sum(&zero_shot, &gaussian, alpha, &inputs.plain.val_labels)));
    let tried: Vec<(f64, Option<f64>)> = tried.collect();
    let log = tried.iter().map(|(alpha, accuracy)| json!({ "alpha": alpha, "val_accuracy": accuracy }));
    let log = log.collect();
    let (alpha, accuracy) =
        first_best(tried, |(_, accuracy)| *accuracy).ok_or_else(|| empty_grid("method.alpha"))?;
    let probe = LinearProbe::new(text + weight.mul_scalar(alpha), bias.mul_scalar(alpha));
    let classifier = Classifier::Linear { projection_dim: inputs.cache.width };
    let trained = TrainedClassifier::new(Weights::LinearProbe(probe), classifier);
    let mut fitted = Fitted::new(trained, SelectionRule::ValGrid, accuracy);
    fitted.settings.insert("alpha".to_owned(), alpha);
    Ok(Fitted { log, ..fitted })
}

/// Weights `[P, N]` and biases `[N]` of the Gaussian classifier.
///
/// With S the scatter about the class means of all views, the inverse covariance is `P (S + tr(S) / (M - 1) I)^-1`.
fn gaussian(inputs: &Inputs<'_>) -> Result<(Tensor<2>, Tensor<1>), Error> {
    let (cache, classes) = (inputs.cache, inputs.num_classes());
    let width = cache.width;
    let mut features = cache.train.clone();
    normalize_rows(&mut features, width);
    let labels = || cache.train_labels.iter().copied().cycle();
    let mut means = vec![0.0f64; classes * width];
    let mut counts = vec![0.0f64; classes];
    for (row, label) in features.chunks_exact(width).zip(labels()) {
        counts[label] += 1.0;
        let mean = &mut means[label * width..(label + 1) * width];
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += f64::from(*value));
    }
    for (mean, count) in means.chunks_exact_mut(width).zip(&counts) {
        mean.iter_mut().for_each(|value| *value /= count.max(1.0));
    }
    for (row, label) in features.chunks_exact_mut(width).zip(labels()) {
        let mean = &means[label * width..(label + 1) * width];
        row.iter_mut().zip(mean).for_each(|(value, mean)| *value = (f64::from(*value) - mean) as f32);
    }
    let count = features.len() / width;
    let centred = inputs.matrix(features, width);
    let scatter = to_vec(centred.clone().transpose().matmul(centred))?;
    let mut matrix: Vec<f64> = scatter.into_iter().map(f64::from).collect();
    let trace: f64 = matrix.iter().step_by(width + 1).sum();
    let shrinkage = trace / (count as f64 - 1.0).max(1.0);
    let weight = if shrinkage > 0.0 {
        matrix.iter_mut().step_by(width + 1).for_each(|value| *value += shrinkage);
        let mut weight = cholesky::solve(matrix, &means).ok_or(Error::Covariance)?;
        weight.iter_mut().for_each(|value| *value *= width as f64);
        weight
    } else {
        // One view of one image per class: nothing is known of the spread (the pseudo-inverse of zero is zero).
        vec![0.0; classes * width]
    };
    let prior = (1.0 / classes as f64).ln();
    let rows = means.chunks_exact(width).zip(weight.chunks_exact(width));
    let product = |(mean, weight): (&[f64], &[f64])| mean.iter().zip(weight).map(|(m, w)| m * w).sum::<f64>();
    let bias: Vec<f32> = rows.map(|row| (prior - 0.5 * product(row)) as f32).collect();
    let weight: Vec<f32> = weight.iter().map(|value| *value as f32).collect();
    let weight = inputs.matrix(weight, width).transpose();
    Ok((weight, Tensor::from_data(TensorData::new(bias, [classes]), inputs.device)))
}
