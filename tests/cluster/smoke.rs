//! The smoke pipeline with the real stages: what Slurm's tasks write is what a local run writes.

use crate::scheduler::{Slurm, contents};
use pipeline_spec::{Pipeline, Plan, Store};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// `xtask <arguments>` in the repository, on `store`.
fn xtask(arguments: &[&str], pipeline: &Path, store: &Path) -> Command {
    let bins = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.current_dir(repository()).args(arguments).arg(pipeline).arg("--store").arg(store);
    command.arg("--bin-dir").arg(bins).env_remove("CARGO_MANIFEST_DIR");
    command
}

/// Runs a command; gives what it says on stdout.
#[track_caller]
fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_smoke_pipeline_on_slurm_has_the_keys_and_bytes_of_a_local_run() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(repository().join("pipelines/smoke.toml")).unwrap();
    let pipeline = folder.path().join("smoke.toml");
    let table = "\n[cluster]\n[cluster.resources]\ncpus = 1\ntime = \"00:10:00\"\n[cluster.stages.trainer]\ngpus = 1\n";
    std::fs::write(&pipeline, text + table).unwrap();
    let (local, remote) = (folder.path().join("local"), folder.path().join("remote"));

    let report = folder.path().join("report").display().to_string();
    succeed(xtask(&["reproduce", "--out", &report], &pipeline, &local));
    let slurm = Slurm::start(1);
    let submit = xtask(&["submit", "--engine", "slurm", "--pack", "12"], &pipeline, &remote);
    let mut report = succeed(slurm.command(submit));
    slurm.settle();

    let plan = Plan::new(
        Pipeline::read(&pipeline).unwrap(),
        &repository().join("data-manifests"),
        &repository().join("models"),
    )
    .unwrap();
    let (local, remote) = (Store::new(local), Store::new(remote));
    let (mut num_files, mut num_bytes) = (0, 0);
    for planned in &plan.units {
        let id = &planned.output;
        assert!(remote.contains(id), "`{id}` is missing; tasks: {:#?}", slurm.tasks());
        let files = contents(&remote, id);
        assert_eq!(files, contents(&local, id), "{id}");
        num_files += files.len();
        num_bytes += files.values().map(Vec::len).sum::<usize>();
    }
    // The jobs, and what was compared; seen with `--no-capture`.
    let count = |state| slurm.tasks().iter().filter(|task| task[2] == state).count();
    report += &format!(
        "{} tasks completed, {} failed; {} artifacts of equal keys, {num_files} files, {num_bytes} bytes, 0 different\n",
        count("COMPLETED"),
        count("FAILED"),
        plan.units.len()
    );
    std::io::stderr().write_all(report.as_bytes()).unwrap();
}
