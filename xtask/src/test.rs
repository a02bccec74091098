//! `test`: sets up what the tests need, then checks everything. Continuous integration runs this and nothing else, with `--slurm` as a
//! second step.

use anyhow::{Context, bail};
use clap::Args;
use pipeline_spec::data_manifest::DataManifest;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::cluster::slurm::Unavailable;
use crate::{exit, fetch, plan_files, terminal, workspace};

/// Variable that tells the tests which Python reads the artifacts.
const PYTHON_VARIABLE: &str = "FLIER_TEST_PYTHON";
/// File in the environment that says what it was made from.
const REQUIREMENTS_DIGEST: &str = "requirements.blake3";

/// The tests that see which JPEG decoder runs.
const PIL_EXACT: &[&str] = &["--package", "clip-model", "--features", "pil-exact", "decode"];

/// Set up what the tests need, check format and lints, run every test
#[derive(Args)]
pub struct Test {
    /// Only the tests; no format check, no lints
    #[arg(long)]
    no_lints: bool,
    /// Only the tests on a real Slurm, which is installed from Debian's packages and started on this machine; exit code 69
    /// where it cannot be had
    #[arg(long)]
    slurm: bool,
    /// Take source archives from this mirror folder instead of their registry
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Passed on to `cargo nextest run` (or `cargo test`), for example names of tests
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Test {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let start = Instant::now();
        let python = python_environment()?;
        let (manifest, _) = DataManifest::read(&workspace::path("data-manifests/emoji.toml"))?;
        fetch::fetch(&manifest, &workspace::path("data"), self.from.as_deref())?;
        if self.slurm {
            install_slurm()?;
            cargo(&["build", "--release", "--workspace", "--bins"], &[], &python)?;
            let run: &[&str] = if has_nextest() { &["nextest", "run"] } else { &["test"] };
            let run = [run, &["--release", "-p", "xtask", "--test", "cluster"]].concat();
            cargo(&run, &self.arguments, &python)?;
            return Ok(ExitCode::SUCCESS);
        }
        if !self.no_lints {
            cargo(&["fmt", "--all", "--check"], &[], &python)?;
            cargo(
                &["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"],
                &[],
                &python,
            )?;
            // No target of the ordinary tests, so not one of all targets either.
            cargo(
                &["clippy", "--release", "-p", "xtask", "--test", "cluster", "--", "--deny", "warnings"],
                &[],
                &python,
            )?;
        }
        // The tests of whole pipelines start the stages' binaries, which cargo does not build for them. With the tests
        // in one build, because dependencies would be compiled again with other features.
        cargo(&["build", "--release", "--workspace", "--bins", "--tests"], &[], &python)?;
        let run: &[&str] = if has_nextest() {
            &["nextest", "run", "--release"]
        } else {
            terminal::note("cargo-nextest is not installed: running `cargo test`, which is slower");
            &["test", "--release"]
        };
        cargo(&[run, &["--workspace"]].concat(), &self.arguments, &python)?;
        // The other JPEG decoder. Of this crate alone: the feature changes it and what is built on it, no dependency.
        cargo(&[run, PIL_EXACT].concat(), &[], &python)?;
        cargo(&["test", "--release", "--workspace", "--doc"], &[], &python)?;
        let time = terminal::duration(start.elapsed());
        terminal::note(format_args!("everything passes, in {time}"));
        Ok(ExitCode::SUCCESS)
    }
}

/// Installs Slurm; the script says what is missing where that is not possible.
fn install_slurm() -> anyhow::Result<()> {
    let script = workspace::path("tests/cluster/slurm.sh");
    let status = Command::new(&script).arg("install").status();
    let status = status.with_context(|| format!("cannot start `{}`", script.display()))?;
    if status.code() == Some(exit::UNAVAILABLE.into()) {
        return Err(Unavailable::new("Slurm cannot be installed here; the reason is above").into());
    }
    if !status.success() {
        bail!("`{} install` failed: {status}; its messages are above", script.display());
    }
    Ok(())
}

fn has_nextest() -> bool {
    let output = workspace::cargo().args(["nextest", "--version"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs cargo in the workspace and tells how long it took.
fn cargo(arguments: &[&str], more: &[String], python: &Path) -> anyhow::Result<()> {
    let start = Instant::now();
    let line = format!(
        "cargo {}",
        arguments.iter().copied().chain(more.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    );
    terminal::note(format_args!("$ {line}"));
    let status = workspace::cargo().args(arguments).args(more).env(PYTHON_VARIABLE, python).status();
    let status = status.context("cannot start cargo")?;
    terminal::note(format_args!("{line}: {}", terminal::duration(start.elapsed())));
    if !status.success() {
        bail!("`{line}` failed; its messages are above");
    }
    Ok(())
}

/// The Python of an environment with the packages that the tests use, made again when the list of them changes.
fn python_environment() -> anyhow::Result<PathBuf> {
    let requirements = workspace::path("tests/python/requirements.txt");
    let list =
        std::fs::read(&requirements).with_context(|| format!("cannot read `{}`", requirements.display()))?;
    let digest = blake3::hash(&list).to_hex().to_string();
    let folder = std::path::absolute(workspace::path("target/python")).context("no current folder")?;
    let python = folder.join("bin/python");
    let digest_file = folder.join(REQUIREMENTS_DIGEST);
    let is_current = std::fs::read_to_string(&digest_file).is_ok_and(|found| found == digest);
    if is_current && python.exists() {
        return Ok(python);
    }
    terminal::note(format_args!("making a Python environment in `{}`", folder.display()));
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&folder);
    succeed(
        make,
        "make a Python environment; install Python 3 with its `venv` module (Debian: `python3-venv`)",
    )?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    install.arg(&requirements);
    succeed(install, "install the Python packages of the tests")?;
    // Last: an environment without it is made again.
    plan_files::replace(&digest_file, digest.as_bytes())?;
    Ok(python)
}

fn succeed(mut command: Command, what: &str) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot {what}"))?;
    if !status.success() {
        bail!("cannot {what}: {status}; the messages are above");
    }
    Ok(())
}
