//! Every operation against the composition of burn's own operations that it replaces: values and gradients.
//!
//! Tolerances are for f32 sums of some hundred terms in another order: 1e-5 of the largest value.

mod convolution;
mod determinism;
mod layers;
mod transformer;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};

/// The plain and the recording device under test.
fn devices() -> [Device; 2] {
    let device = backend::test_device();
    [device.clone(), device.autodiff()]
}

/// Numbers in -1 .. 1 that depend on the seed only.
fn random<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec_as::<f32>().unwrap()
}

/// Asserts that two tensors agree to `tolerance` of the largest value.
fn assert_close<const D: usize>(actual: Tensor<D>, expected: Tensor<D>, tolerance: f32, what: &str) {
    assert_eq!(actual.dims(), expected.dims(), "{what}: shape");
    let (actual, expected) = (values(actual), values(expected));
    let largest = expected.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
    for (index, (a, e)) in actual.iter().zip(&expected).enumerate() {
        let difference = (a - e).abs();
        assert!(
            difference <= tolerance * largest,
            "{what}: {a} instead of {e} at {index}, largest {largest}"
        );
    }
}

/// Asserts that two functions of the same operands agree, and their gradients with respect to all operands.
///
/// Once in f32, and once in f64, which takes the bodies made of ordinary operations on every back end.
/// Each operand is a tensor of rank `D`; the functions undo what the test did to fit them into one rank.
fn assert_same<const D: usize, const R: usize>(
    operands: &[Tensor<D>],
    tolerance: f32,
    what: &str,
    fused: impl Fn(&[Tensor<D>]) -> Tensor<R>,
    composed: impl Fn(&[Tensor<D>]) -> Tensor<R>,
) {
    for dtype in [FloatDType::F32, FloatDType::F64] {
        let operands: Vec<Tensor<D>> = operands.iter().map(|operand| operand.clone().cast(dtype)).collect();
        assert_same_in_type(&operands, tolerance, &format!("{what}, {dtype:?}"), &fused, &composed);
    }
}

fn assert_same_in_type<const D: usize, const R: usize>(
    operands: &[Tensor<D>],
    tolerance: f32,
    what: &str,
    fused: &dyn Fn(&[Tensor<D>]) -> Tensor<R>,
    composed: &dyn Fn(&[Tensor<D>]) -> Tensor<R>,
) {
    let [_, recording] = devices();
    assert_close(fused(operands), composed(operands), tolerance, what);
    let run = |function: &dyn Fn(&[Tensor<D>]) -> Tensor<R>| {
        let leaves: Vec<Tensor<D>> =
            operands.iter().map(|operand| operand.clone().autodiff().require_grad()).collect();
        let output = function(&leaves);
        let weights = random(output.dims(), 99, &recording).cast(output.dtype());
        let grads = (output.clone() * weights).sum().backward();
        let grads: Vec<_> = leaves.iter().map(|leaf| leaf.grad(&grads)).collect();
        (output.inner(), grads)
    };
    let ((output, grads), (expected, expected_grads)) = (run(fused), run(composed));
    assert_close(output, expected, tolerance, what);
    for (index, (grad, expected)) in grads.into_iter().zip(expected_grads).enumerate() {
        let (Some(grad), Some(expected)) = (grad, expected) else {
            panic!("{what}: operand {index} has no gradient");
        };
        assert_close(grad, expected, tolerance, &format!("{what}: gradient of operand {index}"));
    }
}
