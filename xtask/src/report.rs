//! `report`: tables, curves and pictures of a pipeline's results, written by the evaluator.

use anyhow::{Context, bail};
use clap::Args;
use pipeline_spec::{Plan, Stage};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::binaries::Binaries;
use crate::options::{DataOption, PlanOptions, StageOptions};
use crate::stage_command::StageSettings;
use crate::{exit, plan_files, terminal, workspace};

/// Name of the file that says what a report was made from.
const INPUTS_FILE: &str = ".inputs.blake3";

/// Write the report of a pipeline whose units are computed
#[derive(Args)]
pub struct Report {
    /// Pipeline file [default: `pipelines/quickstart.toml`]
    pipeline: Option<PathBuf>,
    /// Folder of the report [default: `reports/<pipeline name>`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanOptions,
    #[command(flatten)]
    data: DataOption,
    #[command(flatten)]
    stages: StageOptions,
}

impl Report {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let plan = self.plan.plan(self.pipeline.as_ref())?;
        let store = self.plan.store.store();
        let missing = plan.units.iter().filter(|planned| !store.contains(&planned.output)).count();
        if missing > 0 {
            terminal::note(format_args!(
                "{missing} of {} units are not in the store; run `cargo xtask reproduce` first",
                plan.units.len()
            ));
            return Ok(ExitCode::from(exit::BAD_INPUT));
        }
        let (binaries, _) = Binaries::chosen(self.stages.bin_dir.as_deref(), self.stages.device.as_deref())?;
        let plan_dir = plan_files::write(&plan, &store)?;
        let settings = StageSettings::new(binaries, &self.plan, &self.data, self.stages.device);
        let out = self.out.unwrap_or_else(|| folder(&plan));
        write(&plan_dir, &settings, &out)?;
        terminal::print(format_args!("report: {}", main_file(&out).display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// Folder of the report of `plan`.
pub fn folder(plan: &Plan) -> PathBuf {
    let name = plan.pipeline.name.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "-");
    workspace::output_path("reports").join(name.trim_start_matches('.'))
}

/// What to open.
pub fn main_file(out: &Path) -> PathBuf {
    out.join("report.html")
}

/// Writes the report unless it was made from the same artifacts by the same evaluator; tells whether it did.
pub fn write_if_changed(plan_dir: &Path, stages: &StageSettings, out: &Path) -> anyhow::Result<bool> {
    let digest = inputs_digest(plan_dir, stages)?;
    if main_file(out).is_file()
        && std::fs::read_to_string(out.join(INPUTS_FILE)).is_ok_and(|found| found == digest)
    {
        return Ok(false);
    }
    write(plan_dir, stages, out)?;
    Ok(true)
}

fn write(plan_dir: &Path, stages: &StageSettings, out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create `{}`", out.display()))?;
    let program = stages.binaries.path(Stage::Evaluator);
    let mut command = Command::new(program);
    command.arg("report").arg("--plan").arg(plan_dir.join("plan.json"));
    command.arg("--store").arg(stages.store.root()).arg("--out").arg(out);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start `{}`", program.display()))?;
    if !status.success() {
        bail!("the report failed with exit code {}; its messages are above", exit::code_of_status(status));
    }
    plan_files::replace(&out.join(INPUTS_FILE), inputs_digest(plan_dir, stages)?.as_bytes())
}

/// One digest over the evaluator, the plan and the records of all its artifacts.
fn inputs_digest(plan_dir: &Path, stages: &StageSettings) -> anyhow::Result<String> {
    let plan_path = plan_dir.join("plan.json");
    let plan = Plan::read(&plan_path)?;
    let records = plan.units.iter().map(|planned| stages.store.record_path(&planned.output));
    let mut hasher = blake3::Hasher::new();
    for path in [stages.binaries.path(Stage::Evaluator).to_path_buf(), plan_path].into_iter().chain(records) {
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        hasher.update(blake3::hash(&bytes).as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}
