//! The local pool: runs the missing units of a plan as processes, each after everything it reads.

use anyhow::Context;
use pipeline_spec::{Plan, PlannedUnit, StageSpec};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::interrupts::Interrupts;
use crate::memory::PeakMemory;
use crate::progress::Progress;
use crate::stage_command::{Shard, StageSettings};
use crate::unit_log::UnitLog;
use crate::unit_state::UnitState;
use crate::{exit, plan_files, steps};

/// How often the pool looks at its processes.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How often it looks at their memory and redraws the progress.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Failures whose logs are shown; more of them tell nothing new.
const MAX_LOGS: usize = 5;
/// Lines of a log's end that are shown.
const NUM_LOG_LINES: usize = 20;

/// What a run of the pool came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Units that finished.
    pub num_finished: usize,
    /// Units that failed, with their exit codes, in the order of their ends.
    pub failed: Vec<(usize, u8)>,
    /// Units that were not started because of a failure or a signal.
    pub num_not_started: usize,
    /// Memory of the processes.
    pub peak_memory: PeakMemory,
}

/// The pool's settings.
pub struct Pool<'a> {
    /// What to run.
    pub plan: &'a Plan,
    /// Folder with the plan's unit files.
    pub plan_dir: &'a Path,
    /// How to start a stage.
    pub stages: &'a StageSettings,
    /// Processes at the same time.
    pub jobs: usize,
    /// Whether units that do not depend on a failed one are still started.
    pub keep_going: bool,
}

/// One process to start: a unit, or a shard of it. The order is that of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Task {
    unit: usize,
    shard: Option<Shard>,
}

struct Running {
    task: Task,
    child: Child,
}

/// Where a unit stands.
struct UnitProgress {
    /// Units to wait for.
    num_waiting_for: usize,
    /// Processes started or to be started.
    num_tasks: usize,
    started_at: Option<Instant>,
    exit_code: Option<u8>,
}

/// The changing state of one run.
struct Run<'a> {
    pool: &'a Pool<'a>,
    units: Vec<UnitProgress>,
    readers: Vec<Vec<usize>>,
    ready: BTreeSet<Task>,
    running: Vec<Running>,
    progress: Progress,
    outcome: Outcome,
    is_stopping: bool,
}

impl Pool<'_> {
    /// Runs every unit whose state is not done.
    ///
    /// # Errors
    ///
    /// Fails if a process cannot be started or a log cannot be written; a unit that fails is part of the outcome.
    pub fn run(&self, states: &[UnitState], interrupts: &Interrupts) -> anyhow::Result<Outcome> {
        let mut run = Run::new(self, states);
        let mut last_sample = Instant::now();
        let mut signals_passed_on = 0;
        loop {
            while signals_passed_on < interrupts.count() {
                signals_passed_on += 1;
                run.pass_on_signal(signals_passed_on);
            }
            let may_start = signals_passed_on == 0 && (self.keep_going || run.outcome.failed.is_empty());
            while may_start && run.running.len() < self.jobs {
                let Some(task) = run.ready.pop_first() else { break };
                run.start(task)?;
            }
            if run.running.is_empty() {
                break;
            }
            run.collect()?;
            if last_sample.elapsed() >= SAMPLE_INTERVAL {
                last_sample = Instant::now();
                run.sample();
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        run.progress.clear();
        let to_run = states.iter().filter(|state| !state.is_done()).count();
        run.outcome.num_not_started = to_run - run.outcome.num_finished - run.outcome.failed.len();
        Ok(run.outcome)
    }
}

impl<'a> Run<'a> {
    fn new(pool: &'a Pool<'a>, states: &[UnitState]) -> Self {
        let units = &pool.plan.units;
        let to_run: Vec<usize> = (0..units.len()).filter(|&i| !states[i].is_done()).collect();
        let mut readers = vec![Vec::new(); units.len()];
        let waiting =
            |planned: &PlannedUnit| planned.depends_on.iter().filter(|&&d| !states[d].is_done()).count();
        for &unit in &to_run {
            for &input in &units[unit].depends_on {
                readers[input].push(unit);
            }
        }
        let progress = Progress::new(to_run.iter().map(|&i| step_name(pool.plan, i)), pool.jobs);
        let unit_progress = units.iter().map(|planned| UnitProgress {
            num_waiting_for: waiting(planned),
            num_tasks: 0,
            started_at: None,
            exit_code: None,
        });
        let mut run = Self {
            pool,
            units: unit_progress.collect(),
            readers,
            ready: BTreeSet::new(),
            running: vec![],
            progress,
            outcome: Outcome::default(),
            is_stopping: false,
        };
        for unit in to_run {
            if run.units[unit].num_waiting_for == 0 {
                run.make_ready(unit);
            }
        }
        run
    }

    /// Adds the processes of `unit`: one, or as many shards as can run at once where the unit has several parts.
    fn make_ready(&mut self, unit: usize) {
        let shards = shards(&self.pool.plan.units[unit].unit.spec, self.pool.jobs);
        self.units[unit].num_tasks = shards.len();
        self.ready.extend(shards.into_iter().map(|shard| Task { unit, shard }));
    }

    fn start(&mut self, task: Task) -> anyhow::Result<()> {
        let Pool { plan, plan_dir, stages, jobs, .. } = *self.pool;
        let planned = &plan.units[task.unit];
        let unit_file = plan_dir.join(plan_files::unit_file_name(task.unit));
        let stage = planned.unit.spec.stage();
        let log = UnitLog::new(&stages.store, &planned.output);
        let is_first = self.units[task.unit].started_at.is_none();
        let output = log.open(is_first, &stages.line(stage, &unit_file, task.shard))?;
        let mut command = stages.command(stage, &unit_file, task.shard);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command
            .env("RAYON_NUM_THREADS", (cores / jobs).max(1).to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot use a log twice")?)
            .stderr(output)
            // Ctrl-C reaches only this program, which passes it on once.
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{}`", stages.binaries.path(stage).display()))?;
        self.units[task.unit].started_at.get_or_insert_with(Instant::now);
        self.running.push(Running { task, child });
        Ok(())
    }

    /// Takes in the processes that ended.
    fn collect(&mut self) -> anyhow::Result<()> {
        let mut index = 0;
        while index < self.running.len() {
            match self.running[index].child.try_wait().context("cannot wait for a stage")? {
                Some(status) => {
                    let running = self.running.swap_remove(index);
                    self.end_task(running.task, status)?;
                }
                None => index += 1,
            }
        }
        Ok(())
    }

    fn end_task(&mut self, task: Task, status: ExitStatus) -> anyhow::Result<()> {
        let planned = &self.pool.plan.units[task.unit];
        let unit = &mut self.units[task.unit];
        unit.num_tasks -= 1;
        if !status.success() {
            unit.exit_code.get_or_insert(exit::code_of_status(status));
            // Shards that wait would fail alike.
            let waiting = self.ready.iter().filter(|t| t.unit == task.unit).count();
            self.ready.retain(|t| t.unit != task.unit);
            unit.num_tasks -= waiting;
        }
        if unit.num_tasks > 0 {
            return Ok(());
        }
        let is_committed = self.pool.stages.store.contains(&planned.output);
        if unit.exit_code.is_none() && !is_committed && task.shard.is_some() {
            // Every part is there; one more process writes the record.
            unit.num_tasks = 1;
            self.ready.insert(Task { unit: task.unit, shard: None });
            return Ok(());
        }
        let elapsed = unit.started_at.map_or(Duration::ZERO, |start| start.elapsed());
        let exit_code = unit.exit_code.or((!is_committed).then_some(exit::FAILED));
        self.progress.finish_unit(&step_name(self.pool.plan, task.unit), elapsed);
        match exit_code {
            None => self.end_success(task.unit),
            Some(code) => self.end_failure(task.unit, code),
        }
    }

    fn end_success(&mut self, unit: usize) -> anyhow::Result<()> {
        UnitLog::new(&self.pool.stages.store, &self.pool.plan.units[unit].output).mark_success()?;
        self.outcome.num_finished += 1;
        for reader in std::mem::take(&mut self.readers[unit]) {
            self.units[reader].num_waiting_for -= 1;
            if self.units[reader].num_waiting_for == 0 {
                self.make_ready(reader);
            }
        }
        Ok(())
    }

    fn end_failure(&mut self, unit: usize, code: u8) -> anyhow::Result<()> {
        let output = &self.pool.plan.units[unit].output;
        let log = UnitLog::new(&self.pool.stages.store, output);
        self.outcome.failed.push((unit, code));
        if self.is_stopping {
            return Ok(()); // Stopped on request, which is no failure of the unit.
        }
        log.mark_failure(code)?;
        let path = log.path().display();
        self.progress.note(format_args!("unit {unit} `{output}` failed with exit code {code}, log {path}"));
        if self.outcome.failed.len() <= MAX_LOGS {
            for line in log.last_lines(NUM_LOG_LINES) {
                self.progress.note(format_args!("    {line}"));
            }
        }
        Ok(())
    }

    /// The first signal asks the processes to stop, the second one ends them.
    fn pass_on_signal(&mut self, number: usize) {
        self.is_stopping = true;
        let (signal, text) = match number {
            1 => (Signal::TERM, "stopping; once more to stop at once"),
            _ => (Signal::KILL, "stopping at once"),
        };
        self.progress.note(text);
        for running in &self.running {
            if let Some(pid) = Pid::from_raw(running.child.id() as i32) {
                // Fails only if the process has ended by itself.
                let _ = kill_process_group(pid, signal);
            }
        }
    }

    fn sample(&mut self) {
        self.outcome.peak_memory.sample(self.running.iter().map(|running| running.child.id()));
        let (pool, running) = (self.pool, &self.running);
        self.progress.show(|| {
            let units: BTreeSet<usize> = running.iter().map(|running| running.task.unit).collect();
            units.into_iter().map(|unit| running_text(pool, unit)).collect::<Vec<_>>().join(", ")
        });
    }
}

/// The shards that a unit is run in: one for each process where it is cut into parts that take long.
fn shards(spec: &StageSpec, jobs: usize) -> Vec<Option<Shard>> {
    let count = match spec {
        StageSpec::Latents(spec) => spec.num_parts.min(u32::try_from(jobs).unwrap_or(u32::MAX)),
        _ => 1,
    };
    if count <= 1 {
        return vec![None];
    }
    (0..count).map(|index| Some(Shard { index, count })).collect()
}

fn step_name(plan: &Plan, unit: usize) -> String {
    format!("{} {}", plan.units[unit].output.kind, steps::detail(plan, unit))
}

/// A running unit for people, with its committed parts where it has several.
fn running_text(pool: &Pool<'_>, unit: usize) -> String {
    let planned = &pool.plan.units[unit];
    let name = format!("{} {}", planned.output.kind, planned.output.slug);
    let StageSpec::Latents(spec) = &planned.unit.spec else { return name };
    let parts = std::fs::read_dir(pool.stages.store.commit_dir(&planned.output)).map_or(0, Iterator::count);
    format!("{name} (part {parts} of {})", spec.num_parts)
}
