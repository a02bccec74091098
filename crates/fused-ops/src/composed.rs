//! The operations and their gradients made of ordinary burn operations: right on every back end, and the fast ones'
//! measure.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{DType, FloatDType, Shape, TensorData};

use crate::extension::{Activation, Convolution, NormGradients, NormState, ProductGradients};

/// OpenAI's factor inside quick-gelu.
pub(crate) const QUICK_GELU: f32 = 1.702;

pub(crate) fn linear<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    residual: Option<FloatTensor<B>>,
    activation: Activation,
) -> FloatTensor<B> {
    let y = B::linear(x, weight, bias);
    let y = match residual {
        Some(residual) => B::float_add(y, residual),
        None => y,
    };
    activate::<B>(y, activation)
}

pub(crate) fn activate<B: Backend>(x: FloatTensor<B>, activation: Activation) -> FloatTensor<B> {
    match activation {
        Activation::Identity => x,
        Activation::Relu => B::relu(x),
        Activation::QuickGelu => {
            B::float_mul(x.clone(), B::sigmoid(B::float_mul_scalar(x, QUICK_GELU.into())))
        }
        Activation::Gelu => B::gelu(x),
        Activation::Silu => B::float_mul(x.clone(), B::sigmoid(x)),
    }
}

pub(crate) fn activate_gradient<B: Backend>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
    activation: Activation,
) -> FloatTensor<B> {
    match activation {
        Activation::Identity => grad,
        Activation::Relu => B::relu_backward(B::relu(x), grad),
        Activation::QuickGelu => {
            // With s = sigmoid(a x): s + a x s (1 - s).
            let s = B::sigmoid(B::float_mul_scalar(x.clone(), QUICK_GELU.into()));
            let rest = B::float_add_scalar(B::float_neg(s.clone()), 1.0.into());
            let slope = B::float_mul_scalar(B::float_mul(x, rest), QUICK_GELU.into());
            B::float_mul(grad, B::float_mul(s, B::float_add_scalar(slope, 1.0.into())))
        }
        Activation::Gelu => B::gelu_backward(x, grad),
        Activation::Silu => {
            // With s = sigmoid(x): s + x s (1 - s).
            let s = B::sigmoid(x.clone());
            let rest = B::float_add_scalar(B::float_neg(s.clone()), 1.0.into());
            let slope = B::float_add_scalar(B::float_mul(x, rest), 1.0.into());
            B::float_mul(grad, B::float_mul(s, slope))
        }
    }
}

pub(crate) fn linear_gradients<B: Backend>(
    x: Option<FloatTensor<B>>,
    weight: Option<FloatTensor<B>>,
    grad: FloatTensor<B>,
) -> ProductGradients<B> {
    ProductGradients {
        x: weight.map(|weight| B::linear_x_backward(weight, grad.clone())),
        weight: x.map(|x| B::linear_weight_backward(x, grad)),
    }
}

/// `[.., D]` as `[N, D]`.
fn rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let columns = shape[shape.num_dims() - 1];
    B::float_reshape(x, Shape::new([shape.num_elements() / columns.max(1), columns]))
}

pub(crate) fn column_sums<B: Backend>(grad: FloatTensor<B>) -> FloatTensor<B> {
    let grad = rows::<B>(grad);
    let columns = grad.shape()[1];
    B::float_reshape(B::float_sum_dim(grad, 0), Shape::new([columns]))
}

/// A vector over the last axis of a tensor of `rank` axes.
fn across<B: Backend>(vector: FloatTensor<B>, rank: usize) -> FloatTensor<B> {
    let mut shape = vec![1; rank];
    shape[rank - 1] = vector.shape()[0];
    B::float_reshape(vector, Shape::from(shape))
}

pub(crate) fn layer_norm_gradients<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    grad: FloatTensor<B>,
    epsilon: f64,
) -> [FloatTensor<B>; 3] {
    let shape = x.shape();
    let (x, grad) = (rows::<B>(x), rows::<B>(grad));
    let centred = B::float_sub(x.clone(), B::float_mean_dim(x, 1));
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let inverse = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, epsilon.into())));
    let normal = B::float_mul(centred, inverse.clone());
    let of_gamma = column_sums::<B>(B::float_mul(grad.clone(), normal.clone()));
    let of_normal = B::float_mul(grad.clone(), across::<B>(gamma, 2));
    let along = B::float_mean_dim(B::float_mul(of_normal.clone(), normal.clone()), 1);
    let mean = B::float_mean_dim(of_normal.clone(), 1);
    let of_x = B::float_sub(B::float_sub(of_normal, mean), B::float_mul(normal, along));
    [B::float_reshape(B::float_mul(of_x, inverse), shape), of_gamma, column_sums::<B>(grad)]
}

/// The statistics are computed in f32 whatever the type: half precision cannot hold their sums.
pub(crate) fn group_norm<B: Backend>(
    x: FloatTensor<B>,
    [gamma, beta]: [FloatTensor<B>; 2],
    num_groups: usize,
    epsilon: f64,
    activation: Activation,
) -> FloatTensor<B> {
    let (shape, dtype) = (x.shape(), x.dtype());
    let rank = shape.num_dims();
    let (batch, channels) = (shape[0], shape[rank - 1]);
    let tokens = shape.num_elements() / (batch * channels).max(1);
    let grouped = Shape::new([batch, tokens, num_groups, channels / num_groups]);
    let is_half = matches!(dtype, DType::F16 | DType::BF16);
    let wide = if is_half { B::float_cast(x, FloatDType::F32) } else { x };
    let wide = B::float_reshape(wide, grouped);
    let mean = |x: FloatTensor<B>| B::float_mean_dim(B::float_mean_dim(x, 1), 3);
    let centred = B::float_sub(wide.clone(), mean(wide));
    let variance = mean(B::float_mul(centred.clone(), centred.clone()));
    let deviation = B::float_sqrt(B::float_add_scalar(variance, epsilon.into()));
    let normal = B::float_reshape(B::float_div(centred, deviation), shape);
    let normal = if is_half { B::float_cast(normal, dtype.into()) } else { normal };
    let scaled = B::float_mul(normal, across::<B>(gamma, rank));
    activate::<B>(B::float_add(scaled, across::<B>(beta, rank)), activation)
}

/// `[B, T, D]` as `[B, heads, T, D / heads]`.
fn split<B: Backend>(x: FloatTensor<B>, num_heads: usize) -> FloatTensor<B> {
    let [batch, tokens, width] = x.shape().dims();
    let x = B::float_reshape(x, Shape::new([batch, tokens, num_heads, width / num_heads]));
    B::float_swap_dims(x, 1, 2)
}

/// `[B, heads, T, D / heads]` as `[B, T, D]`.
fn join<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, heads, tokens, width] = x.shape().dims();
    B::float_reshape(B::float_swap_dims(x, 1, 2), Shape::new([batch, tokens, heads * width]))
}

pub(crate) fn attention<B: Backend>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    num_heads: usize,
    is_causal: bool,
) -> FloatTensor<B> {
    let options = AttentionModuleOptions { is_causal, ..Default::default() };
    let [query, key, value] = [query, key, value].map(|x| split::<B>(x, num_heads));
    join::<B>(B::attention(query, key, value, None, None, options))
}

/// Recomputes the weights: they are larger than everything else and are not kept.
pub(crate) fn attention_gradients<B: Backend>(
    operands: [FloatTensor<B>; 3],
    output: FloatTensor<B>,
    grad: FloatTensor<B>,
    num_heads: usize,
    is_causal: bool,
) -> [FloatTensor<B>; 3] {
    let [query, key, value] = operands.map(|x| split::<B>(x, num_heads));
    let (output, grad) = (split::<B>(output, num_heads), split::<B>(grad, num_heads));
    let [_, _, keys, width] = key.shape().dims();
    let scale = 1.0 / (width as f64).sqrt();
    let scores = B::float_matmul(query.clone(), B::float_transpose(key.clone()));
    let scores = B::float_mul_scalar(scores, scale.into());
    let scores = if is_causal { B::float_add(scores, hidden::<B>(keys, &key)) } else { scores };
    let weights = B::softmax(scores, 3);
    let of_value = B::float_matmul(B::float_transpose(weights.clone()), grad.clone());
    let of_weights = B::float_matmul(grad.clone(), B::float_transpose(value));
    let along = B::float_sum_dim(B::float_mul(grad, output), 3);
    let of_scores = B::float_mul(weights, B::float_sub(of_weights, along));
    let of_scores = B::float_mul_scalar(of_scores, scale.into());
    let of_query = B::float_matmul(of_scores.clone(), key);
    let of_key = B::float_matmul(B::float_transpose(of_scores), query);
    [of_query, of_key, of_value].map(join::<B>)
}

/// Minus infinity where the key comes after the query, else 0: `[1, 1, T, T]` on the device and in the type of `like`.
fn hidden<B: Backend>(tokens: usize, like: &FloatTensor<B>) -> FloatTensor<B> {
    let values = (0..tokens * tokens).map(|i| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 });
    let data = TensorData::new(values.collect::<Vec<f32>>(), [1, 1, tokens, tokens]);
    B::float_cast(B::float_from_data(data, &like.device()), like.dtype().into())
}

fn options(shape: Convolution) -> ConvOptions<2> {
    ConvOptions::new(shape.stride, shape.padding, [1, 1], 1)
}

/// Channels-last to channels-first.
fn first<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_permute(x, &[0, 3, 1, 2])
}

/// Channels-first to channels-last.
fn last<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_permute(x, &[0, 2, 3, 1])
}

pub(crate) fn convolution<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    shape: Convolution,
) -> FloatTensor<B> {
    last::<B>(B::conv2d(first::<B>(x), weight, None, options(shape)))
}

/// The convolution with the factors folded into its weights.
pub(crate) fn convolution_affine<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    [scale, shift]: [FloatTensor<B>; 2],
    residual: Option<FloatTensor<B>>,
    shape: Convolution,
    relu: bool,
) -> FloatTensor<B> {
    let channels = weight.shape()[0];
    let weight = B::float_mul(weight, B::float_reshape(scale, Shape::new([channels, 1, 1, 1])));
    let y = last::<B>(B::conv2d(first::<B>(x), weight, Some(shift), options(shape)));
    let y = match residual {
        Some(residual) => B::float_add(y, residual),
        None => y,
    };
    if relu { B::relu(y) } else { y }
}

pub(crate) fn convolution_gradients<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    shape: Convolution,
    [of_x, of_weight]: [bool; 2],
) -> ProductGradients<B> {
    let (x, grad, options) = (first::<B>(x), first::<B>(grad), options(shape));
    ProductGradients {
        x: of_x.then(|| {
            last::<B>(B::conv2d_x_backward(x.clone(), weight.clone(), grad.clone(), options.clone()))
        }),
        weight: of_weight.then(|| B::conv2d_weight_backward(x, weight, grad, options)),
    }
}

/// Mean and biased variance of every channel of `[.., C]`.
pub(crate) fn moments<B: Backend>(x: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let x = rows::<B>(x);
    let channels = Shape::new([x.shape()[1]]);
    let mean = B::float_mean_dim(x.clone(), 0);
    let centred = B::float_sub(x, mean.clone());
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred), 0);
    [B::float_reshape(mean, channels.clone()), B::float_reshape(variance, channels)]
}

/// Factor and summand that a norm amounts to.
pub(crate) fn folded<B: Backend>(
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let deviation = B::float_sqrt(B::float_add_scalar(variance, epsilon.into()));
    let scale = B::float_div(gamma, deviation);
    let shift = B::float_sub(beta, B::float_mul(mean, scale.clone()));
    (scale, shift)
}

pub(crate) fn affine<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
    residual: Option<FloatTensor<B>>,
    relu: bool,
) -> FloatTensor<B> {
    let rank = x.shape().num_dims();
    let y = B::float_add(B::float_mul(x, across::<B>(scale, rank)), across::<B>(shift, rank));
    let y = match residual {
        Some(residual) => B::float_add(y, residual),
        None => y,
    };
    if relu { B::relu(y) } else { y }
}

pub(crate) fn norm_gradients<B: Backend>(state: NormState<B>, grad: FloatTensor<B>) -> NormGradients<B> {
    let shape = grad.shape();
    let grad = match state.rectified {
        Some(output) => B::relu_backward(output, grad),
        None => grad,
    };
    let (x, grad) = (rows::<B>(state.x), rows::<B>(grad));
    let inverse = across::<B>(state.inverse_deviation, 2);
    let normal = B::float_mul(B::float_sub(x, across::<B>(state.mean, 2)), inverse.clone());
    let of_beta = column_sums::<B>(grad.clone());
    let of_gamma = column_sums::<B>(B::float_mul(grad.clone(), normal.clone()));
    let of_normal = if state.of_batch {
        let count = grad.shape()[0] as f64;
        let mean = |sums: FloatTensor<B>| B::float_div_scalar(across::<B>(sums, 2), count.into());
        let along = B::float_mul(normal, mean(of_gamma.clone()));
        B::float_sub(B::float_sub(grad.clone(), mean(of_beta.clone())), along)
    } else {
        grad.clone()
    };
    let of_x = B::float_mul(of_normal, B::float_mul(inverse, across::<B>(state.gamma, 2)));
    NormGradients {
        x: B::float_reshape(of_x, shape.clone()),
        residual: B::float_reshape(grad, shape),
        gamma: of_gamma,
        beta: of_beta,
    }
}

pub(crate) fn average_pool<B: Backend>(x: FloatTensor<B>, size: usize) -> FloatTensor<B> {
    last::<B>(B::avg_pool2d(first::<B>(x), [size; 2], [size; 2], [0; 2], true, false))
}

pub(crate) fn average_pool_gradient<B: Backend>(
    grad: FloatTensor<B>,
    size: usize,
    [height, width]: [usize; 2],
) -> FloatTensor<B> {
    let [batch, _, _, channels] = grad.shape().dims();
    let image = Shape::new([batch, channels, height, width]);
    // burn reads the input's shape only.
    let x = B::float_zeros(image, &grad.device(), grad.dtype().into());
    let grad = first::<B>(grad);
    last::<B>(B::avg_pool2d_backward(x, grad, [size; 2], [size; 2], [0; 2], true, false))
}
