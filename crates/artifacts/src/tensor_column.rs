//! The tensors of a row group, each decoded into a vector of its own.
//!
//! Arrow's reader copies the elements twice on their way into rows, of which they are nine tenths: through the buffer of a
//! list array, and out of it. The column itself gives them at once.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::FloatType;
use parquet::errors::ParquetError;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{ChunkReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedRowGroupReader;

use crate::Error;
use crate::column::{Column, ColumnType};
use crate::parquet_file::unparsable;

/// What a tensor column must be.
pub(crate) const EXPECTED: &str = "a fixed-size list of float32";

/// Where the tensors of a file stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorLeaf {
    name: &'static str,
    /// Among the leaves of the schema.
    index: usize,
    /// Elements of one tensor.
    numel: usize,
}

impl TensorLeaf {
    /// That of the tensor column among `columns`; `None` if the kind has none or the file lacks it.
    pub(crate) fn find(
        columns: &[Column],
        file: &ArrowReaderMetadata,
        path: &Path,
    ) -> Result<Option<Self>, Error> {
        let Some(name) = columns.iter().find(|c| c.ty == ColumnType::Tensor).map(|c| c.name) else {
            return Ok(None);
        };
        let Ok(field) = file.schema().field_with_name(name) else { return Ok(None) };
        let numel = match field.data_type() {
            DataType::FixedSizeList(element, size) if element.data_type() == &DataType::Float32 => {
                usize::try_from(*size).unwrap_or(0)
            }
            other => return Err(fault(path, name, format!("has type `{other}`, expected {EXPECTED}"))),
        };
        let leaves = file.metadata().file_metadata().schema_descr();
        let is_its =
            |leaf: &usize| leaves.column(*leaf).path().parts().first().is_some_and(|part| part == name);
        let index = (0..leaves.num_columns()).find(is_its);
        Ok(index.map(|index| Self { name, index, numel }))
    }

    /// All leaves but this one.
    pub(crate) fn others(self, file: &ArrowReaderMetadata) -> ProjectionMask {
        let leaves = file.metadata().file_metadata().schema_descr();
        ProjectionMask::leaves(leaves, (0..leaves.num_columns()).filter(|leaf| *leaf != self.index))
    }

    /// The tensors of row group `group` from row `first` on.
    pub(crate) fn open(
        self,
        bytes: impl ChunkReader + 'static,
        file: &ArrowReaderMetadata,
        group: usize,
        first: usize,
        path: &Path,
    ) -> Result<TensorColumn, Error> {
        let unreadable = |e: ParquetError| unparsable(path, e.to_string());
        let (metadata, pages) =
            (file.metadata().row_group(group), file.metadata().page_index_for_row_group(group));
        let properties = Arc::new(ReaderProperties::builder().build());
        let reader = SerializedRowGroupReader::new(Arc::new(bytes), metadata, pages, properties)
            .map_err(unreadable)?;
        let ColumnReader::FloatColumnReader(mut column) =
            reader.get_column_reader(self.index).map_err(unreadable)?
        else {
            return Err(fault(path, self.name, format!("holds no float32 values, expected {EXPECTED}")));
        };
        column.skip_records(first).map_err(unreadable)?;
        Ok(TensorColumn { leaf: self, column, levels: (Vec::new(), Vec::new()) })
    }
}

/// The tensors of a row group that were not taken yet.
pub(crate) struct TensorColumn {
    leaf: TensorLeaf,
    column: ColumnReaderImpl<FloatType>,
    /// Definition and repetition levels of one tensor.
    levels: (Vec<i16>, Vec<i16>),
}

impl TensorColumn {
    /// The next `num_rows` tensors.
    pub(crate) fn take(&mut self, num_rows: usize, path: &Path) -> Result<Vec<Vec<f32>>, Error> {
        (0..num_rows).map(|row| self.next(row, path)).collect()
    }

    fn next(&mut self, row: usize, path: &Path) -> Result<Vec<f32>, Error> {
        let TensorLeaf { name, numel, .. } = self.leaf;
        let (definition, repetition) = &mut self.levels;
        definition.clear();
        repetition.clear();
        // A damaged schema may say any size.
        let mut elements = Vec::with_capacity(numel.min(1 << 20));
        let read = self.column.read_records(1, Some(definition), Some(repetition), &mut elements);
        let (records, values, levels) = read.map_err(|e| unparsable(path, e.to_string()))?;
        let problem = match (records, values, levels) {
            (1, values, levels) if values == numel && levels == numel => return Ok(elements),
            (0, ..) => format!("ends before row {row}, expected a value in every row"),
            (_, 0, 1) => format!("is null in row {row}, expected a value in every row"),
            (_, values, levels) if values < levels => "has null elements, expected numbers".to_owned(),
            (_, values, _) => format!("has {values} elements in row {row}, expected {numel}"),
        };
        Err(fault(path, name, problem))
    }
}

fn fault(path: &Path, column: &str, problem: String) -> Error {
    Error::Column { path: path.to_owned(), column: column.to_owned(), problem }
}
