//! Single rows of a part, without the rest of it.

use std::fs::File;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use pipeline_spec::{Key, PartRecord};

use crate::parquet_file::{check_metadata, decode_rows, key_values, panic_text, unparsable};
use crate::{Error, Row, thrift};

/// A part of which single rows are read: its digest was checked once, and a row costs the pages that hold it.
#[derive(Debug)]
pub struct RowReader<R> {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
    /// Rows before each row group.
    starts: Vec<u64>,
    num_rows: u64,
    rows: PhantomData<fn() -> R>,
}

impl<R: Row> RowReader<R> {
    /// Opens the part in `folder` that `part` describes, after its length and BLAKE3 were checked.
    ///
    /// # Errors
    ///
    /// Fails if the file differs from `part`, names another kind, schema version or key, or cannot be parsed.
    pub fn open(folder: &Path, part: &PartRecord, key: &Key) -> Result<Self, Error> {
        part.verify(folder)?;
        let path = folder.join(&part.file);
        let file = File::open(&path).map_err(|e| Error::read(&path, e))?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        thrift::check_footer(&file, &path)?;
        let metadata = guarded(&path, || {
            ArrowReaderMetadata::load(&file, options).map_err(|e| unparsable(&path, e.to_string()))
        })?;
        let parquet = metadata.metadata();
        check_metadata(&key_values(parquet.file_metadata()), R::KIND, &path, Some(key))?;
        let mut starts = Vec::with_capacity(parquet.num_row_groups());
        let mut num_rows = 0_u64;
        for group in parquet.row_groups() {
            starts.push(num_rows);
            num_rows += u64::try_from(group.num_rows())
                .map_err(|_| unparsable(&path, format!("a row group has {} rows", group.num_rows())))?;
        }
        if num_rows != part.rows {
            let (expected, found) = (part.rows.to_string(), num_rows.to_string());
            return Err(Error::Corrupt { path, field: "row count".to_owned(), expected, found });
        }
        Ok(Self { path, file, metadata, starts, num_rows, rows: PhantomData })
    }

    /// Rows of the part.
    pub fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Row `index` of the part; `None` beyond its end.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed, or the row holds a value that its kind forbids.
    pub fn row(&self, index: u64) -> Result<Option<R>, Error> {
        if index >= self.num_rows {
            return Ok(None);
        }
        let group = self.starts.partition_point(|&start| start <= index) - 1;
        let before = usize::try_from(index - self.starts[group]).unwrap_or(usize::MAX);
        guarded(&self.path, || {
            let file = || self.file.try_clone().map_err(|e| Error::read(&self.path, e));
            Ok(decode_rows::<R, _>(file, &self.metadata, group, Some(before), &self.path)?.pop())
        })
    }
}

/// Runs `parse`; a panic of the parser becomes an error.
fn guarded<T>(path: &Path, parse: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(parse))
        .unwrap_or_else(|panic| Err(unparsable(path, panic_text(panic.as_ref()))))
}
