//! The spatial transformer: self-attention among pixels, cross-attention to text tokens, a gated feed-forward layer.
//!
//! After `Transformer2DModel` and `BasicTransformerBlock` of diffusers. Where a PyTorch list holds other layers at other
//! indices, an array or a tuple stands for it, so that the field path is the tensor name (`to_out.0`, `ff.net.2`).

use burn::module::{Module, Param};
use burn::nn::conv::Conv2d;
use burn::nn::{Dropout, DropoutConfig, GroupNorm, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};
use fused_ops::{Activation, conv, group_norm};

use crate::resnet::{Norm, conv1x1};

/// Epsilon of the layer norms, fixed in diffusers too.
const LAYER_NORM_EPS: f64 = 1e-5;

/// `layer(x) + residual`.
pub(crate) fn linear(layer: &Linear, x: Tensor<3>, residual: Option<Tensor<3>>) -> Tensor<3> {
    let bias = layer.bias.as_ref().map(Param::val);
    fused_ops::linear(x, layer.weight.val(), bias, residual, Activation::Identity)
}

/// Multi-head attention from pixels to pixels or from pixels to text tokens.
#[derive(Module, Debug)]
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: [Linear; 1],
    num_heads: usize,
    is_upcast: bool,
}

impl Attention {
    /// Attention of `width` channels to a context of `context_width` channels.
    fn new(width: usize, context_width: usize, shape: TransformerShape, device: &Device) -> Self {
        let project = |d_input| LinearConfig::new(d_input, width).with_bias(false).init(device);
        Self {
            to_q: project(width),
            to_k: project(context_width),
            to_v: project(context_width),
            to_out: [LinearConfig::new(width, width).init(device)],
            num_heads: shape.num_heads,
            is_upcast: shape.upcast_attention,
        }
    }

    /// Attends from `x` `[B, T, D]` to `context` `[B, T', D']` and adds `residual`; both are `[B, T, D]`.
    fn forward(&self, x: Tensor<3>, context: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let dtype = x.dtype();
        let mut operands = [
            linear(&self.to_q, x, None),
            linear(&self.to_k, context.clone(), None),
            linear(&self.to_v, context, None),
        ];
        if self.is_upcast {
            operands = operands.map(|operand| operand.cast(DType::F32));
        }
        let [query, key, value] = operands;
        let mixed = fused_ops::attention(query, key, value, self.num_heads, false);
        linear(&self.to_out[0], if self.is_upcast { mixed.cast(dtype) } else { mixed }, Some(residual))
    }
}

/// A linear layer of twice the width, one half of which gates the other (Shazeer, 2020, arXiv 2002.05202).
#[derive(Module, Debug)]
pub struct Geglu {
    proj: Linear,
}

impl Geglu {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.proj.weight.val(); // [D, 2 * inner]
        let inner = weight.dims()[1] / 2;
        let half = |x: Tensor<3>, start: usize, activation| {
            let bias = self.proj.bias.as_ref().map(|bias| bias.val().narrow(0, start, inner));
            fused_ops::linear(x, weight.clone().narrow(1, start, inner), bias, None, activation)
        };
        half(x.clone(), 0, Activation::Identity) * half(x, inner, Activation::Gelu)
    }
}

/// The feed-forward part of a transformer block: GEGLU, (dropout), linear.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// As in the reference: index 0 is the gated layer, 1 a dropout that is always 0, 2 the output layer.
    net: (Geglu, Dropout, Linear),
}

impl FeedForward {
    fn new(width: usize, device: &Device) -> Self {
        let inner = 4 * width;
        let gated = Geglu { proj: LinearConfig::new(width, 2 * inner).init(device) };
        Self { net: (gated, DropoutConfig::new(0.0).init(), LinearConfig::new(inner, width).init(device)) }
    }

    fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        linear(&self.net.2, self.net.0.forward(x), Some(residual))
    }
}

/// Self-attention, cross-attention and feed-forward, each after a layer norm and with a skip connection.
#[derive(Module, Debug)]
pub struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl BasicTransformerBlock {
    fn new(width: usize, shape: TransformerShape, device: &Device) -> Self {
        let norm = || LayerNormConfig::new(width).with_epsilon(LAYER_NORM_EPS).init(device);
        Self {
            norm1: norm(),
            attn1: Attention::new(width, width, shape, device),
            norm2: norm(),
            attn2: Attention::new(width, shape.cross_attention_dim, shape, device),
            norm3: norm(),
            ff: FeedForward::new(width, device),
        }
    }

    fn forward(&self, x: Tensor<3>, context: &Tensor<3>) -> Tensor<3> {
        let normed = layer_norm(&self.norm1, &x);
        let x = self.attn1.forward(normed.clone(), normed, x);
        let x = self.attn2.forward(layer_norm(&self.norm2, &x), context.clone(), x);
        self.ff.forward(layer_norm(&self.norm3, &x), x)
    }
}

fn layer_norm(norm: &LayerNorm, x: &Tensor<3>) -> Tensor<3> {
    match &norm.beta {
        Some(beta) => fused_ops::layer_norm(x.clone(), norm.gamma.val(), beta.val(), LAYER_NORM_EPS),
        None => norm.forward(x.clone()),
    }
}

/// The projection into or out of a spatial transformer.
#[derive(Module, Debug)]
pub enum Projection {
    /// Stable Diffusion 2: a linear layer.
    Linear(Linear),
    /// Stable Diffusion 1: a 1x1 convolution.
    Conv(Conv2d),
}

/// Shape of the spatial transformers of one stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransformerShape {
    pub num_layers: usize,
    pub num_heads: usize,
    pub cross_attention_dim: usize,
    pub use_linear_projection: bool,
    pub norm_num_groups: usize,
    pub upcast_attention: bool,
}

/// A spatial transformer over the pixels of a feature map.
#[derive(Module, Debug)]
pub struct Transformer2DModel {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}

impl Transformer2DModel {
    pub(crate) fn new(channels: usize, shape: TransformerShape, device: &Device) -> Self {
        let project = || match shape.use_linear_projection {
            true => Projection::Linear(LinearConfig::new(channels, channels).init(device)),
            false => Projection::Conv(conv1x1(channels, channels, device)),
        };
        let block = |_| BasicTransformerBlock::new(channels, shape, device);
        Self {
            norm: Norm { groups: shape.norm_num_groups, eps: 1e-6 }.init(channels, device),
            proj_in: project(),
            transformer_blocks: (0..shape.num_layers).map(block).collect(),
            proj_out: project(),
        }
    }

    /// `[B, H, W, C]` features and `[B, T, D]` text tokens to `[B, H, W, C]`.
    pub fn forward(&self, x: Tensor<4>, context: &Tensor<3>) -> Tensor<4> {
        let shape = x.dims();
        let normed = group_norm(&self.norm, x.clone(), Activation::Identity);
        let mut tokens = match &self.proj_in {
            Projection::Linear(layer) => linear(layer, to_tokens(normed), None),
            Projection::Conv(layer) => to_tokens(conv(layer, normed, None)),
        };
        for block in &self.transformer_blocks {
            tokens = block.forward(tokens, context);
        }
        match &self.proj_out {
            Projection::Linear(layer) => linear(layer, tokens, Some(to_tokens(x))).reshape(shape),
            Projection::Conv(layer) => conv(layer, tokens.reshape(shape), Some(x)),
        }
    }
}

/// `[B, H, W, C]` to `[B, H * W, C]`.
pub(crate) fn to_tokens(x: Tensor<4>) -> Tensor<3> {
    x.flatten::<3>(1, 2)
}
