//! Resume, shards and writers that race.

use std::fs;
use std::sync::Barrier;
use std::time::Instant;

use artifacts::{Outcome, PromptRow, Shard};
use pipeline_spec::ArtifactKind;

use crate::rows;
use crate::store::{TempStore, finished};

/// Prompts of part `part`; every part has every class.
fn rows_of(part: u32) -> Vec<PromptRow> {
    let numbered = |mut row: PromptRow| {
        row.prompt_index = part;
        row
    };
    rows::prompts().into_iter().map(numbered).collect()
}

#[test]
fn finished_parts_are_skipped_and_shards_meet_on_disk() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Prompts);
    let (even, odd) = (Shard::new(0, 2).unwrap(), Shard::new(1, 2).unwrap());
    let first = store.writer(&unit, 5);
    assert_eq!(first.missing_parts(even), [0, 2, 4]);
    for part in first.missing_parts(even) {
        first.write_part(part, &rows_of(part), &rows::class_info()).unwrap();
    }
    assert_eq!(first.finish("none", Instant::now()).unwrap(), Outcome::PartsMissing(vec![1, 3]));
    assert!(!store.store.contains(first.id()));
    let second = store.writer(&unit, 5);
    assert_eq!(second.missing_parts(even), Vec::<u32>::new());
    assert_eq!(second.missing_parts(odd), [1, 3]);
    for part in second.missing_parts(odd) {
        second.write_part(part, &rows_of(part), &rows::class_info()).unwrap();
    }
    let record = finished(second.finish("none", Instant::now()).unwrap());
    let read = store.reader(&record.id).rows::<PromptRow>().unwrap();
    assert_eq!(read, (0..5).flat_map(rows_of).collect::<Vec<_>>());
}

#[test]
fn a_damaged_part_is_computed_again() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Prompts);
    let writer = store.writer(&unit, 2);
    for part in 0..2 {
        writer.write_part(part, &rows_of(part), &rows::class_info()).unwrap();
    }
    let path = store.store.data_dir(writer.id()).join("part-00001-of-00002.parquet");
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    let again = store.writer(&unit, 2);
    assert_eq!(again.missing_parts(Shard::default()), [1]);
    again.write_part(1, &rows_of(1), &rows::class_info()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), good);
    finished(again.finish("none", Instant::now()).unwrap());
}

#[test]
fn a_part_whose_writer_died_before_its_side_record_is_taken_over() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Prompts);
    let writer = store.writer(&unit, 1);
    let first = writer.write_part(0, &rows_of(0), &rows::class_info()).unwrap();
    fs::remove_file(store.store.commit_dir(writer.id()).join("part-00000-of-00001.json")).unwrap();
    let again = store.writer(&unit, 1);
    assert_eq!(again.missing_parts(Shard::default()), [0]);
    assert_eq!(
        again.write_part(0, &rows_of(9), &rows::class_info()).unwrap(),
        first,
        "the first content stays"
    );
    assert_eq!(again.conflicts().len(), 1);
    finished(again.finish("none", Instant::now()).unwrap());
}

#[test]
fn racing_writers_commit_each_part_once() {
    const WRITERS: u32 = 8;
    const PARTS: u32 = 24;
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Prompts);
    let barrier = Barrier::new(WRITERS as usize);
    std::thread::scope(|scope| {
        for writer_index in 0..WRITERS {
            let (store, unit, barrier) = (&store, &unit, &barrier);
            scope.spawn(move || {
                let writer = store.writer(unit, PARTS);
                barrier.wait();
                for step in 0..PARTS {
                    let part = (step * 5 + writer_index * 3) % PARTS;
                    writer.write_part(part, &rows_of(part), &rows::class_info()).unwrap();
                }
                finished(writer.finish("none", Instant::now()).unwrap());
                assert_eq!(writer.conflicts(), []);
            });
        }
    });
    let id = unit.output();
    assert_eq!(fs::read_dir(store.store.data_dir(&id)).unwrap().count(), PARTS as usize);
    assert_eq!(store.unfinished(), Vec::<String>::new());
    let read = store.reader(&id).rows::<PromptRow>().unwrap();
    assert_eq!(read, (0..PARTS).flat_map(rows_of).collect::<Vec<_>>());
}

#[test]
fn of_two_different_results_the_first_stays_and_the_second_is_told() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Prompts);
    let (first, second) = (store.writer(&unit, 1), store.writer(&unit, 1));
    let kept = first.write_part(0, &rows_of(0), &rows::class_info()).unwrap();
    assert_eq!(second.write_part(0, &rows_of(1), &rows::class_info()).unwrap(), kept);
    let conflicts = second.conflicts();
    assert_eq!(conflicts.len(), 1);
    assert_eq!((&conflicts[0].file, &conflicts[0].kept), (&kept.file, &kept.blake3));
    assert_ne!(conflicts[0].dropped, kept.blake3);
    let record = finished(second.finish("none", Instant::now()).unwrap());
    assert_eq!(store.reader(&record.id).rows::<PromptRow>().unwrap(), rows_of(0));
}

#[test]
fn a_finished_artifact_is_finished_again_with_the_first_record() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Prompts);
    let first = store.write(&unit, &rows_of(0), &rows::class_info());
    let again = store.writer(&unit, 1);
    assert_eq!(finished(again.finish("another device", Instant::now()).unwrap()), first);
}

#[test]
fn a_lost_part_that_comes_out_differently_gets_a_new_record() {
    let store = TempStore::new();
    let unit = rows::unit(ArtifactKind::Prompts);
    let first = store.write(&unit, &rows_of(0), &rows::class_info());
    fs::remove_file(store.part(&first)).unwrap();
    let second = store.write(&unit, &rows_of(1), &rows::class_info());
    assert_ne!(first.parts, second.parts);
    assert_eq!(store.reader(&second.id).rows::<PromptRow>().unwrap(), rows_of(1));
}

#[test]
fn a_store_that_cannot_be_written_is_an_error_with_path_and_free_space() {
    let store = TempStore::new();
    fs::write(store.scratch().join("store"), b"a file where the folder should be").unwrap();
    let unit = rows::unit(ArtifactKind::Prompts);
    let error = artifacts::ArtifactWriter::open(&store.store, &unit, 1, artifacts::FileContext::new("1"))
        .unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("cannot write `") && message.contains("MiB free there"), "{message}");
}
