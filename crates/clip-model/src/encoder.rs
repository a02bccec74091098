//! The transformer encoder that both towers share: pre-norm attention and MLP, field names as in transformers.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::{gelu, sigmoid};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor};

use crate::config::Activation;

/// Shape of an encoder.
#[derive(Debug, Clone, Copy)]
pub struct EncoderConfig {
    /// Width D.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads.
    pub num_attention_heads: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Whether a token sees only itself and earlier ones.
    pub is_causal: bool,
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub struct Attention {
    /// Query projection.
    pub q_proj: Linear,
    /// Key projection.
    pub k_proj: Linear,
    /// Value projection.
    pub v_proj: Linear,
    /// Output projection.
    pub out_proj: Linear,
    num_heads: usize,
    is_causal: bool,
}

/// Two linear layers with an activation between.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Into the wide space.
    pub fc1: Linear,
    /// Back to width D.
    pub fc2: Linear,
    #[module(skip)]
    hidden_act: Activation,
}

/// One layer: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Norm before the attention.
    pub layer_norm1: LayerNorm,
    /// The attention.
    pub self_attn: Attention,
    /// Norm before the MLP.
    pub layer_norm2: LayerNorm,
    /// The MLP.
    pub mlp: Mlp,
}

/// A stack of layers.
#[derive(Module, Debug)]
pub struct Encoder {
    /// The layers, first to last.
    pub layers: Vec<EncoderLayer>,
}

impl Activation {
    /// Applies the activation to every element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Activation::QuickGelu => x.clone() * sigmoid(x * 1.702),
            Activation::Gelu => gelu(x),
        }
    }
}

impl EncoderConfig {
    /// An encoder with random weights, drawn as transformers' `CLIPPreTrainedModel` draws them.
    pub fn init(&self, device: &Device) -> Encoder {
        Encoder { layers: (0..self.num_hidden_layers).map(|_| self.init_layer(device)).collect() }
    }

    fn init_layer(&self, device: &Device) -> EncoderLayer {
        let width = self.hidden_size as f64;
        let depth_scale = (2.0 * self.num_hidden_layers as f64).powf(-0.5);
        let in_std = width.powf(-0.5) * depth_scale;
        let square = [self.hidden_size, self.hidden_size];
        let norm = || LayerNormConfig::new(self.hidden_size).with_epsilon(self.layer_norm_eps).init(device);
        EncoderLayer {
            layer_norm1: norm(),
            self_attn: Attention {
                q_proj: linear(square, true, in_std, device),
                k_proj: linear(square, true, in_std, device),
                v_proj: linear(square, true, in_std, device),
                out_proj: linear(square, true, width.powf(-0.5), device),
                num_heads: self.num_attention_heads,
                is_causal: self.is_causal,
            },
            layer_norm2: norm(),
            mlp: Mlp {
                fc1: linear(
                    [self.hidden_size, self.intermediate_size],
                    true,
                    (2.0 * width).powf(-0.5),
                    device,
                ),
                fc2: linear([self.intermediate_size, self.hidden_size], true, in_std, device),
                hidden_act: self.hidden_act,
            },
        }
    }
}

/// A linear layer `[input, output]` with normal weights of the given standard deviation and a zero bias.
pub(crate) fn linear([input, output]: [usize; 2], bias: bool, std: f64, device: &Device) -> Linear {
    let weight: Param<Tensor<2>> = Initializer::Normal { mean: 0.0, std }.init([input, output], device);
    Linear { weight, bias: bias.then(|| Initializer::Zeros.init([output], device)) }
}

impl Attention {
    /// Attends within each sequence.
    ///
    /// # Shapes
    ///
    /// - `hidden_states`: `[B, T, D]`
    /// - output: `[B, T, D]`
    pub fn forward(&self, hidden_states: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, width] = hidden_states.dims();
        let head_dim = width / self.num_heads;
        let heads = |projection: &Linear| {
            let x = projection.forward(hidden_states.clone());
            x.reshape([batch, tokens, self.num_heads, head_dim]).swap_dims(1, 2) // [B, heads, T, D / heads]
        };
        let options = AttentionModuleOptions { is_causal: self.is_causal, ..Default::default() };
        let x = attention(heads(&self.q_proj), heads(&self.k_proj), heads(&self.v_proj), None, None, options);
        self.out_proj.forward(x.swap_dims(1, 2).reshape([batch, tokens, width]))
    }
}

impl Mlp {
    /// Applies the MLP to every token.
    ///
    /// # Shapes
    ///
    /// - `hidden_states`: `[B, T, D]`
    /// - output: `[B, T, D]`
    pub fn forward(&self, hidden_states: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(self.hidden_act.forward(self.fc1.forward(hidden_states)))
    }
}

impl EncoderLayer {
    /// Applies one layer.
    ///
    /// # Shapes
    ///
    /// - `hidden_states`: `[B, T, D]`
    /// - output: `[B, T, D]`
    pub fn forward(&self, hidden_states: Tensor<3>) -> Tensor<3> {
        let x = hidden_states.clone() + self.self_attn.forward(self.layer_norm1.forward(hidden_states));
        x.clone() + self.mlp.forward(self.layer_norm2.forward(x))
    }
}

impl Encoder {
    /// Applies all layers.
    ///
    /// # Shapes
    ///
    /// - `hidden_states`: `[B, T, D]`
    /// - output: `[B, T, D]`
    pub fn forward(&self, hidden_states: Tensor<3>) -> Tensor<3> {
        self.layers.iter().fold(hidden_states, |x, layer| layer.forward(x))
    }

    /// The input and the output of every layer: `num_hidden_layers + 1` tensors `[B, T, D]`.
    pub fn hidden_states(&self, hidden_states: Tensor<3>) -> Vec<Tensor<3>> {
        let mut all = vec![hidden_states];
        for layer in &self.layers {
            let next = layer.forward(all[all.len() - 1].clone());
            all.push(next);
        }
        all
    }
}
