//! The doctor: a row for everything that is not as the manifest says, with what to do.

use std::path::Path;

use dataset_pack::doctor::{Check, Examination, Report, Severity, examine};
use dataset_pack::photo;

use crate::bad_images::{animated, bomb, cmyk, jpeg};
use crate::benchmark_small::{image_bytes, lay_out, manifest};

fn report(root: &Path) -> Report {
    let examination = Examination { root, sample: None, max_pixels: photo::MAX_PIXELS };
    examine(&manifest(), examination, |_, _| {}).unwrap()
}

fn findings(report: &Report, severity: Severity) -> Vec<(Check, String)> {
    let rows = report.rows.iter().filter(|row| row.severity == severity);
    rows.map(|row| (row.check, format!("{}: {}; {}", row.subject, row.finding, row.remedy))).collect()
}

#[test]
fn a_whole_data_set_has_no_problem_in_any_layout() {
    for layout in ["coop", "torchvision", "tar", "zip", "huggingface"] {
        let root = tempfile::tempdir().unwrap();
        lay_out(root.path(), layout);
        let report = report(root.path());
        assert_eq!(report.num_problems(), 0, "{}", report.table());
        assert_eq!(report.layout.as_deref(), Some(layout));
        assert_eq!(report.checked[&Check::Images], 6);
    }
}

#[test]
fn nothing_there_tells_dead_links_and_alternatives() {
    let root = tempfile::tempdir().unwrap();
    let report = report(root.path());
    let problems = findings(&report, Severity::Problem);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].0, Check::Layout);
    for part in [
        "looked in",
        "`images.tar.gz` from http://new.example",
        "http://old.example/images.tar.gz does not work: 404 since ever",
    ] {
        assert!(problems[0].1.contains(part), "{}", problems[0].1);
    }
}

#[test]
fn another_digest_of_an_archive_is_a_row() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), "tgz");
    let problems = findings(&report(root.path()), Severity::Problem);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].0 == Check::Digest && problems[0].1.contains("expected 0000"), "{problems:?}");
}

#[test]
fn every_bad_file_is_a_row_and_unusual_ones_are_notes() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), "coop");
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(root.path().join("small-set/images").join(name), bytes).unwrap();
    };
    put("hot_dog_1.png", &image_bytes("hot_dog_0.png")[..60]);
    put("apple_0.png", &bomb(20_000));
    put("apple_1.png", &jpeg(9, 9));
    put("apple_2.jpg", b"GIF89a");
    put("hot_dog_2.jpg", &cmyk());
    put("extra.png", &animated());
    std::fs::remove_file(root.path().join("small-set/images/hot_dog_0.png")).unwrap();
    let report = report(root.path());
    let problems = findings(&report, Severity::Problem);
    let expect = |check: Check, parts: [&str; 2]| {
        let found =
            problems.iter().any(|(c, text)| *c == check && parts.iter().all(|part| text.contains(part)));
        assert!(found, "{parts:?} in {problems:?}");
    };
    expect(Check::Files, ["hot_dog_0.png", "the image is missing"]);
    expect(Check::Images, ["hot_dog_1.png", "truncated"]);
    expect(Check::Images, ["apple_0.png", "20000 x 20000"]);
    expect(Check::Images, ["apple_2.jpg", "a GIF file"]);
    assert_eq!(problems.len(), 4, "{problems:?}");
    let notes = findings(&report, Severity::Note);
    for part in ["it is a JPEG file named `.png`", "its colours are CMYK", "in no list: 1 image"] {
        assert!(notes.iter().any(|(_, text)| text.contains(part)), "{part} in {notes:?}");
    }
    let table = report.table();
    assert!(table.contains("PROBLEM images") && table.contains("note    images"), "{table}");
}

#[test]
fn a_picture_in_two_splits_is_told() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), "coop");
    let images = root.path().join("small-set/images");
    std::fs::copy(images.join("apple_0.png"), images.join("apple_1.png")).unwrap();
    let notes = findings(&report(root.path()), Severity::Note);
    assert!(
        notes.iter().any(|(check, text)| *check == Check::Duplicates && text.contains("apple_1.png")),
        "{notes:?}"
    );
}

#[test]
fn a_split_file_of_other_entries_names_where_to_get_it() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), "coop");
    let path = root.path().join("split_small.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("apple_1", "apple_9");
    std::fs::write(&path, text).unwrap();
    let problems = findings(&report(root.path()), Severity::Problem);
    assert!(problems[0].0 == Check::SplitFile && problems[0].1.contains("download it again"), "{problems:?}");
}
