//! Images of Parquet files that others wrote: an image column of struct `{bytes, path}` or bytes, and a class column,
//! as Hugging Face `datasets` keeps them.
//!
//! These files have no digest that could be checked before they are parsed, so a panic of the parser is caught.

use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};

use crate::Error;
use crate::column::HUGGING_FACE;
use crate::parquet_file::{panic_text, unparsable};
use crate::thrift::check_footer;

/// Rows that are decoded at a time where images are read.
const IMAGES_PER_BATCH: usize = 64;

/// What a row says beside its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// File name of the image, where the column keeps one.
    pub path: Option<String>,
    /// Its class, where a class column was asked for.
    pub class: Option<CellClass>,
}

/// A value of a class column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellClass {
    /// An integer label.
    Label(i64),
    /// A name.
    Name(String),
}

/// File name and class of every row; no image is read.
///
/// # Errors
///
/// Fails if the file cannot be read or parsed, or lacks a column.
pub fn cells(path: &Path, image_column: &str, class_column: Option<&str>) -> Result<Vec<Cell>, Error> {
    guarded(path, || {
        let builder = open(path)?;
        let schema = builder.parquet_schema();
        let image = format!("{image_column}.path");
        let leaf = |name: &str| schema.columns().iter().position(|c| c.path().string() == name);
        let has_column = |name: &str| schema.columns().iter().any(|c| c.path().parts()[0] == name);
        for column in [Some(image_column), class_column].into_iter().flatten() {
            if !has_column(column) {
                let names = builder.schema().fields().iter().map(|f| format!("`{}`", f.name()));
                let problem = format!("is missing; the file has {}", names.collect::<Vec<_>>().join(", "));
                return Err(Error::Column { path: path.into(), column: column.to_owned(), problem });
            }
        }
        let leaves: Vec<usize> = [leaf(&image), class_column.and_then(leaf)].into_iter().flatten().collect();
        let num_rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let mut cells = vec![Cell { path: None, class: None }; if leaves.is_empty() { num_rows } else { 0 }];
        if leaves.is_empty() {
            return Ok(cells);
        }
        let mask = ProjectionMask::leaves(schema, leaves);
        let reader = builder.with_projection(mask).build().map_err(|e| unparsable(path, e.to_string()))?;
        for batch in reader {
            let batch = batch.map_err(|e| unparsable(path, e.to_string()))?;
            let paths = batch
                .column_by_name(image_column)
                .map(|image| texts(path, image_column, image.as_struct().column(0)))
                .transpose()?;
            let classes = class_column.map(|column| classes(path, column, &batch)).transpose()?;
            for row in 0..batch.num_rows() {
                cells.push(Cell {
                    path: paths.as_ref().and_then(|p| p[row].clone()),
                    class: classes.as_ref().and_then(|c| c[row].clone()),
                });
            }
        }
        Ok(cells)
    })
}

/// Names of the `datasets.ClassLabel` of a column, if the file has them.
///
/// # Errors
///
/// Fails if the file cannot be read or parsed.
pub fn class_names(path: &Path, class_column: &str) -> Result<Option<Vec<String>>, Error> {
    guarded(path, || {
        let builder = open(path)?;
        let Some(json) = builder.schema().metadata().get(HUGGING_FACE) else { return Ok(None) };
        let json: serde_json::Value = serde_json::from_str(json)
            .map_err(|e| unparsable(path, format!("metadata `{HUGGING_FACE}`: {e}")))?;
        let names = &json["info"]["features"][class_column]["names"];
        let names = names.as_array().map(|n| n.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        Ok(names.flatten())
    })
}

/// Bytes of the images in the rows `wanted` (ascending).
///
/// # Errors
///
/// Fails if the file cannot be read or parsed, lacks the column or a row, or an image is null or has more than
/// `max_bytes`.
pub fn images(
    path: &Path,
    image_column: &str,
    wanted: &[usize],
    max_bytes: u64,
) -> Result<Vec<Vec<u8>>, Error> {
    let bad = |problem: String| Error::Column { path: path.into(), column: image_column.to_owned(), problem };
    guarded(path, || {
        let builder = open(path)?;
        let schema = builder.parquet_schema();
        let num_rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        if let Some(missing) = wanted.iter().find(|row| **row >= num_rows) {
            return Err(bad(format!("has no row {missing}; the file has {num_rows} rows")));
        }
        let names = [image_column.to_owned(), format!("{image_column}.bytes")];
        let leaf = schema.columns().iter().position(|c| names.contains(&c.path().string()));
        let Some(leaf) = leaf else {
            return Err(bad("is missing, or is neither bytes nor a struct with `bytes`".to_owned()));
        };
        let mask = ProjectionMask::leaves(schema, [leaf]);
        let ranges = wanted.iter().map(|&row| Range { start: row, end: row + 1 });
        let selection = RowSelection::from_consecutive_ranges(ranges, num_rows);
        let reader = builder
            .with_projection(mask)
            .with_row_selection(selection)
            .with_batch_size(IMAGES_PER_BATCH)
            .build()
            .map_err(|e| unparsable(path, e.to_string()))?;
        let mut images = Vec::with_capacity(wanted.len());
        for batch in reader {
            let batch = batch.map_err(|e| unparsable(path, e.to_string()))?;
            let column = batch.column(0);
            let column = column.as_struct_opt().map_or(column, |image| image.column(0));
            for row in 0..column.len() {
                let at = wanted.get(images.len()).copied().unwrap_or_default();
                let bytes = match column.data_type() {
                    _ if column.is_null(row) => return Err(bad(format!("is null in row {at}"))),
                    DataType::Binary => column.as_binary::<i32>().value(row),
                    DataType::LargeBinary => column.as_binary::<i64>().value(row),
                    DataType::BinaryView => column.as_binary_view().value(row),
                    other => return Err(bad(format!("is `{other}`, expected bytes"))),
                };
                if bytes.len() as u64 > max_bytes {
                    let found = bytes.len();
                    return Err(bad(format!("has {found} bytes in row {at}, expected at most {max_bytes}")));
                }
                images.push(bytes.to_vec());
            }
        }
        Ok(images)
    })
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, Error> {
    let file = File::open(path).map_err(|e| Error::read(path, e))?;
    check_footer(&file, path)?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unparsable(path, e.to_string()))
}

fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|panic| Err(unparsable(path, panic_text(panic.as_ref()))))
}

/// The texts of a column; `None` where it is null.
fn texts(path: &Path, name: &str, column: &ArrayRef) -> Result<Vec<Option<String>>, Error> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    match column.data_type() {
        DataType::Utf8 => Ok(column.as_string::<i32>().iter().map(owned).collect()),
        DataType::LargeUtf8 => Ok(column.as_string::<i64>().iter().map(owned).collect()),
        DataType::Utf8View => Ok(column.as_string_view().iter().map(owned).collect()),
        DataType::Null => Ok(vec![None; column.len()]),
        other => {
            let problem = format!("is `{other}`, expected text");
            Err(Error::Column { path: path.into(), column: name.to_owned(), problem })
        }
    }
}

/// The classes of a column; `None` where it is null.
fn classes(path: &Path, name: &str, batch: &RecordBatch) -> Result<Vec<Option<CellClass>>, Error> {
    let bad = |problem: String| Error::Column { path: path.into(), column: name.to_owned(), problem };
    let column = batch.column_by_name(name).ok_or_else(|| bad("is no column of its own".to_owned()))?;
    if !column.data_type().is_integer() {
        return Ok(texts(path, name, column)?.into_iter().map(|t| t.map(CellClass::Name)).collect());
    }
    let labels = arrow::compute::cast(column, &DataType::Int64).map_err(|e| bad(e.to_string()))?;
    Ok(labels.as_primitive::<Int64Type>().iter().map(|label| label.map(CellClass::Label)).collect())
}
