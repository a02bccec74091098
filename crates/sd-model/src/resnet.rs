//! Residual blocks and resampling, shared by the UNet and the autoencoder.
//!
//! After `ResnetBlock2D`, `Downsample2D` and `Upsample2D` of diffusers; the field names are its tensor names.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::silu;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};

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
    /// - `x`: `[B, C, H, W]`
    /// - `temb`: `[B, D]`, the timestep embedding; ignored by a block that has no projection for it
    /// - output: `[B, C', H, W]`
    pub fn forward(&self, x: Tensor<4>, temb: Option<&Tensor<2>>) -> Tensor<4> {
        let mut hidden = self.conv1.forward(silu(self.norm1.forward(x.clone()))); // [B, C', H, W]
        if let (Some(projection), Some(temb)) = (&self.time_emb_proj, temb) {
            let shift = projection.forward(silu(temb.clone())); // [B, C']
            hidden = hidden + shift.unsqueeze_dims::<4>(&[-1, -1]);
        }
        let hidden = self.conv2.forward(silu(self.norm2.forward(hidden)));
        let skip = match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        skip + hidden
    }
}

/// Halves height and width by a convolution of stride 2.
#[derive(Module, Debug)]
pub struct Downsample2D {
    conv: Conv2d,
}

impl Downsample2D {
    /// Pads one pixel on every side, as in the UNet.
    pub(crate) fn symmetric(channels: usize, device: &Device) -> Self {
        Self::new(channels, PaddingConfig2d::Explicit(1, 1, 1, 1), device)
    }

    /// Pads one pixel at the bottom and at the right, as in the autoencoder.
    pub(crate) fn bottom_right(channels: usize, device: &Device) -> Self {
        Self::new(channels, PaddingConfig2d::Explicit(0, 0, 1, 1), device)
    }

    fn new(channels: usize, padding: PaddingConfig2d, device: &Device) -> Self {
        let conv = Conv2dConfig::new([channels, channels], [3, 3]).with_stride([2, 2]).with_padding(padding);
        Self { conv: conv.init(device) }
    }

    /// `[B, C, H, W]` to `[B, C, ⌈H/2⌉, ⌈W/2⌉]` (the autoencoder's form rounds down).
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(x)
    }
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

    /// `[B, C, H, W]` to `[B, C, H', W']` with `output_size = [H', W']`, by default twice the input's.
    pub fn forward(&self, x: Tensor<4>, output_size: Option<[usize; 2]>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let size = output_size.unwrap_or([2 * height, 2 * width]);
        let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size);
        self.conv.forward(interpolate(x, options))
    }
}
