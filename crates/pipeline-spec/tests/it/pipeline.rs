//! What a pipeline file refuses.

use crate::fixture::Fixture;

#[test]
fn an_unknown_field_is_refused_with_its_name_and_line() {
    let message = Fixture::new().refusal("num_inference_steps = 4", "num_inference_step = 4");
    assert!(message.contains("unknown field `num_inference_step`"), "{message}");
    assert!(message.contains("num_inference_steps") && message.contains("line "), "{message}");
}

#[test]
fn an_unknown_field_of_a_method_is_refused() {
    let message = Fixture::new().refusal("alpha = [1.0]", "alpha = [1.0], gamma = 2");
    assert!(message.contains("gamma"), "{message}");
}

#[test]
fn a_missing_field_is_refused_with_its_name() {
    let message = Fixture::new().refusal("guidance_scale = 3.0", "");
    assert!(message.contains("missing field `guidance_scale`"), "{message}");
}

#[test]
fn a_seed_given_twice_is_refused() {
    let message = Fixture::new().refusal("seeds = [1, 2, 3]", "seeds = [1, 2, 1]");
    assert!(message.contains("fewshot.seeds") && message.contains("twice"), "{message}");
}

#[test]
fn a_method_without_its_table_is_refused() {
    let message = Fixture::new().refusal("cache_views = { views = 2, scale_min = 0.5 }", "");
    assert!(message.contains("cache_views") && message.contains("tip-adapter-f"), "{message}");
}

/// What is said of the fixture's pipeline with `from` replaced when its plan is made.
fn refusal_of_plan(from: &str, to: &str) -> String {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("pipeline.toml"), crate::fixture::PIPELINE.replace(from, to)).unwrap();
    let pipeline = pipeline_spec::Pipeline::read(&fixture.path("pipeline.toml")).unwrap();
    let result = pipeline_spec::Plan::new(pipeline, &fixture.path("data-manifests"), &fixture.path("models"));
    result.unwrap_err().to_string()
}

#[test]
fn a_value_out_of_range_is_refused_when_the_plan_is_made() {
    let message = refusal_of_plan("label_smoothing = 0.1", "label_smoothing = 1.5");
    assert!(message.contains("method.label_smoothing") && message.contains("1.5"), "{message}");
}

#[test]
fn class_means_are_refused_without_real_images() {
    let message = refusal_of_plan(
        "preset = \"coupled\", head_init = \"zero-shot-text\"",
        "preset = \"generated-only\", head_init = \"class-mean\"",
    );
    assert!(message.contains("method.head_init") && message.contains("class-mean"), "{message}");
}

#[test]
fn a_latent_scale_that_is_not_positive_is_refused() {
    for scale in ["0.0", "-1.0", "inf", "nan"] {
        let message = refusal_of_plan(
            "preset = \"coupled\", head_init = \"zero-shot-text\"",
            &format!("preset = \"coupled\", latent_scale = {scale}"),
        );
        assert!(message.contains("method.generated.latent_scale"), "{scale}: {message}");
    }
}

#[test]
fn the_cluster_table_changes_neither_keys_nor_the_plan() {
    let fixture = Fixture::new();
    let before = fixture.plan();
    let table = "\n[cluster]\ntask_minutes = 5\n[cluster.stages.trainer]\ngpus = 1\ndevice = \"cuda:0\"\n";
    std::fs::write(fixture.path("pipeline.toml"), format!("{}{table}", crate::fixture::PIPELINE)).unwrap();
    let after = fixture.plan();
    assert!(after.pipeline.cluster.is_some());
    assert_eq!((after.id(), after.units), (before.id(), before.units));
}

#[test]
fn an_unknown_field_of_the_cluster_table_is_refused() {
    let message = Fixture::new().refusal("[images]", "[cluster.resources]\ngpu = 1\n\n[images]");
    assert!(message.contains("unknown field `gpu`"), "{message}");
}
