//! `pretrain`: the small models of the quick start, trained from nothing by the recipes in `pipelines/pretrain`.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use pipeline_spec::data_manifest::DataManifest;
use pipeline_spec::spec::ImagesSpec;
use pipeline_spec::{DatasetId, Stage, StageSpec, Store, Unit};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::binaries::build_packages;
use crate::options::{DataOption, PlanOptions};
use crate::{exit, fetch, plan_files, terminal, workspace};

/// Data set that the models are trained on.
const DATASET: &str = "emoji";
/// Split that they are trained on; no pipeline reads it.
const TRAINING_SPLITS: &[&str] = &["base"];
/// Splits that their cards measure them on.
const TEST_SPLITS: &[&str] = &["test", "shift"];
/// Side of the images in pixels.
const IMAGE_SIZE: u32 = 64;

/// Train the quick start's models: fetch, pack, train CLIP and Stable Diffusion, write the model cards
///
/// Interrupted trainings continue. The models are part of the repository: this is only needed to make them again.
#[derive(Args)]
pub struct Pretrain {
    /// Device of the networks; `tch-cpu` is faster and needs `cargo xtask libtorch`
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Only this step, or these; what it builds on must be there
    #[arg(long, value_name = "STEP", value_enum, value_delimiter = ',')]
    only: Vec<Step>,
    /// Take source archives from this mirror folder instead of their registry
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    #[command(flatten)]
    options: PlanOptions,
    #[command(flatten)]
    data: DataOption,
}

/// One training, or the cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The CLIP with a vision transformer
    ClipVit,
    /// The CLIP with a ResNet
    ClipResnet,
    /// The autoencoder of Stable Diffusion
    Autoencoder,
    /// The UNet of Stable Diffusion, on the text tower of `clip-vit` and the latents of `autoencoder`
    Unet,
    /// Figures and samples of all models
    Card,
}

impl Step {
    /// Every step, in an order that respects what it builds on.
    const ALL: [Self; 5] = [Self::ClipVit, Self::ClipResnet, Self::Autoencoder, Self::Unet, Self::Card];

    /// Subcommand of `pretrain`, recipe and model folder; `None` for the cards.
    fn training(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::ClipVit => Some(("clip", "emoji-clip-vit", "emoji-clip-vit")),
            Self::ClipResnet => Some(("clip", "emoji-clip-resnet", "emoji-clip-resnet")),
            Self::Autoencoder => Some(("autoencoder", "emoji-sd-autoencoder", "emoji-sd")),
            Self::Unet => Some(("unet", "emoji-sd-unet", "emoji-sd")),
            Self::Card => None,
        }
    }
}

impl Pretrain {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let manifest_path = self.options.manifests().join(format!("{DATASET}.toml"));
        let (manifest, manifest_digest) = DataManifest::read(&manifest_path)?;
        let binaries = build_packages(&["pretrain", Stage::DatasetPack.name()], Some(&self.device))?;
        fetch::fetch(&manifest, &self.data.data(), self.from.as_deref())?;
        let pack = |splits: &[&str]| -> anyhow::Result<PathBuf> {
            let spec = ImagesSpec {
                dataset: DatasetId::try_from(DATASET.to_owned())?,
                manifest_digest: manifest_digest.clone(),
                splits: splits.iter().map(|&split| split.to_owned()).collect(),
                image_size: IMAGE_SIZE,
                stored: None,
                classes: None,
                num_parts: 1,
            };
            self.pack(binary(&binaries, Stage::DatasetPack.name())?, spec)
        };
        let steps = if self.only.is_empty() { Step::ALL.to_vec() } else { self.only.clone() };
        // In the order of the recipe, whatever order they were named in.
        for step in Step::ALL.into_iter().filter(|step| steps.contains(step)) {
            let images = pack(if step == Step::Card { TEST_SPLITS } else { TRAINING_SPLITS })?;
            let mut command = Command::new(binary(&binaries, "pretrain")?);
            command.args(self.arguments(step, &images));
            if let Some(code) = run(command)? {
                return Ok(ExitCode::from(code));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Packs images unless they are in the store; gives the artifact's folder.
    fn pack(&self, dataset_pack: &Path, spec: ImagesSpec) -> anyhow::Result<PathBuf> {
        let store: Store = self.options.store.store();
        let unit = Unit { spec: StageSpec::Images(spec), inputs: BTreeMap::new() };
        let output = unit.output();
        if !store.contains(&output) {
            let unit_file = store.plan_dir("pretrain").join(format!("{}.json", output.slug));
            std::fs::create_dir_all(store.plan_dir("pretrain")).context("cannot create the plan's folder")?;
            plan_files::replace(&unit_file, &serde_json::to_vec_pretty(&unit)?)?;
            let mut command = Command::new(dataset_pack);
            command.arg("--spec").arg(unit_file).arg("--store").arg(store.root());
            command.arg("--manifests").arg(self.options.manifests()).arg("--data").arg(self.data.data());
            if let Some(code) = run(command)? {
                bail!("packing images ended with exit code {code}");
            }
        }
        Ok(store.artifact_dir(&output))
    }

    /// Arguments of the `pretrain` binary for `step`.
    fn arguments(&self, step: Step, images: &Path) -> Vec<std::ffi::OsString> {
        let model = |name: &str| self.options.weights().join(name);
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        let mut option = |name: &str, value: &Path| words.extend([name.into(), value.into()]);
        option("--images", images);
        option("--device", Path::new(&self.device));
        let Some((subcommand, recipe, folder)) = step.training() else {
            option("--clip-vit", &model("emoji-clip-vit"));
            option("--clip-resnet", &model("emoji-clip-resnet"));
            option("--diffusion", &model("emoji-sd"));
            words.insert(0, "card".into());
            return words;
        };
        option("--recipe", &workspace::path("pipelines/pretrain").join(recipe).with_extension("toml"));
        option("--out", &model(folder));
        option("--state", &self.options.store.store().root().join("work").join(recipe));
        if step == Step::Unet {
            option("--clip", &model("emoji-clip-vit"));
            option("--vae", &model("emoji-sd"));
        }
        words.insert(0, subcommand.into());
        words
    }
}

fn binary<'a>(binaries: &'a BTreeMap<String, PathBuf>, name: &str) -> anyhow::Result<&'a Path> {
    binaries.get(name).map(PathBuf::as_path).with_context(|| format!("cargo built no binary `{name}`"))
}

/// Runs a process to its end and tells how long it took; gives its exit code if that is not 0.
fn run(mut command: Command) -> anyhow::Result<Option<u8>> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    terminal::note(format_args!("$ {line}"));
    let start = Instant::now();
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    terminal::note(format_args!("took {}", terminal::duration(start.elapsed())));
    Ok((!status.success()).then(|| exit::code_of_status(status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_in_the_repository() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
        for (_, recipe, _) in Step::ALL.into_iter().filter_map(Step::training) {
            let path = root.join("pipelines/pretrain").join(recipe).with_extension("toml");
            assert!(path.is_file(), "{}", path.display());
        }
    }
}
