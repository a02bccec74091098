//! Typed conversion between rows and Arrow arrays. Private: no Arrow type leaves this crate.

use std::cell::Cell;
use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, FixedSizeListArray, Float32Array, Float64Array, Int64Array,
    RecordBatch, StringArray, StructArray, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field};
use pipeline_spec::ArtifactKind;

use crate::column::{Column, image_fields};
use crate::tensor_column;
use crate::{Error, ImageFile, SchemaInfo};

/// A row type with its columns and its conversion.
pub trait RowCodec: Sized + Send + Sync + 'static {
    /// Kind of the artifacts that hold such rows.
    const KIND: ArtifactKind;
    #[doc(hidden)]
    const COLUMNS: &'static [Column];
    /// Columns by which a part should be sorted.
    const SORTED_BY: &'static [&'static str];

    /// Order by [`Self::SORTED_BY`].
    fn order(a: &Self, b: &Self) -> Ordering;
    /// What must be unique in a part.
    fn identity(&self) -> String;
    /// Class for which the row stands.
    fn class(&self) -> Option<u32>;
    /// About how many bytes the row takes.
    fn size_hint(&self) -> usize;
    /// Whether the row has a value in the sparse column `name`.
    #[doc(hidden)]
    fn fills(&self, _name: &str) -> bool {
        false
    }
    #[doc(hidden)]
    fn check(&self, info: &SchemaInfo) -> Result<(), Fault>;
    #[doc(hidden)]
    fn encode(rows: &[Self], numel: usize) -> Vec<ArrayRef>;
    #[doc(hidden)]
    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, Error>;
}

/// Why a row must not be written.
#[derive(Debug)]
pub struct Fault {
    pub column: &'static str,
    pub problem: String,
}

impl Fault {
    pub(crate) fn new(column: &'static str, problem: impl Into<String>) -> Self {
        Self { column, problem: problem.into() }
    }
}

/// `text` must not be empty.
pub(crate) fn check_filled(column: &'static str, text: &str) -> Result<(), Fault> {
    if text.is_empty() { Err(Fault::new(column, "is empty, expected text")) } else { Ok(()) }
}

/// `value` must be a number.
pub(crate) fn check_finite(column: &'static str, value: f64) -> Result<(), Fault> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(Fault::new(column, format!("is {value}, expected a finite number")))
    }
}

/// `label` must be a class, and `name` its name.
pub(crate) fn check_class(
    column: &'static str,
    label: u32,
    name_column: &'static str,
    name: Option<&str>,
    info: &SchemaInfo,
) -> Result<(), Fault> {
    let Some(expected) = info.class_names.get(label as usize) else {
        let problem =
            format!("is {label}, expected a label below the number of classes, {}", info.class_names.len());
        return Err(Fault::new(column, problem));
    };
    match name {
        Some(name) if name != expected => Err(Fault::new(
            name_column,
            format!("is `{name}`, expected `{expected}`, the name of class {label}"),
        )),
        _ => Ok(()),
    }
}

/// `values` must have the length of the tensor shape and be finite.
pub(crate) fn check_tensor(column: &'static str, values: &[f32], info: &SchemaInfo) -> Result<(), Fault> {
    let numel: usize = info.tensor_shape.iter().product();
    if values.len() != numel {
        let problem =
            format!("has {} values, expected {numel} (shape {:?})", values.len(), info.tensor_shape);
        return Err(Fault::new(column, problem));
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(Fault::new(column, format!("is {} at index {i}, expected finite values", values[i]))),
        None => Ok(()),
    }
}

/// An image must have bytes of a known format and a file name.
pub(crate) fn check_image(column: &'static str, bytes: &[u8], path: &str) -> Result<(), Fault> {
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
    const JPEG: &[u8] = b"\xff\xd8\xff";
    if path.is_empty() {
        return Err(Fault::new(column, "has no file name"));
    }
    if !bytes.starts_with(PNG) && !bytes.starts_with(JPEG) {
        let head: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let problem = format!("`{path}` starts with `{}`, expected a PNG or JPEG file", head.join(" "));
        return Err(Fault::new(column, problem));
    }
    Ok(())
}

/// Text without nulls.
pub(crate) fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Text with nulls.
pub(crate) fn optional_text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

/// Labels as int64.
pub(crate) fn labels(values: impl Iterator<Item = Option<u32>>) -> ArrayRef {
    Arc::new(values.map(|v| v.map(i64::from)).collect::<Int64Array>())
}

/// 32-bit integers.
pub(crate) fn uint32(values: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(values))
}

/// 32-bit integers with nulls.
pub(crate) fn optional_uint32(values: impl Iterator<Item = Option<u32>>) -> ArrayRef {
    Arc::new(values.collect::<UInt32Array>())
}

/// 64-bit integers.
pub(crate) fn uint64(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values))
}

/// 64-bit integers with nulls.
pub(crate) fn optional_uint64(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.collect::<UInt64Array>())
}

/// 32-bit floats.
pub(crate) fn float32(values: impl Iterator<Item = f32>) -> ArrayRef {
    Arc::new(Float32Array::from_iter_values(values))
}

/// 32-bit floats with nulls.
pub(crate) fn optional_float32(values: impl Iterator<Item = Option<f32>>) -> ArrayRef {
    Arc::new(values.collect::<Float32Array>())
}

/// 64-bit floats.
pub(crate) fn float64(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

/// Tensors of `numel` elements each; their lengths were checked.
pub(crate) fn tensor<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, numel: usize) -> ArrayRef {
    let mut values = Vec::with_capacity(rows.len() * numel);
    rows.for_each(|row| values.extend_from_slice(row));
    let size = i32::try_from(numel).expect("the tensor shape was checked against i32");
    let element = Arc::new(Field::new("element", DataType::Float32, true));
    Arc::new(FixedSizeListArray::new(element, size, Arc::new(Float32Array::from(values)), None))
}

/// Images as a struct of bytes and file name.
pub(crate) fn image<'a>(files: impl Iterator<Item = (&'a [u8], &'a str)>) -> ArrayRef {
    let (bytes, paths): (Vec<&[u8]>, Vec<&str>) = files.unzip();
    // As large as it has to be from the start: images are most of a row group.
    let mut builder = BinaryBuilder::with_capacity(bytes.len(), bytes.iter().map(|b| b.len()).sum());
    bytes.iter().for_each(|bytes| builder.append_value(bytes));
    let arrays: Vec<ArrayRef> = vec![Arc::new(builder.finish()), Arc::new(StringArray::from(paths))];
    Arc::new(StructArray::new(image_fields(), arrays, None::<NullBuffer>))
}

/// The values of one column, in row order.
pub struct Values<T>(std::vec::IntoIter<T>);

impl<T> Values<T> {
    /// The value of the next row.
    pub(crate) fn take(&mut self) -> T {
        self.0.next().expect("a column of a record batch has a value for every row")
    }
}

/// The columns of a batch that was read, with typed access by name. Columns that are not asked for are ignored.
pub struct Columns<'a> {
    batch: &'a RecordBatch,
    tensors: Cell<Option<Vec<Vec<f32>>>>,
    path: &'a Path,
}

impl<'a> Columns<'a> {
    /// The columns of `batch`, which came from the file `path`.
    pub(crate) fn new(batch: &'a RecordBatch, path: &'a Path) -> Self {
        Self { batch, tensors: Cell::new(None), path }
    }

    /// With the tensors of the same rows, which no batch has.
    pub(crate) fn with_tensors(self, tensors: Option<Vec<Vec<f32>>>) -> Self {
        Self { tensors: Cell::new(tensors), ..self }
    }

    /// One row for each row of the batch.
    pub(crate) fn rows<R>(&self, mut next: impl FnMut() -> R) -> Vec<R> {
        (0..self.batch.num_rows()).map(|_| next()).collect()
    }

    /// Text that is never null.
    pub(crate) fn text(&self, name: &str) -> Result<Values<String>, Error> {
        let array = self.complete::<StringArray>(name, "text")?;
        Ok(values(array.iter().flatten().map(str::to_owned)))
    }

    /// Text that may be null.
    pub(crate) fn optional_text(&self, name: &str) -> Result<Values<Option<String>>, Error> {
        let array = self.typed::<StringArray>(name, "text")?;
        Ok(values(array.iter().map(|v| v.map(str::to_owned))))
    }

    /// Text of a sparse column: null in every row if the part lacks the column.
    pub(crate) fn sparse_text(&self, name: &str) -> Result<Values<Option<String>>, Error> {
        if self.lacks(name) { Ok(self.nulls()) } else { self.optional_text(name) }
    }

    /// 64-bit integers of a sparse column: null in every row if the part lacks the column.
    pub(crate) fn sparse_uint64(&self, name: &str) -> Result<Values<Option<u64>>, Error> {
        if self.lacks(name) {
            return Ok(self.nulls());
        }
        Ok(values(self.typed::<UInt64Array>(name, "uint64")?.iter()))
    }

    fn lacks(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_none()
    }

    fn nulls<T>(&self) -> Values<Option<T>> {
        values((0..self.batch.num_rows()).map(|_| None))
    }

    /// Labels that are never null.
    pub(crate) fn labels(&self, name: &str) -> Result<Values<u32>, Error> {
        self.complete::<Int64Array>(name, "int64")?;
        let labels = self.optional_labels(name)?;
        Ok(values(labels.0.flatten()))
    }

    /// Labels that may be null.
    pub(crate) fn optional_labels(&self, name: &str) -> Result<Values<Option<u32>>, Error> {
        let array = self.typed::<Int64Array>(name, "int64")?;
        let label = |v: i64| {
            u32::try_from(v).map_err(|_| self.fault(name, format!("holds {v}, expected a label >= 0")))
        };
        let labels = array.iter().map(|v| v.map(label).transpose()).collect::<Result<Vec<_>, _>>()?;
        Ok(values(labels.into_iter()))
    }

    /// 32-bit integers that are never null.
    pub(crate) fn uint32(&self, name: &str) -> Result<Values<u32>, Error> {
        Ok(values(self.complete::<UInt32Array>(name, "uint32")?.values().iter().copied()))
    }

    /// 32-bit integers that may be null.
    pub(crate) fn optional_uint32(&self, name: &str) -> Result<Values<Option<u32>>, Error> {
        Ok(values(self.typed::<UInt32Array>(name, "uint32")?.iter()))
    }

    /// 64-bit integers that are never null.
    pub(crate) fn uint64(&self, name: &str) -> Result<Values<u64>, Error> {
        Ok(values(self.complete::<UInt64Array>(name, "uint64")?.values().iter().copied()))
    }

    /// 32-bit floats that are never null.
    pub(crate) fn float32(&self, name: &str) -> Result<Values<f32>, Error> {
        Ok(values(self.complete::<Float32Array>(name, "float32")?.values().iter().copied()))
    }

    /// 32-bit floats of a sparse column: null in every row if the part lacks the column.
    pub(crate) fn sparse_float32(&self, name: &str) -> Result<Values<Option<f32>>, Error> {
        if self.lacks(name) {
            return Ok(self.nulls());
        }
        Ok(values(self.typed::<Float32Array>(name, "float32")?.iter()))
    }

    /// 64-bit floats that are never null.
    pub(crate) fn float64(&self, name: &str) -> Result<Values<f64>, Error> {
        Ok(values(self.complete::<Float64Array>(name, "float64")?.values().iter().copied()))
    }

    /// Tensors without nulls, each as its elements; they can be taken once.
    pub(crate) fn tensor(&self, name: &str) -> Result<Values<Vec<f32>>, Error> {
        let missing = || self.fault(name, format!("is missing, expected {}", tensor_column::EXPECTED));
        Ok(values(self.tensors.take().ok_or_else(missing)?.into_iter()))
    }

    /// Images without nulls.
    pub(crate) fn image(&self, name: &str) -> Result<Values<ImageFile>, Error> {
        let expected = "a struct of `bytes` and `path`";
        let structs = self.complete::<StructArray>(name, expected)?;
        let fault = || self.fault(name, format!("has type `{}`, expected {expected}", structs.data_type()));
        let field = |field| structs.column_by_name(field).ok_or_else(fault);
        let (bytes, paths) = (field("bytes")?, field("path")?);
        let bytes = bytes.as_any().downcast_ref::<BinaryArray>().ok_or_else(fault)?;
        let paths = paths.as_any().downcast_ref::<StringArray>().ok_or_else(fault)?;
        if bytes.null_count() + paths.null_count() > 0 {
            return Err(self.fault(name, "has null bytes or paths, expected both in every row"));
        }
        let files = bytes.iter().flatten().zip(paths.iter().flatten());
        Ok(values(files.map(|(bytes, path)| ImageFile { bytes: bytes.to_vec(), path: path.to_owned() })))
    }

    /// A column of the expected type without nulls.
    fn complete<A: Array + 'static>(&self, name: &str, expected: &str) -> Result<&A, Error> {
        let array = self.typed::<A>(name, expected)?;
        match (0..array.len()).find(|&i| array.is_null(i)) {
            Some(row) => {
                Err(self.fault(name, format!("is null in row {row}, expected a value in every row")))
            }
            None => Ok(array),
        }
    }

    /// A column of the expected type.
    fn typed<A: Array + 'static>(&self, name: &str, expected: &str) -> Result<&A, Error> {
        let array = self
            .batch
            .column_by_name(name)
            .ok_or_else(|| self.fault(name, format!("is missing, expected {expected}")))?;
        array
            .as_any()
            .downcast_ref::<A>()
            .ok_or_else(|| self.fault(name, format!("has type `{}`, expected {expected}", array.data_type())))
    }

    fn fault(&self, column: &str, problem: impl Into<String>) -> Error {
        Error::Column { path: self.path.to_owned(), column: column.to_owned(), problem: problem.into() }
    }
}

/// Collects the values of a column.
fn values<T>(iterator: impl Iterator<Item = T>) -> Values<T> {
    Values(iterator.collect::<Vec<T>>().into_iter())
}
