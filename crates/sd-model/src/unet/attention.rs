//! The spatial transformer: self-attention among pixels, cross-attention to text tokens, a gated feed-forward layer.
//!
//! After `Transformer2DModel` and `BasicTransformerBlock` of diffusers. Where a PyTorch list holds other layers at other
//! indices, an array or a tuple stands for it, so that the field path is the tensor name (`to_out.0`, `ff.net.2`).

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::{Dropout, DropoutConfig, GroupNorm, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Tensor};

use crate::resnet::{Norm, conv1x1};

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

    /// Attends from `x` `[B, T, D]` to `context` `[B, T', D']`; the output is `[B, T, D]`.
    pub fn forward(&self, x: Tensor<3>, context: Tensor<3>) -> Tensor<3> {
        let dtype = x.dtype();
        let query = self.split_heads(self.to_q.forward(x)); // [B, heads, T, D / heads]
        let key = self.split_heads(self.to_k.forward(context.clone()));
        let value = self.split_heads(self.to_v.forward(context));
        let options = AttentionModuleOptions::default(); // scale 1 / sqrt(D / heads)
        let mixed = if self.is_upcast {
            let [query, key, value] = [query, key, value].map(|x| x.cast(DType::F32));
            attention(query, key, value, None, None, options).cast(dtype)
        } else {
            attention(query, key, value, None, None, options)
        };
        let [batch, heads, tokens, head_dim] = mixed.dims();
        let merged = mixed.swap_dims(1, 2).reshape([batch, tokens, heads * head_dim]);
        self.to_out[0].forward(merged)
    }

    fn split_heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, width] = x.dims();
        x.reshape([batch, tokens, self.num_heads, width / self.num_heads]).swap_dims(1, 2)
    }
}

/// A linear layer of twice the width, one half of which gates the other (Shazeer, 2020, arXiv 2002.05202).
#[derive(Module, Debug)]
pub struct Geglu {
    proj: Linear,
}

impl Geglu {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let projected = self.proj.forward(x); // [B, T, 2 * D]
        let width = projected.dims()[2] / 2;
        let gate = projected.clone().narrow(2, width, width);
        projected.narrow(2, 0, width) * gate_gelu(gate)
    }
}

/// The exact GELU (with the error function) of a gate: the one place to change for a faster kernel.
fn gate_gelu(gate: Tensor<3>) -> Tensor<3> {
    gelu(gate)
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

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.net.2.forward(self.net.0.forward(x))
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
        let norm = || LayerNormConfig::new(width).with_epsilon(1e-5).init(device);
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
        let normed = self.norm1.forward(x.clone());
        let x = x + self.attn1.forward(normed.clone(), normed);
        let normed = self.norm2.forward(x.clone());
        let x = x + self.attn2.forward(normed, context.clone());
        let normed = self.norm3.forward(x.clone());
        x + self.ff.forward(normed)
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

    /// `[B, C, H, W]` features and `[B, T, D]` text tokens to `[B, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>, context: &Tensor<3>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let normed = self.norm.forward(x.clone());
        let mut tokens = match &self.proj_in {
            Projection::Linear(linear) => linear.forward(to_tokens(normed)),
            Projection::Conv(conv) => to_tokens(conv.forward(normed)),
        }; // [B, H * W, C]
        for block in &self.transformer_blocks {
            tokens = block.forward(tokens, context);
        }
        let out = match &self.proj_out {
            Projection::Linear(linear) => to_feature_map(linear.forward(tokens), [height, width]),
            Projection::Conv(conv) => conv.forward(to_feature_map(tokens, [height, width])),
        };
        x + out
    }
}

/// `[B, C, H, W]` to `[B, H * W, C]`.
pub(crate) fn to_tokens(x: Tensor<4>) -> Tensor<3> {
    x.flatten::<3>(2, 3).swap_dims(1, 2)
}

/// `[B, H * W, C]` to `[B, C, H, W]`.
pub(crate) fn to_feature_map(tokens: Tensor<3>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [batch, _, channels] = tokens.dims();
    tokens.swap_dims(1, 2).reshape([batch, channels, height, width])
}
