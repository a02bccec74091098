//! What every step of a plan was: settings, key, place on disk, size and time.

use pipeline_spec::{ArtifactKind, Plan, Store};
use serde::Serialize;

use super::table::{Table, TableCell};
use crate::Error;

/// Steps that yield one kind of artifact.
#[derive(Debug, Clone, Serialize)]
pub struct KindSteps {
    /// Name of the stage.
    pub stage: &'static str,
    /// Name of the kind.
    pub kind: &'static str,
    /// Steps that are finished.
    pub num_finished: usize,
    /// The steps.
    pub steps: Vec<Step>,
}

/// One step of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Path of the artifact below the store.
    pub artifact: String,
    /// Its key.
    pub key: String,
    /// Whether it is in the store.
    pub is_finished: bool,
    /// Rows of all parts.
    pub rows: u64,
    /// Bytes of all parts.
    pub size_bytes: u64,
    /// Wall time of the process that finished it, in milliseconds.
    pub elapsed_ms: u64,
    /// Device of the networks.
    pub device: String,
    /// The unit file: spec and inputs.
    pub settings: String,
}

/// Every step of `plan`, grouped by kind in the order of the pipeline.
///
/// # Errors
///
/// Fails if the record of an artifact cannot be read.
pub fn collect(plan: &Plan, store: &Store) -> Result<Vec<KindSteps>, Error> {
    let mut groups = Vec::new();
    for kind in ArtifactKind::ALL {
        let mut steps = Vec::new();
        for planned in plan.units.iter().filter(|p| p.output.kind == kind) {
            let settings = toml::to_string(&planned.unit)
                .or_else(|_| serde_json::to_string_pretty(&planned.unit))
                .unwrap_or_default();
            let mut step = Step {
                artifact: planned.output.to_string(),
                key: planned.output.key.to_string(),
                is_finished: store.contains(&planned.output),
                rows: 0,
                size_bytes: 0,
                elapsed_ms: 0,
                device: String::new(),
                settings,
            };
            if step.is_finished {
                let record = store.record(&planned.output)?;
                step.rows = record.rows;
                step.size_bytes = record.parts.iter().map(|p| p.size_bytes).sum();
                step.elapsed_ms = record.provenance.elapsed_ms;
                step.device = record.provenance.device;
            }
            steps.push(step);
        }
        if !steps.is_empty() {
            let num_finished = steps.iter().filter(|s| s.is_finished).count();
            groups.push(KindSteps { stage: kind.stage().name(), kind: kind.name(), num_finished, steps });
        }
    }
    Ok(groups)
}

/// Steps, sizes and times by kind.
pub fn table(groups: &[KindSteps]) -> Table {
    let head =
        ["stage", "writes", "finished", "rows", "size", "wall time", "device"].map(str::to_owned).to_vec();
    let mut rows = Vec::new();
    for group in groups {
        let sum = |value: fn(&Step) -> u64| group.steps.iter().map(value).sum::<u64>();
        let mut devices: Vec<&str> =
            group.steps.iter().filter(|s| s.is_finished).map(|s| s.device.as_str()).collect();
        devices.sort_unstable();
        devices.dedup();
        rows.push(vec![
            TableCell::text(group.stage),
            TableCell::text(group.kind),
            TableCell::number(format!("{} of {}", group.num_finished, group.steps.len())),
            TableCell::number(sum(|s| s.rows).to_string()),
            TableCell::number(bytes_text(sum(|s| s.size_bytes))),
            TableCell::number(time_text(sum(|s| s.elapsed_ms))),
            TableCell::text(devices.join(", ")),
        ]);
    }
    let note = "Wall times are sums over steps; steps that ran beside each other count each in full, and a step that was \
                interrupted counts from its last start.";
    Table { title: "Steps".to_owned(), note: note.to_owned(), head, rows }
}

/// A size for people.
pub fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// A time for people.
pub fn time_text(milliseconds: u64) -> String {
    let seconds = milliseconds as f64 / 1e3;
    match milliseconds {
        0..10_000 => format!("{seconds:.1} s"),
        10_000..120_000 => format!("{seconds:.0} s"),
        120_000..7_200_000 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
