//! `run`: one unit of a plan, or a few, as a task of a cluster does it.
//!
//! Units of one stage that follow each other share a process, and so what it has read.

use anyhow::{Context, bail};
use clap::Args;
use pipeline_spec::{ArtifactId, Plan, PlannedUnit, Stage, Store};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::binaries::Binaries;
use crate::interrupts::Interrupts;
use crate::options::{DataOption, PlanOptions, StageOptions};
use crate::stage_command::{Shard, StageSettings};
use crate::unit_log::UnitLog;
use crate::unit_state::{UnitState, discard_record};
use crate::worker::{self, Ended, Worker};
use crate::{exit, plan_files, terminal};

/// Variables in which schedulers give the index of an array task: Slurm, HyperQueue, Kubernetes, PBS.
const ARRAY_INDEX_VARIABLES: [&str; 4] =
    ["SLURM_ARRAY_TASK_ID", "HQ_TASK_ID", "JOB_COMPLETION_INDEX", "PBS_ARRAY_INDEX"];

/// Run units of a plan, one after the other
///
/// Without `--unit`, `--units` and `--array-index` the index comes from the first of SLURM_ARRAY_TASK_ID, HQ_TASK_ID,
/// JOB_COMPLETION_INDEX and PBS_ARRAY_INDEX that is set. A unit whose artifact is finished is done at once; one whose
/// inputs are missing ends with exit code 65. After a unit that failed the others still run; its exit code is that of
/// the command. Units of one stage that follow each other run in one process.
#[derive(Args)]
pub struct Run {
    /// Plan file, or the id of a plan in the store
    #[arg(long, short, value_name = "PLAN")]
    plan: PathBuf,
    /// One unit
    #[arg(long, value_name = "I", conflicts_with_all = ["units", "array_index"])]
    unit: Option<usize>,
    /// Several units: indices and ranges without their ends, as in `3,7,10..20`
    #[arg(long, value_name = "LIST", value_parser = parse_units, conflicts_with = "array_index")]
    units: Option<Units>,
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
        if units.iter().all(|&index| UnitState::of(&store, &plan.units[index].output).is_done()) {
            return Ok(ExitCode::SUCCESS);
        }
        let binaries = match &self.stages.bin_dir {
            Some(folder) => Binaries::in_folder(folder)?,
            None => Binaries::beside_this_program()?,
        };
        let settings = StageSettings::new(binaries, &self.options, &self.data, self.stages.device.clone());
        let folder = plan_files::write(&plan, &store)?;
        let interrupts = Interrupts::listen()?;
        let (shard, stages, interrupts) = (self.shard, &settings, &interrupts);
        let mut runner = Runner { shard, stages, interrupts, process: None };
        let mut first_failure = 0;
        for index in units {
            let start = Instant::now();
            let output = &plan.units[index].output;
            let unit_file = folder.join(plan_files::unit_file_name(index));
            let code = runner.run(&plan.units[index], &unit_file)?;
            let time = terminal::duration(start.elapsed());
            terminal::note(format_args!("unit {index} `{output}`: exit code {code} after {time}"));
            if let Some(signal) = interrupts.signal() {
                return Ok(ExitCode::from(exit::code_of_signal(signal)));
            }
            let log = UnitLog::new(&store, output);
            match code {
                0 if store.contains(output) => log.mark_success()?,
                0 => {} // A shard; the other parts are not there yet.
                code => log.mark_failure(code)?,
            }
            first_failure = if first_failure == 0 { code } else { first_failure };
        }
        Ok(ExitCode::from(first_failure))
    }

    fn chosen_units(&self, num_units: usize) -> anyhow::Result<Vec<usize>> {
        let units = match (self.unit, &self.units) {
            (Some(unit), _) => vec![unit],
            (None, Some(Units(units))) => units.clone(),
            (None, None) => {
                let index = match self.array_index {
                    Some(index) => index,
                    None => array_index_from_environment()?,
                };
                (index * self.pack..((index + 1) * self.pack).min(num_units.max(index * self.pack + 1)))
                    .collect()
            }
        };
        if let Some(unit) = units.iter().find(|&&unit| unit >= num_units) {
            bail!("unit {unit} is not in the plan, which has {num_units}");
        }
        Ok(units)
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

/// Runs units one after the other.
struct Runner<'a> {
    shard: Option<Shard>,
    stages: &'a StageSettings,
    interrupts: &'a Interrupts,
    /// The process of the last unit, with its stage.
    process: Option<(Stage, Worker)>,
}

impl Runner<'_> {
    /// Runs one unit unless it is done; gives its exit code.
    fn run(&mut self, planned: &PlannedUnit, unit_file: &Path) -> anyhow::Result<u8> {
        let store = &self.stages.store;
        match UnitState::of(store, &planned.output) {
            UnitState::Done(_) => return Ok(0),
            UnitState::Missing => {}
            UnitState::Damaged(reason) => {
                terminal::note(format_args!("damaged, to be computed again: {reason}"));
                discard_record(store, &planned.output)
                    .with_context(|| format!("cannot remove the record of `{}`", planned.output))?;
            }
        }
        let missing = missing_inputs(planned, store);
        if !missing.is_empty() {
            terminal::note(format_args!("`{}` cannot run: its inputs are not in the store", planned.output));
            for (name, id) in missing {
                terminal::note(format_args!("  {name}: {id}"));
            }
            return Ok(exit::BAD_INPUT);
        }
        if let Some(signal) = self.interrupts.signal() {
            return Ok(exit::code_of_signal(signal));
        }
        let stage = planned.unit.spec.stage();
        // Another stage's process ends before the next one starts.
        let mut worker = match self.process.take().filter(|(of, _)| *of == stage) {
            Some((_, worker)) => worker,
            None => Worker::start(&mut self.stages.command(stage, self.shard))?,
        };
        worker.give(unit_file);
        match wait(&mut worker, self.interrupts)? {
            Ended::Unit(code) => {
                self.process = Some((stage, worker));
                Ok(code)
            }
            Ended::Process(status) => Ok(worker::code_without_answer(status)),
        }
    }
}

fn missing_inputs<'a>(planned: &'a PlannedUnit, store: &Store) -> Vec<(&'a str, &'a ArtifactId)> {
    let inputs = planned.unit.inputs.iter().map(|(name, id)| (name.as_str(), id));
    inputs.filter(|(_, id)| !store.contains(id)).collect()
}

/// Signals this soon after the first one are the same request: a scheduler that takes a node back signals every process of
/// a task, and the task's script passes its own signal on.
const SAME_REQUEST: Duration = Duration::from_secs(2);

/// Waits for a unit; the first termination signal is passed on to its process, a later one kills it.
fn wait(worker: &mut Worker, interrupts: &Interrupts) -> anyhow::Result<Ended> {
    let mut seen = 0;
    let mut asked_at: Option<Instant> = None;
    loop {
        if let Some(ended) = worker.look()? {
            return Ok(ended);
        }
        if interrupts.count() > seen {
            seen = interrupts.count();
            match asked_at {
                None => {
                    asked_at = Some(Instant::now());
                    worker.signal(Signal::TERM);
                }
                Some(time) if time.elapsed() < SAME_REQUEST => {}
                Some(_) => worker.signal(Signal::KILL),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Indices in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Units(Vec<usize>);

fn parse_units(text: &str) -> Result<Units, String> {
    // More than any plan has; a slip of the pen must not fill the memory.
    const MAX_UNITS: usize = 10_000_000;
    let mut units = Vec::new();
    for item in text.split(',') {
        let parse = || match item.split_once("..") {
            None => item.parse().ok().map(|unit: usize| unit..unit + 1),
            Some((start, end)) => Some(start.parse().ok()?..end.parse().ok()?),
        };
        let range = parse().filter(|range| range.start < range.end && range.end <= MAX_UNITS);
        units.extend(range.ok_or_else(|| format!("expected indices as in `3,7,10..20`, found `{item}`"))?);
    }
    Ok(Units(units))
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
