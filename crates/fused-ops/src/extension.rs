//! The operations as an extension of burn's back ends.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, backend_extension};

use crate::composed;

/// An elementwise function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// None.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(1.702 x)`, as OpenAI trained with.
    QuickGelu,
    /// `x * Phi(x)`, the exact form.
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
}

/// The geometry of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Step over rows and columns.
    pub stride: [usize; 2],
    /// Zeros on either side of rows and columns.
    pub padding: [usize; 2],
}

impl Convolution {
    /// Rows and columns of the output for an image of `height` x `width`.
    pub fn output_size(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        let along = |axis: usize, size: usize| {
            let padded = size + 2 * self.padding[axis];
            assert!(padded >= self.kernel[axis], "a kernel of {:?} on an image of {size}", self.kernel);
            (padded - self.kernel[axis]) / self.stride[axis] + 1
        };
        [along(0, height), along(1, width)]
    }
}

/// An optional operand.
#[derive(ExtensionType)]
pub enum Maybe<B: Backend> {
    /// There is one.
    Given(FloatTensor<B>),
    /// There is none.
    Absent,
}

impl<B: Backend> Maybe<B> {
    /// As an option.
    pub fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Maybe::Given(tensor) => Some(tensor),
            Maybe::Absent => None,
        }
    }
}

/// What the networks compute with. The bodies here are made of ordinary operations, right on every back end.
#[backend_extension(Flex: cfg(feature = "flex"), LibTorch: cfg(feature = "tch"), Cube: cfg(feature = "cuda"), Autodiff)]
#[allow(clippy::too_many_arguments)]
pub trait FusedOps: Backend {
    /// `activation(x . weight + bias + residual)`: `x` `[.., I]`, `weight` `[I, O]`, `bias` `[O]`, `residual` `[.., O]`.
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
        #[extension_type] residual: Maybe<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        composed::linear::<Self>(x, weight, bias.into_option(), residual.into_option(), activation)
    }

    /// The activation of every element.
    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        composed::activate::<Self>(x, activation)
    }

    /// Layer norm over the last axis: `x` `[.., D]`, `gamma` and `beta` `[D]`.
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        Self::layer_norm(x, gamma, Some(beta), epsilon)
    }

    /// Group norm of channels-last features, then the activation: `x` `[B, .., C]`, `gamma` and `beta` `[C]`.
    fn fused_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        num_groups: usize,
        epsilon: f64,
        activation: Activation,
    ) -> FloatTensor<Self> {
        composed::group_norm::<Self>(x, [gamma, beta], num_groups, epsilon, activation)
    }

    /// Attention of heads that lie side by side in the last axis: `query` `[B, T, D]`, `key` and `value` `[B, S, D]`.
    fn head_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        num_heads: usize,
        is_causal: bool,
    ) -> FloatTensor<Self> {
        composed::attention::<Self>(query, key, value, num_heads, is_causal)
    }

    /// `conv(x) * scale + shift + residual`, then `max(., 0)` if `relu`.
    ///
    /// `x` `[B, H, W, C]`, `weight` `[O, C, rows, columns]`, `scale` and `shift` `[O]`, `residual` as the output.
    fn conv_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        #[extension_type] residual: Maybe<Self>,
        shape: Convolution,
        relu: bool,
    ) -> FloatTensor<Self> {
        composed::convolution_affine::<Self>(x, weight, [scale, shift], residual.into_option(), shape, relu)
    }

    /// `norm(conv(x)) + residual`, then `max(., 0)` if `relu`; the norm takes the batch's own statistics.
    ///
    /// Gives the output, the mean and the biased variance. Shapes as in [`FusedOps::conv_affine`].
    fn conv_batch_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        #[extension_type] residual: Maybe<Self>,
        shape: Convolution,
        epsilon: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let x = composed::convolution::<Self>(x, weight, shape);
        let [mean, variance] = composed::moments::<Self>(x.clone());
        let (scale, shift) = composed::folded::<Self>(gamma, beta, mean.clone(), variance.clone(), epsilon);
        (composed::affine::<Self>(x, scale, shift, residual.into_option(), relu), mean, variance)
    }

    /// Means of windows without overlap: `[B, H, W, C]` to `[B, H / size, W / size, C]`.
    fn average_pool(x: FloatTensor<Self>, size: usize) -> FloatTensor<Self> {
        composed::average_pool::<Self>(x, size)
    }
}

/// Gradients of a product: those asked for.
pub struct ProductGradients<B: Backend> {
    /// Of the input.
    pub x: Option<FloatTensor<B>>,
    /// Of the weight.
    pub weight: Option<FloatTensor<B>>,
}

/// What the backward pass through a norm reads.
pub struct NormState<B: Backend> {
    /// The norm's input `[B, H, W, C]`.
    pub x: FloatTensor<B>,
    /// The output behind the rectifier, if there is one.
    pub rectified: Option<FloatTensor<B>>,
    /// Subtracted from `x`, `[C]`.
    pub mean: FloatTensor<B>,
    /// Multiplied to the difference, `[C]`.
    pub inverse_deviation: FloatTensor<B>,
    /// Multiplied to the normalised value, `[C]`.
    pub gamma: FloatTensor<B>,
    /// Whether mean and deviation are functions of `x`.
    pub of_batch: bool,
}

/// Gradients through a norm, rectifier and residual sum.
pub struct NormGradients<B: Backend> {
    /// Of the norm's input.
    pub x: FloatTensor<B>,
    /// Of the residual, that is before the rectifier.
    pub residual: FloatTensor<B>,
    /// Of the factor, `[C]`.
    pub gamma: FloatTensor<B>,
    /// Of the summand, `[C]`.
    pub beta: FloatTensor<B>,
}

/// An operation that the back end's own autograd has recorded.
#[derive(Debug, Clone)]
pub struct Recorded<B: Backend> {
    /// The result, by which the record is found again.
    pub output: FloatTensor<B>,
    /// Mean and biased variance of the batch, where the norm took them.
    pub moments: Option<[FloatTensor<B>; 2]>,
    /// The operands.
    pub leaves: Vec<FloatTensor<B>>,
}

/// What the autodiff back end calls: the parts of an operation whose results it keeps, and the backward passes.
pub trait Training: FusedOps {
    /// [`FusedOps::conv_batch_norm`], or [`FusedOps::conv_affine`] without an `epsilon`, recorded by the back end itself.
    ///
    /// `None` where it has no autograd of its own: the operations below then do it in parts. `tracked` says of which
    /// operands a gradient is wanted, beside the residual's.
    fn record_conv_norm(
        _operands: [FloatTensor<Self>; 4],
        _residual: Option<FloatTensor<Self>>,
        _tracked: [bool; 4],
        _shape: Convolution,
        _epsilon: Option<f64>,
        _relu: bool,
    ) -> Option<Recorded<Self>> {
        None
    }

    /// The result without its record.
    fn output(recorded: &Recorded<Self>) -> FloatTensor<Self> {
        recorded.output.clone()
    }

    /// Gradients of the operands that are tracked and of the residual.
    fn replay(recorded: Recorded<Self>, _grad: FloatTensor<Self>) -> Vec<Option<FloatTensor<Self>>> {
        unreachable!("{} operands were recorded by a back end without autograd", recorded.leaves.len())
    }

    /// The convolution of channels-last images alone.
    fn convolve(x: FloatTensor<Self>, weight: FloatTensor<Self>, shape: Convolution) -> FloatTensor<Self> {
        composed::convolution::<Self>(x, weight, shape)
    }

    /// Mean and biased variance of every channel: `[B, H, W, C]` to `[C]` twice.
    fn moments(x: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        composed::moments::<Self>(x)
    }

    /// `x * scale + shift + residual` per channel, then `max(., 0)` if `relu`.
    fn affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: Option<FloatTensor<Self>>,
        relu: bool,
    ) -> FloatTensor<Self> {
        composed::affine::<Self>(x, scale, shift, residual, relu)
    }

    /// Of `x . weight` `[.., I] . [I, O]`.
    fn linear_gradients(
        x: Option<FloatTensor<Self>>,
        weight: Option<FloatTensor<Self>>,
        grad: FloatTensor<Self>,
    ) -> ProductGradients<Self> {
        composed::linear_gradients::<Self>(x, weight, grad)
    }

    /// Sums over all axes but the last: `[.., D]` to `[D]`.
    fn column_sums(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::column_sums::<Self>(grad)
    }

    /// Of [`FusedOps::activate`] at `x`.
    fn activate_gradient(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        composed::activate_gradient::<Self>(x, grad, activation)
    }

    /// Of [`FusedOps::fused_layer_norm`]: of `x`, `gamma` and `beta`.
    fn layer_norm_gradients(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
    ) -> [FloatTensor<Self>; 3] {
        composed::layer_norm_gradients::<Self>(x, gamma, grad, epsilon)
    }

    /// Of [`FusedOps::head_attention`]: of query, key and value; `output` is what the forward pass gave.
    fn attention_gradients(
        [query, key, value]: [FloatTensor<Self>; 3],
        output: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        num_heads: usize,
        is_causal: bool,
    ) -> [FloatTensor<Self>; 3] {
        composed::attention_gradients::<Self>([query, key, value], output, grad, num_heads, is_causal)
    }

    /// Of the convolution inside [`FusedOps::conv_affine`]; both operands are given, the flags say what is wanted.
    fn convolution_gradients(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        shape: Convolution,
        [of_x, of_weight]: [bool; 2],
    ) -> ProductGradients<Self> {
        composed::convolution_gradients::<Self>(x, weight, grad, shape, [of_x, of_weight])
    }

    /// Through `relu(gamma * (x - mean) * inverse_deviation + beta + residual)`.
    fn norm_gradients(state: NormState<Self>, grad: FloatTensor<Self>) -> NormGradients<Self> {
        composed::norm_gradients::<Self>(state, grad)
    }

    /// Of [`FusedOps::average_pool`]; `size` of the window, `image` rows and columns of the input.
    fn average_pool_gradient(grad: FloatTensor<Self>, size: usize, image: [usize; 2]) -> FloatTensor<Self> {
        composed::average_pool_gradient::<Self>(grad, size, image)
    }
}
