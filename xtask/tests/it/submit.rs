//! `submit` without a scheduler: the local engine and dry runs. `tests/cluster` has the tests on a real Slurm.

use crate::fixture::{Finished, Fixture};
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs `xtask submit --engine local`.
fn submit(fixture: &Fixture, more: &[&str]) -> Finished {
    fixture.run(&[&["submit", "--engine", "local", "--bin-dir", "bin", "--jobs", "2"], more].concat())
}

/// A repository whose latents are one part.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.edit_pipeline("num_parts = 4", "num_parts = 1");
    fixture.prepare();
    fixture
}

/// Appends a `[cluster]` table to the pipeline.
fn add_cluster(fixture: &Fixture, table: &str) {
    let path = fixture.path("pipelines/quickstart.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}\n{table}")).unwrap();
}

#[test]
fn the_local_engine_runs_every_unit_once_after_its_inputs() {
    let fixture = fixture();
    submit(&fixture, &[]).expect(0);
    let plan = fixture.plan();
    let started = fixture.started();
    assert_eq!(started.len(), plan.units.len(), "{started:?}");
    let position =
        |unit: usize| started.iter().position(|line| *line == format!("unit-{unit:05} whole")).unwrap();
    for (index, planned) in plan.units.iter().enumerate() {
        assert!(fixture.store().contains(&planned.output), "unit {index}");
        assert!(planned.depends_on.iter().all(|&input| position(input) < position(index)), "unit {index}");
    }
    assert!(submit(&fixture, &[]).expect(0).stderr.contains("nothing to submit"));
}

#[test]
fn a_failed_unit_stops_what_waits_for_it_and_status_shows_its_log() {
    let fixture = fixture();
    let unit = fixture.unit("checkpoints-v1/shapes/linear-probe");
    fs::write(fixture.path(&format!("bin/fail-unit-{unit:05}")), "").unwrap();
    let finished = submit(&fixture, &["--pack", "3"]).expect(74);
    assert!(finished.stderr.contains("small-evaluator: not started"), "{finished:#?}");
    let status = fixture.run(&["status"]).expect(0).stdout;
    assert!(status.contains(&format!("unit {unit} `")) && status.contains("exit code 74"), "{status}");

    fs::remove_file(fixture.path(&format!("bin/fail-unit-{unit:05}"))).unwrap();
    fixture.forget_started();
    submit(&fixture, &["--pack", "3"]).expect(0);
    let trained =
        fixture.started().iter().filter(|line| line.starts_with(&format!("unit-{unit:05}"))).count();
    assert_eq!(trained, 1);
    let checkpoints = fixture.plan().units.into_iter().enumerate();
    let others =
        checkpoints.filter(|(index, u)| *index != unit && u.output.to_string().starts_with("checkpoints"));
    for (index, _) in others {
        assert!(!fixture.started().contains(&format!("unit-{index:05} whole")), "unit {index} ran twice");
    }
}

#[test]
fn units_are_packed_by_their_stated_time_and_pairs_stay_together() {
    let fixture = fixture();
    add_cluster(&fixture, "[cluster]\ntask_minutes = 6\n[cluster.resources]\nunit_minutes = 2\n");
    let text = submit(&fixture, &["--dry-run"]).expect(0).stdout;
    // Five runs of two minutes: three make six minutes. Five pairs of four minutes: two make eight.
    let arrays: Vec<&str> = text.lines().filter(|line| line.starts_with("#SBATCH --array")).collect();
    assert_eq!(arrays.last(), Some(&"#SBATCH --array=0-2"), "{text}");
    let plan = fixture.plan();
    let task = text.lines().rev().find(|line| line.starts_with("    '--units ")).unwrap();
    let units = task.trim().trim_matches('\'').trim_start_matches("--units ").split(',');
    let units: Vec<usize> = units.map(|unit| unit.parse().unwrap()).collect();
    for &unit in &units {
        let output = plan.units[unit].output.to_string();
        let inputs = &plan.units[unit].depends_on;
        let has_its_predictions = inputs.iter().any(|input| units.contains(input));
        assert_eq!(has_its_predictions, output.starts_with("metrics"), "{output}: {task}");
    }
    assert!(!fixture.path("store").exists());
}

#[test]
fn parts_of_a_long_unit_are_tasks_of_their_own() {
    let fixture = Fixture::new();
    let latents = fixture.unit("latents-v1");
    let text = submit(&fixture, &["--dry-run"]).expect(0).stdout;
    for index in 0..4 {
        assert!(text.contains(&format!("'--units {latents} --shard {index}/4'")), "{text}");
    }
    add_cluster(&fixture, "[cluster]\ntask_minutes = 10\n[cluster.stages.sd-latents]\nunit_minutes = 15\n");
    let text = submit(&fixture, &["--dry-run"]).expect(0).stdout;
    assert!(text.contains("--shard 1/2'") && !text.contains("/4'"), "{text}");
}

#[test]
fn a_setup_line_that_fails_ends_the_task_before_its_work() {
    let fixture = fixture();
    add_cluster(&fixture, "[cluster]\nsetup = [\"false\"]\n");
    submit(&fixture, &[]).expect(1);
    assert_eq!(fixture.started(), Vec::<String>::new());
}

#[test]
fn a_dry_run_for_slurm_needs_no_slurm() {
    let fixture = fixture();
    let mut command = fixture.command(&["submit", "--engine", "slurm", "--bin-dir", "bin", "--dry-run"]);
    let finished = Finished::from(command.env("PATH", "").output().unwrap()).expect(0);
    assert!(finished.stderr.contains("assuming a MaxArraySize of 1001"), "{finished:#?}");
    let mut command = fixture.command(&["submit", "--engine", "slurm", "--bin-dir", "bin"]);
    let finished = Finished::from(command.env("PATH", "").output().unwrap()).expect(69);
    assert!(finished.stderr.contains("scontrol"), "{finished:#?}");
}

#[test]
fn a_signal_stops_the_local_engine_and_its_stages() {
    let fixture = fixture();
    fs::write(fixture.path("bin/hang-unit-00000"), "").unwrap();
    let mut command = fixture.command(&["submit", "--engine", "local", "--bin-dir", "bin"]);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while fixture.started().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    let logs = fixture.store().jobs_dir(&fixture.plan().id()).join("logs");
    let text: String =
        crate::fixture::files(&logs).into_values().map(|b| String::from_utf8(b).unwrap()).collect();
    assert!(text.contains("stopped") && text.contains("exit code 143"), "{text}");
}

#[test]
fn a_submission_waits_for_another_of_its_plan_but_not_for_a_dead_one() {
    let fixture = fixture();
    let folder = fixture.store().jobs_dir(&fixture.plan().id());
    fs::create_dir_all(&folder).unwrap();
    let lock = folder.join("lock");
    let mut holder =
        Command::new("flock").arg(&lock).args(["sleep", "600"]).process_group(0).spawn().unwrap();
    let start = Instant::now();
    let is_held = || {
        let file = File::open(&lock).ok()?;
        Some(matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    };
    while is_held() != Some(true) {
        assert!(start.elapsed() < Duration::from_secs(20), "`flock` does not hold the lock");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut command = fixture.command(&["submit", "--engine", "local", "--bin-dir", "bin"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("another submission of this plan is under way"), "{line}");
    assert_eq!(fixture.started(), Vec::<String>::new());
    let group = rustix::process::Pid::from_raw(holder.id().cast_signed()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    holder.wait().unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert_eq!(fixture.started().len(), fixture.plan().units.len());
}
