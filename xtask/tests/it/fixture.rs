//! A repository with one pipeline, made-up checkpoints, and shell scripts in place of the stages.

use pipeline_spec::{ArtifactRecord, PartRecord, Pipeline, Plan, Provenance, Stage, Store};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository; removed when it is dropped.
pub struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    /// A repository in which nothing was run.
    pub fn new() -> Self {
        // A name that a shell would take apart.
        let fixture = Self { folder: tempfile::Builder::new().prefix("it's a lab $").tempdir().unwrap() };
        for folder in [
            "pipelines",
            "data-manifests",
            "models/small-clip",
            "models/small-sd/unet",
            "bin/prepared",
            "bin/keys",
        ] {
            fs::create_dir_all(fixture.path(folder)).unwrap();
        }
        fs::write(fixture.path("models/small-clip/config.json"), "{}").unwrap();
        fs::write(fixture.path("models/small-sd/unet/config.json"), "{}").unwrap();
        let manifest = concat!(
            "dataset = \"shapes\"\ndescription = \"Shapes.\"\ntemplates = [\"a {}\"]\nsources = []\n",
            "[form.folder]\nroot = \".\"\n[form.folder.split.percent]\ntrain = 50\nval = 25\ntest = 25\n",
        );
        fs::write(fixture.path("data-manifests/shapes.toml"), manifest).unwrap();
        fs::write(fixture.path("pipelines/quickstart.toml"), include_str!("pipeline.toml")).unwrap();
        for stage in Stage::ALL {
            let path = fixture.path("bin").join(stage.name());
            fs::write(&path, include_str!("stage.sh")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fixture.prepare();
        fixture
    }

    /// A path in the repository.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The store that the commands use.
    pub fn store(&self) -> Store {
        Store::new(self.path("store"))
    }

    /// The plan as the library makes it.
    pub fn plan(&self) -> Plan {
        let pipeline = Pipeline::read(&self.path("pipelines/quickstart.toml")).unwrap();
        Plan::new(pipeline, &self.path("data-manifests"), &self.path("models")).unwrap()
    }

    /// Prepares what the stand-ins commit for the units of the present plan.
    pub fn prepare(&self) {
        let prepared = self.path("bin/prepared");
        fs::remove_dir_all(&prepared).unwrap();
        for (index, planned) in self.plan().units.iter().enumerate() {
            let (unit, id) = (format!("unit-{index:05}"), &planned.output);
            fs::write(self.path("bin/keys").join(&unit), id.key.as_str()).unwrap();
            let store = Store::new(prepared.join(unit));
            let data = store.data_dir(id);
            fs::create_dir_all(&data).unwrap();
            fs::write(data.join("part-00000-of-00001.parquet"), format!("content of {id}")).unwrap();
            let record = ArtifactRecord {
                id: id.clone(),
                unit: planned.unit.clone(),
                code_version: planned.unit.spec.code_version(),
                rows: 1,
                parts: vec![PartRecord::measure(&data, "part-00000-of-00001.parquet", 1).unwrap()],
                input_digests: BTreeMap::new(),
                provenance: Provenance {
                    version: "0".to_owned(),
                    finished_at_unix_s: 0,
                    elapsed_ms: 1,
                    host: "none".to_owned(),
                    device: "none".to_owned(),
                },
            };
            fs::write(store.record_path(id), serde_json::to_vec(&record).unwrap()).unwrap();
        }
    }

    /// Replaces a line of the pipeline file.
    pub fn edit_pipeline(&self, from: &str, to: &str) {
        let path = self.path("pipelines/quickstart.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "no `{from}` in the pipeline");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// The command line `xtask <arguments>`, to be run in the repository.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("FLIER_") || name.ends_with("TASK_ID") || name == "CARGO_MANIFEST_DIR" {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs `xtask <arguments>` to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::from(self.command(arguments).output().unwrap())
    }

    /// The lines that the stand-ins wrote when they were started, in order.
    pub fn started(&self) -> Vec<String> {
        self.lines("bin/started")
    }

    /// The lines of a file; `bin/processes` has the stages' names, one for each process, in the order of their starts.
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Forgets what was started.
    pub fn forget_started(&self) {
        for file in ["bin/started", "bin/processes"] {
            let _ = fs::remove_file(self.path(file));
        }
    }

    /// Index of the first unit whose output contains `name`.
    pub fn unit(&self, name: &str) -> usize {
        let plan = self.plan();
        plan.units.iter().position(|planned| planned.output.to_string().contains(name)).unwrap()
    }
}

/// A command that ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Finished {
    /// Fails the test unless the exit code is `code`.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

/// Every file below `folder` with its content.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.extend(fs::read(&path).map(|bytes| (path, bytes)));
            }
        }
    }
    found
}
