//! The columns of a kind as Arrow fields, Parquet properties and Hugging Face features.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use serde_json::{Value, json};

use crate::SchemaInfo;

/// Key under which Hugging Face `datasets` keeps its features in an Arrow schema.
pub(crate) const HUGGING_FACE: &str = "huggingface";

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Text.
    Text,
    /// Unsigned 32-bit integer.
    UInt32,
    /// Unsigned 64-bit integer.
    UInt64,
    /// 32-bit float.
    Float32,
    /// 64-bit float.
    Float64,
    /// Class index; int64 because `datasets.ClassLabel` is.
    ClassLabel,
    /// One tensor of the part's shape, row-major.
    Tensor,
    /// Struct of encoded bytes and file name, as `datasets.Image`.
    Image,
}

/// One column of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub ty: ColumnType,
    /// Whether a row may have no value; Arrow's own flag is always nullable, see [`schema`].
    pub optional: bool,
    /// Whether the column is left out of a part in which no row has a value, as are columns that came after the first
    /// version of the schema; a part without it is read as null in every row.
    pub sparse: bool,
    /// Meaning, for `docs/artifacts.md`.
    pub doc: &'static str,
}

/// A column that has a value in every row.
pub(crate) const fn required(name: &'static str, ty: ColumnType, doc: &'static str) -> Column {
    Column { name, ty, optional: false, sparse: false, doc }
}

/// A column that may be null.
pub(crate) const fn optional(name: &'static str, ty: ColumnType, doc: &'static str) -> Column {
    Column { name, ty, optional: true, sparse: false, doc }
}

/// A column that may be null, and is left out of a part in which it is null in every row.
pub(crate) const fn sparse(name: &'static str, ty: ColumnType, doc: &'static str) -> Column {
    Column { name, ty, optional: true, sparse: true, doc }
}

/// The child of a tensor column; other readers expect the name `element`.
fn element() -> Field {
    Field::new("element", DataType::Float32, true)
}

/// Fields of an image struct.
pub(crate) fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

impl ColumnType {
    /// Arrow type; `numel` is the number of elements of one tensor.
    pub(crate) fn data_type(self, numel: usize) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::UInt32 => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::ClassLabel => DataType::Int64,
            Self::Tensor => {
                DataType::FixedSizeList(Arc::new(element()), i32::try_from(numel).unwrap_or(i32::MAX))
            }
            Self::Image => DataType::Struct(image_fields()),
        }
    }

    /// Feature of Hugging Face `datasets`.
    fn feature(self, info: &SchemaInfo) -> Value {
        let value = |dtype: &str| json!({ "dtype": dtype, "_type": "Value" });
        match self {
            Self::Text => value("string"),
            Self::UInt32 => value("uint32"),
            Self::UInt64 => value("uint64"),
            Self::Float32 => value("float32"),
            Self::Float64 => value("float64"),
            Self::ClassLabel => json!({ "names": info.class_names, "_type": "ClassLabel" }),
            Self::Tensor => json!({
                "feature": value("float32"),
                "length": info.tensor_shape.iter().product::<usize>(),
                "_type": "List",
            }),
            Self::Image => json!({ "_type": "Image" }),
        }
    }
}

/// Arrow schema of a kind.
///
/// Every field is nullable: Hugging Face `datasets` ignores its features where nullability differs, so missing values
/// are refused by this crate instead. The features go into the schema metadata, the only place where `datasets` looks.
pub(crate) fn schema(columns: &[Column], info: &SchemaInfo) -> Schema {
    let numel = info.tensor_shape.iter().product();
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| {
            let field = Field::new(column.name, column.ty.data_type(numel), true);
            if column.ty == ColumnType::Tensor {
                field.with_metadata(HashMap::from([(
                    "shape".to_owned(),
                    json!(info.tensor_shape).to_string(),
                )]))
            } else {
                field
            }
        })
        .collect();
    let features: serde_json::Map<String, Value> =
        columns.iter().map(|c| (c.name.to_owned(), c.ty.feature(info))).collect();
    let huggingface = json!({ "info": { "features": features } }).to_string();
    Schema::new(fields).with_metadata(HashMap::from([(HUGGING_FACE.to_owned(), huggingface)]))
}

/// Parquet settings of a kind: format version 1 pages, page index, and per column the encoding that suits it.
///
/// `sorted_by` names the columns by which the rows are sorted, if they are.
pub(crate) fn writer_properties(
    columns: &[Column],
    metadata: &BTreeMap<String, String>,
    rows_per_group: usize,
    sorted_by: Option<&[&str]>,
) -> WriterProperties {
    let zstd = |level| {
        ZstdLevel::try_new(level).map(Compression::ZSTD).unwrap_or(Compression::ZSTD(ZstdLevel::default()))
    };
    let pairs = metadata.iter().map(|(k, v)| KeyValue::new(k.clone(), v.clone())).collect();
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(zstd(3))
        .set_max_row_group_row_count(Some(rows_per_group.max(1)))
        .set_data_page_size_limit(1 << 20)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_bloom_filter_enabled(false)
        .set_key_value_metadata(Some(pairs))
        .set_sorting_columns(sorted_by.map(|names| sorting_columns(columns, names)));
    for column in columns {
        match column.ty {
            ColumnType::Tensor => {
                let path = ColumnPath::new([column.name, "list", "element"].map(str::to_owned).to_vec());
                builder = builder
                    .set_column_compression(path.clone(), zstd(1))
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_statistics_enabled(path.clone(), EnabledStatistics::None)
                    .set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT);
            }
            ColumnType::Image => {
                let path = ColumnPath::new([column.name, "bytes"].map(str::to_owned).to_vec());
                builder = builder
                    .set_column_compression(path.clone(), Compression::UNCOMPRESSED)
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_statistics_enabled(path, EnabledStatistics::None);
            }
            _ => {}
        }
    }
    builder.build()
}

/// Leaf indices of the columns by which rows are sorted, ascending, nulls first.
fn sorting_columns(columns: &[Column], names: &[&str]) -> Vec<SortingColumn> {
    let leaf_of = |name: &str| {
        let before = columns.iter().take_while(|c| c.name != name);
        before.map(|c| if c.ty == ColumnType::Image { 2 } else { 1 }).sum()
    };
    names
        .iter()
        .map(|name| SortingColumn { column_idx: leaf_of(name), descending: false, nulls_first: true })
        .collect()
}
