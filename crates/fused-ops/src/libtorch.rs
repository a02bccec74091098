//! libtorch's own kernels where burn's operations would take several.
//!
//! A backward pass without a kernel of its own in `tch` is libtorch's autograd over that one operation.

use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;
use tch::Tensor;

use crate::composed;
use crate::extension::{Activation, Convolution, FusedOps, Maybe, Recorded, Training};

/// The factor inside quick-gelu.
const QUICK_GELU: f64 = composed::QUICK_GELU as f64;

type Primitive = FloatTensor<LibTorch>;

impl FusedOps for LibTorch {
    fn fused_linear(
        x: Primitive,
        weight: Primitive,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        activation: Activation,
    ) -> Primitive {
        let bias = bias.into_option().map(|bias| bias.tensor);
        let mut y = x.tensor.linear(&weight.tensor.tr(), bias);
        if let Maybe::Given(residual) = residual {
            y = y.g_add_(&residual.tensor);
        }
        Self::activate(Primitive::new(y), activation)
    }

    fn activate(x: Primitive, activation: Activation) -> Primitive {
        match activation {
            // silu(1.702 x) / 1.702: two passes in place after the first.
            Activation::QuickGelu => {
                Primitive::new((x.tensor * QUICK_GELU).silu_().g_div_scalar_(QUICK_GELU))
            }
            Activation::Silu => Primitive::new(x.tensor.silu()),
            other => composed::activate::<Self>(x, other),
        }
    }

    fn conv_affine(
        x: Primitive,
        weight: Primitive,
        scale: Primitive,
        shift: Primitive,
        residual: Maybe<Self>,
        shape: Convolution,
        relu: bool,
    ) -> Primitive {
        let weight = weight.tensor * scale.tensor.view([-1, 1, 1, 1]);
        let mut y = last(&convolve(&x.tensor, &weight, Some(&shift.tensor), shape));
        if let Maybe::Given(residual) = residual {
            y = y.g_add_(&residual.tensor);
        }
        Primitive::new(if relu { y.relu_() } else { y })
    }

    fn fused_group_norm(
        x: Primitive,
        gamma: Primitive,
        beta: Primitive,
        num_groups: usize,
        epsilon: f64,
        activation: Activation,
    ) -> Primitive {
        let (gamma, beta) = (Some(&gamma.tensor), Some(&beta.tensor));
        let y = first(&x.tensor).group_norm(num_groups as i64, gamma, beta, epsilon, true);
        Self::activate(Primitive::new(last(&y)), activation)
    }
}

impl Training for LibTorch {
    fn record_conv_norm(
        operands: [Primitive; 4],
        residual: Option<Primitive>,
        tracked: [bool; 4],
        shape: Convolution,
        epsilon: Option<f64>,
        relu: bool,
    ) -> Option<Recorded<Self>> {
        let tracked = tracked.into_iter().chain([true]);
        let leaves = operands.into_iter().chain(residual).zip(tracked).map(|(operand, is_tracked)| {
            let leaf = operand.tensor.detach().set_requires_grad(is_tracked);
            // The storage counts its users: burn must not write to what libtorch keeps.
            Primitive::from_existing(leaf, operand.storage)
        });
        let leaves: Vec<Primitive> = leaves.collect();
        let [x, weight, gamma, beta] = [0, 1, 2, 3].map(|at| &leaves[at].tensor);
        let absent: Option<&Tensor> = None;
        let (output, moments) = tch::with_grad(|| {
            let y = convolve(x, weight, absent, shape);
            let (y, moments) = match epsilon {
                Some(epsilon) => {
                    let (gamma, beta) = (Some(gamma), Some(beta));
                    let (y, mean, inverse) =
                        y.native_batch_norm(gamma, beta, absent, absent, true, 0.0, epsilon);
                    (last(&y), Some([mean.detach(), inverse.detach().pow_tensor_scalar(-2) - epsilon]))
                }
                None => (beta.addcmul(&last(&y), gamma), None),
            };
            let y = leaves.get(4).map_or(y.shallow_clone(), |residual| y + &residual.tensor);
            (if relu { y.relu() } else { y }, moments)
        });
        let moments = moments.map(|moments| moments.map(Primitive::new));
        Some(Recorded { output: Primitive::new(output), moments, leaves })
    }

    fn output(recorded: &Recorded<Self>) -> Primitive {
        let Primitive { tensor, storage } = &recorded.output;
        Primitive::from_existing(tensor.detach(), storage.clone())
    }

    fn replay(recorded: Recorded<Self>, grad: Primitive) -> Vec<Option<Primitive>> {
        backward(&recorded.output.tensor, &grad.tensor);
        let leaves = recorded.leaves.into_iter().map(|leaf| leaf.tensor);
        leaves.map(|leaf| leaf.requires_grad().then(|| Primitive::new(leaf.grad()))).collect()
    }

    fn activate_gradient(x: Primitive, grad: Primitive, activation: Activation) -> Primitive {
        let (x, grad) = (x.tensor, grad.tensor);
        Primitive::new(match activation {
            Activation::Identity => grad,
            Activation::Relu => x.threshold_backward(&grad, 0),
            Activation::QuickGelu => (x * QUICK_GELU).silu_backward(&grad),
            Activation::Gelu => x.gelu_backward(&grad, "none"),
            Activation::Silu => x.silu_backward(&grad),
        })
    }

    fn layer_norm_gradients(x: Primitive, gamma: Primitive, grad: Primitive, epsilon: f64) -> [Primitive; 3] {
        let beta = gamma.tensor.zeros_like();
        let width = gamma.tensor.size();
        pull_back([&x.tensor, &gamma.tensor, &beta], &grad.tensor, |[x, gamma, beta]| {
            x.layer_norm(&width[..], Some(gamma), Some(beta), epsilon, true)
        })
    }

    fn attention_gradients(
        operands: [Primitive; 3],
        _output: Primitive,
        grad: Primitive,
        num_heads: usize,
        is_causal: bool,
    ) -> [Primitive; 3] {
        let operands = operands.each_ref().map(|operand| &operand.tensor);
        pull_back(operands, &grad.tensor, |operands| {
            let [query, key, value] = operands.map(|operand| {
                let size = operand.size();
                operand.reshape([size[0], size[1], num_heads as i64, -1]).transpose(1, 2)
            });
            let mask: Option<&Tensor> = None;
            let heads =
                Tensor::scaled_dot_product_attention(&query, &key, &value, mask, 0.0, is_causal, None, false);
            heads.transpose(1, 2).flatten(2, 3)
        })
    }
}

/// The gradients of `operation` at `operands` for the gradient `grad` of its result.
fn pull_back<const N: usize>(
    operands: [&Tensor; N],
    grad: &Tensor,
    operation: impl FnOnce([&Tensor; N]) -> Tensor,
) -> [Primitive; N] {
    let leaves = operands.map(|operand| operand.detach().set_requires_grad(true));
    backward(&tch::with_grad(|| operation(leaves.each_ref())), grad);
    leaves.map(|leaf| Primitive::new(leaf.grad()))
}

/// Runs libtorch's backward pass from `output`, whose gradient is `grad`.
fn backward(output: &Tensor, grad: &Tensor) {
    // `tch` has no way to hand over a gradient: it is the one of the sum of products.
    tch::with_grad(|| (output * grad).sum(grad.kind())).backward();
}

/// Of channels-last images to libtorch's order of axes.
fn convolve(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, shape: Convolution) -> Tensor {
    let sizes = |sizes: [usize; 2]| sizes.map(|size| size as i64);
    first(x).conv2d(weight, bias, sizes(shape.stride), sizes(shape.padding), [1, 1], 1)
}

/// Channels-last to libtorch's order of axes; its kernels know the strides as their channels-last format.
fn first(x: &Tensor) -> Tensor {
    x.movedim_int(-1, 1)
}

/// Back to channels-last.
fn last(x: &Tensor) -> Tensor {
    x.movedim_int(1, -1)
}
