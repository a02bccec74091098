//! OpenAI's modified ResNet with attention pooling; keys as below `visual.` in open_clip.
//!
//! Batch norm uses batch statistics only in training mode, that is with the module's flag on *and* an input on an autodiff
//! device; `valid()` or freezing switches it to the running statistics. burn moves the running variance towards the batch's
//! biased variance, PyTorch towards the unbiased one: for n values per channel they differ by the factor n / (n - 1).

use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use fused_ops::{average_pool, conv_norm};

use crate::config::ModifiedResNetConfig;
use crate::encoder::{IDENTITY, apply_linear, linear};
use crate::vision_transformer::resized_positions;

/// Output channels of a bottleneck per inner channel.
const EXPANSION: usize = 4;

/// Average pool, 1 x 1 convolution and norm on the skip path.
#[derive(Module, Debug)]
pub struct Downsample {
    /// Key `downsample.0`.
    pub conv: Conv2d,
    /// Key `downsample.1`.
    pub bn: BatchNorm,
}

/// A bottleneck whose stride is an average pool before the last convolution.
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// 1 x 1 into the inner channels.
    pub conv1: Conv2d,
    /// Norm after `conv1`.
    pub bn1: BatchNorm,
    /// 3 x 3.
    pub conv2: Conv2d,
    /// Norm after `conv2`.
    pub bn2: BatchNorm,
    /// 1 x 1 out of the inner channels.
    pub conv3: Conv2d,
    /// Norm after `conv3`.
    pub bn3: BatchNorm,
    /// Skip path, if shapes change.
    pub downsample: Option<Downsample>,
    stride: usize,
}

/// Attention pool: the mean token asks, all positions answer.
#[derive(Module, Debug)]
pub struct AttentionPool {
    /// `[1 + G * G, C]`, the row of the mean token first.
    pub positional_embedding: Param<Tensor<2>>,
    /// Query projection.
    pub q_proj: Linear,
    /// Key projection.
    pub k_proj: Linear,
    /// Value projection.
    pub v_proj: Linear,
    /// Output projection into the shared space.
    pub c_proj: Linear,
    num_heads: usize,
}

/// The modified ResNet.
#[derive(Module, Debug)]
pub struct ModifiedResNet {
    /// Stem, stride 2.
    pub conv1: Conv2d,
    /// Norm after `conv1`.
    pub bn1: BatchNorm,
    /// Stem.
    pub conv2: Conv2d,
    /// Norm after `conv2`.
    pub bn2: BatchNorm,
    /// Stem.
    pub conv3: Conv2d,
    /// Norm after `conv3`.
    pub bn3: BatchNorm,
    /// Stage at H/4.
    pub layer1: Vec<Bottleneck>,
    /// Stage at H/8.
    pub layer2: Vec<Bottleneck>,
    /// Stage at H/16.
    pub layer3: Vec<Bottleneck>,
    /// Stage at H/32.
    pub layer4: Vec<Bottleneck>,
    /// Attention pool.
    pub attnpool: AttentionPool,
}

impl ModifiedResNetConfig {
    /// A modified ResNet of this shape with random weights, drawn as open_clip draws them.
    pub fn init(&self, output_dim: usize, device: &Device) -> ModifiedResNet {
        let (width, half) = (self.width, self.width / 2);
        let mut channels = width;
        let mut stage = |index: usize| {
            let inner = width << index;
            let blocks = (0..self.layers[index]).map(|block| {
                let stride = if index > 0 && block == 0 { 2 } else { 1 };
                Bottleneck::new(std::mem::replace(&mut channels, inner * EXPANSION), inner, stride, device)
            });
            blocks.collect::<Vec<_>>()
        };
        ModifiedResNet {
            conv1: Conv2dConfig::new([3, half], [3, 3])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_bias(false)
                .init(device),
            bn1: BatchNormConfig::new(half).init(device),
            conv2: conv3x3(half, half, device),
            bn2: BatchNormConfig::new(half).init(device),
            conv3: conv3x3(half, width, device),
            bn3: BatchNormConfig::new(width).init(device),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            attnpool: AttentionPool::new(self.image_size / 32, width * 32, self.heads, output_dim, device),
        }
    }
}

fn conv1x1(input: usize, output: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([input, output], [1, 1]).with_bias(false).init(device)
}

fn conv3x3(input: usize, output: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([input, output], [3, 3])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_bias(false)
        .init(device)
}

impl Bottleneck {
    fn new(input: usize, inner: usize, stride: usize, device: &Device) -> Self {
        let output = inner * EXPANSION;
        let norm = |channels| BatchNormConfig::new(channels).init(device);
        let mut bn3 = norm(output);
        // A block starts as the identity.
        bn3.gamma = Initializer::Zeros.init([output], device);
        Bottleneck {
            conv1: conv1x1(input, inner, device),
            bn1: norm(inner),
            conv2: conv3x3(inner, inner, device),
            bn2: norm(inner),
            conv3: conv1x1(inner, output, device),
            bn3,
            downsample: (stride > 1 || input != output)
                .then(|| Downsample { conv: conv1x1(input, output, device), bn: norm(output) }),
            stride,
        }
    }

    /// Applies the block.
    ///
    /// # Shapes
    ///
    /// - `x`: `[B, H, W, C]`
    /// - output: `[B, H / stride, W / stride, 4 * inner]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = conv_norm(&self.conv1, &self.bn1, x.clone(), None, true);
        let y = conv_norm(&self.conv2, &self.bn2, y, None, true);
        let y = average_pool(y, self.stride);
        let skip = match &self.downsample {
            Some(Downsample { conv, bn }) => conv_norm(conv, bn, average_pool(x, self.stride), None, false),
            None => x,
        };
        conv_norm(&self.conv3, &self.bn3, y, Some(skip), true)
    }
}

impl AttentionPool {
    fn new(grid: usize, channels: usize, num_heads: usize, output: usize, device: &Device) -> Self {
        let std = (channels as f64).powf(-0.5);
        let square = [channels, channels];
        AttentionPool {
            positional_embedding: Initializer::Normal { mean: 0.0, std }
                .init([grid * grid + 1, channels], device),
            q_proj: linear(square, true, std, device),
            k_proj: linear(square, true, std, device),
            v_proj: linear(square, true, std, device),
            c_proj: linear([channels, output], true, std, device),
            num_heads,
        }
    }

    /// Pools a feature map; positions are resized when the map differs from the trained one.
    ///
    /// # Shapes
    ///
    /// - `features`: `[B, H, W, C]`
    /// - output: `[B, projection_dim]`
    pub fn forward(&self, features: Tensor<4>) -> Tensor<2> {
        apply_linear(&self.c_proj, self.pool(features), None, IDENTITY)
    }

    /// The pooled feature before the projection.
    ///
    /// # Shapes
    ///
    /// - `features`: `[B, H, W, C]`
    /// - output: `[B, C]`
    pub fn pool(&self, features: Tensor<4>) -> Tensor<2> {
        let [batch, rows, columns, channels] = features.dims();
        let x = features.reshape([batch, rows * columns, channels]);
        let x = Tensor::cat(vec![x.clone().mean_dim(1), x], 1); // [B, 1 + T, C]
        let x = x + resized_positions(self.positional_embedding.val(), [rows, columns]).unsqueeze();
        let query = apply_linear(&self.q_proj, x.clone().narrow(1, 0, 1), None, IDENTITY); // [B, 1, C]
        let key = apply_linear(&self.k_proj, x.clone(), None, IDENTITY);
        let value = apply_linear(&self.v_proj, x, None, IDENTITY);
        fused_ops::attention(query, key, value, self.num_heads, false).squeeze_dim(1)
    }
}

impl ModifiedResNet {
    /// The last stage's feature map.
    ///
    /// # Shapes
    ///
    /// - `pixel_values`: `[B, 3, H, W]`
    /// - output: `[B, 32 * width, H / 32, W / 32]`
    pub fn features(&self, pixel_values: Tensor<4>) -> Tensor<4> {
        self.feature_map(pixel_values).permute([0, 3, 1, 2])
    }

    /// As [`ModifiedResNet::features`], the channels last, as [`AttentionPool`] takes it.
    pub fn feature_map(&self, pixel_values: Tensor<4>) -> Tensor<4> {
        let x = pixel_values.permute([0, 2, 3, 1]);
        let x = conv_norm(&self.conv1, &self.bn1, x, None, true); // [B, H/2, W/2, width / 2]
        let x = conv_norm(&self.conv2, &self.bn2, x, None, true);
        let x = conv_norm(&self.conv3, &self.bn3, x, None, true);
        let x = average_pool(x, 2); // [B, H/4, W/4, width]
        let stages = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        stages.into_iter().flatten().fold(x, |x, block| block.forward(x))
    }

    /// Image features in the shared space.
    ///
    /// # Shapes
    ///
    /// - `pixel_values`: `[B, 3, H, W]`
    /// - output: `[B, projection_dim]`
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        self.attnpool.forward(self.feature_map(pixel_values))
    }
}
