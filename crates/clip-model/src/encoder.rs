//! The transformer encoder that both towers share: pre-norm attention and MLP, field names as in transformers.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Tensor};

use crate::config::Activation;
use crate::low_rank::{LowRank, LowRankAttention};

/// No activation.
pub(crate) const IDENTITY: fused_ops::Activation = fused_ops::Activation::Identity;

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
    /// Updates beside query, key and value while they are trained; absent in every file.
    pub low_rank: Option<LowRankAttention>,
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
    /// Epsilon of both norms, which burn's own keeps to itself.
    layer_norm_eps: f64,
}

/// A stack of layers.
#[derive(Module, Debug)]
pub struct Encoder {
    /// The layers, first to last.
    pub layers: Vec<EncoderLayer>,
}

impl From<Activation> for fused_ops::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::QuickGelu => fused_ops::Activation::QuickGelu,
            Activation::Gelu => fused_ops::Activation::Gelu,
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
                low_rank: None,
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
            layer_norm_eps: self.layer_norm_eps,
        }
    }
}

/// A linear layer `[input, output]` with normal weights of the given standard deviation and a zero bias.
pub(crate) fn linear([input, output]: [usize; 2], bias: bool, std: f64, device: &Device) -> Linear {
    let weight: Param<Tensor<2>> = Initializer::Normal { mean: 0.0, std }.init([input, output], device);
    Linear { weight, bias: bias.then(|| Initializer::Zeros.init([output], device)) }
}

/// `activation(layer(x) + residual)`.
pub(crate) fn apply_linear<const D: usize>(
    layer: &Linear,
    x: Tensor<D>,
    residual: Option<Tensor<D>>,
    activation: fused_ops::Activation,
) -> Tensor<D> {
    fused_ops::linear(x, layer.weight.val(), layer.bias.as_ref().map(Param::val), residual, activation)
}

impl Attention {
    /// Attends within each sequence.
    ///
    /// # Shapes
    ///
    /// - `hidden_states`: `[B, T, D]`
    /// - `residual`: `[B, T, D]`, added to the output
    /// - output: `[B, T, D]`
    pub fn forward(&self, hidden_states: Tensor<3>, residual: Option<Tensor<3>>) -> Tensor<3> {
        let project = |layer: &Linear, update: Option<&LowRank>| {
            let update = update.map(|update| update.forward(hidden_states.clone()));
            apply_linear(layer, hidden_states.clone(), update, IDENTITY)
        };
        let update = self.low_rank.as_ref();
        let query = project(&self.q_proj, update.map(|update| &update.query));
        let key = project(&self.k_proj, update.map(|update| &update.key));
        let value = project(&self.v_proj, update.map(|update| &update.value));
        let x = fused_ops::attention(query, key, value, self.num_heads, self.is_causal);
        apply_linear(&self.out_proj, x, residual, IDENTITY)
    }
}

impl Mlp {
    /// Applies the MLP to every token.
    ///
    /// # Shapes
    ///
    /// - `hidden_states`: `[B, T, D]`
    /// - `residual`: `[B, T, D]`, added to the output
    /// - output: `[B, T, D]`
    pub fn forward(&self, hidden_states: Tensor<3>, residual: Option<Tensor<3>>) -> Tensor<3> {
        let x = apply_linear(&self.fc1, hidden_states, None, self.hidden_act.into());
        apply_linear(&self.fc2, x, residual, IDENTITY)
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
        let x = self.self_attn.forward(self.norm(&self.layer_norm1, &hidden_states), Some(hidden_states));
        self.mlp.forward(self.norm(&self.layer_norm2, &x), Some(x))
    }

    fn norm(&self, norm: &LayerNorm, x: &Tensor<3>) -> Tensor<3> {
        match &norm.beta {
            Some(beta) => fused_ops::layer_norm(x.clone(), norm.gamma.val(), beta.val(), self.layer_norm_eps),
            None => norm.forward(x.clone()),
        }
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
