//! Group norm of channels-last features, in two passes over memory: moments, then factor, summand and activation.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::{activate, arch};
use crate::extension::Activation;

/// Rows of one task. A constant: the sums over rows are added task by task.
const ROWS: usize = 64;

/// Sizes of a norm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    /// B.
    pub batch: usize,
    /// C.
    pub channels: usize,
    /// Groups.
    pub num_groups: usize,
    /// Added to the variance.
    pub epsilon: f64,
}

/// `activation(norm(x) * gamma + beta)` for `x` `[B, .., C]`.
pub(super) fn group_norm(
    x: &[f32],
    [gamma, beta]: [&[f32]; 2],
    groups: Groups,
    activation: Activation,
) -> Vec<f32> {
    let Groups { batch, channels, .. } = groups;
    let mut output = vec![0.0; x.len()];
    let sample = (x.len() / batch.max(1)).max(1);
    let task = (ROWS * channels).max(1);
    for (x, output) in x.chunks(sample).zip(output.chunks_mut(sample)) {
        let parts: Vec<Vec<Moments>> =
            x.par_chunks(task).map(|x| arch().dispatch(Sums { x, groups })).collect();
        let moments = (0..groups.num_groups)
            .map(|group| parts.iter().fold(Moments::NONE, |sum, part| sum.with(part[group])));
        let (mut scale, mut shift) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
        let width = channels / groups.num_groups;
        for (group, moments) in moments.enumerate() {
            let inverse = (moments.variance() + groups.epsilon).sqrt().recip();
            for channel in group * width..(group + 1) * width {
                let factor = f64::from(gamma[channel]) * inverse;
                scale.push(factor as f32);
                shift.push((f64::from(beta[channel]) - moments.mean * factor) as f32);
            }
        }
        output.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(output, x)| {
            arch().dispatch(Affine { x, scale: &scale, shift: &shift, activation, output });
        });
    }
    output
}

/// Count, mean and sum of squared differences from it.
#[derive(Debug, Clone, Copy)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    const NONE: Self = Moments { count: 0.0, mean: 0.0, squares: 0.0 };

    /// Of both (Chan, Golub and LeVeque, 1983).
    fn with(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let distance = other.mean - self.mean;
        let squares = self.squares + other.squares + distance * distance * self.count * other.count / count;
        Moments { count, mean: self.mean + distance * other.count / count, squares }
    }

    fn variance(self) -> f64 {
        self.squares / self.count.max(1.0)
    }
}

/// The moments of every group over some rows.
struct Sums<'a> {
    x: &'a [f32],
    groups: Groups,
}

impl WithSimd for Sums<'_> {
    type Output = Vec<Moments>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<Moments> {
        let channels = self.groups.channels;
        // Differences from the first row: their squares lose little where the mean is large beside the deviation.
        let pivot = &self.x[..channels];
        let (mut sums, mut squares) = (vec![0.0f32; channels], vec![0.0f32; channels]);
        for row in self.x.chunks_exact(channels) {
            for (((x, pivot), sum), square) in row.iter().zip(pivot).zip(&mut sums).zip(&mut squares) {
                let difference = x - pivot;
                *sum += difference;
                *square += difference * difference;
            }
        }
        let count = (self.x.len() / channels) as f64;
        let channel = |channel: usize| {
            let sum = f64::from(sums[channel]);
            let mean = f64::from(pivot[channel]) + sum / count;
            Moments { count, mean, squares: (f64::from(squares[channel]) - sum * sum / count).max(0.0) }
        };
        let width = channels / self.groups.num_groups;
        (0..self.groups.num_groups)
            .map(|group| {
                (group * width..(group + 1) * width).fold(Moments::NONE, |sum, c| sum.with(channel(c)))
            })
            .collect()
    }
}

/// Factor, summand and activation of some rows.
struct Affine<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    activation: Activation,
    output: &'a mut [f32],
}

impl WithSimd for Affine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.scale.len();
        let (scale, scale_rest) = S::as_simd_f32s(self.scale);
        let (shift, shift_rest) = S::as_simd_f32s(self.shift);
        for (output, x) in self.output.chunks_exact_mut(channels).zip(self.x.chunks_exact(channels)) {
            let (output, output_rest) = S::as_mut_simd_f32s(output);
            let (x, x_rest) = S::as_simd_f32s(x);
            for (((output, x), scale), shift) in output.iter_mut().zip(x).zip(scale).zip(shift) {
                *output = activate(simd, simd.mul_add_e_f32s(*x, *scale, *shift), self.activation);
            }
            if !x_rest.is_empty() {
                let [x, scale, shift] =
                    [x_rest, scale_rest, shift_rest].map(|rest| simd.partial_load_f32s(rest));
                let last = activate(simd, simd.mul_add_e_f32s(x, scale, shift), self.activation);
                simd.partial_store_f32s(output_rest, last);
            }
        }
    }
}
