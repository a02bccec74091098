//! The binaries of the stages: built by cargo, or taken from a folder.

use anyhow::{Context, bail, ensure};
use pipeline_spec::Stage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{terminal, workspace};

/// Where each stage's binary lies.
#[derive(Debug, Clone)]
pub struct Binaries {
    paths: BTreeMap<Stage, PathBuf>,
}

impl Binaries {
    /// Those in `folder`.
    ///
    /// # Errors
    ///
    /// Fails if one is missing.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let binaries = Self::expected_in(folder);
        for path in binaries.paths.values() {
            ensure!(
                path.is_file(),
                "no stage binary `{}`; build it with `cargo build --release` or leave `--bin-dir` out",
                path.display()
            );
        }
        Ok(binaries)
    }

    /// Those beside this program, where cargo puts them together.
    pub fn beside_this_program() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot tell where this program lies")?;
        Self::in_folder(program.parent().unwrap_or(Path::new(".")))
    }

    /// Those that `folder` will hold once they are built.
    pub fn expected_in(folder: &Path) -> Self {
        Self { paths: Stage::ALL.into_iter().map(|stage| (stage, folder.join(stage.name()))).collect() }
    }

    /// Those of `bin_dir` if it is given; in a distribution those beside this program; else they are built. Gives the time
    /// that a build took.
    ///
    /// # Errors
    ///
    /// Fails if one is missing or the build fails.
    pub fn chosen(bin_dir: Option<&Path>, device: Option<&str>) -> anyhow::Result<(Self, Duration)> {
        match bin_dir {
            Some(folder) => Ok((Self::in_folder(folder)?, Duration::ZERO)),
            None if workspace::is_distribution() => Ok((Self::beside_this_program()?, Duration::ZERO)),
            None => {
                let (binaries, time) = Self::build(device)?;
                terminal::note(format_args!("built in {}", terminal::duration(time)));
                Ok((binaries, time))
            }
        }
    }

    /// Builds every stage, with the back end that `device` needs; gives the time that took.
    ///
    /// # Errors
    ///
    /// Fails if the build fails.
    fn build(device: Option<&str>) -> anyhow::Result<(Self, Duration)> {
        let start = Instant::now();
        let names: Vec<&str> = Stage::ALL.iter().map(|stage| stage.name()).collect();
        let built = build_packages(&names, device)?;
        let path = |stage: Stage| {
            let path = built.get(stage.name()).with_context(|| format!("cargo built no binary `{stage}`"))?;
            anyhow::Ok((stage, path.clone()))
        };
        Ok((Self { paths: Stage::ALL.into_iter().map(path).collect::<Result<_, _>>()? }, start.elapsed()))
    }

    /// The binary of `stage`.
    pub fn path(&self, stage: Stage) -> &Path {
        &self.paths[&stage]
    }
}

/// Builds the binaries of `packages` in the release profile; gives their paths by name.
///
/// # Errors
///
/// Fails if the build fails.
pub fn build_packages(packages: &[&str], device: Option<&str>) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    terminal::note(format_args!("building {}", packages.join(", ")));
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--bins", "--message-format", "json-render-diagnostics"]);
    select(&mut cargo, packages, device)?;
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the build failed; cargo's messages are above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let binaries = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message.get("executable")?.as_str()?;
        Some((message.get("target")?.get("name")?.as_str()?.to_owned(), PathBuf::from(path)))
    });
    Ok(binaries.collect())
}

/// Names `packages` to cargo, with the back end that `device` needs.
///
/// # Errors
///
/// Fails if the back end is libtorch and nothing says where that is.
pub fn select(cargo: &mut Command, packages: &[&str], device: Option<&str>) -> anyhow::Result<()> {
    for package in packages {
        cargo.args(["--package", package]);
    }
    if let Some(feature) = backend_feature(device) {
        let has_libtorch =
            ["LIBTORCH", "LIBTORCH_USE_PYTORCH"].iter().any(|&name| std::env::var_os(name).is_some());
        // Without either variable the bindings would download some other libtorch by themselves.
        ensure!(
            feature != "tch" || has_libtorch,
            "`--device tch-...` needs libtorch: run `cargo xtask libtorch target/libtorch` and set the two variables it prints"
        );
        cargo.args(["--package", "backend", "--features", &format!("backend/{feature}")]);
    }
    Ok(())
}

/// The feature of `backend` that a device needs beyond the default ones.
fn backend_feature(device: Option<&str>) -> Option<&'static str> {
    let device = device?;
    if device.starts_with("tch") {
        Some("tch")
    } else if device.starts_with("cuda") {
        Some("cuda")
    } else {
        None
    }
}
