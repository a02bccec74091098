//! libtorch's own kernels where burn's operations would take several.

use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;

use crate::composed;
use crate::extension::{Activation, FusedOps, Maybe, Training};

impl FusedOps for LibTorch {
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let bias = bias.into_option().map(|bias| bias.tensor);
        let mut y = x.tensor.linear(&weight.tensor.tr(), bias);
        if let Maybe::Given(residual) = residual {
            y += residual.tensor;
        }
        composed::activate::<Self>(FloatTensor::<Self>::new(y), activation)
    }
}

impl Training for LibTorch {}
