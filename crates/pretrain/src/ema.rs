//! Exponential moving average of a module's parameters.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use std::collections::VecDeque;

/// Moves `average` a step towards `model`: average · d + model · (1 - d), with d = min(`decay`, (1 + n) / (10 + n)) after n
/// earlier updates, so that the first random weights are soon forgotten.
///
/// Both are the same module type; `average` is its inference copy.
pub fn update<M: Module>(average: M, model: &M, decay: f32, num_updates: usize) -> M {
    let n = num_updates as f32;
    let decay = decay.min((1.0 + n) / (10.0 + n));
    let mut source = Flatten(VecDeque::new());
    model.clone().valid().visit(&mut source);
    average.map(&mut Blend { source: source.0, decay })
}

/// Collects the parameters in the order of a visit.
struct Flatten(VecDeque<Tensor<1>>);

impl ModuleVisitor for Flatten {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let count = value.shape().num_elements();
        self.0.push_back(value.reshape([count]));
    }
}

struct Blend {
    source: VecDeque<Tensor<1>>,
    decay: f32,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let source = self.source.pop_front().expect("two modules of one type have the same parameters");
        let decay = self.decay;
        param.map(|average| {
            let shape = average.shape();
            average * decay + source.reshape(shape) * (1.0 - decay)
        })
    }
}
