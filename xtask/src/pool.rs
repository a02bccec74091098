//! The local pool: runs the missing units of a plan, each after everything it reads.
//!
//! A process computes units of its stage one after the other, so that they share what it has read. A process that waits
//! goes on with the next unit of its stage that is ready; else it makes room for one of another stage.

use pipeline_spec::{Plan, PlannedUnit, Stage, StageSpec};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::interrupts::Interrupts;
use crate::memory::Memory;
use crate::progress::Progress;
use crate::stage_command::{Shard, StageSettings};
use crate::unit_log::UnitLog;
use crate::unit_state::UnitState;
use crate::worker::{self, Ended, Worker};
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
    pub memory: Memory,
}

/// The pool's settings.
pub struct Pool<'a> {
    /// What to run.
    pub plan: &'a Plan,
    /// Folder with the plan's unit files.
    pub plan_dir: &'a Path,
    /// How to start a stage.
    pub stages: &'a StageSettings,
    /// Processes at the same time, if they have memory.
    pub jobs: usize,
    /// Whether units that do not depend on a failed one are still started.
    pub keep_going: bool,
}

/// What a process is given: a unit, or a shard of it. The order is that of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Task {
    unit: usize,
    shard: Option<Shard>,
}

/// A process of a stage.
struct Process {
    stage: Stage,
    shard: Option<Shard>,
    worker: Worker,
    /// What it computes.
    task: Option<Task>,
}

/// Where a unit stands.
struct UnitProgress {
    /// Units to wait for.
    num_waiting_for: usize,
    /// Tasks that run or are ready.
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
    processes: Vec<Process>,
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
            while may_start && run.start_next()? {}
            let is_idle = run.processes.iter().all(|process| process.task.is_none());
            if is_idle && (run.processes.is_empty() || !may_start || run.ready.is_empty()) {
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
            processes: vec![],
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

    /// Adds the tasks of `unit`: one, or as many shards as can run at once where the unit has several parts.
    fn make_ready(&mut self, unit: usize) {
        let shards = shards(&self.pool.plan.units[unit].unit.spec, self.pool.jobs);
        self.units[unit].num_tasks = shards.len();
        self.ready.extend(shards.into_iter().map(|shard| Task { unit, shard }));
    }

    /// Starts a task that is ready, if there is a place for it.
    fn start_next(&mut self) -> anyhow::Result<bool> {
        for index in 0..self.processes.len() {
            let Process { stage, shard, ref task, ref worker } = self.processes[index];
            if task.is_some() || worker.is_dismissed() {
                continue;
            }
            let is_alike = |task: &&Task| self.stage(task) == stage && task.shard == shard;
            if let Some(&task) = self.ready.iter().find(is_alike) {
                self.give(index, task)?;
                return Ok(true);
            }
        }
        let Some(&task) = self.ready.first() else { return Ok(false) };
        let stage = self.stage(&task);
        let running = self.processes.iter().map(|process| (process.stage, process.worker.id()));
        if self.processes.len() >= self.pool.jobs || !self.outcome.memory.has_room(stage, running) {
            // It waits, and nothing is ready for it.
            if let Some(waiting) = self.processes.iter_mut().find(|process| process.task.is_none()) {
                waiting.worker.dismiss();
            }
            return Ok(false);
        }
        let worker = self.start(stage, task)?;
        self.processes.push(Process { stage, shard: task.shard, worker, task: None });
        self.give(self.processes.len() - 1, task)?;
        Ok(true)
    }

    fn stage(&self, task: &Task) -> Stage {
        self.pool.plan.units[task.unit].unit.spec.stage()
    }

    /// Starts a process for `task` and others like it. What it writes before its first unit goes to the log of `task`.
    fn start(&self, stage: Stage, task: Task) -> anyhow::Result<Worker> {
        let mut command = self.pool.stages.command(stage, task.shard);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command
            .arg("--unit-logs")
            .env("RAYON_NUM_THREADS", (cores / self.pool.jobs).max(1).to_string())
            .stderr(self.log(task).append()?);
        Worker::start(&mut command)
    }

    fn log(&self, task: Task) -> UnitLog {
        UnitLog::new(&self.pool.stages.store, &self.pool.plan.units[task.unit].output)
    }

    /// Gives a task that is ready to the process `index`, which waits.
    fn give(&mut self, index: usize, task: Task) -> anyhow::Result<()> {
        let unit_file = self.pool.plan_dir.join(plan_files::unit_file_name(task.unit));
        let is_first = self.units[task.unit].started_at.is_none();
        let line = self.pool.stages.line(self.stage(&task), &unit_file, task.shard);
        self.log(task).begin(is_first, &line)?;
        let process = &mut self.processes[index];
        process.worker.give(&unit_file);
        process.task = Some(task);
        self.ready.remove(&task);
        self.units[task.unit].started_at.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Takes in the tasks and the processes that ended.
    fn collect(&mut self) -> anyhow::Result<()> {
        let mut index = 0;
        while index < self.processes.len() {
            let process = &mut self.processes[index];
            let (task, code) = match process.worker.look()? {
                None => {
                    index += 1;
                    continue;
                }
                Some(Ended::Unit(code)) => (process.task.take(), code),
                Some(Ended::Process(status)) => {
                    (self.processes.swap_remove(index).task, worker::code_without_answer(status))
                }
            };
            if let Some(task) = task {
                self.end_task(task, code)?;
            }
        }
        Ok(())
    }

    fn end_task(&mut self, task: Task, code: u8) -> anyhow::Result<()> {
        let planned = &self.pool.plan.units[task.unit];
        let unit = &mut self.units[task.unit];
        unit.num_tasks -= 1;
        if code != 0 {
            unit.exit_code.get_or_insert(code);
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
            // Every part is there; one more task writes the record.
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
        for process in &self.processes {
            process.worker.signal(signal);
        }
    }

    fn sample(&mut self) {
        let (pool, processes) = (self.pool, &self.processes);
        self.outcome.memory.sample(processes.iter().map(|process| (process.stage, process.worker.id())));
        self.progress.show(|| {
            let units: BTreeSet<usize> = processes.iter().filter_map(|p| Some(p.task?.unit)).collect();
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
