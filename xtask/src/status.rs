//! `status`: how far a pipeline is, from what lies in the store and what a scheduler says of its jobs.

use clap::Args;
use pipeline_spec::{ArtifactId, Store};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cluster::records::Submitted;
use crate::cluster::slurm::TaskState;
use crate::options::PlanOptions;
use crate::unit_log::{UnitLog, last_lines};
use crate::unit_state::UnitState;
use crate::{steps, terminal};

/// Failed units of a step that are listed.
const MAX_LISTED: usize = 5;
/// Lines of a log's end that are shown.
const NUM_LOG_LINES: usize = 3;

/// Show for each step of a pipeline what is done, running, waiting, failed and missing
///
/// The store says what is done. Where units were submitted to Slurm, `squeue` and `sacct` say what runs and what waits.
#[derive(Args)]
pub struct Status {
    /// Pipeline file [default: `pipelines/quickstart.toml`]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanOptions,
}

/// Where a unit stands.
enum Standing {
    Done,
    Running,
    Waiting(String),
    Failed(String),
    Missing,
}

/// Units of a step by where they stand.
#[derive(Default)]
struct Counts {
    done: usize,
    running: usize,
    waiting: usize,
    failed: usize,
    missing: usize,
}

impl Status {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let plan = self.plan.plan(self.pipeline.as_ref())?;
        let store = self.plan.store.store();
        let states = UnitState::of_plan(&store, &plan);
        let open = states.iter().zip(&plan.units).filter(|(state, _)| !state.is_done());
        let mut submitted = Submitted::read(&store, &open.map(|(_, planned)| &planned.output).collect())?;
        if !submitted.is_empty()
            && let Err(error) = submitted.ask()
        {
            terminal::note(format_args!("what runs and waits is not known: {error:#}"));
        }
        let (mut rows, mut remarks, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps::steps(&plan) {
            let mut counts = Counts::default();
            for &index in &step.units {
                let output = &plan.units[index].output;
                match standing(&store, output, &states[index], &submitted) {
                    Standing::Done => counts.done += 1,
                    Standing::Running => counts.running += 1,
                    Standing::Waiting(reason) => {
                        counts.waiting += 1;
                        reasons.push(reason);
                    }
                    Standing::Missing => counts.missing += 1,
                    Standing::Failed(reason) => {
                        counts.failed += 1;
                        if counts.failed <= MAX_LISTED {
                            remarks.push(format!("unit {index} `{output}`: {reason}"));
                        }
                    }
                }
            }
            if counts.failed > MAX_LISTED {
                remarks.push(format!("and {} more units of `{}`", counts.failed - MAX_LISTED, step.kind));
            }
            let Counts { done, running, waiting, failed, missing } = counts;
            let numbers = [step.units.len(), done, running, waiting, failed, missing].map(|n| n.to_string());
            rows.push([step.kind.name().to_owned(), step.detail].into_iter().chain(numbers).collect());
        }
        let header = ["step", "", "units", "done", "running", "waiting", "failed", "missing"];
        terminal::print(terminal::table(&header, &[2, 3, 4, 5, 6, 7], &rows));
        remarks.iter().for_each(terminal::print);
        for (reason, count) in counted(reasons) {
            terminal::note(format_args!("{count} units wait: {reason}"));
        }
        let done = states.iter().filter(|state| state.is_done()).count();
        terminal::note(format_args!("{done} of {} units done in `{}`", states.len(), store.root().display()));
        if done < states.len() {
            let pipeline = self.pipeline.map_or_else(String::new, |path| format!(" {}", path.display()));
            terminal::note(format_args!(
                "`cargo xtask reproduce{pipeline}` computes the rest here, `cargo xtask submit{pipeline} --engine slurm` on a cluster"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the unit that yields `output` stands.
fn standing(store: &Store, output: &ArtifactId, state: &UnitState, submitted: &Submitted) -> Standing {
    if state.is_done() {
        return Standing::Done;
    }
    match submitted.active(output) {
        Some((_, TaskState::Running)) => return Standing::Running,
        Some((task, TaskState::Waiting(reason))) => {
            return Standing::Waiting(format!("{reason} (job {})", task.job));
        }
        _ => {}
    }
    if let UnitState::Damaged(reason) = state {
        return Standing::Failed(reason.clone());
    }
    let log = UnitLog::new(store, output);
    let path = submitted.log(output).unwrap_or(log.path());
    let cause = match (log.failure(), submitted.last(output)) {
        (Some(failure), _) => format!("exit code {}", failure.exit_code),
        (None, Some((task, TaskState::Failed(state)))) => {
            format!("task {}_{} ended in state {state}", task.job, task.index)
        }
        (None, _) => return Standing::Missing,
    };
    // The log of a task holds several units; what a failed one said stands above the line with its exit code.
    let mark = format!("`{output}`: exit code");
    let lines = last_lines(path, Some(&mark), NUM_LOG_LINES).into_iter().map(|line| format!("\n    {line}"));
    Standing::Failed(format!("{cause}, log {}{}", path.display(), lines.collect::<String>()))
}

/// Each text once, with how often it occurs.
fn counted(mut texts: Vec<String>) -> Vec<(String, usize)> {
    texts.sort();
    let runs = texts.chunk_by(|a, b| a == b);
    runs.map(|run| (run[0].clone(), run.len())).collect()
}
