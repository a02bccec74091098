//! Artifacts on disk: rows as Arrow tables in Parquet files, and how they are published, read and verified.
//!
//! One file per artifact kind in [`schema`] says which columns there are; plain structs go in and come out, no Arrow
//! type does. A part is written under a temporary name, synced, read back and renamed without replacing; the record
//! `artifact.json` is written last. A reader checks length and BLAKE3 of a part *before* it parses it, because Parquet
//! readers return wrong values for flipped bits without an error.
//!
//! ```no_run
//! use artifacts::{ArtifactReader, ArtifactWriter, FileContext, Outcome, PromptRow, SchemaInfo, Shard};
//! # fn stage(store: pipeline_spec::Store, unit: pipeline_spec::Unit, rows: Vec<PromptRow>) -> Result<(), artifacts::Error> {
//! let started = std::time::Instant::now();
//! let writer = ArtifactWriter::open(&store, &unit, 1, FileContext::new(env!("CARGO_PKG_VERSION")))?;
//! let info = SchemaInfo { class_names: vec!["cat".to_owned(), "dog".to_owned()], ..SchemaInfo::default() };
//! for part in writer.missing_parts(Shard::default()) {
//!     writer.write_part(part, &rows, &info)?;
//! }
//! if let Outcome::Finished(record) = writer.finish("none", started)? {
//!     let reader = ArtifactReader::open(&store, &record.id)?;
//!     assert_eq!(reader.rows::<PromptRow>()?.len() as u64, record.rows);
//! }
//! # Ok(())
//! # }
//! ```

mod codec;
mod column;
pub mod docs;

pub mod error;
pub mod image_table;
mod metadata;
mod parquet_file;
mod publish;
pub mod reader;
pub mod row_reader;
pub mod schema;
pub mod shard;
mod tensor_column;
mod thrift;
pub mod verify;
pub mod writer;

pub use error::Error;
pub use metadata::{FileContext, SchemaInfo};
pub use reader::{ArtifactReader, Part, read_part};
pub use row_reader::RowReader;
pub use schema::{
    FeatureRow, FewshotRow, ImageFile, ImageRow, LatentRow, MetricRow, ModelAnswer, PredictionRow, PromptRow,
    Row, false_colors, round_to_f16,
};
pub use shard::Shard;
pub use verify::verify;
pub use writer::{ArtifactWriter, Conflict, FileSource, Outcome};
