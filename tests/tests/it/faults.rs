//! Faults of the place where a store lies: clocks that jump, files that vanish, and eight writers at once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use pipeline_spec::{ArtifactKind, Store};

use crate::bench::{Bench, bin_dir, binary, expect_code, files_of, repository, text};

/// The command that computes unit `index`, and the store that it should leave.
fn packing() -> (Bench, usize) {
    let bench = Bench::smoke();
    let plan = bench.plan();
    let index = plan.units.iter().position(|planned| planned.output.kind == ArtifactKind::Images).unwrap();
    expect_code(&bench.command("plan", &[]).output().unwrap(), 0);
    expect_code(&bench.unit_command(&plan.id(), index).output().unwrap(), 0);
    (bench, index)
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn times_far_in_the_past_or_the_future_change_nothing() {
    let (bench, index) = packing();
    let store = bench.store();
    let times = [SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_secs(3650 * 86_400)];
    for (path, time) in files(store.root()).iter().zip(times.iter().cycle()) {
        File::options().append(true).open(path).unwrap().set_modified(*time).unwrap();
    }
    for (name, time) in [("of-the-past.tmp", times[0]), ("of-the-future.tmp", times[1])] {
        File::create(store.tmp_dir().join(name)).unwrap().set_modified(time).unwrap();
    }
    let id = &bench.plan().units[index].output;
    let before = fs::metadata(store.record_path(id)).unwrap().modified().unwrap();
    expect_code(&bench.unit_command(&bench.plan().id(), index).output().unwrap(), 0);
    assert_eq!(fs::metadata(store.record_path(id)).unwrap().modified().unwrap(), before, "it ran again");
    expect_code(&bench.command("verify", &[]).output().unwrap(), 0);
    expect_code(&bench.command("status", &[]).output().unwrap(), 0);
    // A file from the future may belong to a writer that is alive.
    expect_code(&bench.command("gc", &["--delete"]).output().unwrap(), 0);
    let left: Vec<_> = files(&store.tmp_dir());
    assert!(left.len() == 1 && left[0].ends_with("of-the-future.tmp"), "{left:?}");
}

#[test]
fn an_input_that_vanishes_under_a_stage_is_named_with_exit_code_65() {
    let (bench, index) = packing();
    let (plan, store) = (bench.plan(), bench.store());
    let images = &plan.units[index].output;
    let part = store.data_dir(images).join("part-00001-of-00002.parquet");
    fs::remove_file(&part).unwrap();
    let reader =
        plan.units.iter().position(|planned| planned.output.kind == ArtifactKind::FewshotSplits).unwrap();
    let spec = store.plan_dir(&plan.id()).join(format!("unit-{reader:05}.json"));
    let mut stage = Command::new(binary("dataset-pack"));
    stage.current_dir(repository()).arg("--spec").arg(spec).arg("--store").arg(store.root());
    let output = stage.args(["--manifests", "data-manifests", "--data", "data"]).output().unwrap();
    expect_code(&output, 65);
    assert!(text(&output).contains(part.file_name().unwrap().to_str().unwrap()), "{}", text(&output));
    assert!(!store.artifact_dir(&plan.units[reader].output).join("artifact.json").exists());
}

/// Parts of the artifact for which processes race.
const NUM_PARTS: u32 = 64;

/// Starts a writer for each of `shards`, all on one store; gives the store when they have ended.
fn race(folder: &Path, name: &str, shards: &[String]) -> Store {
    let plan = Bench::smoke().plan();
    let prompts = plan.units.iter().find(|planned| planned.output.kind == ArtifactKind::Prompts).unwrap();
    let unit_file = folder.join("unit.json");
    fs::write(&unit_file, serde_json::to_vec(&prompts.unit).unwrap()).unwrap();
    let store = Store::new(folder.join(name));
    let start = |shard: &String| {
        let mut writer = Command::new(bin_dir().join("publisher"));
        writer.arg(&unit_file).arg(store.root()).args([&NUM_PARTS.to_string(), shard]);
        writer.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let writers: Vec<_> = shards.iter().map(start).collect();
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        expect_code(&output, 0);
        assert_eq!(text(&output), "0\n", "parts with other content");
    }
    let record = store.record(&prompts.output).unwrap();
    assert_eq!((record.parts.len(), record.rows), (NUM_PARTS as usize, u64::from(NUM_PARTS) * 50));
    assert!(record.parts.iter().all(|part| part.verify(&store.data_dir(&record.id)).is_ok()));
    assert_eq!(fs::read_dir(store.tmp_dir()).unwrap().count(), 0, "unfinished files");
    store
}

#[test]
fn eight_processes_on_the_same_or_on_different_shards_leave_the_store_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let prompts = ArtifactKind::Prompts;
    let id = Bench::smoke()
        .plan()
        .units
        .into_iter()
        .find(|planned| planned.output.kind == prompts)
        .unwrap()
        .output;
    let one = race(folder.path(), "one", &["0/1".to_owned()]);
    let same = race(folder.path(), "same", &vec!["0/1".to_owned(); 8]);
    let different = race(folder.path(), "different", &(0..8).map(|i| format!("{i}/8")).collect::<Vec<_>>());
    assert_eq!(files_of(&same, &id), files_of(&one, &id));
    assert_eq!(files_of(&different, &id), files_of(&one, &id));
}
