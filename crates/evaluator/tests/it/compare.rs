//! Two runs, or two plans, side by side.

use evaluator::compare::{Side, report};
use pipeline_spec::{Plan, StageSpec, Store};

use crate::synthetic::{fill, plan, plan_with};

/// The `metrics` artifact of the run `slug`.
fn metrics(plan: &Plan, slug: &str) -> String {
    let is_wanted = |p: &&pipeline_spec::PlannedUnit| {
        matches!(p.unit.spec, StageSpec::Metrics(_)) && p.output.slug == slug
    };
    plan.units.iter().find(is_wanted).unwrap().output.to_string()
}

#[test]
fn two_runs_are_paired_whatever_their_names_are() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    fill(&plan, &store, |_| true);
    let open = |slug: &str| Side::open(&metrics(&plan, slug), &store).unwrap();
    let text = report(&open("real-only-clip-a-shots4-seed1"), &open("flier-coupled-clip-a-shots4-seed1"));
    assert!(text.contains("Cells in both: 2; 0 equal, 2 different; 0 in A only, 0 in B only."), "{text}");
    // 2 + 2 + 1 = 5 of 10 against 6 of 10 in each of three classes.
    assert!(
        text.contains(
            "| flier-coupled, clip-a, 4 shots, seed 1, `test` | top1 | 0.5000 | 0.6000 | +0.1000 |"
        ),
        "{text}"
    );
    assert!(text.contains("### Difference to A on `test`, clip-a") && text.contains("+10.0 ("), "{text}");
    // Three images that only B gets right: p = 2 / 2^3.
    assert!(text.contains("| flier-coupled | 3:0 p = 0.25 |"), "{text}");
    assert!(text.contains("| `checkpoints.method_name` | real-only | flier-coupled |"), "{text}");
    assert!(text.contains("| `checkpoints.method.generated.kind` | none | images-and-latents |"), "{text}");
    assert!(text.contains("| `latents.guidance_scale` | – | 3.0 |"), "{text}");
    assert!(!text.contains("`checkpoints.run`"), "names of runs are no settings: {text}");
}

#[test]
fn equal_plans_have_no_difference_and_another_setting_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    let other = plan_with(folder.path(), |pipeline| {
        pipeline.training.as_mut().unwrap().latent_factor = 0.2;
        pipeline.fewshot.seeds.truncate(2);
    });
    for plan in [&plan, &other] {
        fill(plan, &store, |unit| !store.contains(&unit.output()));
    }
    let write = |name: &str, plan: &Plan| {
        let path = folder.path().join(name);
        std::fs::write(&path, serde_json::to_vec(plan).unwrap()).unwrap();
        Side::open(path.to_str().unwrap(), &store).unwrap()
    };
    let (a, b) = (write("a.json", &plan), write("b.json", &other));
    let text = report(&a, &a);
    // 91 runs on two splits.
    assert!(text.contains("Cells in both: 182; 182 equal, 0 different; 0 in A only, 0 in B only."), "{text}");
    assert!(text.contains("None: the settings are the same."), "{text}");
    assert!(!text.contains("Figures that differ"));
    let text = report(&a, &b);
    // 30 runs of the third seed are in A only, on two splits.
    assert!(
        text.contains("Cells in both: 122; 122 equal, 0 different; 60 in A only, 0 in B only."),
        "{text}"
    );
    assert!(text.contains("| `training.latent_factor` | 0.5 | 0.2 |"), "{text}");
    assert!(text.contains("| `fewshot.seeds` | [1,2,3] | [1,2] |"), "{text}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, store) = (plan(folder.path()), Store::new(folder.path().join("store")));
    let images = plan.units[0].output.to_string();
    let message = Side::open(&images, &store).unwrap_err().to_string();
    assert!(message.contains("compare `predictions` or `metrics` artifacts, or plan files"), "{message}");
    let message = Side::open("no-such-file", &store).unwrap_err().to_string();
    assert!(message.contains("no-such-file"), "{message}");
}
