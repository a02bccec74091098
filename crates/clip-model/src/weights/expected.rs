//! The keys that a model expects, without its weights.

use burn::module::{ModuleVisitor, Param};
use burn::store::ModuleSnapshot;
use burn::tensor::{Int, Tensor};

use super::{KeyTable, Position, file_shape};

/// Names and shapes that a checkpoint of `module` must have, in alphabetical order and each once; no weight is allocated.
pub fn expected_keys<M: ModuleSnapshot>(module: &M, layout: &KeyTable) -> Vec<(String, Vec<usize>)> {
    let mut lister = Lister { layout, position: Position::default(), keys: Vec::new() };
    module.visit(&mut lister);
    lister.keys.sort();
    lister.keys.dedup(); // the parts of a stack
    lister.keys
}

struct Lister<'a> {
    layout: &'a KeyTable,
    position: Position,
    keys: Vec<(String, Vec<usize>)>,
}

impl Lister<'_> {
    fn list(&mut self, shape: &[usize]) {
        let place = self.position.place(self.layout);
        let shape = file_shape(&self.position, self.layout, &place, shape);
        self.keys.push((place.key, shape));
    }
}

impl ModuleVisitor for Lister<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.position.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.position.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.list(&param.lazy_shape().to_vec());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.list(&param.lazy_shape().to_vec());
    }
}
