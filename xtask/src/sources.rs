//! `fetch`: the source archives of a data set.

use clap::Args;
use pipeline_spec::data_manifest::DataManifest;
use pipeline_spec::{ArtifactKind, DatasetId, Plan};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::options::DataOption;
use crate::unit_state::UnitState;
use crate::{fetch, workspace};

/// Fetch the source archives of a data set and check their digests
#[derive(Args)]
pub struct Fetch {
    /// Name of the data set, as in `data-manifests/<name>.toml`
    dataset: String,
    /// Take the archives from this mirror folder instead of their registry
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Folder of the data manifests [default: `data-manifests` in the workspace]
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Only check what is there; fetch nothing
    #[arg(long, conflicts_with = "from")]
    check: bool,
    #[command(flatten)]
    data: DataOption,
}

impl Fetch {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let dataset = DatasetId::try_from(self.dataset)?;
        let manifests = self.manifests.unwrap_or_else(|| workspace::path("data-manifests"));
        let (manifest, _) = DataManifest::read(&manifests.join(format!("{dataset}.toml")))?;
        if self.check {
            fetch::verify_sources(&manifest, &self.data.data())?;
        } else {
            fetch::fetch(&manifest, &self.data.data(), self.from.as_deref())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Fetches the sources of the plan's data set where images have to be packed from them.
///
/// # Errors
///
/// Fails if the manifest cannot be read or an archive cannot be had.
pub fn fetch_for(
    plan: &Plan,
    states: &[UnitState],
    manifests: &Path,
    data: &Path,
    from: Option<&Path>,
) -> anyhow::Result<()> {
    let needs_sources = |(index, state): (usize, &UnitState)| {
        plan.units[index].output.kind == ArtifactKind::Images && !state.is_done()
    };
    if !states.iter().enumerate().any(needs_sources) {
        return Ok(());
    }
    let (manifest, _) = DataManifest::read(&manifests.join(format!("{}.toml", plan.pipeline.dataset)))?;
    fetch::fetch(&manifest, data, from)
}
