//! A data manifest. Whatever it says, its sources lie below the data folder.

#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use pipeline_spec::data_manifest::DataManifest;

fuzz_target!(|data: &[u8]| {
    let Ok((manifest, _)) = DataManifest::read(&fuzz::file("manifest.toml", data)) else { return };
    for source in &manifest.sources {
        let path = manifest.source_path(Path::new("data"), source);
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{}", path.display());
    }
    let _ = (manifest.class_names(), manifest.expected());
});
