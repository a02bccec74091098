//! `reproduce`: order, caching, failures, signals.

use crate::fixture::{Finished, Fixture};
use pipeline_spec::ArtifactKind;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

impl Fixture {
    /// Runs `xtask reproduce` with the stand-ins.
    pub fn reproduce(&self, more: &[&str]) -> Finished {
        let jobs: &[&str] = if more.contains(&"--jobs") { &[] } else { &["--jobs", "2"] };
        self.run(&[&["reproduce", "--bin-dir", "bin"], jobs, more].concat())
    }
}

/// Index of the unit in a line that a stand-in wrote.
fn unit_of(line: &str) -> Option<usize> {
    line.split_whitespace().next()?.strip_prefix("unit-")?.parse().ok()
}

#[test]
fn everything_runs_once_after_its_inputs_and_ends_with_the_report() {
    let fixture = Fixture::new();
    let finished = fixture.reproduce(&[]).expect(0);
    assert!(finished.stdout.contains("reports/small/report.html"), "{finished:#?}");
    let plan = fixture.plan();
    let started = fixture.started();
    assert_eq!(started.last().map(String::as_str), Some("report"));
    for (index, planned) in plan.units.iter().enumerate() {
        assert!(fixture.store().contains(&planned.output), "unit {index}");
        let first = started.iter().position(|line| unit_of(line) == Some(index)).unwrap();
        for &input in &planned.depends_on {
            let last = started.iter().rposition(|line| unit_of(line) == Some(input)).unwrap();
            assert!(last < first, "unit {index} was started before unit {input} ended");
        }
        if planned.output.kind != ArtifactKind::Latents {
            assert_eq!(started.iter().filter(|line| unit_of(line) == Some(index)).count(), 1, "unit {index}");
        }
    }
}

#[test]
fn one_process_at_a_time_computes_all_ready_units_of_its_stage_and_every_unit_has_its_own_log() {
    let fixture = Fixture::new();
    fixture.reproduce(&["--jobs", "1"]).expect(0);
    let (plan, processes) = (fixture.plan(), fixture.lines("bin/processes"));
    assert!(processes.len() < 10 && processes.len() < plan.units.len() / 2, "{processes:?}");
    assert!(processes.windows(2).all(|pair| pair[0] != pair[1]), "{processes:?}");
    for (index, planned) in plan.units.iter().enumerate() {
        let log = fs::read_to_string(fixture.store().log_path(&planned.output)).unwrap();
        assert!(log.starts_with("$ ") && log.lines().count() == 1, "{log}");
        assert!(log.contains(&format!("unit-{index:05}.json")), "{log}");
    }
}

#[test]
fn parts_are_spread_over_shards_and_the_record_is_written_after_them() {
    let fixture = Fixture::new();
    fixture.reproduce(&["--jobs", "3"]).expect(0);
    let latents = fixture.unit("latents-v1");
    let mut shards: Vec<_> =
        fixture.started().into_iter().filter(|line| unit_of(line) == Some(latents)).collect();
    assert_eq!(shards.pop(), Some(format!("unit-{latents:05} whole")));
    shards.sort();
    assert_eq!(shards, ["0/3", "1/3", "2/3"].map(|shard| format!("unit-{latents:05} {shard}")));
}

#[test]
fn a_second_run_starts_nothing_and_is_quick() {
    let fixture = Fixture::new();
    fixture.reproduce(&[]).expect(0);
    fixture.forget_started();
    let start = Instant::now();
    let finished = fixture.reproduce(&[]).expect(0);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(fixture.started(), Vec::<String>::new());
    assert!(finished.stdout.contains("(unchanged)"), "{finished:#?}");
}

#[test]
fn a_lost_part_runs_its_own_unit_again_and_nothing_else() {
    let fixture = Fixture::new();
    fixture.reproduce(&[]).expect(0);
    fixture.forget_started();
    let images = fixture.unit("images-v1");
    let data = fixture.store().data_dir(&fixture.plan().units[images].output);
    fs::remove_file(data.join("part-00000-of-00001.parquet")).unwrap();
    let finished = fixture.reproduce(&[]).expect(0);
    assert!(finished.stderr.contains("no such file"), "{finished:#?}");
    assert_eq!(fixture.started(), [format!("unit-{images:05} whole")]);
}

#[test]
fn an_unreadable_record_runs_its_unit_again() {
    let fixture = Fixture::new();
    fixture.reproduce(&[]).expect(0);
    fixture.forget_started();
    let prompts = fixture.unit("prompts-v1");
    fs::write(fixture.store().record_path(&fixture.plan().units[prompts].output), "{").unwrap();
    fixture.reproduce(&[]).expect(0);
    assert_eq!(fixture.started(), [format!("unit-{prompts:05} whole")]);
}

#[test]
fn a_failure_is_shown_with_its_log_and_the_exit_code_of_the_unit() {
    let fixture = Fixture::new();
    let failing = fixture.unit("checkpoints-v1/shapes/linear-probe");
    fs::write(fixture.path(&format!("bin/fail-unit-{failing:05}")), "").unwrap();
    let finished = fixture.reproduce(&["--keep-going"]).expect(74);
    assert!(finished.stderr.contains("the disk is full"), "{finished:#?}");
    let plan = fixture.plan();
    let log = fixture.path(&format!("store/logs/{}.log", plan.units[failing].output.key));
    assert!(fs::read_to_string(log).unwrap().contains("the disk is full"));
    let depends = |index: usize| {
        let mut depends = vec![false; plan.units.len()];
        for i in 0..=index {
            depends[i] = i == failing || plan.units[i].depends_on.iter().any(|&input| depends[input]);
        }
        depends[index]
    };
    for (index, planned) in plan.units.iter().enumerate() {
        assert_eq!(fixture.store().contains(&planned.output), !depends(index), "unit {index}");
    }
    let status = fixture.run(&["status"]).expect(0);
    assert!(status.stdout.contains("exit code 74, log store/logs/"), "{status:#?}");
    assert!(status.stdout.contains("\n    cannot write, the disk is full"), "{status:#?}");

    fs::remove_file(fixture.path(&format!("bin/fail-unit-{failing:05}"))).unwrap();
    fixture.reproduce(&[]).expect(0);
    assert!(!fixture.run(&["status"]).expect(0).stdout.contains("exit code"));
}

#[test]
fn without_keep_going_nothing_starts_after_a_failure() {
    let fixture = Fixture::new();
    fs::write(fixture.path("bin/fail-unit-00000"), "").unwrap();
    let finished = fixture.reproduce(&["--jobs", "1"]).expect(74);
    assert_eq!(fixture.started(), ["unit-00000 whole"]);
    assert!(finished.stderr.contains("1 units failed"), "{finished:#?}");
}

#[test]
fn a_stop_reaches_the_stages_and_the_next_run_goes_on() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let fixture = Fixture::new();
        let hanging = fixture.unit("latents-v1");
        let hang_file = fixture.path(&format!("bin/hang-unit-{hanging:05}"));
        fs::write(&hang_file, "").unwrap();
        let mut command = fixture.command(&["reproduce", "--bin-dir", "bin", "--jobs", "2"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !fixture.started().iter().any(|line| unit_of(line) == Some(hanging)) {
            assert!(Instant::now() < deadline, "the unit was not started");
            std::thread::sleep(Duration::from_millis(10));
        }
        // The stand-in sets its trap after it tells that it was started.
        std::thread::sleep(Duration::from_millis(200));
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let finished = Finished::from(child.wait_with_output().unwrap()).expect(code);
        assert!(finished.stderr.contains("the same command continues"), "{finished:#?}");
        fs::remove_file(hang_file).unwrap();
        fixture.reproduce(&[]).expect(0);
    }
}

#[test]
fn a_dry_run_prints_command_lines_and_changes_nothing() {
    let fixture = Fixture::new();
    let finished = fixture.reproduce(&["--dry-run"]).expect(0);
    let lines = finished.stdout.lines().filter(|line| line.contains(" --spec ")).count();
    assert_eq!(lines, fixture.plan().units.len());
    assert!(!fixture.path("store").exists());
    assert_eq!(fixture.started(), Vec::<String>::new());
}

#[test]
fn a_missing_binary_is_named() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.path("bin/trainer")).unwrap();
    let stderr = fixture.reproduce(&[]).expect(1).stderr;
    assert!(stderr.contains("bin/trainer"), "{stderr}");
}
