//! Writing an artifact part by part.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use pipeline_spec::layout::part_name;
use pipeline_spec::{ArtifactId, ArtifactKind, ArtifactRecord, Digest, PartRecord, Provenance, Store, Unit};
use rayon::prelude::*;

use crate::publish::{Published, Staged};
use crate::{Error, FileContext, Row, SchemaInfo, Shard, metadata, parquet_file};

/// Name of the side record of a set of files.
const FILE_SET: &str = "files.json";

/// Writes the parts of one artifact and, when all are there, its record. Several writers of the same artifact may run at
/// the same time, on one machine or many; no lock is needed.
#[derive(Debug)]
pub struct ArtifactWriter {
    store: Store,
    unit: Unit,
    id: ArtifactId,
    num_parts: u32,
    context: FileContext,
    state: Mutex<State>,
}

/// What this process knows already.
#[derive(Debug, Default)]
struct State {
    /// Parts that this process verified, by file name.
    verified: BTreeSet<String>,
    conflicts: Vec<Conflict>,
}

/// A part that another process had published with other content: the computation is not deterministic across them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// File name of the part.
    pub file: String,
    /// BLAKE3 of the content that was there and stays.
    pub kept: Digest,
    /// BLAKE3 of the content that was dropped.
    pub dropped: Digest,
}

/// What [`ArtifactWriter::finish`] found.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Every part is there; the artifact exists now.
    Finished(Box<ArtifactRecord>),
    /// These parts are missing or damaged; other shards may still compute them.
    PartsMissing(Vec<u32>),
}

/// Content of a file that is published as it is.
#[derive(Debug, Clone, Copy)]
pub enum FileSource<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// The content of this file.
    Path(&'a Path),
}

impl ArtifactWriter {
    /// A writer for what `unit` yields, cut into `num_parts` parts (ignored for checkpoints, which are a set of files).
    ///
    /// # Errors
    ///
    /// Fails if the folders cannot be created or `num_parts` is 0.
    pub fn open(store: &Store, unit: &Unit, num_parts: u32, context: FileContext) -> Result<Self, Error> {
        let id = unit.output();
        if num_parts == 0 {
            return Err(Error::PartIndex { id: Box::new(id), index: 0, num_parts });
        }
        for folder in [store.data_dir(&id), store.commit_dir(&id), store.tmp_dir()] {
            crate::publish::create_folder(&folder)?;
        }
        let (store, unit, state) = (store.clone(), unit.clone(), Mutex::default());
        Ok(Self { store, unit, id, num_parts, context, state })
    }

    /// The artifact that is written.
    pub fn id(&self) -> &ArtifactId {
        &self.id
    }

    /// The parts of `shard` that are not committed, or whose file differs from its side record, ascending. For
    /// checkpoints `[0]` stands for the whole set of files.
    pub fn missing_parts(&self, shard: Shard) -> Vec<u32> {
        if self.id.kind == ArtifactKind::Checkpoints {
            let missing = shard.contains(0) && self.committed_files().is_none();
            return if missing { vec![0] } else { vec![] };
        }
        let parts: Vec<u32> = (0..self.num_parts).filter(|&part| shard.contains(part)).collect();
        parts.into_par_iter().filter(|&part| self.committed(part).is_none()).collect()
    }

    /// Publishes part `index` with these rows; a part that is there already stays as it is.
    ///
    /// Rows should come sorted by class and sample, see the `SORTED_BY` of the kind; their order is kept.
    ///
    /// # Errors
    ///
    /// Fails if a row or `info` does not fit the kind, or the file cannot be written.
    pub fn write_part<R: Row>(&self, index: u32, rows: &[R], info: &SchemaInfo) -> Result<PartRecord, Error> {
        if R::KIND != self.id.kind {
            return Err(Error::Kind {
                id: Box::new(self.id.clone()),
                expected: R::KIND,
                found: self.id.kind,
            });
        }
        if index >= self.num_parts {
            return Err(Error::PartIndex { id: Box::new(self.id.clone()), index, num_parts: self.num_parts });
        }
        let metadata = metadata::of_part(&self.unit, &self.context, info).map_err(|field| Error::Info {
            kind: R::KIND,
            field,
            problem: "is written by the artifact writer; choose another metadata key".to_owned(),
        })?;
        let file = part_name(index, self.num_parts, "parquet");
        let target = self.store.data_dir(&self.id).join(&file);
        let staged = Staged::create(&self.store.tmp_dir(), &target, |sink| {
            parquet_file::encode(rows, info, &metadata, sink)
        })?;
        let ours = record_of(&file, rows.len() as u64, &staged);
        let record = self.publish_part::<R>(staged, &target, ours)?;
        self.publish_side_record(&part_name(index, self.num_parts, "json"), &record)?;
        self.state().verified.insert(file);
        Ok(record)
    }

    /// Publishes these files as the artifact's content, all or none: a complete set that is there already stays.
    ///
    /// # Errors
    ///
    /// Fails if the artifact is not of kind `checkpoints`, a name is not a plain file name, or a file cannot be written.
    pub fn write_files(&self, files: &[(&str, FileSource<'_>)]) -> Result<Vec<PartRecord>, Error> {
        if self.id.kind != ArtifactKind::Checkpoints {
            let expected = ArtifactKind::Checkpoints;
            return Err(Error::Kind { id: Box::new(self.id.clone()), expected, found: self.id.kind });
        }
        let mut staged = Vec::with_capacity(files.len());
        for (name, source) in files {
            staged.push((self.stage_file(name, *source)?, *name));
        }
        staged.sort_by(|a, b| a.1.cmp(b.1));
        let ours: Vec<PartRecord> = staged.iter().map(|(file, name)| record_of(name, 0, file)).collect();
        if let Some(existing) = self.committed_files() {
            self.note_conflicts(&existing, &ours);
            return Ok(existing);
        }
        // The files come first and their record last, so a record always speaks of a complete set. A set without a
        // record is the rest of an interrupted writer and is replaced.
        for (file, name) in staged {
            file.replace(&self.store.data_dir(&self.id).join(name))?;
        }
        let target = self.store.commit_dir(&self.id).join(FILE_SET);
        Staged::from_bytes(&self.store.tmp_dir(), &target, &json_of(&ours))?.replace(&target)?;
        Ok(ours)
    }

    /// Writes the artifact's record if every part is committed and verifies; `started` is when this process began, and
    /// `device` names the device of the networks (`none` without one).
    ///
    /// # Errors
    ///
    /// Fails if the parts together are not complete (no rows, a class without a row), or a file cannot be read or
    /// written.
    pub fn finish(&self, device: &str, started: Instant) -> Result<Outcome, Error> {
        let parts = match self.all_parts() {
            Ok(parts) => parts,
            Err(missing) => return Ok(Outcome::PartsMissing(missing)),
        };
        self.check_complete(&parts)?;
        let mut input_digests = BTreeMap::new();
        for (name, id) in &self.unit.inputs {
            input_digests.insert(name.clone(), self.store.record(id)?.content_digest());
        }
        let record = ArtifactRecord {
            id: self.id.clone(),
            unit: self.unit.clone(),
            code_version: self.unit.spec.code_version(),
            rows: parts.iter().map(|p| p.rows).sum(),
            parts,
            input_digests,
            provenance: Provenance {
                version: self.context.version.clone(),
                finished_at_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
                elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                host: host_name(),
                device: device.to_owned(),
            },
        };
        self.publish_record(record).map(|record| Outcome::Finished(Box::new(record)))
    }

    /// Parts that were there with other content. Not an error, but the stage is less deterministic than it should be.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.state().conflicts.clone()
    }

    /// Publishes the artifact's record. A record that is there already stays if it names the same parts, for then only the
    /// circumstances differ; one that names others speaks of parts that were lost since, and is replaced.
    fn publish_record(&self, record: ArtifactRecord) -> Result<ArtifactRecord, Error> {
        let target = self.store.record_path(&self.id);
        let staged = || Staged::from_bytes(&self.store.tmp_dir(), &target, &json_of(&record));
        if let Published::New | Published::Same = staged()?.publish(&target)? {
            return Ok(record);
        }
        match self.store.record(&self.id) {
            Ok(first) if first.parts == record.parts => Ok(first),
            _ => {
                staged()?.replace(&target)?;
                Ok(record)
            }
        }
    }

    /// Publishes one part, or finds out whether what is there is good.
    fn publish_part<R: Row>(
        &self,
        staged: Staged,
        target: &Path,
        ours: PartRecord,
    ) -> Result<PartRecord, Error> {
        let dir = self.store.data_dir(&self.id);
        let side = self.side_record(&ours.file);
        if side.as_ref().is_some_and(|side| side.verify(&dir).is_err()) {
            // The published file was damaged later: it is no result that could be kept.
            staged.replace(target)?;
            return Ok(ours);
        }
        let Published::Kept { existing } = staged.publish(target)? else { return Ok(ours) };
        let kept = match side {
            Some(side) => side,
            // Published, but the process died before its side record: whole unless it was damaged since.
            None => {
                let bytes = fs::read(target).map_err(|e| Error::read(target, e))?;
                let table = parquet_file::decode::<R>(bytes, target, Some(&self.id.key))?;
                PartRecord::measure(&dir, &ours.file, table.rows.len() as u64)?
            }
        };
        self.note_conflict(&ours.file, existing, ours.blake3);
        Ok(kept)
    }

    /// Copies one file under a temporary name.
    fn stage_file(&self, name: &str, source: FileSource<'_>) -> Result<Staged, Error> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
            let problem = "is not a plain file name".to_owned();
            return Err(Error::Info { kind: self.id.kind, field: format!("file `{name}`"), problem });
        }
        let target = self.store.data_dir(&self.id).join(name);
        match source {
            FileSource::Bytes(bytes) => Staged::from_bytes(&self.store.tmp_dir(), &target, bytes),
            FileSource::Path(path) => {
                let mut file = fs::File::open(path).map_err(|e| Error::read(path, e))?;
                Staged::create(&self.store.tmp_dir(), &target, |sink| {
                    io::copy(&mut file, sink).map(drop).map_err(|e| Error::read(path, e))
                })
            }
        }
    }

    /// Publishes the side record of a part; one that is damaged or outdated is replaced.
    fn publish_side_record(&self, name: &str, record: &PartRecord) -> Result<(), Error> {
        let target = self.store.commit_dir(&self.id).join(name);
        if read_json::<PartRecord>(&target).as_ref() == Some(record) {
            return Ok(());
        }
        Staged::from_bytes(&self.store.tmp_dir(), &target, &json_of(record))?.replace(&target)
    }

    /// The records of all parts, or the indices of those that are missing or damaged.
    fn all_parts(&self) -> Result<Vec<PartRecord>, Vec<u32>> {
        if self.id.kind == ArtifactKind::Checkpoints {
            return self.committed_files().ok_or_else(|| vec![0]);
        }
        let found: Vec<(u32, Option<PartRecord>)> =
            (0..self.num_parts).into_par_iter().map(|part| (part, self.committed(part))).collect();
        let missing: Vec<u32> =
            found.iter().filter(|(_, record)| record.is_none()).map(|(part, _)| *part).collect();
        if missing.is_empty() {
            Ok(found.into_iter().filter_map(|(_, record)| record).collect())
        } else {
            Err(missing)
        }
    }

    /// The side record of part `index` if its file agrees with it.
    fn committed(&self, index: u32) -> Option<PartRecord> {
        let file = part_name(index, self.num_parts, "parquet");
        let record = self.side_record(&file)?;
        self.verified(&record).then_some(record)
    }

    /// The records of the set of files if every file agrees with its own.
    fn committed_files(&self) -> Option<Vec<PartRecord>> {
        let records: Vec<PartRecord> = read_json(&self.store.commit_dir(&self.id).join(FILE_SET))?;
        let plain = |r: &PartRecord| !r.file.starts_with('.') && !r.file.contains(['/', '\\']);
        (!records.is_empty() && records.iter().all(|r| plain(r) && self.verified(r))).then_some(records)
    }

    fn verified(&self, record: &PartRecord) -> bool {
        if self.state().verified.contains(&record.file) {
            return true;
        }
        match record.verify(&self.store.data_dir(&self.id)) {
            Ok(()) => {
                self.state().verified.insert(record.file.clone());
                true
            }
            Err(error) => {
                tracing::warn!(part = record.file, %error, "a committed part is damaged and is computed again");
                false
            }
        }
    }

    fn side_record(&self, file: &str) -> Option<PartRecord> {
        let path = self.store.commit_dir(&self.id).join(Path::new(file).with_extension("json"));
        read_json::<PartRecord>(&path).filter(|record| record.file == file)
    }

    /// Row counts and classes over all parts.
    fn check_complete(&self, parts: &[PartRecord]) -> Result<(), Error> {
        let incomplete = |problem: String| Err(Error::Incomplete { id: Box::new(self.id.clone()), problem });
        if self.id.kind == ArtifactKind::Checkpoints {
            return Ok(());
        }
        if parts.iter().all(|p| p.rows == 0) {
            return incomplete("it has no rows".to_owned());
        }
        let dir = self.store.data_dir(&self.id);
        let paths: Vec<PathBuf> = parts.iter().map(|p| dir.join(&p.file)).collect();
        match crate::verify::classes_without_rows(self.id.kind, &paths)? {
            missing if missing.is_empty() => Ok(()),
            missing => incomplete(format!("no row for class {}", missing.join(", "))),
        }
    }

    fn note_conflicts(&self, existing: &[PartRecord], ours: &[PartRecord]) {
        for our in ours {
            if let Some(kept) = existing.iter().find(|p| p.file == our.file && p.blake3 != our.blake3) {
                self.note_conflict(&our.file, kept.blake3.clone(), our.blake3.clone());
            }
        }
    }

    fn note_conflict(&self, file: &str, kept: Digest, dropped: Digest) {
        tracing::warn!(%file, %kept, %dropped, "a part was computed twice with different results; the first stays");
        self.state().conflicts.push(Conflict { file: file.to_owned(), kept, dropped });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record_of(file: &str, rows: u64, staged: &Staged) -> PartRecord {
    PartRecord {
        file: file.to_owned(),
        rows,
        size_bytes: staged.size_bytes,
        blake3: staged.blake3.clone(),
        sha256: staged.sha256.clone(),
    }
}

/// Pretty JSON with a final newline.
fn json_of(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes =
        serde_json::to_vec_pretty(value).expect("records have text keys and no failing serializer");
    bytes.push(b'\n');
    bytes
}

/// A side record; `None` if it is not there or not readable, which means that the part is not committed.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Name of this machine, for people.
fn host_name() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}
