//! `run`: one unit of a plan, or a few, as an array task of a cluster does it.

use anyhow::{Context, bail, ensure};
use clap::Args;
use pipeline_spec::{ArtifactId, Plan, PlannedUnit, Store};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use crate::binaries::Binaries;
use crate::interrupts::Interrupts;
use crate::options::{DataOption, PlanOptions, StageOptions};
use crate::stage_command::{Shard, StageSettings};
use crate::unit_state::{UnitState, discard_record};
use crate::{exit, plan_files, terminal};

/// Variables in which schedulers give the index of an array task: Slurm, HyperQueue, Kubernetes, PBS.
const ARRAY_INDEX_VARIABLES: [&str; 4] =
    ["SLURM_ARRAY_TASK_ID", "HQ_TASK_ID", "JOB_COMPLETION_INDEX", "PBS_ARRAY_INDEX"];

/// Run units of a plan, one after the other
///
/// Without `--unit`, `--units` and `--array-index` the index comes from the first of SLURM_ARRAY_TASK_ID, HQ_TASK_ID,
/// JOB_COMPLETION_INDEX and PBS_ARRAY_INDEX that is set. A unit whose artifact is finished is done at once; one whose
/// inputs are missing ends with exit code 65.
#[derive(Args)]
pub struct Run {
    /// Plan file, or the id of a plan in the store
    #[arg(long, short, value_name = "PLAN")]
    plan: PathBuf,
    /// One unit
    #[arg(long, value_name = "I", conflicts_with_all = ["units", "array_index"])]
    unit: Option<usize>,
    /// Units A to B, B excluded
    #[arg(long, value_name = "A..B", value_parser = parse_range, conflicts_with = "array_index")]
    units: Option<Range<usize>>,
    /// Index of an array task: units I*K to (I+1)*K, with K from `--pack`
    #[arg(long, value_name = "I")]
    array_index: Option<usize>,
    /// Units in an array task
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = parse_pack)]
    pack: usize,
    /// Compute only the parts of shard I of N
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<Shard>,
    #[command(flatten)]
    options: PlanOptions,
    #[command(flatten)]
    data: DataOption,
    #[command(flatten)]
    stages: StageOptions,
}

impl Run {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.options.store.store();
        let by_id = store.plan_dir(&self.plan.to_string_lossy()).join("plan.json");
        let path = if !self.plan.is_file() && by_id.is_file() { by_id } else { self.plan.clone() };
        let plan = Plan::read(&path)?;
        let units = self.chosen_units(plan.units.len())?;
        if units.clone().all(|index| UnitState::of(&store, &plan.units[index].output).is_done()) {
            return Ok(ExitCode::SUCCESS);
        }
        let binaries = match &self.stages.bin_dir {
            Some(folder) => Binaries::in_folder(folder)?,
            None => Binaries::beside_this_program()?,
        };
        let settings = StageSettings::new(binaries, &self.options, &self.data, self.stages.device.clone());
        let folder = plan_files::write(&plan, &store)?;
        let interrupts = Interrupts::listen()?;
        for index in units {
            let unit_file = folder.join(plan_files::unit_file_name(index));
            let code = run_unit(&plan.units[index], &unit_file, self.shard, &settings, &interrupts)?;
            if code != 0 {
                terminal::note(format_args!("unit {index} ended with exit code {code}"));
                return Ok(ExitCode::from(code));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn chosen_units(&self, num_units: usize) -> anyhow::Result<Range<usize>> {
        let range = match (self.unit, &self.units) {
            (Some(unit), _) => unit..unit + 1,
            (None, Some(units)) => units.clone(),
            (None, None) => {
                let index = match self.array_index {
                    Some(index) => index,
                    None => array_index_from_environment()?,
                };
                index * self.pack..((index + 1) * self.pack).min(num_units.max(index * self.pack + 1))
            }
        };
        ensure!(
            range.start < range.end && range.end <= num_units,
            "units {}..{} are not in the plan, which has {num_units}",
            range.start,
            range.end
        );
        Ok(range)
    }
}

fn array_index_from_environment() -> anyhow::Result<usize> {
    for name in ARRAY_INDEX_VARIABLES {
        let Ok(text) = std::env::var(name) else { continue };
        return text.parse().with_context(|| format!("variable `{name}`: expected an index, found `{text}`"));
    }
    bail!(
        "which unit? give `--unit`, `--units` or `--array-index`; none of {} is set either",
        ARRAY_INDEX_VARIABLES.join(", ")
    )
}

/// Runs one unit unless it is done; gives its exit code.
fn run_unit(
    planned: &PlannedUnit,
    unit_file: &Path,
    shard: Option<Shard>,
    stages: &StageSettings,
    interrupts: &Interrupts,
) -> anyhow::Result<u8> {
    match UnitState::of(&stages.store, &planned.output) {
        UnitState::Done(_) => return Ok(0),
        UnitState::Missing => {}
        UnitState::Damaged(reason) => {
            terminal::note(format_args!("damaged, to be computed again: {reason}"));
            discard_record(&stages.store, &planned.output)
                .with_context(|| format!("cannot remove the record of `{}`", planned.output))?;
        }
    }
    let missing = missing_inputs(planned, &stages.store);
    if !missing.is_empty() {
        terminal::note(format_args!("`{}` cannot run: its inputs are not in the store", planned.output));
        for (name, id) in missing {
            terminal::note(format_args!("  {name}: {id}"));
        }
        return Ok(exit::BAD_INPUT);
    }
    if let Some(signal) = interrupts.signal() {
        return Ok(exit::code_of_signal(signal));
    }
    let stage = planned.unit.spec.stage();
    let mut command = stages.command(stage, unit_file, shard);
    let program = stages.binaries.path(stage).display();
    // In a group of its own: Ctrl-C reaches only this program, which passes it on once.
    let child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start `{program}`"))?;
    let status = wait(child, interrupts)?;
    Ok(if status.success() { 0 } else { exit::code_of_status(status) })
}

fn missing_inputs<'a>(planned: &'a PlannedUnit, store: &Store) -> Vec<(&'a str, &'a ArtifactId)> {
    let inputs = planned.unit.inputs.iter().map(|(name, id)| (name.as_str(), id));
    inputs.filter(|(_, id)| !store.contains(id)).collect()
}

/// Waits for a stage; the first termination signal is passed on to it, the second one kills it.
fn wait(mut child: Child, interrupts: &Interrupts) -> anyhow::Result<ExitStatus> {
    let mut passed_on = 0;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a stage")? {
            return Ok(status);
        }
        if interrupts.count() > passed_on {
            passed_on += 1;
            // Fails only if the process has ended by itself.
            let _ = match rustix::process::Pid::from_raw(child.id() as i32) {
                Some(pid) if passed_on == 1 => {
                    rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                        .map_err(std::io::Error::from)
                }
                _ => child.kill(),
            };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn parse_range(text: &str) -> Result<Range<usize>, String> {
    let parse = || {
        let (start, end) = text.split_once("..")?;
        Some(start.parse().ok()?..end.parse().ok()?)
    };
    parse().ok_or_else(|| format!("expected two indices as in `10..20`, found `{text}`"))
}

fn parse_pack(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|&pack| pack > 0)
        .ok_or_else(|| format!("expected a number above 0, found `{text}`"))
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let parse = || {
        let (index, count) = text.split_once('/')?;
        let shard = Shard { index: index.parse().ok()?, count: count.parse().ok()? };
        (shard.index < shard.count).then_some(shard)
    };
    parse().ok_or_else(|| format!("expected an index below a count as in `0/4`, found `{text}`"))
}
