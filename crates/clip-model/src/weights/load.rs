//! Strict loading.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use burn::module::{ModuleMapper, Param, ParamId};
use burn::store::ModuleSnapshot;
use burn::tensor::{Bool, DType, Device, Int, Shape, Tensor, TensorData, bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{KeyTable, Position, file_shape, transposed};
use crate::Error;

/// Fills `module` from a safetensors file in PyTorch's layout; f16 and bf16 files load as f32.
///
/// # Errors
///
/// Fails unless parameters and tensors match one to one (the table's allowed extras aside): a partly loaded model would train.
/// The error names the file and the first key.
pub fn load_safetensors<M: ModuleSnapshot>(module: M, path: &Path, layout: &KeyTable) -> Result<M, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|source| Error::SafeTensors { path: path.to_owned(), source })?;
    let mut loader = Loader {
        path,
        layout,
        tensors: file.tensors().into_iter().collect(),
        position: Position::default(),
        read: BTreeSet::new(),
        missing: BTreeSet::new(),
        error: None,
    };
    let module = module.map(&mut loader);
    loader.finish()?;
    Ok(module)
}

/// Names, shapes and dtypes (`F32`, `F16`, ...) of a safetensors file in alphabetical order.
///
/// # Errors
///
/// Fails if the file cannot be read or is not a whole safetensors file.
pub fn key_list(path: &Path) -> Result<Vec<(String, Vec<usize>, String)>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|source| Error::SafeTensors { path: path.to_owned(), source })?;
    let mut keys: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(key, tensor)| (key, tensor.shape().to_vec(), format!("{:?}", tensor.dtype())))
        .collect();
    keys.sort();
    Ok(keys)
}

struct Loader<'a> {
    path: &'a Path,
    layout: &'a KeyTable,
    tensors: BTreeMap<String, TensorView<'a>>,
    position: Position,
    read: BTreeSet<String>,
    missing: BTreeSet<String>,
    /// The first error; the walk goes on because a module must be mapped as a whole.
    error: Option<Error>,
}

impl Loader<'_> {
    fn finish(self) -> Result<(), Error> {
        let path = self.path.to_owned();
        if let Some(error) = self.error {
            return Err(error);
        }
        if let Some(key) = self.missing.first() {
            return Err(Error::MissingTensor { path, key: key.clone(), count: self.missing.len() });
        }
        let unread: Vec<_> = self
            .tensors
            .keys()
            .filter(|key| !self.read.contains(*key) && !self.layout.allows_extra(key))
            .collect();
        match unread.first() {
            Some(key) => Err(Error::UnreadTensor { path, key: (*key).clone(), count: unread.len() }),
            None => Ok(()),
        }
    }

    /// The tensor for the parameter at this position, decoded by `decode` and in burn's layout.
    fn take<T: Copy>(
        &mut self,
        shape: &Shape,
        expected: &'static str,
        decode: fn(&TensorView<'_>) -> Option<Vec<T>>,
    ) -> Option<Vec<T>> {
        if self.error.is_some() {
            return None;
        }
        let key = self.position.key(self.layout);
        let Some(tensor) = self.tensors.get(&key) else {
            self.missing.insert(key);
            return None;
        };
        let path = self.path.to_owned();
        if !self.read.insert(key.clone()) {
            self.error = Some(Error::DuplicateKey { path, key });
            return None;
        }
        let expected_shape = file_shape(&self.position, self.layout, &key, shape);
        let is_transposed = self.position.is_transposed();
        if tensor.shape() != expected_shape {
            let found = tensor.shape().to_vec();
            self.error = Some(Error::Shape { path, key, expected: expected_shape, found });
            return None;
        }
        match decode(tensor) {
            Some(values) if is_transposed => Some(transposed(&values, expected_shape[0])),
            Some(values) => Some(values),
            None => {
                let found = format!("{:?}", tensor.dtype());
                self.error = Some(Error::Dtype { path, key, expected, found });
                None
            }
        }
    }
}

fn floats(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = tensor.data();
    let halves = || data.as_chunks::<2>().0.iter().copied();
    match tensor.dtype() {
        Dtype::F32 => Some(data.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect()),
        Dtype::F16 => Some(halves().map(|bytes| f16::from_le_bytes(bytes).to_f32()).collect()),
        Dtype::BF16 => Some(halves().map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect()),
        _ => None,
    }
}

fn integers(tensor: &TensorView<'_>) -> Option<Vec<i64>> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::I64 => Some(data.as_chunks::<8>().0.iter().copied().map(i64::from_le_bytes).collect()),
        Dtype::I32 => Some(
            data.as_chunks::<4>().0.iter().copied().map(|bytes| i32::from_le_bytes(bytes).into()).collect(),
        ),
        _ => None,
    }
}

/// What is needed of a parameter before its value is replaced.
fn target<const D: usize, K>(param: &Param<Tensor<D, K>>) -> (ParamId, Device, Shape)
where
    K: burn::tensor::kind::Basic,
    Tensor<D, K>: burn::module::Parameter,
{
    (param.id, param.lazy_device(), param.lazy_shape())
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.position.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.position.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, device, shape) = target(&param);
        match self.take(&shape, "F32, F16 or BF16", floats) {
            Some(values) => {
                let tensor = Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32));
                param.transform_for_load(tensor, id)
            }
            None => param,
        }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let (id, device, shape) = target(&param);
        match self.take(&shape, "I64 or I32", integers) {
            Some(values) => {
                param.transform_for_load(Tensor::from_data(TensorData::new(values, shape), &device), id)
            }
            None => param,
        }
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<D, Bool>>) -> Param<Tensor<D, Bool>> {
        let shape = param.lazy_shape();
        // No checkpoint of these models holds booleans, so none decodes.
        self.take::<bool>(&shape, "no boolean parameter", |_| None);
        param
    }
}
