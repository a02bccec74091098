//! Files of `torch.save` and `torch.jit.save`: a pickle that describes the tensors, and their bytes.
//!
//! OpenAI published CLIP as TorchScript: the same zip file with code beside the weights, which is never looked at.

use std::collections::BTreeMap;

use super::archive::{Archive, ArchiveError, Region, Source};
use super::pickle::{Pickle, PickleError, TensorRecord};
use super::tensor_file::{Format, TensorFile, TensorInfo};
use crate::Error;

/// Begins every zip file with an entry.
pub(super) const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
/// Begins every torch file before the zip format: a pickle of torch's magic number.
pub(super) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// Largest pickle in bytes; that of a CLIP's training checkpoint has about a megabyte.
const MAX_PICKLE: u64 = 16 << 20;

fn refuse(source: &Source, cause: PickleError) -> Error {
    Error::Pickle { path: source.path.clone(), source: cause }
}

/// Opens a zip file of torch.
pub(super) fn open_zip(source: Source) -> Result<TensorFile, Error> {
    let archive = Archive::open(&source)?;
    let is_pickle = |name: &&str| name.split_once('/').is_some_and(|(_, rest)| rest == "data.pkl");
    let pickles: Vec<&str> = archive.names().filter(is_pickle).collect();
    let &[entry] = &pickles[..] else {
        let entry = "data.pkl".to_owned();
        let found = if pickles.is_empty() {
            ArchiveError::Missing { entry }
        } else {
            ArchiveError::Duplicate { entry }
        };
        return Err(source.refuse(found));
    };
    let folder = entry.strip_suffix("data.pkl").unwrap_or_default();
    check_byte_order(&source, &archive, folder)?;
    let region = archive.region(&source, entry)?;
    if region.len > MAX_PICKLE {
        let (what, found, limit) = ("bytes of pickle", region.len, MAX_PICKLE);
        return Err(source.refuse(ArchiveError::TooLarge { what, found, limit }));
    }
    let pickle = Pickle::read(&source.region(&region)?).map_err(|cause| refuse(&source, cause))?;
    let format = if pickle.is_module() { Format::TorchScript } else { Format::Torch };
    let records = pickle.tensors().map_err(|cause| refuse(&source, cause))?;
    let mut storages = Storages::default();
    for record in &records {
        if !storages.by_name.contains_key(record.storage) {
            let name: String = record.storage.chars().take(100).collect();
            let region = archive.region(&source, &format!("{folder}data/{name}"))?;
            storages.add(record.storage, region);
        }
    }
    collect(format, source, records, storages)
}

/// Newer files name the byte order; older ones are little-endian.
fn check_byte_order(source: &Source, archive: &Archive, folder: &str) -> Result<(), Error> {
    let name = format!("{folder}byteorder");
    if !archive.names().any(|entry| entry == name) {
        return Ok(());
    }
    let region = archive.region(source, &name)?;
    let found = if region.len <= 16 { source.region(&region)? } else { Vec::new() };
    if found == b"little" {
        return Ok(());
    }
    Err(source.refuse(ArchiveError::ByteOrder { found: String::from_utf8_lossy(&found).into_owned() }))
}

/// Opens a file of the format before zip: magic number, version, machine, state dict and storage names as pickles, then the
/// storages in this order, each after its length.
pub(super) fn open_legacy(source: Source) -> Result<TensorFile, Error> {
    let head = source.bytes(0, source.len.min(MAX_PICKLE))?.unwrap_or_default();
    let mut at = LEGACY_MAGIC.len();
    let mut next = || {
        let pickle =
            Pickle::read(head.get(at..).unwrap_or_default()).map_err(|cause| refuse(&source, cause))?;
        at += pickle.len;
        Ok(pickle)
    };
    let (_version, _machine, state, names) = (next()?, next()?, next()?, next()?);
    let records = state.tensors().map_err(|cause| refuse(&source, cause))?;
    let names = names.texts().map_err(|cause| refuse(&source, cause))?;
    let sizes: BTreeMap<&str, Option<u64>> = state.storages().collect();
    let mut storages = Storages::default();
    let mut start = at as u64;
    for name in names {
        let size = sizes.get(name).copied().flatten();
        // The number of elements; dtype and number stand in the pickle too, and `place` compares.
        let end =
            size.and_then(|size| start.checked_add(8)?.checked_add(size)).filter(|&end| end <= source.len);
        let (Some(len), Some(end)) = (size, end) else {
            return Err(Error::Tensor {
                path: source.path.clone(),
                key: name.chars().take(100).collect(),
                field: "storage",
                expected: format!("bytes within the file's {}", source.len),
                found: size.map_or("of unknown size".to_owned(), |size| format!("{size} bytes")),
            });
        };
        storages.add(name, Region { start: start + 8, len, checksum: None });
        start = end;
    }
    collect(Format::TorchLegacy, source, records, storages)
}

/// The regions of storages by name.
#[derive(Default)]
struct Storages {
    by_name: BTreeMap<String, usize>,
    regions: Vec<Region>,
}

impl Storages {
    fn add(&mut self, name: &str, region: Region) {
        self.by_name.insert(name.to_owned(), self.regions.len());
        self.regions.push(region);
    }
}

fn collect(
    format: Format,
    source: Source,
    records: Vec<TensorRecord<'_>>,
    storages: Storages,
) -> Result<TensorFile, Error> {
    let mut tensors = BTreeMap::new();
    for record in records {
        let tensor = place(&source, &record, &storages)?;
        if tensors.insert(record.name.clone(), tensor).is_some() {
            let (name, expected, found) = (record.name, "one tensor", "there twice");
            return Err(refuse(&source, PickleError::Content { name, expected, found }));
        }
    }
    Ok(TensorFile::new(format, source, tensors, storages.regions))
}

/// Checks a tensor against its storage: every element must lie within.
fn place(source: &Source, record: &TensorRecord<'_>, storages: &Storages) -> Result<TensorInfo, Error> {
    let wrong = |field: &'static str, expected: String, found: String| Error::Tensor {
        path: source.path.clone(),
        key: record.name.clone(),
        field,
        expected,
        found,
    };
    let region = storages.by_name.get(record.storage).copied();
    let region = region.ok_or_else(|| {
        wrong("storage", "a storage of the file".to_owned(), record.storage.chars().take(100).collect())
    })?;
    let size = record.dtype.bitsize() as u64 / 8;
    let len = storages.regions[region].len;
    if record.num_elements.checked_mul(size) != Some(len) {
        let expected = format!("{len} bytes, as the file has");
        return Err(wrong("storage", expected, format!("{} elements of {size} bytes", record.num_elements)));
    }
    let whole = |numbers: &[i64]| -> Option<Vec<usize>> {
        numbers.iter().map(|&number| usize::try_from(number).ok()).collect()
    };
    let shape = whole(record.shape)
        .ok_or_else(|| wrong("shape", "no negative axis".to_owned(), format!("{:?}", record.shape)))?;
    let count = shape.iter().try_fold(1_u64, |product, &axis| product.checked_mul(axis as u64));
    let count = count.filter(|&count| count <= record.num_elements).ok_or_else(|| {
        wrong("shape", format!("at most {} elements", record.num_elements), format!("{shape:?}"))
    })?;
    let strides = whole(record.strides)
        .ok_or_else(|| wrong("strides", "no negative stride".to_owned(), format!("{:?}", record.strides)))?;
    let reach = shape.iter().zip(&strides).try_fold(1_u64, |reach, (&axis, &stride)| {
        reach.checked_add((axis as u64).saturating_sub(1).checked_mul(stride as u64)?)
    });
    let offset = u64::try_from(record.offset)
        .map_err(|_| wrong("offset", "no negative offset".to_owned(), record.offset.to_string()))?;
    let end = reach.and_then(|reach| offset.checked_add(reach));
    if count > 0 && end.is_none_or(|end| end > record.num_elements) {
        let found = format!("offset {offset}, shape {shape:?}, strides {strides:?}");
        return Err(wrong("extent", format!("{} elements", record.num_elements), found));
    }
    let is_row_major = count == 0 || is_row_major(&shape, &strides);
    let strides = (!is_row_major).then_some(strides);
    Ok(TensorInfo { dtype: record.dtype, shape, shard: 0, region, offset, strides })
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&axis, &stride)| {
        let fits = axis == 1 || stride == expected;
        expected *= axis;
        fits
    })
}
