//! AdamW in PyTorch's form, with a learning-rate factor and a weight decay per parameter.
//!
//! burn's own AdamW is not used because its state is keyed by parameter ids that differ between processes; this one is
//! keyed by name, so that a training state is a plain safetensors file.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::parameters::{ModulePath, NamedTensors, flatten, plain, replace};

/// Settings that all parameters share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

/// Settings of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterRule {
    /// Factor on the learning rate.
    pub learning_rate_scale: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// The optimizer and its state.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    rules: BTreeMap<String, ParameterRule>,
    state: AdamWState,
}

/// What a restart needs.
#[derive(Debug, Clone, Default)]
pub struct AdamWState {
    /// First moments by parameter name.
    pub moment_1: NamedTensors,
    /// Second moments by parameter name.
    pub moment_2: NamedTensors,
    /// Steps that each parameter has taken.
    pub steps: BTreeMap<String, u64>,
}

impl AdamW {
    /// An optimizer whose rule for each parameter of `module` is given by its name and number of axes.
    pub fn new<M: Module>(
        module: &M,
        config: AdamWConfig,
        rule: impl Fn(&str, usize) -> ParameterRule,
    ) -> Self {
        let mut rules = BTreeMap::new();
        let mut visitor = Rules { path: ModulePath::default(), rules: &mut rules, rule };
        module.visit(&mut visitor);
        Self { config, rules, state: AdamWState::default() }
    }

    /// Its state.
    pub fn state(&self) -> &AdamWState {
        &self.state
    }

    /// Goes on from `state`.
    pub fn restore(&mut self, state: AdamWState) {
        self.state = state;
    }

    /// One step. Parameters without a gradient stay as they are and are not decayed.
    pub fn step<M: Module>(&mut self, module: M, gradients: GradientsParams, learning_rate: f64) -> M {
        module.map(&mut Step { optimizer: self, gradients, learning_rate, path: ModulePath::default() })
    }

    fn update<const D: usize>(
        &mut self,
        name: &str,
        value: Tensor<D>,
        gradient: Tensor<D>,
        rate: f64,
    ) -> Tensor<D> {
        let AdamWConfig { beta_1, beta_2, epsilon } = self.config;
        let rule = self.rules.get(name).copied();
        let rule = rule.unwrap_or(ParameterRule { learning_rate_scale: 1.0, weight_decay: 0.0 });
        let rate = rate * rule.learning_rate_scale;
        let gradient = flatten(gradient);
        let state = &mut self.state;
        let first = gradient.clone().mul_scalar(1.0 - beta_1);
        let first = match state.moment_1.remove(name) {
            Some(moment) => moment.mul_scalar(beta_1) + first,
            None => first,
        };
        let second = (gradient.clone() * gradient).mul_scalar(1.0 - beta_2);
        let second = match state.moment_2.remove(name) {
            Some(moment) => moment.mul_scalar(beta_2) + second,
            None => second,
        };
        let steps = state.steps.entry(name.to_owned()).or_default();
        *steps += 1;
        let exponent = *steps as i32;
        let correction_1 = 1.0 - beta_1.powi(exponent);
        let correction_2 = 1.0 - beta_2.powi(exponent);
        let denominator = second.clone().sqrt().mul_scalar(1.0 / correction_2.sqrt()).add_scalar(epsilon);
        let change = (first.clone() / denominator).mul_scalar(rate / correction_1);
        state.moment_1.insert(name.to_owned(), first);
        state.moment_2.insert(name.to_owned(), second);
        let shape = value.shape();
        let decay = 1.0 - rate * rule.weight_decay;
        let value = flatten(value);
        let value = if decay == 1.0 { value } else { value.mul_scalar(decay) };
        (value - change).reshape(shape)
    }
}

struct Rules<'a, F> {
    path: ModulePath,
    rules: &'a mut BTreeMap<String, ParameterRule>,
    rule: F,
}

impl<F: Fn(&str, usize) -> ParameterRule> burn::module::ModuleVisitor for Rules<'_, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        let name = self.path.name();
        let rule = (self.rule)(&name, D);
        self.rules.insert(name, rule);
    }
}

struct Step<'a> {
    optimizer: &'a mut AdamW,
    gradients: GradientsParams,
    learning_rate: f64,
    path: ModulePath,
}

impl ModuleMapper for Step<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else { return param };
        let (name, rate) = (self.path.name(), self.learning_rate);
        replace(param, |value| self.optimizer.update(&name, value, plain(gradient), rate))
    }
}
