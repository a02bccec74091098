//! The operations on burn's pure Rust back end, in f32; other types take the bodies of ordinary operations.

#[allow(unsafe_code)] // tiles and vectors by pointer; each use says why it may
mod attention;
mod channels;
mod convolution;
mod elementwise;
mod group_norm;
#[allow(unsafe_code)] // tiles and vectors by pointer; each use says why it may
mod kernel;
mod layer_norm;
mod left;
mod panels;
#[allow(unsafe_code)] // tiles and vectors by pointer; each use says why it may
mod product;
#[allow(unsafe_code)] // tiles and vectors by pointer; each use says why it may
mod simd;
mod training;
#[allow(unsafe_code)] // tiles and vectors by pointer; each use says why it may
mod transposed;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape, TensorData};

use crate::composed;
use crate::extension::{Activation, Convolution, FusedOps, Maybe};
use attention::Heads;
use convolution::{Images, Kernel};
use group_norm::Groups;
use kernel::Finish;
use left::Left;
use panels::{Panels, Source};
use product::Residual;

/// Whether all tensors are f32.
fn are_f32<const N: usize>(tensors: [&FlexTensor; N]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// The numbers of a tensor, in order.
struct Values(FlexTensor);

impl Values {
    fn of(tensor: &FlexTensor) -> Self {
        Values(tensor.to_contiguous())
    }

    fn slice(&self) -> &[f32] {
        self.0.as_slice().expect("a contiguous f32 tensor is a slice")
    }
}

impl std::ops::Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.slice()
    }
}

/// A residual: its memory becomes the result's if nobody else holds it.
enum Summand {
    None,
    Shared(Values),
    Owned(Vec<f32>),
}

impl Summand {
    fn of(tensor: Maybe<Flex>) -> Self {
        let Maybe::Given(tensor) = tensor else {
            return Summand::None;
        };
        if !tensor.is_unique() {
            return Summand::Shared(Values::of(&tensor));
        }
        let values = tensor.into_data().try_into_vec::<f32>();
        Summand::Owned(values.expect("an f32 tensor gives its numbers"))
    }

    fn residual(&mut self) -> Residual<'_> {
        match self {
            Summand::None => Residual::None,
            Summand::Shared(values) => Residual::Shared(values),
            Summand::Owned(values) => Residual::Owned(std::mem::take(values)),
        }
    }
}

fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// A matrix `[depth, columns]` as it lies in memory, copied only if it overlaps itself or runs backwards.
struct Matrix {
    values: FlexTensor,
    strides: [usize; 2],
    shape: [usize; 2],
}

impl Matrix {
    fn of(weight: &FlexTensor) -> Self {
        let forward = weight.layout().strides().iter().all(|stride| *stride > 0);
        let values = if forward { weight.clone() } else { weight.to_contiguous() };
        let [down, across] = [values.layout().strides()[0], values.layout().strides()[1]];
        Matrix { shape: dims(&values), values, strides: [down.unsigned_abs(), across.unsigned_abs()] }
    }

    fn panels(&self) -> Panels {
        let ([depth, columns], [down, across]) = (self.shape, self.strides);
        let data = &self.values.storage::<f32>()[self.values.layout().start_offset()..];
        let matrix = Source::matrix(data, depth, down);
        Panels::pack(&Source { column_stride: across, ..matrix }, columns, None)
    }

    fn transposed(self) -> Self {
        let ([depth, columns], [down, across]) = (self.shape, self.strides);
        Matrix { shape: [columns, depth], strides: [across, down], ..self }
    }
}

/// The convolution's operands.
fn convolution<'a>(x: &'a Values, weight: &'a Values, shape: Convolution) -> (Images<'a>, Kernel<'a>) {
    let [output, input, _, _] = dims(&weight.0);
    let images = Images { data: x.slice(), shape: dims(&x.0) };
    (images, Kernel { data: weight.slice(), channels: [output, input], shape })
}

/// `[B, H, W, C]` of a convolution's output.
fn output_shape(x: &FlexTensor, weight: &FlexTensor, shape: Convolution) -> [usize; 4] {
    let ([batch, height, width, _], [channels, ..]) = (dims::<4>(x), dims::<4>(weight));
    let [rows, columns] = shape.output_size([height, width]);
    [batch, rows, columns, channels]
}

fn heads(query: &FlexTensor, key: &FlexTensor, num_heads: usize, is_causal: bool) -> Heads {
    let ([batch, queries, width], [_, keys, _]) = (dims(query), dims::<3>(key));
    Heads { batch, queries, keys, width, num_heads, is_causal }
}

impl FusedOps for Flex {
    fn fused_linear(
        x: FlexTensor,
        weight: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        activation: Activation,
    ) -> FlexTensor {
        if !are_f32([&x, &weight]) {
            return composed::linear::<Self>(
                x,
                weight,
                bias.into_option(),
                residual.into_option(),
                activation,
            );
        }
        let [channels, columns] = dims(&weight);
        let bias = bias.into_option().map(|bias| Values::of(&bias));
        let mut residual = Summand::of(residual);
        let x = Values::of(&x);
        let mut shape = x.0.layout().shape().clone();
        let axes = shape.num_dims();
        assert_eq!(shape[axes - 1], channels, "input width of a linear layer");
        let left = Left::Rows { data: &x, stride: channels, channels };
        let finish = Finish { bias: bias.as_deref(), activation };
        let rows = shape.num_elements() / channels.max(1);
        let output =
            product::product(&left, rows, &Matrix::of(&weight).panels(), residual.residual(), finish);
        shape[axes - 1] = columns;
        tensor(output, shape)
    }

    fn activate(x: FlexTensor, activation: Activation) -> FlexTensor {
        if !are_f32([&x]) {
            return composed::activate::<Self>(x, activation);
        }
        let x = Values::of(&x);
        tensor(elementwise::activated(&x, activation), x.0.layout().shape().clone())
    }

    fn fused_layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, epsilon: f64) -> FlexTensor {
        if !are_f32([&x, &gamma, &beta]) {
            return <Self as burn::backend::ops::ModuleOps<Self>>::layer_norm(x, gamma, Some(beta), epsilon);
        }
        let [x, gamma, beta] = [&x, &gamma, &beta].map(Values::of);
        let output = layer_norm::layer_norm(&x, &gamma, &beta, epsilon as f32);
        tensor(output, x.0.layout().shape().clone())
    }

    fn fused_group_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        num_groups: usize,
        epsilon: f64,
        activation: Activation,
    ) -> FlexTensor {
        if !are_f32([&x, &gamma, &beta]) {
            return composed::group_norm::<Self>(x, [gamma, beta], num_groups, epsilon, activation);
        }
        let [x, gamma, beta] = [&x, &gamma, &beta].map(Values::of);
        let shape = x.0.layout().shape().clone();
        let groups = Groups { batch: shape[0], channels: gamma.len(), num_groups, epsilon };
        tensor(group_norm::group_norm(&x, [&gamma, &beta], groups, activation), shape)
    }

    fn head_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        num_heads: usize,
        is_causal: bool,
    ) -> FlexTensor {
        if !are_f32([&query, &key, &value]) {
            return composed::attention::<Self>(query, key, value, num_heads, is_causal);
        }
        let heads = heads(&query, &key, num_heads, is_causal);
        let shape = query.layout().shape().clone();
        let [query, key, value] = [&query, &key, &value].map(Values::of);
        tensor(attention::attention(&query, &key, &value, heads), shape)
    }

    fn conv_affine(
        x: FlexTensor,
        weight: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        residual: Maybe<Self>,
        shape: Convolution,
        relu: bool,
    ) -> FlexTensor {
        if !are_f32([&x, &weight, &scale, &shift]) {
            let residual = residual.into_option();
            return composed::convolution_affine::<Self>(x, weight, [scale, shift], residual, shape, relu);
        }
        let output = output_shape(&x, &weight, shape);
        let [x, weight, scale, shift] = [&x, &weight, &scale, &shift].map(Values::of);
        let mut residual = Summand::of(residual);
        let (images, kernel) = convolution(&x, &weight, shape);
        let affine = Some([scale.slice(), shift.slice()]);
        tensor(convolution::convolve(images, kernel, affine, residual.residual(), relu), output)
    }

    fn average_pool(x: FlexTensor, size: usize) -> FlexTensor {
        if !are_f32([&x]) {
            return composed::average_pool::<Self>(x, size);
        }
        let [batch, height, width, channels] = dims(&x);
        let x = Values::of(&x);
        let images = Images { data: &x, shape: [batch, height, width, channels] };
        tensor(convolution::average_pool(images, size), [batch, height / size, width / size, channels])
    }
}
