//! `parity`: full-size towers beside their references in Python, in one command.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::{terminal, workspace};

/// Backbones of the papers, by open_clip's names; RN50x16, RN50x64 and ViT-L-14-336 need more memory.
const BACKBONES: &str = "RN50,RN101,RN50x4,ViT-B-32,ViT-B-16,ViT-L-14";

/// Compare full-size models on random weights with their reference implementations; prints a Markdown table
///
/// Needs a Python with torch, open_clip and transformers, and some gigabytes of memory and disk.
#[derive(Args)]
pub struct Parity {
    /// What is compared
    #[arg(value_enum)]
    model: Model,
    /// Python with the reference implementations
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Backbones, by open_clip's names
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = BACKBONES)]
    backbones: Vec<String>,
    /// What the towers compute in: `f32`, `bf16` or `f16`; the references are f32
    #[arg(long, default_value = "f32")]
    precision: String,
    /// Folder of the references; made anew if it is not there
    #[arg(long, value_name = "DIR", default_value = "target/parity")]
    folder: PathBuf,
}

/// A port with a full-size reference.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Model {
    /// The towers of CLIP
    Clip,
}

impl Parity {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (package, name) = match self.model {
            Model::Clip => ("clip-model", "clip"),
        };
        let folder = std::path::absolute(self.folder.join(name)).context("no current folder")?;
        let missing: Vec<&String> = self
            .backbones
            .iter()
            .filter(|backbone| !folder.join(format!("{backbone}-open_clip/reference.safetensors")).is_file())
            .collect();
        if !missing.is_empty() {
            let script = workspace::root().join("crates").join(package).join("tests/scale/parity.py");
            let mut reference = Command::new(&self.python);
            reference.arg(script).arg(&folder).args(missing);
            succeed(
                reference,
                &self.python,
                "make the references; `--python` needs torch, open_clip and transformers",
            )?;
        }
        let mut compare = workspace::cargo();
        compare
            .args(["run", "--quiet", "--release", "--package", package, "--example", "parity", "--"])
            .arg(&folder)
            .args(["--precision", &self.precision]);
        succeed(compare, Path::new("cargo"), "compare")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn succeed(mut command: Command, program: &Path, what: &str) -> anyhow::Result<()> {
    terminal::note(format_args!("$ {command:?}"));
    let status = command.status().with_context(|| format!("cannot start `{}`", program.display()))?;
    if !status.success() {
        bail!("cannot {what}; the messages are above");
    }
    Ok(())
}
