//! Slurm's client programs: `sbatch`, `squeue`, `sacct`, `scontrol`.
//!
//! Text output with chosen columns is read, because the JSON forms change between releases. Every question is one call
//! for all jobs: sites limit how often a controller may be asked.

use anyhow::{Context, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Slurm cannot be asked: its programs are not here, or its controller does not answer.
#[derive(Debug)]
pub struct Unavailable(String);

impl Unavailable {
    /// With this reason.
    pub fn new(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// Where a task of a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Waits, for the reason that Slurm gives.
    Waiting(String),
    /// Runs.
    Running,
    /// Ended with exit code 0.
    Completed,
    /// Will not run: someone or a failed dependency cancelled it.
    Cancelled,
    /// Ended otherwise, in this state of Slurm's.
    Failed(String),
}

impl TaskState {
    /// Whether the task will still compute something.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Waiting(_) | Self::Running)
    }

    /// From Slurm's names of a state and a reason.
    fn parse(state: &str, reason: &str) -> Self {
        // `sacct` writes `CANCELLED by 1000`.
        match state.split_whitespace().next().unwrap_or_default() {
            // Without `--kill-on-invalid-dep` such a job would wait for ever.
            "PENDING" if reason == "DependencyNeverSatisfied" => Self::Cancelled,
            "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "RESV_DEL_HOLD"
            | "SPECIAL_EXIT" => Self::Waiting(reason.to_owned()),
            "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING" => {
                Self::Running
            }
            "COMPLETED" => Self::Completed,
            "CANCELLED" | "REVOKED" => Self::Cancelled,
            other => Self::Failed(other.to_owned()),
        }
    }
}

/// States of tasks by job id and array index.
pub type TaskStates = BTreeMap<(String, usize), TaskState>;

/// Tasks that an array can have.
///
/// # Errors
///
/// Fails if Slurm cannot be asked.
pub fn max_array_size() -> anyhow::Result<usize> {
    let config = ask(Command::new("scontrol").args(["show", "config"]))?;
    let config = succeeded("scontrol", config)?;
    let value = config.lines().find_map(|line| line.trim().strip_prefix("MaxArraySize")?.split_once('='));
    let size = value.and_then(|(_, value)| value.trim().parse().ok());
    size.filter(|&size: &usize| size > 0).context("`scontrol show config` gives no MaxArraySize")
}

/// Submits `script` from `folder`; gives the job's id. The job starts after all of `after` have succeeded.
///
/// # Errors
///
/// Fails if Slurm cannot be asked or refuses the job.
pub fn submit(script: &str, folder: &Path, after: &[String]) -> anyhow::Result<String> {
    let mut sbatch = Command::new("sbatch");
    sbatch.arg("--parsable").args(dependency(after)).current_dir(folder).stdin(Stdio::piped());
    // Set by an allocation that this program may run in; they would override the script.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SBATCH_") {
            sbatch.env_remove(name);
        }
    }
    let mut child =
        sbatch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| absent("sbatch", &e))?;
    let mut stdin = child.stdin.take().context("sbatch has no input")?;
    // If sbatch ends early, its message says more than the broken pipe.
    let written = stdin.write_all(script.as_bytes());
    drop(stdin);
    let text = succeeded("sbatch", child.wait_with_output().context("cannot wait for sbatch")?)?;
    written.context("cannot hand the script to sbatch")?;
    // A federated cluster answers `id;cluster`.
    let id = text.trim().split(';').next().unwrap_or_default();
    ensure!(
        !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()),
        "sbatch gave no job id but `{}`",
        text.trim()
    );
    Ok(id.to_owned())
}

/// The option of `sbatch` that makes a job wait.
pub fn dependency(after: &[String]) -> Option<String> {
    (!after.is_empty()).then(|| format!("--dependency=afterok:{}", after.join(":")))
}

/// What Slurm knows of the tasks of the jobs `ids`: the queue, then the accounting where there is one.
///
/// # Errors
///
/// Fails if Slurm cannot be asked.
pub fn task_states(ids: &BTreeSet<String>) -> anyhow::Result<TaskStates> {
    if ids.is_empty() {
        return Ok(TaskStates::new());
    }
    let list = ids.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let mut squeue = Command::new("squeue");
    squeue.args(["--noheader", "--array", "--all", "--states=all", "--format=%F|%K|%T|%r", "--jobs", &list]);
    let output = ask(&mut squeue)?;
    // The answer where none of the jobs is known any more.
    let is_forgotten = String::from_utf8_lossy(&output.stderr).contains("Invalid job id");
    let text = if is_forgotten { String::new() } else { succeeded("squeue", output)? };
    let mut states = parse_squeue(&text);
    let forgotten: Vec<&str> =
        ids.iter().filter(|id| !states.keys().any(|(job, _)| job == *id)).map(String::as_str).collect();
    if !forgotten.is_empty() {
        let mut sacct = Command::new("sacct");
        sacct.args(["--allocations", "--parsable2", "--noheader", "--format=JobID,State"]);
        // Many sites have no accounting: then a job that left the queue is unknown, and the store alone tells.
        if let Ok(output) = ask(sacct.args(["--jobs", &forgotten.join(",")]))
            && output.status.success()
        {
            states.extend(parse_sacct(&String::from_utf8_lossy(&output.stdout)));
        }
    }
    Ok(states)
}

/// Lines `array job|index|state|reason`.
fn parse_squeue(text: &str) -> TaskStates {
    let parse = |line: &str| {
        let [job, index, state, reason] = *line.trim().split('|').collect::<Vec<_>>() else { return None };
        Some(((job.to_owned(), index.parse().ok()?), TaskState::parse(state, reason)))
    };
    text.lines().filter_map(parse).collect()
}

/// Lines `12_3|STATE`, or `12_[4-10,12%2]|PENDING` for tasks that have not started.
fn parse_sacct(text: &str) -> TaskStates {
    let mut states = TaskStates::new();
    for line in text.lines() {
        let Some((id, state)) = line.trim().split_once('|') else { continue };
        let Some((job, indices)) = id.split_once('_') else { continue };
        let indices = indices.trim_matches(['[', ']']);
        let indices = indices.split_once('%').map_or(indices, |(indices, _)| indices);
        for range in indices.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else { continue };
            for index in first..=last.min(first.saturating_add(MAX_RANGE)) {
                states.insert((job.to_owned(), index), TaskState::parse(state, ""));
            }
        }
    }
    states
}

/// Slurm's own limit of an array is 4,000,001.
const MAX_RANGE: usize = 4_000_001;

fn ask(command: &mut Command) -> anyhow::Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    Ok(command.stdin(Stdio::null()).output().map_err(|error| absent(&name, &error))?)
}

fn absent(program: &str, error: &std::io::Error) -> Unavailable {
    Unavailable(format!("cannot start `{program}` ({error}); run this where Slurm's client programs are"))
}

/// Standard output of a client that succeeded.
fn succeeded(program: &str, output: Output) -> anyhow::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let unreachable = [
        "Unable to contact slurm controller",
        "configuration source",
        "Zero Bytes",
        "Socket timed out",
        "Connection refused",
    ];
    if unreachable.iter().any(|text| said.contains(text)) {
        return Err(Unavailable(format!("Slurm's controller does not answer `{program}`: {said}")).into());
    }
    bail!("`{program}` ended with {}: {said}", output.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(states: &TaskStates, job: &str, index: usize) -> TaskState {
        states[&(job.to_owned(), index)].clone()
    }

    #[test]
    fn the_queue_is_read_as_slurm_22_05_prints_it() {
        let text = "5|0|CANCELLED|DependencyNeverSatisfied\n5|1|PENDING|DependencyNeverSatisfied\n4|0|COMPLETED|None\n\
                    4|1|FAILED|NonZeroExitCode\n4|2|RUNNING|None\n1|1|PENDING|BeginTime\n7|N/A|RUNNING|None\nnoise\n";
        let states = parse_squeue(text);
        assert_eq!(state(&states, "5", 0), TaskState::Cancelled);
        assert_eq!(state(&states, "5", 1), TaskState::Cancelled);
        assert_eq!(state(&states, "4", 0), TaskState::Completed);
        assert_eq!(state(&states, "4", 1), TaskState::Failed("FAILED".to_owned()));
        assert_eq!(state(&states, "4", 2), TaskState::Running);
        assert_eq!(state(&states, "1", 1), TaskState::Waiting("BeginTime".to_owned()));
        assert_eq!(states.len(), 6);
    }

    #[test]
    fn the_accounting_is_read_with_ranges_of_tasks_that_wait() {
        let text =
            "1_2|FAILED\n1_0|COMPLETED\n1_[3-5,7%2]|PENDING\n2_0|CANCELLED by 1000\n3_1|TIMEOUT\n9|RUNNING\n";
        let states = parse_sacct(text);
        assert_eq!(state(&states, "1", 2), TaskState::Failed("FAILED".to_owned()));
        for index in [3, 4, 5, 7] {
            assert!(state(&states, "1", index).is_active(), "{index}");
        }
        assert_eq!(state(&states, "2", 0), TaskState::Cancelled);
        assert_eq!(state(&states, "3", 1), TaskState::Failed("TIMEOUT".to_owned()));
        assert_eq!(states.len(), 8);
    }

    #[test]
    fn jobs_wait_for_the_success_of_others() {
        assert_eq!(dependency(&[]), None);
        assert_eq!(dependency(&["3".into(), "14".into()]).as_deref(), Some("--dependency=afterok:3:14"));
    }
}
