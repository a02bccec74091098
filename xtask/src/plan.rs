//! `plan`: what a pipeline needs, what the store has, and the command lines of the rest.

use clap::Args;
use pipeline_spec::Plan;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::binaries::Binaries;
use crate::options::{DataOption, PlanOptions};
use crate::stage_command::StageSettings;
use crate::unit_state::UnitState;
use crate::{plan_files, steps, terminal, workspace};

/// Write the plan of a pipeline and show what is cached
#[derive(Args)]
pub struct ShowPlan {
    /// Pipeline file [default: `pipelines/quickstart.toml`]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanOptions,
    #[command(flatten)]
    data: DataOption,
    /// Folder of the stages' binaries in the command lines [default: where they are built]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Device in the command lines
    #[arg(long)]
    device: Option<String>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// List every unit with its command line
    #[arg(long, short)]
    verbose: bool,
}

impl ShowPlan {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let plan = self.plan.plan(self.pipeline.as_ref())?;
        let store = self.plan.store.store();
        let states = UnitState::of_plan(&store, &plan);
        let folder = plan_files::write(&plan, &store)?;
        let bin_dir = self.bin_dir.unwrap_or_else(workspace::bin_dir);
        let settings =
            StageSettings::new(Binaries::expected_in(&bin_dir), &self.plan, &self.data, self.device);
        if self.json {
            terminal::print(serde_json::to_string_pretty(&description(&plan, &states, &folder, &settings))?);
            return Ok(ExitCode::SUCCESS);
        }
        terminal::print(steps::table(&plan, &states));
        if self.verbose {
            print_commands(&plan, &states, &folder, &settings, false);
        }
        terminal::note(format_args!("plan {}", folder.join("plan.json").display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints every unit with its command line, or only those that have to run.
pub fn print_commands(
    plan: &Plan,
    states: &[UnitState],
    folder: &Path,
    stages: &StageSettings,
    only_to_run: bool,
) {
    for (index, planned) in plan.units.iter().enumerate() {
        if only_to_run && states[index].is_done() {
            continue;
        }
        let state = if states[index].is_done() { "cached" } else { "to run" };
        let line =
            stages.line(planned.unit.spec.stage(), &folder.join(plan_files::unit_file_name(index)), None);
        terminal::print(format_args!("\n# unit {index}, {state}: {}\n{line}", planned.output));
    }
}

fn description(
    plan: &Plan,
    states: &[UnitState],
    folder: &Path,
    stages: &StageSettings,
) -> serde_json::Value {
    let units = plan.units.iter().enumerate().map(|(index, planned)| {
        let unit_file = folder.join(plan_files::unit_file_name(index));
        json!({
            "index": index,
            "step": planned.output.kind,
            "detail": steps::detail(plan, index),
            "output": planned.output,
            "is_cached": states[index].is_done(),
            "depends_on": planned.depends_on,
            "command": stages.line(planned.unit.spec.stage(), &unit_file, None),
        })
    });
    json!({
        "id": plan.id(),
        "pipeline": plan.pipeline.name,
        "plan_file": folder.join("plan.json"),
        "units": units.collect::<Vec<_>>(),
    })
}
