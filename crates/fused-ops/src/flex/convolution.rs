//! Convolutions of channels-last images as matrix products, and average pooling.

use rayon::prelude::*;

use super::kernel::Finish;
use super::left::{Left, Window};
use super::panels::{Panels, Source};
use super::product::product;
use super::transposed::transposed_product;
use crate::extension::{Activation, Convolution};

/// Images `[B, height, width, channels]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Images<'a> {
    /// The numbers.
    pub data: &'a [f32],
    /// B, height, width, channels.
    pub shape: [usize; 4],
}

impl<'a> Images<'a> {
    /// What the kernel sees of every output pixel, and the number of output pixels.
    fn seen(self, shape: Convolution) -> (Left<'a>, usize) {
        let [batch, height, width, channels] = self.shape;
        let [rows, columns] = shape.output_size([height, width]);
        let pixel = Convolution { kernel: [1, 1], stride: [1, 1], padding: [0, 0] };
        let left = if shape == pixel {
            Left::Rows { data: self.data, stride: channels, channels }
        } else {
            Left::Window(Window::new(self.data, [height, width], channels, shape))
        };
        (left, batch * rows * columns)
    }
}

/// A kernel `[O, C, rows, columns]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel<'a> {
    /// The numbers.
    pub data: &'a [f32],
    /// O and C.
    pub channels: [usize; 2],
    /// The geometry.
    pub shape: Convolution,
}

impl Kernel<'_> {
    fn taps(&self) -> usize {
        self.shape.kernel[0] * self.shape.kernel[1]
    }
}

/// `conv(images) * scale + shift + residual`, rectified if `relu`.
pub(super) fn convolve(
    images: Images<'_>,
    kernel: Kernel<'_>,
    affine: Option<[&[f32]; 2]>,
    residual: Option<&[f32]>,
    relu: bool,
) -> Vec<f32> {
    let ([output, input], taps) = (kernel.channels, kernel.taps());
    let source = Source {
        data: kernel.data,
        offset: 0,
        taps,
        channels: input,
        tap_stride: 1,
        channel_stride: taps,
        column_stride: input * taps,
    };
    let right = Panels::pack(&source, output, affine.map(|[scale, _]| scale));
    let (left, rows) = images.seen(kernel.shape);
    let activation = if relu { Activation::Relu } else { Activation::Identity };
    product(&left, rows, &right, Finish { bias: affine.map(|[_, shift]| shift), residual, activation })
}

/// The gradient of the images: a convolution with the kernel turned around. `None` for a stride.
pub(super) fn image_gradient(kernel: Kernel<'_>, grad: Images<'_>) -> Option<Vec<f32>> {
    let Convolution { kernel: size, stride, padding } = kernel.shape;
    if stride != [1, 1] || padding[0] >= size[0] || padding[1] >= size[1] {
        return None;
    }
    let ([output, input], taps) = (kernel.channels, kernel.taps());
    let source = Source {
        data: kernel.data,
        offset: taps - 1,
        taps,
        channels: output,
        tap_stride: -1,
        channel_stride: input * taps,
        column_stride: taps,
    };
    let padding = [size[0] - 1 - padding[0], size[1] - 1 - padding[1]];
    let (left, rows) = grad.seen(Convolution { kernel: size, stride, padding });
    Some(product(&left, rows, &Panels::pack(&source, input, None), Finish::NONE))
}

/// The gradient of the kernel, `[O, C, rows, columns]`.
pub(super) fn kernel_gradient(images: Images<'_>, kernel: Kernel<'_>, grad: &[f32]) -> Vec<f32> {
    let ([output, input], taps) = (kernel.channels, kernel.taps());
    let (left, rows) = images.seen(kernel.shape);
    if let Left::Rows { .. } = left {
        let left = Left::Rows { data: grad, stride: output, channels: output };
        return transposed_product(&left, rows, images.data, input);
    }
    let by_tap = transposed_product(&left, rows, grad, output); // [taps, C, O]
    let mut gradient = vec![0.0; by_tap.len()];
    gradient.par_chunks_mut((input * taps).max(1)).enumerate().for_each(|(o, gradient)| {
        for (c, gradient) in gradient.chunks_exact_mut(taps).enumerate() {
            for (tap, gradient) in gradient.iter_mut().enumerate() {
                *gradient = by_tap[(tap * input + c) * output + o];
            }
        }
    });
    gradient
}

/// Means of `size` x `size` windows.
pub(super) fn average_pool(images: Images<'_>, size: usize) -> Vec<f32> {
    let [batch, height, width, channels] = images.shape;
    let [rows, columns] = [height / size, width / size];
    let mut output = vec![0.0; batch * rows * columns * channels];
    let factor = ((size * size) as f32).recip();
    output.par_chunks_mut((columns * channels).max(1)).enumerate().for_each(|(index, output)| {
        let (batch, y) = (index / rows, index % rows);
        for (x, output) in output.chunks_exact_mut(channels).enumerate() {
            for tap in 0..size * size {
                let pixel = (batch * height + y * size + tap / size) * width + x * size + tap % size;
                for (sum, value) in output.iter_mut().zip(&images.data[pixel * channels..]) {
                    *sum += value;
                }
            }
            output.iter_mut().for_each(|value| *value *= factor);
        }
    });
    output
}

/// The gradient of [`average_pool`]'s input of `height` x `width`.
pub(super) fn average_pool_gradient(grad: Images<'_>, size: usize, [height, width]: [usize; 2]) -> Vec<f32> {
    let [batch, rows, columns, channels] = grad.shape;
    let mut output = vec![0.0; batch * height * width * channels];
    let factor = ((size * size) as f32).recip();
    output.par_chunks_mut((width * channels).max(1)).enumerate().for_each(|(index, output)| {
        let (batch, y) = (index / height, index % height);
        if y / size >= rows {
            return;
        }
        for (x, output) in output.chunks_exact_mut(channels).enumerate().take(columns * size) {
            let pixel = (batch * rows + y / size) * columns + x / size;
            for (value, grad) in output.iter_mut().zip(&grad.data[pixel * channels..]) {
                *value = grad * factor;
            }
        }
    });
    output
}
