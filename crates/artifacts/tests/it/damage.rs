//! Damaged files: each a clear error, none accepted, no panic.

use std::fmt::Debug;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};
use artifacts::{Error, Row, RowReader, SchemaInfo, read_part, verify};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use pipeline_spec::{ArtifactKind, ArtifactRecord, PartRecord};

use crate::rows;
use crate::store::TempStore;

/// A small generator with a fixed seed (xorshift64*), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// A damaged copy of `good`, which differs from it.
fn damaged(good: &[u8], round: usize, random: &mut Random) -> Vec<u8> {
    loop {
        let mut bytes = good.to_vec();
        let length = bytes.len();
        match round % 6 {
            0 => bytes[random.below(length)] ^= 1 << random.below(8),
            1 => bytes[length - 1 - random.below(400.min(length))] = random.below(256) as u8,
            2 => (0..8)
                .for_each(|_| bytes[length - 1 - random.below(400.min(length))] = random.below(256) as u8),
            3 => bytes.truncate(random.below(length)),
            4 => {
                let start = random.below(length);
                let end = (start + 1 + random.below(4096)).min(length);
                bytes[start..end].fill(0);
            }
            _ => bytes.push(random.below(256) as u8),
        }
        if bytes != good {
            return bytes;
        }
    }
}

/// Damaged copies of each kind's part.
const ROUNDS: usize = 1500;
/// Most memory that reading one of them may take beyond what the process held before, in bytes.
const MAX_GROWTH: u64 = 128 << 20;

/// Tries damaged copies of one part: first against its record, then against a record made for the damage.
fn mutate<R: Row + PartialEq + Debug>(rows: &[R], info: &SchemaInfo) {
    let store = TempStore::new();
    let record = store.write(&rows::unit(R::KIND), rows, info);
    let path = store.part(&record);
    let (folder, good) = (path.parent().unwrap(), fs::read(&path).unwrap());
    let reader = store.reader(&record.id);
    let mut random = Random(0x5eed);
    let (before, mut num_read) = (peak_memory(), 0);
    for round in 0..ROUNDS {
        fs::write(&path, damaged(&good, round, &mut random)).unwrap();
        let error = reader.rows::<R>().expect_err("a damaged part is refused");
        let message = error.to_string();
        assert!(
            matches!(error, Error::Corrupt { .. }) && message.contains(&record.parts[0].file),
            "{message}"
        );
        // The digest fits, so the parser sees the damage: it may fail or read other values, but never panics.
        let fitting = PartRecord::measure(folder, &record.parts[0].file, record.rows).unwrap();
        num_read += usize::from(read_part::<R>(folder, &fitting, &record.id.key).is_ok());
        if let Ok(part) = RowReader::<R>::open(folder, &fitting, &record.id.key) {
            let _ = part.row(0);
        }
    }
    let growth = peak_memory() - before;
    assert!(growth < MAX_GROWTH, "{}: {num_read} of {ROUNDS} were read, {growth} bytes more", R::KIND);
    fs::write(path, good).unwrap();
    assert_eq!(reader.rows::<R>().unwrap(), rows);
}

/// The most memory that this process ever held, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes << 10)
}

#[test]
fn ten_thousand_damaged_parts_are_refused_without_a_panic_in_bounded_memory() {
    mutate(&rows::prompts(), &rows::class_info());
    mutate(&rows::latents(), &rows::tensor_info(&[2, 2, 3]));
    mutate(&rows::images(), &rows::class_info());
    mutate(&rows::fewshot(), &rows::class_info());
    mutate(&rows::features(), &rows::tensor_info(&[5]));
    mutate(&rows::predictions(), &rows::tensor_info(&[3]));
    mutate(&rows::metrics(), &SchemaInfo::default());
}

#[test]
fn verify_names_every_damaged_part() {
    let store = TempStore::new();
    let writer = store.writer(&rows::unit(ArtifactKind::Metrics), 3);
    for part in 0..3 {
        writer.write_part(part, &rows::metrics(), &SchemaInfo::default()).unwrap();
    }
    writer.finish("none", std::time::Instant::now()).unwrap();
    verify(&store.store, writer.id()).unwrap();
    let path = |part| store.store.data_dir(writer.id()).join(format!("part-0000{part}-of-00003.parquet"));
    let mut bytes = fs::read(path(0)).unwrap();
    bytes[100] ^= 1;
    fs::write(path(0), bytes).unwrap();
    fs::remove_file(path(2)).unwrap();
    let errors = verify(&store.store, writer.id()).unwrap_err();
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("part-00000-of-00003.parquet`: blake3 differs"), "{messages:?}");
    assert!(messages[1].contains("part-00002-of-00003.parquet"), "{messages:?}");
}

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let store = TempStore::new();
    let record = store.write(&rows::unit(ArtifactKind::Metrics), &rows::metrics(), &SchemaInfo::default());
    let path = store.store.record_path(&record.id);
    let text = fs::read_to_string(&path).unwrap();
    let open = |text: String| {
        fs::write(&path, text).unwrap();
        artifacts::ArtifactReader::open(&store.store, &record.id).unwrap_err().to_string()
    };
    assert!(open(text.replacen("\"rows\": 2", "\"rows\": 3", 1)).contains("field `rows` differs"));
    assert!(
        open(text.replacen("\"run\": \"run-1\"", "\"run\": \"run-2\"", 1)).contains("field `unit` differs")
    );
    assert!(open(text.replace("part-00000", "../part-00000")).contains("is not a plain file name"));
    assert!(open(text[..text.len() / 2].to_owned()).contains("is not a valid artifact record"));
}

/// How a part is rewritten with the Parquet library itself.
#[derive(Default)]
struct Rewrite {
    /// Metadata keys that get another value.
    metadata: Vec<(&'static str, &'static str)>,
    /// A column that becomes null.
    null: Option<&'static str>,
    /// A column with other values.
    replaced: Option<(&'static str, ArrayRef)>,
    /// A column that is left out.
    drop: Option<&'static str>,
    /// Whether a column that nobody knows is added.
    extra: bool,
}

/// Rewrites the first part and makes the record fit it, as a faulty writer would.
fn rewrite(store: &TempStore, record: &ArtifactRecord, change: &Rewrite) -> PartRecord {
    let path = store.part(record);
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
    let mut pairs: Vec<KeyValue> = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap();
    pairs.retain(|p| p.key.starts_with("flier."));
    for (key, value) in &change.metadata {
        pairs.retain(|p| p.key != *key);
        pairs.push(KeyValue::new((*key).to_owned(), (*value).to_owned()));
    }
    let batch = builder.build().unwrap().next().unwrap().unwrap();
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name().as_str();
        if change.drop == Some(name) {
            continue;
        }
        let array = match &change.replaced {
            _ if change.null == Some(name) => new_null_array(array.data_type(), array.len()),
            Some((replaced, other)) if *replaced == name => Arc::clone(other),
            _ => Arc::clone(array),
        };
        columns.push((name.to_owned(), array));
    }
    if change.extra {
        columns.push(("unknown".to_owned(), new_null_array(&DataType::Utf8, batch.num_rows())));
    }
    let fields: Vec<Field> =
        columns.iter().map(|(n, a)| Field::new(n, a.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, a)| a).collect()).unwrap();
    let properties = WriterProperties::builder().set_key_value_metadata(Some(pairs)).build();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    PartRecord::measure(path.parent().unwrap(), &record.parts[0].file, record.rows).unwrap()
}

/// What reading says after the rewrite.
fn read_after<R: Row + Debug>(rows: &[R], info: &SchemaInfo, change: &Rewrite) -> Result<Vec<R>, String> {
    let store = TempStore::new();
    let record = store.write(&rows::unit(R::KIND), rows, info);
    let part = rewrite(&store, &record, change);
    let folder = store.store.data_dir(&record.id);
    read_part::<R>(Path::new(&folder), &part, &record.id.key).map(|p| p.rows).map_err(|e| e.to_string())
}

#[test]
fn wrong_kind_schema_version_and_key_are_refused() {
    let read = |key, value| {
        let change = Rewrite { metadata: vec![(key, value)], ..Rewrite::default() };
        read_after(&rows::prompts(), &rows::class_info(), &change).unwrap_err()
    };
    let message = read("flier.kind", "latents");
    assert!(
        message.contains("metadata `flier.kind` differs: expected `prompts`, found `latents`"),
        "{message}"
    );
    let message = read("flier.schema", "2");
    assert!(message.contains("schema version 2 of `prompts`, this build reads 1"), "{message}");
    let message = read("flier.key", "00000000000000000000000000000000");
    assert!(message.contains("metadata `flier.key` differs"), "{message}");
    let message = read("flier.class_names", "[1]");
    assert!(message.contains("metadata `flier.class_names`"), "{message}");
}

#[test]
fn a_null_is_refused_in_every_column_that_has_none() {
    let null = |column| Rewrite { null: Some(column), ..Rewrite::default() };
    for column in ["class_id", "class_name", "prompt_index", "prompt", "template", "provider", "model"] {
        let message = read_after(&rows::prompts(), &rows::class_info(), &null(column)).unwrap_err();
        assert!(
            message.contains(&format!("column `{column}` is null in row 0, expected a value")),
            "{message}"
        );
    }
    for column in ["latent", "mean", "noise_seed", "image"] {
        let message =
            read_after(&rows::latents(), &rows::tensor_info(&[2, 2, 3]), &null(column)).unwrap_err();
        assert!(message.contains(&format!("column `{column}` is null in row 0")), "{message}");
    }
    for column in ["label", "class_name", "caption"] {
        assert!(
            read_after(&rows::images(), &rows::class_info(), &null(column)).is_ok(),
            "{column} may be null"
        );
    }
    assert!(read_after(&rows::metrics(), &SchemaInfo::default(), &null("shots")).is_ok());
    assert!(read_after(&rows::metrics(), &SchemaInfo::default(), &null("value")).is_err());
}

#[test]
fn missing_and_mistyped_columns_are_refused_and_unknown_ones_ignored() {
    let read = |change: Rewrite| read_after(&rows::latents(), &rows::tensor_info(&[2, 2, 3]), &change);
    let message = read(Rewrite { drop: Some("latent"), ..Rewrite::default() }).unwrap_err();
    assert!(
        message.contains("column `latent` is missing, expected a fixed-size list of float32"),
        "{message}"
    );
    let replaced = |column, values: ArrayRef| {
        read(Rewrite { replaced: Some((column, values)), ..Rewrite::default() }).unwrap_err()
    };
    let count = rows::latents().len();
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["x"; count]));
    let message = replaced("noise_seed", Arc::clone(&texts));
    assert!(message.contains("column `noise_seed` has type `Utf8`, expected uint64"), "{message}");
    let message = replaced("latent", texts);
    assert!(
        message.contains("column `latent` has type `Utf8`, expected a fixed-size list of float32"),
        "{message}"
    );
    // The third of twelve elements of every row is null.
    let elements: Float32Array = (0..12 * count).map(|i| (i % 12 != 2).then_some(1.0)).collect();
    let element = Arc::new(Field::new("element", DataType::Float32, true));
    let message =
        replaced("latent", Arc::new(FixedSizeListArray::new(element, 12, Arc::new(elements), None)));
    assert!(message.contains("column `latent` has null elements, expected numbers"), "{message}");
    assert_eq!(read(Rewrite { extra: true, ..Rewrite::default() }).unwrap(), rows::latents());
}
