//! The pipeline files of the repository: each plans, also where its data and models are not here.

use pipeline_spec::spec::{Method, OtherClasses};
use pipeline_spec::{ArtifactKind, Pipeline, Plan};
use std::path::{Path, PathBuf};

/// A manifest of this data set with one template.
fn manifest(dataset: &str) -> String {
    format!(
        "dataset = \"{dataset}\"\ndescription = \"A data set.\"\ntemplates = [\"a photo of a {{}}.\"]\nsources = []\n\
         [form.folder]\nroot = \".\"\n[form.folder.split.percent]\ntrain = 50\nval = 25\ntest = 25\n"
    )
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    paths.sort();
    paths
}

/// The plan of `pipeline` with a stand-in for its manifest and for every checkpoint.
fn plan(pipeline: Pipeline) -> Plan {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: PathBuf, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let manifests = folder.path().join("data-manifests");
    for dataset in pipeline.transfers.iter().map(|t| &t.dataset).chain([&pipeline.dataset]) {
        write(manifests.join(format!("{dataset}.toml")), &manifest(dataset.as_str()));
    }
    let weights = folder.path().join("models");
    let own = pipeline.methods.iter();
    let own = own.flat_map(|m| m.encoded_latents.iter().map(|encoded| &encoded.checkpoint));
    let diffusion = pipeline.latents.iter().map(|latents| &latents.checkpoint);
    for id in pipeline.backbones.iter().chain(diffusion).chain(own) {
        write(weights.join(id).join("config.json"), "{}");
    }
    Plan::new(pipeline, &manifests, &weights).unwrap()
}

#[test]
fn every_pipeline_of_the_repository_plans() {
    let files = files();
    assert!(files.len() >= 9, "{files:?}");
    for path in files {
        let pipeline = Pipeline::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let cells = pipeline.fewshot.shots.len() * pipeline.fewshot.seeds.len();
        let zero_shots = pipeline.methods.iter().filter(|table| table.method == Method::ZeroShot).count();
        let per_backbone = (pipeline.methods.len() - zero_shots) * cells + zero_shots;
        // One run holds the texts of each target that is met by its texts.
        let texts = pipeline.targets().iter().filter(|t| t.classes == Some(OtherClasses::Texts)).count();
        let expected = (per_backbone + texts) * pipeline.backbones.len();
        let plan = plan(pipeline);
        let runs = plan.units.iter().filter(|unit| unit.output.kind == ArtifactKind::Checkpoints).count();
        assert_eq!(runs, expected, "{}", path.display());
    }
}

#[test]
fn the_baselines_share_their_features() {
    let path = files().into_iter().find(|path| path.ends_with("baselines.toml")).unwrap();
    let pipeline = Pipeline::read(&path).unwrap();
    let (backbones, cells) =
        (pipeline.backbones.len(), pipeline.fewshot.shots.len() * pipeline.fewshot.seeds.len());
    let plan = plan(pipeline);
    let features = plan.units.iter().filter(|unit| unit.output.kind == ArtifactKind::Features).count();
    // Training and test images, behind and before the projection; for each cell the views of the shots, behind and before
    // the projection, and those of the generated images.
    assert_eq!(features, backbones * (4 + 3 * cells));
}
