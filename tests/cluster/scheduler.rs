//! A Slurm of its own for each test, and a repository whose units are submitted to it.

use crate::fixture::{Finished, Fixture, files};
use pipeline_spec::{ArtifactId, Store};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

/// How long a test waits for the scheduler before it fails.
const PATIENCE: Duration = Duration::from_secs(600);

/// A running Slurm; ended when it is dropped.
pub struct Slurm {
    folder: tempfile::TempDir,
}

impl Slurm {
    /// Starts a controller and `nodes` nodes with as many CPUs as this machine and two GPUs each.
    pub fn start(nodes: usize) -> Self {
        let slurm = Self { folder: tempfile::tempdir().unwrap() };
        let finished = slurm.script("up", &nodes.to_string());
        assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
        slurm
    }

    fn script(&self, action: &str, argument: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cluster/slurm.sh");
        Command::new(script).arg(action).arg(self.folder.path()).arg(argument).output().unwrap()
    }

    /// Ends a daemon as a crash does.
    pub fn crash(&self, daemon: &str) {
        assert!(self.script("stop", daemon).status.success());
    }

    /// Waits until `task` alone runs, no other can start, and the controller has written that down. What it had not written
    /// when it crashes, it forgets: it gives numbers of jobs a second time then, and closes the nodes that know them.
    pub fn wait_until_saved(&self, task: &[String; 2]) {
        self.wait("the end of the other tasks", || {
            self.active().iter().all(|line| line[..2] == task[..] || line[3] == "Dependency")
        });
        let [job, index] = task;
        let state = self.folder.path().join("state/job_state");
        // The first may have been begun before.
        for comment in ["comment=saved", "comment=saved twice"] {
            let now = SystemTime::now();
            self.ask("scontrol", &["update", &format!("jobid={job}_{index}"), comment]);
            self.wait("the controller's state", || {
                state.metadata().is_ok_and(|m| m.modified().unwrap() > now)
            });
        }
    }

    /// What the controller says of its work.
    pub fn controller_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log/slurmctld.log")).unwrap()
    }

    /// Starts a daemon again.
    pub fn restart(&self, daemon: &str) {
        assert!(self.script("start", daemon).status.success());
        self.wait("an answer", || self.client("squeue", &[]).status.success());
    }

    /// A command of this Slurm.
    pub fn command(&self, mut command: Command) -> Command {
        command.env("SLURM_CONF", self.folder.path().join("slurm.conf"));
        command
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments);
        self.command(command).output().unwrap()
    }

    /// What a client program says.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.client(program, arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// `[job, index, state, reason, node]` of all tasks that Slurm remembers.
    pub fn tasks(&self) -> Vec<Vec<String>> {
        let text = self.ask("squeue", &["-h", "-r", "-a", "-t", "all", "-o", "%F|%K|%T|%r|%N"]);
        text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
    }

    /// Tasks that have not ended.
    pub fn active(&self) -> Vec<Vec<String>> {
        let ended = ["COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL"];
        self.tasks().into_iter().filter(|task| !ended.contains(&task[2].as_str())).collect()
    }

    /// Waits until every task has ended.
    pub fn settle(&self) {
        self.wait("the end of all tasks", || {
            let active = self.active();
            let requeued: Vec<_> = active.iter().filter(|task| task[3] == "BeginTime").collect();
            // After a requeue Slurm waits two minutes; the tests wait two seconds, for a node refuses the credential of a
            // task that starts in the second in which its former one was revoked.
            if !requeued.is_empty() {
                std::thread::sleep(Duration::from_secs(2));
            }
            for task in requeued {
                let id = format!("jobid={}_{}", task[0], task[1]);
                self.client("scontrol", &["update", &id, "starttime=now"]);
            }
            active.is_empty()
        });
    }

    /// Waits until `holds`.
    #[track_caller]
    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "waited for {what}; tasks: {:#?}", self.tasks());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        self.script("down", "");
    }
}

/// A repository with stand-ins for the stages, submitted to a Slurm.
pub struct Lab {
    pub slurm: Slurm,
    pub fixture: Fixture,
}

impl Lab {
    /// The small pipeline with this `[cluster]` table.
    pub fn new(nodes: usize, cluster: &str) -> Self {
        let lab = Self::with_shards(nodes, cluster);
        lab.fixture.edit_pipeline("num_parts = 4", "num_parts = 1");
        lab.fixture.prepare();
        lab
    }

    /// The same, with latents in four parts, each of which is a task.
    pub fn with_shards(nodes: usize, cluster: &str) -> Self {
        let fixture = Fixture::new();
        let path = fixture.path("pipelines/quickstart.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}\n[cluster]\n{cluster}")).unwrap();
        Self { slurm: Slurm::start(nodes), fixture }
    }

    /// The command line `xtask <arguments>`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.slurm.command(self.fixture.command(arguments))
    }

    /// Runs `xtask <arguments>`.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::from(self.command(arguments).output().unwrap())
    }

    /// Submits what is missing; gives the ids of the jobs by their names, the newest of each name.
    pub fn submit(&self, more: &[&str]) -> BTreeMap<String, String> {
        let finished =
            self.run(&[&["submit", "--engine", "slurm", "--bin-dir", "bin"], more].concat()).expect(0);
        let words = finished.stdout.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        words
            .filter(|words| words.len() > 1)
            .map(|words| (words[1].to_owned(), words[0].to_owned()))
            .collect()
    }

    /// Makes the stage of a unit do something: `fail` or `hang`.
    pub fn make(&self, what: &str, unit: usize) -> PathBuf {
        let path = self.fixture.path(&format!("bin/{what}-unit-{unit:05}"));
        fs::write(&path, "").unwrap();
        path
    }

    /// Waits until the stage of `unit` was started.
    pub fn wait_for_start(&self, unit: usize) {
        self.slurm.wait("the start of a unit", || self.starts(unit) > 0);
    }

    /// Job id and array index of the task that computes `unit`.
    pub fn task_of(&self, unit: usize, job: &str) -> [String; 2] {
        let plan = self.fixture.plan();
        let path = self.fixture.store().jobs_dir(&plan.id()).join(format!("{job}.json"));
        let record: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let output = plan.units[unit].output.to_string();
        let tasks = record["tasks"].as_array().unwrap();
        let makes_it = |task: &serde_json::Value| task.as_array().unwrap().iter().any(|id| *id == *output);
        [job.to_owned(), tasks.iter().position(makes_it).unwrap().to_string()]
    }

    /// Waits until a task does not run any more, and gives its line.
    pub fn wait_for_stop(&self, task: &[String; 2]) -> Vec<String> {
        let line = || self.slurm.tasks().into_iter().find(|line| line[..2] == task[..]).unwrap();
        self.slurm.wait("the stop of a task", || line()[2] == "PENDING");
        line()
    }

    /// How often the stage of `unit` was started.
    pub fn starts(&self, unit: usize) -> usize {
        let name = format!("unit-{unit:05} ");
        self.fixture.started().iter().filter(|line| line.starts_with(&name)).count()
    }

    /// Fails unless every unit is in the store with the bytes that were prepared for it.
    pub fn expect_all_done(&self) {
        let store = self.fixture.store();
        let missing: Vec<_> = self
            .fixture
            .plan()
            .units
            .into_iter()
            .filter(|planned| !store.contains(&planned.output))
            .collect();
        let missing: Vec<String> = missing.into_iter().map(|planned| planned.output.to_string()).collect();
        let (tasks, controller) = (self.slurm.tasks(), self.slurm.controller_log());
        assert!(missing.is_empty(), "{missing:#?}\n{tasks:?}\n{}\n{controller}", self.logs());
        for (index, planned) in self.fixture.plan().units.iter().enumerate() {
            let prepared = Store::new(self.fixture.path(&format!("bin/prepared/unit-{index:05}")));
            assert_eq!(
                contents(&store, &planned.output),
                contents(&prepared, &planned.output),
                "unit {index}"
            );
        }
        self.run(&["verify"]).expect(0);
    }

    /// Logs of all tasks together.
    pub fn logs(&self) -> String {
        let folder = self.fixture.store().jobs_dir(&self.fixture.plan().id()).join("logs");
        files(&folder).into_values().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }
}

/// The parts of an artifact by name.
pub fn contents(store: &Store, id: &ArtifactId) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = store.data_dir(id);
    assert!(folder.is_dir(), "`{id}` is not in the store");
    files(&folder).into_iter().map(|(path, bytes)| (path.file_name().unwrap().into(), bytes)).collect()
}
