//! `run`: single units, as array tasks of a cluster run them.

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
fn units_outside_the_plan_are_rejected() {
    let fixture = Fixture::new();
    for range in ["0..999", "5..5", "900..901"] {
        let stderr = run(&fixture, &["--units", range]).expect(1).stderr;
        assert!(stderr.contains("not in the plan"), "{stderr}");
    }
}
