//! Convolutions with a norm behind them, and pooling.

use burn::module::{Module, Param, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::module::avg_pool2d;
use burn::tensor::ops::AvgPoolOptions;
use burn::tensor::{Device, Tensor};

use crate::{assert_close, assert_same, devices, random};

/// One convolution: batch, rows, columns, channels in and out, kernel, stride, padding.
#[derive(Debug, Clone, Copy)]
struct Case {
    image: [usize; 4],
    output: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
}

const fn case(image: [usize; 4], output: usize, kernel: usize, stride: usize, padding: usize) -> Case {
    Case { image, output, kernel, stride, padding }
}

const CASES: [Case; 8] = [
    case([1, 1, 1, 1], 1, 1, 1, 0),
    case([2, 5, 4, 3], 7, 3, 1, 1),
    case([1, 9, 7, 20], 33, 3, 1, 1),
    case([2, 8, 8, 3], 16, 3, 2, 1),
    case([3, 7, 7, 40], 24, 1, 1, 0),
    case([2, 6, 5, 300], 9, 1, 1, 0),
    case([1, 12, 12, 64], 64, 3, 1, 1),
    case([1, 8, 8, 5], 6, 2, 2, 0),
];

/// A parameter that is the tensor itself, so that gradients reach what it was made of.
fn param<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    Param::initialized(ParamId::new(), tensor)
}

fn conv(case: Case, weight: Tensor<4>) -> Conv2d {
    let padding = PaddingConfig2d::Explicit(case.padding, case.padding, case.padding, case.padding);
    let mut conv = Conv2dConfig::new([case.image[3], case.output], [case.kernel; 2])
        .with_stride([case.stride; 2])
        .with_padding(padding)
        .with_bias(false)
        .init(&weight.device());
    conv.weight = param(weight);
    conv
}

fn norm(gamma: Tensor<1>, beta: Tensor<1>) -> BatchNorm {
    let (device, count) = (gamma.device(), gamma.dims()[0]);
    let mut norm = BatchNormConfig::new(count).init(&device);
    let plain = backend::test_device();
    norm.running_mean.update(random([count], 51, &plain).to_device(&device));
    norm.running_var.update((random([count], 52, &plain) + 1.5).to_device(&device));
    (norm.gamma, norm.beta) = (param(gamma), param(beta));
    norm
}

/// Channels-last to channels-first.
fn first(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}

fn last(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 2, 3, 1])
}

fn composed(
    conv: &Conv2d,
    norm: &BatchNorm,
    x: Tensor<4>,
    residual: Option<Tensor<4>>,
    rectify: bool,
) -> Tensor<4> {
    let y = last(norm.forward(conv.forward(first(x))));
    let y = match residual {
        Some(residual) => y + residual,
        None => y,
    };
    if rectify { relu(y) } else { y }
}

/// Input, weight, factor, summand, residual; the vectors as `[1, 1, 1, O]`.
fn operands(case: Case, device: &Device) -> [Tensor<4>; 5] {
    let Case { image, output, kernel, stride, padding } = case;
    let size = |size: usize| (size + 2 * padding - kernel) / stride + 1;
    let vector = [1, 1, 1, output];
    [
        random(image, 1, device),
        random([output, image[3], kernel, kernel], 2, device),
        random(vector, 3, device) + 1.5,
        random(vector, 4, device),
        random([image[0], size(image[1]), size(image[2]), output], 5, device),
    ]
}

fn vector(x: &Tensor<4>) -> Tensor<1> {
    let [_, _, _, count] = x.dims();
    x.clone().reshape([count])
}

#[test]
fn conv_norm_equals_the_composition_with_running_and_with_batch_statistics() {
    let [plain, _] = devices();
    for case in CASES {
        for (training, rectify, with_residual) in [
            (false, true, true),
            (false, false, false),
            (true, true, true),
            (true, true, false),
            (true, false, true),
        ] {
            // One value has no deviation, and its gradient is rounding alone.
            if training && case.image[..3] == [1, 1, 1] {
                continue;
            }
            let layers = |o: &[Tensor<4>]| {
                let norm = norm(vector(&o[2]), vector(&o[3]));
                let norm = if training { norm } else { norm.freeze_statistics() };
                (conv(case, o[1].clone()), norm, with_residual.then(|| o[4].clone()))
            };
            let operands = operands(case, &plain);
            let count = if with_residual { 5 } else { 4 };
            assert_same(
                &operands[..count],
                // A batch norm's gradient is a difference of sums over the batch.
                if training { 1e-4 } else { 2e-5 },
                &format!("{case:?}, training {training}, relu {rectify}, residual {with_residual}"),
                |o| {
                    let (conv, norm, residual) = layers(o);
                    fused_ops::conv_norm(&conv, &norm, o[0].clone(), residual, rectify)
                },
                |o| {
                    let (conv, norm, residual) = layers(o);
                    composed(&conv, &norm, o[0].clone(), residual, rectify)
                },
            );
        }
    }
}

/// A batch norm that keeps its running statistics although its parameters are trained.
trait FreezeStatistics {
    fn freeze_statistics(self) -> Self;
}

impl FreezeStatistics for BatchNorm {
    fn freeze_statistics(mut self) -> Self {
        self.training = Param::from_bool(false);
        self
    }
}

#[test]
fn running_statistics_move_as_the_norm_of_burn_moves_them() {
    let [_, recording] = devices();
    let case = CASES[2];
    let [x, weight, gamma, beta, _] = operands(case, &recording);
    let conv = conv(case, weight);
    let [ours, theirs] = [0, 1].map(|_| norm(vector(&gamma), vector(&beta)));
    for _ in 0..3 {
        fused_ops::conv_norm(&conv, &ours, x.clone(), None, true);
        composed(&conv, &theirs, x.clone(), None, true);
    }
    for (ours, theirs) in
        [(&ours.running_mean, &theirs.running_mean), (&ours.running_var, &theirs.running_var)]
    {
        assert_close(ours.value_sync().inner(), theirs.value_sync().inner(), 1e-5, "running statistics");
    }
}

#[test]
fn a_frozen_norm_keeps_its_running_statistics() {
    let [_, recording] = devices();
    let case = CASES[2];
    let [x, weight, gamma, beta, _] = operands(case, &recording);
    let (conv, norm) = (conv(case, weight), norm(vector(&gamma), vector(&beta)).freeze());
    let before = norm.running_mean.value_sync();
    let fused = fused_ops::conv_norm(&conv, &norm, x.clone(), None, true);
    assert_close(norm.running_mean.value_sync().inner(), before.inner(), 0.0, "running mean");
    assert_close(fused.inner(), composed(&conv, &norm, x, None, true).inner(), 2e-5, "frozen norm");
}

#[test]
fn a_mean_far_from_zero_costs_the_variance_no_digits() {
    let [_, recording] = devices();
    let case = case([4, 16, 16, 8], 8, 1, 1, 0);
    let [x, weight, gamma, beta, _] = operands(case, &recording);
    let (conv, x) = (conv(case, weight), x * 1e-2 + 30.0);
    let [ours, theirs] = [0, 1].map(|_| norm(vector(&gamma), vector(&beta)));
    let fused = fused_ops::conv_norm(&conv, &ours, x.clone(), None, false);
    // The deviation is a thousandth of the mean: three digits of the inputs are gone before any norm.
    assert_close(fused.inner(), composed(&conv, &theirs, x, None, false).inner(), 2e-3, "far mean");
}

#[test]
fn average_pool_equals_the_composition() {
    let [plain, _] = devices();
    for (image, size) in
        [([1, 2, 2, 1], 2), ([2, 6, 4, 5], 2), ([1, 7, 5, 33], 2), ([1, 9, 9, 3], 3), ([1, 3, 3, 2], 1)]
    {
        assert_same(
            &[random(image, 1, &plain)],
            1e-6,
            &format!("{image:?} by {size}"),
            |o| fused_ops::average_pool(o[0].clone(), size),
            |o| last(avg_pool2d(first(o[0].clone()), AvgPoolOptions::new([size, size]))),
        );
    }
}

#[test]
fn a_view_of_a_channels_first_image_is_taken_as_it_is() {
    let [plain, _] = devices();
    let case = CASES[1];
    let [x, weight, gamma, beta, _] = operands(case, &plain);
    let (conv, norm) = (conv(case, weight), norm(vector(&gamma), vector(&beta)));
    let [batch, rows, columns, channels] = case.image;
    let image = x.reshape([batch, channels, rows, columns]); // channels-first memory
    let fused = fused_ops::conv_norm(&conv, &norm, last(image.clone()), None, true);
    assert_close(fused, composed(&conv, &norm, last(image), None, true), 2e-5, "permuted view");
}
