//! Layer norm, a row at a time.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::arch;

/// Rows of one task. A constant: the sums over rows are added task by task.
const ROWS: usize = 32;

/// Normalises rows of `gamma.len()` numbers.
pub(super) fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    let chunk = (ROWS * gamma.len()).max(1);
    output.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(output, x)| {
        arch().dispatch(Forward { x, gamma, beta, epsilon, output });
    });
    output
}

struct Forward<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    epsilon: f32,
    output: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.gamma.len();
        for (output, x) in self.output.chunks_exact_mut(width).zip(self.x.chunks_exact(width)) {
            let (mean, inverse) = moments(simd, x, self.epsilon);
            for (((output, x), gamma), beta) in output.iter_mut().zip(x).zip(self.gamma).zip(self.beta) {
                *output = (x - mean) * inverse * gamma + beta;
            }
        }
    }
}

/// Mean and inverse deviation of a row.
#[inline(always)]
fn moments<S: Simd>(simd: S, row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let (vectors, rest) = S::as_simd_f32s(row);
    let mut sum = simd.splat_f32s(0.0);
    for vector in vectors {
        sum = simd.add_f32s(sum, *vector);
    }
    let mut total = simd.reduce_sum_f32s(sum);
    for value in rest {
        total += value;
    }
    let mean = total / count;
    let means = simd.splat_f32s(mean);
    let mut squares = simd.splat_f32s(0.0);
    for vector in vectors {
        let centred = simd.sub_f32s(*vector, means);
        squares = simd.mul_add_e_f32s(centred, centred, squares);
    }
    let mut total = simd.reduce_sum_f32s(squares);
    for value in rest {
        total += (value - mean) * (value - mean);
    }
    (mean, (total / count + epsilon).sqrt().recip())
}

/// Gradients of `x`, `gamma` and `beta`.
pub(super) fn layer_norm_gradients(x: &[f32], gamma: &[f32], grad: &[f32], epsilon: f32) -> [Vec<f32>; 3] {
    let width = gamma.len();
    let mut of_x = vec![0.0; x.len()];
    let chunk = (ROWS * width).max(1);
    let sums: Vec<[Vec<f32>; 2]> = of_x
        .par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk).zip(grad.par_chunks(chunk)))
        .map(|(of_x, (x, grad))| arch().dispatch(Backward { x, gamma, grad, epsilon, of_x }))
        .collect();
    let (mut of_gamma, mut of_beta) = (vec![0.0; width], vec![0.0; width]);
    for [gamma, beta] in &sums {
        of_gamma.iter_mut().zip(gamma).for_each(|(sum, value)| *sum += value);
        of_beta.iter_mut().zip(beta).for_each(|(sum, value)| *sum += value);
    }
    [of_x, of_gamma, of_beta]
}

struct Backward<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    grad: &'a [f32],
    epsilon: f32,
    of_x: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    /// Sums over the rows: gradients of `gamma` and `beta`.
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [Vec<f32>; 2] {
        let width = self.gamma.len();
        let (mut of_gamma, mut of_beta) = (vec![0.0; width], vec![0.0; width]);
        let (mut normal, mut of_normal) = (vec![0.0; width], vec![0.0; width]);
        let rows = self.x.chunks_exact(width).zip(self.grad.chunks_exact(width));
        for ((x, grad), of_x) in rows.zip(self.of_x.chunks_exact_mut(width)) {
            let (mean, inverse) = moments(simd, x, self.epsilon);
            for column in 0..width {
                normal[column] = (x[column] - mean) * inverse;
                of_normal[column] = grad[column] * self.gamma[column];
                of_gamma[column] += grad[column] * normal[column];
                of_beta[column] += grad[column];
            }
            let (sum, along) = sums(simd, &of_normal, &normal);
            let (sum, along) = (sum / width as f32, along / width as f32);
            for ((of_x, of_normal), normal) in of_x.iter_mut().zip(&of_normal).zip(&normal) {
                *of_x = (of_normal - sum - normal * along) * inverse;
            }
        }
        [of_gamma, of_beta]
    }
}

/// The sum of `left` and of `left * right`.
#[inline(always)]
fn sums<S: Simd>(simd: S, left: &[f32], right: &[f32]) -> (f32, f32) {
    let (left, left_rest) = S::as_simd_f32s(left);
    let (right, right_rest) = S::as_simd_f32s(right);
    let (mut sum, mut products) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
    for (left, right) in left.iter().zip(right) {
        sum = simd.add_f32s(sum, *left);
        products = simd.mul_add_e_f32s(*left, *right, products);
    }
    let (mut sum, mut products) = (simd.reduce_sum_f32s(sum), simd.reduce_sum_f32s(products));
    for (left, right) in left_rest.iter().zip(right_rest) {
        sum += left;
        products += left * right;
    }
    (sum, products)
}
