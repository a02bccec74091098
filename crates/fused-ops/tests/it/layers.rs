//! Convolutions with a bias, group norms and SiLU.

use burn::module::{Param, ParamId};
use burn::nn::conv::Conv2dConfig;
use burn::nn::{GroupNorm, GroupNormConfig, PaddingConfig2d};
use burn::tensor::Tensor;
use burn::tensor::activation::silu;
use fused_ops::Activation;

use crate::{assert_close, assert_same, devices, random};

/// A parameter that is the tensor itself, so that gradients reach what it was made of.
fn param<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    Param::initialized(ParamId::new(), tensor)
}

fn norm(num_groups: usize, gamma: &Tensor<4>, beta: &Tensor<4>) -> GroupNorm {
    let vector = |x: &Tensor<4>| x.clone().flatten::<1>(0, 3);
    let mut norm = GroupNormConfig::new(num_groups, gamma.shape().num_elements()).init(&gamma.device());
    (norm.gamma, norm.beta) = (Some(param(vector(gamma))), Some(param(vector(beta))));
    norm
}

#[test]
fn a_group_norm_is_burns_with_the_channels_last() {
    let [plain, _] = devices();
    // More rows than one task has, groups of one channel, a width that is no multiple of a vector's.
    for ([batch, height, width, channels], num_groups) in
        [([2, 3, 4, 6], 2), ([1, 11, 13, 20], 4), ([2, 5, 5, 3], 3), ([3, 2, 2, 64], 32), ([2, 9, 8, 37], 1)]
    {
        let operands = [
            random([batch, height, width, channels], 1, &plain) * 3.0 + 5.0,
            random([1, 1, 1, channels], 2, &plain),
            random([1, 1, 1, channels], 3, &plain),
        ];
        for activation in [Activation::Identity, Activation::Silu] {
            let what = format!("{num_groups} groups of {channels} channels, {activation:?}");
            let fused = |operands: &[Tensor<4>]| {
                let norm = norm(num_groups, &operands[1], &operands[2]);
                fused_ops::group_norm(&norm, operands[0].clone(), activation)
            };
            let composed = |operands: &[Tensor<4>]| {
                let norm = norm(num_groups, &operands[1], &operands[2]);
                let y = norm.forward(operands[0].clone().permute([0, 3, 1, 2]));
                let y = if activation == Activation::Silu { silu(y) } else { y };
                y.permute([0, 2, 3, 1])
            };
            // The mean is twice the deviation here and cancels: some digits fewer than elsewhere.
            assert_same(&operands, 3e-5, &what, fused, composed);
        }
    }
}

#[test]
fn a_group_norm_keeps_its_digits_far_from_zero() {
    let [plain, _] = devices();
    let x: Tensor<4> = random([1, 40, 40, 8], 1, &plain);
    let unit = Tensor::<4>::ones([1, 1, 1, 8], &plain);
    let norm = norm(2, &unit, &(unit.clone() * 0.0));
    let near = fused_ops::group_norm(&norm, x.clone(), Activation::Identity);
    let far = fused_ops::group_norm(&norm, x + 100.0, Activation::Identity);
    // Adding 100 rounds every number to 2^-17 of the deviation; a sum of squares would lose all but three digits.
    assert_close(far, near, 3e-5, "a hundred deviations from zero");
}

#[test]
fn a_convolution_adds_bias_and_residual() {
    let [plain, _] = devices();
    for (image, output, kernel, stride, padding, with_residual) in [
        ([2, 5, 6, 3], 7, 3, 1, 1, true),
        ([1, 8, 8, 20], 33, 3, 2, 1, false),
        ([2, 4, 3, 40], 24, 1, 1, 0, true),
        ([1, 9, 9, 4], 5, 3, 2, 0, false),
    ] {
        let [batch, height, width, channels] = image;
        let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        let operands = [
            random(image, 1, &plain),
            random([output, channels, kernel, kernel], 2, &plain),
            random([1, 1, 1, output], 3, &plain),
            random([batch, out(height), out(width), output], 4, &plain),
        ];
        let conv = |operands: &[Tensor<4>]| {
            let mut conv = Conv2dConfig::new([channels, output], [kernel; 2])
                .with_stride([stride; 2])
                .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
                .init(&operands[0].device());
            conv.weight = param(operands[1].clone());
            conv.bias = Some(param(operands[2].clone().flatten::<1>(0, 3)));
            conv
        };
        let used = if with_residual { 4 } else { 3 };
        let residual = |operands: &[Tensor<4>]| operands.get(3).cloned();
        let fused = |operands: &[Tensor<4>]| {
            fused_ops::conv(&conv(operands), operands[0].clone(), residual(operands))
        };
        let composed = |operands: &[Tensor<4>]| {
            let y = conv(operands).forward(operands[0].clone().permute([0, 3, 1, 2])).permute([0, 2, 3, 1]);
            residual(operands).map_or(y.clone(), |residual| y + residual)
        };
        assert_same(&operands[..used], 1e-5, &format!("{image:?} to {output}"), fused, composed);
    }
}

#[test]
fn silu_is_burns() {
    let [plain, _] = devices();
    let x: Tensor<2> = random([7, 37], 1, &plain) * 20.0;
    let fused = |x: &[Tensor<2>]| fused_ops::activate(x[0].clone(), Activation::Silu);
    assert_same(&[x], 1e-5, "silu", fused, |x: &[Tensor<2>]| silu(x[0].clone()));
}
