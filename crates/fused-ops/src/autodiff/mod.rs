//! The operations recorded for the backward pass, with gradients written by hand.

mod attention;
mod conv_norm;
mod layer_norm;
mod linear;
mod pool;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use crate::extension::{Activation, Convolution, FusedOps, Maybe, Training};

impl<B: Training, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        linear::linear::<B, C>(x, weight, bias.into_option(), residual.into_option(), activation)
    }

    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        linear::activate::<B, C>(x, activation)
    }

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        layer_norm::layer_norm::<B, C>(x, gamma, beta, epsilon)
    }

    fn head_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        num_heads: usize,
        is_causal: bool,
    ) -> FloatTensor<Self> {
        attention::attention::<B, C>([query, key, value], num_heads, is_causal)
    }

    fn conv_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: Maybe<Self>,
        shape: Convolution,
        relu: bool,
    ) -> FloatTensor<Self> {
        conv_norm::affine::<B, C>([x, weight, scale, shift], residual.into_option(), shape, relu)
    }

    fn conv_batch_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: Maybe<Self>,
        shape: Convolution,
        epsilon: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let operands = [x, weight, gamma, beta];
        conv_norm::batch_norm::<B, C>(operands, residual.into_option(), shape, epsilon, relu)
    }

    fn average_pool(x: FloatTensor<Self>, size: usize) -> FloatTensor<Self> {
        pool::average_pool::<B, C>(x, size)
    }
}

/// Adds a gradient to a parent that wants one.
fn register<B: Backend>(
    grads: &mut Gradients,
    parent: Option<burn::backend::autodiff::NodeId>,
    grad: impl FnOnce() -> FloatTensor<B>,
) {
    if let Some(id) = parent {
        grads.register::<B>(id, grad());
    }
}
