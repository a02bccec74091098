//! Several processes on one store, and processes that are killed: the store is that of one undisturbed run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use pipeline_spec::{Store, Unit};
use rand_core::{Rng as _, SeedableRng as _};

use crate::Place;
use crate::binary::{command, long_unit, message};

/// Every file of the artifact by its path, except `artifact.json`, which says when and where.
fn files(store: &Store, unit: &Unit) -> BTreeMap<String, Vec<u8>> {
    let id = unit.output();
    let mut files = BTreeMap::new();
    for folder in [store.data_dir(&id), store.commit_dir(&id)] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            files.insert(
                path.strip_prefix(store.root()).unwrap().display().to_string(),
                std::fs::read(&path).unwrap(),
            );
        }
    }
    let parts = store.record(&id).unwrap().parts;
    assert_eq!(files.len(), 2 * parts.len(), "one file and one side record for each part");
    files
}

fn spawn(spec: &Path, store: &Store, weights: &Path, shard: &str) -> Child {
    command(spec, store, weights).args(["--shard", shard]).stdout(Stdio::null()).spawn().unwrap()
}

fn undisturbed(place: &Place) -> BTreeMap<String, Vec<u8>> {
    let (store, unit, spec) = long_unit(place, "whole");
    let output = command(&spec, &store, &place.weights()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    files(&store, &unit)
}

#[test]
#[allow(clippy::print_stderr)]
fn runs_killed_at_any_moment_leave_the_bytes_of_one_undisturbed_run() {
    let place = Place::new();
    let expected = undisturbed(&place);
    let (store, unit, spec) = long_unit(&place, "killed");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut kills = 0;
    while !store.contains(&unit.output()) {
        let mut child = spawn(&spec, &store, &place.weights(), "0/1");
        // Early kills hit the start, late ones the middle of a part or of its publication; later ones come later, so that a
        // slow machine gets on too.
        let range = 120 + 50 * kills;
        std::thread::sleep(Duration::from_millis(u64::from(30 + random.next_u32() % range)));
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    eprintln!("{kills} runs were killed");
    assert!(kills >= 3, "{kills} runs were killed");
    assert!(files(&store, &unit) == expected, "other files than those of the undisturbed run");
}

#[test]
fn three_processes_on_one_or_on_different_shards_leave_the_same_bytes() {
    let place = Place::new();
    let expected = undisturbed(&place);
    for (name, shards) in [("different", ["0/3", "1/3", "2/3"]), ("same", ["0/1"; 3])] {
        let (store, unit, spec) = long_unit(&place, name);
        let children = shards.map(|shard| spawn(&spec, &store, &place.weights(), shard));
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{name}: {}", message(&output));
            assert!(!message(&output).contains("other content"), "{name}: {}", message(&output));
        }
        assert!(files(&store, &unit) == expected, "{name}: other files than those of one process");
        let left = std::fs::read_dir(store.tmp_dir()).unwrap().count();
        assert_eq!(left, 0, "{name}: temporary files are gone");
    }
}

#[test]
fn a_half_written_part_and_a_damaged_one_are_made_again() {
    let place = Place::new();
    let expected = undisturbed(&place);
    let (store, unit, spec) = long_unit(&place, "whole");
    let id = unit.output();
    std::fs::remove_file(store.record_path(&id)).unwrap();
    let mut parts: Vec<_> =
        std::fs::read_dir(store.data_dir(&id)).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    // Truncated after its side record was written, flipped in one bit, and gone.
    let bytes = std::fs::read(&parts[0]).unwrap();
    std::fs::write(&parts[0], &bytes[..bytes.len() / 2]).unwrap();
    let mut bytes = std::fs::read(&parts[3]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&parts[3], bytes).unwrap();
    std::fs::remove_file(&parts[5]).unwrap();
    std::fs::write(store.tmp_dir().join("part-00007-of-00024-parquet-1-x.tmp"), "half").unwrap();
    let output = command(&spec, &store, &place.weights()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    assert!(files(&store, &unit) == expected);
}
