//! What was submitted: `<store>/plans/<plan>/jobs/<id>.json`, one record for each array, beside its script and logs.
//!
//! A record says which artifacts a task makes, so that jobs of one plan are found from another that shares units with it.

use anyhow::Context;
use pipeline_spec::{ArtifactId, Plan, Store};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::cluster::jobs::Job;
use crate::cluster::script;
use crate::cluster::slurm::{self, TaskState};
use crate::{plan_files, stored, terminal};

/// A submitted array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRecord {
    /// Slurm's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What each task makes, by array index.
    pub tasks: Vec<Vec<ArtifactId>>,
}

impl JobRecord {
    /// Writes the record and the script of a job that was submitted.
    pub fn write(folder: &Path, id: String, plan: &Plan, job: &Job, script: &str) -> anyhow::Result<Self> {
        let outputs = |units: &[usize]| units.iter().map(|&unit| plan.units[unit].output.clone()).collect();
        let tasks = job.tasks.iter().map(|task| outputs(&task.units)).collect();
        let record = Self { id, name: script::job_name(plan, job), tasks };
        plan_files::replace(&folder.join(format!("{}.sh", record.id)), script.as_bytes())?;
        plan_files::replace(&folder.join(format!("{}.json", record.id)), &serde_json::to_vec(&record)?)?;
        Ok(record)
    }
}

/// A task that makes an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmittedTask {
    /// Id of its job.
    pub job: String,
    /// Its array index.
    pub index: usize,
    /// Its log.
    pub log: PathBuf,
}

/// The tasks that were submitted for some artifacts, and where Slurm says they stand.
#[derive(Debug, Default)]
pub struct Submitted {
    tasks: BTreeMap<ArtifactId, Vec<SubmittedTask>>,
    states: slurm::TaskStates,
}

impl Submitted {
    /// Reads the records of all plans of `store` that name one of `wanted`.
    ///
    /// # Errors
    ///
    /// Fails if the folders cannot be listed. A record that cannot be read is told of and left out.
    pub fn read(store: &Store, wanted: &BTreeSet<&ArtifactId>) -> anyhow::Result<Self> {
        let mut submitted = Self::default();
        if wanted.is_empty() {
            return Ok(submitted);
        }
        for plan in stored::folders(&store.plans_dir())? {
            let folder = store.jobs_dir(&stored::file_name(&plan));
            for path in stored::entries(&folder)? {
                if path.extension().is_none_or(|extension| extension != "json") {
                    continue;
                }
                match read_record(&path) {
                    Ok(record) => submitted.add(&record, &folder, wanted),
                    Err(error) => terminal::note(format_args!("left out: {error:#}")),
                }
            }
        }
        // The newest job last: a task that ran before says less.
        for tasks in submitted.tasks.values_mut() {
            tasks.sort_by_key(|task| (task.job.parse::<u64>().unwrap_or(0), task.index));
        }
        Ok(submitted)
    }

    fn add(&mut self, record: &JobRecord, folder: &Path, wanted: &BTreeSet<&ArtifactId>) {
        for (index, outputs) in record.tasks.iter().enumerate() {
            for output in outputs.iter().filter(|output| wanted.contains(output)) {
                let log = folder.join(script::log_file(&record.name, &record.id, index));
                let task = SubmittedTask { job: record.id.clone(), index, log };
                self.tasks.entry(output.clone()).or_default().push(task);
            }
        }
    }

    /// Whether nothing was submitted for any of the artifacts.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Asks Slurm where the tasks stand.
    ///
    /// # Errors
    ///
    /// Fails if Slurm cannot be asked.
    pub fn ask(&mut self) -> anyhow::Result<()> {
        let ids = self.tasks.values().flatten().map(|task| task.job.clone()).collect();
        self.states = slurm::task_states(&ids)?;
        Ok(())
    }

    /// The task that will still compute `output`, and its state.
    pub fn active(&self, output: &ArtifactId) -> Option<(&SubmittedTask, &TaskState)> {
        let states = self.with_states(output).filter(|(_, state)| state.is_active());
        // Shards of one unit: one that runs says more than one that waits.
        states
            .max_by_key(|(task, state)| (**state == TaskState::Running, task.job.parse::<u64>().unwrap_or(0)))
    }

    /// The newest task of `output` that Slurm remembers, with its state.
    pub fn last(&self, output: &ArtifactId) -> Option<(&SubmittedTask, &TaskState)> {
        self.with_states(output).last()
    }

    /// The newest task of `output` that has a log.
    pub fn log(&self, output: &ArtifactId) -> Option<&Path> {
        let tasks = self.tasks.get(output)?.iter().rev();
        tasks.map(|task| task.log.as_path()).find(|log| log.is_file())
    }

    fn with_states(&self, output: &ArtifactId) -> impl Iterator<Item = (&SubmittedTask, &TaskState)> {
        let tasks = self.tasks.get(output).into_iter().flatten();
        tasks.filter_map(|task| Some((task, self.states.get(&(task.job.clone(), task.index))?)))
    }
}

fn read_record(path: &Path) -> anyhow::Result<JobRecord> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("`{}` is no record of a job", path.display()))
}

/// Keeps other submissions of the plan waiting until it is dropped; ends with the process at the latest.
///
/// Only saves work: two tasks that compute one unit do no harm. So a file system without locks is no error.
pub fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("cannot open `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            terminal::note("another submission of this plan is under way; waiting for it");
            file.lock().with_context(|| format!("cannot lock `{}`", path.display()))?;
        }
        Err(std::fs::TryLockError::Error(error)) => {
            terminal::note(format_args!("`{}` cannot be locked ({error}); going on without", path.display()));
        }
    }
    Ok(file)
}
