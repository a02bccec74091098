//! Reading an artifact: digest first, then parse.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, mpsc};

use pipeline_spec::{ArtifactId, ArtifactKind, ArtifactRecord, Digest, Key, PartRecord, Store};

use crate::{Error, Row, RowReader, parquet_file};

/// One part that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Part<R> {
    /// The rows in file order.
    pub rows: Vec<R>,
    /// Name of each class, by label; empty for kinds without labels.
    pub class_names: Vec<String>,
    /// Shape of one tensor; empty for kinds without a tensor column.
    pub tensor_shape: Vec<usize>,
    /// The `flier.*` keys of the file.
    pub metadata: BTreeMap<String, String>,
}

/// A finished artifact that is read.
#[derive(Debug)]
pub struct ArtifactReader {
    store: Store,
    record: ArtifactRecord,
    description: OnceLock<(Vec<String>, Vec<usize>)>,
}

impl ArtifactReader {
    /// Opens the artifact `id`.
    ///
    /// # Errors
    ///
    /// Fails if it is not in the store or its record is malformed or contradicts itself. A schema version that this
    /// build does not know cannot be named by an [`ArtifactId`] in the first place.
    pub fn open(store: &Store, id: &ArtifactId) -> Result<Self, Error> {
        let record = store.record(id)?;
        check_record(store, &record)?;
        Ok(Self { store: store.clone(), record, description: OnceLock::new() })
    }

    /// The artifact's record.
    pub fn record(&self) -> &ArtifactRecord {
        &self.record
    }

    /// All rows, in the order of the parts.
    ///
    /// # Errors
    ///
    /// Fails if a part is missing, damaged, of another kind or schema, or holds a value that its kind forbids.
    pub fn rows<R: Row>(&self) -> Result<Vec<R>, Error> {
        let mut rows = Vec::new();
        self.for_each_part(|_, part| {
            rows.extend(part);
            Ok::<(), Error>(())
        })?;
        Ok(rows)
    }

    /// Calls `f` with the record and the rows of each part in turn. Only one part is in memory at a time, beside the bytes of
    /// the next one, which are read and checked meanwhile.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::rows`] does, or with the first error of `f`.
    pub fn for_each_part<R: Row, E: From<Error>>(
        &self,
        mut f: impl FnMut(&PartRecord, Vec<R>) -> Result<(), E>,
    ) -> Result<(), E> {
        let id = &self.record.id;
        if R::KIND != id.kind {
            return Err(Error::Kind { id: Box::new(id.clone()), expected: R::KIND, found: id.kind }.into());
        }
        let folder = self.store.data_dir(id);
        std::thread::scope(|scope| {
            let (sender, checked) = mpsc::sync_channel(0);
            scope.spawn(move || {
                let mut parts =
                    self.record.parts.iter().map(|part| checked_bytes(&folder.join(&part.file), part));
                // Nobody takes them after an error.
                parts.try_for_each(|bytes| sender.send(bytes))
            });
            self.record
                .parts
                .iter()
                .zip(checked)
                .try_for_each(|(part, bytes)| f(part, self.part(part, bytes?)?.rows))
        })
    }

    /// Name of each class, by label, as the first part has them; empty for kinds without labels.
    ///
    /// # Errors
    ///
    /// Fails if that part cannot be read.
    pub fn class_names(&self) -> Result<&[String], Error> {
        Ok(&self.description()?.0)
    }

    /// Shape of one tensor: `[C, H, W]`, `[D]` or `[K]`; empty for kinds without a tensor column.
    ///
    /// # Errors
    ///
    /// Fails if the first part cannot be read.
    pub fn tensor_shape(&self) -> Result<&[usize], Error> {
        Ok(&self.description()?.1)
    }

    /// Shape `[C, H, W]` of one tensor, for `latents`.
    ///
    /// # Errors
    ///
    /// Fails if the first part cannot be read or its tensors have another number of axes.
    pub fn latent_shape(&self) -> Result<[usize; 3], Error> {
        let shape = self.tensor_shape()?;
        <[usize; 3]>::try_from(shape).map_err(|_| Error::Corrupt {
            path: self.store.data_dir(&self.record.id),
            field: "tensor shape".to_owned(),
            expected: "[C, H, W]".to_owned(),
            found: format!("{shape:?}"),
        })
    }

    /// Path of the file `name`, for example `model.safetensors`, after its length and BLAKE3 were checked.
    ///
    /// # Errors
    ///
    /// Fails if the artifact has no such file or the file differs from its record.
    pub fn file_path(&self, name: &str) -> Result<PathBuf, Error> {
        let Some(part) = self.record.parts.iter().find(|p| p.file == name) else {
            let present: Vec<String> = self.record.parts.iter().map(|p| format!("`{}`", p.file)).collect();
            let id = Box::new(self.record.id.clone());
            return Err(Error::NoSuchFile { id, file: name.to_owned(), present: present.join(", ") });
        };
        let folder = self.store.data_dir(&self.record.id);
        part.verify(&folder)?;
        Ok(folder.join(name))
    }

    /// Part `index`, counted from 0, for single rows; its digest is checked now. `None` beyond the last part.
    ///
    /// # Errors
    ///
    /// Fails if the part is missing, damaged, of another kind or schema.
    pub fn open_part<R: Row>(&self, index: usize) -> Result<Option<RowReader<R>>, Error> {
        let id = &self.record.id;
        let Some(part) = self.record.parts.get(index) else { return Ok(None) };
        RowReader::open(&self.store.data_dir(id), part, &id.key).map(Some)
    }

    /// A part with these checked bytes.
    fn part<R: Row>(&self, part: &PartRecord, bytes: Vec<u8>) -> Result<Part<R>, Error> {
        let path = self.store.data_dir(&self.record.id).join(&part.file);
        let read = parse_part(bytes, &path, part, &self.record.id.key)?;
        let (class_names, tensor_shape) =
            self.description.get_or_init(|| (read.class_names.clone(), read.tensor_shape.clone()));
        expect_same(&path, "class names", class_names, &read.class_names)?;
        expect_same(&path, "tensor shape", tensor_shape, &read.tensor_shape)?;
        Ok(read)
    }

    /// Class names and tensor shape, from the first part unless a part was read before.
    fn description(&self) -> Result<&(Vec<String>, Vec<usize>), Error> {
        if let Some(description) = self.description.get() {
            return Ok(description);
        }
        let Some(first) =
            self.record.parts.first().filter(|_| self.record.id.kind != ArtifactKind::Checkpoints)
        else {
            return Ok(self.description.get_or_init(Default::default));
        };
        let path = self.store.data_dir(&self.record.id).join(&first.file);
        let bytes = checked_bytes(&path, first)?;
        let description = parquet_file::describe(bytes, &path, self.record.id.kind, &self.record.id.key)?;
        Ok(self.description.get_or_init(|| description))
    }
}

/// Reads one part in `folder` against its record: length and BLAKE3 are checked before anything is parsed.
///
/// # Errors
///
/// Fails if the file differs from `part`, names another kind, schema version or key, or cannot be parsed.
pub fn read_part<R: Row>(folder: &Path, part: &PartRecord, key: &Key) -> Result<Part<R>, Error> {
    let path = folder.join(&part.file);
    parse_part(checked_bytes(&path, part)?, &path, part, key)
}

fn parse_part<R: Row>(bytes: Vec<u8>, path: &Path, part: &PartRecord, key: &Key) -> Result<Part<R>, Error> {
    let table = parquet_file::decode::<R>(bytes, path, Some(key))?;
    if table.rows.len() as u64 != part.rows {
        let (expected, found) = (part.rows.to_string(), table.rows.len().to_string());
        return Err(Error::Corrupt { path: path.to_owned(), field: "row count".to_owned(), expected, found });
    }
    let parquet_file::Table { rows, class_names, tensor_shape, metadata } = table;
    Ok(Part { rows, class_names, tensor_shape, metadata })
}

/// The bytes of a part if they are those of its record. What is parsed is what was checked: the file is read once.
fn checked_bytes(path: &Path, part: &PartRecord) -> Result<Vec<u8>, Error> {
    let differs = |field: &str, expected: String, found: String| Error::Corrupt {
        path: path.to_owned(),
        field: field.to_owned(),
        expected,
        found,
    };
    let length = std::fs::metadata(path).map_err(|e| Error::read(path, e))?.len();
    if length != part.size_bytes {
        return Err(differs("length", part.size_bytes.to_string(), length.to_string()));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    let digest = Digest::blake3(&bytes);
    if digest != part.blake3 {
        return Err(differs("blake3", part.blake3.to_string(), digest.to_string()));
    }
    Ok(bytes)
}

/// The fields of a record must agree with one another.
fn check_record(store: &Store, record: &ArtifactRecord) -> Result<(), Error> {
    let differs = |field: &str, expected: String, found: String| Error::Corrupt {
        path: store.record_path(&record.id),
        field: format!("field `{field}`"),
        expected,
        found,
    };
    let rows: u64 = record.parts.iter().map(|p| p.rows).fold(0, u64::saturating_add);
    if rows != record.rows {
        return Err(differs("rows", rows.to_string(), record.rows.to_string()));
    }
    let output = record.unit.output();
    // An older CODE_VERSION gave an older key; the artifact stays readable by its name.
    if record.code_version == record.unit.spec.code_version() && output != record.id {
        return Err(differs("unit", record.id.to_string(), output.to_string()));
    }
    Ok(())
}

fn expect_same<T: PartialEq + std::fmt::Debug>(
    path: &Path,
    field: &str,
    first: &[T],
    found: &[T],
) -> Result<(), Error> {
    if first == found {
        return Ok(());
    }
    let (expected, found) = (format!("{first:?}"), format!("{found:?}"));
    Err(Error::Corrupt {
        path: path.to_owned(),
        field: format!("{field} (against another part)"),
        expected,
        found,
    })
}
