//! The expansion of a pipeline.

use pipeline_spec::pipeline::TextClassifierTable;
use pipeline_spec::{ArtifactId, ArtifactKind, Pipeline, Plan, Unit};
use std::collections::BTreeSet;

use crate::fixture::Fixture;

fn count(plan: &Plan, kind: ArtifactKind) -> usize {
    plan.units.iter().filter(|u| u.output.kind == kind).count()
}

#[test]
fn a_sweep_has_one_unit_per_cell() {
    let plan = Fixture::new().plan();
    let (cells, backbones) = (2 * 3, 2);
    assert_eq!(count(&plan, ArtifactKind::Images), 1);
    assert_eq!(count(&plan, ArtifactKind::Prompts), 1);
    assert_eq!(count(&plan, ArtifactKind::Latents), 1);
    assert_eq!(count(&plan, ArtifactKind::FewshotSplits), cells);
    // training and held-out features once per backbone, cache features once per cell
    assert_eq!(count(&plan, ArtifactKind::Features), backbones * (2 + cells));
    // four methods with shots, and zero-shot once
    assert_eq!(count(&plan, ArtifactKind::Checkpoints), backbones * (4 * cells + 1));
    // the two fine-tuned methods are evaluated with raw and with averaged weights
    assert_eq!(count(&plan, ArtifactKind::Metrics), backbones * (6 * cells + 1));
    assert_eq!(count(&plan, ArtifactKind::Predictions), count(&plan, ArtifactKind::Metrics));
}

#[test]
fn every_unit_stands_once_and_after_what_it_reads() {
    let plan = Fixture::new().plan();
    let outputs: BTreeSet<_> = plan.units.iter().map(|u| &u.output).collect();
    assert_eq!(outputs.len(), plan.units.len());
    for (index, planned) in plan.units.iter().enumerate() {
        let read: BTreeSet<_> = planned.unit.inputs.values().collect();
        let needed: BTreeSet<_> = planned.depends_on.iter().map(|&i| &plan.units[i].output).collect();
        assert_eq!(read, needed);
        assert!(planned.depends_on.iter().all(|&i| i < index));
    }
}

#[test]
fn a_plan_survives_a_round_trip() {
    let fixture = Fixture::new();
    let plan = fixture.plan();
    let path = fixture.path("plan.json");
    std::fs::write(&path, serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(Plan::read(&path).unwrap(), plan);
}

#[test]
fn a_plan_whose_spec_was_edited_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.path("plan.json");
    let text = serde_json::to_string(&fixture.plan()).unwrap();
    std::fs::write(&path, text.replacen("\"num_parts\":1", "\"num_parts\":2", 2)).unwrap();
    let message = Plan::read(&path).unwrap_err().to_string();
    assert!(message.contains("output") && message.contains("expected"), "{message}");
}

#[test]
fn a_unit_file_reads_back_as_toml_and_as_json() {
    let fixture = Fixture::new();
    for (index, planned) in fixture.plan().units.iter().enumerate() {
        let json = fixture.path(&format!("{index}.json"));
        let toml = fixture.path(&format!("{index}.toml"));
        std::fs::write(&json, serde_json::to_string(&planned.unit).unwrap()).unwrap();
        std::fs::write(&toml, toml::to_string(&planned.unit).unwrap()).unwrap();
        assert_eq!(Unit::read(&json).unwrap(), planned.unit);
        assert_eq!(Unit::read(&toml).unwrap(), planned.unit);
    }
}

#[test]
fn more_shots_leave_the_other_cells_as_they_are() {
    let fixture = Fixture::new();
    let before: BTreeSet<_> = fixture.plan().units.into_iter().map(|u| u.output).collect();
    let mut pipeline = Pipeline::read(&fixture.path("pipeline.toml")).unwrap();
    pipeline.fewshot.shots.push(4);
    let plan = Plan::new(pipeline, &fixture.path("data-manifests"), &fixture.path("models")).unwrap();
    let after: BTreeSet<_> = plan.units.into_iter().map(|u| u.output).collect();
    assert!(before.is_subset(&after) && before.len() < after.len());
}

#[test]
fn other_weights_change_only_what_reads_them() {
    let fixture = Fixture::new();
    let before: BTreeSet<_> = fixture.plan().units.into_iter().map(|u| u.output).collect();
    std::fs::write(fixture.path("models/clip-b/config.json"), "{}").unwrap();
    std::fs::write(fixture.path("models/clip-a/README.md"), "another card").unwrap();
    let after: BTreeSet<_> = fixture.plan().units.into_iter().map(|u| u.output).collect();
    for gone in before.difference(&after) {
        let reads_b = gone.slug.contains("clip-b");
        assert!(reads_b, "{gone}");
    }
    assert!(before.difference(&after).count() > 0);
}

/// Outputs of the plan after `change`.
fn outputs_with(fixture: &Fixture, change: impl FnOnce(&mut Pipeline)) -> BTreeSet<ArtifactId> {
    let mut pipeline = Pipeline::read(&fixture.path("pipeline.toml")).unwrap();
    change(&mut pipeline);
    let plan = Plan::new(pipeline, &fixture.path("data-manifests"), &fixture.path("models")).unwrap();
    plan.units.into_iter().map(|u| u.output).collect()
}

#[test]
fn other_class_texts_change_only_the_methods_that_read_them() {
    let fixture = Fixture::new();
    let before = outputs_with(&fixture, |_| ());
    let after = outputs_with(&fixture, |p| p.text_classifier = TextClassifierTable::ImageNet7);
    let changed: Vec<_> = before.difference(&after).collect();
    let reads_texts = |id: &ArtifactId| {
        ["zero-shot", "tip-adapter-f", "flier-coupled"].iter().any(|method| id.slug.starts_with(method))
    };
    assert!(changed.iter().all(|id| reads_texts(id)), "{changed:?}");
    assert!(before.intersection(&after).all(|id| !reads_texts(id)));
}

#[test]
fn a_method_may_read_the_prompts_instead_of_the_templates() {
    let fixture = Fixture::new();
    let mut pipeline = Pipeline::read(&fixture.path("pipeline.toml")).unwrap();
    let mut own = pipeline.methods[0].clone();
    own.name = "zero-shot-prompts".to_owned();
    own.text_classifier = Some(TextClassifierTable::Prompts { truncate: true });
    pipeline.methods.push(own);
    let plan = Plan::new(pipeline, &fixture.path("data-manifests"), &fixture.path("models")).unwrap();
    let readers: Vec<_> = plan
        .units
        .iter()
        .filter(|u| u.output.kind == ArtifactKind::Checkpoints && u.unit.inputs.contains_key("prompts"))
        .map(|u| u.output.slug.as_str())
        .collect();
    assert!(readers.len() == 2 && readers.iter().all(|slug| slug.starts_with("zero-shot-prompts")));
    assert_eq!(count(&plan, ArtifactKind::Prompts), 1);
}

#[test]
fn texts_of_the_manifest_are_its_templates() {
    let fixture = Fixture::new();
    let manifest = "dataset = \"toys\"\ndescription = \"Toys.\"\ntemplates = [\"my toy {}\"]\nsources = []\n\
                    [form.folder]\nroot = \".\"\n[form.folder.split.percent]\ntrain = 50\nval = 25\ntest = 25\n";
    std::fs::write(fixture.path("data-manifests/toys.toml"), manifest).unwrap();
    let by_manifest = outputs_with(&fixture, |p| p.text_classifier = TextClassifierTable::Manifest);
    let templates = |template: &str| TextClassifierTable::Templates { templates: vec![template.to_owned()] };
    assert_eq!(by_manifest, outputs_with(&fixture, |p| p.text_classifier = templates("my toy {}")));
    assert_ne!(by_manifest, outputs_with(&fixture, |p| p.text_classifier = templates("a toy {}")));
}
