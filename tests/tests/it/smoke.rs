//! The whole pipeline on the smallest settings, and what a second run does.

use pipeline_spec::ArtifactKind;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::bench::{Bench, expect_code, text};

/// Modification time of every record of a store.
fn record_times(bench: &Bench) -> BTreeMap<PathBuf, SystemTime> {
    let store = bench.store();
    let paths = bench.plan().units.into_iter().map(|u| store.record_path(&u.output));
    paths.filter_map(|p| Some((p.clone(), p.metadata().ok()?.modified().ok()?))).collect()
}

#[test]
fn the_smoke_pipeline_runs_is_cached_repairs_one_part_and_opens_in_other_tools() {
    let bench = Bench::smoke();
    let plan = bench.plan();
    expect_code(&bench.reproduce(), 0);
    let first = bench.contents();
    let store = bench.store();
    for planned in &plan.units {
        assert!(store.contains(&planned.output), "{}", planned.output);
        let record = store.record(&planned.output).unwrap();
        assert_eq!(record.unit, planned.unit);
    }
    for file in [
        "report.html",
        "report.md",
        "results.csv",
        "summary.csv",
        "accuracy-over-shots.svg",
        "accuracy-over-shots.png",
    ] {
        let path = bench.folder.path().join("report").join(file);
        assert!(path.is_file(), "{}", path.display());
    }

    // A second run writes nothing.
    let times = record_times(&bench);
    expect_code(&bench.reproduce(), 0);
    assert_eq!(record_times(&bench), times);

    // A lost part is written again with the same bytes, and nothing else is.
    let latents = plan.units.iter().find(|u| u.output.kind == ArtifactKind::Latents).unwrap();
    let part = store.data_dir(&latents.output).join(first[&latents.output].keys().next().unwrap());
    std::fs::remove_file(&part).unwrap();
    assert!(!store.contains(&latents.output));
    expect_code(&bench.reproduce(), 0);
    assert_eq!(bench.contents(), first);
    let mut others = record_times(&bench);
    others.remove(&store.record_path(&latents.output));
    assert!(others.iter().all(|(path, time)| times[path] == *time));

    // A flipped byte is found by name.
    expect_code(&bench.command("verify", &[]).output().unwrap(), 0);
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, &bytes).unwrap();
    let output = bench.command("verify", &[]).output().unwrap();
    expect_code(&output, 65);
    let name = part.file_name().unwrap().to_str().unwrap();
    assert!(text(&output).contains(name) && text(&output).contains("blake3"), "{}", text(&output));
    bytes[middle] ^= 1;
    std::fs::write(&part, &bytes).unwrap();

    // Every Parquet artifact of this run reads the same in five other tools.
    crate::arrow_tools::compare_store(store.root());
}
