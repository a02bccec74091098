//! Commands that look at a store: `status`, `why`, `verify`, `gc`.

use crate::fixture::Fixture;
use std::fs;

#[test]
fn status_works_without_a_store() {
    let fixture = Fixture::new();
    let finished = fixture.run(&["status"]).expect(0);
    assert!(
        finished.stderr.contains(&format!("0 of {} units done", fixture.plan().units.len())),
        "{finished:#?}"
    );
    assert!(!fixture.path("store").exists());
}

#[test]
fn why_names_the_field_that_differs_and_what_follows_from_it() {
    let fixture = Fixture::new();
    fixture.reproduce(&[]).expect(0);
    fixture.edit_pipeline("guidance_scale = 2.0", "guidance_scale = 3.5");
    fixture.prepare();
    let latents = fixture.unit("latents-v1").to_string();
    let text = fixture.run(&["why", &latents]).expect(0).stdout;
    assert!(text.contains("spec.guidance_scale: the store has `2.0`, the plan `3.5`"), "{text}");

    let run = fixture.plan().units[fixture.unit("checkpoints-v1/shapes/flier-paper")].output.slug.clone();
    let text = fixture.run(&["why", "pipelines/quickstart.toml", &run]).expect(0).stdout;
    assert!(text.contains("inputs.latents: the store has `latents-v1/"), "{text}");
    assert!(text.contains("spec.guidance_scale"), "{text}");
}

#[test]
fn why_tells_what_was_never_computed_and_what_is_done() {
    let fixture = Fixture::new();
    assert!(fixture.run(&["why", "0"]).expect(0).stdout.contains("nothing like it was ever computed"));
    fixture.reproduce(&[]).expect(0);
    assert!(fixture.run(&["why", "0"]).expect(0).stdout.contains("does not run"));
    assert!(fixture.run(&["why", "no-such-unit"]).expect(1).stderr.contains("no unit `no-such-unit`"));
}

#[test]
fn verify_lists_damaged_files_and_repair_lets_them_run_again() {
    let fixture = Fixture::new();
    fixture.reproduce(&[]).expect(0);
    let finished = fixture.run(&["verify"]).expect(0);
    assert!(finished.stderr.contains("0 damaged") && finished.stderr.contains("GB/s"), "{finished:#?}");

    let plan = fixture.plan();
    let [flipped, cut, unreadable] = ["images-v1", "prompts-v1", "metrics-v1"].map(|name| fixture.unit(name));
    let part =
        |unit: usize| fixture.store().data_dir(&plan.units[unit].output).join("part-00000-of-00001.parquet");
    let mut bytes = fs::read(part(flipped)).unwrap();
    bytes[3] ^= 1;
    fs::write(part(flipped), &bytes).unwrap();
    fs::write(part(cut), &bytes[..2]).unwrap();
    fs::write(fixture.store().record_path(&plan.units[unreadable].output), "[]").unwrap();
    for arguments in [&["verify"][..], &["verify", "--all"]] {
        let finished = fixture.run(arguments).expect(65);
        assert_eq!(finished.stdout.lines().count(), 3, "{finished:#?}");
        assert!(finished.stdout.contains("blake3 differs") && finished.stdout.contains("length differs"));
        assert!(finished.stdout.contains("not a valid artifact record"), "{finished:#?}");
    }
    fixture.run(&["verify", "--repair"]).expect(65);
    fixture.forget_started();
    fixture.reproduce(&[]).expect(0);
    assert_eq!(fixture.started().iter().filter(|line| line.starts_with("unit-")).count(), 3);
    fixture.run(&["verify"]).expect(0);
}

#[test]
fn a_file_that_no_record_lists_is_damage() {
    let fixture = Fixture::new();
    fixture.reproduce(&[]).expect(0);
    let data = fixture.store().data_dir(&fixture.plan().units[0].output);
    fs::write(data.join("stray.parquet"), "x").unwrap();
    assert!(fixture.run(&["verify"]).expect(65).stdout.contains("stray.parquet` is not in the record"));
}

#[test]
fn gc_removes_only_what_it_lists_and_only_when_told() {
    let fixture = Fixture::new();
    fixture.reproduce(&[]).expect(0);
    let (store, plan) = (fixture.store(), fixture.plan());
    let run = &plan.units[fixture.unit("checkpoints-v1")].output;
    fs::create_dir_all(store.work_dir(run)).unwrap();
    fs::write(store.work_dir(run).join("state"), "12345").unwrap();
    fs::create_dir_all(store.tmp_dir()).unwrap();
    fs::write(store.tmp_dir().join("young.tmp"), "1").unwrap();

    let listed = fixture.run(&["gc"]).expect(0);
    assert!(
        listed.stdout.contains("state of a finished run") && !listed.stdout.contains("young"),
        "{listed:#?}"
    );
    assert!(store.work_dir(run).is_dir());
    assert!(fixture.run(&["gc", "--age", "0s"]).expect(0).stdout.contains("young.tmp"));
    fixture.run(&["gc", "--age", "0s", "--delete"]).expect(0);
    assert!(!store.work_dir(run).exists() && !store.tmp_dir().join("young.tmp").exists());

    fixture.edit_pipeline("guidance_scale = 2.0", "guidance_scale = 3.5");
    let old_latents = &plan.units[fixture.unit("latents-v1")].output;
    fixture.run(&["gc", "--unreferenced", "--delete"]).expect(1);
    assert!(store.contains(old_latents));
    fixture.run(&["gc", "--unreferenced", "--delete", "pipelines/quickstart.toml"]).expect(0);
    assert!(!store.artifact_dir(old_latents).exists());
    assert!(store.contains(&plan.units[fixture.unit("images-v1")].output));
}
