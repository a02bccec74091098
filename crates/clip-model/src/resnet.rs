//! OpenAI's modified ResNet with attention pooling; keys as below `visual.` in open_clip.
//!
//! Batch norm uses batch statistics only in training mode, that is with the module's flag on *and* an input on an autodiff
//! device; `valid()` or freezing switches it to the running statistics. burn moves the running variance towards the batch's
//! biased variance, PyTorch towards the unbiased one: for n values per channel they differ by the factor n / (n - 1).

use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::module::{attention, avg_pool2d};
use burn::tensor::ops::{AttentionModuleOptions, AvgPoolOptions};
use burn::tensor::{Device, Tensor};

use crate::config::ModifiedResNetConfig;
use crate::encoder::linear;
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

/// Average over `size` x `size` windows without overlap; identity for size 1.
fn average_pool(x: Tensor<4>, size: usize) -> Tensor<4> {
    if size == 1 {
        return x;
    }
    avg_pool2d(x, AvgPoolOptions::new([size, size]))
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
    /// - `x`: `[B, C, H, W]`
    /// - output: `[B, 4 * inner, H / stride, W / stride]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = relu(self.bn1.forward(self.conv1.forward(x.clone())));
        let y = relu(self.bn2.forward(self.conv2.forward(y)));
        let y = self.bn3.forward(self.conv3.forward(average_pool(y, self.stride)));
        let skip = match &self.downsample {
            Some(downsample) => downsample.bn.forward(downsample.conv.forward(average_pool(x, self.stride))),
            None => x,
        };
        relu(y + skip)
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
    /// - `features`: `[B, C, H, W]`
    /// - output: `[B, projection_dim]`
    pub fn forward(&self, features: Tensor<4>) -> Tensor<2> {
        let [batch, channels, rows, columns] = features.dims();
        let x = features.flatten::<3>(2, 3).swap_dims(1, 2); // [B, T, C]
        let x = Tensor::cat(vec![x.clone().mean_dim(1), x], 1); // [B, 1 + T, C]
        let x = x + resized_positions(self.positional_embedding.val(), [rows, columns]).unsqueeze();
        let head_dim = channels / self.num_heads;
        let heads = |projection: &Linear, x: Tensor<3>| {
            let [_, tokens, _] = x.dims();
            projection.forward(x).reshape([batch, tokens, self.num_heads, head_dim]).swap_dims(1, 2)
        };
        let query = heads(&self.q_proj, x.clone().narrow(1, 0, 1)); // [B, heads, 1, C / heads]
        let (key, value) = (heads(&self.k_proj, x.clone()), heads(&self.v_proj, x));
        let pooled = attention(query, key, value, None, None, AttentionModuleOptions::default());
        self.c_proj.forward(pooled.reshape([batch, channels]))
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
        let x = relu(self.bn1.forward(self.conv1.forward(pixel_values))); // [B, width / 2, H/2, W/2]
        let x = relu(self.bn2.forward(self.conv2.forward(x)));
        let x = relu(self.bn3.forward(self.conv3.forward(x)));
        let x = average_pool(x, 2); // [B, width, H/4, W/4]
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
        self.attnpool.forward(self.features(pixel_values))
    }
}
