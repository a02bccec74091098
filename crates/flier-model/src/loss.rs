//! Cross entropy with label smoothing, and FLIER's loss over both branches.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

/// Smoothed one-hot targets `[B, N]`: `1 - smoothing + smoothing / N` at the label, `smoothing / N` elsewhere.
///
/// With them [`cross_entropy`] equals timm's label-smoothed form
/// `(1 - e) * (-log p_y) + e * (-(1/N) * sum_c log p_c)`.
///
/// # Panics
///
/// Panics if a label is not below `num_classes`: labels are checked where rows are read.
pub fn smoothed_targets(labels: &[usize], num_classes: usize, smoothing: f64, device: &Device) -> Tensor<2> {
    let off = (smoothing / num_classes as f64) as f32;
    let on = (1.0 - smoothing + smoothing / num_classes as f64) as f32;
    let mut values = vec![off; labels.len() * num_classes];
    for (row, &label) in labels.iter().enumerate() {
        assert!(label < num_classes, "label {label} is below the number of classes {num_classes}");
        values[row * num_classes + label] = on;
    }
    Tensor::from_data(TensorData::new(values, [labels.len(), num_classes]), device)
}

/// Mean over the batch of the cross entropy between `logits` `[B, N]` and `targets` `[B, N]`; a tensor of one value.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    (log_softmax(logits, 1) * targets).sum().mul_scalar(-1.0 / batch as f64)
}

/// FLIER's loss on generated samples: `(1 - latent_factor) * CE(image) + latent_factor * CE(latent)`, from the cross
/// entropies of the two branches on the same samples, a tensor of one value each.
pub fn combine(image_loss: Tensor<1>, latent_loss: Tensor<1>, latent_factor: f64) -> Tensor<1> {
    image_loss.mul_scalar(1.0 - latent_factor) + latent_loss.mul_scalar(latent_factor)
}
