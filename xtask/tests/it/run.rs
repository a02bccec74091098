//! `run`: single units, as array tasks of a cluster run them.

use pipeline_spec::Stage;

use crate::fixture::Fixture;

/// Runs units of the fixture's plan.
fn run(fixture: &Fixture, arguments: &[&str]) -> crate::fixture::Finished {
    fixture.run(&["plan"]).expect(0);
    let id = fixture.plan().id();
    fixture.run(&[&["run", "--bin-dir", "bin", "--plan", &id], arguments].concat())
}

#[test]
fn a_unit_runs_once_and_is_then_done_at_once() {
    let fixture = Fixture::new();
    run(&fixture, &["--unit", "0"]).expect(0);
    run(&fixture, &["--unit", "0"]).expect(0);
    assert_eq!(fixture.started(), ["unit-00000 whole"]);
}

#[test]
fn missing_inputs_end_with_65_before_anything_starts() {
    let fixture = Fixture::new();
    let metrics = fixture.unit("metrics-v1").to_string();
    let finished = run(&fixture, &["--unit", &metrics]).expect(65);
    assert!(finished.stderr.contains("predictions: predictions-v1/shapes/"), "{finished:#?}");
    assert_eq!(fixture.started(), Vec::<String>::new());
}

#[test]
fn an_array_index_runs_its_pack_of_units() {
    let fixture = Fixture::new();
    let num_units = fixture.plan().units.len();
    let pack = 4;
    for index in 0..num_units.div_ceil(pack) {
        run(&fixture, &["--array-index", &index.to_string(), "--pack", &pack.to_string()]).expect(0);
    }
    let expected: Vec<_> = (0..num_units).map(|index| format!("unit-{index:05} whole")).collect();
    assert_eq!(fixture.started(), expected);
}

#[test]
fn the_array_index_comes_from_the_scheduler() {
    let fixture = Fixture::new();
    fixture.run(&["plan"]).expect(0);
    let id = fixture.plan().id();
    let mut command = fixture.command(&["run", "--bin-dir", "bin", "--plan", &id]);
    let status = command.env("SLURM_ARRAY_TASK_ID", "1").env("PBS_ARRAY_INDEX", "0").status().unwrap();
    assert!(status.success());
    assert_eq!(fixture.started(), ["unit-00001 whole"]);
    let stderr = fixture.run(&["run", "--bin-dir", "bin", "--plan", &id]).expect(1).stderr;
    assert!(stderr.contains("SLURM_ARRAY_TASK_ID"), "{stderr}");
}

#[test]
fn a_shard_is_passed_on() {
    let fixture = Fixture::new();
    let (prompts, latents) = (fixture.unit("prompts-v1").to_string(), fixture.unit("latents-v1"));
    run(&fixture, &["--unit", &prompts]).expect(0);
    run(&fixture, &["--unit", &latents.to_string(), "--shard", "1/4"]).expect(0);
    assert_eq!(fixture.started().last(), Some(&format!("unit-{latents:05} 1/4")));
    run(&fixture, &["--unit", "0", "--shard", "4/4"]).expect(2);
}

#[test]
fn a_list_of_units_runs_in_its_order_and_goes_on_after_a_failure() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("bin/fail-unit-00001"), "").unwrap();
    let finished = run(&fixture, &["--units", "1,0"]).expect(74);
    assert!(finished.stderr.contains("exit code 74 after"), "{finished:#?}");
    assert_eq!(fixture.started(), ["unit-00001 whole", "unit-00000 whole"]);
    assert!(fixture.run(&["status"]).expect(0).stdout.contains("unit 1 `"));
}

#[test]
fn units_of_one_stage_share_a_process_and_one_that_dies_takes_only_its_unit_along() {
    let fixture = Fixture::new();
    fixture.reproduce(&[]).expect(0);
    let plan = fixture.plan();
    let of = |stage: Stage| -> Vec<usize> {
        (0..plan.units.len()).filter(|&i| plan.units[i].unit.spec.stage() == stage).collect()
    };
    let (trained, evaluated) = (of(Stage::Trainer), of(Stage::Evaluator));
    let forget = |units: &[usize]| {
        fixture.forget_started();
        units.iter().for_each(|&i| {
            std::fs::remove_dir_all(fixture.store().artifact_dir(&plan.units[i].output)).unwrap();
        });
    };
    let list = |units: &[usize]| units.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    forget(&[&trained[..], &evaluated].concat());
    run(&fixture, &["--units", &list(&[&trained[..], &evaluated].concat())]).expect(0);
    assert_eq!(fixture.lines("bin/processes"), ["trainer", "evaluator"]);
    assert_eq!(fixture.started().len(), trained.len() + evaluated.len());

    forget(&evaluated);
    let dying = evaluated[0];
    std::fs::write(fixture.path(&format!("bin/die-unit-{dying:05}")), "").unwrap();
    let independent: Vec<usize> =
        evaluated.iter().copied().filter(|&i| !plan.units[i].depends_on.contains(&dying)).collect();
    let finished = run(&fixture, &["--units", &list(&independent)]).expect(137);
    assert_eq!(fixture.lines("bin/processes"), ["evaluator", "evaluator"]);
    for &index in &independent {
        assert_eq!(fixture.store().contains(&plan.units[index].output), index != dying, "{finished:#?}");
    }
}

#[test]
fn units_outside_the_plan_are_rejected() {
    let fixture = Fixture::new();
    for range in ["0..999", "900..901", "0,1,900"] {
        let stderr = run(&fixture, &["--units", range]).expect(1).stderr;
        assert!(stderr.contains("not in the plan"), "{stderr}");
    }
    for list in ["5..5", "5..4", "", "1,,2", "1-3", "0..99999999999"] {
        let stderr = run(&fixture, &["--units", list]).expect(2).stderr;
        assert!(stderr.contains("expected indices"), "{stderr}");
    }
}

#[test]
fn two_signals_at_once_are_one_request_to_stop() {
    let fixture = Fixture::new();
    fixture.run(&["plan"]).expect(0);
    std::fs::write(fixture.path("bin/hang-unit-00000"), "").unwrap();
    let id = fixture.plan().id();
    let mut command = fixture.command(&["run", "--bin-dir", "bin", "--plan", &id, "--unit", "0"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    while fixture.started().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // The stand-in sets its trap after it tells that it was started.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    for _ in 0..2 {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("stopped") && stderr.contains("exit code 143 after"), "{stderr}");
}
