//! `reproduce`: from nothing to the report.

use anyhow::{Context, ensure};
use clap::Args;
use pipeline_spec::Plan;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use crate::binaries::Binaries;
use crate::interrupts::Interrupts;
use crate::options::{DataOption, PlanOptions, StageOptions};
use crate::pool::{Outcome, Pool};
use crate::stage_command::StageSettings;
use crate::unit_state::{UnitState, discard_record};
use crate::{exit, plan, plan_files, report, sources, steps, terminal, workspace};

/// Run a pipeline: fetch, build, compute what the store lacks, report
///
/// A unit whose artifact is in the store is not run again, so an interrupted run continues where it was.
#[derive(Args)]
pub struct Reproduce {
    /// Pipeline file [default: `pipelines/quickstart.toml`]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanOptions,
    #[command(flatten)]
    data: DataOption,
    #[command(flatten)]
    stages: StageOptions,
    /// Take source archives from this mirror folder instead of their registry
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Folder of the report [default: `reports/<pipeline name>`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Processes at the same time, if they have memory [default: the number of cores; 1 with `--device cuda...`]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Print the plan and every command line that would run; change nothing
    #[arg(long)]
    dry_run: bool,
    /// After a failure, still start what does not depend on it
    #[arg(long)]
    keep_going: bool,
    /// List every unit with its command line
    #[arg(long, short)]
    verbose: bool,
}

impl Reproduce {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let start = Instant::now();
        let plan = self.plan.plan(self.pipeline.as_ref())?;
        let store = self.plan.store.store();
        let states = UnitState::of_plan(&store, &plan);
        if self.dry_run {
            let folder = store.plan_dir(&plan.id());
            terminal::print(steps::table(&plan, &states));
            plan::print_commands(&plan, &states, &folder, &self.settings(self.expected_binaries()), true);
            return Ok(ExitCode::SUCCESS);
        }
        sources::fetch_for(&plan, &states, &self.plan.manifests(), &self.data.data(), self.from.as_deref())?;
        let (binaries, build_time) =
            Binaries::chosen(self.stages.bin_dir.as_deref(), self.stages.device.as_deref())?;
        let settings = self.settings(binaries);
        let plan_dir = plan_files::write(&plan, &store)?;
        terminal::note(format_args!("plan {}\n\n{}\n", plan_dir.display(), steps::table(&plan, &states)));
        if self.verbose {
            plan::print_commands(&plan, &states, &plan_dir, &settings, false);
        }
        let outcome = self.compute(&plan, &plan_dir, &settings, &states)?;
        if let Some(code) = outcome {
            return Ok(ExitCode::from(code));
        }
        let report_dir = self.out.clone().unwrap_or_else(|| report::folder(&plan));
        let has_changed = report::write_if_changed(&plan_dir, &settings, &report_dir)?;
        let total = start.elapsed();
        let note = if has_changed { "" } else { " (unchanged)" };
        terminal::note(format_args!(
            "{} in total, {} of it the build",
            terminal::duration(total),
            terminal::duration(build_time)
        ));
        terminal::print(format_args!("report: {}{note}", report::main_file(&report_dir).display()));
        Ok(ExitCode::SUCCESS)
    }

    fn expected_binaries(&self) -> Binaries {
        Binaries::expected_in(&self.stages.bin_dir.clone().unwrap_or_else(workspace::bin_dir))
    }

    fn settings(&self, binaries: Binaries) -> StageSettings {
        StageSettings::new(binaries, &self.plan, &self.data, self.stages.device.clone())
    }

    fn jobs(&self) -> usize {
        let on_gpu = self.stages.device.as_deref().is_some_and(|device| device.contains("cuda"));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.map_or(if on_gpu { 1 } else { cores }, usize::from)
    }

    /// Runs what is missing; gives the exit code if not everything is there afterwards.
    fn compute(
        &self,
        plan: &Plan,
        plan_dir: &std::path::Path,
        settings: &StageSettings,
        states: &[UnitState],
    ) -> anyhow::Result<Option<u8>> {
        if states.iter().all(UnitState::is_done) {
            return Ok(None);
        }
        for (planned, state) in plan.units.iter().zip(states) {
            let UnitState::Damaged(reason) = state else { continue };
            terminal::note(format_args!("damaged, to be computed again: {reason}"));
            discard_record(&settings.store, &planned.output)
                .with_context(|| format!("cannot remove the record of `{}`", planned.output))?;
        }
        let start = Instant::now();
        let interrupts = Interrupts::listen()?;
        let pool = Pool { plan, plan_dir, stages: settings, jobs: self.jobs(), keep_going: self.keep_going };
        let outcome = pool.run(states, &interrupts)?;
        let time = terminal::duration(start.elapsed());
        terminal::note(format_args!(
            "computed {} units in {time}{}",
            outcome.num_finished,
            memory_text(&outcome)
        ));
        if let Some(signal) = interrupts.signal() {
            terminal::note("stopped; the same command continues from here");
            return Ok(Some(exit::code_of_signal(signal)));
        }
        if let Some(&(_, code)) = outcome.failed.first() {
            let (failed, left) = (outcome.failed.len(), outcome.num_not_started);
            terminal::note(format_args!("{failed} units failed, {left} were not started"));
            return Ok(Some(code));
        }
        ensure!(outcome.num_not_started == 0, "{} units could not be started", outcome.num_not_started);
        Ok(None)
    }
}

fn memory_text(outcome: &Outcome) -> String {
    let peak = &outcome.memory;
    if peak.together_bytes == 0 {
        return String::new();
    }
    let (together, one) = (terminal::bytes(peak.together_bytes), terminal::bytes(peak.one_process_bytes()));
    format!("; peak memory {together} together, {one} in one process")
}
