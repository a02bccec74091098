//! `status`: how far a pipeline is, from what lies in the store.

use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::options::PlanOptions;
use crate::unit_log::UnitLog;
use crate::unit_state::UnitState;
use crate::{steps, terminal};

/// Failed units of a step that are listed.
const MAX_LISTED: usize = 5;

/// Show for each step of a pipeline what is done, missing and failed
#[derive(Args)]
pub struct Status {
    /// Pipeline file [default: `pipelines/quickstart.toml`]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanOptions,
}

impl Status {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let plan = self.plan.plan(self.pipeline.as_ref())?;
        let store = self.plan.store.store();
        let states = UnitState::of_plan(&store, &plan);
        let (mut rows, mut remarks) = (Vec::new(), Vec::new());
        for step in steps::steps(&plan) {
            let (mut done, mut missing, mut failed) = (0, 0, Vec::new());
            for &index in &step.units {
                let output = &plan.units[index].output;
                let log = UnitLog::new(&store, output);
                match (&states[index], log.failure()) {
                    (UnitState::Done(_), _) => done += 1,
                    (UnitState::Damaged(reason), _) => {
                        failed.push(format!("unit {index} `{output}`: {reason}"));
                    }
                    (UnitState::Missing, None) => missing += 1,
                    (UnitState::Missing, Some(failure)) => {
                        let (code, path) = (failure.exit_code, log.path().display().to_string());
                        let line = log.last_lines(1).pop().unwrap_or_default();
                        failed.push(format!(
                            "unit {index} `{output}`: exit code {code}: {line}\n    log: {path}"
                        ));
                    }
                }
            }
            let numbers = [step.units.len(), done, missing, failed.len()].map(|n| n.to_string());
            rows.push([step.kind.name().to_owned(), step.detail].into_iter().chain(numbers).collect());
            let more = failed.len().saturating_sub(MAX_LISTED);
            remarks.extend(failed.into_iter().take(MAX_LISTED));
            if more > 0 {
                remarks.push(format!("and {more} more units of `{}`", step.kind));
            }
        }
        terminal::print(terminal::table(
            &["step", "", "units", "done", "missing", "failed"],
            &[2, 3, 4, 5],
            &rows,
        ));
        remarks.iter().for_each(terminal::print);
        let done = states.iter().filter(|state| state.is_done()).count();
        terminal::note(format_args!("{done} of {} units done in `{}`", states.len(), store.root().display()));
        if done < states.len() {
            let pipeline = self.pipeline.map_or_else(String::new, |path| format!(" {}", path.display()));
            terminal::note(format_args!("`cargo xtask reproduce{pipeline}` computes the rest"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
