//! The few operations in which the networks spend their time, each as one pass over memory.
//!
//! They are an extension of burn: [`FusedOps`] has a body made of ordinary burn operations for every back end, a fast
//! one for `flex`, and backward passes of its own. A network calls the functions of this module and names no back end.
//! Feature maps are channels-last here, `[B, H, W, C]`: a row of channels is contiguous, so a convolution is a matrix
//! product whose left rows lie in the image, and a norm is a factor and a summand per column.
//!
//! `docs/adr/0009-fused-operations.md` says why the crate exists.

mod autodiff;
mod composed;
mod extension;
#[cfg(feature = "flex")]
mod flex;
mod layers;
#[cfg(feature = "tch")]
mod libtorch;
mod norm;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

pub use extension::{Activation, Convolution, FusedOps, Maybe};
pub use layers::{conv, group_norm};
pub use norm::conv_norm;

#[cfg(feature = "cuda")]
impl FusedOps for burn::backend::Cube {}
#[cfg(feature = "cuda")]
impl extension::Training for burn::backend::Cube {}

fn maybe<const D: usize>(tensor: Option<Tensor<D>>) -> Maybe<Dispatch> {
    tensor.map_or(Maybe::Absent, |tensor| Maybe::Given(tensor.into_dispatch()))
}

/// `activation(x . weight + bias + residual)`.
///
/// # Shapes
///
/// - `x`: `[.., I]`
/// - `weight`: `[I, O]`
/// - `bias`: `[O]`
/// - `residual` and output: `[.., O]`
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<D>>,
    activation: Activation,
) -> Tensor<D> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_linear(x, weight, maybe(bias), maybe(residual), activation))
}

/// The activation of every element.
pub fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::activate(x.into_dispatch(), activation))
}

/// Normalises the last axis to mean 0 and variance 1, then scales and shifts it.
///
/// # Shapes
///
/// - `x` and output: `[.., D]`
/// - `gamma`, `beta`: `[D]`
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_layer_norm(x.into_dispatch(), gamma, beta, epsilon))
}

/// Multi-head attention `softmax(q . k / sqrt(D / heads)) . v`; head h reads columns `h * D / heads ..` of all three.
///
/// With `is_causal`, query i sees the keys up to i; both lengths must then be equal.
///
/// # Shapes
///
/// - `query` and output: `[B, T, D]`
/// - `key`, `value`: `[B, S, D]`
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    num_heads: usize,
    is_causal: bool,
) -> Tensor<3> {
    let [_, tokens, width] = query.dims();
    let [_, keys, _] = key.dims();
    assert!(width % num_heads == 0, "width {width} does not divide into {num_heads} heads");
    assert!(!is_causal || tokens == keys, "causal attention of {tokens} queries over {keys} keys");
    let (query, key, value) = (query.into_dispatch(), key.into_dispatch(), value.into_dispatch());
    Tensor::from_dispatch(Dispatch::head_attention(query, key, value, num_heads, is_causal))
}

/// Means of `size` x `size` windows without overlap; rows and columns beyond the last whole window are dropped.
///
/// # Shapes
///
/// - `x`: `[B, H, W, C]`
/// - output: `[B, H / size, W / size, C]`
pub fn average_pool(x: Tensor<4>, size: usize) -> Tensor<4> {
    if size == 1 {
        return x;
    }
    Tensor::from_dispatch(Dispatch::average_pool(x.into_dispatch(), size))
}
