//! The stages of the UNet. A stage without cross-attention has an empty list of spatial transformers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::attention::{Transformer2DModel, TransformerShape};
use crate::resnet::{Downsample2D, Norm, ResnetBlock2D, Upsample2D};

/// Shape of one stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StageShape {
    pub channels_in: usize,
    pub channels_out: usize,
    pub num_layers: usize,
    pub temb_channels: usize,
    pub norm: Norm,
    /// `None` for a stage without cross-attention.
    pub transformer: Option<TransformerShape>,
    /// False for the last stage of each half.
    pub resample: bool,
}

impl StageShape {
    fn resnet(&self, channels_in: usize, device: &Device) -> ResnetBlock2D {
        ResnetBlock2D::new(channels_in, self.channels_out, Some(self.temb_channels), self.norm, device)
    }

    fn attentions(&self, count: usize, device: &Device) -> Vec<Transformer2DModel> {
        let new = |shape| Transformer2DModel::new(self.channels_out, shape, device);
        self.transformer.map(|shape| (0..count).map(|_| new(shape)).collect()).unwrap_or_default()
    }
}

/// `CrossAttnDownBlock2D` or `DownBlock2D`: a stage of the contracting half.
#[derive(Module, Debug)]
pub struct DownBlock2D {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
    downsamplers: Vec<Downsample2D>,
}

impl DownBlock2D {
    pub(crate) fn new(shape: StageShape, device: &Device) -> Self {
        let channels_in = |layer| if layer == 0 { shape.channels_in } else { shape.channels_out };
        Self {
            resnets: (0..shape.num_layers).map(|i| shape.resnet(channels_in(i), device)).collect(),
            attentions: shape.attentions(shape.num_layers, device),
            downsamplers: shape
                .resample
                .then(|| Downsample2D::symmetric(shape.channels_out, device))
                .into_iter()
                .collect(),
        }
    }

    /// Applies the stage to `x` `[B, H, W, C]` and appends the output of every layer to `residuals`.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        temb: &Tensor<2>,
        context: &Tensor<3>,
        residuals: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        let mut x = x;
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, Some(temb));
            if let Some(transformer) = self.attentions.get(layer) {
                x = transformer.forward(x, context);
            }
            residuals.push(x.clone());
        }
        for downsampler in &self.downsamplers {
            x = downsampler.forward(x);
            residuals.push(x.clone());
        }
        x
    }
}

/// `UNetMidBlock2DCrossAttn`: a spatial transformer between two residual blocks.
#[derive(Module, Debug)]
pub struct UNetMidBlock2DCrossAttn {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
}

impl UNetMidBlock2DCrossAttn {
    pub(crate) fn new(shape: StageShape, device: &Device) -> Self {
        Self {
            resnets: (0..2).map(|_| shape.resnet(shape.channels_in, device)).collect(),
            attentions: shape.attentions(1, device),
        }
    }

    /// `[B, H, W, C]` to `[B, H, W, C]`.
    pub(crate) fn forward(&self, x: Tensor<4>, temb: &Tensor<2>, context: &Tensor<3>) -> Tensor<4> {
        let mut x = x;
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, Some(temb));
            if let Some(transformer) = self.attentions.get(layer) {
                x = transformer.forward(x, context);
            }
        }
        x
    }
}

/// `CrossAttnUpBlock2D` or `UpBlock2D`: a stage of the expanding half.
#[derive(Module, Debug)]
pub struct UpBlock2D {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
    upsamplers: Vec<Upsample2D>,
}

impl UpBlock2D {
    /// `skip_channels` are the channels of the residuals in the order in which the stage takes them.
    pub(crate) fn new(shape: StageShape, skip_channels: &[usize], device: &Device) -> Self {
        let channels_in = |layer| if layer == 0 { shape.channels_in } else { shape.channels_out };
        let resnet = |(layer, skip): (usize, &usize)| shape.resnet(channels_in(layer) + skip, device);
        Self {
            resnets: skip_channels.iter().enumerate().map(resnet).collect(),
            attentions: shape.attentions(skip_channels.len(), device),
            upsamplers: shape
                .resample
                .then(|| Upsample2D::new(shape.channels_out, device))
                .into_iter()
                .collect(),
        }
    }

    /// Applies the stage to `x` `[B, H, W, C]`, taking one residual from the end of `residuals` per layer.
    ///
    /// The enlargement takes the size of the next residual, so sides that do not divide evenly fit again.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        temb: &Tensor<2>,
        context: &Tensor<3>,
        residuals: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        let mut x = x;
        for (layer, resnet) in self.resnets.iter().enumerate() {
            let residual =
                residuals.pop().expect("invariant: the down half leaves one residual per up layer");
            x = resnet.forward(Tensor::cat(vec![x, residual], 3), Some(temb));
            if let Some(transformer) = self.attentions.get(layer) {
                x = transformer.forward(x, context);
            }
        }
        for upsampler in &self.upsamplers {
            let size = residuals.last().map(|next| {
                let [_, height, width, _] = next.dims();
                [height, width]
            });
            x = upsampler.forward(x, size);
        }
        x
    }
}
