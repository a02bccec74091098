//! A pipeline file, expanded to its plan with the repository's manifests and models.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pipeline_spec::{Pipeline, Plan};

fuzz_target!(|data: &[u8]| {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Ok(pipeline) = Pipeline::read(&fuzz::file("pipeline.toml", data)) else { return };
    let _ = Plan::new(pipeline, &repository.join("data-manifests"), &repository.join("models"))
        .map(|plan| plan.id());
});
