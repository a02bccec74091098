//! What the autodiff back end calls.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use super::convolution::{self, Images};
use super::kernel::Finish;
use super::left::Left;
use super::{
    Matrix, Values, are_f32, attention, channels, dims, elementwise, heads, layer_norm, output_shape,
};
use super::{product, tensor, transposed};
use crate::composed;
use crate::extension::{Activation, Convolution, NormGradients, NormState, ProductGradients, Training};

/// Channels of the last axis.
fn width(x: &FlexTensor) -> usize {
    let shape = x.layout().shape();
    shape[shape.num_dims() - 1]
}

impl Training for Flex {
    fn convolve(x: FlexTensor, weight: FlexTensor, shape: Convolution) -> FlexTensor {
        if !are_f32([&x, &weight]) {
            return composed::convolution::<Self>(x, weight, shape);
        }
        let output = output_shape(&x, &weight, shape);
        let [x, weight] = [&x, &weight].map(Values::of);
        let (images, kernel) = super::convolution(&x, &weight, shape);
        tensor(convolution::convolve(images, kernel, None, None, false), output)
    }

    fn moments(x: FlexTensor) -> [FlexTensor; 2] {
        if !are_f32([&x]) {
            return composed::moments::<Self>(x);
        }
        let count = width(&x);
        channels::moments(&Values::of(&x), count).map(|values| tensor(values, [count]))
    }

    fn affine(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        residual: Option<FlexTensor>,
        relu: bool,
    ) -> FlexTensor {
        if !are_f32([&x, &scale, &shift]) {
            return composed::affine::<Self>(x, scale, shift, residual, relu);
        }
        let residual = residual.map(|residual| Values::of(&residual));
        let [x, scale, shift] = [&x, &scale, &shift].map(Values::of);
        let output = channels::affine(&x, &scale, &shift, residual.as_deref(), relu);
        tensor(output, x.0.layout().shape().clone())
    }

    fn linear_gradients(
        x: Option<FlexTensor>,
        weight: Option<FlexTensor>,
        grad: FlexTensor,
    ) -> ProductGradients<Self> {
        if !are_f32([&grad]) {
            return composed::linear_gradients::<Self>(x, weight, grad);
        }
        let (grad, columns) = (Values::of(&grad), width(&grad));
        let rows = grad.len() / columns.max(1);
        let of_x = weight.map(|weight| {
            let [channels, _] = dims(&weight);
            let left = Left::Rows { data: &grad, stride: columns, channels: columns };
            let right = Matrix::of(&weight).transposed().panels();
            let mut shape = grad.0.layout().shape().clone();
            let last = shape.num_dims() - 1;
            shape[last] = channels;
            tensor(product::product(&left, rows, &right, Finish::NONE), shape)
        });
        let of_weight = x.map(|x| {
            let (x, channels) = (Values::of(&x), width(&x));
            let left = Left::Rows { data: &x, stride: channels, channels };
            tensor(transposed::transposed_product(&left, rows, &grad, columns), [channels, columns])
        });
        ProductGradients { x: of_x, weight: of_weight }
    }

    fn column_sums(grad: FlexTensor) -> FlexTensor {
        if !are_f32([&grad]) {
            return composed::column_sums::<Self>(grad);
        }
        let count = width(&grad);
        tensor(channels::column_sums(&Values::of(&grad), count), [count])
    }

    fn activate_gradient(x: FlexTensor, grad: FlexTensor, activation: Activation) -> FlexTensor {
        if !are_f32([&x, &grad]) {
            return composed::activate_gradient::<Self>(x, grad, activation);
        }
        let [x, grad] = [&x, &grad].map(Values::of);
        let output = elementwise::activation_gradient(&x, &grad, activation);
        tensor(output, x.0.layout().shape().clone())
    }

    fn layer_norm_gradients(
        x: FlexTensor,
        gamma: FlexTensor,
        grad: FlexTensor,
        epsilon: f64,
    ) -> [FlexTensor; 3] {
        if !are_f32([&x, &gamma, &grad]) {
            return composed::layer_norm_gradients::<Self>(x, gamma, grad, epsilon);
        }
        let count = width(&x);
        let [x, gamma, grad] = [&x, &gamma, &grad].map(Values::of);
        let [of_x, of_gamma, of_beta] = layer_norm::layer_norm_gradients(&x, &gamma, &grad, epsilon as f32);
        [tensor(of_x, x.0.layout().shape().clone()), tensor(of_gamma, [count]), tensor(of_beta, [count])]
    }

    fn attention_gradients(
        operands: [FlexTensor; 3],
        output: FlexTensor,
        grad: FlexTensor,
        num_heads: usize,
        is_causal: bool,
    ) -> [FlexTensor; 3] {
        let [query, key, value] = &operands;
        if !are_f32([query, key, value, &grad]) {
            return composed::attention_gradients::<Self>(operands, output, grad, num_heads, is_causal);
        }
        let heads = heads(query, key, num_heads, is_causal);
        let [query, key, value] = operands.each_ref().map(Values::of);
        let [output, grad] = [&output, &grad].map(Values::of);
        let all = attention::attention_gradients([&query, &key, &value], &output, &grad, heads);
        let [query, key, value] = operands.map(|operand| operand.layout().shape().clone());
        let [of_query, of_key, of_value] = all;
        [tensor(of_query, query), tensor(of_key, key), tensor(of_value, value)]
    }

    fn convolution_gradients(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        shape: Convolution,
        [of_x, of_weight]: [bool; 2],
    ) -> ProductGradients<Self> {
        if !are_f32([&x, &weight, &grad]) {
            return composed::convolution_gradients::<Self>(x, weight, grad, shape, [of_x, of_weight]);
        }
        let values = [&x, &weight, &grad].map(Values::of);
        let (images, kernel) = super::convolution(&values[0], &values[1], shape);
        let outgoing = Images { data: &values[2], shape: dims(&grad) };
        let gradient_of_x = if of_x { convolution::image_gradient(kernel, outgoing) } else { None };
        let gradient_of_weight = of_weight
            .then(|| tensor(convolution::kernel_gradient(images, kernel, outgoing.data), dims::<4>(&weight)));
        let gradient_of_x = match gradient_of_x {
            Some(values) => Some(tensor(values, dims::<4>(&x))),
            None => composed::convolution_gradients::<Self>(x, weight, grad, shape, [of_x, false]).x,
        };
        ProductGradients { x: gradient_of_x, weight: gradient_of_weight }
    }

    fn norm_gradients(state: NormState<Self>, grad: FlexTensor) -> NormGradients<Self> {
        if !are_f32([&state.x, &grad]) {
            return composed::norm_gradients::<Self>(state, grad);
        }
        let shape = grad.layout().shape().clone();
        let rectified = state.rectified.as_ref().map(Values::of);
        let parameters = [&state.mean, &state.inverse_deviation, &state.gamma].map(Values::of);
        let (x, values) = (Values::of(&state.x), Values::of(&grad));
        let norm = channels::Norm {
            x: &x,
            rectified: rectified.as_deref(),
            mean: &parameters[0],
            inverse_deviation: &parameters[1],
            gamma: &parameters[2],
            of_batch: state.of_batch,
        };
        let all = channels::norm_gradients(norm, &values);
        let count = all.gamma.len();
        NormGradients {
            x: tensor(all.x, shape.clone()),
            residual: all.residual.map_or(grad, |residual| tensor(residual, shape)),
            gamma: tensor(all.gamma, [count]),
            beta: tensor(all.beta, [count]),
        }
    }

    fn average_pool_gradient(grad: FlexTensor, size: usize, image: [usize; 2]) -> FlexTensor {
        if !are_f32([&grad]) {
            return composed::average_pool_gradient::<Self>(grad, size, image);
        }
        let [batch, rows, columns, channels] = dims(&grad);
        let grad = Values::of(&grad);
        let images = Images { data: &grad, shape: [batch, rows, columns, channels] };
        let output = convolution::average_pool_gradient(images, size, image);
        tensor(output, [batch, image[0], image[1], channels])
    }
}
