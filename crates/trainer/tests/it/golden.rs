//! Against PyTorch: AdamW with layer decay and moving average (`tests/golden/adamw.py`), logistic regression
//! (`tests/golden/logistic_regression.py`).

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use flier_model::{Layers, layers};
use safetensors::SafeTensors;
use trainer::frozen::lbfgs::{Samples, fit};
use trainer::optimizer::{AdamW, AdamWConfig, ParameterRule};
use trainer::parameters::{ModulePath, NamedTensors, assign, collect, update_average};

use crate::fixture::device;

const GOLDEN: &[u8] = include_bytes!("../golden/adamw.safetensors");

#[derive(Module, Debug)]
struct Encoder {
    layers: Vec<Linear>,
}

#[derive(Module, Debug)]
struct Vision {
    encoder: Encoder,
}

#[derive(Module, Debug)]
struct Toy {
    vision: Vision,
    head: Linear,
}

fn golden(prefix: &str) -> NamedTensors {
    golden_of(GOLDEN, prefix)
}

fn golden_of(file: &[u8], prefix: &str) -> NamedTensors {
    let file = SafeTensors::deserialize(file).unwrap();
    let mut named = NamedTensors::new();
    for (name, view) in file.tensors() {
        if let Some(name) = name.strip_prefix(prefix) {
            let values: Vec<f32> =
                view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let count = values.len();
            named.insert(name.to_owned(), Tensor::from_data(TensorData::new(values, [count]), &device()));
        }
    }
    assert!(!named.is_empty(), "{prefix}");
    named
}

/// Relative to the largest value of each tensor: 1e-5 holds f32 rounding of a few operations a step.
fn assert_close(found: &NamedTensors, expected: &NamedTensors) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in expected {
        let expected = expected.clone().try_into_vec_as::<f32>().unwrap();
        let found = found[name].clone().try_into_vec_as::<f32>().unwrap();
        let scale = expected.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-5 * scale, "{name}: difference {worst:e} of {scale:e}");
    }
}

struct Register<'a> {
    path: ModulePath,
    gradients: &'a NamedTensors,
    params: GradientsParams,
}

impl ModuleVisitor for Register<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get(&self.path.name()) {
            self.params.register::<D>(param.id, gradient.clone().reshape(param.lazy_shape()));
        }
    }
}

#[test]
fn steps_and_moving_average_equal_those_of_pytorch() {
    let device = device().autodiff();
    let layer = |input, output| LinearConfig::new(input, output).init(&device);
    let toy = Toy {
        vision: Vision { encoder: Encoder { layers: vec![layer(6, 5), layer(5, 5)] } },
        head: layer(5, 3),
    };
    let mut toy = assign(toy, &golden("start."));
    let config = AdamWConfig { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8 };
    let tree = Layers::VisionTransformer { num_blocks: 2 };
    let mut optimizer = AdamW::new(&toy, config, |name, rank| ParameterRule {
        learning_rate_scale: tree.learning_rate_scale(name, 0.7),
        weight_decay: if layers::is_decayed(name, rank) { 0.05 } else { 0.0 },
    });
    let mut average = collect(&toy, |_, _| true);
    for step in 0..3 {
        let gradients = golden(&format!("gradient.{step}."));
        let mut register =
            Register { path: ModulePath::default(), gradients: &gradients, params: GradientsParams::new() };
        toy.visit(&mut register);
        toy = optimizer.step(toy, register.params, 3e-3);
        let current = collect(&toy, |_, _| true);
        assert_close(&current, &golden(&format!("after.{step}.")));
        update_average(&mut average, current, 0.9);
    }
    assert_close(&average, &golden("average."));
}

#[test]
fn logistic_regression_finds_the_minimum_that_pytorch_finds() {
    let all = golden_of(include_bytes!("../golden/logistic_regression.safetensors"), "");
    let values = |name: &str| all[name].clone().try_into_vec_as::<f32>().unwrap();
    let (features, labels) = (values("features"), values("labels"));
    let labels: Vec<usize> = labels.iter().map(|v| *v as usize).collect();
    let samples = Samples { features: &features, labels: &labels, width: 6, num_classes: 4 };
    for c in ["0.1", "10.0"] {
        let regression = fit(samples, c.parse().unwrap(), 1000);
        let found = regression.weights().iter().chain(regression.biases());
        for (found, expected) in
            found.zip(values(&format!("weight.{c}")).iter().chain(&values(&format!("bias.{c}"))))
        {
            // The search stops at a gradient of 1e-5; the flattest direction of the bias has a curvature above 0.01.
            assert!((found - f64::from(*expected)).abs() < 1e-3, "C = {c}: {found} {expected}");
        }
    }
}
