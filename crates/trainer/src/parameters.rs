//! Parameters of a module by name, flattened: what optimizer state, moving averages and training states are kept as.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Flattened tensors on a plain device, by the path of their parameter.
pub type NamedTensors = BTreeMap<String, Tensor<1>>;

/// Where a traversal stands; an enum's variant is not part of a name.
#[derive(Debug, Default)]
pub struct ModulePath {
    names: Vec<String>,
    kept: Vec<bool>,
}

impl ModulePath {
    /// To be called from `enter_module`.
    pub fn enter(&mut self, name: &str, container: &str) {
        let keep = !container.starts_with("Enum:");
        if keep {
            self.names.push(name.to_owned());
        }
        self.kept.push(keep);
    }

    /// To be called from `exit_module`.
    pub fn exit(&mut self) {
        if self.kept.pop() == Some(true) {
            self.names.pop();
        }
    }

    /// Names joined by dots.
    pub fn name(&self) -> String {
        self.names.join(".")
    }
}

/// The parameters of `module` that `keep` takes, by name and number of axes.
pub fn collect<M: Module>(module: &M, keep: impl Fn(&str, usize) -> bool) -> NamedTensors {
    struct Collect<F> {
        path: ModulePath,
        keep: F,
        tensors: NamedTensors,
    }
    impl<F: Fn(&str, usize) -> bool> ModuleVisitor for Collect<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.path.name();
            if (self.keep)(&name, D) {
                self.tensors.insert(name, flatten(plain(param.val())));
            }
        }
    }
    let mut collect = Collect { path: ModulePath::default(), keep, tensors: NamedTensors::new() };
    module.visit(&mut collect);
    collect.tensors
}

/// `module` with the parameters named in `tensors` replaced; names that it does not have are ignored.
///
/// # Panics
///
/// Panics if a tensor has another number of elements than its parameter.
pub fn assign<M: Module>(module: M, tensors: &NamedTensors) -> M {
    struct Assign<'a> {
        path: ModulePath,
        tensors: &'a NamedTensors,
    }
    impl ModuleMapper for Assign<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.tensors.get(&self.path.name()) {
                Some(value) => replace(param, |old| value.clone().reshape(old.shape())),
                None => param,
            }
        }
    }
    module.map(&mut Assign { path: ModulePath::default(), tensors })
}

/// Stops gradients of the parameters that `frozen` takes, and batch-norm statistics of all.
pub fn freeze<M: Module>(module: M, frozen: impl Fn(&str) -> bool) -> M {
    struct Freeze<F> {
        path: ModulePath,
        frozen: F,
    }
    impl<F: Fn(&str) -> bool> ModuleMapper for Freeze<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let frozen = (self.frozen)(&self.path.name());
            param.set_require_grad(!frozen)
        }
        fn map_flag(&mut self, flag: Param<burn::module::Flag>) -> Param<burn::module::Flag> {
            flag.with_value(false)
        }
    }
    module.map(&mut Freeze { path: ModulePath::default(), frozen })
}

/// Replaces a parameter's value on the plain device; autodiff and the gradient requirement stay as they are.
pub(crate) fn replace<const D: usize>(
    param: Param<Tensor<D>>,
    update: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Param<Tensor<D>> {
    param.map(|tensor| {
        if !tensor.is_autodiff() {
            return update(tensor);
        }
        let tracked = tensor.is_require_grad();
        let updated = Tensor::from_inner(update(tensor.inner()));
        if tracked { updated.require_grad() } else { updated }
    })
}

/// The tensor without its graph.
pub(crate) fn plain<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.is_autodiff() { tensor.inner() } else { tensor }
}

/// All elements in row-major order.
pub(crate) fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let count = tensor.shape().num_elements();
    tensor.reshape([count])
}

/// A moving average: `average * decay + current * (1 - decay)` for every tensor that the average has.
pub fn update_average(average: &mut NamedTensors, current: NamedTensors, decay: f64) {
    for (name, value) in current {
        if let Some(old) = average.remove(&name) {
            average.insert(name, old.mul_scalar(decay) + value.mul_scalar(1.0 - decay));
        }
    }
}
