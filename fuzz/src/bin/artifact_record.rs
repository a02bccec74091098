//! `artifact.json`: read by the name that it gives itself, then every file that it lists is looked for.

#![no_main]

use std::path::Component;

use artifacts::ArtifactReader;
use libfuzzer_sys::fuzz_target;
use pipeline_spec::{ArtifactId, Store};

fuzz_target!(|data: &[u8]| {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let name = json.get("id").and_then(serde_json::Value::as_str);
    let Some(id) = name.and_then(|name| name.parse::<ArtifactId>().ok()) else { return };
    let store = Store::new(fuzz::folder().join("store"));
    let path = store.record_path(&id);
    let below = path.strip_prefix(store.root()).expect("a record lies below its store");
    assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{}", path.display());
    // A name may be longer than the file system allows.
    if std::fs::create_dir_all(store.artifact_dir(&id)).is_err() || std::fs::write(&path, data).is_err() {
        return;
    }
    if let Ok(reader) = ArtifactReader::open(&store, &id) {
        for part in &reader.record().parts {
            assert!(!part.file.contains('/'), "{}", part.file);
            let _ = reader.file_path(&part.file);
        }
        let _ = (store.contains(&id), reader.record().content_digest());
    }
    std::fs::remove_dir_all(store.root()).expect("the store is removed");
});
