//! Residual blocks and resampling, shared by the UNet and the autoencoder.
//!
//! After `ResnetBlock2D`, `Downsample2D` and `Upsample2D` of diffusers; the field names are its tensor names. Feature maps are
//! channels-last, `[B, H, W, C]`, as everywhere inside the networks: a map is then a matrix of tokens too.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use fused_ops::{Activation, conv, group_norm};

/// Settings that all group norms of one network share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    /// Number of groups.
    pub groups: usize,
    /// Epsilon.
    pub eps: f64,
}

impl Norm {
    /// A group norm over `channels`.
    pub(crate) fn init(self, channels: usize, device: &Device) -> GroupNorm {
        GroupNormConfig::new(self.groups, channels).with_epsilon(self.eps).init(device)
    }
}

/// A 3x3 convolution that keeps height and width.
pub(crate) fn conv3x3(channels_in: usize, channels_out: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([channels_in, channels_out], [3, 3])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .init(device)
}

/// A 1x1 convolution.
pub(crate) fn conv1x1(channels_in: usize, channels_out: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([channels_in, channels_out], [1, 1]).init(device)
}

/// Two convolutions with a skip connection, told the timestep in the UNet.
#[derive(Module, Debug)]
pub struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock2D {
    pub(crate) fn new(
        channels_in: usize,
        channels_out: usize,
        temb_channels: Option<usize>,
        norm: Norm,
        device: &Device,
    ) -> Self {
        Self {
            norm1: norm.init(channels_in, device),
            conv1: conv3x3(channels_in, channels_out, device),
            time_emb_proj: temb_channels.map(|width| LinearConfig::new(width, channels_out).init(device)),
            norm2: norm.init(channels_out, device),
            conv2: conv3x3(channels_out, channels_out, device),
            conv_shortcut: (channels_in != channels_out).then(|| conv1x1(channels_in, channels_out, device)),
        }
    }

    /// Applies the block.
    ///
    /// # Shapes
    ///
    /// - `x`: `[B, H, W, C]`
    /// - `temb`: `[B, D]`, the timestep embedding; ignored by a block that has no projection for it
    /// - output: `[B, H, W, C']`
    pub fn forward(&self, x: Tensor<4>, temb: Option<&Tensor<2>>) -> Tensor<4> {
        let hidden = group_norm(&self.norm1, x.clone(), Activation::Silu);
        let mut hidden = conv(&self.conv1, hidden, None); // [B, H, W, C']
        if let (Some(projection), Some(temb)) = (&self.time_emb_proj, temb) {
            let shift = projection.forward(silu(temb.clone())); // [B, C']
            hidden = hidden + shift.unsqueeze_dims::<4>(&[1, 2]);
        }
        let hidden = group_norm(&self.norm2, hidden, Activation::Silu);
        let skip = match &self.conv_shortcut {
            Some(shortcut) => conv(shortcut, x, None),
            None => x,
        };
        conv(&self.conv2, hidden, Some(skip))
    }
}

/// Halves height and width by a convolution of stride 2.
#[derive(Module, Debug)]
pub struct Downsample2D {
    conv: Conv2d,
    pads_bottom_right: bool,
}

impl Downsample2D {
    /// Pads one pixel on every side, as in the UNet.
    pub(crate) fn symmetric(channels: usize, device: &Device) -> Self {
        Self::new(channels, false, device)
    }

    /// Pads one pixel at the bottom and at the right, as in the autoencoder.
    pub(crate) fn bottom_right(channels: usize, device: &Device) -> Self {
        Self::new(channels, true, device)
    }

    fn new(channels: usize, pads_bottom_right: bool, device: &Device) -> Self {
        let padding = match pads_bottom_right {
            true => PaddingConfig2d::Valid,
            false => PaddingConfig2d::Explicit(1, 1, 1, 1),
        };
        let conv = Conv2dConfig::new([channels, channels], [3, 3]).with_stride([2, 2]).with_padding(padding);
        Self { conv: conv.init(device), pads_bottom_right }
    }

    /// `[B, H, W, C]` to `[B, ⌈H/2⌉, ⌈W/2⌉, C]` (the autoencoder's form rounds down).
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        conv(&self.conv, if self.pads_bottom_right { with_zeros(with_zeros(x, 1), 2) } else { x }, None)
    }
}

/// One row or column of zeros more at the end of an axis.
fn with_zeros(x: Tensor<4>, axis: usize) -> Tensor<4> {
    let mut shape = x.dims();
    shape[axis] = 1;
    let zeros = Tensor::zeros(shape, (&x.device(), x.dtype()));
    Tensor::cat(vec![x, zeros], axis)
}

/// Nearest-neighbour enlargement followed by a convolution.
#[derive(Module, Debug)]
pub struct Upsample2D {
    conv: Conv2d,
}

impl Upsample2D {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        Self { conv: conv3x3(channels, channels, device) }
    }

    /// `[B, H, W, C]` to `[B, H', W', C]` with `output_size = [H', W']`, by default twice the input's.
    pub fn forward(&self, x: Tensor<4>, output_size: Option<[usize; 2]>) -> Tensor<4> {
        let [_, height, width, _] = x.dims();
        let [rows, columns] = output_size.unwrap_or([2 * height, 2 * width]);
        conv(&self.conv, nearest(nearest(x, 1, rows), 2, columns), None)
    }
}

/// Stretches an axis to `size`: entry i is the input's entry i * input / size, rounded down.
fn nearest(x: Tensor<4>, axis: usize, size: usize) -> Tensor<4> {
    let input = x.dims()[axis];
    let indices: Vec<i64> = (0..size).map(|i| (i * input / size) as i64).collect();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [size]), &x.device());
    x.select(axis, indices)
}
