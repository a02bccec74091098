//! Convolution and batch norm, by the state of the norm.

use burn::backend::Dispatch;
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;

use crate::extension::FusedOps;
use crate::layers::geometry;
use crate::maybe;

/// `relu(norm(conv(x)) + residual)`, without the rectifier unless `relu`.
///
/// The norm takes the batch's own statistics, and moves its running ones, exactly when burn's `BatchNorm` would: on an
/// autodiff device with its flag on. Otherwise it is a factor and a summand per channel.
///
/// # Shapes
///
/// - `x`: `[B, H, W, C]`
/// - `residual` and output: `[B, H', W', O]`
///
/// # Panics
///
/// Panics if the convolution has a bias, groups or dilation, or pads unevenly.
pub fn conv_norm(
    conv: &Conv2d,
    norm: &BatchNorm,
    x: Tensor<4>,
    residual: Option<Tensor<4>>,
    relu: bool,
) -> Tensor<4> {
    assert!(conv.bias.is_none(), "a convolution before a batch norm has no bias");
    let shape = geometry(conv);
    let device = x.device();
    let weight = conv.weight.val().into_dispatch();
    let (gamma, beta) = (norm.gamma.val(), norm.beta.val());
    if !(device.is_autodiff() && norm.training.is_enabled()) {
        let mean = norm.running_mean.value().to_device(&device);
        let variance = norm.running_var.value().to_device(&device);
        let scale = gamma / (variance + norm.epsilon).sqrt();
        let shift = beta - mean * scale.clone();
        let (scale, shift) = (scale.into_dispatch(), shift.into_dispatch());
        let x = x.into_dispatch();
        return Tensor::from_dispatch(Dispatch::conv_affine(
            x,
            weight,
            scale,
            shift,
            maybe(residual),
            shape,
            relu,
        ));
    }
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    let (output, mean, variance) = Dispatch::conv_batch_norm(
        x.into_dispatch(),
        weight,
        gamma,
        beta,
        maybe(residual),
        shape,
        norm.epsilon,
        relu,
    );
    let keep = 1.0 - norm.momentum;
    let moved = |running: Tensor<1>, batch: Tensor<1>| {
        (running.to_device(&device) * keep + batch.detach() * norm.momentum).detach()
    };
    norm.running_mean.update(moved(norm.running_mean.value_sync(), Tensor::from_dispatch(mean)));
    norm.running_var.update(moved(norm.running_var.value_sync(), Tensor::from_dispatch(variance)));
    Tensor::from_dispatch(output)
}
