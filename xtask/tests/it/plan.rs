//! Plans: what is in them and what is written.

use crate::fixture::{Fixture, files};
use pipeline_spec::{ArtifactKind, Pipeline, Plan, Stage, Unit};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn a_plan_is_the_same_each_time_and_holds_every_output_once() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.plan(), fixture.plan());
    assert_eq!(first, second);
    assert_eq!(first.id(), second.id());
    let outputs: BTreeSet<_> = first.units.iter().map(|planned| &planned.output).collect();
    assert_eq!(outputs.len(), first.units.len());
}

#[test]
fn every_unit_stands_after_what_it_reads() {
    let plan = Fixture::new().plan();
    for (index, planned) in plan.units.iter().enumerate() {
        assert!(planned.depends_on.iter().all(|&input| input < index), "unit {index}");
        assert_eq!(planned.depends_on.len(), planned.unit.inputs.len(), "unit {index}");
    }
}

#[test]
fn the_quick_start_plans_every_cell_of_its_sweep_once() {
    let fixture = Fixture::new();
    let manifest = "dataset = \"emoji\"\n";
    fs::write(fixture.path("data-manifests/emoji.toml"), manifest).unwrap();
    let pipeline = Pipeline::read(&repository().join("pipelines/quickstart.toml")).unwrap();
    let checkpoints = pipeline.latents.iter().map(|table| &table.checkpoint);
    for checkpoint in pipeline.backbones.iter().chain(checkpoints) {
        let folder = fixture.path("models").join(checkpoint);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), "{}").unwrap();
    }
    let (shots, seeds) = (pipeline.fewshot.shots.len(), pipeline.fewshot.seeds.len());
    let (methods, backbones) = (pipeline.methods.len(), pipeline.backbones.len());
    let plan = Plan::new(pipeline, &fixture.path("data-manifests"), &fixture.path("models")).unwrap();
    let count = |kind| plan.units.iter().filter(|planned| planned.output.kind == kind).count();
    // Zero-shot needs no shots.
    let runs = backbones * ((methods - 1) * shots * seeds + 1);
    assert_eq!(count(ArtifactKind::Checkpoints), runs);
    assert_eq!(count(ArtifactKind::FewshotSplits), shots * seeds);
    assert_eq!(
        (count(ArtifactKind::Prompts), count(ArtifactKind::Latents), count(ArtifactKind::Images)),
        (1, 1, 1)
    );
}

#[test]
fn plan_files_read_back_and_are_written_once() {
    let fixture = Fixture::new();
    fixture.run(&["plan"]).expect(0);
    let plan = fixture.plan();
    let folder = fixture.store().plan_dir(&plan.id());
    assert_eq!(Plan::read(&folder.join("plan.json")).unwrap(), plan);
    for (index, planned) in plan.units.iter().enumerate() {
        let unit = Unit::read(&folder.join(format!("unit-{index:05}.json"))).unwrap();
        assert_eq!(unit, planned.unit);
        assert_eq!(unit.output(), planned.output);
    }
    let before = files(&folder);
    fixture.run(&["plan"]).expect(0);
    assert_eq!(files(&folder), before);
}

#[test]
fn the_json_form_lists_every_unit_with_its_command_line() {
    let fixture = Fixture::new();
    let json: serde_json::Value =
        serde_json::from_str(&fixture.run(&["plan", "--json"]).expect(0).stdout).unwrap();
    let units = json["units"].as_array().unwrap();
    assert_eq!(units.len(), fixture.plan().units.len());
    for unit in units {
        let command = unit["command"].as_str().unwrap();
        assert!(Stage::ALL.iter().any(|stage| command.contains(&format!("/{stage} --spec "))), "{command}");
        assert_eq!(unit["is_cached"], false);
    }
}

#[test]
fn a_misspelled_field_is_rejected_with_its_name() {
    let fixture = Fixture::new();
    fixture.edit_pipeline("guidance_scale", "guidance_scal");
    let stderr = fixture.run(&["plan"]).expect(78).stderr;
    assert!(stderr.contains("guidance_scal") && stderr.contains("quickstart.toml"), "{stderr}");
}

#[test]
fn a_missing_checkpoint_folder_is_a_missing_input() {
    let fixture = Fixture::new();
    fs::remove_dir_all(fixture.path("models/small-sd")).unwrap();
    let stderr = fixture.run(&["plan"]).expect(65).stderr;
    assert!(stderr.contains("small-sd"), "{stderr}");
}
