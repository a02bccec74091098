//! Activations and their slopes, element by element.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::{activate, arch, slope};
use crate::extension::Activation;

/// Numbers of one task: a few fit the cache together.
const CHUNK: usize = 16 * 1024;

/// The activation of every number.
pub(super) fn activated(x: &[f32], activation: Activation) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    output.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(output, x)| {
        arch().dispatch(Forward { x, output, activation });
    });
    output
}

struct Forward<'a> {
    x: &'a [f32],
    output: &'a mut [f32],
    activation: Activation,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (output, output_rest) = S::as_mut_simd_f32s(self.output);
        let (x, x_rest) = S::as_simd_f32s(self.x);
        for (output, x) in output.iter_mut().zip(x) {
            *output = activate(simd, *x, self.activation);
        }
        let last = activate(simd, simd.partial_load_f32s(x_rest), self.activation);
        simd.partial_store_f32s(output_rest, last);
    }
}

/// `grad` times the activation's slope at `x`.
pub(super) fn activation_gradient(x: &[f32], grad: &[f32], activation: Activation) -> Vec<f32> {
    let mut output = grad.to_vec();
    output.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(output, x)| {
        arch().dispatch(Backward { x, output, activation });
    });
    output
}

struct Backward<'a> {
    x: &'a [f32],
    output: &'a mut [f32],
    activation: Activation,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (output, output_rest) = S::as_mut_simd_f32s(self.output);
        let (x, x_rest) = S::as_simd_f32s(self.x);
        for (output, x) in output.iter_mut().zip(x) {
            *output = simd.mul_f32s(*output, slope(simd, *x, self.activation));
        }
        let last = slope(simd, simd.partial_load_f32s(x_rest), self.activation);
        let last = simd.mul_f32s(simd.partial_load_f32s(output_rest), last);
        simd.partial_store_f32s(output_rest, last);
    }
}
