//! Rows to the content of one Parquet file and back. No file is opened here.

use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowLeafColumn, compute_leaves};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::ChunkReader;
use pipeline_spec::{ArtifactKind, Key};
use rayon::prelude::*;

use crate::codec::{Columns, Fault, RowCodec};
use crate::column::{Column, ColumnType, schema, writer_properties};
use crate::tensor_column::TensorLeaf;
use crate::{Error, SchemaInfo, metadata, thrift};

/// Raw bytes of a row group: small enough to read one sample without the rest, large enough to scan.
const ROW_GROUP_BYTES: usize = 8 << 20;

/// What was read from one file.
pub(crate) struct Table<R> {
    pub(crate) rows: Vec<R>,
    pub(crate) class_names: Vec<String>,
    pub(crate) tensor_shape: Vec<usize>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Writes `rows` to `sink` as a Parquet file; equal arguments give equal bytes.
///
/// Every value is checked first, because nobody can tell later whether a cached value was meant.
pub(crate) fn encode<R: RowCodec>(
    rows: &[R],
    info: &SchemaInfo,
    metadata: &BTreeMap<String, String>,
    sink: impl Write + Send,
) -> Result<(), Error> {
    check_info::<R>(info)?;
    check_rows(rows, info)?;
    let failed = |reason: String| Error::Encode { kind: R::KIND, reason };
    let numel = info.tensor_shape.iter().product();
    let raw_bytes: usize = rows.iter().map(R::size_hint).sum();
    let rows_per_group = (rows.len() * ROW_GROUP_BYTES / raw_bytes.max(1)).clamp(1, 1 << 20);
    let sorted = rows.is_sorted_by(|a, b| R::order(a, b).is_le());
    let is_written = written_columns(rows);
    let columns: Vec<Column> = kept(R::COLUMNS.to_vec(), &is_written);
    let arrow_schema = Arc::new(schema(&columns, info));
    let properties = writer_properties(&columns, metadata, rows_per_group, sorted.then_some(R::SORTED_BY));
    let writer = ArrowWriter::try_new(sink, Arc::clone(&arrow_schema), Some(properties))
        .map_err(|e| failed(e.to_string()))?;
    let (mut writer, factory) = writer.into_serialized_writer().map_err(|e| failed(e.to_string()))?;
    let groups: Vec<&[R]> = rows.chunks(rows_per_group).collect();
    // Groups are encoded on all cores, a few at a time, and written in order: the bytes are those of one thread.
    let at_once = rayon::current_num_threads();
    for (window, groups) in groups.chunks(at_once).enumerate() {
        let encode_group = |(index, group): (usize, &&[R])| {
            let columns = factory.create_column_writers(window * at_once + index)?;
            let arrays = kept(R::encode(group, numel), &is_written);
            encode_columns(&RecordBatch::try_new(Arc::clone(&arrow_schema), arrays)?, columns)
        };
        let encoded: Result<Vec<_>, ParquetError> = groups.par_iter().enumerate().map(encode_group).collect();
        let append = || {
            for chunks in encoded? {
                let mut group = writer.next_row_group()?;
                chunks.into_iter().try_for_each(|chunk| chunk.append_to_row_group(&mut group))?;
                group.close()?;
            }
            Ok(())
        };
        append().map_err(|e: ParquetError| failed(e.to_string()))?;
    }
    writer.finish().map(drop).map_err(|e| failed(e.to_string()))
}

/// The columns of a row group, encoded.
fn encode_columns(
    batch: &RecordBatch,
    writers: Vec<ArrowColumnWriter>,
) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
    let mut leaves = Vec::with_capacity(writers.len());
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        leaves.extend(compute_leaves(field, array)?);
    }
    let encode = |(mut writer, leaf): (ArrowColumnWriter, &ArrowLeafColumn)| {
        writer.write(leaf)?;
        writer.close()
    };
    writers.into_iter().zip(&leaves).map(encode).collect()
}

/// Which columns of the kind the part has: all but the sparse ones without a value.
fn written_columns<R: RowCodec>(rows: &[R]) -> Vec<bool> {
    R::COLUMNS.iter().map(|column| !column.sparse || rows.iter().any(|row| row.fills(column.name))).collect()
}

/// The items whose flag is set.
fn kept<T>(items: Vec<T>, flags: &[bool]) -> Vec<T> {
    items.into_iter().zip(flags).filter(|(_, is_kept)| **is_kept).map(|(item, _)| item).collect()
}

/// The class names and the tensor shape must fit the kind.
fn check_info<R: RowCodec>(info: &SchemaInfo) -> Result<(), Error> {
    let fault =
        |field: &str, problem: String| Err(Error::Info { kind: R::KIND, field: field.to_owned(), problem });
    let has = |ty| R::COLUMNS.iter().any(|c| c.ty == ty);
    if has(ColumnType::ClassLabel) && info.class_names.is_empty() {
        return fault("class_names", "is empty, expected the name of every class".to_owned());
    }
    let mut seen = HashSet::new();
    if let Some(twice) = info.class_names.iter().find(|name| !seen.insert(name.as_str())) {
        return fault("class_names", format!("holds `{twice}` twice, expected different names"));
    }
    let numel = info.tensor_shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    match (has(ColumnType::Tensor), info.tensor_shape.is_empty()) {
        (true, true) => fault("tensor_shape", "is empty, expected the shape of one tensor".to_owned()),
        (false, false) => {
            fault("tensor_shape", format!("is {:?}, expected none: no column is a tensor", info.tensor_shape))
        }
        (true, false) if !numel.is_some_and(|n| n > 0 && i32::try_from(n).is_ok()) => {
            fault("tensor_shape", format!("is {:?}, expected 1 to 2^31-1 elements", info.tensor_shape))
        }
        _ => Ok(()),
    }
}

/// Every row must hold what its kind promises, and no row may stand twice.
fn check_rows<R: RowCodec>(rows: &[R], info: &SchemaInfo) -> Result<(), Error> {
    let fault = |row, column, problem| Error::Value { kind: R::KIND, row, column, problem };
    let check = |(row, value): (usize, &R)| {
        value.check(info).map_err(|Fault { column, problem }| fault(row, column, problem)).err()
    };
    if let Some(error) = rows.par_iter().enumerate().find_map_first(check) {
        return Err(error);
    }
    let mut seen = HashSet::with_capacity(rows.len());
    for (row, identity) in rows.iter().map(R::identity).enumerate() {
        if seen.contains(&identity) {
            return Err(fault(row, R::COLUMNS[0].name, format!("stands twice in the part (`{identity}`)")));
        }
        seen.insert(identity);
    }
    Ok(())
}

/// Decodes the file `path` whose bytes were checked against a digest; `key` is what its metadata must name.
///
/// Damaged files make the parser panic now and then, so a panic is caught and becomes an error.
pub(crate) fn decode<R: RowCodec>(bytes: Vec<u8>, path: &Path, key: Option<&Key>) -> Result<Table<R>, Error> {
    let parse = || decode_unguarded(bytes, path, key);
    catch_unwind(AssertUnwindSafe(parse))
        .unwrap_or_else(|panic| Err(unparsable(path, panic_text(panic.as_ref()))))
}

fn decode_unguarded<R: RowCodec>(bytes: Vec<u8>, path: &Path, key: Option<&Key>) -> Result<Table<R>, Error> {
    let unreadable = |e: ParquetError| unparsable(path, e.to_string());
    let bytes = bytes::Bytes::from(bytes);
    thrift::check_footer(&bytes, path)?;
    let file = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new()).map_err(unreadable)?;
    thrift::check_pages(&bytes, file.metadata(), path)?;
    let metadata = key_values(file.metadata().file_metadata());
    check_metadata(&metadata, R::KIND, path, key)?;
    let class_names = json_field(&metadata, metadata::CLASS_NAMES, path)?;
    let tensor_shape: Vec<usize> = json_field(&metadata, metadata::TENSOR_SHAPE, path)?;
    let decode_group = |group| decode_rows::<R, _>(|| Ok(bytes.clone()), &file, group, None, path);
    let groups: Result<Vec<Vec<R>>, Error> =
        (0..file.metadata().num_row_groups()).into_par_iter().map(decode_group).collect();
    let rows = groups?.into_iter().flatten().collect();
    Ok(Table { rows, class_names, tensor_shape, metadata })
}

/// The rows of row group `group`, all or the one at `row`; `bytes` opens the file.
pub(crate) fn decode_rows<R: RowCodec, C: ChunkReader + 'static>(
    bytes: impl Fn() -> Result<C, Error>,
    file: &ArrowReaderMetadata,
    group: usize,
    row: Option<usize>,
    path: &Path,
) -> Result<Vec<R>, Error> {
    let tensors = TensorLeaf::find(R::COLUMNS, file, path)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes()?, file.clone());
    let mut builder = builder.with_row_groups(vec![group]).with_batch_size(1024);
    if let Some(row) = row {
        let selected = vec![RowSelector::skip(row), RowSelector::select(1)];
        builder = builder.with_row_selection(RowSelection::from(selected));
    }
    if let Some(tensors) = tensors {
        builder = builder.with_projection(tensors.others(file));
    }
    let open = |leaf: TensorLeaf| leaf.open(bytes()?, file, group, row.unwrap_or(0), path);
    let mut tensors = tensors.map(open).transpose()?;
    let mut rows = Vec::new();
    for batch in builder.build().map_err(|e| unparsable(path, e.to_string()))? {
        let batch = batch.map_err(|e| unparsable(path, e.to_string()))?;
        let tensors = tensors.as_mut().map(|column| column.take(batch.num_rows(), path)).transpose()?;
        rows.extend(R::decode(&Columns::new(&batch, path).with_tensors(tensors))?);
    }
    Ok(rows)
}

/// Kind, schema version and key in a file's metadata must be those expected.
pub(crate) fn check_metadata(
    metadata: &BTreeMap<String, String>,
    kind: ArtifactKind,
    path: &Path,
    key: Option<&Key>,
) -> Result<(), Error> {
    let found = |field: &str| metadata.get(field).map_or("nothing", String::as_str);
    let differs = |field: &str, expected: &str| Error::Corrupt {
        path: path.to_owned(),
        field: format!("metadata `{field}`"),
        expected: expected.to_owned(),
        found: found(field).to_owned(),
    };
    if found(metadata::KIND) != kind.name() {
        return Err(differs(metadata::KIND, kind.name()));
    }
    let expected = kind.schema_version();
    if found(metadata::SCHEMA) != expected.to_string() {
        return Err(Error::SchemaVersion {
            path: path.to_owned(),
            kind,
            expected,
            found: found(metadata::SCHEMA).to_owned(),
        });
    }
    match key {
        Some(key) if found(metadata::KEY) != key.as_str() => Err(differs(metadata::KEY, key.as_str())),
        _ => Ok(()),
    }
}

/// The key-value pairs of a file, without those of other writers.
pub(crate) fn key_values(file: &FileMetaData) -> BTreeMap<String, String> {
    let pairs = file.key_value_metadata().into_iter().flatten();
    pairs
        .filter(|pair| pair.key.starts_with("flier."))
        .filter_map(|pair| pair.value.clone().map(|value| (pair.key.clone(), value)))
        .collect()
}

/// A JSON list in the metadata; empty if the key is absent.
fn json_field<T: serde::de::DeserializeOwned>(
    metadata: &BTreeMap<String, String>,
    key: &str,
    path: &Path,
) -> Result<Vec<T>, Error> {
    let Some(text) = metadata.get(key) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|e| unparsable(path, format!("metadata `{key}`: {e}")))
}

pub(crate) fn unparsable(path: &Path, reason: String) -> Error {
    Error::Unparsable { path: path.to_owned(), reason }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the parser panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}

/// Class names and tensor shape of a file, without its rows.
pub(crate) fn describe(
    bytes: Vec<u8>,
    path: &Path,
    kind: ArtifactKind,
    key: &Key,
) -> Result<(Vec<String>, Vec<usize>), Error> {
    let parse = || {
        let bytes = bytes::Bytes::from(bytes);
        thrift::check_footer(&bytes, path)?;
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| unparsable(path, e.to_string()))?;
        let metadata = key_values(builder.metadata().file_metadata());
        check_metadata(&metadata, kind, path, Some(key))?;
        let class_names = json_field(&metadata, metadata::CLASS_NAMES, path)?;
        Ok((class_names, json_field(&metadata, metadata::TENSOR_SHAPE, path)?))
    };
    catch_unwind(AssertUnwindSafe(parse))
        .unwrap_or_else(|panic| Err(unparsable(path, panic_text(panic.as_ref()))))
}

/// Class names and labels of the rows of a verified file, reading only `columns`: the label and, for shot lists, the
/// split, of which only `train` counts.
pub(crate) fn labels(
    path: &Path,
    kind: ArtifactKind,
    columns: &[&str],
) -> Result<(Vec<String>, Vec<u32>), Error> {
    let parse = || {
        let file = std::fs::File::open(path).map_err(|e| Error::read(path, e))?;
        thrift::check_footer(&file, path)?;
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unparsable(path, e.to_string()))?;
        let metadata = key_values(builder.metadata().file_metadata());
        check_metadata(&metadata, kind, path, None)?;
        let class_names = json_field(&metadata, metadata::CLASS_NAMES, path)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let reader = builder.with_projection(mask).build().map_err(|e| unparsable(path, e.to_string()))?;
        let mut labels = Vec::new();
        for batch in reader {
            let batch = batch.map_err(|e| unparsable(path, e.to_string()))?;
            let found = Columns::new(&batch, path);
            let mut label = found.optional_labels(columns[0])?;
            let mut split = columns.get(1).map(|name| found.text(name)).transpose()?;
            let counted = found.rows(|| {
                let counts = split.as_mut().is_none_or(|s| s.take() == "train");
                label.take().filter(|_| counts)
            });
            labels.extend(counted.into_iter().flatten());
        }
        Ok((class_names, labels))
    };
    catch_unwind(AssertUnwindSafe(parse))
        .unwrap_or_else(|panic| Err(unparsable(path, panic_text(panic.as_ref()))))
}
