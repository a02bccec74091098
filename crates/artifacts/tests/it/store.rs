//! A store in a temporary folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use artifacts::{ArtifactReader, ArtifactWriter, FileContext, Outcome, Row, SchemaInfo, Shard};
use pipeline_spec::{ArtifactId, ArtifactRecord, Store, Unit};

/// A store that is removed when it goes out of scope.
pub struct TempStore {
    folder: tempfile::TempDir,
    pub store: Store,
}

impl TempStore {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(folder.path().join("store"));
        Self { folder, store }
    }

    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    pub fn writer(&self, unit: &Unit, num_parts: u32) -> ArtifactWriter {
        ArtifactWriter::open(&self.store, unit, num_parts, FileContext::new("1.2.3")).expect("a writer")
    }

    /// Writes an artifact of one part.
    pub fn write<R: Row>(&self, unit: &Unit, rows: &[R], info: &SchemaInfo) -> ArtifactRecord {
        let writer = self.writer(unit, 1);
        for part in writer.missing_parts(Shard::default()) {
            writer.write_part(part, rows, info).expect("a part is written");
        }
        finished(writer.finish("none", Instant::now()).expect("the artifact is finished"))
    }

    pub fn reader(&self, id: &ArtifactId) -> ArtifactReader {
        ArtifactReader::open(&self.store, id).expect("the artifact opens")
    }

    /// Path of the first part of an artifact.
    pub fn part(&self, record: &ArtifactRecord) -> PathBuf {
        self.store.data_dir(&record.id).join(&record.parts[0].file)
    }

    /// Names of the unfinished files.
    pub fn unfinished(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.store.tmp_dir()).expect("the folder of unfinished files");
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

pub fn finished(outcome: Outcome) -> ArtifactRecord {
    match outcome {
        Outcome::Finished(record) => *record,
        Outcome::PartsMissing(parts) => panic!("parts {parts:?} are missing"),
    }
}
