//! `inspect`, `export` and `import`.

use crate::fixture::{Fixture, files};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A repository where everything was computed.
fn finished() -> Fixture {
    let fixture = Fixture::new();
    fixture.reproduce(&[]).expect(0);
    fixture
}

/// An empty repository: no store, no models, no manifests, no pipelines.
fn elsewhere() -> Fixture {
    let fixture = Fixture::new();
    for folder in ["models", "data-manifests", "pipelines"] {
        fs::remove_dir_all(fixture.path(folder)).unwrap();
    }
    fixture
}

#[test]
fn inspect_lists_every_artifact_and_shows_one() {
    let fixture = finished();
    let plan = fixture.plan();
    let list = fixture.run(&["inspect"]).expect(0);
    assert_eq!(list.stdout.lines().count(), plan.units.len() + 1, "{list:#?}");
    let latents = &plan.units[fixture.unit("latents-v1")].output;
    let only = fixture.run(&["inspect", "--kind", "latents", "--json"]).expect(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&only).unwrap();
    assert_eq!(json[0]["id"], latents.to_string());
    assert_eq!(json[0]["size_bytes"], format!("content of {latents}").len());
    let summary = fixture.run(&["inspect", "--summary"]).expect(0).stdout;
    assert_eq!(summary.lines().count(), 9, "a line for each of eight kinds: {summary}");
    let shown = fixture.run(&["inspect", &latents.key.as_str()[..10]]).expect(0).stdout;
    for part in
        [latents.to_string().as_str(), "guidance_scale = 2.0", "input    prompts: prompts-v1/", "data/part-"]
    {
        assert!(shown.contains(part), "no `{part}` in {shown}");
    }
    fixture.run(&["inspect", "ffffffffff"]).expect(1);
}

#[test]
fn a_result_that_is_exported_has_the_same_keys_and_bytes_elsewhere() {
    let fixture = finished();
    for out in ["bundle", "bundle.tar.zst"] {
        fixture.run(&["export", "pipelines/quickstart.toml", "--out", out]).expect(0);
        let other = elsewhere();
        let bundle = fixture.path(out).display().to_string();
        let finished = other.run(&["import", &bundle]).expect(0);
        assert!(finished.stderr.contains("has the same keys here"), "{finished:#?}");
        assert_eq!(other.plan(), fixture.plan());
        for planned in &fixture.plan().units {
            let data = |fixture: &Fixture| {
                files(&fixture.store().data_dir(&planned.output)).into_values().collect::<Vec<_>>()
            };
            assert!(other.store().contains(&planned.output));
            assert_eq!(data(&other), data(&fixture), "{}", planned.output);
        }
        other.run(&["verify"]).expect(0);
        assert_eq!(fs::read_dir(other.store().tmp_dir()).unwrap().count(), 0);
        // People share a store.
        let record = other.store().record_path(&fixture.plan().units[0].output);
        assert_eq!(fs::metadata(record).unwrap().permissions().mode() & 0o444, 0o444);
        let again = other.run(&["import", &bundle]).expect(0);
        assert!(again.stderr.contains(" 0 of them new"), "{again:#?}");
    }
}

#[test]
fn an_artifact_is_exported_with_all_that_it_was_made_from() {
    let fixture = finished();
    let plan = fixture.plan();
    let latents = &plan.units[fixture.unit("latents-v1")];
    fixture.run(&["export", &latents.output.to_string(), "--out", "one.tar.zst"]).expect(0);
    fixture.run(&["export", latents.output.key.as_str(), "--out", "one.tar.zst"]).expect(1);
    let other = elsewhere();
    other.run(&["import", fixture.path("one.tar.zst").to_str().unwrap()]).expect(0);
    assert!(other.store().contains(&latents.output));
    assert!(latents.unit.inputs.values().all(|input| other.store().contains(input)));
    assert!(other.path("models/small-sd/unet/config.json").is_file());
    assert!(!other.path("models/small-clip").exists());
    assert!(other.path("data-manifests/shapes.toml").is_file());
    assert_eq!(other.run(&["inspect"]).expect(0).stdout.lines().count(), 3);
}

#[test]
fn a_damaged_bundle_is_refused_before_anything_is_put_in_place() {
    let fixture = finished();
    fixture.run(&["export", "pipelines/quickstart.toml", "--out", "bundle"]).expect(0);
    let id = fixture.plan().units[fixture.unit("metrics-v1")].output.to_string();
    let part = fixture.path(&format!("bundle/store/{id}/data/part-00000-of-00001.parquet"));
    let mut bytes = fs::read(&part).unwrap();
    bytes[0] ^= 1;
    fs::write(&part, bytes).unwrap();
    let other = elsewhere();
    let finished = other.run(&["import", fixture.path("bundle").to_str().unwrap()]).expect(65);
    assert!(finished.stderr.contains("blake3 differs") && finished.stderr.contains(&id), "{finished:#?}");
    assert!(!other.path("models").exists() && !other.store().root().join("metrics-v1").exists());
}

#[test]
fn a_bundle_changes_nothing_that_is_there_with_other_content() {
    let fixture = finished();
    fixture.run(&["export", "pipelines/quickstart.toml", "--out", "bundle"]).expect(0);
    let other = Fixture::new();
    fs::write(other.path("models/small-clip/config.json"), "{\"other\": 1}").unwrap();
    let finished = other.run(&["import", fixture.path("bundle").to_str().unwrap()]).expect(1);
    assert!(finished.stderr.contains("small-clip") && finished.stderr.contains("expected"), "{finished:#?}");
    assert_eq!(fs::read_to_string(other.path("models/small-clip/config.json")).unwrap(), "{\"other\": 1}");
}

#[test]
fn an_archive_that_leads_out_of_its_folder_is_refused() {
    let fixture = Fixture::new();
    let mut tar = Vec::new();
    let mut builder = tar::Builder::new(&mut tar);
    let mut header = tar::Header::new_gnu();
    let name = b"../escaped";
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.set_size(1);
    header.set_cksum();
    builder.append(&header, &b"x"[..]).unwrap();
    builder.finish().unwrap();
    drop(builder);
    fs::write(fixture.path("evil.tar.zst"), zstd::encode_all(&tar[..], 1).unwrap()).unwrap();
    let finished = fixture.run(&["import", "evil.tar.zst"]).expect(1);
    assert!(finished.stderr.contains("leads out"), "{finished:#?}");
    assert!(!fixture.path("store/tmp/escaped").exists() && !fixture.path("store/escaped").exists());
}
