//! The expansion of a pipeline.

use pipeline_spec::pipeline::{EncodedLatentsTable, SelectionTable, TextClassifierTable};
use pipeline_spec::spec::{LatentsOptions, Scheduler, TimestepSpacing};
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

#[test]
fn encoded_latents_are_made_for_each_shot_list_and_read_in_its_cell() {
    let fixture = Fixture::new();
    let mut pipeline = Pipeline::read(&fixture.path("pipeline.toml")).unwrap();
    pipeline.latents = None;
    pipeline.encoded_latents =
        Some(EncodedLatentsTable { checkpoint: "sd-a".to_owned(), image_size: 64, num_parts: 1 });
    let plan = Plan::new(pipeline, &fixture.path("data-manifests"), &fixture.path("models")).unwrap();
    assert_eq!(count(&plan, ArtifactKind::Latents), 2 * 3);
    assert_eq!(count(&plan, ArtifactKind::Prompts), 0);
    let mut readers = 0;
    for planned in &plan.units {
        let Some(latents) = planned.unit.inputs.get("latents") else { continue };
        let shots = &planned.unit.inputs["fewshot-splits"];
        let made = plan.units.iter().find(|unit| unit.output == *latents).unwrap();
        assert_eq!(made.unit.inputs["fewshot-splits"], *shots, "{}", planned.output);
        readers += 1;
    }
    assert_eq!(readers, 2 * 2 * 3, "one fine-tuned method with latents on two backbones");
}

#[test]
fn a_selection_is_pinned_by_the_digest_of_its_clip() {
    let fixture = Fixture::new();
    let plain = outputs_with(&fixture, |_| ());
    let select = |p: &mut Pipeline| {
        let (clip, template) = ("clip-a".to_owned(), "a {}".to_owned());
        let table = p.latents.as_mut().unwrap();
        table.selection = Some(SelectionTable { clip, template, keep_per_class: 2 });
    };
    let latents =
        |ids: &BTreeSet<ArtifactId>| ids.iter().find(|id| id.kind == ArtifactKind::Latents).unwrap().clone();
    let selected = outputs_with(&fixture, select);
    assert_ne!(latents(&plain), latents(&selected));
    std::fs::write(fixture.path("models/clip-a/config.json"), "{}").unwrap();
    assert_ne!(latents(&selected), latents(&outputs_with(&fixture, select)));
}

#[test]
fn options_that_do_not_fit_the_sampler_are_refused() {
    let fixture = Fixture::new();
    let plan = |scheduler: Scheduler, options: LatentsOptions| {
        let mut pipeline = Pipeline::read(&fixture.path("pipeline.toml")).unwrap();
        let table = pipeline.latents.as_mut().unwrap();
        (table.scheduler, table.options) = (scheduler, Some(options));
        Plan::new(pipeline, &fixture.path("data-manifests"), &fixture.path("models"))
    };
    let none = LatentsOptions::default;
    let karras = || LatentsOptions { use_karras_sigmas: Some(true), ..none() };
    let eta = |eta| LatentsOptions { eta: Some(eta), ..none() };
    let spacing = || LatentsOptions { timestep_spacing: Some(TimestepSpacing::Trailing), ..none() };
    let steps = |steps: &[u32]| LatentsOptions { latent_steps: Some(steps.to_vec()), ..none() };
    for (scheduler, options, field) in [
        (Scheduler::Ddim, none(), "options"),
        (Scheduler::Ddim, karras(), "options.use_karras_sigmas"),
        (Scheduler::EulerAncestral, karras(), "options.use_karras_sigmas"),
        (Scheduler::Euler, eta(0.5), "options.eta"),
        (Scheduler::Ddim, eta(1.5), "options.eta"),
        (Scheduler::Ddim, eta(f64::NAN), "options.eta"),
        (Scheduler::Lcm, spacing(), "options.timestep_spacing"),
        (Scheduler::Ddim, steps(&[]), "options.latent_steps"),
        (Scheduler::Ddim, steps(&[2, 2]), "options.latent_steps"),
        (Scheduler::Ddim, steps(&[0, 2]), "options.latent_steps"),
        (Scheduler::Ddim, steps(&[5]), "options.latent_steps"),
    ] {
        let message = plan(scheduler, options).unwrap_err().to_string();
        assert!(
            message.contains(&format!("`{field}`")) && message.contains("expected"),
            "{field}: {message}"
        );
    }
    for (scheduler, options) in [
        (Scheduler::Euler, karras()),
        (Scheduler::DpmSolverMultistep, karras()),
        (Scheduler::Ddim, eta(1.0)),
        (Scheduler::Pndm, spacing()),
        (Scheduler::Lcm, steps(&[1, 4])),
    ] {
        plan(scheduler, options).unwrap();
    }
}

/// A pipeline of the methods that are made of texts, with `more` on top.
fn text_pipeline(fixture: &Fixture, more: &str) -> Result<Pipeline, pipeline_spec::Error> {
    let text = crate::fixture::PIPELINE;
    let (head, _) = text.split_once("[[methods]]\nname = \"linear-probe\"").unwrap();
    let adapter = "[[methods]]\nname = \"clip-adapter\"\nmethod = { kind = \"clip-adapter\", reduction = 4, ratio = [0.2], \
                   training = { epochs = 2, batch_size = 8, learning_rate = 1e-3 } }\n";
    let text = format!("{more}{head}{adapter}");
    std::fs::write(fixture.path("pipeline.toml"), text).unwrap();
    Pipeline::read(&fixture.path("pipeline.toml"))
}

fn plan_of(fixture: &Fixture, pipeline: Pipeline) -> Plan {
    Plan::new(pipeline, &fixture.path("data-manifests"), &fixture.path("models")).unwrap()
}

#[test]
fn base_to_new_trains_on_one_half_and_meets_the_other_by_its_texts() {
    let fixture = Fixture::new();
    let pipeline = text_pipeline(&fixture, "class_split = \"base-to-new\"\n").unwrap();
    assert_eq!(pipeline.places(), ["base/test", "new/test"]);
    let plan = plan_of(&fixture, pipeline);
    let images: Vec<&str> = plan
        .units
        .iter()
        .filter(|u| u.output.kind == ArtifactKind::Images)
        .map(|u| u.output.slug.as_str())
        .collect();
    assert_eq!(images, ["train-val-test-32px-base", "test-32px-new"]);
    let (runs, backbones) = (6 + 1, 2);
    // Each backbone has one zero-shot run that holds the texts of the new classes.
    assert_eq!(count(&plan, ArtifactKind::Checkpoints), backbones * (runs + 1));
    assert_eq!(count(&plan, ArtifactKind::Metrics), backbones * 2 * runs);
    for planned in plan.units.iter().filter(|u| u.output.kind == ArtifactKind::Predictions) {
        let is_new = planned.output.slug.ends_with("-new");
        assert_eq!(planned.unit.inputs.contains_key("texts"), is_new, "{}", planned.output);
    }
    // Nothing that is trained reads the new classes' images.
    let new = plan.units.iter().position(|u| u.output.slug == "test-32px-new").unwrap();
    for reader in plan.units.iter().filter(|u| u.depends_on.contains(&new)) {
        let ArtifactId { kind, slug, .. } = &reader.output;
        let is_trained = *kind == ArtifactKind::Checkpoints && !slug.starts_with("texts-");
        let is_of_training = *kind == ArtifactKind::Features && !slug.contains("test");
        assert!(!is_trained && !is_of_training, "{}", reader.output);
    }
}

#[test]
fn methods_that_know_only_their_own_classes_are_refused_with_new_ones() {
    let fixture = Fixture::new();
    let message = fixture.refusal("name = \"small\"", "name = \"small\"\nclass_split = \"base-to-new\"");
    assert!(message.contains("method `linear-probe`") && message.contains("its own classes"), "{message}");
}

#[test]
fn another_data_set_adds_its_images_and_one_evaluation_for_each_run() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("data-manifests/others.toml"), "name = \"others\"").unwrap();
    let before = fixture.plan();
    let table =
        "\n[[transfers]]\ndataset = \"others\"\nsplits = [\"test\"]\nclasses = \"subset\"\nnum_parts = 1\n";
    let text = format!("{}{table}", crate::fixture::PIPELINE);
    std::fs::write(fixture.path("pipeline.toml"), text).unwrap();
    let plan = fixture.plan();
    assert_eq!(plan.pipeline.places(), ["test", "others/test"]);
    assert_eq!(count(&plan, ArtifactKind::Metrics), 2 * count(&before, ArtifactKind::Metrics));
    assert_eq!(count(&plan, ArtifactKind::Checkpoints), count(&before, ArtifactKind::Checkpoints));
    let outputs: BTreeSet<_> = plan.units.iter().map(|u| &u.output).collect();
    assert!(before.units.iter().all(|u| outputs.contains(&u.output)), "keys of the own data set stay");
}

#[test]
fn a_method_may_have_its_own_prompts_and_latents() {
    let fixture = Fixture::new();
    let before = fixture.plan();
    let own = "\n[[methods]]\nname = \"other-prompts\"\nmethod = { kind = \"fine-tune\", preset = \"coupled\" }\n\
               prompts = { kind = \"templates\", templates = [\"one {}\"] }\n\
               \n[[methods]]\nname = \"encoded\"\nmethod = { kind = \"fine-tune\", preset = \"coupled\" }\n\
               encoded_latents = { checkpoint = \"sd-a\", image_size = 32, num_parts = 1 }\n";
    std::fs::write(fixture.path("pipeline.toml"), format!("{}{own}", crate::fixture::PIPELINE)).unwrap();
    let plan = fixture.plan();
    assert_eq!(count(&plan, ArtifactKind::Prompts), 2);
    // The pipeline's, those from the other prompts, and one encoding of each shot list.
    assert_eq!(count(&plan, ArtifactKind::Latents), 2 + 6);
    let outputs: BTreeSet<_> = plan.units.iter().map(|u| &u.output).collect();
    assert!(before.units.iter().all(|u| outputs.contains(&u.output)), "the other methods keep their keys");
}

#[test]
fn the_reference_is_one_of_the_methods_and_changes_no_key() {
    let fixture = Fixture::new();
    let message = fixture.refusal("name = \"small\"", "name = \"small\"\nreference = \"nobody\"");
    assert!(message.contains("reference") && message.contains("`nobody`"), "{message}");
    let text = crate::fixture::PIPELINE;
    std::fs::write(fixture.path("pipeline.toml"), text).unwrap();
    let before = fixture.plan();
    std::fs::write(fixture.path("pipeline.toml"), format!("reference = \"real-only\"\n{text}")).unwrap();
    assert_eq!(fixture.plan().units, before.units);
}

#[test]
fn the_latent_branch_alone_is_trained_on_its_shots_and_evaluated_on_the_latents_of_held_out_images() {
    let fixture = Fixture::new();
    let before = fixture.plan();
    let encoded = "encoded_latents = { checkpoint = \"sd-a\", image_size = 32, num_parts = 1 }\n";
    let method = |name: &str, samples: &str| {
        format!(
            "\n[[methods]]\nname = \"{name}\"\n{encoded}[methods.method]\nkind = \"latent-only\"\n\
             samples = {{ kind = \"{samples}\" }}\n\
             training = {{ epochs = 2, batch_size = 8, learning_rate = 1e-3 }}\n"
        )
    };
    let own = method("on-shots", "shots") + &method("on-generated", "generated");
    std::fs::write(fixture.path("pipeline.toml"), format!("{}{own}", crate::fixture::PIPELINE)).unwrap();
    let plan = fixture.plan();
    let outputs: BTreeSet<_> = plan.units.iter().map(|u| &u.output).collect();
    assert!(before.units.iter().all(|u| outputs.contains(&u.output)), "the other methods keep their keys");
    // The generated ones, one encoding of each shot list, and one of the test split for both methods.
    assert_eq!(count(&plan, ArtifactKind::Latents), 1 + 6 + 1);
    let unit_of = |id: &ArtifactId| &plan.units.iter().find(|u| u.output == *id).unwrap().unit;
    let mut runs = 0;
    for planned in plan.units.iter().filter(|u| u.output.kind == ArtifactKind::Predictions) {
        let Some(latents) = planned.unit.inputs.get("latents") else { continue };
        let held_out = unit_of(latents);
        assert_eq!(held_out.inputs.keys().collect::<Vec<_>>(), ["images"]);
        let run = unit_of(&planned.unit.inputs["checkpoints"]);
        assert_ne!(run.inputs["latents"], *latents, "training reads no held-out latent");
        let is_encoded = run.inputs["latents"].slug.contains("shots");
        assert_eq!(is_encoded, planned.output.slug.starts_with("on-shots"), "{}", planned.output);
        runs += 1;
    }
    assert_eq!(runs, 2 * 2 * 6);
    let refusal = |from: &str, to: &str| {
        let text = format!("{}{own}", crate::fixture::PIPELINE).replace(from, to);
        std::fs::write(fixture.path("pipeline.toml"), text).unwrap();
        Pipeline::read(&fixture.path("pipeline.toml")).unwrap_err().to_string()
    };
    let message = refusal(encoded, "");
    assert!(message.contains("the table `[encoded_latents]`, which method `on-shots` needs"), "{message}");
    let message = refusal("checkpoint = \"sd-a\", image_size", "checkpoint = \"sd-b\", image_size");
    assert!(
        message.contains("expected `sd-a`, which draws the latents of method `on-generated`"),
        "{message}"
    );
}
