//! CLIP's vision transformer; keys as below `vision_model.` in transformers.

use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor, TensorData};

use crate::config::VisionTransformerConfig;
use crate::encoder::{Encoder, EncoderConfig, IDENTITY};
use crate::resample::bicubic_matrix;

/// Class token, patches and positions.
#[derive(Module, Debug)]
pub struct VisionEmbeddings {
    /// The class token, `[D]`.
    pub class_embedding: Param<Tensor<1>>,
    /// One convolution step per patch.
    pub patch_embedding: Conv2d,
    /// One row for the class token, then one per patch in row-major order.
    pub position_embedding: Embedding,
}

/// The vision transformer.
#[derive(Module, Debug)]
pub struct VisionTransformer {
    /// Class token, patches and positions.
    pub embeddings: VisionEmbeddings,
    /// Norm before the first layer; the name keeps transformers' spelling.
    pub pre_layrnorm: LayerNorm,
    /// The encoder.
    pub encoder: Encoder,
    /// Norm of the class token.
    pub post_layernorm: LayerNorm,
}

impl VisionTransformerConfig {
    /// A vision transformer of this shape with random weights, drawn as transformers draws them.
    pub fn init(&self, device: &Device) -> VisionTransformer {
        let width = self.hidden_size;
        let grid = self.image_size / self.patch_size;
        let normal = |std| Initializer::Normal { mean: 0.0, std };
        let norm = || LayerNormConfig::new(width).with_epsilon(self.layer_norm_eps).init(device);
        VisionTransformer {
            embeddings: VisionEmbeddings {
                class_embedding: normal((width as f64).powf(-0.5)).init([width], device),
                patch_embedding: Conv2dConfig::new([3, width], [self.patch_size; 2])
                    .with_stride([self.patch_size; 2])
                    .with_bias(false)
                    .with_initializer(normal(0.02))
                    .init(device),
                position_embedding: EmbeddingConfig::new(grid * grid + 1, width)
                    .with_initializer(normal(0.02))
                    .init(device),
            },
            pre_layrnorm: norm(),
            encoder: EncoderConfig {
                hidden_size: width,
                intermediate_size: self.intermediate_size,
                num_hidden_layers: self.num_hidden_layers,
                num_attention_heads: self.num_attention_heads,
                hidden_act: self.hidden_act,
                layer_norm_eps: self.layer_norm_eps,
                is_causal: false,
            }
            .init(device),
            post_layernorm: norm(),
        }
    }
}

impl VisionEmbeddings {
    /// Embeds images; positions are resized when the patch grid differs from the trained one.
    ///
    /// # Shapes
    ///
    /// - `pixel_values`: `[B, 3, H, W]`
    /// - output: `[B, 1 + T, D]`
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let [batch, channels, height, across] = pixel_values.dims();
        let [width, _, size, _] = self.patch_embedding.weight.dims();
        let (rows, columns) = (height / size, across / size);
        // Patches do not overlap: cut the image, and the convolution is a matrix product.
        let x = pixel_values.narrow(2, 0, rows * size).narrow(3, 0, columns * size);
        let x = x.reshape([batch, channels, rows, size, columns, size]).permute([0, 2, 4, 1, 3, 5]);
        let x = x.reshape([batch, rows * columns, channels * size * size]);
        let weight = self.patch_embedding.weight.val().reshape([width, channels * size * size]).transpose();
        let patches = fused_ops::linear(x, weight, None, None, IDENTITY); // [B, T, D]
        let class = self.class_embedding.val().reshape([1, 1, width]).expand([batch, 1, width]);
        let position = resized_positions(self.position_embedding.weight.val(), [rows, columns]);
        Tensor::cat(vec![class, patches], 1) + position.unsqueeze()
    }
}

impl VisionTransformer {
    /// All tokens after the last layer, before `post_layernorm`.
    ///
    /// # Shapes
    ///
    /// - `pixel_values`: `[B, 3, H, W]`
    /// - output: `[B, 1 + T, D]`, the class token first
    pub fn tokens(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        self.encoder.forward(self.pre_layrnorm.forward(self.embeddings.forward(pixel_values)))
    }

    /// The normalised class token.
    ///
    /// # Shapes
    ///
    /// - `pixel_values`: `[B, 3, H, W]`
    /// - output: `[B, D]`
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        let class = self.tokens(pixel_values).narrow(1, 0, 1).squeeze_dim(1); // [B, D]
        self.post_layernorm.forward(class)
    }
}

/// Position embeddings for a patch grid: as they are for the trained grid, else the patch rows resized as PyTorch's bicubic
/// `interpolate` does (`align_corners=False`, a = -0.75).
///
/// The resize is one linear map, so gradients reach the embeddings.
///
/// # Shapes
///
/// - `positions`: `[1 + G * G, D]`, the row of the class or mean token first
/// - output: `[1 + rows * columns, D]`
pub(crate) fn resized_positions(positions: Tensor<2>, [rows, columns]: [usize; 2]) -> Tensor<2> {
    let [count, _] = positions.dims();
    let grid = (count - 1).isqrt();
    if [rows, columns] == [grid, grid] {
        return positions;
    }
    let (down, across) = (bicubic_matrix(grid, rows), bicubic_matrix(grid, columns));
    let mut map = Vec::with_capacity(rows * columns * grid * grid);
    for row in down.chunks_exact(grid) {
        for column in across.chunks_exact(grid) {
            map.extend(row.iter().flat_map(|y| column.iter().map(move |x| y * x)));
        }
    }
    let data = TensorData::new(map, [rows * columns, grid * grid]);
    let map = Tensor::<2>::from_data(data, (&positions.device(), positions.dtype()));
    let first = positions.clone().narrow(0, 0, 1);
    Tensor::cat(vec![first, map.matmul(positions.narrow(0, 1, count - 1))], 0)
}
