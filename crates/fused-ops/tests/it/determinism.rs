//! The same bytes whatever the number of threads.

use burn::tensor::Tensor;
use fused_ops::Activation;

use crate::{devices, random, values};

/// Outputs and gradients of one pass through every operation that cuts its work into tasks.
fn bytes() -> Vec<f32> {
    let [_, recording] = devices();
    let leaf = |shape, seed| random(shape, seed, &recording).require_grad();
    let (x, weight) = (leaf([700, 90], 1), leaf([90, 300], 2));
    let y = fused_ops::linear(x.clone(), weight.clone(), None, None, Activation::QuickGelu);
    let (gamma, beta) =
        (random([300], 3, &recording).require_grad(), random([300], 4, &recording).require_grad());
    let y = fused_ops::layer_norm(y, gamma.clone(), beta.clone(), 1e-5);
    let y = y.reshape([2, 350, 300]);
    let y = fused_ops::attention(y.clone(), y.clone(), y, 4, true);
    let grads = y.clone().sum().backward();
    let mut all = values(y.inner());
    all.extend(values(x.grad(&grads).unwrap()));
    all.extend(values(weight.grad(&grads).unwrap()));
    all.extend(values(gamma.grad(&grads).unwrap()));
    all.extend(values(beta.grad(&grads).unwrap()));
    all
}

/// As [`bytes`], for a convolution with a batch norm.
fn convolution_bytes() -> Vec<f32> {
    use burn::module::Param;
    use burn::nn::BatchNormConfig;
    use burn::nn::PaddingConfig2d;
    use burn::nn::conv::Conv2dConfig;
    let [_, recording] = devices();
    let x: Tensor<4> = random([3, 30, 30, 24], 1, &recording).require_grad();
    let mut conv = Conv2dConfig::new([24, 40], [3, 3])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_bias(false)
        .init(&recording);
    conv.weight = Param::from_tensor(random([40, 24, 3, 3], 2, &recording));
    let norm = BatchNormConfig::new(40).init(&recording);
    let y = fused_ops::conv_norm(&conv, &norm, x.clone(), None, true);
    let y = fused_ops::average_pool(y, 2);
    let grads = (y.clone() * y.clone()).sum().backward();
    let mut all = values(y.inner());
    all.extend(values(x.grad(&grads).unwrap()));
    all.extend(values(conv.weight.val().grad(&grads).unwrap()));
    all.extend(values(norm.gamma.val().grad(&grads).unwrap()));
    all
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let run = |threads: usize, function: fn() -> Vec<f32>| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(function).into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    for function in [bytes, convolution_bytes] {
        let one = run(1, function);
        for threads in [2, 3, 7] {
            assert!(one == run(threads, function), "{threads} threads give other bits than one");
        }
    }
}
