//! The built binaries, run on a store in a temporary folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

use pipeline_spec::{ArtifactId, Digest, Pipeline, Plan, Store};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Folder of the built binaries: that of the test binary's own build.
pub fn bin_dir() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_path_buf()
}

/// Path of a built binary.
///
/// # Panics
///
/// Panics if it was not built: the tests are run by `cargo xtask test`, which builds it first.
pub fn binary(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(path.is_file(), "`{}` is not built; run the tests by `cargo xtask test`", path.display());
    path
}

/// A store in a temporary folder and a pipeline to run on it.
pub struct Bench {
    pub folder: TempDir,
    pub pipeline: PathBuf,
}

impl Bench {
    /// The smoke pipeline on an empty store.
    pub fn smoke() -> Self {
        let data = repository().join("data/emoji");
        assert!(data.is_dir(), "`{}` is not there; run the tests by `cargo xtask test`", data.display());
        Self { folder: tempfile::tempdir().unwrap(), pipeline: repository().join("pipelines/smoke.toml") }
    }

    pub fn store(&self) -> Store {
        Store::new(self.folder.path().join("store"))
    }

    pub fn plan(&self) -> Plan {
        let pipeline = Pipeline::read(&self.pipeline).unwrap();
        Plan::new(pipeline, &repository().join("data-manifests"), &repository().join("models")).unwrap()
    }

    /// `xtask COMMAND PIPELINE ARGS` on this store.
    pub fn command(&self, command: &str, args: &[&str]) -> Command {
        let mut process = Command::new(binary("xtask"));
        process.current_dir(repository()).arg(command).arg(&self.pipeline).arg("--store");
        process.arg(self.store().root()).args(args).env("NO_COLOR", "1");
        process
    }

    /// The command that runs the pipeline; its report goes to `report` beside the store.
    pub fn reproduction(&self) -> Command {
        let (bins, report) = (bin_dir(), self.folder.path().join("report"));
        self.command("reproduce", &["--bin-dir", bins.to_str().unwrap(), "--out", report.to_str().unwrap()])
    }

    /// Runs the pipeline to its end.
    pub fn reproduce(&self) -> Output {
        self.reproduction().output().unwrap()
    }

    /// The command that computes unit `index` of the plan `plan`, as a task of a cluster does it.
    pub fn unit_command(&self, plan: &str, index: usize) -> Command {
        let mut process = Command::new(binary("xtask"));
        process.current_dir(repository()).args([
            "run",
            "--plan",
            plan,
            "--unit",
            &index.to_string(),
            "--store",
        ]);
        process.arg(self.store().root()).arg("--bin-dir").arg(bin_dir()).env("NO_COLOR", "1");
        process
    }

    /// Digest of every file below `data/` of every artifact, by artifact.
    pub fn contents(&self) -> BTreeMap<ArtifactId, BTreeMap<String, Digest>> {
        let (store, units) = (self.store(), self.plan().units);
        units.into_iter().map(|u| (u.output.clone(), files_of(&store, &u.output))).collect()
    }
}

/// Digest of every file below `data/` of an artifact.
pub fn files_of(store: &Store, id: &ArtifactId) -> BTreeMap<String, Digest> {
    let entries = std::fs::read_dir(store.data_dir(id)).into_iter().flatten().map(Result::unwrap);
    let file = |entry: std::fs::DirEntry| {
        let digest = pipeline_spec::file_blake3(&entry.path()).unwrap().1;
        (entry.file_name().into_string().unwrap(), digest)
    };
    entries.map(file).collect()
}

/// Standard output and error of a finished process.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Fails with the process's output unless it ended with `code`.
#[track_caller]
pub fn expect_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
}
