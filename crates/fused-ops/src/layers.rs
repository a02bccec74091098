//! Layers of burn on channels-last features.

use burn::backend::Dispatch;
use burn::nn::conv::Conv2d;
use burn::nn::{GroupNorm, PaddingConfig2d};
use burn::tensor::Tensor;

use crate::extension::{Activation, Convolution, FusedOps};
use crate::maybe;

/// `conv(x) + residual`.
///
/// # Shapes
///
/// - `x`: `[B, H, W, C]`
/// - `residual` and output: `[B, H', W', O]`
///
/// # Panics
///
/// Panics if the convolution has groups or dilation, or pads unevenly.
pub fn conv(conv: &Conv2d, x: Tensor<4>, residual: Option<Tensor<4>>) -> Tensor<4> {
    let weight = conv.weight.val();
    let [channels, ..] = weight.dims();
    let like = (&weight.device(), weight.dtype());
    let scale = Tensor::<1>::ones([channels], like);
    let shift = match &conv.bias {
        Some(bias) => bias.val(),
        None => Tensor::zeros([channels], like),
    };
    let (scale, shift) = (scale.into_dispatch(), shift.into_dispatch());
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let shape = geometry(conv);
    Tensor::from_dispatch(Dispatch::conv_affine(x, weight, scale, shift, maybe(residual), shape, false))
}

/// `activation(norm(x))`; the statistics are f32 in every precision.
///
/// # Shapes
///
/// - `x` and output: `[B, .., C]`
///
/// # Panics
///
/// Panics if the norm has no factor and summand.
pub fn group_norm<const D: usize>(norm: &GroupNorm, x: Tensor<D>, activation: Activation) -> Tensor<D> {
    let (Some(gamma), Some(beta)) = (&norm.gamma, &norm.beta) else {
        panic!("a fused group norm has a factor and a summand per channel");
    };
    let (gamma, beta) = (gamma.val().into_dispatch(), beta.val().into_dispatch());
    let (groups, epsilon) = (norm.num_groups, norm.epsilon);
    Tensor::from_dispatch(Dispatch::fused_group_norm(
        x.into_dispatch(),
        gamma,
        beta,
        groups,
        epsilon,
        activation,
    ))
}

/// The shape of a convolution that the fused operations know.
pub(crate) fn geometry(conv: &Conv2d) -> Convolution {
    let [_, _, rows, columns] = conv.weight.shape().dims();
    let padding = match conv.padding {
        PaddingConfig2d::Valid => [0, 0],
        PaddingConfig2d::Explicit(top, left, bottom, right) if top == bottom && left == right => [top, left],
        ref padding => panic!("a fused convolution pads opposite sides alike, not {padding:?}"),
    };
    assert!(conv.groups == 1 && conv.dilation == [1, 1], "a fused convolution has no groups or dilation");
    Convolution { kernel: [rows, columns], stride: conv.stride, padding }
}
