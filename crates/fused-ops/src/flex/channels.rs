//! What happens to every channel of a feature map alike: sums, moments, factors and summands.
//!
//! Rows are channels of one pixel. Sums over rows are taken block by block, and the blocks added in order and in f64; a
//! block's height depends on the number of channels alone.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::arch;

/// Numbers of a block.
const BLOCK: usize = 16 * 1024;

/// Numbers in a block of whole rows.
fn block(channels: usize) -> usize {
    (BLOCK / channels.max(1)).max(1) * channels.max(1)
}

/// Sums over all rows.
pub(super) fn column_sums(x: &[f32], channels: usize) -> Vec<f32> {
    let blocks: Vec<Vec<f32>> =
        x.par_chunks(block(channels)).map(|x| arch().dispatch(Sums { x, channels })).collect();
    added(blocks.iter(), channels).into_iter().map(|sum| sum as f32).collect()
}

/// Sums of vectors in f64, in order.
fn added<'a>(vectors: impl Iterator<Item = &'a Vec<f32>>, channels: usize) -> Vec<f64> {
    let mut sums = vec![0.0; channels];
    for vector in vectors {
        for (sum, value) in sums.iter_mut().zip(vector) {
            *sum += f64::from(*value);
        }
    }
    sums
}

struct Sums<'a> {
    x: &'a [f32],
    channels: usize,
}

impl WithSimd for Sums<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f32> {
        let mut sums = vec![0.0; self.channels];
        for row in self.x.chunks_exact(self.channels) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        sums
    }
}

/// Mean and biased variance of every channel.
pub(super) fn moments(x: &[f32], channels: usize) -> [Vec<f32>; 2] {
    let blocks: Vec<(usize, [Vec<f32>; 2])> = x
        .par_chunks(block(channels))
        .map(|x| (x.len() / channels, arch().dispatch(Moments { x, channels })))
        .collect();
    let (mut count, mut means, mut squares) = (0.0, vec![0.0; channels], vec![0.0; channels]);
    // Chan, Golub and LeVeque's rule for the union of two samples.
    for (rows, [block_means, block_squares]) in &blocks {
        let rows = *rows as f64;
        let total = count + rows;
        for channel in 0..channels {
            let difference = f64::from(block_means[channel]) - means[channel];
            means[channel] += difference * rows / total;
            squares[channel] +=
                f64::from(block_squares[channel]) + difference * difference * count * rows / total;
        }
        count = total;
    }
    let mean = means.into_iter().map(|mean: f64| mean as f32).collect();
    [mean, squares.into_iter().map(|sum: f64| (sum / count) as f32).collect()]
}

/// Mean and sum of squared differences from it, of one block.
struct Moments<'a> {
    x: &'a [f32],
    channels: usize,
}

impl WithSimd for Moments<'_> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [Vec<f32>; 2] {
        let Moments { x, channels } = self;
        let mut means = Sums { x, channels }.with_simd(simd);
        let factor = channels as f32 / x.len() as f32;
        for mean in &mut means {
            *mean *= factor;
        }
        let mut squares = vec![0.0; channels];
        for row in x.chunks_exact(channels) {
            for ((sum, value), mean) in squares.iter_mut().zip(row).zip(&means) {
                *sum += (value - mean) * (value - mean);
            }
        }
        [means, squares]
    }
}

/// `x * scale + shift + residual`, rectified if `relu`.
pub(super) fn affine(
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
) -> Vec<f32> {
    let size = block(scale.len());
    let mut output = vec![0.0; x.len()];
    output.par_chunks_mut(size).enumerate().for_each(|(index, output)| {
        let part = index * size..index * size + output.len();
        let residual = residual.map(|residual| &residual[part.clone()]);
        arch().dispatch(Affine { x: &x[part], scale, shift, residual, relu, output });
    });
    output
}

struct Affine<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    residual: Option<&'a [f32]>,
    relu: bool,
    output: &'a mut [f32],
}

impl WithSimd for Affine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let channels = self.scale.len();
        for (row, output) in self.output.chunks_exact_mut(channels).enumerate() {
            let x = &self.x[row * channels..][..channels];
            for (((output, x), scale), shift) in output.iter_mut().zip(x).zip(self.scale).zip(self.shift) {
                *output = x * scale + shift;
            }
            if let Some(residual) = self.residual {
                for (output, residual) in output.iter_mut().zip(&residual[row * channels..]) {
                    *output += residual;
                }
            }
            if self.relu {
                for output in output.iter_mut() {
                    // Not `max`: that would hide a NaN.
                    *output = if *output < 0.0 { 0.0 } else { *output };
                }
            }
        }
    }
}

/// What the backward pass through a norm reads; names as in [`crate::extension::NormState`].
#[derive(Clone, Copy)]
pub(super) struct Norm<'a> {
    pub x: &'a [f32],
    pub rectified: Option<&'a [f32]>,
    pub mean: &'a [f32],
    pub inverse_deviation: &'a [f32],
    pub gamma: &'a [f32],
    pub of_batch: bool,
}

/// Gradients through a norm; names as in [`crate::extension::NormGradients`].
pub(super) struct NormGradients {
    pub x: Vec<f32>,
    /// Where there is a rectifier; else it is the incoming gradient.
    pub residual: Option<Vec<f32>>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

/// Through `relu(gamma * (x - mean) * inverse_deviation + beta + residual)`.
pub(super) fn norm_gradients(norm: Norm<'_>, grad: &[f32]) -> NormGradients {
    let channels = norm.gamma.len();
    let size = block(channels);
    let residual = norm.rectified.map(|rectified| {
        let mut masked = vec![0.0; grad.len()];
        masked.par_chunks_mut(size).enumerate().for_each(|(index, masked)| {
            let part = index * size..index * size + masked.len();
            arch().dispatch(Mask { grad: &grad[part.clone()], rectified: &rectified[part], masked });
        });
        masked
    });
    let grad = residual.as_deref().unwrap_or(grad);
    let blocks: Vec<[Vec<f32>; 2]> = grad
        .par_chunks(size)
        .zip(norm.x.par_chunks(size))
        .map(|(grad, x)| arch().dispatch(NormSums { norm, grad, x }))
        .collect();
    let beta = added(blocks.iter().map(|[beta, _]| beta), channels);
    let gamma = added(blocks.iter().map(|[_, gamma]| gamma), channels);
    let count = (grad.len() / channels.max(1)) as f64;
    let mut factors = Factors { grad: Vec::new(), x: Vec::new(), constant: Vec::new() };
    for channel in 0..channels {
        let inverse = f64::from(norm.inverse_deviation[channel]);
        let factor = f64::from(norm.gamma[channel]) * inverse;
        let share = if norm.of_batch { -factor / count } else { 0.0 };
        factors.grad.push(factor as f32);
        factors.x.push((share * inverse * gamma[channel]) as f32);
        factors.constant.push((share * beta[channel]) as f32);
    }
    let mut of_x = vec![0.0; grad.len()];
    of_x.par_chunks_mut(size).enumerate().for_each(|(index, of_x)| {
        let part = index * size..index * size + of_x.len();
        let (grad, x) = (&grad[part.clone()], &norm.x[part]);
        arch().dispatch(NormInput { mean: norm.mean, factors: &factors, grad, x, of_x });
    });
    let narrow = |sums: Vec<f64>| sums.into_iter().map(|sum| sum as f32).collect();
    NormGradients { x: of_x, residual, gamma: narrow(gamma), beta: narrow(beta) }
}

struct Mask<'a> {
    grad: &'a [f32],
    rectified: &'a [f32],
    masked: &'a mut [f32],
}

impl WithSimd for Mask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((masked, grad), rectified) in self.masked.iter_mut().zip(self.grad).zip(self.rectified) {
            *masked = if *rectified > 0.0 { *grad } else { 0.0 };
        }
    }
}

/// Sums of the gradient, and of the gradient times the normalised value.
struct NormSums<'a> {
    norm: Norm<'a>,
    grad: &'a [f32],
    x: &'a [f32],
}

impl WithSimd for NormSums<'_> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [Vec<f32>; 2] {
        let channels = self.norm.gamma.len();
        let (mut beta, mut gamma) = (vec![0.0; channels], vec![0.0; channels]);
        for (grad, x) in self.grad.chunks_exact(channels).zip(self.x.chunks_exact(channels)) {
            let sums = beta.iter_mut().zip(gamma.iter_mut());
            for (((grad, x), mean), (beta, gamma)) in grad.iter().zip(x).zip(self.norm.mean).zip(sums) {
                *beta += grad;
                *gamma += grad * (x - mean);
            }
        }
        for (gamma, inverse) in gamma.iter_mut().zip(self.norm.inverse_deviation) {
            *gamma *= inverse;
        }
        [beta, gamma]
    }
}

/// The input's gradient is `grad * .grad + (x - mean) * .x + .constant`.
struct Factors {
    grad: Vec<f32>,
    x: Vec<f32>,
    constant: Vec<f32>,
}

struct NormInput<'a> {
    mean: &'a [f32],
    factors: &'a Factors,
    grad: &'a [f32],
    x: &'a [f32],
    of_x: &'a mut [f32],
}

impl WithSimd for NormInput<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let channels = self.mean.len();
        let factors = self.factors;
        let rows = self.grad.chunks_exact(channels).zip(self.x.chunks_exact(channels));
        for (of_x, (grad, x)) in self.of_x.chunks_exact_mut(channels).zip(rows) {
            let each = factors.grad.iter().zip(&factors.x).zip(&factors.constant).zip(self.mean);
            for (((of_x, grad), x), (((a, b), c), mean)) in of_x.iter_mut().zip(grad).zip(x).zip(each) {
                *of_x = grad * a + (x - mean) * b + c;
            }
        }
    }
}
