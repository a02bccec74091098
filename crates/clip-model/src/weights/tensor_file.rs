//! One view of every weight file: named tensors, each a region of the file that is read when it is asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::store::ModuleSnapshot;
use burn::tensor::{FloatDType, bf16, f16};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError};

use super::archive::{Region, Source};
use super::{KeyTable, load_tensors, sharded, torch_file};
use crate::Error;

/// Largest header of a safetensors file; that of Stable Diffusion's network has 0.1 MB.
const MAX_HEADER: u64 = 16 << 20;
/// The tensors together may be this many times as large as the file: tied weights share a region.
const MAX_SHARING: u64 = 2;

/// The kind of a weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    SafeTensors,
    /// A state dict of `torch.save`, in a zip file.
    Torch,
    /// A state dict of `torch.save` before torch 1.6 or with `_use_new_zipfile_serialization=False`.
    TorchLegacy,
    /// A module of `torch.jit.save`.
    TorchScript,
}

/// A tensor of a file.
#[derive(Debug)]
pub(crate) struct TensorInfo {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Index of the shard that holds it.
    pub(super) shard: usize,
    /// Index of the region within the shard.
    pub(super) region: usize,
    /// First element within the region.
    pub(super) offset: u64,
    /// Elements between neighbours per axis, `None` for a row-major tensor.
    pub(super) strides: Option<Vec<usize>>,
}

/// An open weight file, or several that an index joins: names and shapes are known, no tensor is read yet.
pub struct TensorFile {
    pub(crate) format: Format,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
    /// The file, or the index.
    pub(super) path: PathBuf,
    pub(super) shards: Vec<Shard>,
}

/// One file with tensors.
pub(super) struct Shard {
    source: Source,
    regions: Vec<Region>,
    /// Regions whose checksum was found right.
    verified: RefCell<BTreeSet<usize>>,
}

impl TensorFile {
    /// Opens a file of any format, told by its first bytes, or the files of an index (`*.index.json`); reads names and shapes only.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read, is damaged or holds more than tensors, or an index and its files disagree.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if sharded::is_index(path) {
            return sharded::open(path);
        }
        let source = Source::open(path)?;
        let start = source.bytes(0, source.len.min(16))?.unwrap_or_default();
        if start.starts_with(torch_file::ZIP_MAGIC) {
            torch_file::open_zip(source)
        } else if start.starts_with(torch_file::LEGACY_MAGIC) {
            torch_file::open_legacy(source)
        } else {
            Self::from_safetensors(source)
        }
    }

    /// Opens a safetensors file.
    pub(super) fn open_safetensors(path: &Path) -> Result<Self, Error> {
        Self::from_safetensors(Source::open(path)?)
    }

    fn from_safetensors(source: Source) -> Result<Self, Error> {
        let refuse = |cause| Error::SafeTensors { path: source.path.clone(), source: cause };
        let length = source.bytes(0, 8)?.and_then(|bytes| bytes.try_into().ok());
        let length = length.map(u64::from_le_bytes).ok_or_else(|| refuse(SafeTensorError::HeaderTooSmall))?;
        if length > MAX_HEADER {
            return Err(refuse(SafeTensorError::HeaderTooLarge));
        }
        let header = source.bytes(8, length)?.ok_or_else(|| refuse(SafeTensorError::InvalidHeaderLength))?;
        // Reading the metadata checks that offsets are without gaps and fit shapes and dtypes.
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|cause| refuse(SafeTensorError::InvalidHeaderDeserialization(cause)))?;
        let start = 8 + length;
        if start.checked_add(metadata.data_len() as u64) != Some(source.len) {
            return Err(refuse(SafeTensorError::MetadataIncompleteBuffer));
        }
        let (mut tensors, mut regions) = (BTreeMap::new(), Vec::new());
        for (key, info) in metadata.tensors() {
            let (first, end) = info.data_offsets;
            let (dtype, shape, region) = (info.dtype, info.shape.clone(), regions.len());
            regions.push(Region { start: start + first as u64, len: (end - first) as u64, checksum: None });
            tensors.insert(key, TensorInfo { dtype, shape, shard: 0, region, offset: 0, strides: None });
        }
        Ok(Self::new(Format::SafeTensors, source, tensors, regions))
    }

    pub(super) fn new(
        format: Format,
        source: Source,
        tensors: BTreeMap<String, TensorInfo>,
        regions: Vec<Region>,
    ) -> Self {
        let path = source.path.clone();
        let shards = vec![Shard { source, regions, verified: RefCell::default() }];
        TensorFile { format, tensors, path, shards }
    }

    /// The file, or the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names and shapes in alphabetical order.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(key, tensor)| (key.as_str(), &tensor.shape[..]))
    }

    /// The shape of a tensor.
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.tensors.get(key).map(|tensor| &tensor.shape[..])
    }

    /// Fills `module` with the tensors as floats of the given precision.
    ///
    /// # Errors
    ///
    /// Fails unless parameters and tensors match one to one, and if the file turns out damaged.
    pub fn load<M: ModuleSnapshot>(
        &self,
        module: M,
        layout: &KeyTable,
        dtype: FloatDType,
    ) -> Result<M, Error> {
        load_tensors(module, self, layout, dtype)
    }

    /// Takes a prefix off every key if all of them have it.
    pub(crate) fn strip_prefix(&mut self, prefix: &str) {
        if !self.tensors.is_empty() && self.tensors.keys().all(|key| key.starts_with(prefix)) {
            let tensors = std::mem::take(&mut self.tensors).into_iter();
            self.tensors = tensors.map(|(key, tensor)| (key[prefix.len()..].to_owned(), tensor)).collect();
        }
    }

    /// Takes a prefix off the keys that have it.
    ///
    /// # Errors
    ///
    /// Fails if a key is there with and without it.
    pub(crate) fn lift_prefix(&mut self, prefix: &str) -> Result<(), Error> {
        for (key, tensor) in std::mem::take(&mut self.tensors) {
            let lifted = key.strip_prefix(prefix).unwrap_or(&key).to_owned();
            if self.tensors.insert(lifted, tensor).is_some() {
                let (path, found) = (self.path().to_owned(), format!("there with and without `{prefix}`"));
                return Err(Error::Tensor {
                    path,
                    key,
                    field: "name",
                    expected: "one of them".to_owned(),
                    found,
                });
            }
        }
        Ok(())
    }

    /// Refuses a file whose tensors together are far larger than itself; only shared regions make that possible.
    pub(crate) fn check_total(&self) -> Result<(), Error> {
        let sizes = self.tensors.values().map(|tensor| {
            let elements =
                tensor.shape.iter().try_fold(1_u64, |product, &axis| product.checked_mul(axis as u64))?;
            elements.checked_mul(tensor.dtype.bitsize() as u64 / 8)
        });
        let claimed = sizes.sum::<Option<u64>>();
        let len = self.shards.iter().map(|shard| shard.source.len).fold(0, u64::saturating_add);
        match claimed {
            Some(claimed) if claimed <= len.saturating_mul(MAX_SHARING) => Ok(()),
            _ => Err(Error::OverlappingTensors { path: self.path().to_owned(), len }),
        }
    }

    /// The tensor's bytes, row-major and little-endian.
    pub(super) fn read(&self, tensor: &TensorInfo) -> Result<Vec<u8>, Error> {
        let Shard { source, regions, verified } = &self.shards[tensor.shard];
        let region = &regions[tensor.region];
        let size = tensor.dtype.bitsize() / 8;
        let count: usize = tensor.shape.iter().product();
        if tensor.strides.is_none() && (count * size) as u64 == region.len {
            let bytes = source.region(region)?;
            verified.borrow_mut().insert(tensor.region);
            return Ok(bytes);
        }
        if verified.borrow_mut().insert(tensor.region) {
            source.verify(region)?;
        }
        // Elements that the strides reach; the offset and they were checked against the region when the file was opened.
        let reach = match &tensor.strides {
            _ if count == 0 => 0,
            None => count,
            Some(strides) => {
                1 + tensor.shape.iter().zip(strides).map(|(axis, stride)| (axis - 1) * stride).sum::<usize>()
            }
        };
        let start = region.start + tensor.offset * size as u64;
        let bytes = source.bytes(start, (reach * size) as u64)?.unwrap_or_default();
        Ok(match &tensor.strides {
            Some(strides) if count > 0 => gathered(&bytes, size, &tensor.shape, strides),
            _ => bytes,
        })
    }

    /// The single integer of a tensor, `None` if it has another form.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, Error> {
        let Some(tensor) = self.tensors.get(key) else { return Ok(None) };
        if tensor.shape.iter().product::<usize>() != 1 {
            return Ok(None);
        }
        Ok(integers(tensor.dtype, &self.read(tensor)?).and_then(|values| values.first().copied()))
    }
}

/// The elements of a strided tensor in row-major order.
fn gathered(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let at = index.iter().zip(strides).map(|(index, stride)| index * stride).sum::<usize>() * size;
        out.extend_from_slice(&bytes[at..at + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// Floats of any precision as f32, `None` for another dtype.
pub(super) fn floats(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    let halves = || data.as_chunks::<2>().0.iter().copied();
    match dtype {
        Dtype::F32 => Some(data.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect()),
        Dtype::F16 => Some(halves().map(|bytes| f16::from_le_bytes(bytes).to_f32()).collect()),
        Dtype::BF16 => Some(halves().map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect()),
        _ => None,
    }
}

/// Integers as i64, `None` for another dtype.
pub(super) fn integers(dtype: Dtype, data: &[u8]) -> Option<Vec<i64>> {
    match dtype {
        Dtype::I64 => Some(data.as_chunks::<8>().0.iter().copied().map(i64::from_le_bytes).collect()),
        Dtype::I32 => Some(
            data.as_chunks::<4>().0.iter().copied().map(|bytes| i32::from_le_bytes(bytes).into()).collect(),
        ),
        _ => None,
    }
}
