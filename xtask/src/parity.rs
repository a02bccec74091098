//! `parity`: full-size models beside their references in Python, in one command.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::{terminal, workspace};

/// Compare full-size models on random weights with their reference implementations; prints a Markdown table
///
/// Needs a Python with torch, open_clip, transformers and diffusers, and some gigabytes of memory and disk: 10 and 6 for each
/// Stable Diffusion.
#[derive(Args)]
pub struct Parity {
    /// What is compared
    #[arg(value_enum)]
    model: Model,
    /// Python with the reference implementations
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Backbones of CLIP by open_clip's names, or versions of Stable Diffusion
    ///
    /// [default: RN50,RN101,RN50x4,ViT-B-32,ViT-B-16,ViT-L-14, or 1.5,2.1-base,2.1]; RN50x16, RN50x64 and ViT-L-14-336 need
    /// more memory
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// What the towers of CLIP compute in: `f32`, `bf16` or `f16`; the references are f32
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
    /// Stable Diffusion
    Sd,
}

/// Where the two sides of a comparison are.
struct Comparison {
    package: &'static str,
    example: &'static str,
    /// Folder below the references.
    name: &'static str,
    /// All models that are compared.
    models: &'static [&'static str],
    /// What the script writes for a model before it ends, without the model's name.
    reference: &'static str,
}

impl Model {
    fn comparison(self) -> Comparison {
        match self {
            Self::Clip => Comparison {
                package: "clip-model",
                example: "parity",
                name: "clip",
                models: &["RN50", "RN101", "RN50x4", "ViT-B-32", "ViT-B-16", "ViT-L-14"],
                reference: "-open_clip/reference.safetensors",
            },
            Self::Sd => Comparison {
                package: "sd-model",
                example: "parity_sd",
                name: "sd",
                models: &["1.5", "2.1-base", "2.1"],
                reference: "/reference.safetensors",
            },
        }
    }
}

impl Parity {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Comparison { package, example, name, models, reference } = self.model.comparison();
        let folder = std::path::absolute(self.folder.join(name)).context("no current folder")?;
        let models = match self.only.is_empty() {
            true => models.iter().map(|&model| model.to_owned()).collect(),
            false => self.only,
        };
        let is_missing = |model: &&String| !folder.join(format!("{model}{reference}")).is_file();
        let missing: Vec<&String> = models.iter().filter(is_missing).collect();
        if !missing.is_empty() {
            let script = workspace::root().join("crates").join(package).join("tests/scale/parity.py");
            let mut reference = Command::new(&self.python);
            reference.arg(script).arg(&folder).args(missing);
            let needs = "torch, open_clip, transformers and diffusers";
            succeed(reference, &self.python, &format!("make the references; `--python` needs {needs}"))?;
        }
        let mut compare = workspace::cargo();
        compare
            .args(["run", "--quiet", "--release", "--package", package, "--example", example, "--"])
            .arg(&folder)
            .args(models);
        match self.model {
            Model::Clip => {
                compare.args(["--precision", &self.precision]);
            }
            Model::Sd if self.precision == "f32" => {}
            Model::Sd => bail!("Stable Diffusion is compared in f32 only, not in {}", self.precision),
        }
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
