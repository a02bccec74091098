//! Saving: PyTorch's layout and names, sorted, the same bytes for the same values.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use burn::module::{ModuleVisitor, Param};
use burn::store::ModuleSnapshot;
use burn::tensor::{Bool, Int, Tensor, f16};
use safetensors::{Dtype, View};

use super::key_table::Place;
use super::{KeyTable, Position, file_shape, transposed};
use crate::Error;

/// Element type of the saved floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveDtype {
    /// Exact.
    F32,
    /// Half the size, rounded to nearest even.
    F16,
}

/// Writes `module` as a safetensors file in PyTorch's layout.
///
/// The bytes depend on the values alone. The file appears whole under its name or not at all.
///
/// # Errors
///
/// Fails if the file cannot be written, a value does not fit `dtype`, or the table maps two parameters to one key.
pub fn save_safetensors<M: ModuleSnapshot>(
    module: &M,
    path: &Path,
    dtype: SaveDtype,
    layout: &KeyTable,
) -> Result<(), Error> {
    let mut saver =
        Saver { path, layout, dtype, position: Position::default(), tensors: BTreeMap::new(), error: None };
    module.visit(&mut saver);
    if let Some(error) = saver.error {
        return Err(error);
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(saver.tensors, Some(metadata))
        .map_err(|source| Error::SafeTensors { path: path.to_owned(), source })?;
    publish(path, &bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Writes under a temporary name beside `path`, syncs and renames.
fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // The first error is the one to tell; a leftover temporary file is harmless.
        let _ = fs::remove_file(&temporary);
    })
}

/// One tensor in the file's form.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

struct Saver<'a> {
    path: &'a Path,
    layout: &'a KeyTable,
    dtype: SaveDtype,
    position: Position,
    tensors: BTreeMap<String, Stored>,
    error: Option<Error>,
}

impl Saver<'_> {
    fn unreadable(&self, cause: impl std::fmt::Display) -> Error {
        Error::Write { path: self.path.to_owned(), source: io::Error::other(cause.to_string()) }
    }

    fn store(&mut self, place: Place, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        let shape = file_shape(&self.position, self.layout, &place, shape);
        match self.tensors.entry(place.key) {
            Entry::Vacant(place) => {
                place.insert(Stored { dtype, shape, bytes });
            }
            Entry::Occupied(place) => {
                let key = place.key().clone();
                self.error = Some(Error::DuplicateKey { path: self.path.to_owned(), key });
            }
        }
    }

    fn encode(&self, key: &str, values: &[f32]) -> Result<(Dtype, Vec<u8>), Error> {
        match self.dtype {
            SaveDtype::F32 => Ok((Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())),
            SaveDtype::F16 => {
                let mut bytes = Vec::with_capacity(values.len() * 2);
                for &value in values {
                    let half = f16::from_f32(value);
                    if value.is_finite() && !half.is_finite() {
                        return Err(Error::HalfOverflow {
                            path: self.path.to_owned(),
                            key: key.to_owned(),
                            value,
                        });
                    }
                    bytes.extend(half.to_le_bytes());
                }
                Ok((Dtype::F16, bytes))
            }
        }
    }

    fn float<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<(), Error> {
        let place = self.position.place(self.layout);
        let tensor = param.transform_for_save().val();
        let shape = tensor.dims();
        let mut values = tensor.try_into_vec_as::<f32>().map_err(|cause| self.unreadable(cause))?;
        if self.position.is_transposed(self.layout, &place.key) {
            values = transposed(&values, shape[0]);
        }
        let (dtype, bytes) = self.encode(&place.key, &values)?;
        self.store(place, dtype, &shape, bytes);
        Ok(())
    }

    fn int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) -> Result<(), Error> {
        let place = self.position.place(self.layout);
        let tensor = param.transform_for_save().val();
        let shape = tensor.dims();
        let values = tensor.try_into_vec_as::<i64>().map_err(|cause| self.unreadable(cause))?;
        self.store(place, Dtype::I64, &shape, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        Ok(())
    }
}

impl ModuleVisitor for Saver<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.position.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.position.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.error.is_none() {
            self.error = self.float(param).err().or(self.error.take());
        }
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        if self.error.is_none() {
            self.error = self.int(param).err().or(self.error.take());
        }
    }

    fn visit_bool<const D: usize>(&mut self, _param: &Param<Tensor<D, Bool>>) {
        if self.error.is_none() {
            let key = self.position.place(self.layout).key;
            let (expected, found) = ("no boolean parameter", "BOOL".to_owned());
            self.error = Some(Error::Dtype { path: self.path.to_owned(), key, expected, found });
        }
    }
}
