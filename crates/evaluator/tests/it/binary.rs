//! The binary: its commands and exit codes.

use std::process::Command;

use pipeline_spec::{StageSpec, Store, Unit};

use crate::synthetic::{fill, plan};

fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "stdout is for data");
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn evaluator() -> Command {
    Command::new(env!("CARGO_BIN_EXE_evaluator"))
}

/// Whether the unit belongs to one run of `real-only`, or is data that runs share.
fn is_of_one_run(unit: &Unit) -> bool {
    let is_shared =
        !matches!(unit.spec, StageSpec::Checkpoints(_) | StageSpec::Predictions(_) | StageSpec::Metrics(_));
    is_shared || unit.spec.slug().starts_with("real-only-clip-a-shots1-seed1")
}

#[test]
fn metrics_run_with_and_without_the_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    fill(&plan, &store, |unit| !matches!(unit.spec, StageSpec::Metrics(_)));
    let metrics: Vec<_> =
        plan.units.iter().filter(|p| matches!(p.unit.spec, StageSpec::Metrics(_))).collect();
    for (planned, subcommand) in [(metrics[0], None), (metrics[1], Some("run"))] {
        let path = folder.path().join("unit.json");
        std::fs::write(&path, serde_json::to_vec(&planned.unit).unwrap()).unwrap();
        let mut command = evaluator();
        command.args(subcommand).arg("--spec").arg(&path).arg("--store").arg(store.root());
        let (code, text) = run(&mut command);
        assert_eq!(code, 0, "{text}");
        assert!(store.contains(&planned.output));
    }
    let unit = folder.path().join("unit.json");
    std::fs::write(&unit, serde_json::to_vec(&metrics[1].unit).unwrap()).unwrap();
    let (code, text) =
        run(evaluator().arg("--spec").arg(&unit).arg("--store").arg(folder.path().join("empty")));
    assert!(code == 65 && text.contains("is not in the store"), "{code}: {text}");
}

#[test]
fn metrics_read_nothing_but_the_inputs_of_their_unit() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    fill(&plan, &store, |unit| !matches!(unit.spec, StageSpec::Metrics(_)));
    let of_features = |unit: &Unit| unit.spec.slug().starts_with("linear-probe");
    let is_metrics = |unit: &Unit| matches!(unit.spec, StageSpec::Metrics(_));
    let metrics = plan.units.iter().find(|p| is_metrics(&p.unit) && of_features(&p.unit)).unwrap();
    for other in plan.units.iter().filter(|p| !metrics.unit.inputs.values().any(|id| *id == p.output)) {
        let artifact = store.artifact_dir(&other.output);
        if artifact.exists() {
            std::fs::remove_dir_all(artifact).unwrap();
        }
    }
    evaluator::metrics::run(&metrics.unit, &store, artifacts::Shard::default()).unwrap();
    assert!(store.contains(&metrics.output));
}

#[test]
fn report_reads_a_plan_and_refuses_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    fill(&plan, &store, is_of_one_run);
    let (path, out) = (folder.path().join("plan.json"), folder.path().join("report"));
    std::fs::write(&path, serde_json::to_vec(&plan).unwrap()).unwrap();
    let report = || {
        let mut command = evaluator();
        command
            .arg("report")
            .arg("--plan")
            .arg(&path)
            .arg("--store")
            .arg(store.root())
            .arg("--out")
            .arg(&out);
        command
    };
    let (code, text) = run(&mut report());
    assert_eq!(code, 0, "{text}");
    assert!(out.join("report.html").is_file());
    std::fs::write(&path, "{\"units\": []}").unwrap();
    let (code, text) = run(&mut report());
    assert!(
        code == 78 && text.contains("plan.json") && text.contains("missing field `pipeline`"),
        "{code}: {text}"
    );
    let (code, text) = run(evaluator().args(["report", "--out", "x"]));
    assert!(code == 2 && text.contains("--plan"), "{code}: {text}");
}

#[test]
fn compare_prints_markdown_and_names_what_it_cannot_find() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    fill(&plan, &store, is_of_one_run);
    let run = plan.units.iter().find(|p| p.output.slug == "real-only-clip-a-shots1-seed1-ema");
    let run =
        plan.units.iter().rfind(|p| p.output.slug == run.unwrap().output.slug).unwrap().output.to_string();
    let compare = |b: &str| {
        let output = evaluator().args(["compare", &run, b, "--store"]).arg(store.root()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (code, stdout, stderr) = compare(&run);
    assert!(code == 0 && stdout.starts_with("# B compared with A\n"), "{code}: {stderr}");
    let (code, stdout, stderr) = compare("metrics-v1/toys/nothing-0123456789abcdef0123456789abcdef");
    assert!(code == 65 && stdout.is_empty() && stderr.contains("is not in the store"), "{code}: {stderr}");
}

#[test]
fn benchmark_wants_a_plan_and_writes_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    fill(&plan, &store, is_of_one_run);
    let (path, out) = (folder.path().join("plan.json"), folder.path().join("benchmark"));
    std::fs::write(&path, serde_json::to_vec(&plan).unwrap()).unwrap();
    let mut command = evaluator();
    command.args(["benchmark", "--plan"]).arg(&path).arg("--store").arg(store.root()).arg("--out").arg(&out);
    let (code, text) = run(&mut command);
    assert_eq!(code, 0, "{text}");
    assert!(out.join("benchmark.html").is_file() && out.join("average-over-shots.svg").is_file());
    let (code, text) = run(evaluator().args(["benchmark", "--out", "x"]));
    assert!(code == 2 && text.contains("--plan"), "{code}: {text}");
}
