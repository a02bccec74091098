//! Strict loading.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{ModuleMapper, Param, ParamId};
use burn::store::ModuleSnapshot;
use burn::tensor::{Bool, DType, Device, FloatDType, Int, Shape, Tensor, TensorData};
use safetensors::Dtype;

use super::key_table::Place;
use super::tensor_file::{TensorFile, floats, integers};
use super::{KeyTable, Position, file_shape, transposed};
use crate::Error;

/// Fills `module` from a safetensors file in PyTorch's layout; f16 and bf16 files load as f32.
///
/// Tensors are read one by one, so memory holds the model and one tensor.
///
/// # Errors
///
/// Fails unless parameters and tensors match one to one (the table's allowed extras aside): a partly loaded model would train.
/// The error names the file and the first key.
pub fn load_safetensors<M: ModuleSnapshot>(module: M, path: &Path, layout: &KeyTable) -> Result<M, Error> {
    load_tensors(module, &TensorFile::open_safetensors(path)?, layout, FloatDType::F32)
}

/// Fills `module` from an open file, as [`load_safetensors`] does, with floats of the given precision.
pub(crate) fn load_tensors<M: ModuleSnapshot>(
    module: M,
    file: &TensorFile,
    layout: &KeyTable,
    dtype: FloatDType,
) -> Result<M, Error> {
    let mut loader = Loader {
        file,
        layout,
        dtype,
        position: Position::default(),
        read: BTreeSet::new(),
        missing: BTreeSet::new(),
        error: None,
    };
    let module = module.map(&mut loader);
    loader.finish()?;
    Ok(module)
}

/// Names, shapes and dtypes (`F32`, `F16`, ...) of a weight file in alphabetical order: safetensors, a state dict of
/// `torch.save` or a module of `torch.jit.save`.
///
/// # Errors
///
/// Fails if the file cannot be read, is damaged or holds more than tensors.
pub fn key_list(path: &Path) -> Result<Vec<(String, Vec<usize>, String)>, Error> {
    let file = TensorFile::open(path)?;
    let keys = file.tensors.iter();
    Ok(keys.map(|(key, t)| (key.clone(), t.shape.clone(), format!("{:?}", t.dtype))).collect())
}

struct Loader<'a> {
    file: &'a TensorFile,
    layout: &'a KeyTable,
    /// Precision of the module's floats.
    dtype: FloatDType,
    position: Position,
    read: BTreeSet<Place>,
    missing: BTreeSet<String>,
    /// The first error; the walk goes on because a module must be mapped as a whole.
    error: Option<Error>,
}

impl Loader<'_> {
    fn finish(self) -> Result<(), Error> {
        let path = self.file.path().to_owned();
        if let Some(error) = self.error {
            return Err(error);
        }
        if let Some(key) = self.missing.first() {
            return Err(Error::MissingTensor { path, key: key.clone(), count: self.missing.len() });
        }
        let read: BTreeSet<&str> = self.read.iter().map(|place| place.key.as_str()).collect();
        let is_unread = |key: &&String| !read.contains(key.as_str()) && !self.layout.allows_extra(key);
        let unread: Vec<_> = self.file.tensors.keys().filter(is_unread).collect();
        match unread.first() {
            Some(key) => Err(Error::UnreadTensor { path, key: (*key).clone(), count: unread.len() }),
            None => Ok(()),
        }
    }

    /// The values for the parameter at this position, decoded by `decode` and in burn's layout.
    fn take<T: Copy>(
        &mut self,
        shape: &Shape,
        expected: &'static str,
        decode: fn(Dtype, &[u8]) -> Option<Vec<T>>,
    ) -> Option<Vec<T>> {
        if self.error.is_some() {
            return None;
        }
        let place = self.position.place(self.layout);
        match self.values(&place, shape, expected, decode) {
            Ok(values) => values,
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }

    fn values<T: Copy>(
        &mut self,
        place: &Place,
        shape: &Shape,
        expected: &'static str,
        decode: fn(Dtype, &[u8]) -> Option<Vec<T>>,
    ) -> Result<Option<Vec<T>>, Error> {
        let (path, key) = (|| self.file.path().to_owned(), || place.key.clone());
        let Some(tensor) = self.file.tensors.get(&place.key) else {
            self.missing.insert(key());
            return Ok(None);
        };
        if !self.read.insert(place.clone()) {
            return Err(Error::DuplicateKey { path: path(), key: key() });
        }
        let expected_shape = file_shape(&self.position, self.layout, place, shape);
        if tensor.shape != expected_shape {
            let found = tensor.shape.clone();
            return Err(Error::Shape { path: path(), key: key(), expected: expected_shape, found });
        }
        let mut bytes = self.file.read(tensor)?;
        let mut rows = expected_shape.first().copied().unwrap_or(1);
        if let Some(part) = place.part {
            // The file's shape was checked, so the parts divide the rows and the bytes.
            let len = bytes.len() / part.count;
            bytes = bytes[part.index * len..(part.index + 1) * len].to_vec();
            rows /= part.count;
        }
        let Some(values) = decode(tensor.dtype, &bytes) else {
            let found = format!("{:?}", tensor.dtype);
            return Err(Error::Dtype { path: path(), key: key(), expected, found });
        };
        let is_transposed = self.position.is_transposed(self.layout, &place.key);
        Ok(Some(if is_transposed { transposed(&values, rows) } else { values }))
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
                let tensor =
                    Tensor::from_data(TensorData::new(values, shape), (&device, DType::from(self.dtype)));
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
        self.take::<bool>(&shape, "no boolean parameter", |_, _| None);
        param
    }
}
