//! `inspect`: what lies in a store, from the records alone.

use anyhow::Context;
use clap::{Args, ValueEnum};
use pipeline_spec::{ArtifactRecord, Store};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::options::StoreOption;
use crate::stored::{self, Stored};
use crate::terminal;

/// List the artifacts of a store by kind, data set, size and age, or show one of them
///
/// Columns of a Parquet part are described in docs/artifacts.md, which has a line for pyarrow and DuckDB for each kind.
#[derive(Args)]
pub struct Inspect {
    /// One artifact: its name, or the first digits of its key
    artifact: Option<String>,
    /// Only this kind, for example `latents`
    #[arg(long, conflicts_with = "artifact")]
    kind: Option<String>,
    /// Only this data set
    #[arg(long, conflicts_with = "artifact")]
    dataset: Option<String>,
    /// Order of the list
    #[arg(long, value_enum, default_value_t = Order::Name, conflicts_with = "artifact")]
    sort: Order,
    /// One line for each kind and data set
    #[arg(long, conflicts_with = "artifact")]
    summary: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreOption,
}

/// Order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Kind, data set, name
    Name,
    /// The largest first
    Size,
    /// The newest first
    Age,
}

/// A finished artifact.
struct Finished {
    record: ArtifactRecord,
    size_bytes: u64,
}

impl Inspect {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.store.store();
        if let Some(name) = &self.artifact {
            let record = store.record(&stored::find(&store, name)?)?;
            self.show(&store, &record)?;
            return Ok(ExitCode::SUCCESS);
        }
        let (mut finished, mut unfinished) = (Vec::new(), Vec::new());
        for Stored { path, id } in stored::artifacts(&store)? {
            let Some(id) = id else {
                terminal::note(format_args!(
                    "left out, its name or schema version is not known: {}",
                    path.display()
                ));
                continue;
            };
            let is_wanted = self.kind.as_deref().is_none_or(|kind| id.kind.name() == kind)
                && self.dataset.as_deref().is_none_or(|dataset| id.dataset.as_str() == dataset);
            if !is_wanted {
                continue;
            }
            if !store.record_path(&id).is_file() {
                unfinished.push(id);
                continue;
            }
            match store.record(&id) {
                Ok(record) => {
                    let size_bytes = record.parts.iter().map(|part| part.size_bytes).sum();
                    finished.push(Finished { record, size_bytes });
                }
                Err(error) => terminal::note(format_args!("left out: {:#}", anyhow::Error::new(error))),
            }
        }
        match self.sort {
            Order::Name => finished.sort_by(|a, b| a.record.id.cmp(&b.record.id)),
            Order::Size => finished.sort_by_key(|artifact| std::cmp::Reverse(artifact.size_bytes)),
            Order::Age => {
                finished
                    .sort_by_key(|artifact| std::cmp::Reverse(artifact.record.provenance.finished_at_unix_s));
            }
        }
        if self.json {
            terminal::print(serde_json::to_string_pretty(&description(&finished))?);
        } else if self.summary {
            terminal::print(summary(&finished));
        } else {
            terminal::print(list(&finished));
        }
        let size = terminal::bytes(finished.iter().map(|artifact| artifact.size_bytes).sum());
        terminal::note(format_args!(
            "{} artifacts, {size}, {} unfinished in `{}`",
            finished.len(),
            unfinished.len(),
            store.root().display()
        ));
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, store: &Store, record: &ArtifactRecord) -> anyhow::Result<()> {
        if self.json {
            terminal::print(serde_json::to_string_pretty(record)?);
            return Ok(());
        }
        let provenance = &record.provenance;
        let size = record.parts.iter().map(|part| part.size_bytes).sum();
        terminal::print(format_args!(
            "{}\n  folder   {}",
            record.id,
            store.artifact_dir(&record.id).display()
        ));
        terminal::print(format_args!(
            "  content  {} rows, {} files, {}; {}",
            record.rows,
            record.parts.len(),
            terminal::bytes(size),
            record.content_digest()
        ));
        terminal::print(format_args!(
            "  made     {} ago in {} on {}, device {}, version {}, code version {}",
            age(provenance.finished_at_unix_s),
            terminal::duration(Duration::from_millis(provenance.elapsed_ms)),
            provenance.host,
            provenance.device,
            provenance.version,
            record.code_version
        ));
        for (name, id) in &record.unit.inputs {
            let state = if store.contains(id) { "" } else { "  (not in this store)" };
            terminal::print(format_args!("  input    {name}: {id}{state}"));
        }
        for part in &record.parts {
            let size = terminal::bytes(part.size_bytes);
            terminal::print(format_args!("  file     data/{}  {} rows  {size}", part.file, part.rows));
        }
        let spec =
            toml::to_string(&record.unit.spec).context("the specification cannot be written as TOML")?;
        terminal::print(format_args!("\n{}", spec.trim_end()));
        Ok(())
    }
}

fn list(artifacts: &[Finished]) -> String {
    let row = |Finished { record, size_bytes }: &Finished| {
        vec![
            record.id.kind.name().to_owned(),
            record.id.dataset.to_string(),
            record.id.slug.clone(),
            record.id.key.as_str()[..12].to_owned(),
            record.rows.to_string(),
            record.parts.len().to_string(),
            terminal::bytes(*size_bytes),
            age(record.provenance.finished_at_unix_s),
        ]
    };
    let rows: Vec<_> = artifacts.iter().map(row).collect();
    terminal::table(
        &["kind", "data set", "name", "key", "rows", "files", "size", "age"],
        &[4, 5, 6, 7],
        &rows,
    )
}

fn summary(artifacts: &[Finished]) -> String {
    let mut groups: BTreeMap<_, Vec<&Finished>> = BTreeMap::new();
    for artifact in artifacts {
        groups.entry((artifact.record.id.kind, &artifact.record.id.dataset)).or_default().push(artifact);
    }
    let row = |((kind, dataset), group): (_, Vec<&Finished>)| {
        let time = |artifact: &&Finished| artifact.record.provenance.finished_at_unix_s;
        vec![
            pipeline_spec::ArtifactKind::name(kind).to_owned(),
            pipeline_spec::DatasetId::to_string(dataset),
            group.len().to_string(),
            group.iter().map(|artifact| artifact.record.rows).sum::<u64>().to_string(),
            terminal::bytes(group.iter().map(|artifact| artifact.size_bytes).sum()),
            age(group.iter().map(time).max().unwrap_or(0)),
            age(group.iter().map(time).min().unwrap_or(0)),
        ]
    };
    let rows: Vec<_> = groups.into_iter().map(row).collect();
    terminal::table(
        &["kind", "data set", "artifacts", "rows", "size", "newest", "oldest"],
        &[2, 3, 4, 5, 6],
        &rows,
    )
}

fn description(artifacts: &[Finished]) -> serde_json::Value {
    let artifact = |Finished { record, size_bytes }: &Finished| {
        json!({
            "id": record.id,
            "kind": record.id.kind,
            "dataset": record.id.dataset,
            "rows": record.rows,
            "files": record.parts.len(),
            "size_bytes": size_bytes,
            "finished_at_unix_s": record.provenance.finished_at_unix_s,
        })
    };
    artifacts.iter().map(artifact).collect()
}

/// Time since then in its largest unit; `0 s` for a time to come.
fn age(unix_s: u64) -> String {
    let then = UNIX_EPOCH.checked_add(Duration::from_secs(unix_s)).unwrap_or(UNIX_EPOCH);
    let seconds = SystemTime::now().duration_since(then).map_or(0, |age| age.as_secs());
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
