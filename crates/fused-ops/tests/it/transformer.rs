//! Linear layers, activations, layer norm, attention.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, relu, sigmoid, silu};
use burn::tensor::module;
use burn::tensor::ops::AttentionModuleOptions;
use fused_ops::Activation;

use crate::{assert_same, devices, random, values};

const ACTIVATIONS: [Activation; 5] =
    [Activation::Identity, Activation::Relu, Activation::QuickGelu, Activation::Gelu, Activation::Silu];

fn composed_activation<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    match activation {
        Activation::Identity => x,
        Activation::Relu => relu(x),
        Activation::QuickGelu => x.clone() * sigmoid(x * 1.702),
        Activation::Gelu => gelu(x),
        Activation::Silu => silu(x),
    }
}

#[test]
fn linear_equals_matmul_bias_residual_and_activation() {
    let [plain, _] = devices();
    // Rows, inner size, columns: below, at and beyond the widths of vectors, tiles and blocks.
    for (index, [rows, depth, columns]) in
        [[1, 1, 1], [1, 5, 3], [7, 16, 33], [2, 64, 16], [97, 300, 40], [200, 513, 70]]
            .into_iter()
            .enumerate()
    {
        for activation in ACTIVATIONS {
            let seed = index as u32 * 10;
            let operands = [
                random([rows, depth], seed, &plain),
                random([depth, columns], seed + 1, &plain),
                random([1, columns], seed + 2, &plain),
                random([rows, columns], seed + 3, &plain),
            ];
            let what = format!("{rows} x {depth} x {columns}, {activation:?}");
            assert_same(
                &operands,
                1e-5,
                &what,
                |o| {
                    let bias = o[2].clone().squeeze_dim(0);
                    fused_ops::linear(o[0].clone(), o[1].clone(), Some(bias), Some(o[3].clone()), activation)
                },
                |o| {
                    let sum = o[0].clone().matmul(o[1].clone()) + o[2].clone() + o[3].clone();
                    composed_activation(sum, activation)
                },
            );
            assert_same(
                &operands[..2],
                1e-5,
                &what,
                |o| fused_ops::linear(o[0].clone(), o[1].clone(), None, None, activation),
                |o| composed_activation(o[0].clone().matmul(o[1].clone()), activation),
            );
        }
    }
}

#[test]
fn linear_takes_views_that_do_not_lie_in_order() {
    let [plain, _] = devices();
    let operands = [random([70, 9], 1, &plain), random([24, 70], 2, &plain), random([24, 9], 3, &plain)];
    assert_same(
        &operands,
        1e-5,
        "transposed operands",
        |o| {
            let residual = Some(o[2].clone().transpose());
            let (x, weight) = (o[0].clone().transpose(), o[1].clone().transpose());
            fused_ops::linear(x, weight, None, residual, Activation::QuickGelu)
        },
        |o| {
            let (x, weight) = (o[0].clone().transpose(), o[1].clone().transpose());
            composed_activation(x.matmul(weight) + o[2].clone().transpose(), Activation::QuickGelu)
        },
    );
    // A batch of rows out of a larger tensor.
    let x = random([2, 5, 30], 4, &plain);
    let weight = random([12, 7], 5, &plain);
    let part = x.narrow(2, 3, 12);
    let fused = fused_ops::linear(part.clone(), weight.clone(), None, None, Activation::Identity);
    let rows = part.reshape([10, 12]).matmul(weight);
    crate::assert_close(fused.reshape([10, 7]), rows, 1e-5, "narrowed input");
}

#[test]
fn activations_are_right_over_their_whole_range() {
    let [plain, _] = devices();
    let x: Vec<f32> = (-4000..=4000).map(|i| i as f32 * 0.025).collect();
    let input = Tensor::<1>::from_floats(x.as_slice(), &plain);
    for activation in [Activation::Relu, Activation::QuickGelu, Activation::Gelu] {
        let fused = values(fused_ops::activate(input.clone(), activation));
        for (x, y) in x.iter().zip(fused) {
            let wide = f64::from(*x);
            let expected = match activation {
                Activation::Relu => wide.max(0.0),
                Activation::QuickGelu => wide / (1.0 + (-1.702 * wide).exp()),
                _ => values(gelu(Tensor::<1>::from_floats([*x], &plain)))[0].into(),
            };
            // One rounding of the result, and the series' own 1e-7.
            let tolerance = 2e-7 * (1.0 + wide.abs());
            assert!(
                (f64::from(y) - expected).abs() <= tolerance,
                "{activation:?} of {x}: {y}, not {expected}"
            );
        }
    }
}

#[test]
fn a_number_that_is_none_stays_none() {
    let [plain, _] = devices();
    for activation in ACTIVATIONS {
        let x = Tensor::<1>::from_floats([1.0, f32::NAN, -2.0, 3.0, f32::NAN], &plain);
        let y = values(fused_ops::activate(x, activation));
        let nan: Vec<bool> = y.iter().map(|value| value.is_nan()).collect();
        assert_eq!(nan, [false, true, false, false, true], "{activation:?}");
    }
}

#[test]
fn activation_gradients_equal_the_composition() {
    let [plain, _] = devices();
    for activation in ACTIVATIONS {
        for size in [1, 7, 8, 1000] {
            assert_same(
                &[random([size], 3, &plain) * 6.0],
                1e-5,
                &format!("{activation:?} of {size}"),
                |o| fused_ops::activate(o[0].clone(), activation),
                |o| composed_activation(o[0].clone(), activation),
            );
        }
    }
}

#[test]
fn layer_norm_equals_the_composition() {
    let [plain, _] = devices();
    for [rows, width] in [[1, 1], [1, 8], [3, 7], [5, 33], [70, 768]] {
        let operands = [
            random([rows, width], 1, &plain) * 3.0 + 2.0,
            random([1, width], 2, &plain),
            random([1, width], 3, &plain),
        ];
        // A row of one number has no deviation: the inverse is 1 / sqrt(epsilon) and enlarges every rounding.
        let tolerance = if width == 1 { 1e-3 } else { 2e-5 };
        assert_same(
            &operands,
            tolerance,
            &format!("{rows} rows of {width}"),
            |o| {
                let [gamma, beta] = [1, 2].map(|index: usize| o[index].clone().squeeze_dim(0));
                fused_ops::layer_norm(o[0].clone(), gamma, beta, 1e-5)
            },
            |o| {
                let x = o[0].clone();
                let centred = x.clone() - x.mean_dim(1);
                let variance = (centred.clone() * centred.clone()).mean_dim(1);
                centred / (variance + 1e-5).sqrt() * o[1].clone() + o[2].clone()
            },
        );
    }
}

fn composed_attention(o: &[Tensor<3>], num_heads: usize, is_causal: bool) -> Tensor<3> {
    let [batch, tokens, width] = o[0].dims();
    let heads = [0, 1, 2].map(|index: usize| {
        let [batch, tokens, width] = o[index].dims();
        o[index].clone().reshape([batch, tokens, num_heads, width / num_heads]).swap_dims(1, 2)
    });
    let [query, key, value] = heads;
    let options = AttentionModuleOptions { is_causal, ..Default::default() };
    let y = module::attention(query, key, value, None, None, options);
    y.swap_dims(1, 2).reshape([batch, tokens, width])
}

#[test]
fn attention_equals_the_composition() {
    let [plain, _] = devices();
    // Batch, queries, keys, heads, width of a head; the last takes several blocks of queries.
    let cases = [
        [1, 1, 1, 1, 4],
        [2, 1, 50, 3, 8],
        [1, 7, 7, 2, 5],
        [2, 50, 50, 3, 64],
        [1, 9, 33, 2, 160],
        [1, 230, 700, 1, 16],
    ];
    for [batch, queries, keys, num_heads, head] in cases {
        let width = num_heads * head;
        let operands = [
            random([batch, queries, width], 1, &plain) * 2.0,
            random([batch, keys, width], 2, &plain) * 2.0,
            random([batch, keys, width], 3, &plain),
        ];
        for is_causal in [false, true] {
            if is_causal && queries != keys {
                continue;
            }
            assert_same(
                &operands,
                2e-5,
                &format!("{queries} over {keys}, {num_heads} heads of {head}, causal {is_causal}"),
                |o| fused_ops::attention(o[0].clone(), o[1].clone(), o[2].clone(), num_heads, is_causal),
                |o| composed_attention(o, num_heads, is_causal),
            );
        }
    }
}

#[test]
fn long_causal_attention_equals_the_composition() {
    let [plain, _] = devices();
    let operands = [1, 2, 3].map(|seed| random([2, 300, 24], seed, &plain));
    assert_same(
        &operands,
        2e-5,
        "300 causal tokens",
        |o| fused_ops::attention(o[0].clone(), o[1].clone(), o[2].clone(), 3, true),
        |o| composed_attention(o, 3, true),
    );
}

#[test]
fn attention_takes_views_that_do_not_lie_in_order() {
    let [plain, _] = devices();
    let all = random([11, 2, 96], 5, &plain).swap_dims(0, 1); // [2, 11, 96], query, key and value side by side
    let parts = [0, 32, 64].map(|start| all.clone().narrow(2, start, 32));
    let [query, key, value] = parts.clone();
    let fused = fused_ops::attention(query, key, value, 4, false);
    crate::assert_close(fused, composed_attention(&parts, 4, false), 1e-5, "views");
}
