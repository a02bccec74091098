//! `submit`: the missing units of a pipeline as array jobs of Slurm, or as processes on this machine.

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use pipeline_spec::{ClusterTable, Plan};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::binaries::Binaries;
use crate::cluster::jobs::{self, Job, Packing};
use crate::cluster::local::{self, LocalJob};
use crate::cluster::records::{self, JobRecord, Submitted};
use crate::cluster::script::{self, Scripts};
use crate::cluster::slurm::{self, Unavailable};
use crate::interrupts::Interrupts;
use crate::options::{DataOption, PlanOptions, StageOptions};
use crate::stage_command::StageSettings;
use crate::unit_state::UnitState;
use crate::{plan_files, sources, terminal, workspace};

/// Slurm's limit where nobody changed it.
const DEFAULT_MAX_ARRAY_SIZE: usize = 1001;

/// Submit the units of a pipeline that are neither done nor queued
///
/// Units become tasks of array jobs, one chain of arrays that wait for each other. Resources come from the table
/// `[cluster]` of the pipeline. Submitting again submits what is still missing.
#[derive(Args)]
pub struct Submit {
    /// Pipeline file [default: `pipelines/quickstart.toml`]
    pipeline: Option<PathBuf>,
    /// Who runs the tasks
    #[arg(long, value_enum)]
    engine: EngineName,
    /// Print every script and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Units in a task, instead of as many as take `task_minutes`
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pack: Option<u32>,
    /// Tasks in an array, instead of Slurm's `MaxArraySize`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_array_size: Option<u32>,
    /// Processes at the same time of the local engine [default: the number of cores]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Take source archives from this mirror folder instead of their registry
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanOptions,
    #[command(flatten)]
    data: DataOption,
    #[command(flatten)]
    stages: StageOptions,
}

/// Who runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    /// Slurm, by `sbatch`
    Slurm,
    /// This machine, several processes at a time
    Local,
}

impl Submit {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let plan = self.plan.plan(self.pipeline.as_ref())?;
        let stages = self.stage_settings()?;
        let jobs_dir = absolute(&stages.store.jobs_dir(&plan.id()))?;
        if self.dry_run {
            return self.print(&plan, &stages, &jobs_dir);
        }
        let folder = jobs_dir.join("logs");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        let lock = records::lock(&jobs_dir)?;
        let jobs = self.jobs(&plan, &stages)?;
        if jobs.is_empty() {
            terminal::note("nothing to submit: every unit is done or queued");
            return Ok(ExitCode::SUCCESS);
        }
        let states = UnitState::of_plan(&stages.store, &plan);
        sources::fetch_for(&plan, &states, &stages.manifests, &stages.data, self.from.as_deref())?;
        plan_files::write(&plan, &stages.store)?;
        let cluster = plan.pipeline.cluster.clone().unwrap_or_default();
        let scripts = self.scripts(&plan, &cluster, &stages)?;
        match self.engine {
            EngineName::Slurm => submit(&jobs, &scripts, &jobs_dir),
            EngineName::Local => {
                drop(lock);
                self.run_here(&jobs, &scripts, &jobs_dir)
            }
        }
    }

    /// What is to be submitted.
    fn jobs(&self, plan: &Plan, stages: &StageSettings) -> anyhow::Result<Vec<Job>> {
        let states = UnitState::of_plan(&stages.store, plan);
        let queued = match self.engine {
            EngineName::Slurm => queued(plan, &states, stages)?,
            EngineName::Local => BTreeMap::new(),
        };
        let done = states.iter().filter(|state| state.is_done()).count();
        terminal::note(format_args!("{} units: {done} done, {} queued", states.len(), queued.len()));
        let max_tasks = match (self.max_array_size, self.engine) {
            (Some(size), _) => size as usize,
            (None, EngineName::Local) => usize::MAX,
            (None, EngineName::Slurm) => slurm::max_array_size().or_else(|error| self.assumed_size(error))?,
        };
        let default = ClusterTable::default();
        let packing = Packing {
            cluster: plan.pipeline.cluster.as_ref().unwrap_or(&default),
            units_per_task: self.pack.map(|pack| pack as usize),
            max_tasks,
        };
        jobs::jobs(plan, &states, &queued, &packing)
    }

    /// A dry run works where Slurm is not.
    fn assumed_size(&self, error: anyhow::Error) -> anyhow::Result<usize> {
        if !self.dry_run || !error.is::<Unavailable>() {
            return Err(error);
        }
        terminal::note(format_args!("{error:#}; assuming a MaxArraySize of {DEFAULT_MAX_ARRAY_SIZE}"));
        Ok(DEFAULT_MAX_ARRAY_SIZE)
    }

    fn print(&self, plan: &Plan, stages: &StageSettings, jobs_dir: &Path) -> anyhow::Result<ExitCode> {
        let jobs = self.jobs(plan, stages)?;
        let cluster = plan.pipeline.cluster.clone().unwrap_or_default();
        let scripts = self.scripts(plan, &cluster, stages)?;
        for (index, job) in jobs.iter().enumerate() {
            let after = job.after_queued.iter().cloned();
            let after: Vec<String> =
                after.chain(job.after.iter().map(|input| format!("<id of job {}>", input + 1))).collect();
            let dependency = slurm::dependency(&after).map_or(String::new(), |option| format!(" {option}"));
            terminal::print(format_args!(
                "### in {}: sbatch --parsable{dependency}\n{}",
                jobs_dir.display(),
                scripts.text(job, index, jobs.len())
            ));
        }
        terminal::note(format_args!("dry run: {} jobs, nothing submitted", jobs.len()));
        Ok(ExitCode::SUCCESS)
    }

    fn run_here(&self, jobs: &[Job], scripts: &Scripts<'_>, folder: &Path) -> anyhow::Result<ExitCode> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let local_job = |(index, job): (usize, &Job)| LocalJob {
            name: script::job_name(scripts.plan, job),
            script: scripts.text(job, index, jobs.len()),
            num_tasks: job.tasks.len(),
            after: job.after.clone(),
            gpus: scripts.cluster.resources_of(job.group.stage()).gpus.unwrap_or(0),
        };
        let jobs: Vec<LocalJob> = jobs.iter().enumerate().map(local_job).collect();
        let interrupts = Interrupts::listen()?;
        local::run(&jobs, folder, self.jobs.map_or(cores, usize::from), &interrupts).map(ExitCode::from)
    }

    /// How stages are started, with absolute paths: a task runs in another folder.
    fn stage_settings(&self) -> anyhow::Result<StageSettings> {
        let bin_dir = self.stages.bin_dir.as_deref().map(absolute).transpose()?;
        let binaries = match bin_dir {
            None if self.dry_run => Binaries::expected_in(&absolute(&workspace::bin_dir())?),
            bin_dir => Binaries::chosen(bin_dir.as_deref(), self.stages.device.as_deref())?.0,
        };
        let mut stages = StageSettings::new(binaries, &self.plan, &self.data, self.stages.device.clone());
        stages.store = pipeline_spec::Store::new(absolute(stages.store.root())?);
        for path in [&mut stages.weights, &mut stages.manifests, &mut stages.data] {
            *path = absolute(path)?;
        }
        Ok(stages)
    }

    fn scripts<'a>(
        &self,
        plan: &'a Plan,
        cluster: &'a ClusterTable,
        stages: &'a StageSettings,
    ) -> anyhow::Result<Scripts<'a>> {
        let stage = stages.binaries.path(pipeline_spec::Stage::Trainer);
        let scripts = Scripts {
            plan,
            plan_file: stages.store.plan_dir(&plan.id()).join("plan.json"),
            cluster,
            stages,
            bin_dir: stage.parent().map(Path::to_path_buf).unwrap_or_default(),
            program: std::env::current_exe().context("cannot tell where this program lies")?,
            folder: std::env::current_dir().context("cannot tell the current folder")?,
        };
        let paths = [stages.store.root(), &stages.weights, &stages.manifests, &stages.data, &scripts.bin_dir];
        for path in paths.into_iter().chain([scripts.program.as_path(), scripts.folder.as_path()]) {
            let is_text = path.to_str().is_some_and(|text| !text.contains(char::is_control));
            ensure!(is_text, "`{}` cannot stand in a script; use a path of printable text", path.display());
        }
        Ok(scripts)
    }
}

/// The units of `plan` that a queued job will compute, with its id.
fn queued(
    plan: &Plan,
    states: &[UnitState],
    stages: &StageSettings,
) -> anyhow::Result<BTreeMap<usize, String>> {
    let missing = (0..plan.units.len()).filter(|&index| !states[index].is_done());
    let wanted = missing.clone().map(|index| &plan.units[index].output).collect();
    let mut submitted = Submitted::read(&stages.store, &wanted)?;
    if !submitted.is_empty() {
        submitted.ask()?;
    }
    let job = |index: usize| Some((index, submitted.active(&plan.units[index].output)?.0.job.clone()));
    Ok(missing.filter_map(job).collect())
}

/// Submits the jobs in order. A job that Slurm has taken is recorded at once, whatever becomes of the next.
fn submit(jobs: &[Job], scripts: &Scripts<'_>, folder: &Path) -> anyhow::Result<ExitCode> {
    let mut ids: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        let text = scripts.text(job, index, jobs.len());
        let after = job.after_queued.iter().cloned();
        let after: Vec<String> = after.chain(job.after.iter().map(|&input| ids[input].clone())).collect();
        let id = slurm::submit(&text, folder, &after)
            .with_context(|| format!("submitted {index} of {} jobs; submit again to go on", jobs.len()))?;
        let record = JobRecord::write(folder, id.clone(), scripts.plan, job, &text)?;
        let units = job.tasks.iter().map(|task| task.units.len()).sum::<usize>();
        let numbers = [job.tasks.len(), units].map(|n| n.to_string());
        rows.push([id.clone(), record.name].into_iter().chain(numbers).chain([after.join(" ")]).collect());
        ids.push(id);
    }
    terminal::print(terminal::table(&["job", "name", "tasks", "units", "after"], &[2, 3], &rows));
    terminal::note(format_args!("logs in {}", folder.join("logs").display()));
    Ok(ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot make `{}` absolute", path.display()))
}
