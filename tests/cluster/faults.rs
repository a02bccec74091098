//! What goes wrong on a cluster: failing units, requeues, lost nodes, cancelled jobs, a controller that is down.

use crate::scheduler::Lab;
use std::fs;

/// A unit in the middle of the small pipeline, of which nothing else of its array needs anything.
fn a_run(lab: &Lab) -> usize {
    lab.fixture.unit("checkpoints-v1/shapes/linear-probe")
}

#[test]
fn s2_a_failed_unit_is_named_and_only_it_and_what_waited_for_it_runs_again() {
    let lab = Lab::new(3, "[cluster.resources]\ncpus = 1\n");
    let unit = a_run(&lab);
    let fault = lab.make("fail", unit);
    let latents = lab.fixture.unit("latents-v1");
    lab.fixture.run(&["plan"]).expect(0);
    let id = lab.fixture.plan().id();
    lab.fixture
        .run(&["run", "--bin-dir", "bin", "--plan", &id, "--units", &format!("0..{}", latents + 1)])
        .expect(0);
    lab.submit(&[]);
    lab.slurm.settle();

    let status = lab.run(&["status"]).expect(0).stdout;
    let output = &lab.fixture.plan().units[unit].output;
    for part in [&format!("unit {unit} `{output}`: exit code 74"), "the disk is full", "logs/small-trainer-"]
    {
        assert!(status.contains(part), "no `{part}` in {status}");
    }
    let evaluator: Vec<_> =
        lab.slurm.tasks().into_iter().filter(|task| task[3] == "DependencyNeverSatisfied").collect();
    assert!(!evaluator.is_empty() && evaluator.iter().all(|task| task[2] == "CANCELLED"), "{evaluator:?}");

    fs::remove_file(fault).unwrap();
    let before = lab.fixture.started();
    lab.fixture.forget_started();
    lab.submit(&[]);
    lab.slurm.settle();
    lab.expect_all_done();
    let again = lab.fixture.started();
    let plan = lab.fixture.plan();
    for (index, planned) in plan.units.iter().enumerate() {
        let line = format!("unit-{index:05} whole");
        let had_run = before.contains(&line) && index != unit;
        assert_eq!(again.contains(&line), !had_run, "unit {index} {}", planned.output);
    }
    assert_eq!(again.len(), again.iter().collect::<std::collections::BTreeSet<_>>().len(), "{again:?}");
}

#[test]
fn s3_a_requeued_task_runs_again_and_what_waits_for_it_goes_on() {
    let lab = Lab::new(2, "");
    let unit = a_run(&lab);
    let hang = lab.make("hang", unit);
    let jobs = lab.submit(&[]);
    lab.wait_for_start(unit);
    let running = lab.run(&["status"]).expect(0);
    assert!(running.stderr.contains("units wait: Dependency (job "), "{running:#?}");
    let task = lab.task_of(unit, &jobs["small-trainer"]);
    lab.slurm.ask("scontrol", &["requeue", &task.join("_")]);
    lab.wait_for_stop(&task);
    fs::remove_file(hang).unwrap();
    lab.slurm.settle();
    lab.expect_all_done();
    assert_eq!(lab.starts(unit), 2);
}

#[test]
fn s3_a_stage_that_asks_for_another_try_is_requeued_by_its_script() {
    let lab = Lab::new(1, "");
    let stage = lab.fixture.path("bin/trainer");
    let text = fs::read_to_string(&stage).unwrap();
    let once = "if [ ! -f \"$here/tried-$unit\" ]; then touch \"$here/tried-$unit\"; exit 75; fi\n";
    let place = "if [ -f \"$here/fail-$unit\" ]";
    fs::write(&stage, text.replace(place, &format!("{once}{place}"))).unwrap();
    lab.submit(&["--pack", "8"]);
    lab.slurm.settle();
    lab.expect_all_done();
    let unit = a_run(&lab);
    assert_eq!(lab.starts(unit), 2);
    assert!(lab.logs().contains("exit code 75") && lab.logs().contains("start 2 on"), "{}", lab.logs());
}

#[test]
fn s4_a_task_on_a_node_that_goes_down_runs_on_another() {
    let lab = Lab::new(2, "");
    let unit = a_run(&lab);
    let hang = lab.make("hang", unit);
    let jobs = lab.submit(&[]);
    lab.wait_for_start(unit);
    let task = lab.task_of(unit, &jobs["small-trainer"]);
    let node = || lab.slurm.tasks().into_iter().find(|line| line[..2] == task[..]).unwrap()[4].clone();
    let first = node();
    lab.slurm.ask("scontrol", &["update", &format!("nodename={first}"), "state=down", "reason=test"]);
    lab.wait_for_stop(&task);
    fs::remove_file(hang).unwrap();
    lab.slurm.settle();
    lab.expect_all_done();
    assert_ne!(node(), first);
    assert_eq!(lab.starts(unit), 2);
}

#[test]
fn s5_a_task_whose_dependency_vanished_finds_no_inputs_and_writes_nothing() {
    let lab = Lab::new(1, "");
    let unit = lab.fixture.unit("images-v1");
    lab.make("hang", unit);
    let jobs = lab.submit(&[]);
    lab.wait_for_start(unit);
    lab.slurm.ask("scancel", &["--partition=debug", "--quiet"]);
    lab.slurm.settle();
    // Slurm drops a dependency on a job that it does not know and starts the job.
    let folder = lab.fixture.store().jobs_dir(&lab.fixture.plan().id());
    let script = folder.join(format!("{}.sh", jobs["small-trainer"]));
    let arguments = ["--parsable", "--dependency=afterok:99999", "--chdir", folder.to_str().unwrap()];
    let id = lab.slurm.ask("sbatch", &[&arguments[..], &[script.to_str().unwrap()]].concat());
    lab.slurm.settle();
    let tasks: Vec<_> = lab.slurm.tasks().into_iter().filter(|task| task[0] == id.trim()).collect();
    assert!(!tasks.is_empty() && tasks.iter().all(|task| task[2] == "FAILED"), "{tasks:?}");
    assert!(lab.logs().contains("its inputs are not in the store") && lab.logs().contains("exit code 65"));
    let plan = lab.fixture.plan();
    let trained = plan.units.iter().filter(|planned| planned.output.to_string().starts_with("checkpoints"));
    assert!(trained.into_iter().all(|planned| !lab.fixture.store().artifact_dir(&planned.output).exists()));
}

#[test]
fn s7_cancelled_jobs_stay_away_and_nothing_that_is_done_runs_again() {
    let lab = Lab::new(2, "");
    let unit = a_run(&lab);
    let hang = lab.make("hang", unit);
    let jobs = lab.submit(&[]);
    lab.wait_for_start(unit);
    let trainer = &jobs["small-trainer"];
    lab.slurm.wait("the other tasks of the array", || {
        lab.slurm.active().iter().filter(|task| &task[0] == trainer).count() == 1
    });
    let queued = lab.run(&["submit", "--engine", "slurm", "--bin-dir", "bin"]).expect(0);
    assert!(queued.stderr.contains("nothing to submit"), "{queued:#?}");
    lab.slurm.ask("scancel", &["--partition=debug", "--quiet"]);
    lab.slurm.wait("the end of all tasks", || lab.slurm.active().is_empty());
    // A script that requeued itself on every signal would bring the task back.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(lab.slurm.active(), Vec::<Vec<String>>::new());
    fs::remove_file(hang).unwrap();
    lab.submit(&[]);
    lab.slurm.settle();
    lab.expect_all_done();
    let starts: Vec<usize> = (0..lab.fixture.plan().units.len()).map(|index| lab.starts(index)).collect();
    assert!(
        starts.iter().enumerate().all(|(index, &n)| n == if index == unit { 2 } else { 1 }),
        "{starts:?}"
    );
}

#[test]
fn s9_without_a_controller_nothing_is_recorded_and_its_return_is_enough() {
    let lab = Lab::new(1, "");
    lab.slurm.crash("slurmctld");
    let finished = lab.run(&["submit", "--engine", "slurm", "--bin-dir", "bin"]).expect(69);
    assert!(finished.stderr.contains("controller does not answer"), "{finished:#?}");
    let folder = lab.fixture.store().jobs_dir(&lab.fixture.plan().id());
    let records = fs::read_dir(&folder).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json")
    });
    assert_eq!(records.count(), 0);

    lab.slurm.restart("slurmctld");
    let unit = a_run(&lab);
    let hang = lab.make("hang", unit);
    let jobs = lab.submit(&[]);
    lab.wait_for_start(unit);
    lab.slurm.wait_until_saved(&lab.task_of(unit, &jobs["small-trainer"]));
    lab.slurm.crash("slurmctld");
    let status = lab.run(&["status"]).expect(0);
    assert!(status.stderr.contains("what runs and waits is not known"), "{status:#?}");
    lab.slurm.restart("slurmctld");
    fs::remove_file(hang).unwrap();
    lab.slurm.settle();
    lab.expect_all_done();
    assert_eq!(lab.starts(unit), 1);
}

#[test]
fn a_pre_empted_task_stops_cleanly_and_runs_again() {
    let lab = Lab::new(1, "");
    let unit = a_run(&lab);
    let hang = lab.make("hang", unit);
    let jobs = lab.submit(&[]);
    lab.wait_for_start(unit);
    lab.slurm.ask("sbatch", &["--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true"]);
    lab.wait_for_stop(&lab.task_of(unit, &jobs["small-trainer"]));
    fs::remove_file(hang).unwrap();
    lab.slurm.settle();
    lab.expect_all_done();
    assert_eq!(lab.starts(unit), 2);
    assert!(lab.logs().contains("stopped"), "{}", lab.logs());
}
