//! What the store holds of a unit's output.

use pipeline_spec::{ArtifactId, ArtifactRecord, Plan, Store};

/// What the store holds of an artifact, by its record and the lengths of its files.
#[derive(Debug, Clone, PartialEq)]
pub enum UnitState {
    /// Finished, with every file there.
    Done(Box<ArtifactRecord>),
    /// Not finished, perhaps not begun.
    Missing,
    /// There is a record, but it cannot be read, or a file is missing or has another length than it says.
    Damaged(String),
}

impl UnitState {
    /// Looks at the artifact `id`. Reads no part: see `cargo xtask verify`.
    pub fn of(store: &Store, id: &ArtifactId) -> Self {
        if !store.record_path(id).is_file() {
            return Self::Missing;
        }
        let record = match store.record(id) {
            Ok(record) => record,
            Err(error) => return Self::Damaged(error.to_string()),
        };
        for part in &record.parts {
            let path = store.data_dir(id).join(&part.file);
            let found = match std::fs::metadata(&path) {
                Ok(metadata) if metadata.len() == part.size_bytes => continue,
                Ok(metadata) => format!("{} bytes", metadata.len()),
                Err(_) => "no such file".to_owned(),
            };
            return Self::Damaged(format!(
                "`{}`: expected {} bytes, found {found}",
                path.display(),
                part.size_bytes
            ));
        }
        Self::Done(Box::new(record))
    }

    /// The state of every unit of `plan`, in its order.
    pub fn of_plan(store: &Store, plan: &Plan) -> Vec<Self> {
        plan.units.iter().map(|planned| Self::of(store, &planned.output)).collect()
    }

    /// Whether nothing has to run.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// Takes the artifact `id` back to unfinished by removing its record. Its stage then keeps the parts that agree with
/// their side records and writes the others again.
///
/// # Errors
///
/// Fails if the record is there and cannot be removed.
pub fn discard_record(store: &Store, id: &ArtifactId) -> std::io::Result<()> {
    match std::fs::remove_file(store.record_path(id)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
