//! `dist`: a folder that runs pipelines without cargo and without the sources of this repository.
//!
//! ```text
//! flier-<version>-<arch>-<os>/
//!   bin/            xtask and the stages, stripped
//!   pipelines/ data-manifests/ models/ docs/
//!   man/man1/ completions/
//!   flier-dist.json what it is; marks the root
//!   sbom.cdx.json   the crates in the binaries
//! ```

use anyhow::{Context, bail, ensure};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use pipeline_spec::{Stage, file_blake3};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::workspace::DISTRIBUTION_FILE;
use crate::{binaries, plan_files, sbom, stored, terminal, workspace};

/// Level of zstd for the archive: binaries shrink well, and this is done once.
const ZSTD_LEVEL: i32 = 12;

/// The bill of materials, in the name that CycloneDX recommends.
const BILL_FILE: &str = "sbom.cdx.json";

/// Make a folder with the stripped binaries, pipelines, manifests, models, man pages and completions
///
/// It runs on nodes without cargo: copy it to a file system that the cluster sees and call `bin/xtask` in it.
#[derive(Args)]
pub struct Dist {
    /// Folder in which it is made
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
    /// Also one file, `.tar.zst`
    #[arg(long)]
    archive: bool,
    /// Leave out the quick start's models
    #[arg(long)]
    without_models: bool,
    /// Device that the networks will run on: decides which back end is built in [default: the CPU]
    #[arg(long)]
    device: Option<String>,
}

impl Dist {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(!workspace::is_distribution(), "this is a distribution; make another from the repository");
        let names: Vec<&str> = ["xtask"].into_iter().chain(Stage::ALL.map(Stage::name)).collect();
        let built = binaries::build_packages(&names, self.device.as_deref())?;
        let name = distribution_name();
        fs::create_dir_all(&self.out).with_context(|| format!("cannot create `{}`", self.out.display()))?;
        let staging = tempfile::Builder::new().prefix(".dist-").tempdir_in(&self.out);
        let staging = staging.with_context(|| format!("cannot write in `{}`", self.out.display()))?;
        let folder = staging.path().join(&name);
        let mut digests = BTreeMap::new();
        for &name in &names {
            let source = built.get(name).with_context(|| format!("cargo built no binary `{name}`"))?;
            let target = folder.join("bin").join(name);
            copy(source, &target)?;
            strip(&target)?;
            digests.insert(name, file_blake3(&target)?.1);
            if name != "xtask" {
                succeed(Command::new(&target).arg("--write-docs").arg(&folder))?;
            }
        }
        write_docs(&folder).context("cannot write the command's pages")?;
        self.add_files(&folder)?;
        let description = json!({
            "name": name,
            "version": env!("CARGO_PKG_VERSION"),
            "commit": commit(),
            "device": self.device.as_deref().unwrap_or("cpu"),
            "binaries": digests,
        });
        let bill = sbom::bill_of_materials(&names, self.device.as_deref())?;
        for (file, content) in [(DISTRIBUTION_FILE, &description), (BILL_FILE, &bill)] {
            fs::write(folder.join(file), serde_json::to_vec_pretty(content)?)
                .with_context(|| format!("cannot write `{file}`"))?;
        }
        let target = self.out.join(&name);
        replace(&folder, &target)?;
        terminal::print(target.display());
        if self.archive {
            let archive = self.out.join(format!("{name}.tar.zst"));
            write_archive(&target, &name, &archive)
                .with_context(|| format!("cannot write `{}`", archive.display()))?;
            terminal::print(archive.display());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn add_files(&self, folder: &Path) -> anyhow::Result<()> {
        let models: &[&str] = if self.without_models { &[] } else { &["models"] };
        for name in ["pipelines", "data-manifests", "docs"].iter().chain(models) {
            copy_folder(&workspace::path(name), &folder.join(name))?;
        }
        ["README.md", "LICENSE", "NOTICE"]
            .iter()
            .try_for_each(|name| copy(&workspace::path(name), &folder.join(name)))
    }
}

fn distribution_name() -> String {
    let (version, arch, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
    format!("flier-{version}-{arch}-{os}")
}

/// Pages of this program itself; the stages write their own.
fn write_docs(folder: &Path) -> std::io::Result<()> {
    let command = crate::Cli::command().name("xtask").bin_name("xtask");
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "xtask", folder.join("completions"))?;
    }
    clap_mangen::generate_to(command, folder.join("man/man1"))
}

/// The commit of the sources, with a mark if files differ from it; `None` outside a git repository.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(workspace::root()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let is_changed = git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    Some(if is_changed { format!("{commit}, changed") } else { commit })
}

/// Removes symbols; the build keeps them for its own back traces.
fn strip(path: &Path) -> anyhow::Result<()> {
    succeed(Command::new("strip").arg(path)).context("`strip` comes with the C compiler's binutils")
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start `{name}`"))?;
    ensure!(status.success(), "`{name}` ended with {status}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copy = || {
        fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
        fs::copy(from, to)
    };
    copy().with_context(|| format!("cannot copy `{}` to `{}`", from.display(), to.display()))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    ensure!(from.is_dir(), "`{}` is not there", from.display());
    for path in stored::entries(from)? {
        let target = to.join(stored::file_name(&path));
        if path.is_dir() { copy_folder(&path, &target)? } else { copy(&path, &target)? }
    }
    Ok(())
}

/// Moves `folder` to `target` in place of an older distribution, and of nothing else.
fn replace(folder: &Path, target: &Path) -> anyhow::Result<()> {
    if target.exists() {
        if !target.join(DISTRIBUTION_FILE).is_file() {
            bail!("`{}` is there and is no distribution; move it away", target.display());
        }
        fs::remove_dir_all(target).with_context(|| format!("cannot remove `{}`", target.display()))?;
    }
    fs::rename(folder, target).with_context(|| format!("cannot write `{}`", target.display()))
}

fn write_archive(folder: &Path, name: &str, archive: &Path) -> std::io::Result<()> {
    let parent = archive.parent().unwrap_or(Path::new("."));
    let file = plan_files::temporary(parent)?;
    let mut builder = tar::Builder::new(zstd::Encoder::new(BufWriter::new(file.as_file()), ZSTD_LEVEL)?);
    builder.append_dir_all(name, folder)?;
    builder.into_inner()?.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    let file: File = file.persist(archive).map_err(|error| error.error)?;
    drop(file);
    Ok(())
}
