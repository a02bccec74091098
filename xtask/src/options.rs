//! Options that several commands share. None of them is hashed into a key.

use anyhow::Context;
use clap::Args;
use pipeline_spec::{Pipeline, Plan, Store};
use std::path::PathBuf;

use crate::workspace;

/// Where artifacts lie.
#[derive(Args, Clone)]
pub struct StoreOption {
    /// Folder of the artifacts [default: `store` in the workspace]
    #[arg(long, value_name = "DIR", env = "FLIER_STORE")]
    store: Option<PathBuf>,
}

impl StoreOption {
    /// The store.
    pub fn store(&self) -> Store {
        Store::new(self.store.clone().unwrap_or_else(|| workspace::output_path("store")))
    }
}

/// What is needed to make a plan.
#[derive(Args, Clone)]
pub struct PlanOptions {
    #[command(flatten)]
    pub store: StoreOption,
    /// Folder of the checkpoints [default: `models` in the workspace]
    #[arg(long, value_name = "DIR", env = "FLIER_WEIGHTS")]
    weights: Option<PathBuf>,
    /// Folder of the data manifests [default: `data-manifests` in the workspace]
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
}

impl PlanOptions {
    /// Folder of the checkpoints.
    pub fn weights(&self) -> PathBuf {
        self.weights.clone().unwrap_or_else(|| workspace::path("models"))
    }

    /// Folder of the data manifests.
    pub fn manifests(&self) -> PathBuf {
        self.manifests.clone().unwrap_or_else(|| workspace::path("data-manifests"))
    }

    /// The plan of `pipeline`, or of the quick start.
    pub fn plan(&self, pipeline: Option<&PathBuf>) -> anyhow::Result<Plan> {
        let path = pipeline.cloned().unwrap_or_else(|| workspace::path("pipelines/quickstart.toml"));
        let pipeline = Pipeline::read(&path)?;
        Plan::new(pipeline, &self.manifests(), &self.weights())
            .with_context(|| format!("cannot plan `{}`", path.display()))
    }
}

/// Where source data lies.
#[derive(Args, Clone)]
pub struct DataOption {
    /// Folder of the fetched source data [default: `data` in the workspace]
    #[arg(long, value_name = "DIR", env = "FLIER_DATA")]
    data: Option<PathBuf>,
}

impl DataOption {
    /// Folder of the source data.
    pub fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| workspace::output_path("data"))
    }
}

/// How stages are started.
#[derive(Args, Clone)]
pub struct StageOptions {
    /// Folder with the stages' binaries; without it they are built
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Device of the networks: `cpu`, `cuda:0`, `tch-cpu`, `tch-cuda:0` [default: the stages' own]
    #[arg(long)]
    pub device: Option<String>,
}
