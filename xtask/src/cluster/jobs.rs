//! Which missing units run in which task of which array.
//!
//! Units of one job read only what earlier jobs make, or what their own task makes before them. A job waits for the
//! whole of those that it reads from.

use pipeline_spec::{ArtifactKind, ClusterTable, Plan, Stage, StageSpec};
use std::collections::{BTreeMap, BTreeSet};

use crate::stage_command::Shard;
use crate::steps;
use crate::unit_state::UnitState;

/// One array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Which kinds of units.
    pub group: Group,
    /// The tasks, by array index.
    pub tasks: Vec<Task>,
    /// Jobs of this list to wait for, by index.
    pub after: Vec<usize>,
    /// Ids of jobs that were submitted before, to wait for.
    pub after_queued: BTreeSet<String>,
}

/// What one process does: some units one after the other, or one shard of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Indices into the plan, in its order.
    pub units: Vec<usize>,
    /// The part of the only unit.
    pub shard: Option<Shard>,
}

/// Units that are submitted together, in the order of what they read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    DatasetPack,
    PromptGen,
    SdLatents,
    Features,
    Trainer,
    Evaluator,
}

impl Group {
    /// The group of a kind.
    pub fn of(kind: ArtifactKind) -> Self {
        match kind {
            ArtifactKind::Images | ArtifactKind::FewshotSplits => Self::DatasetPack,
            ArtifactKind::Prompts => Self::PromptGen,
            ArtifactKind::Latents => Self::SdLatents,
            ArtifactKind::Features => Self::Features,
            ArtifactKind::Checkpoints => Self::Trainer,
            ArtifactKind::Predictions | ArtifactKind::Metrics => Self::Evaluator,
        }
    }

    /// The stage that computes its units.
    pub fn stage(self) -> Stage {
        match self {
            Self::DatasetPack => Stage::DatasetPack,
            Self::PromptGen => Stage::PromptGen,
            Self::SdLatents => Stage::SdLatents,
            Self::Features | Self::Trainer => Stage::Trainer,
            Self::Evaluator => Stage::Evaluator,
        }
    }

    /// Name in scripts and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Features => "features",
            other => other.stage().name(),
        }
    }
}

/// How units are cut into tasks and arrays.
pub struct Packing<'a> {
    /// The pipeline's table.
    pub cluster: &'a ClusterTable,
    /// Units of a task, whatever time they take.
    pub units_per_task: Option<usize>,
    /// Tasks of an array.
    pub max_tasks: usize,
}

/// The jobs for the units of `plan` that are neither done nor `queued` (unit index to the job that computes it).
///
/// # Errors
///
/// Fails if a unit reads one of a later group: the order of the groups is then wrong.
pub fn jobs(
    plan: &Plan,
    states: &[UnitState],
    queued: &BTreeMap<usize, String>,
    packing: &Packing<'_>,
) -> anyhow::Result<Vec<Job>> {
    let times = UnitTimes::new(plan, states);
    let mut groups: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
    for (index, planned) in plan.units.iter().enumerate() {
        if !states[index].is_done() && !queued.contains_key(&index) {
            groups.entry(Group::of(planned.output.kind)).or_default().push(index);
        }
    }
    let mut jobs: Vec<Job> = Vec::new();
    for (group, units) in groups {
        let (mut after, mut after_queued) = (BTreeSet::new(), BTreeSet::new());
        for &input in units.iter().flat_map(|&unit| &plan.units[unit].depends_on) {
            let of_input = Group::of(plan.units[input].output.kind);
            anyhow::ensure!(
                of_input <= group,
                "a unit of `{}` reads one of `{}`",
                group.name(),
                of_input.name()
            );
            if let Some(id) = queued.get(&input) {
                after_queued.insert(id.clone());
            } else if of_input != group {
                after.extend(
                    (0..jobs.len()).filter(|&job| jobs[job].group == of_input && !states[input].is_done()),
                );
            }
        }
        let tasks = tasks(plan, group, &units, packing, &times);
        for tasks in tasks.chunks(packing.max_tasks.max(1)) {
            let after = after.iter().copied().collect();
            jobs.push(Job { group, tasks: tasks.to_vec(), after, after_queued: after_queued.clone() });
        }
    }
    Ok(jobs)
}

fn tasks(plan: &Plan, group: Group, units: &[usize], packing: &Packing<'_>, times: &UnitTimes) -> Vec<Task> {
    let stated = packing.cluster.resources_of(group.stage()).unit_minutes;
    let target = packing.cluster.task_minutes();
    let minutes = |unit: usize| stated.or_else(|| times.minutes(plan, unit));
    let (mut tasks, mut open, mut open_minutes) = (Vec::new(), Vec::new(), 0.0);
    for connected in connected(plan, units) {
        let time: Option<f64> = connected.iter().map(|&unit| minutes(unit)).sum();
        if let [unit] = connected[..]
            && let Some(count) = num_shards(&plan.units[unit].unit.spec, time, target)
        {
            tasks.extend(
                (0..count).map(|index| Task { units: vec![unit], shard: Some(Shard { index, count }) }),
            );
            continue;
        }
        open.extend(connected);
        // Of a time that nobody knows, one at a time.
        open_minutes += time.unwrap_or(f64::INFINITY);
        let is_full = match packing.units_per_task {
            Some(count) => open.len() >= count,
            None => open_minutes >= target,
        };
        if is_full {
            tasks.push(Task { units: std::mem::take(&mut open), shard: None });
            open_minutes = 0.0;
        }
    }
    if !open.is_empty() {
        tasks.push(Task { units: open, shard: None });
    }
    tasks
}

/// How many shards a unit is cut into: so many that each takes `target` minutes, or each part its own if nobody knows.
/// `None` for a unit that has one part, or is short.
fn num_shards(spec: &StageSpec, minutes: Option<f64>, target: f64) -> Option<u32> {
    let StageSpec::Latents(spec) = spec else { return None };
    let wanted = minutes.map_or(spec.num_parts, |minutes| (minutes / target).ceil() as u32);
    Some(wanted.min(spec.num_parts)).filter(|&count| count > 1)
}

/// `units` in sets: two of which one reads the other are in one set. Sets and their members keep the plan's order.
fn connected(plan: &Plan, units: &[usize]) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    let mut set_of: BTreeMap<usize, usize> = BTreeMap::new();
    for &unit in units {
        let mut inputs: Vec<usize> =
            plan.units[unit].depends_on.iter().filter_map(|input| set_of.get(input).copied()).collect();
        inputs.sort_unstable();
        inputs.dedup();
        let set = inputs.first().copied().unwrap_or(sets.len());
        if set == sets.len() {
            sets.push(vec![]);
        }
        for &merged in inputs.iter().skip(1) {
            let moved = std::mem::take(&mut sets[merged]);
            moved.iter().for_each(|&member| _ = set_of.insert(member, set));
            sets[set].extend(moved);
        }
        sets[set].push(unit);
        set_of.insert(unit, set);
    }
    sets.retain(|set| !set.is_empty());
    sets.iter_mut().for_each(|set| set.sort_unstable());
    sets
}

/// How long units took that are done: the median over those of the same kind and method.
struct UnitTimes {
    minutes: BTreeMap<(ArtifactKind, String), f64>,
}

impl UnitTimes {
    fn new(plan: &Plan, states: &[UnitState]) -> Self {
        let mut times: BTreeMap<(ArtifactKind, String), Vec<u64>> = BTreeMap::new();
        for (index, state) in states.iter().enumerate() {
            if let UnitState::Done(record) = state {
                let step = (plan.units[index].output.kind, steps::detail(plan, index));
                times.entry(step).or_default().push(record.provenance.elapsed_ms);
            }
        }
        let median = |mut times: Vec<u64>| {
            times.sort_unstable();
            times[times.len() / 2] as f64 / 60_000.0
        };
        Self { minutes: times.into_iter().map(|(step, times)| (step, median(times))).collect() }
    }

    fn minutes(&self, plan: &Plan, unit: usize) -> Option<f64> {
        self.minutes.get(&(plan.units[unit].output.kind, steps::detail(plan, unit))).copied()
    }
}
